//! List and watch, for ever: [`Follow`] keeps its caller told of every object of one resource, whatever happens to the
//! API server.
//!
//! A list in pages, then watches of bounded life that resume where the last one ended. The short life is what finds a
//! connection whose peer vanished without a word; resuming costs the API server nothing. What can be wrong with a
//! version (too old, from another life of etcd) ends in a new list, and a new list is made now and then in any case.
//!
//! Changes are handed to a callback, not queued: memory is bounded by what the caller keeps, and by one page.

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use conduit_runtime::{Backoff, Seed};
use futures::StreamExt;
use k8s_openapi::{
    Metadata, NamespaceResourceScope,
    apimachinery::pkg::apis::meta::v1::{ListMeta, ObjectMeta},
};
use kube::{
    Client, Resource,
    api::{ListParams, Request, WatchEvent, WatchParams},
    core::Status,
};
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::{Instant, timeout, timeout_at};
use tracing::{debug, warn};

mod health;

pub use health::Health;

/// How long the server may take to end a watch after the time we asked for.
const GRACE: Duration = Duration::from_secs(5);
/// A watch that ends sooner than this counts as a failure, so that a server that ends each at once is not hammered.
const SHORT: Duration = Duration::from_secs(1);

/// An object of the API that can be followed: everything of `k8s_openapi`, and our own reading of EndpointSlices.
pub trait Object: Clone + DeserializeOwned + Send + 'static {
    /// Its metadata.
    fn meta(&self) -> &ObjectMeta;
}

impl<K: Metadata<Ty = ObjectMeta> + Clone + DeserializeOwned + Send + 'static> Object for K {
    fn meta(&self) -> &ObjectMeta {
        self.metadata()
    }
}

/// What an object is called; the order in which objects are handed out.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ObjectKey {
    /// Its namespace, empty for what has none.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl ObjectKey {
    /// The key of `name` in `namespace`.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }

    /// The key of the object that `meta` belongs to.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self::new(meta.namespace.clone().unwrap_or_default(), meta.name.clone().unwrap_or_default())
    }
}

impl std::fmt::Display for ObjectKey {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.namespace.as_str() {
            "" => f.write_str(&self.name),
            namespace => write!(f, "{namespace}/{}", self.name),
        }
    }
}

/// What happened to the followed objects.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Event<T> {
    /// This is all there is: what is not in it is gone.
    Listed(BTreeMap<ObjectKey, T>),
    /// An object appeared or changed.
    Applied(ObjectKey, T),
    /// An object is gone.
    Deleted(ObjectKey),
}

/// Which objects to follow.
#[derive(Clone)]
pub struct Source<K> {
    client: Client,
    path: String,
    labels: Option<String>,
    fields: Option<String>,
    kind: PhantomData<fn() -> K>,
}

impl<K: Object> Source<K> {
    /// Every `K` of the cluster.
    pub fn all(client: Client) -> Self
    where
        K: Resource<DynamicType = ()>,
    {
        Self::at(client, K::url_path(&(), None))
    }

    /// Every `K` of `namespace`.
    pub fn namespaced(client: Client, namespace: &str) -> Self
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>,
    {
        Self::at(client, K::url_path(&(), Some(namespace)))
    }

    /// What is listed at `path`, "/api/v1/pods".
    pub fn at(client: Client, path: impl Into<String>) -> Self {
        Self { client, path: path.into(), labels: None, fields: None, kind: PhantomData }
    }

    /// Only objects whose labels match `selector`.
    #[must_use]
    pub fn labels(mut self, selector: impl Into<String>) -> Self {
        self.labels = Some(selector.into());
        self
    }

    /// Only objects whose fields match `selector`.
    #[must_use]
    pub fn fields(mut self, selector: impl Into<String>) -> Self {
        self.fields = Some(selector.into());
        self
    }
}

/// How patient to be.
#[derive(Debug, Clone)]
pub struct Timing {
    /// Objects per page of a list.
    pub page: u32,
    /// How long the API server may take to answer a page, and to begin a watch.
    pub answer: Duration,
    /// How long one watch lives at most; each takes between half of it and all of it.
    pub watch: Duration,
    /// How old a list may become before it is made anew.
    pub relist: Duration,
    /// The first delay after a failure.
    pub retry_min: Duration,
    /// The longest delay after failures.
    pub retry_max: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self {
            page: 500,
            answer: Duration::from_secs(15),
            watch: Duration::from_secs(30),
            relist: Duration::from_secs(30 * 60),
            retry_min: Duration::from_millis(250),
            retry_max: Duration::from_secs(10),
        }
    }
}

