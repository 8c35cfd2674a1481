//! Requests that crossed between pods, as proxies count them by their `tls` label, and as the wire shows them.

use std::time::Duration;

use super::{Bounds, Crossing, EDGE, Seen, is_counted, told::Process, violation};
use crate::{
    check::Violation,
    history::{Op, OpId, Protocol, Reading, Run, WireConnection},
};

/// Labels of what did not cross: within a pod, or from the kubelet.
const NOT_CROSSED: [&str; 3] = ["loopback", "internal_traffic", "kubelet_probe"];

/// Compares each reading of `process`, and tells the first difference of each kind.
pub(super) fn check(run: &Run, seen: &Seen<'_>, process: &Process<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for direction in ["inbound", "outbound"] {
        let ops = operations(run, seen, process, direction == "inbound");
        for wants_tls in [true, false] {
            let difference = process.readings.iter().find_map(|reading| {
                let wire = bounds(&ops, reading.at, wants_tls);
                let told = told(reading, direction, wants_tls);
                (!wire.allows(told)).then_some((reading.at, wire, told))
            });
            violations.extend(difference.map(|(at, wire, told)| {
                let (pod, kind) = (&process.pod.name, if wants_tls { "mutual TLS" } else { "plaintext" });
                violation(
                    at,
                    format!(
                        "{pod} {direction}: {wire} requests over {kind} on the wire, {told} in its metrics"
                    ),
                )
            }));
        }
    }
    violations
}

/// An operation that may be a request which the process counts.
struct Counted {
    /// When it may first have been counted.
    from: Duration,
    /// When it must have been.
    by: Option<Duration>,
    /// Over what it crossed, where that is known.
    tls: Option<bool>,
    /// How often it may have been counted.
    times: u32,
    /// How often the client got it back and asked anew, over whatever that crossed.
    handed_back: u32,
}

fn operations(run: &Run, seen: &Seen<'_>, process: &Process<'_>, is_inbound: bool) -> Vec<Counted> {
    let asked = run.ops.asked.iter();
    asked.filter_map(|(id, op)| counted(run, seen, process, is_inbound, (*id, op))).collect()
}

fn counted(
    run: &Run,
    seen: &Seen<'_>,
    process: &Process<'_>,
    is_inbound: bool,
    (id, op): (OpId, &Op),
) -> Option<Counted> {
    if !is_counted(op.protocol) && op.protocol != Protocol::WebSocket {
        return None;
    }
    let Process { pod, since, .. } = process;
    let arrival = seen.arrival(id);
    let concerns = match (is_inbound, arrival) {
        (false, _) => op.client == pod.ip,
        (true, Some(arrival)) if arrival.server == pod.ip => true,
        // A pod that drains hands requests back, which then go elsewhere.
        (true, Some(_)) => (pod.until.is_some() || !pod.outages.is_empty()) && run.is_behind(op, pod.ip),
        (true, None) => run.is_behind(op, pod.ip),
    };
    // One that a slow or broken network held back may have come to a later process than it was meant for.
    let ended = op.ended.unwrap_or(op.started + op.deadline);
    if !concerns || ended.max(pod.from) + EDGE < *since {
        return None;
    }
    let crossing = seen.crossing(run, id, op);
    if crossing == Some(Crossing::Within) {
        return None;
    }
    let here = arrival.filter(|arrival| !is_inbound || arrival.server == pod.ip);
    // A WebSocket is one request for many operations, or for one.
    let certain = is_counted(op.protocol) && crossing.is_some() && op.started >= *since + EDGE;
    let certain = certain && !may_be_opaque(run, op);
    Some(Counted {
        from: op.started,
        by: here.filter(|_| certain).map(|arrival| arrival.at + EDGE),
        tls: crossing.map(|crossing| crossing == Crossing::Hidden).filter(|_| here.is_some()),
        times: run.ops.times_asked(id),
        handed_back: run.ops.times_handed_back(id),
    })
}

/// Whether a connection of `op` may not have been seen to be HTTP: what it begins with came late.
pub(super) fn may_be_opaque(run: &Run, op: &Op) -> bool {
    let is_late = |connection: &&WireConnection| connection.is_late || is_slow(run, connection);
    run.wire.iter().filter(is_late).any(|connection| run.met(op, connection))
}

/// Whether a connection was opened while everything took longer. A server of HTTP/2 need not wait for its client, and where
/// the client's first words take longer than a proxy waits for them, it is taken for a protocol in which servers speak first,
/// whose requests nobody counts.
fn is_slow(run: &Run, connection: &WireConnection) -> bool {
    let mut slow = run.faults.iter().filter(|fault| !fault.slows.is_zero());
    slow.any(|fault| {
        fault.from <= connection.opened && fault.until.is_none_or(|until| connection.opened <= until)
    })
}

fn bounds(ops: &[Counted], at: Duration, wants_tls: bool) -> Bounds {
    let mut bounds = Bounds::default();
    for op in ops.iter().filter(|op| op.from <= at + EDGE) {
        bounds.most += u64::from(op.handed_back);
        if op.tls.is_none_or(|tls| tls == wants_tls) {
            bounds.add(op.tls.is_some() && op.by.is_some_and(|by| by <= at));
            bounds.most += u64::from(op.times.saturating_sub(1));
        }
    }
    bounds
}

fn told(reading: &Reading, direction: &str, wants_tls: bool) -> u64 {
    let of = |tls: &str| reading.total("request_total", &[("direction", direction), ("tls", tls)]);
    if wants_tls {
        return of("true");
    }
    let all = reading.total("request_total", &[("direction", direction)]);
    NOT_CROSSED.iter().map(|tls| of(tls)).fold(all.saturating_sub(of("true")), u64::saturating_sub)
}
