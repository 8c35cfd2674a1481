//! Many connections at once: what each holds in the client's proxy and in the server's while it is idle, and while a
//! request is under way on it.
//!
//! A connection between the proxies, and one to the server, belong to the client's connection they were opened for; so
//! each client has its own, and keeps it.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, ensure};
use conduit_net::{Io, Net};
use tokio::{io::AsyncWriteExt, sync::watch, time::timeout};

use crate::{
    load,
    pair::{AUTHORITY, Pair},
    process,
};

/// Clients that open their connections at the same time, and wait for the next ones until theirs are idle. A handshake
/// costs a millisecond of CPU and has a deadline, so more would not all be TLS.
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
        let mut clients = open(net, pair.entrance, count).await?;
        let opened = grown("idle")?;
        ensure_kept(net, pair, count).await?;
        self.hold(&mut clients).await?;
        let in_flight = grown("with a request in flight")?;
        self.open.send_replace(true);
        for client in &mut clients {
            load::response(client, &mut Vec::new()).await?;
        }
        tokio::time::sleep(UNTIL_ASLEEP).await;
        Ok(vec![opened, in_flight, grown("idle after that")?])
    }

    /// Asks on every connection for what the server does not answer yet, until it has been asked by all.
    async fn hold(&mut self, clients: &mut [Io]) -> anyhow::Result<()> {
        for client in clients.iter_mut() {
            client.write_all(request("/held").as_bytes()).await?;
        }
        let all = self.asked.wait_for(|asked| *asked >= clients.len());
        timeout(PATIENCE, all).await.context("the requests do not all arrive")??;
        Ok(())
    }
}

/// `count` connections on which one request has been answered, and nothing happens any more.
async fn open(net: &Net, entrance: SocketAddr, count: usize) -> anyhow::Result<Vec<Io>> {
    let mut clients = Vec::with_capacity(count);
    while clients.len() < count {
        let first = clients.len();
        for _ in 0..AT_ONCE.min(count - first) {
            let mut io = net.connect(entrance).await?;
            io.write_all(request("/hello").as_bytes()).await?;
            clients.push(io);
        }
        for client in &mut clients[first..] {
            timeout(PATIENCE, load::response(client, &mut Vec::new()))
                .await
                .context("no answer in time")??;
        }
        tokio::time::sleep(UNTIL_ASLEEP).await;
    }
    Ok(clients)
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
