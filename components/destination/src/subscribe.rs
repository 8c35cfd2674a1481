//! Who wants to know what: each query that somebody subscribed to has a topic with the latest view of it.
//!
//! A topic holds one view, so a subscriber that reads slowly finds the latest state when it comes back, and nothing
//! waits for it in a queue. Views are made anew for the topics that an event concerns, all of an instant's events at
//! once. Nothing is told before the index has been filled: "unknown" would be a lie, and one that clients act on.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    pin::pin,
    sync::Arc,
    time::Duration,
};

use conduit_k8s::watch::ObjectKey;
use parking_lot::Mutex;
use tokio::sync::{Notify, watch};

use crate::{
    choice::Client,
    index::{Dirty, Index, Sizes},
    names::{Query, Target},
    table::Multi,
    view::{Step, View},
};

/// How long after one publication the next one comes at the earliest: a rollout is hundreds of events, and each view of
/// a large Service costs a walk over its endpoints.
const PAUSE: Duration = Duration::from_millis(20);

/// The index and its subscribers. Cloning shares.
#[derive(Clone)]
pub(crate) struct Topics(Arc<Shared>);

struct Shared {
    state: Mutex<State>,
    soiled: Notify,
    ends: Notify,
    /// The cluster is not followed now.
    is_stale: watch::Sender<bool>,
    max_subscriptions: usize,
}

struct State {
    index: Index,
    /// What changed since the last publication.
    dirty: Dirty,
    /// The index is filled.
    is_open: bool,
    topics: BTreeMap<Query, Topic>,
    by_service: Multi<ObjectKey, Query>,
    by_address: Multi<IpAddr, Query>,
    subscriptions: usize,
}

struct Topic {
    latest: watch::Sender<Option<Published>>,
    subscriptions: usize,
}

/// A view, and how it came about.
#[derive(Debug, Clone)]
struct Published {
    version: u64,
    view: View,
    /// From the version before to this one: what all but the slow subscribers need is made once.
    step: Option<Step>,
}

/// There are as many subscriptions as there may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("too many subscriptions")]
pub(crate) struct Full;

impl Topics {
    /// No subscribers yet; at most `max_subscriptions` at a time.
    pub(crate) fn new(index: Index, max_subscriptions: usize) -> Self {
        let state = State {
            index,
            dirty: Dirty::default(),
            is_open: false,
            topics: BTreeMap::new(),
            by_service: Multi::default(),
            by_address: Multi::default(),
            subscriptions: 0,
        };
        Self(Arc::new(Shared {
            state: Mutex::new(state),
            soiled: Notify::new(),
            ends: Notify::new(),
            is_stale: watch::Sender::new(false),
            max_subscriptions,
        }))
    }

    /// Changes the index; what that means to subscribers is published soon.
    pub(crate) fn change(&self, change: impl FnOnce(&mut Index) -> Dirty) {
        let mut state = self.0.state.lock();
        let dirty = change(&mut state.index);
        if dirty.ended {
            self.0.ends.notify_waiters();
        }
        if dirty != Dirty::default() {
            state.dirty.merge(dirty);
            self.0.soiled.notify_one();
        }
    }

    /// The index is filled: tells everybody who waits, and from now on whoever comes.
    pub(crate) fn open(&self) {
        let mut state = self.0.state.lock();
        state.is_open = true;
        let all: BTreeSet<Query> = state.topics.keys().cloned().collect();
        state.publish(all);
    }

    /// Tells everybody whether what they have been told still follows the cluster.
    pub(crate) fn set_stale(&self, is_stale: bool) {
        self.0.is_stale.send_if_modified(|before| std::mem::replace(before, is_stale) != is_stale);
    }

    /// Whether what is told does not follow the cluster now.
    pub(crate) fn is_stale(&self) -> bool {
        *self.0.is_stale.borrow()
    }

    /// Waits until what is told follows the cluster.
    pub(crate) async fn stand(&self) {
        // An error would mean that the sender is gone, and we hold it.
        drop(self.0.is_stale.subscribe().wait_for(|is_stale| !is_stale).await);
    }

    /// Publishes what changes, for ever. Dropping it stops publishing.
    pub(crate) async fn publish(&self) {
        loop {
            self.0.soiled.notified().await;
            {
                let mut state = self.0.state.lock();
                let concerned = state.concerned();
                state.publish(concerned);
            }
            tokio::time::sleep(PAUSE).await;
        }
    }

    /// Subscribes `client` to `query`.
    ///
    /// # Errors
    /// There are too many subscriptions; the client should come back later.
    pub(crate) fn subscribe(&self, query: Query, client: Option<IpAddr>) -> Result<Subscription, Full> {
        let mut state = self.0.state.lock();
        if state.subscriptions >= self.0.max_subscriptions {
            return Err(Full);
        }
        let (latest, is_stale) = (state.enter(&query), self.0.is_stale.subscribe());
        Ok(Subscription { topics: self.clone(), query, client, latest, is_stale, told: None })
    }

    /// Waits until the application of the pod with this uid has ended. Cancel safe.
    pub(crate) async fn ended(&self, uid: &str) {
        loop {
            let mut next = pin!(self.0.ends.notified());
            // From here on nothing is missed.
            next.as_mut().enable();
            if self.0.state.lock().index.has_ended(uid) {
                return;
            }
            next.await;
        }
    }

    /// What names end in.
    pub(crate) fn zone(&self) -> String {
        self.0.state.lock().index.scope().zone.clone()
    }

    /// The namespace of the control plane whose pods have identities.
    pub(crate) fn control_plane_ns(&self) -> String {
        self.0.state.lock().index.scope().control_plane.namespace.clone()
    }

