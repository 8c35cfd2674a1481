//! The loop behind [`Follow`].

use std::{collections::BTreeMap, time::Duration};

use conduit_runtime::{Backoff, Seed};
use futures::{Stream, StreamExt};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta};
use kube::api::{ListParams, Request, WatchEvent, WatchParams};
use serde::Deserialize;
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, info, warn};

use crate::cause::{Cause, News};

use super::{Error, Event, Health, Object, ObjectKey, Source, Timing};

/// How long the server may take to end a watch after the time we asked for.
const GRACE: Duration = Duration::from_secs(5);
/// A watch that ends sooner than this counts as a failure, so that a server that ends each at once is not hammered.
const SHORT: Duration = Duration::from_secs(1);

/// One resource, followed.
pub struct Follow<K> {
    source: Source<K>,
    timing: Timing,
    health: Health,
    news: News,
    retry: Backoff,
    life: Backoff,
}

/// The API server does not know the resource (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotServed;

/// How something that did not fail came to its end.
enum Ended {
    InTime,
    TooSoon,
}

/// Where a watch can go on.
struct Position {
    version: String,
    listed: Instant,
}

impl Position {
    fn seen(&mut self, meta: &ObjectMeta) {
        if let Some(version) = &meta.resource_version {
            self.version.clone_from(version);
        }
    }
}

impl<K: Object> Follow<K> {
    /// Follows `source`, with delays drawn from `seed`.
    pub fn new(source: Source<K>, timing: Timing, seed: &Seed) -> Self {
        let seed = seed.fork(&source.path);
        Self {
            retry: Backoff::new(timing.retry_min, timing.retry_max, &seed.fork("retry")),
            life: Backoff::new(timing.watch, timing.watch, &seed.fork("life")),
            health: Health::default(),
            news: News::default(),
            source,
            timing,
        }
    }

    /// How the following goes; valid before, during and after [`Follow::run`].
    pub fn health(&self) -> Health {
        self.health.clone()
    }

    /// Reports to `health` instead of to one of its own.
    #[must_use]
    pub fn reporting_to(mut self, health: Health) -> Self {
        self.health = health;
        self
    }

    /// Tells of failures what `news` finds worth telling: shared by all that one process follows.
    #[must_use]
    pub fn telling(mut self, news: News) -> Self {
        self.news = news;
        self
    }

    /// Calls `on` with everything that happens, each object converted by `convert` at once. Never ends; dropping it
    /// stops the following.
    pub async fn run<T>(mut self, convert: impl Fn(K) -> T, mut on: impl FnMut(Event<T>)) {
        loop {
            let NotServed = self.run_while_served(&convert, &mut on).await;
            self.failed(&Cause::new("not served by this API server")).await;
        }
    }

    /// As [`Follow::run`], until a list is answered with "not found".
    pub async fn run_while_served<T>(
        &mut self,
        convert: &impl Fn(K) -> T,
        on: &mut impl FnMut(Event<T>),
    ) -> NotServed {
        let mut position = None;
        loop {
            let (next, ended) = match position.take() {
                None => self.list_once(convert, on).await,
                Some(at) => self.watch_once(at, convert, on).await,
            };
            position = next;
            match ended {
                Ok(Ended::InTime) => {}
                Ok(Ended::TooSoon) => tokio::time::sleep(self.retry.next_delay()).await,
                Err(error) if error.status() == Some(404) => return NotServed,
                Err(error) if error.status() == Some(410) => self.expired().await,
                Err(error) => self.failed(&error.cause()).await,
            }
        }
    }

    async fn list_once<T>(
        &mut self,
        convert: &impl Fn(K) -> T,
        on: &mut impl FnMut(Event<T>),
    ) -> (Option<Position>, Result<Ended, Error>) {
        match self.list(convert).await {
            Ok((objects, at)) => {
                on(Event::Listed(objects));
                self.health.listed();
                (Some(at), Ok(Ended::InTime))
            }
            Err(error) => (None, Err(error)),
        }
    }

    async fn watch_once<T>(
        &mut self,
        mut at: Position,
        convert: &impl Fn(K) -> T,
        on: &mut impl FnMut(Event<T>),
    ) -> (Option<Position>, Result<Ended, Error>) {
        let started = Instant::now();
        let watched = self.watch(&mut at, convert, on).await;
        let keeps = watched.as_ref().err().is_none_or(Error::keeps_version);
        let is_fresh = at.listed.elapsed() < self.timing.relist;
        let position = (keeps && is_fresh).then_some(at);
        let ended = watched.map(|()| if started.elapsed() < SHORT { Ended::TooSoon } else { Ended::InTime });
        (position, ended)
    }

    /// A watch is under way.
    fn watching(&self) {
        self.health.watching();
        if self.news.succeeded(&self.source.path) {
            info!(path = self.source.path, "following the cluster again");
        }
    }

    async fn expired(&mut self) {
        debug!(path = self.source.path, "the version is too old, listing again");
        self.health.expired();
        tokio::time::sleep(self.retry.next_delay()).await;
    }

    /// Waits before the next attempt.
    async fn failed(&mut self, cause: &Cause) {
        let delay = self.retry.next_delay();
        let path = self.source.path.as_str();
        self.health.failed(cause);
        if self.news.failed(path, cause) {
            warn!(path = cause.only_of(path), %cause, "cannot follow the cluster; what was seen of it stays in use");
        } else {
            debug!(path, %cause, ?delay, "still cannot follow the cluster");
        }
        tokio::time::sleep(delay).await;
    }

