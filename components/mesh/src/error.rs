//! Why a mesh cannot be started or changed.

use std::{io, time::Duration};

use crate::deployment::AppError;

/// Why a mesh cannot be started or changed.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The directory for the pods' credentials cannot be made.
    #[error("cannot make a directory for the pods' credentials: {0}")]
    Directory(#[source] io::Error),
    /// No address is left for another pod.
    #[error("no address for another pod: {0}")]
    Address(#[source] io::Error),
    /// The Kubernetes API cannot listen.
    #[error("the Kubernetes API cannot listen: {0}")]
    Api(#[source] io::Error),
    /// No client for the API.
    #[error("no client for the Kubernetes API: {0}")]
    Client(#[from] conduit_k8s::client::ConnectError),
    /// The API refused an object.
    #[error("the Kubernetes API does not take {what}: {source}")]
    Refused {
        /// Which object.
        what: String,
        /// What it said.
        source: kube::Error,
    },
    /// A certificate cannot be made.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] conduit_ca::authority::Error),
    /// An object could not be written down.
    #[error("an object of ours is malformed: {0}")]
    Malformed(#[from] serde_json::Error),
    /// A part ended where it should have started.
    #[error("{part} of {pod} did not start: {reason}")]
    NotStarted {
        /// Which pod.
        pod: String,
        /// Which part of it.
        part: &'static str,
        /// Why.
        reason: AppError,
    },
    /// No pod of this name runs.
    #[error("no pod {name} runs in this mesh")]
    NoSuchPod {
        /// Which.
        name: String,
    },
    /// A part did not come up in time.
    #[error("{part} of {pod} was not ready within {deadline:?}")]
    Late {
        /// Which pod.
        pod: String,
        /// What was waited for.
        part: &'static str,
        /// How long.
        deadline: Duration,
    },
}
