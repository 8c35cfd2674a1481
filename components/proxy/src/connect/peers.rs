//! Peers to which TLS failed: until a probe succeeds, connections to them do not try again, so that only the first one
//! waits for a broken peer.

use std::{
    net::SocketAddr,
    sync::{Arc, Weak},
    time::Duration,
};

use conduit_identity::{HandshakeFailure, Identity};
use conduit_runtime::{Backoff, Seed};
use indexmap::IndexMap;
use parking_lot::Mutex;
use tokio::{sync::Notify, time::Instant};

use crate::discover::Endpoint;

/// Peers remembered at once. Beyond, the oldest is forgotten: its next connection tries TLS again.
const MAX_PEERS: usize = 1_024;

/// A peer nobody asked for in this time is forgotten, and no longer probed.
const FORGOTTEN_AFTER: Duration = Duration::from_secs(600);

/// Probes start about 1 s apart and end about 15 s apart: a repaired peer is back on TLS within 20 s.
pub(super) fn backoff(seed: &Seed) -> Backoff {
    Backoff::new(Duration::from_secs(1), Duration::from_secs(15), seed)
}

#[derive(Debug, Default)]
pub(super) struct Peers {
    failed: Mutex<IndexMap<(SocketAddr, Identity), Failed>>,
}

#[derive(Debug)]
struct Failed {
    failure: HandshakeFailure,
    /// Gone once discovery knows it no more. Whoever has its address then is somebody else, whose application would be handed
    /// the probe.
    endpoint: Weak<Endpoint>,
    /// Of the discovery entry it failed under; another one is a reason to probe at once.
    version: u64,
    asked_at: Instant,
    changed: Arc<Notify>,
}

/// What a probe tries.
#[derive(Debug)]
pub(super) struct Probe {
    key: (SocketAddr, Identity),
    changed: Arc<Notify>,
}

impl Probe {
    pub(super) fn addr(&self) -> SocketAddr {
        self.key.0
    }

    pub(super) fn identity(&self) -> &Identity {
        &self.key.1
    }

    /// Waits until the discovery entry changes. Cancel safe.
    pub(super) async fn changed(&mut self) {
        self.changed.notified().await;
    }
}

impl Peers {
    /// How TLS to `endpoint` failed, if it did and has not succeeded since.
    pub(super) fn failure(&self, endpoint: &Arc<Endpoint>, identity: &Identity) -> Option<HandshakeFailure> {
        let mut failed = self.failed.lock();
        if failed.is_empty() {
            return None;
        }
        let peer = failed.get_mut(&(endpoint.addr, identity.clone()))?;
        peer.asked_at = Instant::now();
        peer.endpoint = Arc::downgrade(endpoint);
        if peer.version != endpoint.version {
            peer.version = endpoint.version;
            peer.changed.notify_one();
        }
        Some(peer.failure)
    }

    /// Returns a probe to start, unless one is under way.
    pub(super) fn remember(
        &self,
        endpoint: &Arc<Endpoint>,
        identity: &Identity,
        failure: HandshakeFailure,
    ) -> Option<Probe> {
        let key = (endpoint.addr, identity.clone());
        let mut failed = self.failed.lock();
        if let Some(peer) = failed.get_mut(&key) {
            peer.failure = failure;
            return None;
        }
        if failed.len() >= MAX_PEERS {
            failed.shift_remove_index(0);
        }
        let changed = Arc::new(Notify::new());
        let (version, asked_at) = (endpoint.version, Instant::now());
        let (endpoint, news) = (Arc::downgrade(endpoint), changed.clone());
        failed.insert(key.clone(), Failed { failure, endpoint, version, asked_at, changed: news });
        Some(Probe { key, changed })
    }

    /// Whether there still is such an endpoint, and somebody asks for it; forgets it otherwise.
    pub(super) fn is_wanted(&self, probe: &Probe) -> bool {
        let mut failed = self.failed.lock();
        let Some(peer) = failed.get(&probe.key) else { return false };
        // A peer that was forgotten and failed again has a probe of its own.
        if !Arc::ptr_eq(&peer.changed, &probe.changed) {
            return false;
        }
        let wanted = peer.endpoint.strong_count() > 0 && peer.asked_at.elapsed() < FORGOTTEN_AFTER;
        if !wanted {
            failed.shift_remove(&probe.key);
        }
        wanted
    }

    /// TLS works again; the other ports of the same pod, behind the same proxy, are probed at once.
    pub(super) fn recovered(&self, probe: &Probe) {
        let mut failed = self.failed.lock();
        failed.shift_remove(&probe.key);
        let (addr, identity) = &probe.key;
        for ((other, name), peer) in &*failed {
            if other.ip() == addr.ip() && name == identity {
                peer.changed.notify_one();
            }
        }
    }

    pub(super) fn failed_again(&self, probe: &Probe, failure: HandshakeFailure) {
        if let Some(peer) = self.failed.lock().get_mut(&probe.key) {
            peer.failure = failure;
        }
    }
}

#[cfg(test)]
mod tests {
    use futures::FutureExt;

    use super::*;
    use crate::{balance::Load, metrics::Labels};

    fn endpoint(port: u16, identity: &Identity) -> Arc<Endpoint> {
        Arc::new(Endpoint {
            addr: ([10, 0, 0, 1], port).into(),
            identity: Some(identity.clone()),
            labels: Labels::default(),
            version: 1,
            load: Arc::new(Load::new(Instant::now())),
        })
    }

    fn identity() -> Identity {
        Identity::parse("web.deployment.shop.conduit-managed.conduit.svc.cluster.local").unwrap()
    }

    #[tokio::test]
    async fn a_port_that_is_well_again_has_the_others_of_its_pod_probed() {
        let (peers, identity) = (Peers::default(), identity());
        let (one, another) = (endpoint(80, &identity), endpoint(81, &identity));
        let probe = peers.remember(&one, &identity, HandshakeFailure::Reset).unwrap();
        let mut waiting = peers.remember(&another, &identity, HandshakeFailure::Reset).unwrap();
        assert_eq!(waiting.changed().now_or_never(), None, "nothing has happened");
        peers.recovered(&probe);
        assert_eq!(waiting.changed().now_or_never(), Some(()));
        assert_eq!(peers.failure(&one, &identity), None);
        assert!(peers.failure(&another, &identity).is_some(), "it has yet to prove itself");
    }

    #[tokio::test]
    async fn what_discovery_has_dropped_is_probed_no_more() {
        let (peers, identity) = (Peers::default(), identity());
        let endpoint = endpoint(80, &identity);
        let probe = peers.remember(&endpoint, &identity, HandshakeFailure::Reset).unwrap();
        assert!(peers.is_wanted(&probe));
        assert_eq!(peers.failure(&endpoint, &identity), Some(HandshakeFailure::Reset));
        drop(endpoint);
        assert!(!peers.is_wanted(&probe));
    }
}
