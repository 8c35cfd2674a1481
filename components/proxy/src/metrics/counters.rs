//! Counters whose one label has few values, all of them known beforehand: an array, always shown in full, so that a rate
//! over the first event is not lost.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

/// A counter for each value of the label `key`. Cloning shares.
#[derive(Debug, Clone)]
pub(crate) struct Counters<const N: usize> {
    key: &'static str,
    values: [&'static str; N],
    counts: Arc<[AtomicU64; N]>,
}

impl<const N: usize> Counters<N> {
    /// Counters of zero.
    pub(crate) fn new(key: &'static str, values: [&'static str; N]) -> Self {
        Self { key, values, counts: Arc::new(std::array::from_fn(|_| AtomicU64::new(0))) }
    }

    /// Counts one for `value`, which is one of those given to [`Counters::new`].
    pub(crate) fn inc(&self, value: &str) {
        let count =
            self.values.iter().position(|known| *known == value).and_then(|index| self.counts.get(index));
        if let Some(count) = count {
            count.fetch_add(1, Relaxed);
        }
    }
}

impl<const N: usize> EncodeMetric for Counters<N> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.values.iter().zip(self.counts.iter()).try_for_each(|(value, count)| {
            let labels = [(self.key, *value)];
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&count.load(Relaxed), None)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}
