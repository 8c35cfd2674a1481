//! One part of the sample application, configured by its environment: `emojivoto web|emoji|voting|vote-bot`.
//!
//! | part | variables |
//! |---|---|
//! | `web` | `WEB_PORT` (8080), `EMOJISVC_HOST`, `EMOJISVC_STATUS_HOST`, `VOTINGSVC_HOST`, `POLL_INTERVAL` (1s) |
//! | `emoji` | `GRPC_PORT` (8080), `STATUS_PORT` (8888) |
//! | `voting` | `GRPC_PORT` (8080) |
//! | `vote-bot` | `WEB_HOST`, `RPS` (2) |
//!
//! All of them: `LOG` (info), and `SHUTDOWN_GRACE` (0), how long a server goes on accepting after it was told to stop,
//! until the cluster has taken it out of its Service.

use std::{net::SocketAddr, time::Duration};

use anyhow::{Context, bail};
use conduit_emojivoto::{Authority, Tally, emoji, vote_bot, voting, web};
use conduit_net::{Net, TokioNetwork};
use conduit_runtime::{
    drain,
    env::{self, Env},
    log, signal,
};
use futures::{FutureExt, future::BoxFuture};

/// How long what is under way may take to end.
const DRAIN_DEADLINE: Duration = Duration::from_secs(20);

const PARTS: &str = "web, emoji, voting or vote-bot";

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let part = std::env::args().nth(1).with_context(|| format!("say which part to be: {PARTS}"))?;
    let mut env = Env::from_process();
    log::init(&env.parse("LOG", env::text).unwrap_or_else(|| "info".to_owned()));
    let grace = env.parse("SHUTDOWN_GRACE", env::duration).unwrap_or_default();
    let (trigger, watch) = drain::channel();
    let running = tokio::spawn(start(&part, env, watch).await?);
    tracing::info!(part, "started");
    signal::shutdown().await;
    tracing::info!(?grace, "told to stop");
    tokio::time::sleep(grace).await;
    trigger.drain(DRAIN_DEADLINE).await;
    running.abort();
    Ok(())
}

/// Makes the part ready, so that what is wrong with its configuration ends the process, and returns its work.
async fn start(part: &str, env: Env, drain: drain::Watch) -> anyhow::Result<BoxFuture<'static, ()>> {
    let net = TokioNetwork::shared();
    match part {
        "web" => start_web(net, env, drain).await,
        "emoji" => start_emoji(net, env, drain).await,
        "voting" => start_voting(net, env, drain).await,
        "vote-bot" => start_vote_bot(net, env, drain),
        other => bail!("{other:?} is no part of emojivoto; the parts are {PARTS}"),
    }
}

async fn start_web(net: Net, mut env: Env, drain: drain::Watch) -> anyhow::Result<BoxFuture<'static, ()>> {
    let listen = port(&mut env, "WEB_PORT", 8080);
    let emoji = env.required("EMOJISVC_HOST", server);
    let emoji_status = env.required("EMOJISVC_STATUS_HOST", server);
    let voting = env.required("VOTINGSVC_HOST", server);
    let poll_every = env.parse("POLL_INTERVAL", interval).unwrap_or(Duration::from_secs(1));
    env.finish()?;
    let (Some(emoji), Some(emoji_status), Some(voting)) = (emoji, emoji_status, voting) else {
        bail!("a required variable is missing");
    };
    let config = web::Config { listen, emoji, emoji_status, voting, poll_every, polls: Tally::default() };
    Ok(web::bind(&net, config).await?.run(drain).boxed())
}

async fn start_emoji(net: Net, mut env: Env, drain: drain::Watch) -> anyhow::Result<BoxFuture<'static, ()>> {
    let grpc = port(&mut env, "GRPC_PORT", 8080);
    let status = port(&mut env, "STATUS_PORT", 8888);
    env.finish()?;
    Ok(emoji::bind(&net, &emoji::Config { grpc, status }).await?.run(drain).boxed())
}

async fn start_voting(net: Net, mut env: Env, drain: drain::Watch) -> anyhow::Result<BoxFuture<'static, ()>> {
    let grpc = port(&mut env, "GRPC_PORT", 8080);
    env.finish()?;
    Ok(voting::bind(&net, &voting::Config { grpc }).await?.run(drain).boxed())
}

fn start_vote_bot(net: Net, mut env: Env, drain: drain::Watch) -> anyhow::Result<BoxFuture<'static, ()>> {
    let web = env.required("WEB_HOST", server);
    let rps = env.parse("RPS", rate).unwrap_or(2.0);
    env.finish()?;
    let web = web.context("WEB_HOST is missing")?;
    Ok(vote_bot::run(net, vote_bot::Config { web, rps, tally: Tally::default() }, drain).boxed())
}

fn port(env: &mut Env, name: &str, default: u16) -> SocketAddr {
    // The unspecified IPv6 address would need a kernel with IPv6; a cluster's pods always have IPv4 or both.
    SocketAddr::from(([0, 0, 0, 0], env.parse(name, env::number).unwrap_or(default)))
}

fn server(value: &str) -> Result<Authority, String> {
    value.trim().parse().map_err(|_| "expected host:port, such as emoji-svc.emojivoto:8080".to_owned())
}

fn interval(value: &str) -> Result<Duration, String> {
    env::duration(value).and_then(|every| match every.is_zero() {
        true => Err("expected more than 0".to_owned()),
        false => Ok(every),
    })
}

fn rate(value: &str) -> Result<f64, String> {
    let expected = || "expected a number of requests a second above 0, such as 2 or 0.5".to_owned();
    value.trim().parse().ok().filter(|rps: &f64| rps.is_finite() && *rps > 0.0).ok_or_else(expected)
}
