//! Real sockets.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use futures::future::{BoxFuture, FutureExt};
use socket2::{Domain, Protocol, SockRef, Socket, TcpKeepalive, Type};
use tokio::net::{TcpListener, TcpSocket, TcpStream};

use crate::{
    Accepted, Io, Listener, LocalAddr, Net, Network, PeerAddr, Resolved, dns::Dns, original_dst::original_dst,
};

/// Connections the kernel may hold for us before we accept them; capped by net.core.somaxconn.
const BACKLOG: i32 = 4096;

/// A peer that vanished without a word, because its node died or a firewall forgot the connection, is noticed a minute after
/// it was last heard: the application's own keepalive ends at its proxy, and would never notice. Idle entries of firewalls and
/// load balancers live for minutes.
///
/// TCP_USER_TIMEOUT is left alone: since Linux 5.11 it also ends connections to a peer that is well and does not read, which
/// without us may last.
const KEEPALIVE: TcpKeepalive = TcpKeepalive::new()
    .with_time(Duration::from_secs(30))
    .with_interval(Duration::from_secs(10))
    .with_retries(3);

/// How often a port apart is tried before any will do. The kernel offers those that serve other destinations too, a quarter
/// of all: when half of them serve this destination already, one in 65,000 connections gets another.
const TRIES_APART: usize = 16;

/// The machine's own network.
#[derive(Default)]
pub struct TokioNetwork {
    source: Option<IpAddr>,
    is_apart: bool,
    dns: Dns,
}

impl TokioNetwork {
    /// The machine's network, as every binary uses it.
    pub fn shared() -> Net {
        Arc::new(Self::default())
    }

    /// The machine's network with every outgoing connection leaving from `source`, which is what makes a loopback
    /// address look like a pod.
    pub fn from_source(source: IpAddr) -> Self {
        Self { source: Some(source), ..Self::default() }
    }

    /// The network of a pod whose applications are redirected to us, with outgoing connections that leave from other ports
    /// than theirs as long as there are any.
    ///
    /// The kernel decides with the first packet of a connection whether it is redirected, and takes what comes from the same
    /// port for the same destination for the same connection. One of ours that nobody answered is remembered for two minutes:
    /// an application that is given its port meanwhile would go past us, in plaintext. The kernel helps: for sockets that are
    /// bound before they connect it prefers the ports of the other parity than for those that are not
    /// (`inet_csk_find_open_port` and `__inet_hash_connect`, since Linux 4.5). Not tracking our first packets
    /// would not do: the second would then be taken for what is left of a connection of the application.
    pub fn beside_applications() -> Net {
        Arc::new(Self { is_apart: true, ..Self::default() })
    }

    async fn connect_apart(addr: SocketAddr) -> io::Result<TcpStream> {
        for _ in 0..TRIES_APART {
            let socket = socket_for(addr)?;
            // Connections to different destinations may share a port, as those of unbound sockets do.
            socket.set_reuseaddr(true)?;
            let any =
                if addr.is_ipv4() { Ipv4Addr::UNSPECIFIED.into() } else { Ipv6Addr::UNSPECIFIED.into() };
            if socket.bind(SocketAddr::new(any, 0)).is_err() {
                break;
            }
            match socket.connect(addr).await {
                // The port serves another connection to the same destination.
                Err(error) if error.kind() == io::ErrorKind::AddrNotAvailable => {}
                connected => return connected,
            }
        }
        socket_for(addr)?.connect(addr).await
    }
}

fn socket_for(addr: SocketAddr) -> io::Result<TcpSocket> {
    if addr.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }
}

