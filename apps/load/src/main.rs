//! A server that answers with what it was asked, and a caller that asks at a steady rate and counts what becomes of each
//! request: what is put into a mesh to see whether a fault harms anybody.
//!
//! - `conduit-load serve`: `PORT` (8080), `SHUTDOWN_GRACE` (0), how long it goes on accepting after it was told to stop
//! - `conduit-load call`: `TARGET` (host:port), `RATE` (requests a second, 100), `DEADLINE` (10s) of a request,
//!   `COUNTS_PORT` (8081), where the counts are read as JSON; with `REQUESTS` it stops after so many, prints the counts
//!   and fails if a request did
//!
//! Both read `LOG` (info).
//!
//! - `server.rs`, `exchange.rs`: what is asked and answered
//! - `caller.rs`: the rate; `connections.rs`: kept and fresh connections
//! - `counts.rs`: what came of it

use std::{net::SocketAddr, process::ExitCode, sync::Arc, time::Duration};

use anyhow::{Context, bail};
use conduit_net::TokioNetwork;
use conduit_runtime::{
    drain,
    env::{self, Env},
    log, signal,
};

mod caller;
mod connections;
mod counts;
mod exchange;
mod server;

/// How long what is under way may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<ExitCode> {
    let part = std::env::args().nth(1).context("say what to do: serve or call")?;
    let mut env = Env::from_process();
    log::init(&env.parse("LOG", env::text).unwrap_or_else(|| "info".to_owned()));
    match part.as_str() {
        "serve" => serve(env).await,
        "call" => call(env).await,
        other => bail!("{other:?} is nothing to do: use serve or call"),
    }
}

async fn serve(mut env: Env) -> anyhow::Result<ExitCode> {
    let port = env.parse("PORT", env::number).unwrap_or(8080);
    let grace = env.parse("SHUTDOWN_GRACE", env::duration).unwrap_or_default();
    env.finish()?;
    let listener =
        TokioNetwork::shared().bind(everywhere(port)).await.with_context(|| format!("port {port}"))?;
    let (trigger, watch) = drain::channel();
    let running = tokio::spawn(server::run(listener, watch, exchange::answer));
    signal::shutdown().await;
    tokio::time::sleep(grace).await;
    trigger.drain(DRAIN_DEADLINE).await;
    running.abort();
    Ok(ExitCode::SUCCESS)
}

async fn call(mut env: Env) -> anyhow::Result<ExitCode> {
    let target = env.required("TARGET", target);
    let rate = env.parse("RATE", rate).unwrap_or(100.0);
    let deadline = env.parse("DEADLINE", env::duration).unwrap_or(Duration::from_secs(10));
    let port = env.parse("COUNTS_PORT", env::number).unwrap_or(8081);
    let requests = env.parse("REQUESTS", env::number);
    env.finish()?;
    let (host, target_port) = target.context("TARGET is missing")?;
    let net = TokioNetwork::shared();
    let counts = Arc::new(counts::Counts::default());
    let listener = net.bind(everywhere(port)).await.with_context(|| format!("port {port}"))?;
    let (trigger, watch) = drain::channel();
    let shown = counts.clone();
    let answering =
        tokio::spawn(server::run(listener, watch.clone(), move |_, _, _| shown.json().to_string()));
    let connections = connections::Connections::new(net, host, target_port);
    let calling = caller::run(connections, counts.clone(), caller::Pace { rate, deadline, requests }, watch);
    tokio::select! {
        () = calling => {}
        () = signal::shutdown() => {}
    }
    trigger.drain(Duration::from_millis(100)).await;
    answering.abort();
    say(&counts.json().to_string());
    Ok(if counts.failed() == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

#[expect(clippy::print_stdout, reason = "the counts are what this program is for")]
fn say(line: &str) {
    println!("{line}");
}

fn everywhere(port: u16) -> SocketAddr {
    SocketAddr::from(([0, 0, 0, 0], port))
}

fn target(value: &str) -> Result<(String, u16), String> {
    let expected = || "expected host:port, such as server.shop:8080".to_owned();
    let (host, port) = value.rsplit_once(':').ok_or_else(expected)?;
    let port = port.parse().ok().filter(|port| *port > 0).ok_or_else(expected)?;
    if host.is_empty() { Err(expected()) } else { Ok((host.to_owned(), port)) }
}

fn rate(value: &str) -> Result<f64, String> {
    let rate = value.trim().parse().ok().filter(|rate: &f64| (0.1..=10_000.0).contains(rate));
    rate.ok_or_else(|| "expected requests a second from 0.1 to 10000".to_owned())
}
