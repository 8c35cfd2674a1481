//! What became of requests, as the caller tells it.

use std::collections::BTreeMap;

use serde_json::Value;

/// What became of the requests of a stretch of time.
#[derive(Debug, Clone, Default)]
pub struct Counts {
    /// Requests that were answered as they should.
    pub succeeded: u64,
    /// The others.
    pub failed: u64,
    /// Of each kind of request, how many were answered as they should.
    pub kinds: BTreeMap<String, u64>,
    /// Why the others were not, since the start.
    pub reasons: String,
    /// The pod that tells.
    caller: String,
    bounds_ms: Vec<u64>,
    latencies: Vec<u64>,
}

impl Counts {
    /// What this pod tells.
    pub(crate) fn read(caller: String, json: &Value) -> Self {
        let numbers = |value: &Value| -> Vec<u64> {
            value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
        };
        let mut counts = Self { caller, bounds_ms: numbers(&json["bounds_ms"]), ..Self::default() };
        counts.reasons = json["reasons"].to_string();
        for kind in json["kinds"].as_array().into_iter().flatten() {
            let succeeded = kind["succeeded"].as_u64().unwrap_or(0);
            counts.succeeded += succeeded;
            counts.failed += kind["failed"].as_u64().unwrap_or(0);
            counts.kinds.insert(kind["kind"].as_str().unwrap_or_default().to_owned(), succeeded);
            counts.latencies.resize(counts.bounds_ms.len() + 1, 0);
            for (sum, more) in counts.latencies.iter_mut().zip(numbers(&kind["latencies"])) {
                *sum += more;
            }
        }
        counts
    }

    /// What was added since `before`: everything, when it was another pod that told it.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
        if before.caller != self.caller {
            return since;
        }
        since.succeeded = self.succeeded.saturating_sub(before.succeeded);
        since.failed = self.failed.saturating_sub(before.failed);
        for (kind, count) in &mut since.kinds {
            *count = count.saturating_sub(before.kinds.get(kind).copied().unwrap_or(0));
        }
        for (now, then) in since.latencies.iter_mut().zip(&before.latencies) {
            *now = now.saturating_sub(*then);
        }
        since
    }

    /// Requests that have ended.
    pub fn sent(&self) -> u64 {
        self.succeeded + self.failed
    }

    /// How long the fastest `percent` in a hundred took at most, in words.
    pub fn percentile(&self, percent: u64) -> String {
        let all: u64 = self.latencies.iter().sum();
        if all == 0 {
            return "-".to_owned();
        }
        let mut left = (all * percent).div_ceil(100);
        for (bound, count) in self.bounds_ms.iter().zip(&self.latencies) {
            if left <= *count {
                return format!("≤ {bound} ms");
            }
            left -= count;
        }
        "more than measured".to_owned()
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(succeeded: u64, slow: u64) -> Counts {
        let kind = json!({"kind": "kept_get", "succeeded": succeeded, "failed": 1, "latencies": [succeeded, slow, 0]});
        let json = json!({"bounds_ms": [1, 5], "kinds": [kind], "reasons": {}});
        Counts::read("caller-1".to_owned(), &json)
    }

    #[test]
    fn a_stretch_of_time_is_the_difference_of_two_readings() {
        let since = counts(300, 2).since(&counts(100, 1));
        assert_eq!((since.succeeded, since.failed, since.sent()), (200, 0, 200));
        assert_eq!(since.kinds["kept_get"], 200);
        let another = Counts { caller: "caller-2".to_owned(), ..counts(300, 2) };
        assert_eq!(another.since(&counts(100, 1)).succeeded, 300, "a new caller begins at nothing");
        assert_eq!(since.percentile(99), "≤ 1 ms");
        assert_eq!(
            (counts(60, 40).percentile(50), counts(60, 40).percentile(99)),
            ("≤ 1 ms".into(), "≤ 5 ms".into())
        );
        assert_eq!(Counts::default().percentile(99), "-");
    }
}
