//! Live requests: one stream of what the proxies of many pods tell.
//!
//! - `tap/request.rs`: what can be asked, and the condition the proxies are given (pure)
//! - `tap/pod.rs`: one pod's part
//! - `tap/rate.rs`: how many requests are told of (pure)
//! - `tap/event.rs`: what is told, as JSON
//!
//! Paths and authorities of encrypted requests are worth protecting: a proxy tells them to observe only, over mutual TLS
//! in which both prove who they are, and observe tells those whom the API server lets in: see `authorize.rs`. A pod that
//! cannot be tapped is told of, not skipped.

use std::{collections::BTreeMap, sync::Arc};

use axum::http::StatusCode;
use conduit_identity::Store;
use conduit_net::Net;
use conduit_runtime::{Backoff, Seed};
use parking_lot::Mutex;
use prometheus_client::metrics::counter::Counter;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc, watch},
    task::{AbortHandle, JoinSet},
    time::{Duration, Instant},
};

use crate::{
    Metrics,
    inventory::{Inventory, Pod},
    metrics::Held,
    problem::Problem,
    samples::PodName,
};

pub mod event;
mod pod;
mod rate;
mod request;

use event::{PodError, TapEvent};
use pod::PodTap;
use rate::Rate;
#[cfg(test)]
pub(crate) use request::PARAMETERS;
pub(crate) use request::TapQuery;

/// Taps at a time: each costs every request of the tapped pods a comparison.
const MAX_TAPS: usize = 16;
/// Pods of one tap.
const MAX_PODS: usize = 200;
/// Events that wait for the reader; then the proxies wait, and drop what they cannot hold.
const QUEUE: usize = 256;

/// Opens taps. Cloning shares.
#[derive(Clone)]
pub(crate) struct Taps {
    net: Net,
    store: Store,
    seed: Seed,
    inventory: watch::Receiver<Arc<Inventory>>,
    permits: Arc<Semaphore>,
    metrics: Metrics,
}

/// Something that a tap tells.
#[derive(Debug)]
pub(crate) enum Item {
    Event(Box<TapEvent>),
    Error(PodError),
}

/// An open tap; dropping it ends it.
pub(crate) struct Open {
    items: mpsc::Receiver<Item>,
    _supervisor: JoinSet<()>,
    _permit: OwnedSemaphorePermit,
    events: Counter,
    _counted: Held,
}

impl Open {
    /// What is told next. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Item> {
        let item = self.items.recv().await;
        if let Some(Item::Event(_)) = &item {
            self.events.inc();
        }
        item
    }
}

impl Taps {
    pub(crate) fn new(
        net: Net,
        store: Store,
        seed: Seed,
        inventory: watch::Receiver<Arc<Inventory>>,
        metrics: Metrics,
    ) -> Self {
        Self { net, store, seed, inventory, permits: Arc::new(Semaphore::new(MAX_TAPS)), metrics }
    }

    /// Begins a tap.
    ///
    /// # Errors
    /// There is nothing that could be tapped, or no means to do it.
    pub(crate) fn open(&self, query: TapQuery) -> Result<Open, Problem> {
        self.must_be_possible(&query)?;
        let permit = self.permits.clone().try_acquire_owned().map_err(|_| {
            let detail = format!("{MAX_TAPS} taps are open already; end one, or try again later");
            Problem::new(StatusCode::TOO_MANY_REQUESTS, "too many taps", detail)
        })?;
        let (sender, items) = mpsc::channel(QUEUE);
        let mut supervisor = JoinSet::new();
        supervisor.spawn(self.clone().supervise(query, sender));
        let (events, counted) = (self.metrics.events.clone(), Held::new(&self.metrics.taps));
        Ok(Open { items, _supervisor: supervisor, _permit: permit, events, _counted: counted })
    }

