//! The share of TLS that `stat` shows of a workload, and what crossed to it.
//!
//! `stat` counts what its scraper has seen grow, so what begins or ends near an end of the window may or may not be in it.

use std::time::Duration;

use super::{Bounds, Crossing, Seen, is_counted, requests::may_be_opaque, violation};
use crate::{
    check::Violation,
    history::{PodLife, Protocol, Run, Sidecar, StatRow, WireConnection, WireKind},
};

/// How much later than it happened something may come into the window, and leave it.
const SLACK: Duration = Duration::from_secs(15);
/// What rounding may take.
const ROUNDING: f64 = 0.005;

/// Compares every row.
pub(super) fn check(run: &Run, seen: &Seen<'_>) -> Vec<Violation> {
    run.stat.iter().filter_map(|row| Some(violation(row.at, wrong(run, seen, row)?))).collect()
}

fn wrong(run: &Run, seen: &Seen<'_>, row: &StatRow) -> Option<String> {
    let StatRow { kind, name, .. } = row;
    for (column, share) in [("TLS", row.tls), ("SUCCESS", row.success)] {
        if let Some(share) = share.filter(|share| !(0.0..=1.0).contains(share)) {
            return Some(format!("stat shows {column} {share} of {kind} {name}"));
        }
    }
    let traffic = Traffic::of(run, seen, row);
    let allowed = traffic.allowed();
    match (row.tls, allowed) {
        (None, _) if traffic.must_show() => {
            Some(format!("stat shows no traffic of {kind} {name}, which has some"))
        }
        (Some(share), None) => Some(format!("stat shows TLS {share} of {kind} {name}, which has no traffic")),
        (Some(share), Some((least, most))) if share < least - ROUNDING || share > most + ROUNDING => Some(
            format!("stat shows TLS {share:.3} of {kind} {name}, and {least:.3} to {most:.3} crossed hidden"),
        ),
        _ => None,
    }
}

/// Whether a connection came to a pod of the row's workload and carried nothing that anybody asked for in the clear: looking
/// for whoever had the address before, for instance. It is a connection all the same.
fn is_stray(run: &Run, row: &StatRow, connection: &WireConnection) -> bool {
    let pod = run.pod(connection.server.ip(), connection.opened);
    pod.is_some_and(|pod| pod.workload == row.name && pod.identity != connection.sni)
        && connection.kind != WireKind::Mesh
        && connection.markers.is_empty()
}

/// From when on what a pod counts is in `stat` for sure: some time after it began, or after its scraper could hear of that.
fn read_from(run: &Run, pod: &PodLife) -> Duration {
    hidden_until(run, pod).max(pod.from) + SLACK
}

/// Until when nobody may have heard that a pod began; zero when everybody could at once.
fn hidden_until(run: &Run, pod: &PodLife) -> Duration {
    let hides = run.faults.iter().filter(|fault| fault.hides_changes && fault.from <= pod.from + SLACK);
    let until = hides.map(|fault| fault.until.unwrap_or(run.ended)).filter(|until| *until >= pod.from);
    until.max().unwrap_or_default()
}

/// Whether somebody got an address of a workload's pods while its scraper could not hear of that: it takes what that one counts
/// for the former's.
fn is_taken_for(run: &Run, workload: &str) -> bool {
    let had = |pod: &PodLife| {
        run.pods
            .iter()
            .any(|before| before.ip == pod.ip && before.workload == workload && before.from < pod.from)
    };
    run.pods.iter().any(|pod| pod.workload != workload && !hidden_until(run, pod).is_zero() && had(pod))
}

/// What arrived at a workload within a row's window.
#[derive(Default)]
struct Traffic {
    /// Requests that crossed encrypted, and in the clear.
    hidden: Bounds,
    clear: Bounds,
    /// Of other protocols, which count only where there are no requests: by connections, of which each carries some.
    streams_hidden: Bounds,
    streams_clear: Bounds,
    /// What may have been anything: it did not arrive, or more than once.
    unknown: bool,
}