impl Network for TokioNetwork {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let listener = listen(addr)?;
            let local = SocketAddr::new(addr.ip(), listener.local_addr()?.port());
            Ok(Box::new(TokioListener { listener, local }) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Io>> {
        async move {
            let tcp = match self.source.filter(|source| source.is_ipv4() == addr.is_ipv4()) {
                Some(source) => {
                    let socket = socket_for(addr)?;
                    socket.bind(SocketAddr::new(source, 0))?;
                    socket.connect(addr).await?
                }
                None if self.is_apart => Self::connect_apart(addr).await?,
                None => socket_for(addr)?.connect(addr).await?,
            };
            set_options(&tcp)?;
            Ok(Io::Tcp(tcp))
        }
        .boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        self.dns.resolve(host).boxed()
    }
}

fn listen(addr: SocketAddr) -> io::Result<TcpListener> {
    if addr.ip() == IpAddr::V4(Ipv4Addr::UNSPECIFIED) {
        // A pod that others reach by IPv6 is reached by whatever listens on all its addresses. A kernel may lack IPv6.
        let every = SocketAddr::new(Ipv6Addr::UNSPECIFIED.into(), addr.port());
        return listen_on(every).or_else(|_| listen_on(addr));
    }
    listen_on(addr)
}

fn listen_on(addr: SocketAddr) -> io::Result<TcpListener> {
    let socket = Socket::new(Domain::for_address(addr), Type::STREAM, Some(Protocol::TCP))?;
    if addr.ip() == IpAddr::V6(Ipv6Addr::UNSPECIFIED) {
        // Whatever net.ipv6.bindv6only says.
        socket.set_only_v6(false)?;
    }
    // A restarted proxy must get its ports back while old connections linger in TIME_WAIT.
    socket.set_reuse_address(true)?;
    socket.set_nonblocking(true)?;
    socket.bind(&addr.into())?;
    socket.listen(BACKLOG)?;
    TcpListener::from_std(socket.into())
}

struct TokioListener {
    listener: TcpListener,
    local: SocketAddr,
}

impl Listener for TokioListener {
    fn local_addr(&self) -> SocketAddr {
        self.local
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move {
            let (tcp, peer) = self.listener.accept().await?;
            accepted(tcp, peer)
        }
        .boxed()
    }
}

fn accepted(tcp: TcpStream, peer: SocketAddr) -> io::Result<Accepted> {
    set_options(&tcp)?;
    let local = tcp.local_addr()?;
    let original_dst = original_dst(&tcp, local);
    let (peer, local) = (PeerAddr(canonical(peer)), LocalAddr(canonical(local)));
    Ok(Accepted { io: Io::Tcp(tcp), peer, local, original_dst })
}

/// IPv4 as IPv4, whichever socket it came through.
fn canonical(addr: SocketAddr) -> SocketAddr {
    SocketAddr::new(addr.ip().to_canonical(), addr.port())
}

fn set_options(tcp: &TcpStream) -> io::Result<()> {
    tcp.set_nodelay(true)?;
    SockRef::from(tcp).set_tcp_keepalive(&KEEPALIVE)
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn pair(net: &dyn Network) -> (Io, Accepted) {
        let mut listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let (client, accepted) = tokio::join!(net.connect(listener.local_addr()), listener.accept());
        (client.unwrap(), accepted.unwrap())
    }

    #[tokio::test]
    async fn a_connection_that_was_not_redirected_has_no_original_destination() {
        let (_client, accepted) = pair(&TokioNetwork::default()).await;
        assert_eq!(accepted.original_dst, None);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn both_ends_notice_a_peer_that_vanished() {
        let (client, accepted) = pair(&TokioNetwork::default()).await;
        for io in [client, accepted.io] {
            let Io::Tcp(tcp) = io else { panic!("{io:?}") };
            let socket = SockRef::from(&tcp);
            assert!(socket.keepalive().unwrap());
            assert_eq!(socket.tcp_keepalive_time().unwrap(), Duration::from_secs(30));
            assert_eq!(socket.tcp_keepalive_interval().unwrap(), Duration::from_secs(10));
            assert_eq!(socket.tcp_keepalive_retries().unwrap(), 3);
        }
    }

    #[tokio::test]
    async fn every_address_is_that_of_either_family() {
        let net = TokioNetwork::default();
        let mut listener = net.bind("0.0.0.0:0".parse().unwrap()).await.unwrap();
        let bound = listener.local_addr();
        assert_eq!(bound.ip(), IpAddr::V4(Ipv4Addr::UNSPECIFIED));
        let mut loopbacks = vec![IpAddr::V4(Ipv4Addr::LOCALHOST)];
        // A machine without IPv6 has nothing to be reached by.
        if std::net::TcpListener::bind((Ipv6Addr::LOCALHOST, 0)).is_ok() {
            loopbacks.push(Ipv6Addr::LOCALHOST.into());
        }
        for ip in loopbacks {
            let (client, accepted) = tokio::join!(net.connect((ip, bound.port()).into()), listener.accept());
            client.unwrap();
            let accepted = accepted.unwrap();
            assert_eq!((accepted.local.ip(), accepted.peer.ip()), (ip, ip));
        }
    }

    #[tokio::test]
    async fn reset_reaches_the_other_end_as_a_reset() {
        let (mut client, accepted) = pair(&TokioNetwork::default()).await;
        accepted.io.reset();
        let error = client.read(&mut [0; 1]).await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[cfg(target_os = "linux")]
    #[tokio::test]
    async fn connections_leave_from_the_given_source() {
        let (_client, accepted) = pair(&TokioNetwork::from_source([127, 9, 8, 7].into())).await;
        assert_eq!(accepted.peer.ip(), IpAddr::from([127, 9, 8, 7]));
    }

    #[tokio::test]
    async fn connections_from_ports_apart_are_connections_like_others() {
        let net = TokioNetwork::beside_applications();
        let mut listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let mut open = Vec::new();
        for _ in 0..100 {
            let (client, accepted) = tokio::join!(net.connect(listener.local_addr()), listener.accept());
            open.push((client.unwrap(), accepted.unwrap()));
        }
        for (client, accepted) in &mut open {
            client.write_all(b"x").await.unwrap();
            assert_eq!(accepted.io.read(&mut [0; 1]).await.unwrap(), 1);
        }
    }

    #[tokio::test]
    async fn half_close_leaves_the_other_direction_open() {
        let (mut client, accepted) = pair(&TokioNetwork::default()).await;
        let mut server = accepted.io;
        client.shutdown().await.unwrap();
        client.shutdown().await.unwrap();
        assert_eq!(server.read(&mut [0; 1]).await.unwrap(), 0);
        server.write_all(b"x").await.unwrap();
        assert_eq!(client.read(&mut [0; 1]).await.unwrap(), 1);
    }

    #[tokio::test]
    async fn address_literals_resolve_without_a_resolver() {
        let found = TokioNetwork::default().resolve("[::1]").await.unwrap();
        assert_eq!(found.addrs, vec!["::1".parse::<IpAddr>().unwrap()]);
    }
}
