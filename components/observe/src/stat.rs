//! From samples to rows: the formulas of `conduit stat`. Pure.
//!
//! - Every number is of responses that ended within the window. The kubelet's probes are left out of all of them.
//! - SUCCESS = successes / (successes + failures). RPS = responses / time covered, per proxy.
//! - Latencies are quantiles of the sum of all proxies' histograms.
//! - TLS = what went over mutual TLS / what crossed between pods. What never left a pod (`internal_traffic`, `loopback`)
//!   is neither. Where a row has no responses that crossed, connections take their place: that is opaque TCP. Where it
//!   has some, opaque TCP of the same row is not in the share: proxies do not tell which connections carried no HTTP, and
//!   those of the kubelet's probes are always plaintext, so connections would make every probed pod look unencrypted.
//!   [`Counts::tls_connections`] of [`Counts::connections`] has them all.
//! - Without traffic a number is none.
//!
//! # Who counts
//!
//! A request between two meshed pods is counted by both proxies, so each question asks one side only. *What arrives at
//! X* asks X's own proxies. *What X sends to Y* asks X's. Services and authorities are what clients call, and some are
//! answered by pods without a proxy: there each request is taken from the server's proxy when that one was read within
//! the window, else from the client's (see `Hop::has_no_witness`), never from both.

use std::collections::{BTreeMap, BTreeSet};

use crate::{
    hop::{Hop, selects},
    inventory::{Inventory, Meshed, Object},
    kind::Kind,
    quantile::{Buckets, quantile},
    query::{Query, Selection},
    row::{Bytes, Counts, Latency, Row},
    samples::{Counted, Labels, Measured, Samples, Source},
};

/// Answers `query`. Rows come by kind in the query's order, then by namespace and name.
pub fn rows(query: &Query, samples: &Samples, inventory: &Inventory) -> Vec<Row> {
    let meshed = inventory.meshed();
    let selected = query.selector.as_ref().map(|selector| selector.objects(inventory));
    let mut table = Table { query, samples, inventory, selected, tallies: BTreeMap::new() };
    if table.is_plain() {
        table.list(&meshed);
    }
    samples.responses.iter().for_each(|sample| table.response(sample));
    samples.connections.iter().for_each(|sample| table.connection(sample));
    for (sample, is_received) in bytes(samples) {
        table.bytes(sample, is_received);
    }
    samples.latencies.iter().for_each(|sample| table.latency(sample));
    table.into_rows(&meshed)
}

struct Table<'a> {
    query: &'a Query,
    samples: &'a Samples,
    inventory: &'a Inventory,
    /// What the query's selector means; all without.
    selected: Option<BTreeSet<Object>>,
    tallies: BTreeMap<Object, Tally>,
}

