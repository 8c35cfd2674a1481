//! The two ends of a measurement: an HTTP/1.1 server and a closed-loop client, both as cheap as they can be, so that
//! what a run costs is what the proxies cost.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use anyhow::{Context, ensure};
use conduit_net::{Io, Net};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    task::JoinSet,
    time::Instant,
};

const HEAD_END: &[u8] = b"\r\n\r\n";
/// What every request is answered with.
pub(crate) const RESPONSE: &[u8] = b"HTTP/1.1 200 OK\r\ncontent-length: 12\r\n\r\nhello bench\n";
const BODY_BYTES: usize = 12;
/// Nothing in a healthy run takes this long.
const PATIENCE: Duration = Duration::from_secs(10);

/// Answers every request on `addr`'s connections with the same twelve bytes; returns the bound address.
pub(crate) async fn serve(net: &Net) -> anyhow::Result<SocketAddr> {
    let mut listener = net.bind(([127, 0, 0, 1], 0).into()).await?;
    let addr = listener.local_addr();
    tokio::spawn(async move {
        while let Ok(accepted) = listener.accept().await {
            tokio::spawn(answer(accepted.io));
        }
    });
    Ok(addr)
}

async fn answer(mut io: Io) -> std::io::Result<()> {
    let mut buffer = Vec::with_capacity(4096);
    loop {
        while let Some(end) = head_end(&buffer) {
            buffer.drain(..end);
            io.write_all(RESPONSE).await?;
        }
        if io.read_buf(&mut buffer).await? == 0 {
            return Ok(());
        }
    }
}

/// Reads one head of a client that sends nothing after it until it is answered. None: it has left.
pub(crate) async fn head(io: &mut Io) -> std::io::Result<Option<Vec<u8>>> {
    let mut buffer = Vec::new();
    while head_end(&buffer).is_none() {
        if io.read_buf(&mut buffer).await? == 0 {
            return Ok(None);
        }
    }
    Ok(Some(buffer))
}

fn head_end(bytes: &[u8]) -> Option<usize> {
    bytes.windows(HEAD_END.len()).position(|window| window == HEAD_END).map(|at| at + HEAD_END.len())
}

/// What a run of the client saw.
#[derive(Debug)]
pub(crate) struct Run {
    /// How long it took.
    pub(crate) elapsed: Duration,
    /// The time of each request, sorted.
    pub(crate) latencies: Vec<Duration>,
}

impl Run {
    /// The latency that a share `q` (0 to 1) of the requests did not exceed.
    pub(crate) fn quantile(&self, q: f64) -> Duration {
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "an index within the vector"
        )]
        let at = ((self.latencies.len().saturating_sub(1)) as f64 * q) as usize;
        self.latencies.get(at).copied().unwrap_or_default()
    }
}

/// Sends `requests` requests over each of `connections` kept-alive connections to `addr`, one after the other.
pub(crate) async fn run(
    net: &Net,
    addr: SocketAddr,
    authority: &str,
    connections: usize,
    requests: usize,
) -> anyhow::Result<Run> {
    let request: Arc<[u8]> = format!("GET /hello HTTP/1.1\r\nhost: {authority}\r\n\r\n").into_bytes().into();
    let mut clients = JoinSet::new();
    let start = Instant::now();
    for _ in 0..connections {
        let io = net.connect(addr).await?;
        clients.spawn(client(io, request.clone(), requests));
    }
    let mut latencies = Vec::with_capacity(connections * requests);
    while let Some(client) = clients.join_next().await {
        latencies.extend(client??);
    }
    let elapsed = start.elapsed();
    latencies.sort_unstable();
    Ok(Run { elapsed, latencies })
}

async fn client(mut io: Io, request: Arc<[u8]>, requests: usize) -> anyhow::Result<Vec<Duration>> {
    let mut latencies = Vec::with_capacity(requests);
    let mut buffer = Vec::with_capacity(4096);
    for _ in 0..requests {
        let start = Instant::now();
        io.write_all(&request).await?;
        buffer.clear();
        tokio::time::timeout(PATIENCE, response(&mut io, &mut buffer))
            .await
            .context("no response in time")??;
        latencies.push(start.elapsed());
    }
    Ok(latencies)
}

/// Reads a whole response of ours into `buffer`.
pub(crate) async fn response(io: &mut Io, buffer: &mut Vec<u8>) -> anyhow::Result<()> {
    loop {
        ensure!(io.read_buf(buffer).await? > 0, "the connection ended before the response did");
        if let Some(end) = head_end(buffer)
            && buffer.len() >= end + BODY_BYTES
        {
            ensure!(buffer.starts_with(b"HTTP/1.1 200"), "not 200: {}", String::from_utf8_lossy(buffer));
            return Ok(());
        }
    }
}
