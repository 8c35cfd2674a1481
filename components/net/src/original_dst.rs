//! Where a connection was going before iptables redirected it here.

use std::net::SocketAddr;

use tokio::net::TcpStream;

use crate::OriginalDst;

/// Reads `SO_ORIGINAL_DST`. None when the connection was not redirected: with connection tracking on, the kernel then
/// answers with our own address, and without it with an error.
#[cfg(target_os = "linux")]
pub(crate) fn original_dst(tcp: &TcpStream, local: SocketAddr) -> Option<OriginalDst> {
    let socket = socket2::SockRef::from(tcp);
    let dst = match local.ip().to_canonical().is_ipv4() {
        true => socket.original_dst_v4(),
        false => socket.original_dst_v6(),
    };
    let dst = dst.ok()?.as_socket()?;
    (dst != local).then_some(OriginalDst(dst))
}

/// Other systems have no such redirect.
#[cfg(not(target_os = "linux"))]
pub(crate) fn original_dst(_: &TcpStream, _: SocketAddr) -> Option<OriginalDst> {
    None
}
