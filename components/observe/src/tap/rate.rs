//! Which requests a tap tells of, when there are more than its rate allows. Pure.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

/// The shortest slot.
const SLOT: Duration = Duration::from_secs(1);

/// Chooses requests at random, at most so many in a slot of time.
///
/// Taking the first ones of each second would be simpler, and tell of the same request every time where traffic comes in
/// rounds, and never of those that follow it. So each slot is expected to have as many requests as the one before, and
/// of these the ones to tell of are drawn (Knuth, The Art of Computer Programming 3.4.2, algorithm S).
#[derive(Debug)]
pub(crate) struct Rate {
    per_slot: f64,
    slot: Duration,
    rng: StdRng,
    /// When the present slot began.
    began: Duration,
    /// Requests to tell of in it, and a fraction that the next one inherits.
    tokens: f64,
    /// Requests that are still expected in it.
    expected: u64,
    /// Requests that came in it.
    seen: u64,
}

impl Rate {
    /// At most `per_second` requests a second; below one, a slot is as long as one request takes.
    pub(crate) fn new(per_second: f64, rng: StdRng) -> Self {
        let slot = Duration::try_from_secs_f64(1.0 / per_second).unwrap_or(Duration::MAX).max(SLOT);
        let per_slot = per_second.max(1.0);
        Self { per_slot, slot, rng, began: Duration::ZERO, tokens: per_slot, expected: 0, seen: 0 }
    }

    /// Whether one more request is told of, `now` after the start.
    pub(crate) fn admits(&mut self, now: Duration) -> bool {
        self.begin_slot(now);
        self.seen += 1;
        let expected = self.expected;
        self.expected = expected.saturating_sub(1);
        let admits = self.tokens >= 1.0 && self.is_drawn(expected);
        if admits {
            self.tokens -= 1.0;
        }
        admits
    }

    fn begin_slot(&mut self, now: Duration) {
        let passed = now.saturating_sub(self.began);
        if passed < self.slot {
            return;
        }
        let next = self.began + self.slot;
        let is_next = passed - self.slot < self.slot;
        self.began = if is_next { next } else { now };
        self.expected = if is_next { self.seen } else { 0 };
        self.seen = 0;
        self.tokens = self.tokens.fract() + self.per_slot;
    }

    /// Whether the next one of `expected` requests is among those to tell of.
    #[expect(clippy::cast_precision_loss, reason = "fewer requests a second than a float counts")]
    fn is_drawn(&mut self, expected: u64) -> bool {
        self.rng.random_range(0.0..1.0) * (expected as f64) < self.tokens.floor()
    }
}

#[cfg(test)]
mod tests {
    use conduit_runtime::Seed;

    use super::*;

    /// How many of each second's requests, in the order they come, are told of.
    fn admitted(per_second: f64, offered_per_second: u32, seconds: u32) -> Vec<u64> {
        let mut rate = Rate::new(per_second, Seed::fixed(1).rng());
        let step = Duration::from_secs(1) / offered_per_second;
        let mut admitted = vec![0; offered_per_second as usize];
        for request in 0..offered_per_second * seconds {
            let now = Duration::from_secs((request / offered_per_second).into())
                + step * (request % offered_per_second);
            admitted[(request % offered_per_second) as usize] += u64::from(rate.admits(now));
        }
        admitted
    }

    #[test]
    fn no_more_than_the_rate_is_admitted_whatever_is_offered() {
        for (per_second, offered) in [(1.0, 100), (0.5, 100), (10.0, 1000), (2.5, 100)] {
            let told = admitted(per_second, offered, 10).iter().sum::<u64>() as f64;
            let fair = per_second * 10.0;
            assert!(
                (fair - 1.0..=fair + per_second.max(1.0)).contains(&told),
                "{told} at {per_second} a second"
            );
        }
    }

    #[test]
    fn all_is_told_where_the_rate_allows_it() {
        assert_eq!(admitted(100.0, 10, 10), [10; 10]);
        assert_eq!(admitted(1.0, 1, 10), [10]);
    }

    #[test]
    fn each_request_of_a_round_has_the_same_chance() {
        for per_second in [1.0, 3.0] {
            let fair = 1000.0 * per_second / 10.0;
            for told in admitted(per_second, 10, 1000) {
                assert!((0.6 * fair..1.4 * fair).contains(&(told as f64)), "{told} of {fair}");
            }
        }
    }

    #[test]
    fn after_a_pause_the_first_request_is_told_of() {
        let mut rate = Rate::new(1.0, Seed::fixed(1).rng());
        for request in 0..1000 {
            rate.admits(Duration::from_millis(request));
        }
        assert!(rate.admits(Duration::from_secs(10)));
    }
}
