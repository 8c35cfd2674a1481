//! What the mesh does, for people: `stat`, `tap` and the HTTP API that the CLI and the browser share.
//!
//! # Map
//! What is asked and answered, pure:
//! - `kind.rs`: the types of rows; `query.rs`: what can be asked; `request.rs`: the same from HTTP parameters
//! - `selector.rs`: selecting by labels
//! - `stat.rs`: samples to rows; `edges.rs`: samples to who talks to whom; `hop.rs`: which row a sample belongs to; `authority.rs`, `quantile.rs`: its arithmetic
//! - `why.rs`: from two ends and what is known of them to the first broken link between them; `proxies.rs`: what a proxy
//!   says of itself; `diagnosis.rs`: what is told of all of them; `reach.rs`: single pods, asked when somebody wants to know
//! - `row.rs`: the answer, as JSON has it; `samples.rs`, `inventory.rs`: what it is computed from
//!
//! Where it comes from:
//! - `sources.rs`: [`sources::Source`]; `sources/text.rs` reads a proxy's metrics, `sources/window.rs` and
//!   `sources/trail.rs` remember what they grew by, `sources/scrape.rs` asks every pod; or `sources/prometheus.rs` asks
//!   a server that does the same
//! - `tap.rs`: live requests, from every pod's proxy
//! - `resources.rs`: the cluster, by watches, as [`inventory::Inventory`]
//!
//! Who is told:
//! - `api.rs`, `problem.rs`, `server.rs`: the HTTP API; `authorize.rs`: who may tap; `dashboard.rs`: the same for
//!   people with a browser
//! - `demo_file.rs`: how the CLI finds the one of a running `conduit demo`
//! - `config.rs`, `metrics.rs`, `main.rs`: the process
//!
//! # Invariants
//! Nothing here changes anything: not the cluster, not a proxy. Every answer is computed from what the proxies said of
//! connections that carried bytes. What is missing (a pod that cannot be read) is told beside the answer. Memory is
//! bounded by pods and label sets, not by time or traffic.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{Clock, ControlPlane, Crypto, Files, Identity, ReloadResult, Store};
use conduit_k8s::owned::COMPONENT_OBSERVE;
use conduit_net::Net;
use conduit_runtime::{Seed, admin, admin::Admin, drain, metrics::Registry, ready::Readiness};
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{oneshot, watch};

pub mod api;
pub mod authority;
mod authorize;
mod config;
mod dashboard;
pub mod demo_file;
pub mod diagnosis;
pub mod edges;
mod hop;
pub mod inventory;
pub mod kind;
mod metrics;
pub mod problem;
pub mod proxies;
pub mod quantile;
pub mod query;
mod reach;
pub mod request;
mod resources;
pub mod row;
pub mod samples;
pub mod selector;
mod server;
pub mod sources;
pub mod stat;
pub mod tap;
#[cfg(test)]
mod testing;
pub mod why;

pub use config::Config;
pub use metrics::Metrics;

use crate::{
    api::Api,
    authorize::Authorizer,
    inventory::Inventory,
    reach::Reach,
    sources::{prometheus::Prometheus, scrape},
    tap::Taps,
};

/// What observe works with.
pub struct Deps {
    /// The cluster's API.
    pub client: kube::Client,
    /// Where it listens, and dials pods.
    pub net: Net,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub seed: Seed,
    /// How its own credentials are used.
    pub crypto: Crypto,
    /// Told where it listens, once it does.
    pub started: Option<oneshot::Sender<Bound>>,
}

/// Where observe listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// The HTTP API.
    pub api: SocketAddr,
    /// `/live`, `/ready`, `/metrics`.
    pub admin: SocketAddr,
}

/// Why observe cannot run.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}")]
pub struct Error {
    /// Where.
    pub addr: SocketAddr,
    /// Why not.
    pub source: std::io::Error,
}