impl Traffic {
    fn of(run: &Run, seen: &Seen<'_>, row: &StatRow) -> Self {
        let begins = row.at.saturating_sub(row.window);
        let (outer, inner) =
            ((begins.saturating_sub(SLACK), row.at + SLACK), (begins + SLACK, row.at.saturating_sub(SLACK)));
        let mut traffic = Self { unknown: is_taken_for(run, &row.name), ..Self::default() };
        for (id, op) in &run.ops.asked {
            let ended = op.ended.unwrap_or(op.started + op.deadline);
            let is_here =
                run.services.get(&op.service).is_some_and(|workloads| workloads.contains(&row.name));
            if !is_here || ended < outer.0 || op.started > outer.1 {
                continue;
            }
            let Some((crossing, arrival)) = seen.crossing(run, *id, op).zip(seen.arrival(*id)) else {
                traffic.unknown = true;
                continue;
            };
            let pod = run.pod(arrival.server, arrival.at);
            let counts = pod.is_some_and(|pod| pod.sidecar != Sidecar::Absent);
            if crossing == Crossing::Within || arrival.workload != row.name || !counts {
                continue;
            }
            // What a proxy counted that is gone may not have been read any more, nor what one did of which its scraper had not
            // heard yet: the API may be slow to tell.
            let is_read = pod.is_some_and(|pod| {
                pod.until.is_none()
                    && read_from(run, pod) <= op.started
                    && pod.outages.iter().all(|(_, until)| *until <= op.started)
            });
            let within = inner.0 <= op.started && op.ended.is_some_and(|ended| ended <= inner.1);
            let certain = within && is_read;
            if op.protocol == Protocol::AppTls {
                // Hidden by itself, and by the mesh's TLS around it or not: nothing of it tells which.
                traffic.streams_hidden.add(false);
                traffic.streams_clear.add(false);
                continue;
            }
            let hidden = crossing == Crossing::Hidden;
            // A WebSocket begins with a request, and what follows on the same connection is none.
            let is_request = is_counted(op.protocol) || op.protocol == Protocol::WebSocket;
            if is_request && may_be_opaque(run, op) {
                traffic.bounds(true, hidden).add(false);
                traffic.bounds(false, hidden).add(false);
                continue;
            }
            traffic.bounds(is_request, hidden).add(certain && op.protocol != Protocol::WebSocket);
        }
        for _ in run.wire.iter().filter(|connection| is_stray(run, row, connection)) {
            traffic.streams_clear.add(false);
        }
        traffic
    }

    fn bounds(&mut self, requests: bool, hidden: bool) -> &mut Bounds {
        match (requests, hidden) {
            (true, true) => &mut self.hidden,
            (true, false) => &mut self.clear,
            (false, true) => &mut self.streams_hidden,
            (false, false) => &mut self.streams_clear,
        }
    }

    fn must_show(&self) -> bool {
        self.hidden.least + self.clear.least > 0
    }

    /// The least and the highest share that it may be; none when there is nothing that could have one.
    fn allowed(&self) -> Option<(f64, f64)> {
        let any = self.hidden.most + self.clear.most + self.streams_hidden.most + self.streams_clear.most;
        if self.unknown {
            return Some((0.0, 1.0));
        }
        if any == 0 {
            return None;
        }
        if !self.must_show() {
            // Connections may count. How many carried this is not known, only whether any could.
            let hidden = self.hidden.most + self.streams_hidden.most;
            let clear = self.clear.most + self.streams_clear.most;
            return Some((f64::from(u8::from(clear == 0)), f64::from(u8::from(hidden > 0))));
        }
        let share = |hidden: u64, clear: u64| hidden as f64 / (hidden + clear).max(1) as f64;
        let least = if self.hidden.least == 0 { 0.0 } else { share(self.hidden.least, self.clear.most) };
        let most = if self.clear.least == 0 { 1.0 } else { share(self.hidden.most, self.clear.least) };
        Some((least, most))
    }
}
