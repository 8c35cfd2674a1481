//! What `benches/` measures of the crate's inside. Not part of its interface, and used by nothing else.

use std::{hint::black_box, net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::Identity;
use conduit_net::PeerAddr;
use conduit_runtime::metrics::Registry;
use http::{HeaderMap, Request, StatusCode, request};
use tokio::time::Instant;

use crate::{
    balance::{self, Load},
    metrics::{Labels, Metrics},
    session::{Direction, End, PeerId, Session, Sessions, TlsStatus, Transport, Why},
    tap::Tap,
};

/// Endpoints to pick from, all of them available.
pub struct Balance {
    loads: Vec<Arc<Load>>,
    draw: u64,
    now: Instant,
}

impl Balance {
    /// `count` endpoints.
    pub fn new(count: usize) -> Self {
        let now = Instant::now();
        Self { loads: (0..count).map(|_| Arc::new(Load::new(now))).collect(), draw: 1, now }
    }

    /// Picks one, and counts an answer of it.
    pub fn request(&mut self) {
        // An odd constant with a good spread (the golden ratio) makes a cheap sequence of draws.
        self.draw = self.draw.wrapping_add(0x9e37_79b9_7f4a_7c15);
        self.now += Duration::from_micros(10);
        let picked = balance::pick(&self.loads, |load| &**load, self.now, self.draw);
        if let balance::Picked::Available(index) = black_box(picked) {
            self.loads[index].start(self.now).answered(self.now + Duration::from_millis(1));
        }
    }
}

/// A connection whose requests are recorded, with nobody tapping.
pub struct Records {
    registry: Registry,
    session: Session,
    transport: Transport,
    head: request::Parts,
    headers: HeaderMap,
    source: TlsStatus,
    labels: Vec<Labels>,
    tls: TlsStatus,
    target: SocketAddr,
    next: usize,
}

impl Records {
    /// Requests that go to `endpoints` endpoints in turn.
    pub fn new(endpoints: usize) -> Option<Self> {
        let registry = Registry::default();
        let metrics = Metrics::register(&registry, Duration::from_secs(600));
        let tap = Tap::new(100, metrics.tap.clone());
        let target = SocketAddr::from(([10, 0, 0, 2], 80));
        let peer = PeerAddr(SocketAddr::from(([10, 0, 0, 1], 5_000)));
        let session = Sessions::new(metrics, tap).accepted(Direction::Outbound, peer, target);
        let source = TlsStatus::Plain(Why::InternalTraffic);
        let id = |name: &str| Identity::parse(name).ok().map(PeerId::Verified);
        let client = id("web.deployment.emojivoto.conduit-managed.conduit.svc.cluster.local")?;
        let server = id("voting.deployment.emojivoto.conduit-managed.conduit.svc.cluster.local")?;
        let (head, ()) =
            Request::get("/api/vote").header("host", "voting.emojivoto").body(()).ok()?.into_parts();
        Some(Self {
            transport: session.opened(source.clone()),
            registry,
            session,
            head,
            headers: HeaderMap::new(),
            source,
            labels: (0..endpoints).map(labels).collect(),
            tls: TlsStatus::Mutual { client, server },
            target,
            next: 0,
        })
    }

    /// Records one request with its response.
    pub fn request(&mut self) {
        self.next = (self.next + 1) % self.labels.len();
        let mut exchange = self.session.request(&self.head, &self.source);
        exchange.dispatched(self.target, &self.labels[self.next], &self.tls);
        exchange.responded(StatusCode::OK, &self.headers);
        exchange.data(100);
        exchange.end(End::Complete);
    }

    /// Records one read.
    pub fn read(&mut self) {
        self.transport.read(black_box(100));
    }

    /// Writes the metrics out; the number of octets.
    pub fn encode(&self) -> usize {
        self.registry.encode().len()
    }
}

fn labels(pod: usize) -> Labels {
    let pairs = [
        ("namespace", "emojivoto"),
        ("service", "voting"),
        ("deployment", "voting"),
        ("pod_template_hash", "1"),
    ];
    let pairs = pairs.map(|(key, value)| (key.to_owned(), value.to_owned()));
    pairs.into_iter().chain([("pod".to_owned(), format!("voting-{pod}"))]).collect()
}
