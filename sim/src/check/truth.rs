//! What Conduit says of the wire is so: metrics, `stat` and `tap` against what crossed.
//!
//! What happens while a counter is read may or may not be in it, so every comparison is with a range: what must be counted
//! by then, and what may be. A connection that a fault broke may be in it.
//!
//! - `truth/told.rs`: counters that have forgotten nothing
//! - `truth/connections.rs`, `truth/requests.rs`: metrics
//! - `truth/shares.rs`: `stat`; `tap` is here

mod connections;
mod requests;
mod shares;
mod told;

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::{Invariant, Violation};
use crate::history::{Arrival, Op, OpId, Protocol, Run, TapEvent};

/// How far apart the wire and a counter may note the same thing.
const EDGE: Duration = Duration::from_millis(250);

/// Compares everything that was read with the wire.
pub fn check(run: &Run) -> Vec<Violation> {
    let seen = Seen::of(run);
    let mut violations = Vec::new();
    for process in told::processes(run) {
        violations.extend(connections::check(run, &process));
        violations.extend(requests::check(run, &seen, &process));
    }
    violations.extend(shares::check(run, &seen));
    violations.extend(run.taps.iter().filter_map(|event| tapped(run, &seen, event)));
    violations
}

fn violation(at: Duration, what: String) -> Violation {
    Violation { invariant: Invariant::Truth, at, what }
}

/// Compares one event of `tap` with the wire. What never arrived, or was asked for twice, is not one crossing.
fn tapped(run: &Run, seen: &Seen<'_>, event: &TapEvent) -> Option<Violation> {
    let Some(op) = run.ops.asked.get(&event.op) else {
        return Some(violation(event.at, format!("tap shows {}, which nobody asked", event.op)));
    };
    let crossing = seen.crossing(run, event.op, op)?;
    let says_tls = event.tls == "true";
    let is = match (crossing, says_tls) {
        (Crossing::InTheClear, true) => "crossed in the clear",
        (Crossing::Hidden, false) => "crossed encrypted",
        (Crossing::Within, true) => "never left its pod",
        _ => return None,
    };
    Some(violation(event.at, format!("tap says tls={:?} of {}, which {is}", event.tls, event.op)))
}

/// How an operation came to where it arrived.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Crossing {
    /// Its marker was seen.
    InTheClear,
    /// It was not.
    Hidden,
    /// From a pod to itself.
    Within,
}

/// Where operations were seen in the clear, and arrived.
struct Seen<'a> {
    clear: BTreeMap<OpId, Vec<(IpAddr, IpAddr)>>,
    arrivals: BTreeMap<OpId, Vec<&'a Arrival>>,
}

impl<'a> Seen<'a> {
    fn of(run: &'a Run) -> Self {
        let mut seen = Self { clear: BTreeMap::new(), arrivals: BTreeMap::new() };
        for connection in &run.wire {
            for (id, _) in &connection.markers {
                seen.clear.entry(*id).or_default().push((connection.client.ip(), connection.server.ip()));
            }
        }
        for arrival in &run.ops.arrived {
            seen.arrivals.entry(arrival.op).or_default().push(arrival);
        }
        seen
    }

    /// How `op` crossed, if it did once; none of what is not known to have.
    fn crossing(&self, run: &Run, id: OpId, op: &Op) -> Option<Crossing> {
        let [arrival] = self.arrivals.get(&id)?.as_slice() else { return None };
        if run.ops.times_asked(id) > 1 {
            return None;
        }
        let ends = (op.client, arrival.server);
        let clear = self.clear.get(&id).is_some_and(|seen| seen.contains(&ends));
        Some(match () {
            () if ends.0 == ends.1 => Crossing::Within,
            () if clear => Crossing::InTheClear,
            () => Crossing::Hidden,
        })
    }

    fn arrival(&self, id: OpId) -> Option<&'a Arrival> {
        self.arrivals.get(&id)?.first().copied()
    }
}

/// Whether proxies count requests of `protocol`, one for each operation.
fn is_counted(protocol: Protocol) -> bool {
    matches!(protocol, Protocol::Http1 | Protocol::Http2 | Protocol::Grpc)
}

/// How many there are, by what is certain: at least, and at most.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
struct Bounds {
    least: u64,
    most: u64,
}

impl Bounds {
    /// One more there may be, and `certain` if there must.
    fn add(&mut self, certain: bool) {
        self.most += 1;
        self.least += u64::from(certain);
    }

    fn allows(self, told: u64) -> bool {
        (self.least..=self.most).contains(&told)
    }
}

/// "3", or "between 3 and 5".
impl std::fmt::Display for Bounds {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.least == self.most {
            true => write!(f, "{}", self.least),
            false => write!(f, "between {} and {}", self.least, self.most),
        }
    }
}

#[cfg(test)]
mod tests;