/// Runs observe until the drain, and its last answers to their end.
///
/// # Errors
/// An address cannot be bound. Nothing that happens later ends it.
pub fn run(config: Config, deps: Deps, drain: drain::Watch) -> BoxFuture<'static, Result<(), Error>> {
    async move {
        let bind = async |addr| deps.net.bind(addr).await.map_err(|source| Error { addr, source });
        let (listener, admin) = (bind(config.listener).await?, bind(config.admin).await?);
        let bound = Bound { api: listener.local_addr(), admin: admin.local_addr() };
        tracing::info!(api = %bound.api, admin = %bound.admin, "listening");
        if let Some(started) = deps.started {
            // Whoever asked may have lost interest.
            let _ = started.send(bound);
        }

        let (readiness, registry) = (Readiness::default(), Registry::default());
        let metrics = Metrics::register(&registry);
        let clock = deps.clock.clone();
        registry.register_time(move || clock.now().0);
        let cluster_known = readiness.guard("the cluster's pods");
        let admin = admin::serve(admin, Admin::new(readiness.clone(), registry), drain.clone());

        let (published, inventory) = watch::channel(Arc::new(Inventory::default()));
        let control_plane = config.control_plane.clone();
        let known = || cluster_known.ready();
        let authorizer = config
            .authorize_tap
            .then(|| Authorizer::new(deps.client.clone(), control_plane.namespace.clone()));
        let resources = resources::follow(
            deps.client,
            config.timing,
            deps.seed.clone(),
            control_plane.clone(),
            published,
            known,
        );

        let store = match &config.files {
            Some(_) => {
                Store::new(own_identity(&config.control_plane), deps.crypto.clone(), deps.clock.clone())
            }
            None => Store::disabled(),
        };
        let credentials = keep_credentials(config.files, config.reload, store.clone(), readiness.clone());

        let (source, reading) = match config.prometheus {
            Some(url) => {
                tracing::info!(%url, "numbers come from Prometheus");
                let prometheus = Prometheus::new(url, deps.net.clone(), inventory.clone());
                (sources::Source::Prometheus(prometheus), std::future::pending().boxed())
            }
            None => {
                let shared = scrape::Shared::new(config.limits.max_series);
                let scraper = scrape::Scraper {
                    net: deps.net.clone(),
                    clock: deps.clock.clone(),
                    inventory: inventory.clone(),
                    shared: shared.clone(),
                    limits: config.limits,
                    metrics: metrics.clone(),
                };
                (sources::Source::Window(shared), scraper.run(drain.clone()).boxed())
            }
        };
        let reach = Reach::new(deps.net.clone(), store.clone(), deps.crypto, deps.clock.clone());
        let taps = Taps::new(deps.net, store, deps.seed.fork("tap"), inventory.clone(), metrics);
        let api = Api {
            source,
            inventory,
            control_plane,
            clock: deps.clock,
            taps,
            authorizer,
            reach,
            drain: drain.clone(),
        };
        let serving = server::serve(listener, api.router(), drain.clone());

        // What never ends by itself ends when the last answer has been given.
        let background = futures::future::join3(resources.boxed(), reading, credentials.boxed());
        tokio::select! {
            _ = futures::future::join(serving, admin) => {}
            // Never: the cluster is followed until this future is dropped.
            _ = background => {}
        }
        Ok(())
    }
    .boxed()
}

/// Who observe is to the proxies that it taps.
fn own_identity(control_plane: &ControlPlane) -> Identity {
    Identity::of(&control_plane.component(COMPONENT_OBSERVE), control_plane)
}

/// Keeps `store` in step with the files, for ever.
async fn keep_credentials(files: Option<Files>, every: Duration, store: Store, readiness: Readiness) {
    let Some(files) = files else {
        readiness.note("tls", "disabled: there is no tap");
        return std::future::pending().await;
    };
    let told = store.clone();
    let on_result = move |result: ReloadResult| {
        match &result {
            ReloadResult::Reloaded => tracing::info!("credentials loaded"),
            ReloadResult::Unreadable(error) => tracing::warn!(%error, "no credentials"),
            ReloadResult::Rejected(error) => tracing::warn!(%error, "credentials are not usable"),
        }
        readiness.note("tls", told.current().err().map_or("ok", |reason| reason.label()));
    };
    conduit_identity::watch(files, store, on_result, every).await;
}
