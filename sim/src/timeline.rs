//! What happened in a run, second by second, for people and for snapshots: faults, and what applications' connections
//! between pods carried, told from the wire. Nothing in it changes with bytes, addresses or ports.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    time::Duration,
};

use crate::{
    fault::Planned,
    history::{Outcome, Protocol, Run, WireConnection, WireKind},
    judge::Verdict,
    plan::Plan,
};

/// What a connection of an application carried between two pods.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Carried {
    /// TLS between proxies.
    Tls,
    /// TLS of the application's own.
    AppTls,
    /// Anything else.
    Plaintext,
}

impl fmt::Display for Carried {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Tls => "TLS",
            Self::AppTls => "the application's own TLS",
            Self::Plaintext => "plaintext",
        })
    }
}

/// A client's workload, a server's, and what they speak.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Pair {
    client: String,
    server: String,
    protocol: &'static str,
}

impl fmt::Display for Pair {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} > {} {}", self.client, self.server, self.protocol)
    }
}

/// What connections of applications carried, by when they were opened. Those that carried nothing, and handshakes that
/// came to nothing, carried nothing of an application.
pub fn carried(run: &Run) -> Vec<(Duration, Pair, Carried)> {
    run.wire.iter().filter_map(|connection| of_an_application(run, connection)).collect()
}

fn of_an_application(run: &Run, connection: &WireConnection) -> Option<(Duration, Pair, Carried)> {
    let protocol = Protocol::ALL.into_iter().find(|protocol| protocol.port() == connection.server.port())?;
    let carried = match connection.kind {
        WireKind::Mesh => Carried::Tls,
        WireKind::AppTls => Carried::AppTls,
        WireKind::Plaintext if !connection.is_misled_probe() => Carried::Plaintext,
        WireKind::Plaintext | WireKind::Silent | WireKind::Handshake => return None,
    };
    let workload = |ip| Some(run.pod(ip, connection.opened)?.workload.clone());
    let (client, server) = (workload(connection.client.ip())?, workload(connection.server.ip())?);
    Some((connection.opened, Pair { client, server, protocol: protocol.name() }, carried))
}

/// The timeline of a plan that was judged: a line for each fault and for each change of what a pair of workloads carries
/// in the connections that it opens, and what is left to say at the end.
pub fn of(plan: &Plan, verdict: &Verdict) -> String {
    let run = &verdict.run;
    let mut lines: BTreeSet<(u64, u8, String)> = BTreeSet::new();
    for (second, pair, is) in changes(run) {
        lines.insert((second, 2, format!("{pair}: {is}")));
    }
    for Planned { from, until, fault } in &plan.faults {
        lines.insert((until.as_secs(), 0, format!("mended {fault:?}")));
        lines.insert((from.as_secs(), 1, format!("broken {fault:?}")));
    }
    let mut text: String =
        lines.into_iter().map(|(second, _, line)| format!("{second:>4} s  {line}\n")).collect();
    if plan.wall_speed > 1 {
        text.push_str(&format!("wall clocks run {} times as fast\n", plan.wall_speed));
    }
    let (here, there) = (failed(run), failed(&verdict.baseline));
    text.push_str(&format!(
        "{here} of {} operations failed, and {there} without Conduit\n",
        run.ops.asked.len()
    ));
    for (workload, labels) in said(run) {
        let labels = labels.into_iter().collect::<Vec<_>>().join(", ");
        text.push_str(&format!("{workload} says {labels}\n"));
    }
    text
}

/// For each second in which a pair carries something else than in the last in which it opened connections, what it is.
fn changes(run: &Run) -> Vec<(u64, Pair, String)> {
    let mut seconds: BTreeMap<(Pair, u64), BTreeSet<Carried>> = BTreeMap::new();
    for (at, pair, carried) in carried(run) {
        seconds.entry((pair, at.as_secs())).or_default().insert(carried);
    }
    let mut last: Option<(Pair, BTreeSet<Carried>)> = None;
    let mut changes = Vec::new();
    for ((pair, second), carried) in seconds {
        let now = Some((pair.clone(), carried.clone()));
        if now != last {
            let words: Vec<String> = carried.iter().map(ToString::to_string).collect();
            changes.push((second, pair, words.join(" and ")));
        }
        last = now;
    }
    changes
}

fn failed(run: &Run) -> usize {
    let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_) | Outcome::Wrong(_));
    run.ops.asked.values().filter(|op| failed(&op.outcome)).count()
}

/// The `tls` labels under which each workload's proxies counted anything, with the direction.
pub fn said(run: &Run) -> BTreeMap<String, BTreeSet<String>> {
    let mut said: BTreeMap<String, BTreeSet<String>> = BTreeMap::new();
    for reading in &run.readings {
        let Some(pod) = run.pod(reading.pod, reading.at) else { continue };
        for counter in reading.counters.iter().filter(|counter| counter.value > 0) {
            let Some((direction, tls)) = counter.label("direction").zip(counter.label("tls")) else {
                continue;
            };
            // What does not leave a pod is there always.
            if !matches!(tls, "loopback" | "internal_traffic" | "kubelet_probe") {
                said.entry(pod.workload.clone()).or_default().insert(format!("{direction} {tls}"));
            }
        }
    }
    said
}
