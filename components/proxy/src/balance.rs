//! Which endpoint answers a request: the cheaper of two drawn at random, where cost is the recent response time
//! (peak-sensitive, exponentially weighted) times the requests under way.
//!
//! Two random choices are enough to avoid the herd that "always the cheapest" makes, and the peak-sensitive average
//! leaves a slow endpoint at its first slow answer, not after many. An endpoint that refuses connections is left alone
//! for a growing, jittered while, as long as another one is available; then one request tries it again, and not all of them.
//!
//! Everything here is a function of its arguments: time and randomness are passed in. A [`Load`] is a few atomics, so
//! that no request waits for another one's bookkeeping.

use std::{
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use tokio::time::Instant;

/// How fast an old observation loses its weight: to 1/e in this time. The value of v0.5.0 and of Finagle.
const DECAY: Duration = Duration::from_secs(10);

/// What an endpoint is assumed to need before it has answered anything: it is tried, but not flooded.
const ASSUMED_RESPONSE: Duration = Duration::from_millis(30);

/// What a request counts for that ended without a response. An endpoint that resets at once would otherwise be the
/// fastest of all and draw everybody's requests.
const FAILED_RESPONSE: Duration = Duration::from_secs(1);

/// Costs do not fall below that of an endpoint which answers in this time: idle ones decay towards zero, and zero times
/// the requests under way would hide those.
const CHEAPEST_US: f32 = 1.0;

/// After the first refused connection, and at most, an endpoint is left alone for about this long.
const BACKOFF_MIN: Duration = Duration::from_millis(100);
const BACKOFF_MAX: Duration = Duration::from_secs(10);

/// An endpoint that was waited for in vain is left alone for at least so many times as long: requests lose little to it.
const BACKOFF_PER_WAIT: u32 = 8;

/// Beside the failures of an endpoint: somebody is trying whether it is back.
const ON_TRIAL: u32 = 1 << 31;

/// Picks an index of `candidates`: of two drawn at random, the available and cheaper one; another available one when
/// neither of the two is. `draw` is 64 random bits; the same bits give the same pick.
pub(crate) fn pick<'a, T: 'a>(
    candidates: &'a [T],
    load: impl Fn(&'a T) -> &'a Load,
    now: Instant,
    draw: u64,
) -> Picked {
    let load = |index: usize| candidates.get(index).map(&load);
    let Some((first, second)) = two_of(candidates.len(), draw) else { return Picked::Nothing };
    let (Some(a), Some(b)) = (load(first), load(second)) else { return Picked::Nothing };
    match (a.is_available(now), b.is_available(now)) {
        (true, true) if b.cost(now) < a.cost(now) => Picked::Available(second),
        (true, _) => Picked::Available(first),
        (false, true) => Picked::Available(second),
        (false, false) => elsewhere(candidates.len(), first, load, now),
    }
}

/// What [`pick`] found.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Picked {
    /// The endpoint to use.
    Available(usize),
    /// Every endpoint refused connections lately; this one may be tried again first.
    AllFailing(usize),
    /// There is no endpoint.
    Nothing,
}

/// Two different indices below `len`, the same one twice when there is only one.
fn two_of(len: usize, draw: u64) -> Option<(usize, usize)> {
    // Multiplying 32 random bits by the range and keeping the high half is uniform to within len / 2^32.
    let below = |bits: u64, range: usize| ((bits & 0xffff_ffff).wrapping_mul(range as u64) >> 32) as usize;
    match len {
        0 => None,
        1 => Some((0, 0)),
        _ => {
            let first = below(draw >> 32, len);
            let second = below(draw, len - 1);
            Some((first, if second >= first { second + 1 } else { second }))
        }
    }
}

/// The next available endpoint after `start`, or the one that leaves its backoff first.
fn elsewhere<'a>(len: usize, start: usize, load: impl Fn(usize) -> Option<&'a Load>, now: Instant) -> Picked {
    let around = || (start..len).chain(0..start).filter_map(|index| Some((index, load(index)?)));
    if let Some((index, _)) = around().find(|(_, load)| load.is_available(now)) {
        return Picked::Available(index);
    }
    around()
        .min_by_key(|(_, load)| load.available_at())
        .map_or(Picked::Nothing, |(index, _)| Picked::AllFailing(index))
}

/// What is known of one endpoint: how fast it answers, how much is under way, whether it accepts connections.
#[derive(Debug)]
pub(crate) struct Load {
    epoch: Instant,
    /// The average response time in microseconds as f32 bits, and when it held, in milliseconds since `epoch`.
    average: AtomicU64,
    pending: AtomicU32,
    /// When connecting makes sense again, in milliseconds since `epoch`, and the failures so far.
    backoff: AtomicU64,
}

impl Load {
    /// The load of an endpoint of which nothing is known yet.
    pub(crate) fn new(now: Instant) -> Self {
        let assumed = pack(micros(ASSUMED_RESPONSE).to_bits(), 0);
        Self {
            epoch: now,
            average: AtomicU64::new(assumed),
            pending: AtomicU32::new(0),
            backoff: AtomicU64::new(0),
        }
    }

    /// Counts a request as under way until the returned value is dropped.
    pub(crate) fn start(self: &Arc<Self>, now: Instant) -> InFlight {
        self.pending.fetch_add(1, Relaxed);
        InFlight { load: Arc::clone(self), since: now }
    }

