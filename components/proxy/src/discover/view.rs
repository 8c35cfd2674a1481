//! What is known of one target, and how the destination service's messages change it. Pure: messages in, views out.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{ControlPlane, Identity};
use conduit_proto::destination as proto;
use tokio::time::Instant;

use crate::{balance::Load, metrics::Labels};

/// Endpoints kept of one target. The rest is ignored: a balancer gains nothing from more, and the number is the
/// cluster's to choose, not ours.
const MAX_ENDPOINTS: usize = 5_000;

/// How long endpoints outlive a service that came back knowing none of them. Its own caches fill within seconds of a
/// restart; until then "nothing" means "nothing yet".
const DOUBTED_FOR: Duration = Duration::from_secs(300);

/// What is known of a target.
#[derive(Debug, Clone)]
pub(crate) enum Resolution {
    /// The destination service has not answered yet.
    Pending,
    /// The destination service knows nothing under that name or address.
    Unknown,
    /// A service or a pod.
    Known(Arc<Endpoints>),
}

impl Resolution {
    /// Whether the destination service says, now, that `addr` is one of the endpoints.
    pub(crate) fn stands_by(&self, addr: SocketAddr) -> bool {
        matches!(self, Self::Known(endpoints) if !endpoints.doubted && endpoints.at(addr).is_some())
    }
}

/// The endpoints of one target. None of them: the service exists and nothing answers.
#[derive(Debug, Default)]
pub(crate) struct Endpoints {
    /// Sorted by address, each address once. An endpoint that did not change is the same `Arc` as before.
    pub(crate) list: Vec<Arc<Endpoint>>,
    /// The service's labels alone, for what goes to the original destination for want of an endpoint.
    pub(crate) labels: Labels,
    /// The destination service does not stand by them now: it is out of reach, came back without its view, or does not
    /// follow the cluster. Whoever cannot reach one of them, or finds somebody else there, goes to the original destination instead.
    pub(crate) doubted: bool,
}

impl Endpoints {
    /// The endpoint at `addr`: a client of a headless Service chose its pod itself.
    pub(crate) fn at(&self, addr: SocketAddr) -> Option<&Arc<Endpoint>> {
        let index = self.list.binary_search_by_key(&addr, |endpoint| endpoint.addr).ok()?;
        self.list.get(index)
    }
}

/// One endpoint.
#[derive(Debug)]
pub(crate) struct Endpoint {
    /// Where it listens.
    pub(crate) addr: SocketAddr,
    /// What its proxy proves; none when it has no proxy with TLS of our control plane.
    pub(crate) identity: Option<Identity>,
    /// Of the service and the pod, merged.
    pub(crate) labels: Labels,
    /// Changes whenever what is known of the pod does, so that a peer that failed is tried again at once; the same for
    /// the same pod behind different targets.
    pub(crate) version: u64,
    /// Kept while the address stays, whatever else of the entry changes.
    pub(crate) load: Arc<Load>,
}

/// What is known of a target, as it is built from messages.
#[derive(Debug)]
pub(crate) struct Builder {
    control_plane: ControlPlane,
    answered: Answered,
    service_labels: BTreeMap<String, String>,
    endpoints: BTreeMap<SocketAddr, Arc<Endpoint>>,
    stream: Stream,
    /// The stream is open and has spoken.
    is_live: bool,
    /// The service does not follow the cluster, as it says itself.
    is_stale: bool,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Answered {
    Nothing,
    Unknown,
    Known,
}

/// What the next message means.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Stream {
    /// It is the first of a new stream and replaces everything.
    First,
    /// It came back with nothing; the endpoints are those of an earlier stream, until then.
    Doubted { until: Instant },
    /// It changes what the same stream said before.
    Following,
}

/// What a message could not be used for.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Malformed(pub(crate) usize);

impl Builder {
    /// Nothing known yet. Identities of other control planes than `control_plane` are no identities.
    pub(crate) fn new(control_plane: ControlPlane) -> Self {
        Self {
            control_plane,
            answered: Answered::Nothing,
            service_labels: BTreeMap::new(),
            endpoints: BTreeMap::new(),
            stream: Stream::First,
            is_live: false,
            is_stale: false,
        }
    }

    /// The stream is lost.
    pub(crate) fn disconnected(&mut self) {
        self.is_live = false;
    }

    /// A new stream begins: what is known stays in use until its first message.
    pub(crate) fn reconnected(&mut self) {
        self.stream = Stream::First;
    }

    /// When [`Builder::give_up`] is due.
    pub(crate) fn doubted_until(&self) -> Option<Instant> {
        match self.stream {
            Stream::Doubted { until } => Some(until),
            Stream::First | Stream::Following => None,
        }
    }

    /// The service has had time enough: it knows nothing because there is nothing.
    pub(crate) fn give_up(&mut self) {
        self.endpoints.clear();
        self.stream = Stream::Following;
    }

    /// What is known now.
    pub(crate) fn resolution(&self) -> Resolution {
        match self.answered {
            Answered::Nothing => Resolution::Pending,
            Answered::Unknown if self.endpoints.is_empty() => Resolution::Unknown,
            Answered::Unknown | Answered::Known => Resolution::Known(Arc::new(Endpoints {
                list: self.endpoints.values().cloned().collect(),
                labels: Labels::merged(&self.service_labels, &BTreeMap::new()),
                doubted: !self.is_live || self.is_stale || matches!(self.stream, Stream::Doubted { .. }),
            })),
        }
    }

