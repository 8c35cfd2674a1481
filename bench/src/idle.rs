//! Many connections at once that carry one request each and then nothing: what an idle connection holds in memory, in
//! the client's proxy and in the server's.
//!
//! The server answers nobody until everybody has asked. Each client therefore has a connection of its own between the
//! proxies and to the server, and keeps it; one after the other they would share a single one.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use conduit_net::{Io, Net};
use tokio::{io::AsyncWriteExt, sync::watch, time::timeout};

use crate::{
    load,
    pair::{AUTHORITY, Pair},
    process,
};

/// Clients that open their connections at the same time. A handshake costs a millisecond of CPU and has a deadline, so
/// more would not all be TLS.
const AT_ONCE: usize = 32;
/// Several times what the proxies wait for before they give an idle connection's buffers up.
const UNTIL_ASLEEP: Duration = Duration::from_secs(1);
/// Nothing in a healthy run takes this long.
const PATIENCE: Duration = Duration::from_secs(30);

/// Where the server is, how many it was asked by, and what makes it answer.
pub(crate) struct Gate {
    /// The server.
    pub(crate) server: SocketAddr,
    asked: watch::Receiver<usize>,
    open: watch::Sender<bool>,
}

/// What the proxies had grown by, per connection.
pub(crate) struct Grown {
    /// When it was measured.
    pub(crate) when: &'static str,
    /// The client's proxy, in KiB.
    pub(crate) outbound: f64,
    /// The server's proxy, in KiB.
    pub(crate) inbound: f64,
}

impl Gate {
    /// A server that answers requests for `/held` when the gate is opened, and others at once.
    pub(crate) async fn serve(net: &Net) -> anyhow::Result<Self> {
        let (open, opened) = watch::channel(false);
        let (ask, asked) = watch::channel(0);
        let mut listener = net.bind(([127, 0, 0, 1], 0).into()).await?;
        let server = listener.local_addr();
        tokio::spawn(async move {
            while let Ok(accepted) = listener.accept().await {
                tokio::spawn(answer(accepted.io, ask.clone(), opened.clone()));
            }
        });
        Ok(Self { server, asked, open })
    }

    /// Holds `count` connections through `pair` and measures, on the way, what they make the proxies grow by.
    pub(crate) async fn measure(
        &mut self,
        net: &Net,
        pair: &Pair,
        count: usize,
    ) -> anyhow::Result<Vec<Grown>> {
        let resident = || anyhow::Ok((pair.outbound.resident_kib()?, pair.inbound.resident_kib()?));
        let (outbound, inbound) = resident()?;
        let grown = |when| {
            let now = resident()?;
            let each = |now: u64, before: u64| now.saturating_sub(before) as f64 / count as f64;
            anyhow::Ok(Grown { when, outbound: each(now.0, outbound), inbound: each(now.1, inbound) })
        };
        let mut clients = self.ask(net, pair.entrance, count).await?;
        let in_flight = grown("with a request in flight")?;
        self.open.send_replace(true);
        for client in &mut clients {
            load::response(client, &mut Vec::new()).await?;
        }
        let awake = grown("just answered")?;
        tokio::time::sleep(UNTIL_ASLEEP).await;
        let idle = grown("idle")?;
        ensure_kept(net, pair, count).await?;
        for client in &mut clients {
            client.write_all(request("/held").as_bytes()).await?;
            load::response(client, &mut Vec::new()).await?;
        }
        tokio::time::sleep(UNTIL_ASLEEP).await;
        Ok(vec![in_flight, awake, idle, grown("idle again")?])
    }

    async fn ask(&mut self, net: &Net, entrance: SocketAddr, count: usize) -> anyhow::Result<Vec<Io>> {
        let mut clients = Vec::with_capacity(count);
        while clients.len() < count {
            for _ in 0..AT_ONCE.min(count - clients.len()) {
                let mut io = net.connect(entrance).await?;
                io.write_all(request("/held").as_bytes()).await?;
                clients.push(io);
            }
            let all = self.asked.wait_for(|asked| *asked >= clients.len());
            timeout(PATIENCE, all).await.context("the requests do not all arrive")??;
        }
        Ok(clients)
    }
}

/// Fails if a connection is missing on one of the hops: an average over fewer would be flattery.
async fn ensure_kept(net: &Net, pair: &Pair, count: usize) -> anyhow::Result<()> {
    for proxy in [&pair.outbound, &pair.inbound] {
        let metrics = process::get(net, proxy.admin, "/metrics").await?;
        for peer in ["peer=\"src\"", "peer=\"dst\""] {
            let open: usize = metrics
                .lines()
                .filter(|line| line.starts_with("tcp_open_connections{") && line.contains(peer))
                .filter_map(|line| line.rsplit_once(' ')?.1.parse::<usize>().ok())
                .sum();
            ensure!(open >= count, "only {open} connections of {count} are open, {peer}");
        }
    }
    Ok(())
}

fn request(path: &str) -> String {
    format!("GET {path} HTTP/1.1\r\nhost: {AUTHORITY}\r\n\r\n")
}

async fn answer(
    mut io: Io,
    ask: watch::Sender<usize>,
    mut opened: watch::Receiver<bool>,
) -> anyhow::Result<()> {
    while let Some(head) = load::head(&mut io).await? {
        if head.starts_with(b"GET /held ") {
            ask.send_modify(|asked| *asked += 1);
            opened.wait_for(|open| *open).await?;
        }
        io.write_all(load::RESPONSE).await?;
    }
    Ok(())
}
