//! What the mesh does, for people: `stat`, `tap` and the HTTP API that the CLI and the browser share.
//!
//! # Map
//! What is asked and answered, pure:
//! - `kind.rs`: the types of rows; `query.rs`: what can be asked; `request.rs`: the same from HTTP parameters
//! - `stat.rs`: samples to rows; `hop.rs`: which row a sample belongs to; `authority.rs`, `quantile.rs`: its arithmetic
//! - `row.rs`: the answer, as JSON has it; `samples.rs`, `inventory.rs`: what it is computed from
//!
//! Where it comes from:
//! - `sources.rs`: [`sources::Source`]; `sources/text.rs` reads a proxy's metrics, `sources/window.rs` and
//!   `sources/trail.rs` remember what they grew by, `sources/scrape.rs` asks every pod
//! - `resources.rs`: the cluster, by watches, as [`inventory::Inventory`]
//!
//! Who is told:
//! - `api.rs`, `problem.rs`, `server.rs`: the HTTP API
//! - `demo_file.rs`: how the CLI finds the one of a running `conduit demo`
//! - `config.rs`, `main.rs`: the process
//!
//! # Invariants
//! Nothing here changes anything: not the cluster, not a proxy. Every answer is computed from what the proxies said of
//! connections that carried bytes. What is missing (a pod that cannot be read) is told beside the answer. Memory is
//! bounded by pods and label sets, not by time or traffic.

use std::{net::SocketAddr, sync::Arc};

use conduit_identity::{Clock, Crypto};
use conduit_net::Net;
use conduit_runtime::{Seed, admin, admin::Admin, drain, metrics::Registry, ready::Readiness};
use futures::future::{BoxFuture, FutureExt};
use tokio::sync::{oneshot, watch};

pub mod api;
pub mod authority;
mod config;
pub mod demo_file;
mod hop;
pub mod inventory;
pub mod kind;
pub mod problem;
pub mod quantile;
pub mod query;
pub mod request;
mod resources;
pub mod row;
pub mod samples;
mod server;
pub mod sources;
pub mod stat;
#[cfg(test)]
mod testing;

pub use config::Config;

use crate::{api::Api, inventory::Inventory, sources::scrape};

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

        let readiness = Readiness::default();
        let cluster_known = readiness.guard("the cluster's pods");
        let admin = admin::serve(admin, Admin::new(readiness, Registry::default()), drain.clone());

        let (published, inventory) = watch::channel(Arc::new(Inventory::default()));
        let control_plane = config.control_plane.clone();
        let known = || cluster_known.ready();
        let resources =
            resources::follow(deps.client, config.timing, deps.seed, control_plane.clone(), published, known);

        let shared = scrape::Shared::new();
        let scraper = scrape::Scraper {
            net: deps.net,
            clock: deps.clock,
            inventory: inventory.clone(),
            shared: shared.clone(),
            limits: config.limits,
        };
        let api = Api { source: sources::Source::Window(shared), inventory, control_plane };
        let serving = server::serve(listener, api.router(), drain.clone());

        // What never ends by itself ends when the last answer has been given.
        let background = futures::future::join(resources.boxed(), scraper.run(drain).boxed());
        tokio::select! {
            _ = futures::future::join(serving, admin) => {}
            // Never: the cluster is followed until this future is dropped.
            _ = background => {}
        }
        Ok(())
    }
    .boxed()
}
