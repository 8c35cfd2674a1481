//! What the proxy has to do with the control plane: discovery and tap.

use std::{fmt, sync::Arc};

use conduit_runtime::metrics::Registry;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::{MetricType, counter::Counter, gauge::Gauge},
};

use crate::session::TlsStatus;

/// What discovery does. Cloning shares.
#[derive(Debug, Clone)]
pub(crate) struct Discovery {
    /// Targets that are followed.
    pub(crate) targets: Gauge,
    /// Targets that were not asked for because too many are.
    pub(crate) declined: Counter,
    /// Streams that broke or ended.
    pub(crate) interrupted: Counter,
    /// None before the first attempt: a proxy of a server that calls nobody makes none.
    link: Arc<Mutex<Option<Link>>>,
}

#[derive(Debug)]
struct Link {
    up: bool,
    tls: Option<TlsStatus>,
}

impl Discovery {
    pub(super) fn register(registry: &Registry) -> Self {
        let discovery = Self {
            targets: Gauge::default(),
            declined: Counter::default(),
            interrupted: Counter::default(),
            link: Arc::default(),
        };
        registry.register(
            "discovery_targets",
            "Targets followed at the destination service.",
            discovery.targets.clone(),
        );
        let help = "Targets not asked for because too many are followed.";
        registry.register("discovery_declined", help, discovery.declined.clone());
        let help = "Streams of the destination service that broke or ended.";
        registry.register("discovery_interrupted", help, discovery.interrupted.clone());
        let help = "Whether the destination service was reached at the last attempt, and over what.";
        registry.register("destination_up", help, DestinationUp(Arc::clone(&discovery.link)));
        discovery
    }

    /// The destination service was reached over a connection with this status, or not reached.
    pub(crate) fn link(&self, tls: Option<TlsStatus>) {
        *self.link.lock() = Some(Link { up: tls.is_some(), tls });
    }
}

#[derive(Debug)]
struct DestinationUp(Arc<Mutex<Option<Link>>>);

impl EncodeMetric for DestinationUp {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let link = self.0.lock();
        let Some(link) = &*link else { return Ok(()) };
        let value = i64::from(link.up);
        match &link.tls {
            Some(tls) => encoder.encode_family(&[("tls", tls.label())])?.encode_gauge(&value),
            None => encoder.encode_gauge(&value),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.lock().is_none()
    }
}

/// What tap does. Cloning shares.
#[derive(Debug, Clone)]
pub(crate) struct Taps {
    /// Taps that are being read.
    pub(crate) active: Gauge,
    /// Events lost because a tap was read too slowly.
    pub(crate) lost: Counter,
    /// Callers that were turned away.
    pub(crate) refused: Counter,
}

impl Taps {
    pub(super) fn register(registry: &Registry) -> Self {
        let taps = Self { active: Gauge::default(), lost: Counter::default(), refused: Counter::default() };
        registry.register("tap_active", "Taps that are being read.", taps.active.clone());
        registry.register(
            "tap_events_lost",
            "Events lost because a tap was read too slowly.",
            taps.lost.clone(),
        );
        let help = "Calls of tap by somebody who did not prove to be the control plane.";
        registry.register("tap_refused", help, taps.refused.clone());
        taps
    }
}
