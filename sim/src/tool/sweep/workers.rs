//! The threads that judge worlds.

use std::{
    collections::BTreeMap,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError, mpsc},
    thread,
    time::{Duration, Instant},
};

use sim::{judge::Verdict, judge::judge, plan::Plan, run::Stopped};

/// A world that takes longer than this does not end.
const HUNG: Duration = Duration::from_secs(300);

#[derive(Debug)]
struct Shared {
    seeds: Range<u64>,
    under_way: BTreeMap<u64, Instant>,
}

/// Judges the seeds on `jobs` threads, begins none after `until`, and hands over each verdict; who takes it says whether to go
/// on. The result is those that do not end.
#[allow(clippy::disallowed_methods, reason = "it is about real time, outside of any world")]
pub(super) fn work(
    seeds: Range<u64>,
    jobs: usize,
    until: Option<Instant>,
    mut done: impl FnMut(u64, Result<Verdict, Stopped>) -> bool,
) -> Vec<u64> {
    let shared = Arc::new(Mutex::new(Shared { seeds, under_way: BTreeMap::new() }));
    let (sender, verdicts) = mpsc::sync_channel(jobs);
    for _ in 0..jobs {
        let (sender, shared) = (sender.clone(), shared.clone());
        // Not scoped: whoever hangs must not keep the rest from being told.
        thread::spawn(move || {
            while until.is_none_or(|until| Instant::now() < until) {
                let Some(seed) = lock(&shared).begin() else { return };
                let judged = judge(&Plan::of_seed(seed), false);
                lock(&shared).under_way.remove(&seed);
                if sender.send((seed, judged)).is_err() {
                    return;
                }
            }
        });
    }
    drop(sender);
    loop {
        match verdicts.recv_timeout(Duration::from_secs(1)) {
            Ok((seed, judged)) => {
                if !done(seed, judged) {
                    return Vec::new();
                }
            }
            Err(mpsc::RecvTimeoutError::Disconnected) => return Vec::new(),
            Err(mpsc::RecvTimeoutError::Timeout) => {
                let under_way = &lock(&shared).under_way;
                if !under_way.is_empty() && under_way.values().all(|begun| begun.elapsed() > HUNG) {
                    return under_way.keys().copied().collect();
                }
            }
        }
    }
}

impl Shared {
    #[allow(clippy::disallowed_methods, reason = "it is about real time, outside of any world")]
    fn begin(&mut self) -> Option<u64> {
        let seed = self.seeds.next()?;
        self.under_way.insert(seed, Instant::now());
        Some(seed)
    }
}

/// Nobody panics while holding it; if one did, what it guards would still make sense.
fn lock(shared: &Mutex<Shared>) -> MutexGuard<'_, Shared> {
    shared.lock().unwrap_or_else(PoisonError::into_inner)
}
