//! Where an application's connection was going, told to its own sidecar in front of the connection's first byte. It
//! stands in for what the kernel knows after a redirect, and never leaves the pod.
//!
//! One octet for the address family (4 or 6), sixteen for the address (the last twelve unused for IPv4), two for the
//! port, big-endian.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
};

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

const LENGTH: usize = 19;

/// Writes the preamble of a connection to `destination`.
pub(crate) async fn write(io: &mut (impl AsyncWrite + Unpin), destination: SocketAddr) -> io::Result<()> {
    io.write_all(&encode(destination)).await
}

/// Reads the preamble, and not one byte more.
pub(crate) async fn read(io: &mut (impl AsyncRead + Unpin)) -> io::Result<SocketAddr> {
    let mut octets = [0; LENGTH];
    io.read_exact(&mut octets).await?;
    decode(octets).ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "not a preamble"))
}

fn encode(destination: SocketAddr) -> [u8; LENGTH] {
    let mut octets = [0; LENGTH];
    match destination.ip() {
        IpAddr::V4(ip) => {
            octets[0] = 4;
            octets[1..5].copy_from_slice(&ip.octets());
        }
        IpAddr::V6(ip) => {
            octets[0] = 6;
            octets[1..17].copy_from_slice(&ip.octets());
        }
    }
    octets[17..].copy_from_slice(&destination.port().to_be_bytes());
    octets
}

fn decode(octets: [u8; LENGTH]) -> Option<SocketAddr> {
    let [family, address @ .., high, low] = octets;
    let ip = match family {
        4 => {
            let [a, b, c, d, ..] = address;
            IpAddr::from(Ipv4Addr::new(a, b, c, d))
        }
        6 => IpAddr::from(Ipv6Addr::from(address)),
        _ => return None,
    };
    Some(SocketAddr::new(ip, u16::from_be_bytes([high, low])))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn what_follows_the_preamble_stays_unread() {
        for address in ["10.96.0.7:80", "[2001:db8::1]:65535"] {
            let address: SocketAddr = address.parse().unwrap();
            let (mut near, mut far) = tokio::io::duplex(64);
            write(&mut near, address).await.unwrap();
            near.write_all(b"GET").await.unwrap();
            drop(near);
            assert_eq!(read(&mut far).await.unwrap(), address);
            let mut rest = String::new();
            far.read_to_string(&mut rest).await.unwrap();
            assert_eq!(rest, "GET");
        }
    }

    #[tokio::test]
    async fn anything_else_is_an_error() {
        assert!(read(&mut &b"GET / HTTP/1.1\r\n\r\n\r\n"[..]).await.is_err());
        assert!(read(&mut &[4; 3][..]).await.is_err());
    }
}
