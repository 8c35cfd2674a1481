//! Who talks to whom, and whether that is encrypted: what `edges` and the dashboard's graph show. Pure.
//!
//! An edge is what its client's proxy says of it, and where that has none or cannot be read, what its server's proxy says.
//! A server's proxy knows a client only by the identity that it proves: clients in the clear are one nameless end for each
//! server. What meshed clients say that they sent it in the clear is left out of that end, or it would be told twice; the
//! two proxies are read at different moments, so a little more or less than they sent is no sign of anybody else.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use conduit_identity::{ControlPlane, Identity};
use serde::{Deserialize, Serialize};

use crate::{
    hop::Hop,
    inventory::{Inventory, Object, Pod},
    kind::Kind,
    row::Unscraped,
    samples::{Counted, PodName, Samples},
    stat::{crossed, why},
};

/// The answer to one question about edges.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edges {
    /// Of this schema; grows only when a reader has to change.
    pub version: u32,
    /// What was asked for, in milliseconds.
    pub window_ms: u64,
    /// What could be looked at, in milliseconds.
    pub covered_ms: u64,
    /// By client, then by server.
    pub edges: Vec<Edge>,
    /// Meshed pods whose traffic is missing.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub unscraped: Vec<Unscraped>,
}

/// One client and one server between which something crossed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Edge {
    /// Who calls.
    pub client: End,
    /// Who is called.
    pub server: End,
    /// What went over mutual TLS of all that crossed, from 0 to 1: responses, or connections where there were no responses.
    pub tls: f64,
    /// Responses per second; null where there were none.
    pub rps: Option<f64>,
    /// Connections that were open within the window.
    pub connections: f64,
    /// What crossed without TLS by the reason, as in a row of `stat`.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub plaintext: BTreeMap<String, f64>,
    /// For how long it has been as it is, all encrypted or none, in milliseconds: since the last sign of anything else. Null
    /// when it was never seen otherwise, and while it is both.
    pub since_ms: Option<u64>,
    /// Who told of it: `client`, `server` or both.
    pub told_by: BTreeSet<Side>,
}

/// One end of an edge.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub struct End {
    /// What kind of object it is; null for what is no object of the cluster, or not known.
    pub kind: Option<Kind>,
    /// Its namespace; empty where there is none.
    pub namespace: String,
    /// Its name; of what is outside the cluster, what the client called it; empty for clients of which nothing is known.
    pub name: String,
    /// Whether it has a proxy: all of its pods that run.
    pub meshed: bool,
    /// The name that it proved with a certificate within the window; null if it proved none.
    pub identity: Option<String>,
}

/// An end of a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "their names say it")]
pub enum Side {
    Client,
    Server,
}

impl Edges {
    /// The current [`Edges::version`].
    pub const VERSION: u32 = 1;
}

/// How closely ends are told apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Grain {
    /// The outermost owners of pods.
    #[default]
    Workloads,
    /// Each pod.
    Pods,
}

/// What edges are computed from.
pub struct Seen<'a> {
    /// Of the window.
    pub now: &'a Samples,
    /// As far back as anything is remembered.
    pub before: &'a Samples,
    /// What runs.
    pub inventory: &'a Inventory,
    /// Whose identities are known.
    pub control_plane: &'a ControlPlane,
    /// What ends are.
    pub grain: Grain,
}

/// Nameless clients are shown when a server's proxy counted this share more in the clear than its meshed clients' say.
const REMAINDER: f64 = 0.2;

/// All edges on which something crossed, by client and then by server.
pub fn edges(seen: &Seen<'_>) -> Vec<Edge> {
    let mut tallies = collect(seen, seen.now);
    let before = collect(seen, seen.before);
    for (key, tally) in &mut tallies {
        tally.last = before.get(key).map(|before| before.last).unwrap_or_default();
    }
    tallies
        .into_iter()
        .filter(|(_, tally)| tally.has_crossed())
        .map(|(key, tally)| edge(seen, key, tally))
        .collect()
}

/// An end without what changes: what edges are keyed by.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct Name {
    kind: Option<Kind>,
    namespace: String,
    name: String,
}

type Key = (Name, Name);

#[derive(Debug, Default, Clone)]
struct Tally {
    responses: Shares,
    connections: Shares,
    rps: f64,
    identities: (Option<String>, Option<String>),
    /// How long ago something crossed encrypted, and in the clear.
    last: (Option<Duration>, Option<Duration>),
    told_by: BTreeSet<Side>,
}

