//! How the following of one resource goes, for readiness and metrics.

use std::{sync::Arc, time::Duration};

use parking_lot::Mutex;
use tokio::{sync::watch, time::Instant};

use crate::cause::Cause;

/// How the following of one resource goes. Cloning shares.
#[derive(Debug, Clone)]
pub struct Health {
    synced: Arc<watch::Sender<bool>>,
    followed: Arc<watch::Sender<bool>>,
    state: Arc<Mutex<State>>,
}

#[derive(Debug, Default)]
struct State {
    last_contact: Option<Instant>,
    failures: u64,
    last_error: Option<Cause>,
    failing_since: Option<Instant>,
}

impl Default for Health {
    fn default() -> Self {
        let never = || Arc::new(watch::Sender::new(false));
        Self { synced: never(), followed: never(), state: Arc::default() }
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

    /// Whether a watch has been under way since the start. Until then, what was listed may be as old as a cache of the API server.
    pub fn is_followed(&self) -> bool {
        *self.followed.borrow()
    }

    /// Waits until a watch has been under way. Cancel safe; the caller owns the deadline.
    pub async fn followed(&self) {
        drop(self.followed.subscribe().wait_for(|followed| *followed).await);
    }

    /// How long ago the API server was last heard of; none before the first time.
    pub fn age(&self) -> Option<Duration> {
        self.state.lock().last_contact.map(|at| at.elapsed())
    }

    /// How many lists and watches have failed.
    pub fn failures(&self) -> u64 {
        self.state.lock().failures
    }

    /// What is wrong, as long as it is: since a watch was last under way.
    pub fn last_error(&self) -> Option<Cause> {
        self.state.lock().last_error.clone()
    }

    /// Since when something is wrong, as long as it is.
    pub fn failing_since(&self) -> Option<Instant> {
        self.state.lock().failing_since
    }

    /// A whole list was seen. That ends no failure: who may list need not be allowed to watch.
    pub(crate) fn listed(&self) {
        self.state.lock().last_contact = Some(Instant::now());
        self.synced.send_if_modified(|synced| !std::mem::replace(synced, true));
    }

    /// A watch is under way.
    pub(super) fn watching(&self) {
        let mut state = self.state.lock();
        state.last_contact = Some(Instant::now());
        (state.last_error, state.failing_since) = (None, None);
        self.followed.send_if_modified(|followed| !std::mem::replace(followed, true));
    }

    /// Something failed.
    pub(super) fn failed(&self, cause: &Cause) {
        let mut state = self.state.lock();
        state.failures += 1;
        state.last_error = Some(cause.clone());
        state.failing_since.get_or_insert_with(Instant::now);
    }

    /// A version was forgotten by the API server, as all are after a while: counted, and nothing is wrong.
    pub(super) fn expired(&self) {
        self.state.lock().failures += 1;
    }
}
