//! The destination service: tells every proxy where an authority or an address leads, who answers there, and under which
//! identity, and goes on telling it as the cluster changes.
//!
//! - `config.rs`: [`Config`]
//! - `server.rs`: accepting proxies, with TLS and without; gRPC
//! - `names.rs`: from what a client asks to what could be meant, as cluster DNS would have it (pure)
//! - `subscribe.rs`: who wants to know what, and telling them (one view a query, no queues)
//! - `index.rs`, `index/lookup.rs`: from objects to views (pure); `observed.rs`: what is kept of the objects;
//!   `table.rs`: maps that say what changed
//! - `view.rs`: views, and the steps between them (pure); `choice.rs`: what one client may choose from (pure)
//! - `translate.rs`: steps as messages
//! - `feed.rs`: following the cluster into the index; `standing.rs`: whether that goes on
//! - `metrics.rs`: what is told of all this
//!
//! The flow: `feed` → `index` → `subscribe` → (`choice`) → `translate` → `server`.
//!
//! What holds:
//!
//! - Nothing is said before the index has been filled. What was said stays in use while the API server is away, and clients
//!   are told that it is.
//! - A client that applies every message has the view; one that reads slowly gets the latest state, not a backlog.
//! - An identity is given out only for a pod that runs, was injected with TLS for our control plane, and is owned by the
//!   workload that its injection claims; an endpoint that becomes known later is told of later.
//! - That an application has ended is said of a pod of which no other container will run again, hence never of one whose
//!   containers are always started again: the proxies of Jobs end by it.
//! - What plain Kubernetes would refuse, choose or translate is refused, chosen and translated in the same way; what is
//!   not ours to know is "unknown", and the client goes where it was going.
//!
//! What it needs in the cluster (the verbs it uses, and no others): list and watch of services, pods and endpoints;
//! `discovery.k8s.io` endpointslices; `apps` replicasets; `batch` jobs; everywhere.
//!
//! Deliberately absent: DNS (a name outside the cluster is unknown here), weights and topology hints (a preference that
//! costs nothing to ignore), authentication of the asking proxy (what is told is what any pod can find out by asking the
//! cluster's DNS; a client certificate is verified and its expiry heeded, but none is required).

use std::{net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{Clock, Crypto, Identity, Store};
use conduit_k8s::owned::COMPONENT_DESTINATION;
use conduit_net::Net;
use conduit_runtime::{
    Seed,
    admin::{self, Admin},
    drain,
    metrics::Registry,
    ready::{Guard, Readiness},
};
use futures::{FutureExt, future::BoxFuture};
use tokio::{sync::oneshot, time::timeout};

mod choice;
mod config;
mod feed;
pub mod index;
mod metrics;
pub mod names;
pub mod observed;
mod server;
mod standing;
mod subscribe;
mod table;
mod translate;
pub mod view;

pub use config::Config;

use crate::{
    feed::Feeds,
    index::{Index, Scope},
    metrics::Metrics,
    server::Server,
    subscribe::Topics,
};

/// What destination lives in.
pub struct Deps {
    /// The cluster.
    pub client: kube::Client,
    /// Where it listens.
    pub net: Net,
    /// The wall clock, by which certificates are judged.
    pub clock: Arc<dyn Clock>,
    /// Jitter.
    pub seed: Seed,
    /// How its own credentials are used.
    pub crypto: Crypto,
    /// Told where it listens, once it does.
    pub started: Option<oneshot::Sender<Bound>>,
}

/// Where destination listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// gRPC.
    pub grpc: SocketAddr,
    /// `/live`, `/ready`, `/metrics`.
    pub admin: SocketAddr,
}

/// Why destination cannot run.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {addr}: {source}")]
pub struct Error {
    /// Where.
    pub addr: SocketAddr,
    /// Why not.
    pub source: std::io::Error,
}

