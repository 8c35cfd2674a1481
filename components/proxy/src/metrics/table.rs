//! Series by label set: resolved once and kept as handles by whoever counts, evicted when nobody holds one and nothing
//! has happened for long.

use std::{collections::BTreeMap, fmt, sync::Arc, time::Duration};

use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeMetric, MetricEncoder},
    metrics::MetricType,
};
use tokio::time::Instant;

/// What a [`Table`] keeps.
pub(crate) trait Series: fmt::Debug + Send + Sync + 'static {
    /// A number that changes whenever the series does. Eviction looks at this now and then, so that counting needs no
    /// clock.
    fn activity(&self) -> u64;
}

/// The series of one kind, by their labels. Cloning shares.
pub(crate) struct Table<L, S> {
    slots: Arc<Mutex<BTreeMap<L, Slot<S>>>>,
}

#[derive(Debug)]
struct Slot<S> {
    series: Arc<S>,
    /// The activity that was last seen, and since when it has been that.
    activity: u64,
    since: Instant,
}

impl<L: Ord + Clone, S: Series> Table<L, S> {
    /// The series labelled `labels`, made when it does not exist.
    pub(crate) fn get(&self, labels: &L, make: impl FnOnce() -> S) -> Arc<S> {
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get(labels) {
            return Arc::clone(&slot.series);
        }
        let series = Arc::new(make());
        let slot = Slot { activity: series.activity(), since: Instant::now(), series: Arc::clone(&series) };
        slots.insert(labels.clone(), slot);
        series
    }

    /// How many series there are.
    pub(crate) fn len(&self) -> usize {
        self.slots.lock().len()
    }

    /// Drops the series that nobody holds a handle of and that have not changed for `retain`. One that is held may be a
    /// connection's: its gauge has to come back to zero.
    pub(crate) fn evict(&self, now: Instant, retain: Duration) {
        self.slots.lock().retain(|_, slot| {
            let activity = slot.series.activity();
            if activity != slot.activity || Arc::strong_count(&slot.series) > 1 {
                (slot.activity, slot.since) = (activity, now);
            }
            now.saturating_duration_since(slot.since) < retain
        });
    }

    /// Calls `each` for every series, in the order of their labels.
    pub(crate) fn for_each(&self, mut each: impl FnMut(&L, &S) -> fmt::Result) -> fmt::Result {
        // Copied, so that nobody waits for the encoding to get a handle.
        let copy: Vec<(L, Arc<S>)> = self
            .slots
            .lock()
            .iter()
            .map(|(labels, slot)| (labels.clone(), Arc::clone(&slot.series)))
            .collect();
        copy.iter().try_for_each(|(labels, series)| each(labels, series))
    }
}

impl<L, S> Clone for Table<L, S> {
    fn clone(&self) -> Self {
        Self { slots: Arc::clone(&self.slots) }
    }
}

impl<L, S> Default for Table<L, S> {
    fn default() -> Self {
        Self { slots: Arc::default() }
    }
}

impl<L, S> fmt::Debug for Table<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({})", self.slots.lock().len())
    }
}

/// One metric family out of a table: several families are different faces of the same series.
pub(crate) struct Face<L, S> {
    /// The series.
    pub(crate) table: Table<L, S>,
    /// What the family is.
    pub(crate) metric_type: MetricType,
    /// Writes what the family shows of one series, possibly nothing.
    pub(crate) encode: fn(&mut MetricEncoder<'_>, &L, &S) -> fmt::Result,
}

impl<L: Ord + Clone, S: Series> EncodeMetric for Face<L, S> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.table.for_each(|labels, series| (self.encode)(&mut encoder, labels, series))
    }

    fn metric_type(&self) -> MetricType {
        self.metric_type
    }

    fn is_empty(&self) -> bool {
        self.table.len() == 0
    }
}

impl<L, S> fmt::Debug for Face<L, S> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.table.fmt(f)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

    use super::*;

    const RETAIN: Duration = Duration::from_secs(600);

    impl Series for AtomicU64 {
        fn activity(&self) -> u64 {
            self.load(Relaxed)
        }
    }

    fn names(table: &Table<&'static str, AtomicU64>) -> Vec<&'static str> {
        let mut names = Vec::new();
        table
            .for_each(|name, _| {
                names.push(*name);
                Ok(())
            })
            .unwrap();
        names
    }

    #[tokio::test(start_paused = true)]
    async fn idle_series_are_evicted_and_held_or_changing_ones_are_not() {
        let table = Table::default();
        let held = table.get(&"held", AtomicU64::default);
        drop(table.get(&"idle", AtomicU64::default));
        drop(table.get(&"changing", AtomicU64::default));
        tokio::time::advance(RETAIN / 2).await;
        table.get(&"changing", AtomicU64::default).fetch_add(1, Relaxed);
        table.evict(Instant::now(), RETAIN);
        assert_eq!(names(&table), ["changing", "held", "idle"]);
        tokio::time::advance(RETAIN / 2).await;
        table.evict(Instant::now(), RETAIN);
        assert_eq!(names(&table), ["changing", "held"]);
        assert!(Arc::ptr_eq(&held, &table.get(&"held", AtomicU64::default)));
        drop(held);
        tokio::time::advance(RETAIN).await;
        table.evict(Instant::now(), RETAIN);
        assert!(names(&table).is_empty());
    }

    #[tokio::test(start_paused = true)]
    async fn retention_counts_from_the_release_of_the_last_handle() {
        let table = Table::default();
        let held = table.get(&"held", AtomicU64::default);
        tokio::time::advance(RETAIN * 3).await;
        table.evict(Instant::now(), RETAIN);
        drop(held);
        table.evict(Instant::now(), RETAIN);
        assert_eq!(names(&table), ["held"]);
    }
}
