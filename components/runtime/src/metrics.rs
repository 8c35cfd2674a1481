//! The registry behind `/metrics`.

use std::{fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, text::encode},
    metrics::MetricType,
    registry::Metric,
};

/// What a process measures. Cloning shares.
#[derive(Clone, Default)]
pub struct Registry {
    inner: Arc<Mutex<prometheus_client::registry::Registry>>,
    refresh: Arc<Mutex<Vec<Refresh>>>,
}

type Refresh = Box<dyn Fn() + Send>;

impl Registry {
    /// Adds `metric` under `name`; a counter's name goes without `_total`, which the encoding appends.
    pub fn register(&self, name: &str, help: &str, metric: impl Metric) {
        // The encoding ends every help text with a full stop of its own.
        self.inner.lock().register(name, help.trim_end_matches('.'), metric);
    }

    /// Adds a collector, for metrics that are computed when they are read.
    pub fn register_collector(&self, collector: Box<dyn prometheus_client::collector::Collector>) {
        self.inner.lock().register_collector(collector);
    }

    /// Adds `process_time_seconds`: what `now` says when the metrics are read, since 1970. Certificates are judged by it, so
    /// that a wrong clock must be seen from outside.
    pub fn register_time(&self, now: impl Fn() -> Duration + Send + Sync + 'static) {
        let help = "What time it is for this process when this is read, in seconds since 1970.";
        self.register("process_time_seconds", help, Time(now));
    }

    /// Runs `refresh` before each encoding: the place to evict idle series.
    pub fn before_encode(&self, refresh: impl Fn() + Send + 'static) {
        self.refresh.lock().push(Box::new(refresh));
    }

    /// All metrics as OpenMetrics text.
    pub fn encode(&self) -> String {
        self.refresh.lock().iter().for_each(|refresh| refresh());
        let mut text = String::new();
        if let Err(error) = encode(&mut text, &self.inner.lock()) {
            // Writing to a String fails only when a metric's own encoding does.
            tracing::error!(%error, "a metric cannot be encoded; /metrics is incomplete");
        }
        text
    }

    /// The media type of [`Registry::encode`]'s text.
    pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";
}

impl fmt::Debug for Registry {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Registry")
    }
}

/// A clock as a gauge.
struct Time<F>(F);

impl<F> fmt::Debug for Time<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Time")
    }
}

impl<F: Fn() -> Duration + Send + Sync> EncodeMetric for Time<F> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        encoder.encode_gauge(&(self.0)().as_secs_f64())
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

#[cfg(test)]
mod tests {
    use prometheus_client::metrics::counter::Counter;

    use super::*;

    #[test]
    fn counters_are_encoded_after_the_refresh() {
        let registry = Registry::default();
        let requests = Counter::<u64>::default();
        registry.register("requests", "Requests seen.", requests.clone());
        registry.before_encode(move || {
            requests.inc();
        });
        insta::assert_snapshot!(registry.encode(), @r"
        # HELP requests Requests seen.
        # TYPE requests counter
        requests_total 1
        # EOF
        ");
    }

    #[test]
    fn the_time_is_that_of_the_reading() {
        let registry = Registry::default();
        let ticks = std::sync::atomic::AtomicU64::new(1_700_000_000);
        let next = move || Duration::from_secs(ticks.fetch_add(1, std::sync::atomic::Ordering::Relaxed));
        registry.register_time(next);
        assert!(registry.encode().contains("process_time_seconds 1700000000.0\n"));
        assert!(registry.encode().contains("process_time_seconds 1700000001.0\n"));
    }
}