    /// Applies a message, and tells how much of it could not be used.
    pub(crate) fn apply(&mut self, update: proto::Update, now: Instant) -> Malformed {
        let mut malformed = Malformed::default();
        self.is_live = true;
        let was_stale = std::mem::replace(&mut self.is_stale, update.stale);
        match update.update {
            Some(proto::update::Update::Snapshot(snapshot)) => {
                self.answered = Answered::Known;
                self.snapshot(snapshot, now, &mut malformed);
            }
            Some(proto::update::Update::Diff(diff)) => {
                self.answered = Answered::Known;
                self.diff(diff, now, &mut malformed);
            }
            Some(proto::update::Update::Unknown(proto::Unknown {})) => {
                self.answered = Answered::Unknown;
                self.snapshot(proto::Snapshot::default(), now, &mut malformed);
            }
            // Of the service itself.
            None if was_stale != self.is_stale => {}
            None => malformed.0 += 1,
        }
        malformed
    }

    fn snapshot(&mut self, snapshot: proto::Snapshot, now: Instant, malformed: &mut Malformed) {
        if snapshot.endpoints.is_empty() && self.is_doubtful(now) {
            return;
        }
        self.stream = Stream::Following;
        self.service_labels = snapshot.labels;
        let mut before = std::mem::take(&mut self.endpoints);
        for endpoint in snapshot.endpoints {
            self.upsert(endpoint, &mut before, now, malformed);
        }
    }

    /// Whether "nothing" is to be doubted rather than believed: the first word of a new stream, while there are
    /// endpoints that prove who they are. The others are forgotten, because a pod address may meanwhile belong to
    /// somebody else, and nothing would tell.
    fn is_doubtful(&mut self, now: Instant) -> bool {
        if self.stream == Stream::First {
            self.endpoints.retain(|_, endpoint| endpoint.identity.is_some());
            self.stream = Stream::Doubted { until: now + DOUBTED_FOR };
        }
        matches!(self.stream, Stream::Doubted { until } if now < until) && !self.endpoints.is_empty()
    }

    fn diff(&mut self, diff: proto::Diff, now: Instant, malformed: &mut Malformed) {
        let mut before = self.endpoints.clone();
        if self.stream != Stream::Following {
            // What is known belongs to an earlier stream: only what this one names counts.
            if diff.upsert.is_empty() && self.is_doubtful(now) {
                return;
            }
            self.endpoints.clear();
            self.stream = Stream::Following;
        }
        for address in diff.remove {
            match address.parse::<SocketAddr>() {
                Ok(addr) => drop(self.endpoints.remove(&addr)),
                Err(_) => malformed.0 += 1,
            }
        }
        for endpoint in diff.upsert {
            self.upsert(endpoint, &mut before, now, malformed);
        }
    }

    fn upsert(
        &mut self,
        endpoint: proto::Endpoint,
        before: &mut BTreeMap<SocketAddr, Arc<Endpoint>>,
        now: Instant,
        malformed: &mut Malformed,
    ) {
        let Ok(addr) = endpoint.address.parse::<SocketAddr>() else {
            malformed.0 += 1;
            return;
        };
        if self.endpoints.len() >= MAX_ENDPOINTS && !self.endpoints.contains_key(&addr) {
            malformed.0 += 1;
            return;
        }
        let identity = self.identity(&endpoint.identity, malformed);
        let labels = Labels::merged(&self.service_labels, &endpoint.labels);
        let made = match before.remove(&addr) {
            // The same object, so that whoever compares sees that nothing changed.
            Some(known) if known.identity == identity && known.labels == labels => known,
            known => {
                let load = known.map_or_else(|| Arc::new(Load::new(now)), |known| Arc::clone(&known.load));
                let version = version(identity.as_ref(), &endpoint.labels);
                Arc::new(Endpoint { addr, identity, labels, version, load })
            }
        };
        self.endpoints.insert(addr, made);
    }

    fn identity(&self, name: &str, malformed: &mut Malformed) -> Option<Identity> {
        if name.is_empty() {
            return None;
        }
        match Identity::parse(name) {
            Ok(identity) => identity.belongs_to(&self.control_plane).then_some(identity),
            Err(_) => {
                malformed.0 += 1;
                None
            }
        }
    }
}

/// A digest of what is known of a pod (FNV-1a): equal for equal pods, without a counter that two targets would share.
fn version(identity: Option<&Identity>, labels: &BTreeMap<String, String>) -> u64 {
    let texts = labels.iter().flat_map(|(key, value)| [key.as_str(), value.as_str()]);
    let texts = identity.map(Identity::as_str).into_iter().chain(texts);
    // The separator keeps "a" "bc" from being "ab" "c".
    let octets = texts.flat_map(|text| text.bytes().chain([0xff]));
    octets.fold(0xcbf2_9ce4_8422_2325, |hash, octet| (hash ^ u64::from(octet)).wrapping_mul(0x0100_0000_01b3))
}

#[cfg(test)]
mod tests;