impl Table<'_> {
    /// Whether the rows are servers as they see themselves.
    fn is_plain(&self) -> bool {
        self.query.to.is_none() && self.query.from.is_none()
    }

    /// Gives every object its row, with or without traffic.
    fn list(&mut self, meshed: &BTreeMap<Object, Meshed>) {
        let asked = meshed.keys().filter(|object| self.is_asked_for(object));
        self.tallies = asked.map(|object| (object.clone(), Tally::default())).collect();
    }

    fn response(&mut self, sample: &Counted) {
        let peer = self.peer_label();
        for object in self.objects(&sample.source, &sample.labels) {
            self.tallies.entry(object).or_default().response(sample, peer);
        }
    }

    fn connection(&mut self, sample: &Counted) {
        if !is_between_pods(&sample.labels) {
            return;
        }
        let peer = self.peer_label();
        for object in self.objects(&sample.source, &sample.labels) {
            self.tallies.entry(object).or_default().connection(sample, peer);
        }
    }

    fn bytes(&mut self, sample: &Counted, is_received: bool) {
        if !is_between_pods(&sample.labels) || crossed(&sample.labels).is_none() {
            return;
        }
        // Where a client's proxy speaks of a server's row, what it sent is what the server received.
        let is_inbound = sample.labels.get("direction") == Some("inbound");
        for object in self.objects(&sample.source, &sample.labels) {
            let is_own = is_inbound || self.is_client(object.kind);
            self.tallies.entry(object).or_default().bytes(sample, is_received == is_own);
        }
    }

    fn latency(&mut self, sample: &Measured) {
        if sample.labels.get("tls") == Some(PROBE) {
            return;
        }
        for object in self.objects(&sample.source, &sample.labels) {
            let buckets = &mut self.tallies.entry(object).or_default().buckets;
            sample.buckets.iter().for_each(|(bound, count)| *buckets.entry(*bound).or_default() += count);
        }
    }

    /// The rows that a series counts for: at most one of each kind.
    fn objects(&self, source: &Source, labels: &Labels) -> Vec<Object> {
        let Some(hop) = Hop::read(source, labels, self.inventory) else { return Vec::new() };
        let mut no_witness = None;
        let mut counts = |kind| match (self.is_plain(), hop.is_inbound) {
            (true, true) => true,
            (false, inbound) => !inbound,
            (true, false) => {
                matches!(kind, Kind::Service | Kind::Authority)
                    && *no_witness.get_or_insert_with(|| hop.has_no_witness(self.samples))
            }
        };
        let from = self.query.from.as_ref();
        let to = self.query.to.as_ref();
        let meant =
            |selection: &Selection, object: Option<Object>| object.is_some_and(|o| selects(selection, &o));
        if from.is_some_and(|from| !meant(from, hop.client(from.kind)))
            || to.is_some_and(|to| !meant(to, hop.server(to.kind)))
        {
            return Vec::new();
        }
        let row_of = |kind| match self.is_client(kind) {
            true => hop.client(kind),
            false => hop.server(kind),
        };
        let kinds = self.query.kinds.iter().copied().filter(|kind| counts(*kind));
        // A plain table lists what exists: pods and objects that are gone do not come back through their samples.
        let listed = |object: &Object| {
            !self.is_plain() || object.kind == Kind::Authority || self.tallies.contains_key(object)
        };
        kinds.filter_map(row_of).filter(|object| self.is_asked_for(object)).filter(listed).collect()
    }

    /// Whether rows of `kind` are clients.
    fn is_client(&self, kind: Kind) -> bool {
        let is_of_servers = matches!(kind, Kind::Service | Kind::Authority);
        self.query.from.is_none() && self.query.to.is_some() && !is_of_servers
    }

    fn is_asked_for(&self, object: &Object) -> bool {
        let Query { kinds, namespace, name, .. } = self.query;
        let target = Selection { kind: object.kind, namespace: namespace.clone(), name: name.clone() };
        let is_selected = || self.selected.as_ref().is_none_or(|selected| selected.contains(object));
        kinds.contains(&object.kind) && selects(&target, object) && is_selected()
    }

    /// The label that names the identity at the other end of a row.
    fn peer_label(&self) -> &'static str {
        match self.is_plain() {
            true => "client_id",
            false => "server_id",
        }
    }

    fn into_rows(self, meshed: &BTreeMap<Object, Meshed>) -> Vec<Row> {
        let order = |kind| self.query.kinds.iter().position(|asked| *asked == kind);
        let mut tallies: Vec<_> = self.tallies.into_iter().collect();
        tallies.sort_by_key(|(object, _)| order(object.kind));
        tallies.into_iter().map(|(object, tally)| row(meshed, object, tally)).collect()
    }
}

/// What came and what went, and whether it came.
fn bytes(samples: &Samples) -> impl Iterator<Item = (&Counted, bool)> {
    let received = samples.received.iter().map(|sample| (sample, true));
    received.chain(samples.sent.iter().map(|sample| (sample, false)))
}

/// Of the two connections that a proxy has for each one of the application, whether this is the one between pods.
fn is_between_pods(labels: &Labels) -> bool {
    let between_pods = match labels.get("direction") {
        Some("inbound") => "src",
        _ => "dst",
    };
    labels.get("peer").is_none_or(|peer| peer == between_pods)
}

/// The `tls` label of the kubelet's probes.
const PROBE: &str = "kubelet_probe";
/// The `tls` labels of what never left its pod.
const WITHIN_POD: [&str; 2] = ["internal_traffic", "loopback"];

