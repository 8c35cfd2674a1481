//! `conduit-destination`: tells the proxies where to go.

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use conduit_destination::{Config, Deps};
use conduit_identity::{Crypto, SystemClock};
use conduit_k8s::cause::log_filter;
use conduit_net::TokioNetwork;
use conduit_runtime::{Seed, drain, env::Env, log, signal};

/// How long connections may take to end once the process is told to stop: their streams are ended at once.
const DRAIN_DEADLINE: Duration = Duration::from_secs(5);

fn main() -> ExitCode {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let outcome = runtime.context("no runtime").and_then(|runtime| runtime.block_on(run()));
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            tracing::error!("{error:#}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> anyhow::Result<()> {
    let mut env = Env::from_process();
    let config = Config::from_env(&mut env);
    log::init(&log_filter(config.log.as_deref()));
    env.finish()?;

    let shutdown = signal::shutdown();
    let net = TokioNetwork::shared();
    let client = conduit_k8s::client::infer(net.clone()).await.context("cannot reach the cluster")?;
    let deps = Deps {
        client,
        net,
        clock: Arc::new(SystemClock),
        seed: Seed::from_os()?,
        crypto: Crypto::shipped(),
        started: None,
    };
    let (trigger, watch) = drain::channel();
    let destination = tokio::spawn(conduit_destination::run(config, deps, watch));
    tokio::select! {
        () = shutdown => tracing::info!("draining"),
        ended = destination => return ended?.map_err(Into::into),
    }
    if !trigger.drain(DRAIN_DEADLINE).await {
        tracing::warn!(deadline = ?DRAIN_DEADLINE, "some connections were cut off");
    }
    Ok(())
}
