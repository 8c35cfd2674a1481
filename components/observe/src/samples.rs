//! What a source of metrics hands to [`crate::stat`]: increases over the window, still by pod and label.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    sync::Arc,
    time::Duration,
};

use crate::{kind::Kind, quantile::Buckets, row::Unscraped};

/// A pod, by namespace and name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodName {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl PodName {
    /// Names the pod `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

/// `namespace/name`.
impl fmt::Display for PodName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// Everything seen in one window.
#[derive(Debug, Clone, Default)]
pub struct Samples {
    /// How far back the source can look, at most the window.
    pub covered: Duration,
    /// The pods that were read within the window; what they received is in `responses`, so nothing must be added for
    /// them from their clients' side.
    pub sources: BTreeSet<PodName>,
    /// Responses that ended.
    pub responses: Vec<Counted>,
    /// Times to the first byte of responses, in milliseconds.
    pub latencies: Vec<Measured>,
    /// Connections that were open at some time in the window.
    pub connections: Vec<Counted>,
    /// Bytes that came over connections.
    pub received: Vec<Counted>,
    /// Bytes that went over connections.
    pub sent: Vec<Counted>,
    /// Meshed pods whose numbers are missing or stale.
    pub unscraped: Vec<Unscraped>,
}

/// The increase of one counter.
#[derive(Debug, Clone)]
pub struct Counted {
    /// Whose proxy counted.
    pub source: Arc<Source>,
    /// What the proxy said about it.
    pub labels: Labels,
    /// By how much.
    pub count: f64,
    /// How long ago it was last seen to grow; zero of what is there now.
    pub ago: Duration,
}

/// The increase of one histogram.
#[derive(Debug, Clone)]
pub struct Measured {
    /// Whose proxy measured.
    pub source: Arc<Source>,
    /// What the proxy said about it.
    pub labels: Labels,
    /// By how much, per bucket.
    pub buckets: Buckets,
}

/// The pod whose proxy was read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Source {
    /// The pod.
    pub pod: PodName,
    /// The names of the objects it belongs to.
    pub owners: BTreeMap<Kind, String>,
    /// How long its counters were followed within the window.
    pub covered: Duration,
}

/// The labels of a series that matter here, by name.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Default)]
pub struct Labels(Vec<(&'static str, Arc<str>)>);

impl Labels {
    /// The labels that are kept, sorted; all others are summed over. A source drops the rest as early as it can.
    pub const KEPT: [&'static str; 17] = [
        "authority",
        "classification",
        "client_id",
        "direction",
        "dst_cron_job",
        "dst_daemon_set",
        "dst_deployment",
        "dst_k8s_job",
        "dst_namespace",
        "dst_pod",
        "dst_replication_controller",
        "dst_service",
        "dst_stateful_set",
        "peer",
        "server_id",
        "tls",
        "tls_reason",
    ];

    /// The name as [`Labels::KEPT`] has it, when it is kept.
    pub fn kept(name: &str) -> Option<&'static str> {
        Self::KEPT.binary_search(&name).ok().map(|at| Self::KEPT[at])
    }

    /// Collects the kept ones of `pairs`, without the empty ones: absent and empty mean the same in Prometheus.
    pub fn collect<V: Into<Arc<str>> + AsRef<str>>(
        pairs: impl IntoIterator<Item = (impl AsRef<str>, V)>,
    ) -> Self {
        let kept = |(name, value): (_, V)| Some((Self::kept(AsRef::<str>::as_ref(&name))?, value));
        let mut labels: Vec<(&'static str, Arc<str>)> = pairs
            .into_iter()
            .filter_map(kept)
            .filter(|(_, value)| !value.as_ref().is_empty())
            .map(|(name, value)| (name, value.into()))
            .collect();
        labels.sort_unstable();
        labels.dedup_by(|a, b| a.0 == b.0);
        Self(labels)
    }

    /// The value of the label `name`.
    pub fn get(&self, name: &str) -> Option<&str> {
        self.0.iter().find(|(known, _)| *known == name).map(|(_, value)| &**value)
    }

    /// The same labels without those that `keep` refuses.
    pub fn retain(&mut self, keep: impl Fn(&str) -> bool) {
        self.0.retain(|(name, _)| keep(name));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kept_names_are_sorted_so_that_they_are_found() {
        assert!(Labels::KEPT.is_sorted());
        for name in Labels::KEPT {
            assert_eq!(Labels::kept(name), Some(name));
        }
        assert_eq!(Labels::kept("status_code"), None);
    }

    #[test]
    fn labels_that_do_not_matter_and_empty_ones_are_left_out() {
        let labels = Labels::collect([("tls", "true"), ("status_code", "200"), ("authority", "")]);
        assert_eq!(labels, Labels::collect([("tls", "true")]));
        assert_eq!(labels.get("tls"), Some("true"));
        assert_eq!(labels.get("authority"), None);
    }
}
