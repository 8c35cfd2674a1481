//! What came of all worlds together.

use std::{collections::BTreeMap, ops::Range, time::Duration};

use sim::{judge::Verdict, run::Stopped, shrink::Failing};

use crate::tool::report;

/// How many operations of a hundred must be compared with the runs without Conduit.
const COMPARED_PERCENT: u64 = 80;

#[derive(Debug, Default)]
pub(super) struct Summary {
    pub(super) run: u64,
    /// With the seeds of whose worlds it is true.
    pub(super) failing: BTreeMap<Failing, Vec<u64>>,
    faults: BTreeMap<String, Kind>,
    compared: (u64, u64),
    operations: u64,
    connections: u64,
}

/// Faults of one kind.
#[derive(Debug, Default)]
struct Kind {
    count: u64,
    /// Those that did anything.
    acted: u64,
    fired: u64,
}

impl Summary {
    /// Adds a world; if something went wrong with it, says so at once.
    pub(super) fn add(&mut self, seed: u64, judged: Result<Verdict, Stopped>) {
        self.run += 1;
        if judged.as_ref().map_or(true, |verdict| !verdict.violations.is_empty()) {
            println!("seed {seed}");
        }
        for failing in report::wrong(&judged, None).failing {
            self.failing.entry(failing).or_default().push(seed);
        }
        let Ok(verdict) = judged else { return };
        for record in &verdict.run.faults {
            let kind = self.faults.entry(name(&record.kind).to_owned()).or_default();
            kind.count += 1;
            kind.acted += u64::from(record.fired > 0);
            kind.fired += record.fired;
        }
        self.compared.0 += verdict.compared.0;
        self.compared.1 += verdict.compared.1;
        self.operations += verdict.run.ops.asked.len() as u64;
        self.connections += verdict.run.wire.len() as u64;
    }

    pub(super) fn print(&self, seeds: &Range<u64>, took: Duration) {
        println!(
            "{} of the {} seeds from {} on in {:.0} s: {} operations ({} compared), {} connections",
            self.run,
            seeds.end - seeds.start,
            seeds.start,
            took.as_secs_f64(),
            self.operations,
            report::percent(self.compared),
            self.connections
        );
        println!("{:<16} {:>6} {:>6} {:>8}", "fault", "times", "acted", "fired");
        for (name, Kind { count, acted, fired }) in &self.faults {
            println!("{name:<16} {count:>6} {acted:>6} {fired:>8}");
        }
        for (failing, seeds) in &self.failing {
            let seeds: Vec<String> = seeds.iter().map(ToString::to_string).collect();
            println!("{failing}: {} seeds: {}", seeds.len(), seeds.join(" "));
        }
        match self.proves_enough() {
            true if self.failing.is_empty() => println!("nothing is violated"),
            true => {}
            false => println!("nothing is proven: less than {COMPARED_PERCENT} % could be compared"),
        }
    }

    /// Whether enough could be compared for the sweep to say anything.
    pub(super) fn proves_enough(&self) -> bool {
        let (compared, asked) = self.compared;
        asked > 0 && compared * 100 >= asked * COMPARED_PERCENT
    }
}

/// What a fault is called, without its details.
fn name(fault: &str) -> &str {
    fault.split([' ', '(']).next().unwrap_or_default()
}
