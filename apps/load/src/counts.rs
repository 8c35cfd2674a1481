//! What became of the requests, of each kind, since the start. Whoever wants a stretch of time subtracts two readings.

use std::{collections::BTreeMap, time::Duration};

use parking_lot::Mutex;
use serde_json::{Value, json};

/// Upper ends of the buckets of latencies, in milliseconds; one more bucket holds the rest.
const BOUNDS_MS: [u64; 24] = [
    1, 2, 3, 4, 6, 8, 11, 16, 22, 32, 45, 64, 90, 128, 181, 256, 362, 512, 724, 1024, 1448, 2048, 5000,
    10_000,
];
/// Most reasons of failures that are told apart.
const MAX_REASONS: usize = 32;

/// What a request is like.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    KeptGet,
    KeptPost,
    FreshGet,
    FreshPost,
}

impl Kind {
    const ALL: [Self; 4] = [Self::KeptGet, Self::KeptPost, Self::FreshGet, Self::FreshPost];

    /// The kind of the request of this number: each in turn.
    pub(crate) fn of(number: u64) -> Self {
        Self::ALL[(number % 4) as usize]
    }

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::KeptGet => "kept_get",
            Self::KeptPost => "kept_post",
            Self::FreshGet => "fresh_get",
            Self::FreshPost => "fresh_post",
        }
    }

    pub(crate) fn is_kept(self) -> bool {
        matches!(self, Self::KeptGet | Self::KeptPost)
    }

    pub(crate) fn is_post(self) -> bool {
        matches!(self, Self::KeptPost | Self::FreshPost)
    }
}

/// The counts so far.
#[derive(Debug, Default)]
pub(crate) struct Counts {
    kinds: Mutex<[Count; 4]>,
    reasons: Mutex<BTreeMap<String, u64>>,
}

#[derive(Debug, Default)]
struct Count {
    succeeded: u64,
    failed: u64,
    latencies: [u64; BOUNDS_MS.len() + 1],
}

impl Counts {
    pub(crate) fn count(&self, kind: Kind, took: Duration, outcome: Result<(), String>) {
        let bucket = BOUNDS_MS.iter().position(|bound| took <= Duration::from_millis(*bound));
        let mut kinds = self.kinds.lock();
        let count = &mut kinds[kind as usize];
        count.latencies[bucket.unwrap_or(BOUNDS_MS.len())] += 1;
        match outcome {
            Ok(()) => count.succeeded += 1,
            Err(reason) => {
                count.failed += 1;
                let mut reasons = self.reasons.lock();
                let key = if reasons.len() < MAX_REASONS { reason } else { "other".to_owned() };
                *reasons.entry(key).or_default() += 1;
            }
        }
    }

    pub(crate) fn failed(&self) -> u64 {
        self.kinds.lock().iter().map(|count| count.failed).sum()
    }

    pub(crate) fn json(&self) -> Value {
        let kinds = self.kinds.lock();
        let one = |kind: Kind| {
            let Count { succeeded, failed, latencies } = &kinds[kind as usize];
            json!({"kind": kind.name(), "succeeded": succeeded, "failed": failed, "latencies": latencies})
        };
        json!({
            "bounds_ms": BOUNDS_MS,
            "kinds": Kind::ALL.map(one),
            "reasons": *self.reasons.lock(),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_counted_by_kind_and_latency() {
        let counts = Counts::default();
        counts.count(Kind::of(3), Duration::from_millis(2), Ok(()));
        counts.count(Kind::of(3), Duration::from_secs(60), Err("late".to_owned()));
        let json = counts.json();
        let kind = &json["kinds"][3];
        assert_eq!((kind["kind"].as_str(), counts.failed()), (Some("fresh_post"), 1));
        assert_eq!((kind["succeeded"].as_u64(), kind["failed"].as_u64()), (Some(1), Some(1)));
        assert_eq!((kind["latencies"][1].as_u64(), kind["latencies"][24].as_u64()), (Some(1), Some(1)));
        assert_eq!(json["reasons"]["late"], 1);
    }
}
