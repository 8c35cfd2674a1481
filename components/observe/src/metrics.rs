//! What observe tells of itself on its admin port.

use conduit_runtime::metrics::Registry;
use prometheus_client::metrics::{counter::Counter, gauge::Gauge};

/// Observe's own metrics. Cloning shares.
#[derive(Debug, Clone, Default)]
pub struct Metrics {
    /// Readings of a proxy's metrics that went into the window.
    pub(crate) readings: Counter,
    /// Readings that failed.
    pub(crate) failures: Counter,
    /// Pods that the window holds something of, gone ones included.
    pub(crate) pods: Gauge,
    /// Series that the window holds: what its memory is proportional to.
    pub(crate) series: Gauge,
    /// Open taps.
    pub(crate) taps: Gauge,
    /// Events that taps were told.
    pub(crate) events: Counter,
}

impl Metrics {
    /// Metrics that `registry` shows.
    pub fn register(registry: &Registry) -> Self {
        let metrics = Self::default();
        let Self { readings, failures, pods, series, taps, events } = metrics.clone();
        registry.register("observe_readings", "Readings of a proxy's metrics.", readings);
        registry.register("observe_reading_failures", "Readings of a proxy's metrics that failed.", failures);
        registry.register("observe_window_pods", "Pods whose recent past is held.", pods);
        registry.register("observe_window_series", "Series whose recent past is held.", series);
        registry.register("observe_taps", "Taps that are open.", taps);
        registry.register("observe_tap_events", "Events that taps were told.", events);
        metrics
    }
}

/// Counts one while it lives.
#[derive(Debug)]
pub(crate) struct Held(Gauge);

impl Held {
    pub(crate) fn new(gauge: &Gauge) -> Self {
        gauge.inc();
        Self(gauge.clone())
    }
}

impl Drop for Held {
    fn drop(&mut self) {
        self.0.dec();
    }
}
