//! The recent increases of one series, in bounded memory.

use std::{collections::VecDeque, time::Duration};

use crate::query::MAX_WINDOW;

/// A point in time, in tenths of a second since some time before the process began. 32 bits last 13 years.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tick(pub u32);

impl Tick {
    const PER_SECOND: u32 = 10;

    /// The tick `elapsed` after this one.
    pub fn after(self, elapsed: Duration) -> Self {
        Self(self.0.saturating_add(ticks(elapsed)))
    }

    /// The tick `elapsed` before this one.
    pub fn before(self, elapsed: Duration) -> Self {
        Self(self.0.saturating_sub(ticks(elapsed)))
    }

    /// The time from `earlier` to this tick, zero when it is not earlier.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_secs(1) / Self::PER_SECOND * self.0.saturating_sub(earlier.0)
    }
}

fn ticks(time: Duration) -> u32 {
    u32::try_from(time.as_millis() / 100).unwrap_or(u32::MAX)
}

/// How long increases are kept as they were seen; older ones are merged.
const FINE: Duration = Duration::from_secs(60);
/// What older increases are merged into, in ticks: 10 s, a sixtieth of the longest window.
const COARSE: u32 = 10 * Tick::PER_SECOND;

/// Increases by time and cell: a counter has the one cell 0, a histogram one for each bucket, up to [`MAX_CELL`].
///
/// An increase of nothing takes no room. A cell that grows at every reading, every 2 s, has 30 fine points and 54 coarse
/// ones, at 8 bytes each 0.7 KB; a histogram in which 6 buckets do so, 4 KB, and one in which all 26 do, 17 KB.
#[derive(Debug, Clone, Default)]
pub struct Trail {
    /// In the order of time; of one time, in any order.
    points: VecDeque<Point>,
    /// When they were last merged.
    merged: u32,
}

/// The last cell there can be.
pub const MAX_CELL: u8 = (1 << CELL_BITS) - 1;
const CELL_BITS: u32 = 6;
const MAX_DELTA: u32 = (1 << (32 - CELL_BITS)) - 1;

/// Two numbers in 8 bytes, because there are many: an increase of up to 67 million, and its cell.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Point {
    at: Tick,
    packed: u32,
}

impl Point {
    fn new(at: Tick, cell: u8, delta: u32) -> Self {
        Self { at, packed: delta.min(MAX_DELTA) << CELL_BITS | u32::from(cell.min(MAX_CELL)) }
    }

    fn delta(self) -> u32 {
        self.packed >> CELL_BITS
    }

    #[expect(clippy::cast_possible_truncation, reason = "6 bits are left")]
    fn cell(self) -> u8 {
        (self.packed & u32::from(MAX_CELL)) as u8
    }
}

impl Trail {
    /// Notes that `cell` grew by `delta` up to `at`, which is not before the last one noted.
    pub fn add(&mut self, at: Tick, cell: u8, delta: u32) {
        if delta > 0 {
            self.points.push_back(Point::new(at, cell, delta));
        }
        if at.0.saturating_sub(self.merged) >= COARSE {
            self.merge(at);
        }
    }

    /// The increases after `start`, as (cell, increase). A merged increase counts at the end of its 10 s.
    pub fn since(&self, start: Tick) -> impl Iterator<Item = (u8, u32)> {
        let first = self.points.partition_point(|point| point.at <= start);
        self.points.range(first..).map(|point| (point.cell(), point.delta()))
    }

    /// When anything last grew, as far as is remembered.
    pub fn last(&self) -> Option<Tick> {
        self.points.back().map(|last| last.at)
    }

    /// Whether nothing grew within the longest window before `now`.
    pub fn is_idle(&self, now: Tick) -> bool {
        self.points.back().is_none_or(|last| last.at <= now.before(MAX_WINDOW))
    }

    fn merge(&mut self, now: Tick) {
        self.merged = now.0;
        let (gone, fine) = (now.before(MAX_WINDOW), now.before(FINE));
        let mut merged: VecDeque<Point> = VecDeque::with_capacity(self.points.len());
        for mut point in self.points.drain(..).filter(|point| point.at > gone) {
            if point.at < fine {
                point.at = Tick(point.at.0.next_multiple_of(COARSE)).min(fine);
                let same = |known: &&mut Point| (known.at, known.cell()) == (point.at, point.cell());
                // The points of one time are at the end, and no more than there are cells.
                let of_its_time = merged.iter_mut().rev().take_while(|known| known.at == point.at);
                if let Some(known) = of_its_time.into_iter().find(same) {
                    *known = Point::new(known.at, known.cell(), known.delta().saturating_add(point.delta()));
                    continue;
                }
            }
            merged.push_back(point);
        }
        merged.shrink_to_fit();
        self.points = merged;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn total(trail: &Trail, start: Tick) -> u32 {
        trail.since(start).map(|(_, delta)| delta).sum()
    }

    #[test]
    fn increases_are_summed_from_the_start_of_the_window() {
        let mut trail = Trail::default();
        for second in 0..30 {
            trail.add(Tick(6000 + second * 10), 0, 1);
        }
        let now = Tick(6000 + 290);
        assert_eq!(total(&trail, now.before(Duration::from_secs(10))), 10);
        assert_eq!(total(&trail, now.before(Duration::from_secs(60))), 30);
    }

    #[test]
    fn ten_minutes_at_a_scrape_a_second_stay_within_the_documented_memory() {
        let mut trail = Trail::default();
        for second in 0..3600 {
            trail.add(Tick(6000 + second * 10), 0, 1);
        }
        // Up to one interval of 10 s waits for the next merge, at both ends.
        assert!(trail.points.len() <= 60 + 54 + 12, "{}", trail.points.len());
        let now = Tick(6000 + 35990);
        let kept = total(&trail, now.before(MAX_WINDOW));
        assert!((590..=610).contains(&kept), "{kept}");
    }

    #[test]
    fn what_is_out_of_every_window_is_idle() {
        let mut trail = Trail::default();
        assert!(trail.is_idle(Tick(0)));
        trail.add(Tick(100), 0, 1);
        assert!(!trail.is_idle(Tick(6099)));
        assert!(trail.is_idle(Tick(6100)));
    }

    proptest! {
        #[test]
        fn merging_moves_nothing_by_more_than_ten_seconds(
            steps in prop::collection::vec((1u32..50, 0u8..4, 0u32..5), 1..300),
            window in 50u32..6000,
        ) {
            let (mut trail, mut all, mut now) = (Trail::default(), Vec::new(), Tick(10_000));
            for (step, cell, delta) in steps {
                now = Tick(now.0 + step);
                trail.add(now, cell, delta);
                all.push((now, delta));
            }
            let exact = |start: u32| all.iter().filter(|(at, _)| at.0 > start).map(|(_, delta)| delta).sum::<u32>();
            let start = now.0 - window;
            let found = total(&trail, Tick(start));
            prop_assert!(found >= exact(start), "{found} of at least {}", exact(start));
            prop_assert!(found <= exact(start - COARSE), "{found} of at most {}", exact(start - COARSE));
        }
    }
}
