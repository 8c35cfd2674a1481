//! How often one object is written: at once the first time, and ever more slowly when it does not stay as it was
//! written, or cannot be written at all. Somebody else who writes it too must not make a storm of it.

use std::{collections::BTreeMap, time::Duration};

use conduit_k8s::watch::ObjectKey;
use conduit_runtime::{Backoff, Seed};
use tokio::time::Instant;

const MIN: Duration = Duration::from_millis(500);
const MAX: Duration = Duration::from_secs(60);

/// An object that was left in peace for so long starts over.
const QUIET: Duration = Duration::from_secs(10 * 60);

/// The pace of each object.
#[derive(Debug)]
pub(crate) struct Pace {
    seed: Seed,
    entries: BTreeMap<ObjectKey, Entry>,
}

#[derive(Debug)]
struct Entry {
    backoff: Backoff,
    next: Instant,
}

impl Pace {
    pub(crate) fn new(seed: &Seed) -> Self {
        Self { seed: seed.fork("pace"), entries: BTreeMap::new() }
    }

    /// Whether `key` may be written now; when not, from when on it may.
    pub(crate) fn allows(&self, key: &ObjectKey) -> Result<(), Instant> {
        match self.entries.get(key) {
            Some(entry) if Instant::now() < entry.next => Err(entry.next),
            _ => Ok(()),
        }
    }

    /// Notes an attempt to write `key`.
    pub(crate) fn attempted(&mut self, key: &ObjectKey) {
        let now = Instant::now();
        let entry = self.entries.entry(key.clone()).or_insert_with(|| {
            let seed = self.seed.fork(&key.to_string());
            Entry { backoff: Backoff::new(MIN, MAX, &seed), next: now }
        });
        entry.next = now + entry.backoff.next_delay();
    }

    /// Lets `key` be written at once again.
    pub(crate) fn forget(&mut self, key: &ObjectKey) {
        self.entries.remove(key);
    }

    /// Forgets what has been quiet.
    pub(crate) fn tidy(&mut self) {
        let now = Instant::now();
        self.entries.retain(|_, entry| now < entry.next + QUIET);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test(start_paused = true)]
    async fn the_first_write_is_immediate_and_the_next_ones_slow_down() {
        let mut pace = Pace::new(&Seed::fixed(1));
        let key = ObjectKey::new("shop", "web");
        assert!(pace.allows(&key).is_ok());
        let mut waits = Vec::new();
        for _ in 0..12 {
            pace.attempted(&key);
            let next = pace.allows(&key).unwrap_err();
            waits.push(next - Instant::now());
            tokio::time::sleep_until(next).await;
            assert!(pace.allows(&key).is_ok());
        }
        assert!(waits[0] <= MIN && waits[11] >= MAX / 2, "{waits:?}");
        tokio::time::advance(QUIET).await;
        pace.tidy();
        pace.attempted(&key);
        assert!(pace.allows(&key).unwrap_err() - Instant::now() <= MIN);
    }
}