#[derive(Debug, Default, Clone)]
struct Shares {
    tls: f64,
    plaintext: BTreeMap<String, f64>,
}

impl Shares {
    fn clear(&self) -> f64 {
        self.plaintext.values().sum()
    }

    fn all(&self) -> f64 {
        self.tls + self.clear()
    }

    fn add(&mut self, sample: &Counted, tls: &str) {
        match tls {
            "true" => self.tls += sample.count,
            tls => *self.plaintext.entry(why(tls, &sample.labels)).or_default() += sample.count,
        }
    }

    fn subtract(&mut self, clear: f64) {
        let whole = self.clear();
        let left = if whole - clear > REMAINDER * whole { (whole - clear) / whole } else { 0.0 };
        self.plaintext.values_mut().for_each(|count| *count *= left);
    }
}

impl Tally {
    fn has_crossed(&self) -> bool {
        self.responses.all() > 0.0 || self.connections.all() > 0.0
    }

    fn note(&mut self, sample: &Counted, is_response: bool, side: Side) {
        let Some(tls) = crossed(&sample.labels) else { return };
        if is_response {
            self.responses.add(sample, tls);
            if !sample.source.covered.is_zero() {
                self.rps += sample.count / sample.source.covered.as_secs_f64();
            }
        } else {
            self.connections.add(sample, tls);
        }
        let last = if tls == "true" { &mut self.last.0 } else { &mut self.last.1 };
        *last = Some(last.map_or(sample.ago, |last| last.min(sample.ago)));
        for (label, identity) in
            [("client_id", &mut self.identities.0), ("server_id", &mut self.identities.1)]
        {
            if let Some(proven) = sample.labels.get(label).filter(|_| tls == "true") {
                identity.get_or_insert_with(|| proven.to_owned());
            }
        }
        self.told_by.insert(side);
    }
}

fn collect(seen: &Seen<'_>, samples: &Samples) -> BTreeMap<Key, Tally> {
    let mut by_clients: BTreeMap<Key, Tally> = BTreeMap::new();
    let mut by_servers: BTreeMap<Key, Tally> = BTreeMap::new();
    let responses = samples.responses.iter().map(|sample| (sample, true));
    let connections =
        samples.connections.iter().filter(|sample| is_between_pods(sample)).map(|sample| (sample, false));
    for (sample, is_response) in responses.chain(connections) {
        let Some(hop) = Hop::read(&sample.source, &sample.labels, seen.inventory) else { continue };
        let own = seen.name_of(&sample.source.pod);
        let (tallies, key, side) = match hop.is_inbound {
            true => (&mut by_servers, (seen.client_of(sample), own), Side::Server),
            false => (&mut by_clients, (own, seen.server_of(&hop)), Side::Client),
        };
        tallies.entry(key).or_default().note(sample, is_response, side);
    }
    let told = samples.sources.iter().filter_map(|pod| seen.inventory.pods.get(pod));
    let told = told.map(|pod| Name::of_workload(pod)).collect();
    merge(by_clients, by_servers, &told)
}

/// Edges as their clients tell them, and of those whose proxies have not `told` anything what servers know.
fn merge(
    mut by_clients: BTreeMap<Key, Tally>,
    by_servers: BTreeMap<Key, Tally>,
    told: &BTreeSet<Name>,
) -> BTreeMap<Key, Tally> {
    let mut clear: BTreeMap<Name, (f64, f64)> = BTreeMap::new();
    for ((_, server), tally) in &by_clients {
        let (responses, connections) = clear.entry(server.clone()).or_default();
        *responses += tally.responses.clear();
        *connections += tally.connections.clear();
    }
    for (key, mut tally) in by_servers {
        if let Some(known) = by_clients.get_mut(&key) {
            known.told_by.insert(Side::Server);
            let (client, server) = tally.identities;
            known.identities.0 = known.identities.0.take().or(client);
            known.identities.1 = known.identities.1.take().or(server);
            continue;
        }
        if told.contains(&key.0) {
            continue;
        }
        if key.0.is_nameless()
            && let Some((responses, connections)) = clear.get(&key.1)
        {
            tally.responses.subtract(*responses);
            tally.connections.subtract(*connections);
        }
        by_clients.insert(key, tally);
    }
    by_clients
}

impl Name {
    /// Clients of which nothing is known.
    fn nameless() -> Self {
        Self { kind: None, namespace: String::new(), name: String::new() }
    }

    fn of_workload(pod: &Pod) -> Self {
        let (kind, name) = pod.workload();
        Self { kind: Some(kind), namespace: pod.name.namespace.clone(), name: name.to_owned() }
    }

