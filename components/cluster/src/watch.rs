//! Watches: the history of a kind, read from a revision on, as a stream of JSON lines.
//!
//! A watch owns no queue. It keeps the revision up to which it has reported and reads on from the store's history
//! whenever its client has taken what was sent: a client too slow for the bounded history is told 410, as if it had
//! come back late.

use std::{sync::Arc, time::Duration};

use bytes::{Bytes, BytesMut};
use futures::Stream;
use serde_json::json;
use tokio::{sync::watch, time::Instant};
use tokio_util::sync::CancellationToken;

use crate::{
    Shared,
    call::Call,
    failure::Failure,
    faults::LiveWatch,
    object::{Object, json_bytes, meta_mut},
    resources::Res,
    select::Selector,
    store::Event,
};

/// How many events one chunk of the response holds at most.
const BATCH: usize = 256;

/// A watch in progress.
struct Watching {
    shared: Arc<Shared>,
    resource: Res,
    namespace: String,
    selector: Selector,
    /// Everything up to here was reported.
    reported: u64,
    changed: watch::Receiver<u64>,
    ends: Instant,
    bookmarks: Option<Bookmarks>,
    /// What is sent before the first event.
    first: Option<Bytes>,
    live: LiveWatch,
    ended: bool,
}

struct Bookmarks {
    period: Duration,
    next: Instant,
}

/// How long before its end a watch gets a last bookmark, as the real server does.
const LAST_WORD: Duration = Duration::from_secs(2);

/// When the next bookmark is due.
fn next_bookmark(now: Instant, period: Duration, ends: Instant) -> Instant {
    let last = ends.checked_sub(LAST_WORD).filter(|last| *last > now);
    last.map_or(now + period, |last| last.min(now + period))
}

/// Starts a watch. Its errors are of the request; once the stream runs, failures are events in it.
pub(crate) fn start(
    shared: &Arc<Shared>,
    call: &Call,
    live: LiveWatch,
) -> Result<impl Stream<Item = Result<Bytes, Cut>> + Send + 'static, Failure> {
    let params = &call.params;
    let selector =
        Selector::parse(&call.resource, params.text("labelSelector"), params.text("fieldSelector"))?;
    let from = params.number("resourceVersion")?;
    let timeout = params.number("timeoutSeconds")?.filter(|seconds| *seconds > 0);
    let initial = match params.text("sendInitialEvents") {
        "" => None,
        _ if params.text("resourceVersionMatch") != "NotOlderThan" => {
            return Err(Failure::bad_request(
                "sendInitialEvents requires setting resourceVersionMatch to NotOlderThan",
            ));
        }
        _ => Some(params.is_set("sendInitialEvents")),
    };
    let mut state = shared.state.lock();
    let current = state.store.revision();
    let changed = state.store.subscribe(call.resource);
    let list = initial.unwrap_or(from.unwrap_or(0) == 0);
    let mut first = BytesMut::new();
    if list {
        for object in state.store.list(call.resource, &call.namespace) {
            if selector.matches(&object.value) {
                line(&mut first, "ADDED", &object.json());
            }
        }
        if initial == Some(true) && params.is_set("allowWatchBookmarks") {
            line(&mut first, "BOOKMARK", &bookmark(call.resource, current, true));
        }
    }
    let reported = if list || from.unwrap_or(0) == 0 { current } else { from.unwrap_or(current) };
    let failed = (reported > current).then(|| Failure::future_version(reported, current));
    drop(state);
    if let Some(failure) = &failed {
        error_line(&mut first, failure);
    }
    let now = Instant::now();
    let period = shared.config.bookmark_period;
    let ends = now + timeout.map_or(shared.config.watch_timeout, Duration::from_secs);
    let watching = Watching {
        shared: shared.clone(),
        resource: call.resource,
        namespace: call.namespace.clone(),
        selector,
        reported,
        changed,
        ends,
        bookmarks: params
            .is_set("allowWatchBookmarks")
            .then(|| Bookmarks { period, next: next_bookmark(now, period, ends) }),
        first: (!first.is_empty()).then(|| first.freeze()),
        live,
        ended: failed.is_some(),
    };
    Ok(futures::stream::unfold(watching, |mut watching| async move {
        let chunk = watching.next().await?;
        Some((chunk, watching))
    }))
}

/// A scripted fault cut the connection under a watch.
#[derive(Debug, thiserror::Error)]
#[error("the watch was cut by a scripted fault")]
pub(crate) struct Cut;

