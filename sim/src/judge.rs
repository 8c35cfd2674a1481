//! A plan, run with Conduit and without, and judged.

use crate::{
    check::{self, Limits, Violation, transparency},
    history::Run,
    plan::Plan,
    run::Stopped,
    wire::Trace,
    world,
};

/// What came of a plan.
#[derive(Debug)]
pub struct Verdict {
    /// What happened.
    pub run: Run,
    /// What happened without Conduit.
    pub baseline: Run,
    /// The trace of the run with Conduit.
    pub trace: Trace,
    /// How many operations were compared with the run without Conduit, and of how many.
    pub compared: (u64, u64),
    /// What must not have happened.
    pub violations: Vec<Violation>,
}

impl Verdict {
    /// Faults that never did anything, in words.
    pub fn idle_faults(&self) -> Vec<&str> {
        let idle = self.run.faults.iter().filter(|fault| fault.fired == 0);
        idle.map(|fault| fault.kind.as_str()).collect()
    }
}

/// Runs a plan with Conduit and without, each on a thread of its own, and judges it.
///
/// # Errors
/// A run came to no end: its world could not be brought about, or a process panicked.
pub fn judge(plan: &Plan, keeps_trace: bool) -> Result<Verdict, Stopped> {
    let (with, without) = std::thread::scope(|scope| {
        let with = scope.spawn(|| world::with_conduit(plan, keeps_trace));
        let without = scope.spawn(|| world::without_conduit(plan));
        (join(plan, with), join(plan, without))
    });
    let ((run, trace), baseline) = (with?, without?);
    let limits = Limits::default();
    let (_, compared) = transparency::compare(&run, &baseline, &limits);
    let violations = check::all(&run, Some(&baseline), &limits);
    Ok(Verdict { run, baseline, trace, compared, violations })
}

fn join<T>(plan: &Plan, thread: std::thread::ScopedJoinHandle<'_, Result<T, Stopped>>) -> Result<T, Stopped> {
    thread.join().unwrap_or_else(|panic| {
        let why = panic.downcast_ref::<String>().cloned();
        let why = why.or_else(|| panic.downcast_ref::<&str>().map(|why| (*why).to_owned()));
        let why = format!("a panic: {}", why.unwrap_or_default());
        Err(Stopped { seed: plan.seed, at: std::time::Duration::ZERO, why })
    })
}
