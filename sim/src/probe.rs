//! Asks pods over the wire, as a scraper or an operator's browser does, from a host of its own.

use std::{
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

    async fn ask(&self, address: SocketAddr, path: &str) -> Option<String> {
        let mut io = self.0.connect(address).await.ok()?;
        // HTTP/1.0: the answer ends with the connection, and comes in one piece.
        io.write_all(format!("GET {path} HTTP/1.0\r\nhost: {address}\r\n\r\n").as_bytes()).await.ok()?;
        let mut answer = String::new();
        io.take(MAX_ANSWER).read_to_string(&mut answer).await.ok()?;
        let (head, body) = answer.split_once("\r\n\r\n")?;
        head.split(' ').nth(1).is_some_and(|status| status == "200").then(|| body.to_owned())
    }
}
