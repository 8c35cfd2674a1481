//! What the two proxies between a client and a server cost: CPU per request, latency added, memory, and the time to
//! start. `cargo run --release -p bench` builds nothing by itself: build the proxy first (see docs/PERFORMANCE.md).
//!
//! Prints a Markdown table. Nothing is asserted: a figure belongs to a machine and a day.
#![allow(clippy::print_stdout, reason = "the table is the result")]

mod certificates;
mod idle;
mod load;
mod pair;
mod process;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    time::Duration,
};

use anyhow::Context;
use conduit_net::{Net, TokioNetwork};
use idle::{Gate, Grown};
use pair::{AUTHORITY, Pair};

const CONNECTIONS: usize = 32;
/// Enough that the first requests (handshakes, discovery, page faults) do not show.
const REQUESTS: usize = 2_000;
const WARM_UP: usize = 200;
const IDLE_CONNECTIONS: usize = 1_000;

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let binary =
        std::env::args_os().nth(1).map_or_else(|| PathBuf::from("target/dist/conduit-proxy"), PathBuf::from);
    let size = std::fs::metadata(&binary)
        .with_context(|| {
            format!("no proxy at {}: cargo build --profile dist -p conduit-proxy", binary.display())
        })?
        .len();
    let net = TokioNetwork::shared();
    let server = load::serve(&net).await?;

    println!("| what | figure |\n|---|---|");
    println!("| proxy binary | {:.1} MiB |", size as f64 / f64::from(1 << 20));
    let direct = load::run(&net, server, AUTHORITY, CONNECTIONS, REQUESTS).await?;
    println!("| no proxies, p50 / p99 | {} / {} |", us(direct.quantile(0.5)), us(direct.quantile(0.99)));
    for tls in [true, false] {
        requests(&net, &binary, server, tls).await?;
    }
    idle(&net, &binary).await
}

async fn requests(net: &Net, binary: &Path, server: SocketAddr, tls: bool) -> anyhow::Result<()> {
    let name = if tls { "mutual TLS" } else { "plaintext" };
    let pair = Pair::start(net, binary, server, tls).await?;
    println!("| {name}, start to ready | {} |", us(pair.outbound.started_in.max(pair.inbound.started_in)));
    println!(
        "| {name}, resident when idle | {:.1} MiB |",
        pair.outbound.resident_kib()?.max(pair.inbound.resident_kib()?) as f64 / 1024.0
    );
    settle(net, &pair, tls).await?;
    load::run(net, pair.entrance, AUTHORITY, CONNECTIONS, WARM_UP).await?;
    let before = pair.outbound.cpu()? + pair.inbound.cpu()?;
    let run = load::run(net, pair.entrance, AUTHORITY, CONNECTIONS, REQUESTS).await?;
    let cpu = pair.outbound.cpu()? + pair.inbound.cpu()? - before;
    let total = u32::try_from(CONNECTIONS * REQUESTS)?;
    println!("| {name}, CPU of both proxies per request | {} |", us(cpu / total));
    println!("| {name}, p50 / p99 | {} / {} |", us(run.quantile(0.5)), us(run.quantile(0.99)));
    println!("| {name}, requests per second | {:.0} |", f64::from(total) / run.elapsed.as_secs_f64());
    Ok(())
}

async fn idle(net: &Net, binary: &Path) -> anyhow::Result<()> {
    let mut gate = Gate::serve(net).await?;
    let pair = Pair::start(net, binary, gate.server, true).await?;
    settle(net, &pair, true).await?;
    for Grown { when, outbound, inbound } in gate.measure(net, &pair, IDLE_CONNECTIONS).await? {
        println!(
            "| each of {IDLE_CONNECTIONS} connections, {when}: client's proxy / server's / both | \
             {outbound:.1} / {inbound:.1} / {:.1} KiB |",
            outbound + inbound
        );
    }
    Ok(())
}

/// Sends single requests until the wire carries what is to be measured, and fails if it never does.
async fn settle(net: &Net, pair: &Pair, tls: bool) -> anyhow::Result<()> {
    if !tls {
        return Ok(());
    }
    for _ in 0..200 {
        load::run(net, pair.entrance, AUTHORITY, 1, 1).await?;
        let metrics = process::get(net, pair.inbound.admin, "/metrics").await?;
        if metrics.lines().any(|line| line.starts_with("request_total{") && line.contains("tls=\"true\"")) {
            return Ok(());
        }
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let told = process::get(net, pair.outbound.admin, "/metrics").await?;
    anyhow::bail!(
        "the proxies do not speak TLS to each other; nothing is measured. The client's says:\n{told}"
    )
}

fn us(duration: Duration) -> String {
    match duration.as_micros() {
        micros @ 0..1_000 => format!("{micros} µs"),
        _ => format!("{:.1} ms", duration.as_secs_f64() * 1e3),
    }
}