/// What is known of one row.
#[derive(Debug, Default)]
struct Tally {
    counts: Counts,
    rps: f64,
    buckets: Buckets,
    received_per_s: f64,
    sent_per_s: f64,
    plaintext: BTreeMap<String, f64>,
    plaintext_connections: BTreeMap<String, f64>,
    peers: BTreeSet<String>,
}

impl Tally {
    fn response(&mut self, Counted { source, labels, count, .. }: &Counted, peer: &str) {
        let tls = labels.get("tls").unwrap_or("unknown");
        if tls == PROBE {
            self.counts.probes += count;
            return;
        }
        match labels.get("classification") {
            Some("success") => self.counts.success += count,
            _ => self.counts.failure += count,
        }
        if !source.covered.is_zero() {
            self.rps += count / source.covered.as_secs_f64();
        }
        if crossed(labels).is_none() {
            return;
        }
        self.counts.crossed += count;
        if tls == "true" {
            self.counts.tls += count;
            self.peer(labels, peer);
        } else {
            *self.plaintext.entry(why(tls, labels)).or_default() += count;
        }
    }

    fn connection(&mut self, Counted { labels, count, .. }: &Counted, peer: &str) {
        let Some(tls) = crossed(labels) else { return };
        self.counts.connections += count;
        if tls == "true" {
            self.counts.tls_connections += count;
            self.peer(labels, peer);
        } else {
            *self.plaintext_connections.entry(why(tls, labels)).or_default() += count;
        }
    }

    fn bytes(&mut self, Counted { source, count, .. }: &Counted, is_received: bool) {
        if source.covered.is_zero() {
            return;
        }
        let rate = if is_received { &mut self.received_per_s } else { &mut self.sent_per_s };
        *rate += count / source.covered.as_secs_f64();
    }

    fn peer(&mut self, labels: &Labels, peer: &str) {
        if self.peers.len() < Row::MAX_PEERS
            && let Some(identity) = labels.get(peer)
        {
            self.peers.insert(identity.to_owned());
        }
    }
}

fn row(meshed: &BTreeMap<Object, Meshed>, object: Object, tally: Tally) -> Row {
    let Tally { counts, rps, buckets, received_per_s, sent_per_s, plaintext, plaintext_connections, peers } =
        tally;
    let per_s = |rate: f64| (counts.connections > 0.0).then_some(rate);
    let is_opaque = counts.crossed == 0.0;
    let responses = counts.success + counts.failure;
    let pods = (object.kind != Kind::Authority).then(|| meshed.get(&object).copied().unwrap_or_default());
    let at = |q| quantile(q, &buckets).filter(|_| responses > 0.0);
    Row {
        kind: object.kind,
        meshed: pods.map(|pods| pods.meshed),
        running: pods.map(|pods| pods.running),
        success: share(counts.success, responses),
        rps: (responses > 0.0).then_some(rps),
        latency_ms: Latency { p50: at(0.5), p95: at(0.95), p99: at(0.99) },
        bytes: Bytes { received_per_s: per_s(received_per_s), sent_per_s: per_s(sent_per_s) },
        tls: share(counts.tls, counts.crossed).or_else(|| share(counts.tls_connections, counts.connections)),
        namespace: object.namespace,
        name: object.name,
        counts,
        plaintext: if is_opaque { plaintext_connections } else { plaintext },
        peers,
    }
}

/// The `tls` label of what crossed between pods; none of what did not, and of the kubelet's probes.
pub(crate) fn crossed(labels: &Labels) -> Option<&str> {
    let tls = labels.get("tls").unwrap_or("unknown");
    (tls != PROBE && !WITHIN_POD.contains(&tls)).then_some(tls)
}

/// Why something was not encrypted: the `tls` label, and what went wrong with a handshake.
pub(crate) fn why(tls: &str, labels: &Labels) -> String {
    labels.get("tls_reason").map_or_else(|| tls.to_owned(), |reason| format!("{tls} ({reason})"))
}

fn share(part: f64, whole: f64) -> Option<f64> {
    (whole > 0.0).then(|| part / whole)
}

#[cfg(test)]
mod tests;
