//! Delays between retries: exponential, capped and jittered, so that what failed together does not return together.

use std::time::Duration;

use rand::{RngExt, rngs::StdRng};

use crate::Seed;

/// The delays of one retried operation.
#[derive(Debug)]
pub struct Backoff {
    min: Duration,
    max: Duration,
    next: Duration,
    rng: StdRng,
}

impl Backoff {
    /// Delays that start at about `min`, double, and end at about `max`.
    pub fn new(min: Duration, max: Duration, seed: &Seed) -> Self {
        Self { min, max, next: min, rng: seed.fork("backoff").rng() }
    }

    /// The next delay: between half of the exponential step and all of it.
    pub fn next_delay(&mut self) -> Duration {
        let step = self.next.min(self.max);
        self.next = step.saturating_mul(2).min(self.max);
        step.mul_f64(self.rng.random_range(0.5..=1.0))
    }

    /// Starts over, after a success.
    pub fn reset(&mut self) {
        self.next = self.min;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn delays_double_to_the_cap_and_start_over_after_a_success() {
        let (min, max) = (Duration::from_millis(100), Duration::from_millis(350));
        let mut backoff = Backoff::new(min, max, &Seed::fixed(1));
        for step in [100, 200, 350, 350, 350] {
            let delay = backoff.next_delay().as_millis();
            assert!((step / 2..=step).contains(&delay), "{delay} for a step of {step}");
        }
        backoff.reset();
        assert!(backoff.next_delay() <= min);
    }
}
