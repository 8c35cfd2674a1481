//! Waiting for moments of wall-clock time, which may be set while one waits: certificates end by it.
//!
//! One task asks the clock for everybody, so that a thousand idle connections sleep undisturbed.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conduit_identity::{Clock, UnixTime};
use parking_lot::Mutex;
use tokio::sync::oneshot;

/// Tells when moments are reached. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Expiry {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    clock: Arc<dyn Clock>,
    waiting: Mutex<Waiting>,
}

#[derive(Debug, Default)]
struct Waiting {
    next: u64,
    /// By moment; the number tells those of one moment apart.
    told: BTreeMap<(UnixTime, u64), oneshot::Sender<()>>,
}

impl Expiry {
    /// Moments of `clock`. Nobody is told of them unless [`Expiry::run`] runs.
    pub(crate) fn new(clock: Arc<dyn Clock>) -> Self {
        Self { inner: Arc::new(Inner { clock, waiting: Mutex::default() }) }
    }

    /// Asks the clock every `every`, and tells whom it concerns. Never returns.
    pub(crate) async fn run(self, every: Duration) {
        let mut ticks = tokio::time::interval(every.max(Duration::from_millis(1)));
        ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
        loop {
            ticks.tick().await;
            let now = self.inner.clock.now();
            let mut waiting = self.inner.waiting.lock();
            while let Some(first) = waiting.told.first_entry()
                && first.key().0 <= now
            {
                // Dropping it tells.
                first.remove();
            }
        }
    }

    /// Waits until `moment`; for ever without one. Cancel safe.
    pub(crate) async fn reached(&self, moment: Option<UnixTime>) {
        let Some(moment) = moment else { return std::future::pending().await };
        if self.inner.clock.now() >= moment {
            return;
        }
        let (tell, told) = oneshot::channel();
        let key = {
            let mut waiting = self.inner.waiting.lock();
            waiting.next += 1;
            let key = (moment, waiting.next);
            waiting.told.insert(key, tell);
            key
        };
        let _forget = Forget { inner: &self.inner, key };
        // It is told by dropping the sender.
        let _ = told.await;
    }
}

/// Nobody waits any more.
struct Forget<'a> {
    inner: &'a Inner,
    key: (UnixTime, u64),
}

impl Drop for Forget<'_> {
    fn drop(&mut self) {
        self.inner.waiting.lock().told.remove(&self.key);
    }
}

#[cfg(test)]
mod tests {
    use conduit_identity::ManualClock;
    use futures::FutureExt;

    use super::*;

    #[tokio::test(start_paused = true)]
    async fn moments_are_told_in_their_order_and_forgotten_when_nobody_waits() {
        let start = UnixTime::from_secs(1_000);
        let clock = ManualClock::at(start);
        let expiry = Expiry::new(Arc::new(clock.clone()));
        tokio::spawn(expiry.clone().run(Duration::from_secs(1)));
        let mut soon = std::pin::pin!(expiry.reached(Some(start + Duration::from_secs(5))));
        let mut late = std::pin::pin!(expiry.reached(Some(start + Duration::from_secs(50))));
        assert!(soon.as_mut().now_or_never().is_none() && late.as_mut().now_or_never().is_none());
        clock.set(start + Duration::from_secs(5));
        soon.await;
        assert!(late.as_mut().now_or_never().is_none());
        {
            let mut left = std::pin::pin!(expiry.reached(Some(start + Duration::from_secs(20))));
            assert!(left.as_mut().now_or_never().is_none());
            assert_eq!(expiry.inner.waiting.lock().told.len(), 2);
        }
        clock.set(start + Duration::from_secs(60));
        late.await;
        assert!(expiry.inner.waiting.lock().told.is_empty());
        expiry.reached(Some(start)).await;
    }
}
