//! What `stat` answers, as JSON carries it: written by the API, read by the CLI and the browser.
//!
//! A number is null where there was no traffic to compute it from, never zero: no traffic is neither 0 % nor 100 %.

use std::collections::{BTreeMap, BTreeSet};

use serde::{Deserialize, Serialize};

use crate::kind::Kind;

/// The answer to one stat query.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Stat {
    /// Of this schema; grows only when a reader has to change.
    pub version: u32,
    /// What was asked for, in milliseconds.
    pub window_ms: u64,
    /// What could be looked at, in milliseconds: less than the window while observe has not run that long.
    pub covered_ms: u64,
    /// By kind in the order of [`Kind`], then namespace, then name.
    pub rows: Vec<Row>,
    /// Meshed pods within the query's namespaces whose traffic is missing from the rows.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unscraped: Vec<Unscraped>,
}

impl Stat {
    /// The current [`Stat::version`].
    pub const VERSION: u32 = 1;
}

/// One line of a table.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Row {
    /// What it is about.
    pub kind: Kind,
    /// The namespace of the object. Of an authority: that of the service, or of the client when it is no service's.
    pub namespace: String,
    /// The object's name; `host:port` of an authority.
    pub name: String,
    /// Its running pods that have a proxy; null for authorities.
    pub meshed: Option<u32>,
    /// Its pods that run or are about to; null for authorities.
    pub running: Option<u32>,
    /// Successful responses over all, from 0 to 1.
    pub success: Option<f64>,
    /// Responses per second.
    pub rps: Option<f64>,
    /// Time to the first byte of the response.
    pub latency_ms: Latency,
    /// What crossed between pods.
    #[serde(default)]
    pub bytes: Bytes,
    /// What went over mutual TLS of all that crossed between pods, from 0 to 1: responses, or connections where there
    /// were no responses.
    pub tls: Option<f64>,
    /// What the numbers above were computed from.
    #[serde(default)]
    pub counts: Counts,
    /// What crossed between pods without TLS, responses or connections as in `tls`, by the reason: the `tls` label, and
    /// for `handshake_failed` what went wrong, in parentheses.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plaintext: BTreeMap<String, f64>,
    /// The verified identities at the other end, up to [`Row::MAX_PEERS`].
    #[serde(default, skip_serializing_if = "BTreeSet::is_empty")]
    pub peers: BTreeSet<String>,
}

impl Row {
    /// How many identities a row lists: a client that nobody limits may choose many.
    pub const MAX_PEERS: usize = 32;

    /// Whether anything at all was seen.
    pub fn has_traffic(&self) -> bool {
        self.rps.is_some() || self.tls.is_some()
    }
}

/// Quantiles in milliseconds, interpolated within the proxies' histogram buckets.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Latency {
    /// The median.
    pub p50: Option<f64>,
    /// Of 95 in a hundred.
    pub p95: Option<f64>,
    /// Of 99 in a hundred.
    pub p99: Option<f64>,
}

/// Bytes a second over connections between pods, inside TLS, as the row's own side sees them.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Bytes {
    /// What came.
    pub received_per_s: Option<f64>,
    /// What went.
    pub sent_per_s: Option<f64>,
}

/// Sums over the window, probes left out.
#[derive(Debug, Clone, Copy, PartialEq, Default, Serialize, Deserialize)]
pub struct Counts {
    /// Responses that were a success.
    pub success: f64,
    /// Responses that were a failure.
    pub failure: f64,
    /// Responses that crossed between pods over TLS.
    pub tls: f64,
    /// Responses that crossed between pods.
    pub crossed: f64,
    /// Connections that carried TLS between pods; those of HTTP included.
    pub tls_connections: f64,
    /// Connections between pods; those of HTTP included.
    pub connections: f64,
    /// Responses to the kubelet's probes.
    pub probes: f64,
}

/// A meshed pod that could not be asked.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct Unscraped {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub pod: String,
    /// What went wrong the last time, in words.
    pub reason: String,
    /// For how long nothing has been read from it, in milliseconds; null when nothing ever was.
    pub since_ms: Option<u64>,
}
