//! Carrying out a plan: makes what is to be written, sends it, and keeps what the answers tell.

use std::{borrow::Cow, collections::BTreeMap, sync::Arc, time::Duration};

use conduit_identity::{Clock, ControlPlane};
use conduit_k8s::{
    cache::Snapshot,
    cause::{Cause, News},
    watch::ObjectKey,
};
use futures::StreamExt;
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::Client;
use tokio::time::Instant;
use tracing::{debug, error, info, warn};

use crate::{
    apply::{Applied, apply, is_foreign},
    authority::{self, Authority, Signer},
    bundle,
    metrics::{Metrics, Operation},
    objects,
    overlay::Overlay,
    pace::Pace,
    reconcile::Write,
    rotation::Step,
    state::State,
};

/// Writes between two looks: what is deleted while thousands of certificates are issued is not left behind for long.
const BATCH: usize = 512;

/// How often a foreign object is looked at again, and how many of them between two looks at everything else.
const FOREIGN_AGAIN: Duration = Duration::from_secs(30);
const FOREIGN_AT_ONCE: usize = 8;

/// What writes are based on: the cluster as it was seen.
pub(crate) struct Basis {
    /// The stored state, or what is remembered of it.
    pub(crate) state: Option<State>,
    pub(crate) secrets: Snapshot<Secret>,
    pub(crate) bundles: Snapshot<ConfigMap>,
}

/// Writes.
pub(crate) struct Writer {
    pub(crate) client: Client,
    pub(crate) control_plane: ControlPlane,
    pub(crate) concurrency: usize,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
    pub(crate) authority: Authority,
    pub(crate) pace: Pace,
    pub(crate) secrets: Overlay<Secret>,
    pub(crate) bundles: Overlay<ConfigMap>,
    /// Secrets of our names that are somebody else's, and when each is looked at again.
    pub(crate) foreign: BTreeMap<ObjectKey, Instant>,
    /// Which failures of writes are worth telling.
    pub(crate) news: News,
}

/// How far a plan was carried out.
pub(crate) enum Progress {
    /// Something was sent: look again.
    Sent,
    /// Nothing may be sent yet: the first write may be at this moment, if there is any.
    Nothing(Option<Instant>),
}

/// The authority's own Secret cannot be used, or not be written because it is somebody else's.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Blocked {
    #[error(transparent)]
    Unusable(#[from] authority::Error),
    #[error("the Secret {0} exists and is not this control plane's")]
    Foreign(ObjectKey),
}

impl Writer {
    /// Sends what of `writes` may be sent now, in their order, several at a time.
    pub(crate) async fn write(&mut self, basis: &Basis, writes: &[Write]) -> Result<Progress, Blocked> {
        self.pace.tidy();
        let (mut now, mut first) = (Vec::new(), None);
        for write in writes {
            match self.pace.allows(&self.key_of(write)) {
                Ok(()) => now.push(write.clone()),
                Err(later) => first = first.into_iter().chain([later]).min(),
            }
        }
        if now.is_empty() {
            return Ok(Progress::Nothing(first));
        }
        // A change of the authority's own state goes alone, so that what depends on it is based on it. While it cannot
        // be written, everything else goes on as before.
        let alone = matches!(now.first(), Some(Write::Root(_)));
        now.truncate(if alone { 1 } else { BATCH });
        self.send(basis, now).await?;
        Ok(Progress::Sent)
    }

    /// Finds out whether what was foreign is gone: it carries none of our marks, so no watch tells.
    pub(crate) async fn look_at_foreign(&mut self) {
        let now = Instant::now();
        let due = self.foreign.iter().filter(|(_, next)| **next <= now).map(|(key, _)| key.clone());
        for key in due.take(FOREIGN_AT_ONCE).collect::<Vec<_>>() {
            match is_foreign::<Secret>(self.client.clone(), &self.control_plane.namespace, &key).await {
                Ok(false) => drop(self.foreign.remove(&key)),
                Ok(true) | Err(_) => drop(self.foreign.insert(key, now + FOREIGN_AGAIN)),
            }
        }
    }

    async fn send(&mut self, basis: &Basis, writes: Vec<Write>) -> Result<(), Blocked> {
        let pem = basis.state.as_ref().map(bundle::of).unwrap_or_default();
        let signer = match &basis.state {
            Some(state) => self.authority.signer(state)?,
            None => None,
        };
        for write in &writes {
            let key = self.key_of(write).into_owned();
            self.pace.attempted(&key);
        }
        let (client, namespace) = (self.client.clone(), self.control_plane.namespace.clone());
        let concurrency = self.concurrency.max(1);
        // Keys are made as writes get their turn, so that at most `concurrency` of them are in memory.
        let sending = writes.into_iter().filter_map(|write| {
            let object = self.prepare(&write, basis, signer.as_ref(), &pem)?;
            let (client, namespace) = (client.clone(), namespace.clone());
            Some(async move { (write, object.apply(client, namespace).await) })
        });
        let outcomes: Vec<_> = futures::stream::iter(sending).buffer_unordered(concurrency).collect().await;
        outcomes.into_iter().try_for_each(|(write, outcome)| self.settle(&write, outcome))
    }

