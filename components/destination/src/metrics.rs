//! What destination tells of itself.

use std::sync::atomic::AtomicU64;

use conduit_runtime::{metrics::Registry, ready::Readiness};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::{feed::Feeds, subscribe::Topics};

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Kind {
    kind: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Tls {
    tls: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Status {
    status: &'static str,
}

#[derive(Debug, Clone, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Resource {
    resource: &'static str,
}

/// What is counted as it happens. Cloning shares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    updates: Family<Kind, Counter>,
    connections: Family<Tls, Counter>,
    refused_streams: Counter,
    reloads: Family<Status, Counter>,
}

impl Metrics {
    /// Registers everything; what is a state rather than an event is read from `topics` and `feeds`.
    pub(crate) fn new(registry: &Registry, topics: &Topics, feeds: &Feeds) -> Self {
        let metrics = Self::default();
        let name = |name: &str| format!("conduit_destination_{name}");
        registry.register(&name("updates"), "Messages sent, by kind", metrics.updates.clone());
        registry.register(
            &name("connections"),
            "Connections accepted, by what came of TLS",
            metrics.connections.clone(),
        );
        let help = "Streams refused because there were too many";
        registry.register(&name("refused_streams"), help, metrics.refused_streams.clone());
        registry.register(
            &name("tls_reloads"),
            "Looks at our own credentials, by result",
            metrics.reloads.clone(),
        );
        register_state(registry, topics.clone(), feeds.clone());
        metrics
    }

    pub(crate) fn update(&self, kind: &'static str) {
        self.updates.get_or_create(&Kind { kind }).inc();
    }

    pub(crate) fn connection(&self, tls: &'static str) {
        self.connections.get_or_create(&Tls { tls }).inc();
    }

    pub(crate) fn refused_stream(&self) {
        self.refused_streams.inc();
    }

    pub(crate) fn reload(&self, status: &'static str) {
        self.reloads.get_or_create(&Status { status }).inc();
    }
}

fn register_state(registry: &Registry, topics: Topics, feeds: Feeds) {
    let name = |name: &str| format!("conduit_destination_{name}");
    let streams = Gauge::<i64>::default();
    let queries = Gauge::<i64>::default();
    let objects = Family::<Resource, Gauge>::default();
    let failures = Family::<Resource, Gauge>::default();
    let ages = Family::<Resource, Gauge<f64, AtomicU64>>::default();
    registry.register(&name("streams"), "Open streams", streams.clone());
    registry.register(&name("queries"), "Different things that open streams ask about", queries.clone());
    registry.register(&name("objects"), "Objects in the index", objects.clone());
    registry.register(&name("watch_failures"), "Failed lists and watches since the start", failures.clone());
    let help = "Seconds since the API server was last heard of; absent before the first time";
    registry.register(&name("sync_age_seconds"), help, ages.clone());
    let stale = Gauge::<i64>::default();
    let help = "1 while clients are told that what they know may be old, because the cluster is not followed";
    registry.register(&name("stale"), help, stale.clone());
    registry.before_encode(move || {
        stale.set(topics.is_stale().into());
        streams.set(number(topics.subscriptions()));
        queries.set(number(topics.topics()));
        let sizes = topics.sizes();
        let counts = [sizes.services, sizes.slices, sizes.pods, sizes.replica_sets, sizes.jobs];
        for ((resource, health), count) in feeds.all().into_iter().zip(counts) {
            let resource = Resource { resource };
            objects.get_or_create(&resource).set(number(count));
            failures.get_or_create(&resource).set(i64::try_from(health.failures()).unwrap_or(i64::MAX));
            if let Some(age) = health.age() {
                ages.get_or_create(&resource).set(age.as_secs_f64());
            }
        }
    });
}

fn number(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// Shows under `/ready` how our own TLS stands; it has no say in readiness.
pub(crate) fn note_tls(readiness: &Readiness, store: &conduit_identity::Store) {
    let note = match store.current() {
        Ok(loaded) => format!("{} until {}", loaded.credentials.identity(), loaded.credentials.not_after()),
        Err(unusable) => unusable.label().to_owned(),
    };
    readiness.note("tls", note);
}
