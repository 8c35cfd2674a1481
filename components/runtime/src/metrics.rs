//! The registry behind `/metrics`.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::{encoding::text::encode, registry::Metric};

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

impl std::fmt::Debug for Registry {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Registry")
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
}
