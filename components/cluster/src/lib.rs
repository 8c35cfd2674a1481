//! A Kubernetes API in memory, for the simulation, the demo and every test: kube-rs talks to it unchanged, over any
//! [`conduit_net::Network`] or as a function call.
//!
//! A request comes in through `serve.rs`, and `api.rs` carries it down this list:
//!
//! - `call.rs`: what is asked for: verb, kind, namespace, name
//! - `faults.rs`: whether it is to go wrong
//! - `list.rs`, `watch.rs`, `select.rs`: reading
//! - `write.rs`: creating and replacing, `patch.rs`: changing, `delete.rs`; `meta.rs`: identity and version
//! - `admit.rs`, `addresses.rs`: what the server fills in; `validate.rs`, `names.rs`, `immutable.rs`: what it refuses
//! - `ownership.rs`, `fields.rs`, `schema.rs`: who owns which field, and server-side apply
//! - `gc.rs`: what a deletion leads to
//! - `store.rs`, `object.rs`: versions, history, indexes
//! - `endpoints.rs`, `slices.rs`, `member.rs`, `mirror.rs`: the controllers that make Endpoints and EndpointSlices
//! - `kubelet.rs`: a pod's projected volume as files
//! - `conformance.rs`: what is promised, run on this API and on real ones
//! - `fixtures.rs`: objects for tests and the demo
//! - `review.rs`: whose a token is, and who may do what
//! - `resources.rs`: the table of kinds; `discovery.rs` tells of it; `failure.rs`: errors as `Status` objects
//!
//! Invariants: one lock guards all state and is never held across an await; a request either happened wholly or not at
//! all; revisions grow by one with every change; everything iterated is ordered; names and uids come from the seed and
//! times from the clock, so the same requests in the same order give the same bytes. Every buffer is bounded: bodies,
//! history, watches, connections.
//!
//! Deliberately absent: authentication and RBAC (everybody may do everything; reviews answer what they are told to),
//! scheduling, workload controllers, custom resources, tables, OpenAPI documents, protobuf.

use std::{fmt, io, net::Ipv4Addr, net::SocketAddr, sync::Arc, time::Duration};

use conduit_net::Net;
use conduit_runtime::{Seed, drain};
use parking_lot::Mutex;
use rand::rngs::StdRng;
use serde_json::json;

mod addresses;
mod admit;
mod api;
mod base64;
mod call;
pub mod conformance;
mod delete;
mod discovery;
mod endpoints;
mod failure;
pub mod faults;
mod fields;
pub mod fixtures;
mod gc;
mod immutable;
pub mod kubelet;
mod list;
mod member;
mod meta;
mod mirror;
mod names;
mod object;
mod ownership;
mod patch;
mod resources;
mod review;
mod schema;
mod select;
mod serve;
mod slices;
mod store;
mod validate;
mod watch;
mod write;

pub use call::Verb;
pub use faults::Faults;
pub use review::{Access, Reviews, User};
pub use serve::Serving;

/// The time since 1970, from whoever decides what time it is.
pub type Clock = Arc<dyn Fn() -> Duration + Send + Sync>;

/// Which version of EndpointSlices a cluster serves: before 1.21 the beta, since 1.25 only the final one.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum SliceVersion {
    /// `discovery.k8s.io/v1`
    V1,
    /// `discovery.k8s.io/v1beta1`
    V1Beta1,
}

impl SliceVersion {
    /// `v1` or `v1beta1`
    pub fn as_str(self) -> &'static str {
        match self {
            Self::V1 => "v1",
            Self::V1Beta1 => "v1beta1",
        }
    }
}

/// What a cluster is like.
#[derive(Clone)]
pub struct Config {
    /// Where timestamps come from.
    pub clock: Clock,
    /// Where uids and generated names come from.
    pub seed: Seed,
    /// Changes of each kind that are remembered for watches, continued lists and stale lists.
    pub event_history: usize,
    /// The longest request body in bytes.
    pub max_body: usize,
    /// Watches open at a time.
    pub max_watches: usize,
    /// When a watch ends that asked for no end.
    pub watch_timeout: Duration,
    /// How often a watch that wants bookmarks gets one.
    pub bookmark_period: Duration,
    /// Which EndpointSlices there are.
    pub slices: SliceVersion,
    /// The /16 from which Services get their addresses.
    pub service_network: Ipv4Addr,
    /// The Kubernetes version to claim, major and minor.
    pub version: (u16, u16),
}

