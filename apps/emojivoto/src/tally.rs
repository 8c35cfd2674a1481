//! What was tried and what became of it, for whoever has to prove that the application came to no harm.

use std::sync::{
    Arc,
    atomic::{AtomicU64, Ordering},
};

/// Running counts of calls. Cloning shares them.
#[derive(Debug, Clone, Default)]
pub struct Tally {
    counts: Arc<Counts>,
}

#[derive(Debug, Default)]
struct Counts {
    succeeded: AtomicU64,
    refused: AtomicU64,
    failed: AtomicU64,
}

/// A [`Tally`] at one moment.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Counted {
    /// Calls answered as they should be.
    pub succeeded: u64,
    /// Votes for the doughnut, answered with the application's own error, as they should be.
    pub refused: u64,
    /// Calls that came to any other end.
    pub failed: u64,
}

impl Counted {
    /// All calls that have ended.
    pub fn sent(&self) -> u64 {
        self.succeeded + self.refused + self.failed
    }
}

impl Tally {
    /// The counts so far.
    pub fn counted(&self) -> Counted {
        Counted {
            succeeded: self.counts.succeeded.load(Ordering::Relaxed),
            refused: self.counts.refused.load(Ordering::Relaxed),
            failed: self.counts.failed.load(Ordering::Relaxed),
        }
    }

    pub(crate) fn succeeded(&self) {
        self.counts.succeeded.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn refused(&self) {
        self.counts.refused.fetch_add(1, Ordering::Relaxed);
    }

    pub(crate) fn failed(&self) {
        self.counts.failed.fetch_add(1, Ordering::Relaxed);
    }
}
