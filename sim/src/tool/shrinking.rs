//! Looks for the smallest story in which the same goes wrong, and says how to see it again.

use std::time::{Duration, Instant};

use sim::{
    judge::judge,
    plan::Plan,
    shrink::{self, Failing, Keep},
};

use super::args::Story;

/// How often a world is run for that, and after which time no more.
const RUNS: u32 = 30;
const TIME: Duration = Duration::from_secs(120);

/// Shrinks what was kept of a story, and prints the result.
#[allow(clippy::disallowed_methods, reason = "it is about real time, outside of any world")]
pub(super) fn shrink(story: &Story, keep: &Keep, failing: Failing) {
    let (begun, mut runs) = (Instant::now(), 0);
    let whole = story.whole();
    let smallest = shrink::shrink(&whole, keep, |plan| {
        if runs >= RUNS || begun.elapsed() > TIME {
            return None;
        }
        runs += 1;
        Some(fails(plan, failing))
    });
    let left = smallest.of(&whole);
    let streams = left.clients.iter().flat_map(|client| &client.asks);
    let streams = streams.filter(|asks| asks.offset < left.until).count();
    println!("  {failing} takes only this ({runs} runs): {streams} streams of operations, and");
    for planned in &left.faults {
        println!("    {planned}");
    }
    replay(story, &smallest);
}

/// Prints how to see a story again.
pub(super) fn replay(story: &Story, keep: &Keep) {
    println!("  replay: cargo run -p sim --release -- run {}", story.flags(keep));
}

fn fails(plan: &Plan, failing: Failing) -> bool {
    match (judge(plan, false), failing) {
        (Err(_), failing) => failing == Failing::Stops,
        (Ok(_), Failing::Stops) => false,
        (Ok(verdict), Failing::Violates(invariant)) => {
            verdict.violations.iter().any(|violation| violation.invariant == invariant)
        }
    }
}