impl Config {
    /// A cluster as most are, with Kubernetes' own limits where it has some.
    pub fn new(clock: Clock, seed: Seed) -> Self {
        Self {
            clock,
            seed,
            event_history: 4096,
            // k8s.io/apiserver: MaxRequestBodyBytes.
            max_body: 3 * 1024 * 1024,
            max_watches: 4096,
            // k8s.io/apiserver: MinRequestTimeout, of which a watch lasts once to twice.
            watch_timeout: Duration::from_secs(1800),
            // k8s.io/apiserver: the watch cache's bookmark frequency.
            bookmark_period: Duration::from_secs(60),
            slices: SliceVersion::V1,
            service_network: Ipv4Addr::new(10, 96, 0, 0),
            version: (1, 33),
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config").field("event_history", &self.event_history).finish_non_exhaustive()
    }
}

/// A Kubernetes cluster's API. Clones are handles on the same one.
#[derive(Debug, Clone)]
pub struct Cluster(Arc<Shared>);

/// What every request sees.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) config: Config,
    pub(crate) served: resources::Served,
    pub(crate) faults: Faults,
    pub(crate) reviews: Reviews,
    pub(crate) state: Mutex<State>,
}

/// What one request at a time changes.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) store: store::Store,
    ids: StdRng,
    addresses: addresses::Addresses,
}

impl State {
    pub(crate) fn writer<'a>(&'a mut self, shared: &'a Shared) -> write::Writer<'a> {
        write::Writer {
            store: &mut self.store,
            served: &shared.served,
            ids: &mut self.ids,
            now: i64::try_from((shared.config.clock)().as_secs()).unwrap_or(i64::MAX),
            addresses: &mut self.addresses,
            busy: std::collections::BTreeSet::new(),
        }
    }
}

/// The namespaces every cluster begins with.
const FIRST_NAMESPACES: [&str; 4] = ["default", "kube-node-lease", "kube-public", "kube-system"];

impl Cluster {
    /// A cluster with nothing in it but the namespaces that every cluster has.
    pub fn new(config: Config) -> Self {
        let state = State {
            store: store::Store::new(config.event_history),
            ids: config.seed.fork("cluster ids").rng(),
            addresses: addresses::Addresses::new(config.service_network),
        };
        let served = resources::Served::new(config.slices);
        let shared = Shared {
            served,
            faults: Faults::new(),
            reviews: Reviews::default(),
            state: Mutex::new(state),
            config,
        };
        if let Some(namespaces) = shared.served.kind("", "Namespace") {
            let mut state = shared.state.lock();
            for name in FIRST_NAMESPACES {
                let namespace = json!({ "metadata": { "name": name } });
                // It cannot fail: the names are valid and the cluster is empty.
                drop(state.writer(&shared).create(
                    namespaces,
                    "",
                    namespace,
                    &write::WriteOptions::default(),
                ));
            }
        }
        Self(Arc::new(shared))
    }

    /// A client that calls the API as a function, without sockets; its default namespace is `default`. Must be called
    /// within a runtime.
    pub fn client(&self) -> kube::Client {
        serve::client(self.0.clone())
    }

    /// As [`Cluster::client`], spared from scripted faults: for what stands for the cluster's own nodes, whose way to the API is
    /// not what is being broken.
    pub fn steady_client(&self) -> kube::Client {
        serve::steady_client(self.0.clone())
    }

    /// Listens on `addr` of a network; the result's `server` must be spawned. A drain ends open connections at once,
    /// because watches would last for ever.
    ///
    /// # Errors
    /// The network's, when the address cannot be had.
    pub async fn serve(&self, net: &Net, addr: SocketAddr, drain: drain::Watch) -> io::Result<Serving> {
        serve::serve(self.0.clone(), net, addr, drain).await
    }

    /// The API as a router, to mount elsewhere. Where a fault would break the connection it answers 503.
    pub fn router(&self) -> axum::Router {
        let shared = self.0.clone();
        axum::Router::new()
            .fallback_service(tower::service_fn(move |request| api::handle_always(shared.clone(), request)))
    }

    /// The script of faults.
    pub fn faults(&self) -> &Faults {
        &self.0.faults
    }

    /// The answers to token and access reviews.
    pub fn reviews(&self) -> &Reviews {
        &self.0.reviews
    }

    /// Keeps Endpoints and EndpointSlices in step with Services and pods until the drain begins. One of these per
    /// cluster; without it nobody writes endpoints.
    pub async fn run_controllers(&self, drain: drain::Watch) {
        endpoints::run(self.0.clone(), drain).await;
    }

    /// Brings every Service's endpoints up to date at once, for those who do not run the controllers.
    pub fn reconcile_endpoints(&self) {
        endpoints::reconcile_now(&self.0);
    }

    /// Deletes objects whose owners are gone or never existed, as a real cluster's collector does within seconds, and
    /// says how many. Dependents of an owner that is deleted go with it, without this.
    pub fn collect_garbage(&self) -> usize {
        gc::sweep(&mut self.0.state.lock().writer(&self.0))
    }

    /// Forgets all history, as etcd's compaction does every few minutes: watches that are behind get 410, and so does
    /// every continue token.
    pub fn compact(&self) {
        self.0.state.lock().store.compact();
    }

    /// The revision of the last change.
    pub fn revision(&self) -> u64 {
        self.0.state.lock().store.revision()
    }
}
