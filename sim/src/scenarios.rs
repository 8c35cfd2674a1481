//! Stories with a name: what is promised, row by row, and what went wrong once.
//!
//! - `scenarios/authority.rs`: the CA; `scenarios/credentials.rs`: Secrets, bundles, clocks
//! - `scenarios/peers.rs`: who is at the other end; `scenarios/discovery.rs`: the destination service and the API
//! - `scenarios/proxies.rs`: sidecars that come and go; `scenarios/protocols.rs`: what applications speak
//! - `scenarios/long.rs`: days, on wall clocks that run fast
//!
//! A scenario in which a fault did nothing, or that does not show what it says, proves nothing, and fails.

mod authority;
mod credentials;
mod discovery;
mod long;
mod peers;
mod protocols;
mod proxies;

use std::{collections::BTreeSet, fmt, ops::Range, time::Duration};

use crate::{
    history::{Outcome, PodLife, Run, Sidecar, WireKind},
    judge::Verdict,
    plan::{Plan, SETTLE},
    timeline::{Carried, carried, said},
};

/// The seed of a scenario, where no other is asked for.
pub const SEED: u64 = 1;

/// A story with a name.
#[derive(Debug)]
pub struct Scenario {
    /// In small letters, with hyphens.
    pub name: &'static str,
    /// What happens, and what is promised then; a sentence.
    pub about: &'static str,
    /// The story, by seed.
    pub plan: fn(u64) -> Plan,
    /// What must be seen, beyond faults that act and invariants that hold.
    pub shows: &'static [Shows],
}

/// What a run must show. Seconds are those of the run.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shows {
    /// All that applications open between pods from one second to another is TLS between proxies, and there is some.
    Tls(u64, u64),
    /// The same from 20 s after the last fault to the end.
    SettlesInTls,
    /// All of it is plaintext, and there is some.
    Plaintext(u64, u64),
    /// Some proxy counts under this direction and `tls` label.
    Says(&'static str),
    /// Every pod with TLS has held at least so many certificates, one after the other.
    Certificates(usize),
    /// Every pod with TLS has trusted at least so many roots, all together.
    Roots(usize),
    /// Every pod with TLS has trusted two roots at one time.
    RootsTogether,
    /// No operation fails, and no handshake.
    NothingFails,
    /// Certificates are replaced while handshakes with their pods are under way.
    RenewedUnderHandshakes,
    /// `tap` tells of at least so many requests.
    Tapped(usize),
}

impl fmt::Display for Shows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tls(from, until) => write!(f, "TLS, and nothing else, from {from} to {until} s"),
            Self::SettlesInTls => write!(f, "TLS, and nothing else, when all has settled"),
            Self::Plaintext(from, until) => {
                write!(f, "plaintext, and nothing else, from {from} to {until} s")
            }
            Self::Says(what) => write!(f, "a proxy that says {what:?}"),
            Self::Certificates(count) => write!(f, "{count} certificates in every pod"),
            Self::Roots(count) => write!(f, "{count} roots in every pod"),
            Self::RootsTogether => write!(f, "time at which every pod trusts two roots"),
            Self::NothingFails => write!(f, "run without a failure"),
            Self::RenewedUnderHandshakes => write!(f, "certificate replaced under a handshake"),
            Self::Tapped(count) => write!(f, "tap that tells of {count} requests"),
        }
    }
}

impl Scenario {
    /// Why the scenario proves nothing, although nothing is violated.
    pub fn unproven(&self, verdict: &Verdict) -> Vec<String> {
        let idle = verdict.idle_faults().into_iter().map(|fault| format!("{fault} did nothing"));
        let unseen = self.shows.iter().filter(|shows| !is_seen(**shows, verdict));
        idle.chain(unseen.map(|shows| format!("there is no {shows}"))).collect()
    }
}

fn is_seen(shows: Shows, verdict: &Verdict) -> bool {
    let run = &verdict.run;
    let mut meshed = run.pods.iter().filter(|pod| pod.sidecar == Sidecar::Tls);
    match shows {
        Shows::Tls(from, until) => opened(verdict, s(from)..s(until)) == BTreeSet::from([Carried::Tls]),
        Shows::SettlesInTls => {
            let settled = run.last_fault_ended() + SETTLE..run.ended;
            opened(verdict, settled) == BTreeSet::from([Carried::Tls])
        }
        Shows::Plaintext(from, until) => {
            opened(verdict, s(from)..s(until)) == BTreeSet::from([Carried::Plaintext])
        }
        Shows::Says(what) => said(run).values().any(|labels| labels.contains(what)),
        Shows::Certificates(count) => meshed.all(|pod| pod.credentials.len() >= count),
        Shows::Roots(count) => {
            let roots = |pod: &PodLife| pod.trusted.iter().map(|is| is.root.clone()).collect::<BTreeSet<_>>();
            meshed.all(|pod| roots(pod).len() >= count)
        }
        Shows::RootsTogether => meshed.all(trusts_two),
        Shows::NothingFails => {
            let fails = run.wire.iter().any(|connection| connection.kind == WireKind::Handshake);
            !fails && run.ops.asked.values().all(|op| op.outcome == Outcome::Answered)
        }
        Shows::RenewedUnderHandshakes => meshed.any(|pod| is_renewed_under_handshakes(run, pod)),
        Shows::Tapped(count) => run.taps.len() >= count,
    }
}

fn trusts_two(pod: &PodLife) -> bool {
    let begins = pod.trusted.iter().map(|root| root.from);
    let mut counts = begins.map(|at| pod.trusted.iter().filter(|root| root.is_there(at)).count());
    counts.any(|count| count >= 2)
}

fn is_renewed_under_handshakes(run: &Run, pod: &PodLife) -> bool {
    let to_pod = run
        .wire
        .iter()
        .filter(|connection| connection.server.ip() == pod.ip && connection.kind == WireKind::Mesh);
    let mut handshakes =
        to_pod.filter_map(|connection| Some(connection.opened..connection.first_application_byte?));
    handshakes.any(|handshake| pod.credentials.iter().any(|held| handshake.contains(&held.from)))
}

fn opened(verdict: &Verdict, within: Range<Duration>) -> BTreeSet<Carried> {
    let all = carried(&verdict.run).into_iter().filter(|(at, ..)| within.contains(at));
    all.map(|(_, _, carried)| carried).collect()
}

/// Every scenario.
pub fn all() -> Vec<&'static Scenario> {
    let files = [
        authority::ALL,
        credentials::ALL,
        peers::ALL,
        discovery::ALL,
        proxies::ALL,
        protocols::ALL,
        long::ALL,
    ];
    files.into_iter().flatten().collect()
}

/// The scenario of this name.
pub fn named(name: &str) -> Option<&'static Scenario> {
    all().into_iter().find(|scenario| scenario.name == name)
}

/// A moment of a story.
const fn s(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}
