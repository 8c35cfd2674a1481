//! Carrying out one write against the API server.
//!
//! Every write is conditional: a creation fails if the object exists, a replacement if it has changed since it was seen.
//! Whoever lost such a race looks again.

use std::time::Duration;

use conduit_k8s::{cause::Cause, owned::FIELD_MANAGER, watch::ObjectKey};
use k8s_openapi::{Metadata, NamespaceResourceScope, apimachinery::pkg::apis::meta::v1::ObjectMeta};
use kube::{Api, Client, Resource, api::PostParams};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use crate::objects::belongs_to;

/// How long the API server may take. Longer is no use: the next look would want to write again.
const DEADLINE: Duration = Duration::from_secs(15);

/// What came of a write.
#[derive(Debug)]
pub(crate) enum Applied<K> {
    /// It is done; the object as it is now, and the version it replaced.
    Written {
        /// The version before, none when it was made.
        before: Option<String>,
        /// The object.
        object: K,
    },
    /// Somebody was faster; look again.
    Stale,
    /// An object of this name exists and is not ours.
    Foreign,
    /// It failed.
    Failed(Cause),
}

/// Why a write failed.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Error {
    /// The API server refused, or could not be reached.
    #[error(transparent)]
    Api(#[from] kube::Error),
    /// It did not answer.
    #[error("no answer within {DEADLINE:?}")]
    Deadline,
}

/// Creates or replaces `object`, which names the version it replaces.
pub(crate) async fn apply<K>(client: Client, control_plane_ns: String, object: K) -> Applied<K>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Metadata<Ty = ObjectMeta>
        + Serialize
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    let key = ObjectKey::of(object.metadata());
    let before = object.metadata().resource_version.clone();
    let api: Api<K> = Api::namespaced(client, &key.namespace);
    let params = PostParams { field_manager: Some(FIELD_MANAGER.to_owned()), ..PostParams::default() };
    let write = async {
        match &before {
            None => api.create(&params, &object).await,
            Some(_) => api.replace(&key.name, &params, &object).await,
        }
    };
    match within(write).await {
        Ok(object) => Applied::Written { before, object },
        Err(error) => match (status(&error), &before) {
            // It exists, and we did not see it: it lacks our marks, or the watch is behind.
            (Some(409), None) => match found_foreign(&api, &control_plane_ns, &key).await {
                Ok(true) => Applied::Foreign,
                Ok(false) => Applied::Stale,
                Err(error) => Applied::Failed(error.cause()),
            },
            // It changed, or is gone.
            (Some(404 | 409), Some(_)) => Applied::Stale,
            _ => Applied::Failed(error.cause()),
        },
    }
}

/// Whether an object `key` exists that does not carry our marks.
pub(crate) async fn is_foreign<K>(
    client: Client,
    control_plane_ns: &str,
    key: &ObjectKey,
) -> Result<bool, Error>
where
    K: Resource<Scope = NamespaceResourceScope, DynamicType = ()>
        + Metadata<Ty = ObjectMeta>
        + DeserializeOwned
        + Clone
        + std::fmt::Debug,
{
    found_foreign::<K>(&Api::namespaced(client, &key.namespace), control_plane_ns, key).await
}

async fn found_foreign<K>(api: &Api<K>, control_plane_ns: &str, key: &ObjectKey) -> Result<bool, Error>
where
    K: Metadata<Ty = ObjectMeta> + DeserializeOwned + Clone + std::fmt::Debug,
{
    let found = within(api.get_opt(&key.name)).await?;
    Ok(found.is_some_and(|found| !belongs_to(found.metadata(), control_plane_ns)))
}

async fn within<T>(call: impl Future<Output = Result<T, kube::Error>>) -> Result<T, Error> {
    timeout(DEADLINE, call).await.map_err(|_| Error::Deadline)?.map_err(Error::Api)
}

impl Error {
    fn cause(&self) -> Cause {
        match self {
            Self::Api(error) => error.into(),
            Self::Deadline => Cause::no_server(self),
        }
    }
}

fn status(error: &Error) -> Option<u16> {
    match error {
        Error::Api(kube::Error::Api(status)) => Some(status.code),
        _ => None,
    }
}