    fn prepare(
        &mut self,
        write: &Write,
        basis: &Basis,
        signer: Option<&Signer>,
        pem: &str,
    ) -> Option<Object> {
        let (now, control_plane) = (self.clock.now(), &self.control_plane);
        let secret = |key: &ObjectKey| basis.secrets.get(key).map(AsRef::as_ref);
        let made = match write {
            Write::Root(step) => {
                let next = self.authority.step(step, basis.state.as_ref(), now);
                let before = secret(&objects::root_key(control_plane));
                next.map(|next| Object::Secret(objects::root(&next, control_plane, before)))
            }
            Write::Bundle { key, pem } => {
                let before = basis.bundles.get(key).map(AsRef::as_ref);
                Ok(Object::Bundle(objects::bundle(key, pem, control_plane, before)))
            }
            Write::Leaf { key, wanted, .. } => {
                let uri = wanted.workload.spiffe(control_plane);
                let leaf = self.authority.leaf(signer?, wanted.identity.as_str(), &uri, now);
                let object = |leaf| objects::leaf(key, &leaf, pem, wanted, control_plane, secret(key));
                leaf.map(|leaf| Object::Secret(object(leaf)))
            }
        };
        made.inspect_err(|problem| {
            self.metrics.failed(Operation::Sign);
            error!(%problem, ?write, "cannot make a certificate");
        })
        .ok()
    }

    fn settle(&mut self, write: &Write, outcome: Outcome) -> Result<(), Blocked> {
        match outcome {
            Outcome::Secret(Applied::Written { before, object }) => {
                self.secrets.note(before, object);
                self.written(write);
            }
            Outcome::Bundle(Applied::Written { before, object }) => {
                self.bundles.note(before, object);
                self.written(write);
            }
            Outcome::Secret(Applied::Foreign) => {
                let key = self.key_of(write).into_owned();
                if matches!(write, Write::Root(_)) {
                    return Err(Blocked::Foreign(key));
                }
                self.foreign.insert(key, Instant::now() + FOREIGN_AGAIN);
            }
            // The next look sees what was in the way; a foreign bundle too, because all of that name are watched.
            Outcome::Secret(Applied::Stale) | Outcome::Bundle(Applied::Stale | Applied::Foreign) => {}
            Outcome::Secret(Applied::Failed(cause)) | Outcome::Bundle(Applied::Failed(cause)) => {
                self.failed(write, cause);
            }
        }
        Ok(())
    }

    fn failed(&mut self, write: &Write, cause: Cause) {
        let (operation, key) = (operation(write), self.key_of(write));
        self.metrics.failed(operation);
        // Thousands of workloads have the same reason.
        if self.news.failed(operation.label(), &cause) {
            warn!(%key, %cause, "a write failed, it and others like it will be tried again");
        } else {
            debug!(%key, %cause, "a write failed");
        }
    }

    fn written(&mut self, write: &Write) {
        let operation = operation(write).label();
        if self.news.succeeded(operation) {
            info!(operation, "writes are carried out again");
        }
        match write {
            Write::Root(step) => {
                // The next step may follow at once.
                let key = self.key_of(write).into_owned();
                self.pace.forget(&key);
                info!(secret = %key, step = label(step), "authority changed");
            }
            Write::Bundle { key, .. } => {
                self.metrics.bundle_written();
                info!(config_map = %key, "trust bundle written");
            }
            Write::Leaf { key, wanted, reason } => {
                self.metrics.issued(*reason);
                info!(secret = %key, identity = %wanted.identity, reason = reason.label(), "certificate issued");
            }
        }
    }

    fn key_of<'a>(&self, write: &'a Write) -> Cow<'a, ObjectKey> {
        match write {
            Write::Root(_) => Cow::Owned(objects::root_key(&self.control_plane)),
            Write::Bundle { key, .. } | Write::Leaf { key, .. } => Cow::Borrowed(key),
        }
    }
}

/// A write, ready to be sent.
enum Object {
    Secret(Secret),
    Bundle(ConfigMap),
}

enum Outcome {
    Secret(Applied<Secret>),
    Bundle(Applied<ConfigMap>),
}

impl Object {
    async fn apply(self, client: Client, control_plane_ns: String) -> Outcome {
        match self {
            Self::Secret(secret) => Outcome::Secret(apply(client, control_plane_ns, secret).await),
            Self::Bundle(map) => Outcome::Bundle(apply(client, control_plane_ns, map).await),
        }
    }
}

const fn operation(write: &Write) -> Operation {
    match write {
        Write::Root(_) => Operation::WriteRoot,
        Write::Bundle { .. } => Operation::WriteBundle,
        Write::Leaf { .. } => Operation::WriteLeaf,
    }
}

const fn label(step: &Step) -> &'static str {
    match step {
        Step::Create { .. } => "first root made",
        Step::Restore => "deleted state restored",
        Step::Publish => "newest root is in every bundle",
        Step::Issue { .. } => "issuer made",
        Step::Rotate => "new root made",
        Step::Forget { .. } => "old root forgotten",
    }
}
