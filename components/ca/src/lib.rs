//! The certificate authority: gives every meshed workload a certificate that lives for a day, and every meshed namespace
//! the roots to trust, so that proxies encrypt without anybody having configured anything.
//!
//! - `config.rs`: [`Config`], [`Lifetimes`]
//! - `controller.rs`: the loop: look (`caches.rs`, `overlay.rs`), reconcile, write (`writer.rs`, `apply.rs`, `pace.rs`),
//!   wait
//! - `reconcile.rs`: what to write, pure; `wanted.rs`: who is to have a certificate, pure; `due.rs`: why one is issued
//! - `rotation.rs`: when roots and issuers are made, used and forgotten, pure; `state.rs`: what is remembered of them
//! - `authority.rs`: making certificates; the only file that knows how
//! - `inspect.rs`: what a Secret holds; `objects.rs`: what is written; `bundle.rs`: the trust bundle
//! - `metrics.rs`: what is told of all this
//!
//! What holds:
//!
//! - A restart writes nothing: a certificate is issued because it is missing, invalid, due, or for a wrong root, name or
//!   owner; never because something happened to a pod.
//! - A new root is in every bundle for an hour before anything is issued from it; an old one stays until its last leaf
//!   has expired. With nobody holding a valid leaf, nobody is waited for.
//! - No certificate outlives its issuer. Nothing names constraints: verifiers reject URI constraints.
//! - An object without our marks is reported and never written to. Every write is conditional on what was seen.
//! - By a clock that is behind the API server's nothing is issued; what one that was ahead made is replaced once it is
//!   right again.
//! - When the authority is away, nothing happens to anybody for at least twelve hours: that is what a certificate has
//!   left, at the least, when its renewal is late by two.
//!
//! An operator who wants new roots scales the authority to zero, deletes the Secret `conduit-ca-root` and scales up again:
//! the old roots stay trusted until their last leaf has expired. Deleting it from a running authority only makes that
//! store it again.
//!
//! What it needs in the cluster (the verbs it uses, and no others):
//!
//! | resource | where | verbs |
//! |---|---|---|
//! | pods; `apps` replicasets; `batch` jobs | everywhere | list, watch |
//! | secrets | everywhere | list, watch, get, create, update |
//! | configmaps | everywhere | list, watch, get, create, update |
//! | `coordination.k8s.io` leases | the control plane's namespace | get, create, update |
//!
//! Deliberately absent: signing requests (keys are made here and travel through the API server, as every Secret does;
//! a pod needs no right and no network for its certificate), revocation (a day is short), deletion (Secrets go with their
//! owners, bundles stay), certificates for workloads without pods (one that is scaled to zero for more than a day begins
//! in plaintext and has a new certificate within the kubelet's minute).

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conduit_identity::{Clock, Crypto};
use conduit_k8s::{
    cause::News,
    lease::{Campaign, Leadership},
    owned::CA_LEASE,
};
use conduit_net::Net;
use conduit_runtime::{
    Seed,
    admin::{self, Admin},
    drain,
    metrics::Registry,
    ready::Readiness,
};
use futures::{FutureExt, future::BoxFuture};

mod apply;
pub mod authority;
pub mod bundle;
mod caches;
mod config;
mod controller;
pub mod due;
pub mod inspect;
mod metrics;
pub mod objects;
mod overlay;
mod pace;
pub mod reconcile;
pub mod rotation;
pub mod state;
pub mod wanted;
mod writer;

pub use config::{Bound, Config, Lifetimes};

use crate::{
    authority::Authority,
    caches::Caches,
    controller::{Controller, Memory},
    inspect::Inspector,
    metrics::Metrics,
    overlay::Overlay,
    pace::Pace,
    writer::Writer,
};

