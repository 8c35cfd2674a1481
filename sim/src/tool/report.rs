//! What is printed of a world.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use sim::{check::Violation, judge::Verdict, plan::Plan, run::Stopped, scenarios::Scenario, shrink::Failing};

/// Violations of one invariant that are printed.
const MAX_SHOWN: usize = 5;

/// What went wrong.
#[derive(Debug, Default)]
pub(super) struct Wrong {
    /// What can be shrunk, each once.
    pub(super) failing: Vec<Failing>,
    /// Nothing is violated, and yet nothing is proven.
    is_unproven: bool,
}

impl Wrong {
    pub(super) fn is_nothing(&self) -> bool {
        self.failing.is_empty() && !self.is_unproven
    }
}

/// Prints what a world was, in some lines.
pub(super) fn world(plan: &Plan, verdict: &Verdict, took: Duration) {
    let run = &verdict.run;
    for (number, (planned, record)) in plan.faults.iter().zip(&run.faults).enumerate() {
        println!("  {number}: {planned}, fired {}", record.fired);
    }
    let (lines, hash) = verdict.trace.sum();
    println!(
        "  {} pods, {} operations ({} compared), {} connections, {lines} lines of trace {hash:016x}, {:.1} s",
        run.pods.len(),
        run.ops.asked.len(),
        percent(verdict.compared),
        run.wire.len(),
        took.as_secs_f64()
    );
}

/// Prints every pod, every connection and every counter, as they are in the history.
pub(super) fn details(verdict: &Verdict) {
    for pod in &verdict.run.pods {
        println!("  {pod:?}");
    }
    for connection in &verdict.run.wire {
        println!("  {connection:?}");
    }
    for reading in &verdict.run.readings {
        for counter in &reading.counters {
            println!("  {} {} {:?} {}", reading.pod, counter.name, counter.labels, counter.value);
        }
    }
}

/// Prints what went wrong, and says in short what that is.
pub(super) fn wrong(judged: &Result<Verdict, Stopped>, scenario: Option<&Scenario>) -> Wrong {
    let verdict = match judged {
        Err(stopped) => {
            println!("  {stopped}");
            return Wrong { failing: vec![Failing::Stops], is_unproven: false };
        }
        Ok(verdict) => verdict,
    };
    print(&verdict.violations);
    let unproven = scenario.map(|scenario| scenario.unproven(verdict)).unwrap_or_default();
    for what in &unproven {
        println!("  nothing is proven: {what}");
    }
    let failing: BTreeSet<_> = verdict.violations.iter().map(|is| Failing::Violates(is.invariant)).collect();
    Wrong { failing: failing.into_iter().collect(), is_unproven: !unproven.is_empty() }
}

fn print(violations: &[Violation]) {
    let mut counts = BTreeMap::<_, usize>::new();
    for violation in violations {
        let count = counts.entry(violation.invariant).or_default();
        *count += 1;
        if *count <= MAX_SHOWN {
            println!("  {violation}");
        }
    }
    for (invariant, count) in counts.iter().filter(|(_, count)| **count > MAX_SHOWN) {
        println!("  {invariant}: {} more", count - MAX_SHOWN);
    }
}

/// A share, rounded down: 100 % is all.
pub(super) fn percent((part, whole): (u64, u64)) -> String {
    (part * 100).checked_div(whole).map_or_else(|| "-".to_owned(), |percent| format!("{percent} %"))
}
