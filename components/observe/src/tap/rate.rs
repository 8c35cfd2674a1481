//! How many requests a tap tells of. Pure.

use std::time::Duration;

/// A token bucket of one second.
#[derive(Debug)]
pub(crate) struct Rate {
    per_second: f64,
    tokens: f64,
    /// When `tokens` was right.
    at: Duration,
}

impl Rate {
    /// At most `per_second` requests a second, and at first as many as one second has, at least one.
    pub(crate) fn new(per_second: f64) -> Self {
        Self { per_second, tokens: per_second.max(1.0), at: Duration::ZERO }
    }

    /// Whether one more request may be told of, `now` after the start.
    pub(crate) fn admits(&mut self, now: Duration) -> bool {
        let passed = now.saturating_sub(self.at).as_secs_f64();
        self.at = self.at.max(now);
        self.tokens = (self.tokens + passed * self.per_second).min(self.per_second.max(1.0));
        let admits = self.tokens >= 1.0;
        if admits {
            self.tokens -= 1.0;
        }
        admits
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn admitted(per_second: f64, offered_per_second: u64, seconds: u64) -> u64 {
        let mut rate = Rate::new(per_second);
        let step = Duration::from_secs(1) / u32::try_from(offered_per_second).unwrap();
        let mut now = Duration::ZERO;
        let mut admitted = 0;
        for _ in 0..offered_per_second * seconds {
            now += step;
            admitted += u64::from(rate.admits(now));
        }
        admitted
    }

    #[test]
    fn no_more_than_the_rate_is_admitted_whatever_is_offered() {
        for (per_second, offered) in [(1.0, 100), (0.5, 100), (10.0, 1000), (2.5, 100)] {
            let (told, fair) = (admitted(per_second, offered, 10) as f64, per_second * 10.0);
            assert!(
                (fair - 1.0..=fair + per_second.max(1.0)).contains(&told),
                "{told} at {per_second} a second"
            );
        }
        assert_eq!(admitted(100.0, 10, 10), 100);
    }
}
