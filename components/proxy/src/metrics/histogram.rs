//! A histogram of durations without a lock: prometheus-client's own takes a mutex for every observation, which two
//! workers feel on every request.

use std::{
    fmt,
    sync::atomic::{AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::encoding::{MetricEncoder, NoLabelSet};

/// Upper bounds in milliseconds, those of v0.5.0: fine enough for the proxy's own latency, wide enough for long polls.
const BOUNDS_MS: [u64; 25] = [
    1, 2, 3, 4, 5, 10, 20, 30, 40, 50, 100, 200, 300, 400, 500, 1_000, 2_000, 3_000, 4_000, 5_000, 10_000,
    20_000, 30_000, 40_000, 50_000,
];

const NANOS_PER_MS: u64 = 1_000_000;

/// Durations, counted by the bound they stay below, in milliseconds.
#[derive(Debug, Default)]
pub(crate) struct Histogram {
    /// The last is for what exceeds every bound.
    buckets: [AtomicU64; BOUNDS_MS.len() + 1],
    /// Wraps after 584 years of summed latency.
    sum_ns: AtomicU64,
}

impl Histogram {
    /// Counts `duration`.
    pub(crate) fn observe(&self, duration: Duration) {
        let ns = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let index = BOUNDS_MS.partition_point(|bound| bound * NANOS_PER_MS < ns);
        if let Some(bucket) = self.buckets.get(index) {
            bucket.fetch_add(1, Relaxed);
        }
        self.sum_ns.fetch_add(ns, Relaxed);
    }

    /// How many durations were counted.
    pub(crate) fn count(&self) -> u64 {
        self.buckets.iter().map(|bucket| bucket.load(Relaxed)).sum()
    }

    /// Writes the histogram. The count is that of the buckets as they were read, so that both agree while requests are
    /// being counted; the sum may be ahead by those.
    pub(crate) fn encode(&self, encoder: &mut MetricEncoder<'_>) -> fmt::Result {
        let bounds = BOUNDS_MS.iter().map(|ms| *ms as f64).chain([f64::INFINITY]);
        let buckets: Vec<(f64, u64)> =
            bounds.zip(self.buckets.iter().map(|bucket| bucket.load(Relaxed))).collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let sum_ms = self.sum_ns.load(Relaxed) as f64 / NANOS_PER_MS as f64;
        encoder.encode_histogram::<NoLabelSet>(sum_ms, count, &buckets, None)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn counts(histogram: &Histogram) -> Vec<u64> {
        histogram.buckets.iter().map(|bucket| bucket.load(Relaxed)).collect()
    }

    #[test]
    fn a_bound_belongs_to_its_bucket_and_what_exceeds_all_to_the_last() {
        let histogram = Histogram::default();
        for ms in [0, 1, 50_000, 50_001] {
            histogram.observe(Duration::from_millis(ms));
        }
        histogram.observe(Duration::from_micros(1_001));
        let counts = counts(&histogram);
        assert_eq!((counts[0], counts[1], counts[24], counts[25]), (2, 1, 1, 1));
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn count_and_sum_are_those_of_the_observations(
            observed in prop::collection::vec(0..100_000_000_u64, 0..100),
        ) {
            let histogram = Histogram::default();
            for us in &observed {
                histogram.observe(Duration::from_micros(*us));
            }
            prop_assert_eq!(histogram.count(), observed.len() as u64);
            prop_assert_eq!(histogram.sum_ns.load(Relaxed), observed.iter().sum::<u64>() * 1_000);
            for (index, count) in counts(&histogram).into_iter().enumerate() {
                let above = index.checked_sub(1).map(|below| BOUNDS_MS[below] * 1_000);
                let upto = BOUNDS_MS.get(index).map_or(u64::MAX, |bound| bound * 1_000);
                let expected = observed.iter().filter(|us| **us <= upto && above.is_none_or(|above| **us > above));
                prop_assert_eq!(count, expected.count() as u64);
            }
        }
    }
}
