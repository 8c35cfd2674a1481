//! Worlds and schedules of faults that proptest makes up, and makes smaller when something goes wrong in one.

use std::time::Duration;

use proptest::{
    collection::vec,
    prelude::*,
    test_runner::{RngAlgorithm, TestRng, TestRunner},
};
use sim::{
    judge::judge,
    plan::{Plan, Sketch, Sketched},
};

/// Few, because each is a whole world, and the same in every run: worlds nobody has seen are for `sim sweep`.
const CASES: u32 = 4;
/// Worlds that are run to find a smaller one in which the same goes wrong.
const SHRINKS: u32 = 20;

#[test]
fn no_world_and_no_schedule_of_faults_violates_an_invariant() {
    let config = ProptestConfig {
        failure_persistence: None,
        max_shrink_iters: SHRINKS,
        ..ProptestConfig::with_cases(CASES)
    };
    let mut runner = TestRunner::new_with_rng(config, TestRng::deterministic_rng(RngAlgorithm::ChaCha));
    let holds = runner.run(&sketches(), |sketch| {
        let plan = Plan::of_sketch(&sketch);
        let verdict = judge(&plan, false).map_err(|stopped| TestCaseError::fail(stopped.to_string()))?;
        let told: Vec<String> = verdict.violations.iter().map(ToString::to_string).collect();
        prop_assert!(told.is_empty(), "{:#?}\n{}", plan.faults, told.join("\n"));
        Ok(())
    });
    if let Err(failure) = holds {
        panic!("{failure}");
    }
}

fn sketches() -> impl Strategy<Value = Sketch> {
    let fault = (any::<u64>().no_shrink(), 0..8_000_u64, 500..8_000_u64).prop_map(|(draw, after, lasts)| {
        Sketched { draw, after: Duration::from_millis(after), lasts: Duration::from_millis(lasts) }
    });
    (any::<u64>().no_shrink(), 1..4_usize, 1..3_usize, vec(fault, 0..4))
        .prop_map(|(seed, servers, clients, faults)| Sketch { seed, servers, clients, faults })
}
