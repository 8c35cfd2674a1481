//! Many worlds, side by side.
//!
//! - `sweep/workers.rs`: the threads that judge them; `sweep/summary.rs`: what came of all together

mod summary;
mod workers;

use std::{
    io::{IsTerminal, Write},
    thread,
    time::Instant,
};

use sim::shrink::Keep;

use super::{
    args::{Story, SweepArgs},
    shrinking,
};
use summary::Summary;

/// Runs the worlds of all seeds, or of as many as there is time for, and prints a summary. Whether nothing went wrong.
///
/// # Errors
/// None today.
#[allow(clippy::disallowed_methods, reason = "it is about real time, outside of any world")]
pub(super) fn run(args: &SweepArgs) -> anyhow::Result<bool> {
    let (begun, seeds) = (Instant::now(), &args.seeds.0);
    let jobs = args.jobs.map_or_else(default_jobs, usize::from);
    let until = args.minutes.map(|minutes| begun + minutes);
    let mut summary = Summary::default();
    let hung = workers::work(seeds.clone(), jobs, until, |seed, judged| {
        clear_progress();
        summary.add(seed, judged);
        progress(summary.run, seeds.end - seeds.start);
        !args.first || summary.failing.is_empty()
    });
    clear_progress();
    summary.print(seeds, begun.elapsed());
    for (failing, seeds) in &summary.failing {
        if let Some(seed) = seeds.first().filter(|_| !args.no_shrink) {
            println!("\nseed {seed}:");
            shrinking::shrink(&Story::of_seed(*seed), &Keep::default(), *failing);
        }
    }
    for seed in &hung {
        println!("\nseed {seed} does not end:");
        shrinking::replay(&Story::of_seed(*seed), &Keep::default());
    }
    Ok(summary.proves_enough() && summary.failing.is_empty() && hung.is_empty())
}

/// A world has two threads, and the one without Conduit is soon done.
fn default_jobs() -> usize {
    thread::available_parallelism().map_or(1, usize::from)
}

fn progress(run: u64, of: u64) {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // What cannot be shown is not missed.
        let _ = write!(terminal, "{run} of {of} worlds").and_then(|()| terminal.flush());
    }
}

fn clear_progress() {
    let mut terminal = std::io::stderr();
    if terminal.is_terminal() {
        // ECMA-48, erase in line.
        let _ = write!(terminal, "\r\x1b[K").and_then(|()| terminal.flush());
    }
}
