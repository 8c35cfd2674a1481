//! Live requests, for whoever may see them.
//!
//! - `tap/matching.rs`: which requests a tap wants (pure)
//! - `tap/server.rs`: who may ask, over gRPC
//!
//! Without a tap a request costs one relaxed load. A tap never slows a request: its queue is bounded, and what does not
//! fit is lost and counted.

mod matching;
mod server;

use std::{
    collections::BTreeMap,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use conduit_proto::tap::{Event, event};
use http::{Method, StatusCode, Uri, request};
use tokio::sync::mpsc;

pub(crate) use matching::Condition;
pub(crate) use server::{Guard, serve};

use crate::{
    metrics::{Labels, Taps},
    session::{Direction, Session, TlsStatus},
};
use matching::Facts;

/// Taps at a time: one for each person who looks, and each costs every request a comparison.
const MAX_TAPS: usize = 32;

/// Where sessions offer what happens. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Tap {
    hub: Arc<Hub>,
}

#[derive(Debug)]
struct Hub {
    /// The length of `taps`, to be read without following a pointer.
    active: AtomicUsize,
    taps: ArcSwap<Vec<Arc<Active>>>,
    /// Of taps and requests alike.
    ids: AtomicU64,
    queue: usize,
    metrics: Taps,
}

/// A tap that still wants requests. Requests that it was told of hold it beyond that, until they end.
#[derive(Debug)]
struct Active {
    id: u64,
    condition: Condition,
    wanted: AtomicU32,
    events: mpsc::Sender<Event>,
}

/// The events of one tap; dropping it ends the tap.
#[derive(Debug)]
pub(crate) struct Events {
    id: u64,
    hub: Arc<Hub>,
    events: mpsc::Receiver<Event>,
}

/// There are as many taps as there may be.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{MAX_TAPS} taps are running already; try again when one has ended")]
pub(crate) struct TooMany;

impl Tap {
    /// No tap yet; each will hold up to `queue` events for its reader.
    pub(crate) fn new(queue: usize, metrics: Taps) -> Self {
        let hub = Hub {
            active: AtomicUsize::new(0),
            taps: ArcSwap::default(),
            ids: AtomicU64::new(1),
            queue: queue.max(1),
            metrics,
        };
        Self { hub: Arc::new(hub) }
    }

    /// Whether anybody taps: asked for each request.
    pub(crate) fn is_active(&self) -> bool {
        self.hub.active.load(Relaxed) > 0
    }

    /// Taps the next `wanted` requests for which `condition` holds. The events end when the last of them has.
    pub(crate) fn open(&self, wanted: u32, condition: Condition) -> Result<Events, TooMany> {
        let (sender, events) = mpsc::channel(self.hub.queue);
        let id = self.hub.ids.fetch_add(1, Relaxed);
        let active = Arc::new(Active { id, condition, wanted: AtomicU32::new(wanted), events: sender });
        let before = self.hub.change(|taps| {
            if taps.len() < MAX_TAPS {
                taps.push(Arc::clone(&active));
            }
        });
        if before.len() >= MAX_TAPS {
            return Err(TooMany);
        }
        Ok(Events { id, hub: Arc::clone(&self.hub), events })
    }

    /// Asks the taps about a request whose way is known; none when none of them wants it.
    pub(crate) fn ask(
        &self,
        asked: &Asked,
        session: &Session,
        source: &TlsStatus,
        destination: SocketAddr,
        labels: &Labels,
        dispatched: &TlsStatus,
    ) -> Option<Tapped> {
        let (direction, tls) = match session.direction() {
            Direction::Inbound => (event::Direction::Inbound, source),
            Direction::Outbound => (event::Direction::Outbound, dispatched),
        };
        let facts = Facts {
            source: session.peer().0,
            destination,
            labels,
            tls: tls.label(),
            scheme: asked.scheme(),
            method: asked.method.as_str(),
            authority: &asked.authority,
            path: asked.uri.path(),
        };
        let taps: Vec<_> = self
            .hub
            .taps
            .load()
            .iter()
            .filter(|tap| tap.condition.holds(&facts) && self.takes(tap))
            .cloned()
            .collect();
        if taps.is_empty() {
            return None;
        }
        let event = Event {
            source: facts.source.to_string(),
            destination: destination.to_string(),
            source_labels: end_labels(
                &Labels::default(),
                source,
                source.client_id().map(|id| ("client_id", id)),
            ),
            destination_labels: end_labels(
                labels,
                dispatched,
                dispatched.server_id().map(|id| ("server_id", id)),
            ),
            direction: direction.into(),
            tls: tls.label().to_owned(),
            id: self.hub.ids.fetch_add(1, Relaxed),
            event: None,
        };
        let tapped = Tapped { taps, event, metrics: self.hub.metrics.clone() };
        tapped.send(event::Event::RequestInit(asked.init()));
        Some(tapped)
    }