    /// Open subscriptions.
    pub(crate) fn subscriptions(&self) -> usize {
        self.0.state.lock().subscriptions
    }

    /// Queries that somebody is subscribed to.
    pub(crate) fn topics(&self) -> usize {
        self.0.state.lock().topics.len()
    }

    /// How much is known.
    pub(crate) fn sizes(&self) -> Sizes {
        self.0.state.lock().index.sizes()
    }
}

impl State {
    /// The topics that the changes since the last publication concern.
    fn concerned(&mut self) -> BTreeSet<Query> {
        let dirty = std::mem::take(&mut self.dirty);
        let by_service = dirty.services.iter().flat_map(|service| self.by_service.get(service));
        let by_address = dirty.addresses.iter().flat_map(|address| self.by_address.get(address));
        by_service.chain(by_address).cloned().collect()
    }

    fn publish(&mut self, queries: BTreeSet<Query>) {
        if !self.is_open {
            return;
        }
        for query in queries {
            let Some(topic) = self.topics.get(&query) else { continue };
            topic.publish(self.index.view(&query));
        }
    }

    fn enter(&mut self, query: &Query) -> watch::Receiver<Option<Published>> {
        self.subscriptions += 1;
        if let Some(topic) = self.topics.get_mut(query) {
            topic.subscriptions += 1;
            return topic.latest.subscribe();
        }
        for candidate in &query.candidates {
            match candidate {
                Target::Service(key, _) | Target::Pod(key, ..) => self.by_service.insert(key, query),
                Target::Address(address) => self.by_address.insert(&address.ip(), query),
            }
        }
        let topic = Topic { latest: watch::Sender::new(None), subscriptions: 1 };
        if self.is_open {
            topic.publish(self.index.view(query));
        }
        let latest = topic.latest.subscribe();
        self.topics.insert(query.clone(), topic);
        latest
    }

    fn leave(&mut self, query: &Query) {
        self.subscriptions -= 1;
        let Some(topic) = self.topics.get_mut(query) else { return };
        topic.subscriptions -= 1;
        if topic.subscriptions > 0 {
            return;
        }
        self.topics.remove(query);
        for candidate in &query.candidates {
            match candidate {
                Target::Service(key, _) | Target::Pod(key, ..) => self.by_service.remove(key, query),
                Target::Address(address) => self.by_address.remove(&address.ip(), query),
            }
        }
    }
}

impl Topic {
    fn publish(&self, view: View) {
        self.latest.send_if_modified(|latest| {
            let next = match &*latest {
                Some(published) if published.view == view => return false,
                Some(published) => {
                    Published { version: published.version + 1, step: published.view.step_to(&view), view }
                }
                None => Published { version: 0, step: None, view },
            };
            *latest = Some(next);
            true
        });
    }
}

/// One client's interest in one query; dropping it ends it.
pub(crate) struct Subscription {
    topics: Topics,
    query: Query,
    client: Option<IpAddr>,
    latest: watch::Receiver<Option<Published>>,
    is_stale: watch::Receiver<bool>,
    told: Option<Told>,
}

/// What a client is told at a time.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Word {
    /// What changes in its view; none when nothing does.
    pub(crate) step: Option<Step>,
    /// The view does not follow the cluster now.
    pub(crate) is_stale: bool,
}

/// What a client has been told.
struct Told {
    is_stale: bool,
    version: u64,
    view: View,
    /// It was told all of the view.
    whole: bool,
}

impl Subscription {
    /// Waits until there is something to tell the client, and tells it: first everything, then what changed since.
    /// Never ends. Cancel safe.
    pub(crate) async fn next(&mut self) -> Word {
        loop {
            if let Some(word) = self.word() {
                return word;
            }
            let changed = tokio::select! {
                changed = self.latest.changed() => changed,
                changed = self.is_stale.changed() => changed,
            };
            if changed.is_err() {
                // The senders live as long as the topic, and the topic as long as this subscription.
                std::future::pending::<()>().await;
            }
        }
    }

    fn word(&mut self) -> Option<Word> {
        let is_stale = *self.is_stale.borrow_and_update();
        let before = self.told.as_ref().map(|told| told.is_stale);
        let step = self.step(is_stale);
        let is_news = step.is_some() || before.is_some_and(|before| before != is_stale);
        is_news.then_some(Word { step, is_stale })
    }

    fn step(&mut self, is_stale: bool) -> Option<Step> {
        let published = self.latest.borrow_and_update().clone()?;
        let Published { version, view, step } = published;
        let (view, whole) = match self.chosen(&view) {
            Some(chosen) => (chosen, false),
            None => (view, true),
        };
        let step = match &self.told {
            None => Some(view.first()),
            Some(told) if told.version == version => None,
            Some(told) if whole && told.whole && told.version + 1 == version => step,
            Some(told) => told.view.step_to(&view),
        };
        self.told = Some(Told { is_stale, version, view, whole });
        step
    }

    /// What of `view` this client may choose from; none when that is all of it.
    fn chosen(&self, view: &View) -> Option<View> {
        let View::Known(known) = view else { return None };
        let choice = known.choice;
        if !choice.by_client && !choice.on_node {
            return None;
        }
        let ip = self.client;
        let node = ip.and_then(|ip| self.topics.0.state.lock().index.node_of(ip));
        Some(known.for_client(&Client { ip, node }))
    }
}

impl Drop for Subscription {
    fn drop(&mut self) {
        self.topics.0.state.lock().leave(&self.query);
    }
}

#[cfg(test)]
mod tests;
