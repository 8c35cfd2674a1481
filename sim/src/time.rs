//! Simulated time: what turmoil says where a host is running, and the last that it said elsewhere.

use std::{
    cell::Cell,
    fmt,
    sync::{
        Arc,
        atomic::{AtomicI64, AtomicU64, Ordering},
    },
    time::Duration,
};

use conduit_identity::{Clock, UnixTime};

thread_local! {
    static LAST: Cell<Duration> = const { Cell::new(Duration::ZERO) };
}

/// Simulated time since the start of the run.
pub fn elapsed() -> Duration {
    match turmoil::sim_elapsed() {
        Some(now) => {
            LAST.set(now);
            now
        }
        // Between two steps, and where values are dropped with a crashed host.
        None => LAST.get(),
    }
}

/// The day on which every run begins: 2026-01-01T00:00:00Z.
pub const EPOCH: UnixTime = UnixTime::from_secs(1_767_225_600);

/// Wall clocks of one world: all of them run at one speed, each with an error of its own.
#[derive(Debug, Clone)]
pub struct Wall {
    /// Wall-clock milliseconds for each simulated one.
    speed: Arc<AtomicU64>,
    /// What was shown when the speed last changed, and when that was; milliseconds.
    shown: Arc<(AtomicU64, AtomicU64)>,
}

impl Default for Wall {
    fn default() -> Self {
        Self { speed: Arc::new(AtomicU64::new(1)), shown: Arc::default() }
    }
}

impl Wall {
    /// Lets the wall clocks run `speed` times as fast as everything else: long stories in little time.
    pub fn run_at(&self, speed: u32) {
        let (now, at) = (self.millis(), millis(elapsed()));
        self.shown.0.store(now, Ordering::SeqCst);
        self.shown.1.store(at, Ordering::SeqCst);
        self.speed.store(u64::from(speed), Ordering::SeqCst);
    }

    fn millis(&self) -> u64 {
        let since = millis(elapsed()).saturating_sub(self.shown.1.load(Ordering::SeqCst));
        self.shown.0.load(Ordering::SeqCst) + since * self.speed.load(Ordering::SeqCst)
    }

    /// The time that a machine without an error shows.
    pub fn now(&self) -> UnixTime {
        EPOCH + Duration::from_millis(self.millis())
    }

    /// The clock of one machine.
    pub fn clock(&self) -> SkewedClock {
        SkewedClock { wall: self.clone(), error_ms: Arc::default() }
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

/// The wall clock of one machine, which may be wrong. Cloning shares.
#[derive(Clone)]
pub struct SkewedClock {
    wall: Wall,
    error_ms: Arc<AtomicI64>,
}

impl SkewedClock {
    /// Its error, in milliseconds; positive is ahead.
    pub fn error_ms(&self) -> i64 {
        self.error_ms.load(Ordering::SeqCst)
    }

    /// Sets its error, in milliseconds; positive is ahead.
    pub fn set_error_ms(&self, error: i64) {
        self.error_ms.store(error, Ordering::SeqCst);
    }
}

impl Clock for SkewedClock {
    fn now(&self) -> UnixTime {
        let error = self.error_ms.load(Ordering::SeqCst);
        let by = Duration::from_millis(error.unsigned_abs());
        if error < 0 { self.wall.now() - by } else { self.wall.now() + by }
    }
}

impl fmt::Debug for SkewedClock {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "SkewedClock({} ms)", self.error_ms.load(Ordering::SeqCst))
    }
}