    fn is_nameless(&self) -> bool {
        self.name.is_empty()
    }
}

/// Of the two connections that a proxy has for each one of the application, the one between pods.
fn is_between_pods(sample: &Counted) -> bool {
    let between = if sample.labels.get("direction") == Some("inbound") { "src" } else { "dst" };
    sample.labels.get("peer").is_none_or(|peer| peer == between)
}

impl Seen<'_> {
    fn name_of(&self, pod: &PodName) -> Name {
        match self.inventory.pods.get(pod) {
            Some(pod) => self.name_of_pod(pod),
            // It is gone; its name is all that is left.
            None => Name { kind: Some(Kind::Pod), namespace: pod.namespace.clone(), name: pod.name.clone() },
        }
    }

    fn name_of_pod(&self, pod: &Pod) -> Name {
        match self.grain {
            Grain::Workloads => Name::of_workload(pod),
            Grain::Pods => {
                let PodName { namespace, name } = pod.name.clone();
                Name { kind: Some(Kind::Pod), namespace, name }
            }
        }
    }

    /// A client, by what it proved to the server's proxy.
    fn client_of(&self, sample: &Counted) -> Name {
        let proven = sample.labels.get("client_id").and_then(|name| Identity::parse(name).ok());
        let Some(workload) = proven.and_then(|identity| identity.workload_in(self.control_plane)) else {
            return Name::nameless();
        };
        let kind = workload.kind.as_str().parse().ok();
        Name { kind, namespace: workload.namespace.clone(), name: workload.name.clone() }
    }

    /// A server, by what its client's proxy knew of it: the pod, or else the workload, the Service, or what it was called.
    fn server_of(&self, hop: &Hop<'_>) -> Name {
        if let Some(pod) = hop.server_pod() {
            return self.name_of_pod(pod);
        }
        let kinds = [Kind::CronJob, Kind::Deployment, Kind::StatefulSet, Kind::DaemonSet, Kind::Job];
        let known = kinds
            .into_iter()
            .chain([Kind::ReplicationController, Kind::Pod])
            .find_map(|kind| hop.server(kind));
        if let Some(Object { kind, namespace, name }) = known {
            return Name { kind: Some(kind), namespace, name };
        }
        match hop.server(Kind::Service) {
            Some(service) => self.behind(service),
            None => {
                let name = hop.host().unwrap_or("an address outside the mesh").to_owned();
                Name { kind: None, namespace: String::new(), name }
            }
        }
    }

    /// Who answers for a Service, if that is only one.
    fn behind(&self, service: Object) -> Name {
        let names: BTreeSet<Name> = self
            .inventory
            .behind(&service.namespace, &service.name)
            .map(|pod| self.name_of_pod(pod))
            .collect();
        let only = (names.len() == 1).then(|| names.into_iter().next()).flatten();
        let Object { kind, namespace, name } = service;
        only.unwrap_or(Name { kind: Some(kind), namespace, name })
    }

    fn end(&self, name: Name, identity: Option<String>) -> End {
        let Name { kind, namespace, name } = name;
        let mut pods =
            kind.map(|kind| self.inventory.pods_of(kind, Some(&namespace), Some(&name))).unwrap_or_default();
        pods.retain(|pod| pod.running);
        let meshed = !pods.is_empty() && pods.iter().all(|pod| pod.meshed);
        End { kind, namespace, name, meshed: meshed || identity.is_some(), identity }
    }
}

fn edge(seen: &Seen<'_>, (client, server): Key, tally: Tally) -> Edge {
    let has_responses = tally.responses.all() > 0.0;
    let shares = if has_responses { &tally.responses } else { &tally.connections };
    let tls = shares.tls / shares.all();
    let (encrypted, clear) = tally.last;
    let other = if tls >= 1.0 {
        clear
    } else if tls <= 0.0 {
        encrypted
    } else {
        None
    };
    Edge {
        client: seen.end(client, tally.identities.0),
        server: seen.end(server, tally.identities.1),
        tls,
        rps: has_responses.then_some(tally.rps),
        connections: tally.connections.all(),
        plaintext: shares
            .plaintext
            .iter()
            .filter(|(_, n)| **n > 0.0)
            .map(|(why, n)| (why.clone(), *n))
            .collect(),
        since_ms: other.map(|ago| u64::try_from(ago.as_millis()).unwrap_or(u64::MAX)),
        told_by: tally.told_by,
    }
}

#[cfg(test)]
mod tests;