    fn must_be_possible(&self, query: &TapQuery) -> Result<(), Problem> {
        if let Err(reason) = self.store.current() {
            let detail = format!(
                "observe holds no usable certificate ({}), and proxies tell of requests over mutual TLS only; \
                 install Conduit with --tls=optional, and see what the CA logs",
                reason.label()
            );
            return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "tap is unavailable", detail));
        }
        let pods = query.pods(&self.inventory.borrow());
        let target = &query.target;
        let name = target
            .name
            .as_deref()
            .map_or_else(|| target.kind.to_string(), |name| format!("{}/{name}", target.kind));
        if pods.is_empty() {
            let place =
                target.namespace.as_ref().map_or_else(String::new, |n| format!(" in the namespace {n}"));
            let labels = if query.selector.is_some() { " with such labels" } else { "" };
            return Err(Problem::not_found(
                "type",
                &name,
                format!("there is no running pod of {name}{place}{labels}"),
            ));
        }
        if !pods.iter().any(|pod| pod.identity.is_some()) {
            let detail = match pods.iter().any(|pod| pod.meshed) {
                true => {
                    "none of its pods was injected with --tls=optional, and tap answers over mutual TLS only"
                }
                false => "none of its pods has a proxy; add one with `conduit inject --tls=optional`",
            };
            return Err(Problem::not_found("type", &name, detail));
        }
        Ok(())
    }

    /// Taps each pod of the query as long as it runs, the ones that come later included.
    async fn supervise(mut self, query: TapQuery, items: mpsc::Sender<Item>) {
        let shared = Arc::new(Shared::new(query.max_rps, &self.seed));
        let mut tasks = JoinSet::new();
        let mut tapped: BTreeMap<String, AbortHandle> = BTreeMap::new();
        let mut number = 0;
        let mut is_told = false;
        loop {
            let inventory = self.inventory.borrow_and_update().clone();
            let pods = query.pods(&inventory);
            tapped.retain(|uid, task| {
                let runs = pods.iter().any(|pod| pod.uid == *uid);
                if !runs {
                    task.abort();
                }
                runs
            });
            let missing: Vec<_> = pods.into_iter().filter(|pod| !tapped.contains_key(&pod.uid)).collect();
            let room = MAX_PODS - tapped.len().min(MAX_PODS);
            if let Some(pod) = missing.get(room)
                && !is_told
            {
                is_told = items.send(Item::Error(beyond(pod, missing.len() - room))).await.is_ok();
            }
            for pod in missing.into_iter().take(room) {
                let seed = self.seed.fork(&pod.uid);
                let task = PodTap {
                    net: self.net.clone(),
                    store: self.store.clone(),
                    number,
                    condition: query.condition(&inventory),
                    batch: query.batch(),
                    shared: shared.clone(),
                    items: items.clone(),
                    retry: Backoff::new(Duration::from_secs(1), Duration::from_secs(15), &seed),
                    seed,
                    pod: pod.name.clone(),
                    inventory: self.inventory.clone(),
                };
                number += 1;
                tapped.insert(pod.uid.clone(), tasks.spawn(task.run()));
            }
            tokio::select! {
                changed = self.inventory.changed() => if changed.is_err() { return },
                // Reaps what ended.
                Some(_) = tasks.join_next(), if !tasks.is_empty() => {}
                () = items.closed() => return,
            }
        }
    }
}

/// What is told when a tap has more pods than it may: of the first of them, and how many there are.
fn beyond(pod: &Pod, count: usize) -> PodError {
    let PodName { namespace, name } = pod.name.clone();
    let error = format!("{count} pods are over the limit of {MAX_PODS} for one tap; tap a smaller resource");
    PodError { namespace, pod: name, error }
}

/// What the pods of one tap have in common.
pub(crate) struct Shared {
    rate: Mutex<Rate>,
    start: Instant,
}

impl Shared {
    fn new(max_rps: f64, seed: &Seed) -> Self {
        let rng = seed.fork("rate").rng();
        Self { rate: Mutex::new(Rate::new(max_rps, rng)), start: Instant::now() }
    }

    /// Whether one more request may be told of.
    pub(crate) fn admits(&self) -> bool {
        self.rate.lock().admits(self.start.elapsed())
    }
}