    /// Takes one of the requests that `tap` still wants; with the last, the tap is over for everybody else.
    fn takes(&self, tap: &Active) -> bool {
        let before = tap.wanted.fetch_update(Relaxed, Relaxed, |wanted| wanted.checked_sub(1));
        if before == Ok(1) {
            self.hub.remove(tap.id);
        }
        before.is_ok()
    }
}

impl Hub {
    fn remove(&self, id: u64) {
        self.change(|taps| taps.retain(|tap| tap.id != id));
    }

    /// Changes the taps, and tells what they were.
    fn change(&self, change: impl Fn(&mut Vec<Arc<Active>>)) -> Arc<Vec<Arc<Active>>> {
        let before = self.taps.rcu(|taps| {
            let mut taps = Vec::clone(taps);
            change(&mut taps);
            taps
        });
        let active = self.taps.load().len();
        self.active.store(active, Relaxed);
        self.metrics.active.set(i64::try_from(active).unwrap_or(i64::MAX));
        before
    }
}

impl Events {
    /// The next event; none when the last request has ended. Cancel safe.
    pub(crate) async fn next(&mut self) -> Option<Event> {
        self.events.recv().await
    }
}

impl Drop for Events {
    fn drop(&mut self) {
        self.hub.remove(self.id);
    }
}

/// What is kept of a request until its way is known.
#[derive(Debug)]
pub(crate) struct Asked {
    method: Method,
    uri: Uri,
    authority: String,
}

impl Asked {
    /// Of a request's head; `authority` is what it names as its server.
    pub(crate) fn of(head: &request::Parts, authority: &[u8]) -> Self {
        let authority = String::from_utf8_lossy(authority).into_owned();
        Self { method: head.method.clone(), uri: head.uri.clone(), authority }
    }

    fn scheme(&self) -> &str {
        self.uri.scheme_str().unwrap_or("http")
    }

    /// The query is left out: it is where applications put what must not be seen.
    fn init(&self) -> event::RequestInit {
        event::RequestInit {
            method: self.method.to_string(),
            scheme: self.scheme().to_owned(),
            authority: self.authority.clone(),
            path: self.uri.path().to_owned(),
        }
    }
}

/// A request that some taps are told of.
#[derive(Debug)]
pub(crate) struct Tapped {
    taps: Vec<Arc<Active>>,
    /// What all its events have in common.
    event: Event,
    metrics: Taps,
}

/// How the stream of a response ended, where that is more than an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Eos {
    /// With a gRPC status.
    Grpc(u32),
    /// With a reset, of which this is HTTP/2's code.
    Reset(u32),
}

impl Tapped {
    /// The response's head arrived.
    pub(crate) fn response(&self, status: StatusCode, since_request: Duration) {
        self.send(event::Event::ResponseInit(event::ResponseInit {
            since_request_init_ns: nanos(since_request),
            http_status: status.as_u16().into(),
        }));
    }

    /// It is over.
    pub(crate) fn end(
        &self,
        since_request: Duration,
        since_response: Option<Duration>,
        bytes: u64,
        eos: Option<Eos>,
    ) {
        self.send(event::Event::ResponseEnd(event::ResponseEnd {
            since_request_init_ns: nanos(since_request),
            since_response_init_ns: since_response.map_or(0, nanos),
            response_bytes: bytes,
            eos: eos.map(|eos| match eos {
                Eos::Grpc(code) => event::response_end::Eos::GrpcStatusCode(code),
                Eos::Reset(code) => event::response_end::Eos::ResetErrorCode(code),
            }),
        }));
    }

    fn send(&self, what: event::Event) {
        for tap in &self.taps {
            let event = Event { event: Some(what.clone()), ..self.event.clone() };
            if let Err(mpsc::error::TrySendError::Full(_)) = tap.events.try_send(event) {
                self.metrics.lost.inc();
            }
        }
    }
}

/// The labels of one end: what is known of it, how its connection was carried, and who it proved to be.
fn end_labels(known: &Labels, tls: &TlsStatus, identity: Option<(&str, &str)>) -> BTreeMap<String, String> {
    let carried = [("tls", Some(tls.label())), ("tls_reason", tls.reason())];
    let carried = carried.into_iter().filter_map(|(key, value)| Some((key, value?)));
    known
        .iter()
        .chain(carried)
        .chain(identity)
        .map(|(key, value)| (key.to_owned(), value.to_owned()))
        .collect()
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests;