impl Watching {
    async fn next(&mut self) -> Option<Result<Bytes, Cut>> {
        let cut: CancellationToken = self.live.cut().clone();
        loop {
            let deliverable = self.live.deliverable();
            tokio::select! {
                biased;
                () = cut.cancelled() => {
                    if self.ended { return None; }
                    self.ended = true;
                    return Some(Err(Cut));
                }
                () = deliverable => {}
            }
            if let Some(first) = self.first.take() {
                return Some(Ok(first));
            }
            if self.ended {
                return None;
            }
            self.changed.mark_unchanged();
            if let Some(chunk) = self.read() {
                return Some(Ok(chunk));
            }
            let wake = self.bookmarks.as_ref().map_or(self.ends, |bookmarks| bookmarks.next.min(self.ends));
            tokio::select! {
                biased;
                () = cut.cancelled() => {}
                changed = self.changed.changed() => {
                    if changed.is_err() {
                        return None;
                    }
                }
                () = tokio::time::sleep_until(wake) => {
                    if let Some(chunk) = self.on_time() {
                        return Some(Ok(chunk));
                    }
                }
            }
        }
    }

    /// The next events, none when there is nothing to say.
    fn read(&mut self) -> Option<Bytes> {
        let mut chunk = BytesMut::new();
        while chunk.is_empty() {
            let events = self.shared.state.lock().store.events_after(self.resource, self.reported, BATCH);
            match events {
                Err(too_old) => {
                    let failure = Failure::expired(format!(
                        "too old resource version: {} ({})",
                        self.reported, too_old.oldest
                    ));
                    error_line(&mut chunk, &failure);
                    self.ended = true;
                }
                Ok(events) => {
                    let last = events.last()?;
                    self.reported = last.revision;
                    for event in &events {
                        self.report(&mut chunk, event);
                    }
                }
            }
        }
        Some(chunk.freeze())
    }

    /// Writes an event as this watch's selector sees it: entering the selection is being added, leaving it is being
    /// deleted.
    fn report(&self, chunk: &mut BytesMut, event: &Event) {
        if !self.namespace.is_empty() && event.key.namespace() != self.namespace {
            return;
        }
        let selected =
            |object: &Object| self.selector.is_everything() || self.selector.matches(&object.value);
        let was = event.before.as_deref().is_some_and(selected);
        let is = !event.removed && selected(&event.after);
        match (was, is) {
            (false, true) => line(chunk, "ADDED", &event.after.json()),
            (true, true) => line(chunk, "MODIFIED", &event.after.json()),
            (true, false) if event.removed => line(chunk, "DELETED", &event.after.json()),
            (true, false) => {
                let mut last = event.before.as_ref().map(|before| before.value.clone()).unwrap_or_default();
                meta_mut(&mut last).insert("resourceVersion".to_owned(), event.revision.to_string().into());
                line(chunk, "DELETED", &json_bytes(&last));
            }
            (false, false) => {}
        }
    }

    /// What is due by the clock: a bookmark, and the end.
    fn on_time(&mut self) -> Option<Bytes> {
        let now = Instant::now();
        self.ended = now >= self.ends;
        let bookmarks = self.bookmarks.as_mut()?;
        bookmarks.next = next_bookmark(now, bookmarks.period, self.ends);
        let revision = self.shared.state.lock().store.revision();
        // A change that came in between has to be reported first.
        if self.changed.has_changed().unwrap_or(false) {
            self.ended = false;
            return self.read();
        }
        let mut chunk = BytesMut::new();
        line(&mut chunk, "BOOKMARK", &bookmark(self.resource, revision, false));
        Some(chunk.freeze())
    }
}

/// An object of the kind with nothing but its resource version.
fn bookmark(resource: Res, revision: u64, initial_events_end: bool) -> Bytes {
    let mut meta = json!({ "resourceVersion": revision.to_string(), "creationTimestamp": null });
    if initial_events_end {
        meta["annotations"] = json!({ "k8s.io/initial-events-end": "true" });
    }
    json_bytes(&json!({ "kind": resource.kind, "apiVersion": resource.api_version(), "metadata": meta }))
}

fn line(chunk: &mut BytesMut, kind: &str, object: &[u8]) {
    chunk.reserve(kind.len() + object.len() + 24);
    chunk.extend_from_slice(b"{\"type\":\"");
    chunk.extend_from_slice(kind.as_bytes());
    chunk.extend_from_slice(b"\",\"object\":");
    chunk.extend_from_slice(object);
    chunk.extend_from_slice(b"}\n");
}

fn error_line(chunk: &mut BytesMut, failure: &Failure) {
    line(chunk, "ERROR", &json_bytes(&failure.status()));
}