/// Why a list or watch failed; each is retried.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The API server answered with an error, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// The API server ended a watch with an error.
    #[error("the API server ended the watch: {0}")]
    Ended(Box<Status>),
    /// The API server did not answer.
    #[error("no answer within {0:?}")]
    Deadline(Duration),
    /// The answer to a list is not one.
    #[error("the answer to a list cannot be read")]
    Unreadable(#[from] serde_json::Error),
    /// A list without a version cannot be watched from.
    #[error("the list has no resourceVersion")]
    NoVersion,
}

impl Error {
    /// The HTTP status that the API server answered with, when it did.
    pub fn status(&self) -> Option<u16> {
        match self {
            Self::Api(kube::Error::Api(status)) | Self::Ended(status) => Some(status.code),
            _ => None,
        }
    }

    /// Whether a watch may go on from the version it had: the API server did not judge it, or was only busy.
    fn keeps_version(&self) -> bool {
        matches!(self.status(), None | Some(429 | 503))
    }
}

/// One resource, followed.
pub struct Follow<K> {
    source: Source<K>,
    timing: Timing,
    health: Health,
    retry: Backoff,
    life: Backoff,
}

/// The API server does not know the resource (any more).
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct NotServed;

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

    /// Calls `on` with everything that happens, each object converted by `convert` at once. Never ends; dropping it
    /// stops the following.
    pub async fn run<T>(mut self, convert: impl Fn(K) -> T, mut on: impl FnMut(Event<T>)) {
        loop {
            let NotServed = self.run_while_served(&convert, &mut on).await;
            let delay = self.retry.next_delay();
            warn!(path = self.source.path, ?delay, "not served by this API server, asking again");
            tokio::time::sleep(delay).await;
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
            let error = match position.take() {
                None => match self.list(convert).await {
                    Ok((objects, at)) => {
                        on(Event::Listed(objects));
                        self.succeeded(true);
                        position = Some(at);
                        continue;
                    }
                    Err(error) if error.status() == Some(404) => return NotServed,
                    Err(error) => error,
                },
                Some(mut at) => {
                    let started = Instant::now();
                    let ended = self.watch(&mut at, convert, on).await;
                    let stale = at.listed.elapsed() >= self.timing.relist;
                    match ended {
                        Ok(()) if started.elapsed() >= SHORT => {
                            self.succeeded(false);
                            position = (!stale).then_some(at);
                            continue;
                        }
                        Ok(()) => {
                            position = (!stale).then_some(at);
                            tokio::time::sleep(self.retry.next_delay()).await;
                            continue;
                        }
                        Err(error) => {
                            position = (error.keeps_version() && !stale).then_some(at);
                            error
                        }
                    }
                }
            };
            self.failed(&error).await;
        }
    }

    fn succeeded(&mut self, listed: bool) {
        self.retry.reset();
        self.health.contact(listed);
    }

    async fn failed(&mut self, error: &Error) {
        let delay = self.retry.next_delay();
        self.health.failure(error);
        if error.status() == Some(410) {
            debug!(path = self.source.path, "the version is too old, listing again");
        } else {
            let cause = std::error::Error::source(error).map(ToString::to_string);
            warn!(path = self.source.path, %error, cause, ?delay, "cannot follow the cluster, trying again");
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
        let mut events = std::pin::pin!(events);

        self.health.contact(false);
        let deadline = Instant::now() + life + GRACE;
        loop {
            let event = match timeout_at(deadline, events.next()).await {
                Ok(Some(event)) => event,
                Ok(None) => return Ok(()),
                Err(_) => return Err(Error::Deadline(life + GRACE)),
            };
            self.health.contact(false);
            match event {
                Ok(event) => self.take(event, at, convert, on)?,
                // One object that we cannot read hides no other; what was known of it stays.
                Err(error) if is_unreadable(&error) => {
                    warn!(path = self.source.path, %error, "skipping an object that cannot be read");
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

#[cfg(test)]
mod tests;