    /// A connection could not be opened, which took so long to learn: the endpoint is left alone for a while that doubles with
    /// each failure. `draw` is 64 random bits for the jitter.
    pub(crate) fn connect_failed(&self, now: Instant, took: Duration, draw: u64) {
        let at = self.stamp(now);
        // The failures of connections that were tried together are one failure.
        let next = |word: u64| {
            let (until, failures) = unpack(word);
            (failures == 0 || failures & ON_TRIAL != 0 || at >= until).then(|| {
                let failures = failures & !ON_TRIAL;
                let delay = backoff(failures, took, draw);
                pack(at.saturating_add(delay.as_millis() as u32), (failures + 1).min(ON_TRIAL - 1))
            })
        };
        // An error means that another failure of the same moment was counted.
        let _counted = self.backoff.fetch_update(Relaxed, Relaxed, next);
    }

    /// Whoever picks an endpoint whose backoff is over tries whether it is back. Nobody else finds it available meanwhile, for
    /// `within` at most.
    pub(crate) fn on_trial(&self, now: Instant, within: Duration) {
        let at = self.stamp(now);
        let next = |word: u64| {
            let (until, failures) = unpack(word);
            let is_due = failures != 0 && at >= until;
            is_due.then(|| pack(at.saturating_add(within.as_millis() as u32), failures | ON_TRIAL))
        };
        // An error means that it is not failing, or that somebody else has begun.
        let _begun = self.backoff.fetch_update(Relaxed, Relaxed, next);
    }

    /// A connection was opened: whatever was wrong is over.
    pub(crate) fn connected(&self) {
        if self.backoff.load(Relaxed) != 0 {
            self.backoff.store(0, Relaxed);
        }
    }

    /// Whether connecting makes sense now.
    pub(crate) fn is_available(&self, now: Instant) -> bool {
        match unpack(self.backoff.load(Relaxed)) {
            (_, 0) => true,
            (until, _) => self.stamp(now) >= until,
        }
    }

    fn available_at(&self) -> Instant {
        self.epoch + Duration::from_millis(u64::from(unpack(self.backoff.load(Relaxed)).0))
    }

    /// The recent response time, in microseconds, times the requests that a new one would share the endpoint with.
    pub(crate) fn cost(&self, now: Instant) -> f32 {
        let (bits, at) = unpack(self.average.load(Relaxed));
        let idle = self.stamp(now).saturating_sub(at);
        let average = f32::from_bits(bits) * remaining_weight(idle);
        average.max(CHEAPEST_US) * (self.pending.load(Relaxed) as f32 + 1.0)
    }

    fn observe(&self, response: Duration, now: Instant) {
        let at = self.stamp(now);
        let seen = micros(response);
        let next = |word: u64| {
            let (bits, since) = unpack(word);
            let average = f32::from_bits(bits);
            // Peak-sensitive: worse news replaces the average at once, better news only gradually.
            let weight = if seen > average { 0.0 } else { remaining_weight(at.saturating_sub(since)) };
            Some(pack((average * weight + seen * (1.0 - weight)).to_bits(), at.max(since)))
        };
        let _always_some = self.average.fetch_update(Relaxed, Relaxed, next);
    }

    /// 49 days fit; an endpoint that lives longer stops decaying, and any answer still counts.
    fn stamp(&self, now: Instant) -> u32 {
        u32::try_from(now.saturating_duration_since(self.epoch).as_millis()).unwrap_or(u32::MAX)
    }
}

/// A request under way. Dropping it without a verdict (the client left) says nothing about the endpoint.
#[derive(Debug)]
pub(crate) struct InFlight {
    load: Arc<Load>,
    since: Instant,
}

impl InFlight {
    /// The endpoint began to answer.
    pub(crate) fn answered(self, now: Instant) {
        self.load.observe(now.saturating_duration_since(self.since), now);
    }

    /// The request ended without a response.
    pub(crate) fn failed(self, now: Instant) {
        self.load.observe(FAILED_RESPONSE.max(now.saturating_duration_since(self.since)), now);
    }
}

impl Drop for InFlight {
    fn drop(&mut self) {
        self.load.pending.fetch_sub(1, Relaxed);
    }
}

/// Between half of the exponential step and all of it, as every retry in Conduit.
fn backoff(failures: u32, took: Duration, draw: u64) -> Duration {
    let step = BACKOFF_MIN.saturating_mul(1 << failures.min(16));
    let step = step.max(took.saturating_mul(BACKOFF_PER_WAIT)).min(BACKOFF_MAX);
    let fraction = (draw >> 11) as f64 / (1_u64 << 53) as f64;
    step.mul_f64(0.5 + fraction / 2.0)
}

fn remaining_weight(idle_ms: u32) -> f32 {
    (-(idle_ms as f32) / DECAY.as_millis() as f32).exp()
}

fn micros(duration: Duration) -> f32 {
    duration.as_secs_f32() * 1e6
}

fn pack(high: u32, low: u32) -> u64 {
    u64::from(high) << 32 | u64::from(low)
}

fn unpack(word: u64) -> (u32, u32) {
    ((word >> 32) as u32, word as u32)
}

#[cfg(test)]
mod tests;