    async fn list<T>(&self, convert: &impl Fn(K) -> T) -> Result<(BTreeMap<ObjectKey, T>, Position), Error> {
        let listed = Instant::now();
        let mut objects = BTreeMap::new();
        let mut next = None;
        loop {
            let page = self.page(next).await?;
            for object in page.items.unwrap_or_default() {
                objects.insert(ObjectKey::of(object.meta()), convert(object));
            }
            next = page.metadata.continue_.filter(|token| !token.is_empty());
            if next.is_none() {
                let version = page.metadata.resource_version.ok_or(Error::NoVersion)?;
                return Ok((objects, Position { version, listed }));
            }
        }
    }

    async fn page(&self, continue_token: Option<String>) -> Result<Page<K>, Error> {
        let params = ListParams {
            label_selector: self.source.labels.clone(),
            field_selector: self.source.fields.clone(),
            limit: Some(self.timing.page),
            continue_token,
            ..ListParams::default()
        };
        let request = Request::new(&self.source.path).list(&params).map_err(kube::Error::BuildRequest)?;
        let answer = timeout(self.timing.answer, self.source.client.request_text(request)).await;
        read_page(&answer.map_err(|_| Error::Deadline(self.timing.answer))??)
    }

    /// One watch, from its beginning to its end. `at` moves with what is seen.
    async fn watch<T>(
        &mut self,
        at: &mut Position,
        convert: &impl Fn(K) -> T,
        on: &mut impl FnMut(Event<T>),
    ) -> Result<(), Error> {
        let life = self.life.next_delay();
        let params = WatchParams {
            label_selector: self.source.labels.clone(),
            field_selector: self.source.fields.clone(),
            // Rounded up: zero would mean the server's own choice.
            timeout: Some(u32::try_from(life.as_secs()).unwrap_or(u32::MAX).saturating_add(1)),
            ..WatchParams::default()
        };
        let request =
            Request::new(&self.source.path).watch(&params, &at.version).map_err(kube::Error::BuildRequest)?;
        let begun = timeout(self.timing.answer, self.source.client.request_events::<K>(request)).await;
        let events = begun.map_err(|_| Error::Deadline(self.timing.answer))??;
        self.watching();
        let began = Instant::now();
        let ended = self.take_all(events, began + life + GRACE, at, convert, on).await;
        // Not after a list: who may list and not watch would list without a pause.
        if began.elapsed() >= SHORT {
            self.retry.reset();
        }
        ended
    }

    async fn take_all<T>(
        &self,
        events: impl Stream<Item = Result<WatchEvent<K>, kube::Error>>,
        deadline: Instant,
        at: &mut Position,
        convert: &impl Fn(K) -> T,
        on: &mut impl FnMut(Event<T>),
    ) -> Result<(), Error> {
        let started = Instant::now();
        let mut events = std::pin::pin!(events);
        loop {
            let event = match timeout_at(deadline, events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(_) => return Err(Error::Deadline(started.elapsed())),
            };
            self.watching();
            match event {
                Ok(event) => self.take(event, at, convert, on)?,
                // One object that we cannot read hides no other; what was known of it stays.
                Err(error) if is_unreadable(&error) => {
                    let cause = Cause::from(&error);
                    warn!(path = self.source.path, %cause, "skipping an object that cannot be read");
                }
                Err(error) => return Err(error.into()),
            }
        }
    }

    fn take<T>(
        &self,
        event: WatchEvent<K>,
        at: &mut Position,
        convert: &impl Fn(K) -> T,
        on: &mut impl FnMut(Event<T>),
    ) -> Result<(), Error> {
        match event {
            WatchEvent::Added(object) | WatchEvent::Modified(object) => {
                at.seen(object.meta());
                on(Event::Applied(ObjectKey::of(object.meta()), convert(object)));
            }
            WatchEvent::Deleted(object) => {
                at.seen(object.meta());
                on(Event::Deleted(ObjectKey::of(object.meta())));
            }
            WatchEvent::Bookmark(bookmark) => at.version = bookmark.metadata.resource_version,
            WatchEvent::Error(status) => return Err(Error::Ended(status)),
        }
        Ok(())
    }
}

/// Whether one event of a watch could not be decoded. kube first tries to read such an event as a `Status`, whose fields
/// are all optional, so that it comes as an empty one.
fn is_unreadable(error: &kube::Error) -> bool {
    match error {
        kube::Error::SerdeError(_) => true,
        kube::Error::Api(status) => status.code == 0 && status.status.is_none(),
        _ => false,
    }
}

/// A page of a list. `items` may be null: Go's encoder writes an empty slice so.
#[derive(Deserialize)]
struct Page<K> {
    metadata: ListMeta,
    items: Option<Vec<K>>,
}

/// Reads a page; an object that cannot be read is left out, instead of hiding all the others.
fn read_page<K: Object>(text: &str) -> Result<Page<K>, Error> {
    if let Ok(page) = serde_json::from_str(text) {
        return Ok(page);
    }
    let page: Page<serde_json::Value> = serde_json::from_str(text)?;
    let mut items = Vec::new();
    for value in page.items.unwrap_or_default() {
        let name = value.pointer("/metadata/name").map(ToString::to_string);
        match serde_json::from_value(value) {
            Ok(object) => items.push(object),
            Err(error) => warn!(name, %error, "skipping an object that cannot be read"),
        }
    }
    Ok(Page { metadata: page.metadata, items: Some(items) })
}
