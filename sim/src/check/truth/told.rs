//! The readings of one process of one proxy, as if none of its series had ever been dropped.
//!
//! A proxy drops series that were idle for long, and begins them at zero when they are needed again.

use std::{collections::BTreeMap, time::Duration};

use crate::history::{Counter, PodLife, Reading, Run};

/// What one process counted.
#[derive(Debug)]
pub(super) struct Process<'a> {
    /// Whose proxy it is.
    pub(super) pod: &'a PodLife,
    /// When it started.
    pub(super) since: Duration,
    /// By time.
    pub(super) readings: Vec<Reading>,
}

/// Every process that was ever read.
pub(super) fn processes(run: &Run) -> Vec<Process<'_>> {
    let mut processes = Vec::new();
    for pod in &run.pods {
        let mut by_start: BTreeMap<Duration, Vec<&Reading>> = BTreeMap::new();
        let its_own = run.readings.iter().filter(|reading| reading.pod == pod.ip && pod.is_alive(reading.at));
        its_own.for_each(|reading| by_start.entry(reading.since).or_default().push(reading));
        processes.extend(by_start.into_iter().map(|(since, mut readings)| {
            readings.sort_by_key(|reading| reading.at);
            Process { pod, since, readings: summed(&readings) }
        }));
    }
    processes
}

fn summed(readings: &[&Reading]) -> Vec<Reading> {
    type Series = (String, BTreeMap<String, String>);
    let mut sums: BTreeMap<Series, u64> = BTreeMap::new();
    let mut last: BTreeMap<Series, u64> = BTreeMap::new();
    let mut summed = Vec::new();
    for reading in readings {
        let mut now: BTreeMap<Series, u64> = BTreeMap::new();
        for Counter { name, labels, value } in &reading.counters {
            *now.entry((name.clone(), labels.clone())).or_default() += value;
        }
        for (series, value) in &now {
            let before = last.get(series).copied().unwrap_or_default();
            // What is less than before began anew.
            *sums.entry(series.clone()).or_default() += value.checked_sub(before).unwrap_or(*value);
        }
        last = now;
        let counter = |((name, labels), value): (&Series, &u64)| Counter {
            name: name.clone(),
            labels: labels.clone(),
            value: *value,
        };
        summed.push(Reading { counters: sums.iter().map(counter).collect(), ..Reading::clone(reading) });
    }
    summed
}
