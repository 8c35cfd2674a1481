//! Shutting down in two phases: everybody learns of it at once, and the process ends when nobody holds it any more or
//! the deadline has come.

use std::time::Duration;

use tokio::sync::{mpsc, watch};

/// Makes the two ends of a drain.
pub fn channel() -> (Trigger, Watch) {
    let (signal, signaled) = watch::channel(false);
    let (held, released) = mpsc::channel(1);
    (Trigger { signal, released }, Watch { signaled, held })
}

/// Starts the drain and waits for its end.
#[derive(Debug)]
pub struct Trigger {
    signal: watch::Sender<bool>,
    released: mpsc::Receiver<()>,
}

impl Trigger {
    /// Tells every [`Watch`], then waits until each watch and hold is dropped, at most for `deadline`. True when
    /// everything ended by itself, false when the deadline cut something off.
    pub async fn drain(mut self, deadline: Duration) -> bool {
        self.signal.send_replace(true);
        tokio::time::timeout(deadline, self.released.recv()).await.is_ok()
    }
}

/// Learns of the drain, and holds it open as long as it lives.
#[derive(Debug, Clone)]
pub struct Watch {
    signaled: watch::Receiver<bool>,
    held: mpsc::Sender<()>,
}

impl Watch {
    /// Waits until the drain begins; a dropped [`Trigger`] is a drain too. Cancel safe.
    pub async fn signaled(&self) {
        // An error means that the trigger is gone.
        drop(self.signaled.clone().wait_for(|signaled| *signaled).await);
    }

    /// Whether the drain has begun.
    pub fn is_signaled(&self) -> bool {
        *self.signaled.borrow() || self.signaled.has_changed().is_err()
    }

    /// Keeps the drain from ending, without the ability to wait for its beginning.
    pub fn hold(&self) -> Hold {
        Hold { _held: self.held.clone() }
    }
}

/// Something that is still under way.
#[derive(Debug)]
pub struct Hold {
    _held: mpsc::Sender<()>,
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEADLINE: Duration = Duration::from_secs(10);

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_when_the_last_hold_is_released() {
        let (trigger, watch) = channel();
        let hold = watch.hold();
        let worker = tokio::spawn(async move {
            watch.signaled().await;
            drop(watch);
            tokio::time::sleep(Duration::from_secs(3)).await;
            drop(hold);
        });
        let start = tokio::time::Instant::now();
        assert!(trigger.drain(DEADLINE).await);
        assert_eq!(start.elapsed(), Duration::from_secs(3));
        worker.await.unwrap();
    }

    #[tokio::test(start_paused = true)]
    async fn a_drain_ends_at_its_deadline_and_says_so() {
        let (trigger, watch) = channel();
        let _hold = watch.hold();
        assert!(!trigger.drain(DEADLINE).await);
        assert!(watch.is_signaled());
    }

    #[tokio::test]
    async fn a_dropped_trigger_is_a_drain() {
        let (trigger, watch) = channel();
        assert!(!watch.is_signaled());
        drop(trigger);
        watch.signaled().await;
        assert!(watch.is_signaled());
    }
}
