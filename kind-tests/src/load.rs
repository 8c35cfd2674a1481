//! A server and its caller in a namespace of their own, and what became of the requests.

use std::{collections::BTreeMap, time::Duration};

use serde_json::Value;

use crate::{
    cluster::{Cluster, PATIENCE},
    process::until,
};

const MANIFESTS: &str = include_str!("../manifests/load.yml");
/// The port on which the caller tells its counts, which the proxy leaves alone.
const COUNTS: u16 = 8081;
/// The port on which a proxy tells its metrics.
const METRICS: u16 = 4191;

/// The server and its caller.
pub struct Load<'c> {
    cluster: &'c Cluster,
    namespace: String,
}

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
    bounds_ms: Vec<u64>,
    latencies: Vec<u64>,
}

impl<'c> Load<'c> {
    /// Deploys both into a fresh namespace, the pods in the mesh, and waits until all that they say is TLS.
    pub fn meshed(cluster: &'c Cluster, namespace: &str) -> Self {
        let load = Self { cluster, namespace: namespace.to_owned() };
        cluster.remove_namespace(namespace);
        cluster.make_namespace(namespace);
        // In this order: what is dialled before it answers leaves half-open connections in the kernel for two minutes.
        for part in ["server", "caller"] {
            cluster.apply_to(namespace, &load.manifest_of(part, true));
            cluster.rolled_out(namespace, &[part]);
        }
        load.until_encrypted();
        load
    }

    /// The manifests of both, with proxies or without.
    pub fn manifests(&self, meshed: bool) -> String {
        let plain = MANIFESTS;
        let counts = COUNTS.to_string();
        match meshed {
            true => self.cluster.inject(plain, &["--tls=optional", "--skip-inbound-ports", &counts]),
            false => plain.to_owned(),
        }
    }

    /// The manifests of one of them.
    pub fn manifest_of(&self, part: &str, meshed: bool) -> String {
        let all = self.manifests(meshed);
        let is_it = |document: &&str| document.contains(&format!("\n  name: {part}\n"));
        all.split("---\n").filter(is_it).collect::<Vec<_>>().join("---\n")
    }

    /// The namespace.
    pub fn namespace(&self) -> &str {
        &self.namespace
    }

    /// The running pod of the caller.
    fn caller(&self) -> Result<String, String> {
        let pods = self.cluster.pods(&self.namespace, "app=caller");
        let name = pods.last().and_then(|pod| pod["metadata"]["name"].as_str());
        name.map(str::to_owned).ok_or_else(|| "the caller does not run".to_owned())
    }

    /// What became of all requests so far.
    ///
    /// # Errors
    /// The caller does not answer.
    pub fn try_counts(&self) -> Result<Counts, String> {
        let text = self.cluster.get_from_pod(&self.namespace, &self.caller()?, COUNTS, "/counts")?;
        let json: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
        Ok(Counts::read(&json))
    }

    /// What became of all requests so far.
    ///
    /// # Panics
    /// The caller does not tell.
    #[track_caller]
    pub fn counts(&self) -> Counts {
        until("the caller tells its counts", PATIENCE, || self.try_counts())
    }

    /// Waits until so many requests more than in `before` have ended, and tells what became of them.
    #[track_caller]
    pub fn after(&self, before: &Counts, requests: u64) -> Counts {
        until(&format!("{requests} more requests"), PATIENCE, || {
            let since = self.try_counts()?.since(before);
            if since.sent() >= requests { Ok(since) } else { Err(format!("{} so far", since.sent())) }
        })
    }

    /// What the caller's proxy has counted of responses to the caller, by the `tls` label.
    ///
    /// # Errors
    /// It does not answer.
    pub fn responses(&self) -> Result<BTreeMap<String, u64>, String> {
        let metrics = self.cluster.get_from_pod(&self.namespace, &self.caller()?, METRICS, "/metrics")?;
        let mut found = BTreeMap::new();
        for line in metrics.lines().filter(|line| line.starts_with("response_total{")) {
            let Some((labels, value)) = line.rsplit_once(' ') else { continue };
            if labels.contains("direction=\"outbound\"") {
                let tls = labels.split("tls=\"").nth(1).and_then(|rest| rest.split('"').next());
                *found.entry(tls.unwrap_or("none").to_owned()).or_default() +=
                    value.parse::<u64>().unwrap_or(0);
            }
        }
        Ok(found)
    }

    /// Waits until a hundred requests in a row were all TLS.
    #[track_caller]
    pub fn until_encrypted(&self) {
        self.until_only("true");
    }

    /// Waits until a hundred requests in a row all had this `tls` label.
    #[track_caller]
    pub fn until_only(&self, label: &str) {
        let mut before: Option<BTreeMap<String, u64>> = None;
        until(&format!("only tls={label} from the caller"), PATIENCE, || {
            let now = self.responses()?;
            let base = before.get_or_insert_with(|| now.clone());
            let gone = |label: &str| {
                now.get(label).unwrap_or(&0) - base.get(label).unwrap_or(&0).min(now.get(label).unwrap_or(&0))
            };
            let others: u64 = now.keys().filter(|key| *key != label).map(|key| gone(key)).sum();
            if others > 0 {
                before = Some(now.clone());
                return Err(format!("{now:?}"));
            }
            if gone(label) >= 100 { Ok(()) } else { Err(format!("{now:?}")) }
        });
    }
}

impl Counts {
    fn read(json: &Value) -> Self {
        let numbers = |value: &Value| -> Vec<u64> {
            value.as_array().into_iter().flatten().filter_map(Value::as_u64).collect()
        };
        let mut counts = Self { bounds_ms: numbers(&json["bounds_ms"]), ..Self::default() };
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

    /// What was added since `before`.
    pub fn since(&self, before: &Self) -> Self {
        let mut since = self.clone();
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

    /// How long the fastest 99 in a hundred took at most; none without requests, or when it is more than is measured.
    pub fn p99(&self) -> Option<Duration> {
        let all: u64 = self.latencies.iter().sum();
        let mut left = all - all / 100;
        for (bound, count) in self.bounds_ms.iter().zip(&self.latencies) {
            if left <= *count {
                return (all > 0).then(|| Duration::from_millis(*bound));
            }
            left -= count;
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn counts(succeeded: u64, slow: u64) -> Counts {
        let kind = json!({"kind": "kept_get", "succeeded": succeeded, "failed": 1, "latencies": [succeeded, slow, 0]});
        Counts::read(&json!({"bounds_ms": [1, 5], "kinds": [kind], "reasons": {}}))
    }

    #[test]
    fn a_stretch_of_time_is_the_difference_of_two_readings() {
        let since = counts(300, 2).since(&counts(100, 1));
        assert_eq!((since.succeeded, since.failed, since.sent()), (200, 0, 200));
        assert_eq!(since.kinds["kept_get"], 200);
        assert_eq!(since.p99(), Some(Duration::from_millis(1)));
        assert_eq!(counts(10, 90).p99(), Some(Duration::from_millis(5)));
        assert_eq!(Counts::default().p99(), None);
    }
}
