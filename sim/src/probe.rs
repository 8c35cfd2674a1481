//! Asks pods over the wire, as a scraper or an operator's browser does, from a host of its own.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    time::Duration,
};

use conduit_net::Network;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::timeout,
};

use crate::wire::{HostNetwork, Wire};

/// Who asks. No pod has it.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 2, 1));
const DEADLINE: Duration = Duration::from_secs(3);
/// Far above any page of a world of 40 hosts.
const MAX_ANSWER: u64 = 16 << 20;

/// Asks.
pub struct Probe(HostNetwork);

impl Probe {
    /// On `wire`.
    pub fn new(wire: &Wire) -> Self {
        Self(wire.host(FROM))
    }

    /// The body that `GET path` has at `address`; none when there is no answer, or another than 200.
    pub async fn get(&self, address: SocketAddr, path: &str) -> Option<String> {
        timeout(DEADLINE, self.ask(address, path)).await.ok()?
    }

    /// What `GET path` has told at `address` by the end of `listens`: the body of an answer that never ends. None when there
    /// is no answer, or another than 200.
    pub async fn listen(&self, address: SocketAddr, path: &str, listens: Duration) -> Option<String> {
        let mut answer = Vec::new();
        // Running out of time is how it ends.
        let _ = timeout(listens, self.read(address, path, &mut answer)).await;
        body(&String::from_utf8_lossy(&answer))
    }

    async fn ask(&self, address: SocketAddr, path: &str) -> Option<String> {
        let mut answer = Vec::new();
        self.read(address, path, &mut answer).await.ok()?;
        body(&String::from_utf8(answer).ok()?)
    }

    async fn read(&self, address: SocketAddr, path: &str, answer: &mut Vec<u8>) -> io::Result<()> {
        let mut io = self.0.connect(address).await?;
        // HTTP/1.0: the answer ends with the connection, and comes in one piece.
        io.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await?;
        io.take(MAX_ANSWER).read_to_end(answer).await.map(drop)
    }
}

fn body(answer: &str) -> Option<String> {
    let (head, body) = answer.split_once("\r\n\r\n")?;
    head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| body.to_owned())
}
