//! Where an authority or an address leads, as the destination service tells it.
//!
//! - `discover/target.rs`: what is looked up
//! - `discover/view.rs`: what is known of a target, and how messages change it (pure)
//! - `discover/follow.rs`: one stream per target
//! - `discover/ending.rs`: whether the application has ended
//! - `discover/control.rs`: the connection that all streams share
//!
//! What was learnt outlives the destination service: a lost stream changes nothing until a new one has spoken, and one
//! that comes back knowing nothing is doubted first (see `view.rs`). Nothing here ever fails a request: a target of which
//! nothing is known is a connection that goes where it was going.

mod control;
mod ending;
mod follow;
mod target;
mod view;

use std::{
    collections::BTreeMap,
    sync::{Arc, Weak},
    time::Duration,
};

use conduit_identity::{ControlPlane, Store};
use conduit_net::Net;
use conduit_runtime::{Seed, ready::Readiness};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{Instant, sleep, timeout_at},
};
use tokio_util::task::AbortOnDropHandle;

pub(crate) use target::Target;
pub(crate) use view::{Endpoint, Endpoints, Resolution};

use crate::{config::Destination, metrics::Metrics};
use control::{Control, Link};

/// How long a target that nobody holds is still followed: the next request for it finds its answer ready.
const IDLE: Duration = Duration::from_secs(60);

/// Targets followed at most, whatever is configured: a stream each, and the service takes 1,024 on a connection.
const MAX_TARGETS: usize = 1_000;

/// What discovery needs.
pub(crate) struct Settings {
    /// The destination service.
    pub(crate) destination: Destination,
    /// The namespace in which short names are looked up.
    pub(crate) namespace: String,
    /// Whose identities are believed.
    pub(crate) control_plane: ControlPlane,
    /// Targets followed at a time.
    pub(crate) max_targets: usize,
    /// How long a handshake with the destination service may take.
    pub(crate) handshake: Duration,
}

/// Looks targets up; a target is asked for once, and its answer kept up to date while somebody holds it, and for a while
/// after. Cheap to clone; everything it started ends with the last clone.
#[derive(Clone)]
pub(crate) struct Discover {
    inner: Option<Arc<Inner>>,
}

struct Inner {
    control: Arc<Control>,
    max_targets: usize,
    metrics: Metrics,
    seed: Seed,
    slots: Mutex<BTreeMap<Target, Slot>>,
    _keep_secure: AbortOnDropHandle<()>,
}

/// A target that is followed.
struct Slot {
    resolution: watch::Sender<Resolution>,
    asked_at: Instant,
    used_at: Instant,
    _follower: AbortOnDropHandle<()>,
}

impl Discover {
    /// Discovery without a destination service: everything stays [`Resolution::Pending`].
    pub(crate) fn disabled() -> Self {
        Self { inner: None }
    }

    /// Discovery from the destination service of `settings`. The connection is opened with the first target.
    ///
    /// # Errors
    /// The service's name is none: go on with [`Discover::disabled`], and say so.
    pub(crate) fn new(
        net: Net,
        settings: Settings,
        store: Store,
        metrics: Metrics,
        readiness: Readiness,
        seed: &Seed,
    ) -> Result<Self, http::Error> {
        let seed = seed.fork("discover");
        let control = Arc::new(Control::new(net, &settings, store, metrics.clone(), readiness)?);
        let keep_secure = spawn(Arc::clone(&control).keep_secure(seed.fork("probe")));
        let inner = Arc::new(Inner {
            control,
            max_targets: settings.max_targets.min(MAX_TARGETS),
            metrics,
            seed,
            slots: Mutex::default(),
            _keep_secure: keep_secure,
        });
        // It ends by itself when the last clone is gone.
        tokio::spawn(forget_idle(Arc::downgrade(&inner)));
        Ok(Self { inner: Some(inner) })
    }

    /// What is known of `target`, now and from now on. Returns at once; the first call for a target asks for it.
    ///
    /// Beyond the number of targets that may be followed the answer stays [`Resolution::Pending`], and nobody will change
    /// it: waiting for that ends at once.
    pub(crate) fn lookup(&self, target: &Target) -> watch::Receiver<Resolution> {
        match &self.inner {
            Some(inner) => inner.slot(target).0,
            None => watch::Sender::new(Resolution::Pending).subscribe(),
        }
    }

