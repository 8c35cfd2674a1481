//! What a mesh is made of.

use std::{net::SocketAddr, path::PathBuf, sync::Arc, time::Duration};

use conduit_ca::Lifetimes;
use conduit_cluster::Cluster;
use conduit_identity::{Clock, ControlPlane, Crypto, SystemClock};
use conduit_k8s::lease;
use conduit_runtime::Seed;
use kube::Client;

use crate::{Addresses, Error, Mesh, PodEvent, Services};

/// Hears what happens to pods, at the moment it happens.
pub type PodObserver = Arc<dyn Fn(PodEvent) + Send + Sync>;

/// What a mesh is to be like.
#[derive(Clone)]
pub struct Builder {
    pub(crate) addresses: Addresses,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) api_clock: Option<Arc<dyn Clock>>,
    pub(crate) seed: Seed,
    pub(crate) crypto: Crypto,
    pub(crate) control_plane: ControlPlane,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) ca_lease: Option<lease::Timing>,
    pub(crate) pull: Duration,
    pub(crate) grace: Duration,
    pub(crate) scrape_interval: Duration,
    pub(crate) observer: Option<PodObserver>,
}

/// What everything in the mesh shares.
pub(crate) struct Shared {
    pub(crate) addresses: Addresses,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) seed: Seed,
    pub(crate) crypto: Crypto,
    pub(crate) control_plane: ControlPlane,
    pub(crate) lifetimes: Lifetimes,
    pub(crate) ca_lease: Option<lease::Timing>,
    pub(crate) pull: Duration,
    pub(crate) grace: Duration,
    pub(crate) scrape_interval: Duration,
    pub(crate) observer: Option<PodObserver>,
    pub(crate) cluster: Cluster,
    /// Calls the API as a function: for what a cluster's own parts and its operator do.
    pub(crate) client: Client,
    /// Where everybody else reaches it.
    pub(crate) api: SocketAddr,
    pub(crate) services: Services,
    /// Where kubelet mounts volumes.
    pub(crate) volumes: PathBuf,
}

impl Shared {
    pub(crate) fn tell(&self, event: impl FnOnce() -> PodEvent) {
        if let Some(observer) = &self.observer {
            observer(event());
        }
    }
}

impl Builder {
    /// A mesh with a control plane as it is shipped, on real time, whose pods have `addresses`.
    pub fn new(addresses: Addresses, seed: Seed) -> Self {
        Self {
            addresses,
            clock: Arc::new(SystemClock),
            api_clock: None,
            seed,
            crypto: Crypto::shipped(),
            control_plane: ControlPlane::default(),
            lifetimes: Lifetimes::default(),
            ca_lease: None,
            pull: Duration::from_secs(1),
            grace: Duration::ZERO,
            scrape_interval: Duration::from_secs(1),
            observer: None,
        }
    }

    /// Another wall clock.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = clock;
        self
    }

    /// Another wall clock for the machine that the Kubernetes API runs on.
    #[must_use]
    pub fn api_clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.api_clock = Some(clock);
        self
    }

    /// Other cryptography.
    #[must_use]
    pub fn crypto(mut self, crypto: Crypto) -> Self {
        self.crypto = crypto;
        self
    }

    /// Another control plane.
    #[must_use]
    pub fn control_plane(mut self, control_plane: ControlPlane) -> Self {
        self.control_plane = control_plane;
        self
    }

    /// Other lives of certificates than the shipped ones.
    #[must_use]
    pub fn lifetimes(mut self, lifetimes: Lifetimes) -> Self {
        self.lifetimes = lifetimes;
        self
    }

    /// Lets CAs contend for their Lease, as shipped. Without this each believes that it is the only one.
    #[must_use]
    pub fn ca_lease(mut self, timing: lease::Timing) -> Self {
        self.ca_lease = Some(timing);
        self
    }

    /// How long after its creation a pod's containers start: scheduling and pulling images take a second even where
    /// everything is at hand.
    #[must_use]
    pub fn pull(mut self, pull: Duration) -> Self {
        self.pull = pull;
        self
    }

    /// How long a pod that was deleted goes on accepting: its application waits so long before it stops, and so does its
    /// sidecar. None by default, where whoever ends a pod has taken it out of its Services before.
    #[must_use]
    pub fn grace(mut self, grace: Duration) -> Self {
        self.grace = grace;
        self
    }

    /// How often observe reads the proxies' metrics. Every second by default: a demonstration is short, and its pods are few.
    #[must_use]
    pub fn scrape_interval(mut self, interval: Duration) -> Self {
        self.scrape_interval = interval;
        self
    }

    /// Tells `observer` what happens to pods.
    #[must_use]
    pub fn observer(mut self, observer: PodObserver) -> Self {
        self.observer = Some(observer);
        self
    }

    /// Starts an empty cluster: its API, its controllers, its DNS.
    ///
    /// # Errors
    /// The machine has no room for it: addresses, ports, a directory.
    pub async fn start(self) -> Result<Mesh, Error> {
        Mesh::start(self).await
    }
}