/// What the authority lives in.
#[derive(Clone)]
pub struct Deps {
    /// The cluster.
    pub client: kube::Client,
    /// The network that the admin server listens on.
    pub net: Net,
    /// What certificates are dated by.
    pub clock: Arc<dyn Clock>,
    /// Where serial numbers and jitter come from. In production it must be [`Seed::from_os`].
    pub seed: Seed,
    /// What keys are made of.
    pub crypto: Crypto,
}

/// Why the authority ended before it was told to.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The admin server cannot listen.
    #[error("cannot listen on {addr}: {source}")]
    Listen {
        /// The address that was asked for.
        addr: std::net::SocketAddr,
        /// The network's reason.
        source: std::io::Error,
    },
}

/// Issues certificates until the drain begins.
///
/// # Errors
/// It could not start; nothing was written.
pub fn run(config: Config, deps: Deps, drain: drain::Watch) -> BoxFuture<'static, Result<(), Error>> {
    serve(config, deps, drain).boxed()
}

async fn serve(mut config: Config, deps: Deps, drain: drain::Watch) -> Result<(), Error> {
    let listen = |source| Error::Listen { addr: config.admin, source };
    let listener = deps.net.bind(config.admin).await.map_err(listen)?;
    let bound = Bound { admin: listener.local_addr() };
    if let Some(started) = config.on_started.take() {
        // Whoever asked may have stopped waiting.
        let _ = started.send(bound);
    }
    let (registry, readiness) = (Registry::default(), Readiness::default());
    let metrics = Metrics::default();
    metrics.register(&registry);
    let clock = deps.clock.clone();
    registry.register_time(move || clock.now().0);

    let namespace = config.control_plane.namespace.clone();
    let news = News::default();
    let (caches, filling) = Caches::new(&deps.client, &namespace, &config.watch, &deps.seed, &news);
    let (leadership, campaign) = campaign(&config, &deps, drain.clone());
    let synced = {
        let (caches, guard) = (caches.clone(), readiness.guard("first look at the cluster"));
        async move {
            caches.synced().await;
            guard.ready();
        }
    };
    let controller = controller(config, deps, caches, metrics, news);
    let working = async {
        tokio::select! {
            biased;
            () = drain.signaled() => {}
            ((), (), ()) = async { tokio::join!(filling, controller.run(leadership), synced) } => {}
        }
    };
    // The lease is given up when the drain begins, which is also when the controller stops.
    tokio::join!(working, campaign, admin::serve(listener, Admin::new(readiness, registry), drain.clone()));
    Ok(())
}

fn controller(config: Config, deps: Deps, caches: Caches, metrics: Metrics, news: News) -> Controller {
    let Deps { client, clock, seed, crypto, net: _ } = deps;
    let control_plane = config.control_plane.clone();
    let writer = Writer {
        client,
        concurrency: config.concurrency,
        clock: clock.clone(),
        metrics: metrics.clone(),
        authority: Authority::new(&control_plane.namespace, &crypto, config.lifetimes.clone(), &seed),
        pace: Pace::new(&seed),
        secrets: Overlay::default(),
        bundles: Overlay::default(),
        foreign: BTreeMap::new(),
        news,
        control_plane,
    };
    let inspector = Inspector::new(crypto);
    Controller { config, clock, caches, metrics, inspector, writer, memory: Memory::default() }
}

fn campaign(config: &Config, deps: &Deps, drain: drain::Watch) -> (Leadership, BoxFuture<'static, ()>) {
    let Some(timing) = config.lease.clone() else {
        return (Leadership::unrivalled(), futures::future::ready(()).boxed());
    };
    let (campaign, leadership) = Campaign::new(
        deps.client.clone(),
        &config.control_plane.namespace,
        CA_LEASE,
        &config.holder,
        deps.clock.clone(),
        timing,
        &deps.seed,
    );
    (leadership, campaign.run(drain).boxed())
}

/// How long a process that was told to stop takes at most: the lease is given up within two seconds.
pub const DRAIN_DEADLINE: Duration = Duration::from_secs(5);