    /// As [`Discover::lookup`], but waits for the first answer: at most `wait` after the target was first asked for, so
    /// that a service which does not answer delays a target once and not each of its requests; and not at all while the
    /// service is known to be out of reach.
    pub(crate) async fn resolve(&self, target: &Target, wait: Duration) -> watch::Receiver<Resolution> {
        let Some(inner) = &self.inner else { return self.lookup(target) };
        let (mut resolution, asked_at) = inner.slot(target);
        if matches!(*resolution.borrow(), Resolution::Pending) {
            let mut link = inner.control.link();
            let answered = async {
                tokio::select! {
                    biased;
                    _ = resolution.wait_for(|known| !matches!(known, Resolution::Pending)) => {}
                    _ = link.wait_for(|link| *link == Link::Down) => {}
                }
            };
            // Late or not, the caller reads what there is.
            drop(timeout_at(asked_at + wait, answered).await);
        }
        resolution
    }

    /// Returns when the destination service says that the application of the pod with this uid has ended; never without
    /// such a service.
    pub(crate) async fn application_ended(&self, pod_uid: String) {
        match &self.inner {
            Some(inner) => {
                let seed = inner.seed.fork("ending");
                ending::application_ended(Arc::clone(&inner.control), pod_uid, seed).await;
            }
            None => std::future::pending().await,
        }
    }
}

impl std::fmt::Debug for Discover {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let targets = self.inner.as_ref().map(|inner| inner.slots.lock().len());
        f.debug_struct("Discover").field("targets", &targets).finish()
    }
}

impl Inner {
    /// The answer about `target`, and when it was first asked for.
    fn slot(&self, target: &Target) -> (watch::Receiver<Resolution>, Instant) {
        let now = Instant::now();
        let mut slots = self.slots.lock();
        if let Some(slot) = slots.get_mut(target) {
            slot.used_at = now;
            return (slot.resolution.subscribe(), slot.asked_at);
        }
        if slots.len() >= self.max_targets && !forget_oldest(&mut slots) {
            self.metrics.discovery.declined.inc();
            return (watch::Sender::new(Resolution::Pending).subscribe(), now);
        }
        let resolution = watch::Sender::new(Resolution::Pending);
        let receiver = resolution.subscribe();
        let seed = self.seed.fork(&target.to_string());
        let follower = follow::follow(target.clone(), resolution.clone(), Arc::clone(&self.control), seed);
        slots.insert(
            target.clone(),
            Slot { resolution, asked_at: now, used_at: now, _follower: spawn(follower) },
        );
        self.metrics.discovery.targets.set(count(slots.len()));
        (receiver, now)
    }

    fn forget_idle(&self, now: Instant) {
        let mut slots = self.slots.lock();
        slots.retain(|_, slot| {
            if slot.resolution.receiver_count() > 0 {
                slot.used_at = now;
            }
            now.saturating_duration_since(slot.used_at) < IDLE
        });
        self.metrics.discovery.targets.set(count(slots.len()));
    }
}

/// Forgets the target that was used the longest ago, among those that nobody holds, or else among those of which the
/// service knows nothing: what is outside the mesh must not keep what is inside from being found. Connections that hold
/// such a target go on to where they were going.
fn forget_oldest(slots: &mut BTreeMap<Target, Slot>) -> bool {
    let oldest = |may_go: fn(&Slot) -> bool| {
        let candidates = slots.iter().filter(|(_, slot)| may_go(slot));
        candidates.min_by_key(|(_, slot)| slot.used_at).map(|(target, _)| target.clone())
    };
    let oldest = oldest(|slot| slot.resolution.receiver_count() == 0)
        .or_else(|| oldest(|slot| matches!(*slot.resolution.borrow(), Resolution::Unknown)));
    oldest.is_some_and(|target| slots.remove(&target).is_some())
}

async fn forget_idle(inner: Weak<Inner>) {
    loop {
        sleep(IDLE / 4).await;
        match inner.upgrade() {
            Some(inner) => inner.forget_idle(Instant::now()),
            None => return,
        }
    }
}

fn spawn(task: impl Future<Output = ()> + Send + 'static) -> AbortOnDropHandle<()> {
    AbortOnDropHandle::new(tokio::spawn(task))
}

fn count(len: usize) -> i64 {
    i64::try_from(len).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests;
