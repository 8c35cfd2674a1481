//! List and watch, for ever: [`Follow`] (`watch/follow.rs`) keeps its caller told of every object of one resource,
//! whatever happens to the API server. Here is what it is told with.
//!
//! A list in pages, then watches of bounded life that resume where the last one ended. The short life is what finds a
//! connection whose peer vanished without a word; resuming costs the API server nothing. What can be wrong with a
//! version (too old, from another life of etcd) ends in a new list, and a new list is made now and then in any case.
//!
//! Changes are handed to a callback, not queued: memory is bounded by what the caller keeps, and by one page.

use std::{collections::BTreeMap, marker::PhantomData, time::Duration};

use k8s_openapi::{Metadata, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Client, Resource, core::Status};
use serde::de::DeserializeOwned;

use crate::cause::Cause;

mod follow;
mod health;

pub use follow::{Follow, NotServed};
pub use health::Health;

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

    /// What to tell of it.
    fn cause(&self) -> Cause {
        match self {
            Self::Api(error) => error.into(),
            Self::Ended(status) => Cause::declined(status),
            Self::Deadline(_) => Cause::no_server(self),
            Self::Unreadable(_) | Self::NoVersion => Cause::new(self),
        }
    }

    /// Whether a watch may go on from the version it had: the API server did not judge it, or was only busy.
    fn keeps_version(&self) -> bool {
        matches!(self.status(), None | Some(429 | 503))
    }
}

#[cfg(test)]
mod tests;
