//! How the following of one resource goes, for readiness and metrics.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

/// How the following of one resource goes. Cloning shares.
#[derive(Debug, Clone)]
pub struct Health {
    synced: Arc<watch::Sender<bool>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last_contact: Option<Instant>,
    failures: u64,
    last_error: Option<String>,
}

impl Default for Health {
    fn default() -> Self {
        Self { synced: Arc::new(watch::Sender::new(false)), state: Arc::default() }
    }
}

impl Health {
    /// Whether a whole list has been seen since the start.
    pub fn is_synced(&self) -> bool {
        *self.synced.borrow()
    }

    /// Waits until a whole list has been seen. Cancel safe; the caller owns the deadline.
    pub async fn synced(&self) {
        // An error would mean that the sender is gone, and we hold it.
        drop(self.synced.subscribe().wait_for(|synced| *synced).await);
    }

    /// How long ago the API server was last heard of; none before the first time.
    pub fn age(&self) -> Option<Duration> {
        self.state.lock().last_contact.map(|at| at.elapsed())
    }

    /// How many lists and watches have failed.
    pub fn failures(&self) -> u64 {
        self.state.lock().failures
    }

    /// What went wrong since the API server was last heard of.
    pub fn last_error(&self) -> Option<String> {
        self.state.lock().last_error.clone()
    }

    /// The API server was heard of. Returns what had gone wrong until then.
    pub(crate) fn contact(&self, listed: bool) -> Option<String> {
        let ended = {
            let mut state = self.state.lock();
            state.last_contact = Some(Instant::now());
            state.last_error.take()
        };
        if listed {
            self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
        }
        ended
    }

    /// Something failed. Returns whether it is the first failure since the API server was last heard of.
    pub(super) fn failure(&self, error: &super::Error) -> bool {
        let mut state = self.state.lock();
        state.failures += 1;
        state.last_error.replace(error.to_string()).is_none()
    }
}