/// Runs the destination service until the drain.
///
/// # Errors
/// An address cannot be bound. Nothing that happens later ends it.
pub fn run(config: Config, deps: Deps, drain: drain::Watch) -> BoxFuture<'static, Result<(), Error>> {
    async move {
        let bind = async |addr| deps.net.bind(addr).await.map_err(|source| Error { addr, source });
        let (listener, admin) = (bind(config.listener).await?, bind(config.admin).await?);
        let bound = Bound { grpc: listener.local_addr(), admin: admin.local_addr() };
        tracing::info!(grpc = %bound.grpc, admin = %bound.admin, "listening");
        if let Some(started) = deps.started {
            // Whoever asked may have lost interest.
            let _ = started.send(bound);
        }

        let scope = Scope { control_plane: config.control_plane.clone(), zone: config.zone.clone() };
        let topics = Topics::new(Index::new(scope), config.max_streams);
        topics.set_stale(true);
        let (feeds, registry, readiness) = (Feeds::default(), Registry::default(), Readiness::default());
        let metrics = Metrics::new(&registry, &topics, &feeds);
        let clock = deps.clock.clone();
        registry.register_time(move || clock.now().0);
        let store = own_store(&config, deps.crypto, deps.clock.clone());

        let cluster_known = readiness.guard("the cluster's Services, endpoints and pods");
        let opening = open(topics.clone(), feeds.clone(), cluster_known);
        let standing = standing::watch(deps.client.clone(), deps.seed.clone(), topics.clone(), feeds.clone());
        let following =
            feed::follow(deps.client, config.timing.clone(), deps.seed, topics.clone(), feeds.clone());
        let following = futures::future::join(following, standing);
        let publishing = topics.publish();
        let reloading = reload(&config, store.clone(), metrics.clone(), readiness.clone());
        let admin = admin::serve(admin, Admin::new(readiness, registry), drain.clone());
        let server = Server { topics: topics.clone(), store, clock: deps.clock, metrics };
        let serving = server.run(listener, config.max_connections, drain);

        tokio::select! {
            _ = futures::future::join(serving, admin) => {}
            // Never: these go on until this future is dropped.
            _ = futures::future::join4(opening, following.boxed(), publishing, reloading) => {}
        }
        Ok(())
    }
    .boxed()
}

/// How long it is waited for what is known to be followed as well, so that who asks at once is told what we stand by.
const STANDING_WAIT: Duration = Duration::from_secs(1);

/// Waits for the index to be filled, and answers from then on.
async fn open(topics: Topics, feeds: Feeds, cluster_known: Guard) {
    feeds.synced().await;
    // What is told after that is told as what it is.
    let _ = timeout(STANDING_WAIT, topics.stand()).await;
    topics.open();
    cluster_known.ready();
    tracing::info!(known = ?topics.sizes(), "the cluster is known");
    std::future::pending().await
}

/// Our own side of TLS, empty as yet.
fn own_store(config: &Config, crypto: Crypto, clock: Arc<dyn Clock>) -> Store {
    if config.files.is_none() {
        return Store::disabled();
    }
    let workload = config.control_plane.component(COMPONENT_DESTINATION);
    Store::new(Identity::of(&workload, &config.control_plane), crypto, clock)
}

/// Keeps the store in step with its files.
fn reload(
    config: &Config,
    store: Store,
    metrics: Metrics,
    readiness: Readiness,
) -> impl Future<Output = ()> + Send + use<> {
    let (files, every) = (config.files.clone(), config.reload);
    async move {
        metrics::note_tls(&readiness, &store);
        let Some(files) = files else { return std::future::pending().await };
        let watched = store.clone();
        let on_result = move |result: conduit_identity::ReloadResult| {
            metrics.reload(result.status());
            metrics::note_tls(&readiness, &store);
            match result {
                conduit_identity::ReloadResult::Reloaded => tracing::info!("own credentials loaded"),
                conduit_identity::ReloadResult::Unreadable(error) => {
                    tracing::info!(%error, "no credentials of our own yet, answering in plaintext");
                }
                conduit_identity::ReloadResult::Rejected(error) => {
                    tracing::warn!(%error, "own credentials cannot be used");
                }
            }
        };
        conduit_identity::watch(files, watched, on_result, every).await;
    }
}
