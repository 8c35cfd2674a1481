//! What a run must not have done: the invariants, each a function of what happened.
//!
//! - `check/transparency.rs`: what succeeds without Conduit succeeds with it, once and soon
//! - `check/confidentiality.rs`: two peers that can do TLS show nothing
//! - `check/truth.rs`: what Conduit says of the wire is so
//! - `check/identity.rs`: nobody is taken for somebody else
//! - `check/once.rs`: nothing arrives twice, in part or at the wrong place
//! - `check/settling.rs`: after the last fault everything is as it should be
//! - `check/determinism.rs`: one seed, one trace
//!
//! A run that leaves nothing to judge is a violation, too: it proves nothing.

pub mod confidentiality;
pub mod determinism;
pub mod identity;
pub mod once;
pub mod settling;
pub mod transparency;
pub mod truth;

use std::{fmt, time::Duration};

use crate::history::{PodLife, Run, WireConnection};

/// Violations of one invariant that are told; the rest follows from the same mistake.
const MAX_TOLD: usize = 50;

/// What must hold in every run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Invariant {
    /// An application fares as it would without Conduit.
    Transparency,
    /// What can be encrypted is.
    Confidentiality,
    /// What Conduit says is so.
    Truth,
    /// Nobody is taken for somebody else.
    Identity,
    /// Everything arrives once, whole, and where it was meant to.
    Once,
    /// What was broken is made good.
    Settling,
    /// The same seed gives the same run.
    Determinism,
}

impl fmt::Display for Invariant {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Transparency => "transparency",
            Self::Confidentiality => "confidentiality",
            Self::Truth => "truth",
            Self::Identity => "identity",
            Self::Once => "once",
            Self::Settling => "settling",
            Self::Determinism => "determinism",
        })
    }
}

/// Something that must not have happened.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Violation {
    /// What it violates.
    pub invariant: Invariant,
    /// When.
    pub at: Duration,
    /// What happened, as a sentence.
    pub what: String,
}

impl fmt::Display for Violation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} at {:.3} s: {}", self.invariant, self.at.as_secs_f64(), self.what)
    }
}

/// The longest that servers of worlds take to greet.
pub(crate) const GREETING: Duration = Duration::from_millis(400);

/// What is promised, in numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Only an operation that has this much of its deadline left without Conduit must succeed with it.
    pub spare: Duration,
    /// What the first connection to a broken peer may cost an operation.
    pub first_connection: Duration,
    /// How long a server takes that speaks first: where a proxy was started again, a client needs a new connection.
    pub greeting: Duration,
    /// How long a greeting may be held back for a client whose handshake was swallowed before.
    pub held: Duration,
    /// What Conduit may cost an operation when all is well, for 99 in 100. Simulated hosts move in steps of a millisecond, and
    /// each hop to and from a proxy takes some: this is about round trips, not about how fast the code is.
    pub settled_p99: Duration,
    /// How long after a change everything has followed.
    pub settle: Duration,
    /// How many operations of a hundred must be compared with the run without Conduit, in one world: a fault may last for much
    /// of its life. Of a sweep's, more must be.
    pub compared_percent: u64,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            spare: Duration::from_secs(2),
            first_connection: Duration::from_millis(1_500),
            greeting: GREETING,
            held: Duration::from_secs(1),
            settled_p99: Duration::from_millis(250),
            settle: Duration::from_secs(20),
            compared_percent: 50,
        }
    }
}

/// Checks everything that one run, and the same run without Conduit, can tell. In the order of the invariants, and then of
/// time; at most 50 violations of each.
pub fn all(run: &Run, baseline: Option<&Run>, limits: &Limits) -> Vec<Violation> {
    let transparency =
        baseline.map(|baseline| transparency::check(run, baseline, limits)).unwrap_or_default();
    let checks = [
        transparency,
        confidentiality::check(run, limits),
        truth::check(run),
        identity::check(run),
        once::check(run),
        settling::check(run, limits),
    ];
    checks
        .into_iter()
        .flat_map(|mut violations| {
            violations.sort_by_key(|violation| violation.at);
            violations.into_iter().take(MAX_TOLD)
        })
        .collect()
}

/// The pods at both ends of a connection when it was opened, unless they are one, or one is none.
fn ends<'a>(run: &'a Run, connection: &WireConnection) -> Option<(&'a PodLife, &'a PodLife)> {
    let at = connection.opened;
    let client = run.pod(connection.client.ip(), at)?;
    let server = run.pod(connection.server.ip(), at)?;
    (client.ip != server.ip).then_some((client, server))
}

/// How violations call a connection.
fn named(run: &Run, connection: &WireConnection) -> String {
    let name = |ip| run.pod(ip, connection.opened).map_or_else(|| ip.to_string(), |pod| pod.name.clone());
    let (client, server) = (name(connection.client.ip()), name(connection.server.ip()));
    format!("connection {} from {client} to {server}:{}", connection.id, connection.server.port())
}

#[cfg(test)]
pub(crate) mod testing;

#[cfg(test)]
mod tests {
    use super::{
        testing::{baseline, good, plain},
        *,
    };

    #[test]
    fn a_run_without_fault_violates_nothing() {
        assert_eq!(all(&good(), Some(&baseline()), &Limits::default()), []);
    }

    #[test]
    fn violations_come_by_invariant_and_time_and_not_by_the_thousand() {
        let mut run = good();
        run.readings.clear();
        run.stat.clear();
        run.taps.clear();
        run.wire.extend((0..100).rev().map(|number| plain(number, 40_000 + number)));
        let violations = all(&run, None, &Limits::default());
        let order: Vec<_> = violations.iter().map(|violation| (violation.invariant, violation.at)).collect();
        assert!(order.is_sorted());
        assert_eq!(
            order.iter().filter(|(invariant, _)| *invariant == Invariant::Confidentiality).count(),
            50
        );
        assert_eq!(order.iter().filter(|(invariant, _)| *invariant == Invariant::Settling).count(), 50);
        let first = violations.first().map(ToString::to_string).unwrap_or_default();
        assert!(
            first.starts_with("confidentiality at 40.005 s: connection 0 from web-1 to api-1:8080"),
            "{first}"
        );
    }
}
