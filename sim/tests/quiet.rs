//! The quietest world: two meshed pods, and nothing goes wrong.

#![allow(clippy::unwrap_used, reason = "a test")]

use sim::{
    check::determinism,
    history::{Outcome, Protocol, WireKind},
    judge::judge,
    plan::Plan,
    world,
};

#[test]
fn two_meshed_pods_talk_over_tls_and_no_invariant_is_violated() {
    let verdict = judge(&Plan::quiet(1), false).unwrap();
    assert!(verdict.run.taps.len() > 10 && verdict.run.stat.iter().any(|row| row.tls == Some(1.0)));
    assert_eq!(verdict.violations, []);
    let ops = &verdict.run.ops;
    assert!(ops.asked.len() > 20 && ops.asked.values().all(|op| op.outcome == Outcome::Answered));
    let between = verdict.run.wire.iter().filter(|wire| wire.server.port() == Protocol::Http1.port());
    let kinds: Vec<WireKind> = between.map(|wire| wire.kind).collect();
    assert!(!kinds.is_empty() && kinds.iter().all(|kind| *kind == WireKind::Mesh), "{kinds:?}");
}

#[test]
fn one_seed_gives_one_trace_and_another_seed_another() {
    let trace = |seed| world::with_conduit(&Plan::quiet(seed), true).unwrap().1.lines().join("\n");
    let once = trace(1);
    assert!(once.lines().count() > 500);
    assert_eq!(determinism::check(&once, &trace(1)), []);
    assert_ne!(determinism::check(&once, &trace(2)), []);
}
