//! `conduit-ca`: the certificate authority as a process. [`conduit_ca::Config::from_env`] has its variables.

use std::sync::Arc;

use anyhow::Context as _;
use conduit_ca::{Config, DRAIN_DEADLINE, Deps};
use conduit_identity::{Crypto, SystemClock};
use conduit_k8s::cause::log_filter;
use conduit_net::TokioNetwork;
use conduit_runtime::{
    Seed, drain,
    env::{self, Env},
    log, signal,
};

#[tokio::main(flavor = "current_thread")]
async fn main() -> anyhow::Result<()> {
    let mut env = Env::from_process();
    log::init(&log_filter(env.parse("CONDUIT_CA_LOG", env::text).as_deref()));
    let config = Config::from_env(&mut env);
    env.finish()?;

    let shutdown = signal::shutdown();
    let net = TokioNetwork::shared();
    let client = conduit_k8s::client::infer(net.clone()).await.context("cannot reach the cluster")?;
    let deps =
        Deps { client, net, clock: Arc::new(SystemClock), seed: Seed::from_os()?, crypto: Crypto::shipped() };

    let (trigger, drain) = drain::channel();
    let mut running = conduit_ca::run(config, deps, drain);
    tokio::select! {
        ended = &mut running => return Ok(ended?),
        () = shutdown => {}
    }
    tokio::select! {
        ended = running => Ok(ended?),
        _ = trigger.drain(DRAIN_DEADLINE) => Ok(()),
    }
}
