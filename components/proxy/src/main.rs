//! The sidecar's binary: reads the environment, runs the proxy until SIGTERM; or waits until one is ready.

mod wait_ready;

use std::{process::ExitCode, sync::Arc, time::Duration};

use anyhow::Context;
use conduit_identity::{Crypto, SystemClock};
use conduit_net::TokioNetwork;
use conduit_proxy::{Config, Deps, run};
use conduit_runtime::{Seed, drain, env, env::Env, files, log, signal};

/// What sysexits.h calls a usage error, as in v0.5.0.
const EXIT_USAGE: u8 = 64;

const DEFAULT_LOG: &str = "warn,conduit_proxy=info";

fn main() -> ExitCode {
    let mut env = Env::from_process();
    let filter = env.parse("CONDUIT_PROXY_LOG", env::text);
    log::init(filter.as_deref().unwrap_or(DEFAULT_LOG));
    let command = std::env::args().nth(1);
    match command.as_deref() {
        None | Some("run") => report(proxy(env)),
        Some("wait-ready") => report(runtime().and_then(|runtime| runtime.block_on(wait_ready::wait(env)))),
        Some(other) => {
            tracing::error!(command = other, "unknown command; there are run (the default) and wait-ready");
            ExitCode::from(EXIT_USAGE)
        }
    }
}

fn report(result: anyhow::Result<ExitCode>) -> ExitCode {
    result.unwrap_or_else(|error| {
        tracing::error!("{error:#}");
        ExitCode::FAILURE
    })
}

/// One thread: a sidecar has a fraction of a core, and its connections stay where they were accepted.
fn runtime() -> anyhow::Result<tokio::runtime::Runtime> {
    tokio::runtime::Builder::new_current_thread().enable_all().build().context("the runtime does not start")
}

fn proxy(mut env: Env) -> anyhow::Result<ExitCode> {
    let config = Config::from_env(&mut env);
    if let Err(invalid) = env.finish() {
        tracing::error!("{invalid}");
        return Ok(ExitCode::from(EXIT_USAGE));
    }
    let deps = Deps {
        net: TokioNetwork::beside_applications(),
        clock: Arc::new(SystemClock),
        seed: Seed::from_os()?,
        crypto: Crypto::shipped(),
        started: None,
    };
    raise_files_limit(config.limits.connections);
    runtime()?.block_on(async {
        let (trigger, watch) = drain::channel();
        // Before anybody can connect: what is under way is never cut off.
        let shutdown = signal::shutdown();
        let stop = async {
            shutdown.await;
            // The proxy has deadlines of its own for each phase.
            trigger.drain(Duration::MAX).await;
        };
        let mut proxy = std::pin::pin!(run(config, deps, watch));
        tokio::select! {
            ended = proxy.as_mut() => ended?,
            () = stop => {}
        }
        Ok(ExitCode::SUCCESS)
    })
}

/// A connection takes two files, one on each side.
fn raise_files_limit(connections: usize) {
    let needed = 2 * connections as u64;
    if let Some(limit) = files::raise_limit()
        && limit < needed
    {
        tracing::warn!(
            limit,
            needed,
            "there may not be files enough for the connections allowed; raise RLIMIT_NOFILE, or lower CONDUIT_PROXY_MAX_CONNECTIONS"
        );
    }
}
