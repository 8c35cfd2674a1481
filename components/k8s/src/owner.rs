//! From a pod to the workload it belongs to, and what its annotations say of it. Pure: a function of the pod and of the
//! objects between it and its workload.
//!
//! The owner chain goes from the pod over the controllers that Conduit can inject (ReplicaSet to Deployment, Job to
//! CronJob, the others directly) and ends where a controller of another kind owns the last of them, an operator's
//! custom resource for instance. Which element of the chain is *the* workload is what injection wrote into the pod: a
//! ReplicaSet that was injected itself keeps its own name though a Deployment adopted it. What was written is believed
//! only if the chain has it, because anybody who may create a pod may write labels.

use std::{collections::BTreeMap, fmt};

use conduit_identity::{Workload, WorkloadKind};
use k8s_openapi::{
    api::{apps::v1::ReplicaSet, batch::v1::Job, core::v1::Pod},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use crate::{
    cache::Snapshot,
    owned::{
        ANNOTATION_OWNER, ANNOTATION_TLS, LABEL_CONTROL_PLANE_NS, PROXY_CONTAINER, TLS_OPTIONAL,
        parse_owner_annotation,
    },
    watch::ObjectKey,
};

/// No chain of the API's own controllers is longer; a longer one is a loop that somebody wrote by hand.
const LONGEST_CHAIN: usize = 4;

/// Whether the pod has a proxy that belongs to the control plane in `control_plane_ns`.
pub fn is_meshed(pod: &Pod, control_plane_ns: &str) -> bool {
    label(&pod.metadata, LABEL_CONTROL_PLANE_NS) == Some(control_plane_ns) && has_proxy(pod)
}

/// Whether the pod was injected with TLS, by whichever control plane.
pub fn injected_tls(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    let tls = annotations.and_then(|annotations| annotations.get(ANNOTATION_TLS));
    tls.is_some_and(|tls| tls == TLS_OPTIONAL) && has_proxy(pod)
}

/// The proxy may be an ordinary container, or an init container that keeps running (a native sidecar).
fn has_proxy(pod: &Pod) -> bool {
    pod.spec.as_ref().is_some_and(|spec| {
        let init = spec.init_containers.iter().flatten();
        spec.containers.iter().chain(init).any(|container| container.name == PROXY_CONTAINER)
    })
}

/// Whose pod it is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Owner {
    /// The workload that injection named and the owner chain confirms; for a pod in which nothing is written, the end
    /// of its chain.
    Confirmed(Workload),
    /// What injection named is not in the pod's owner chain: a label that was copied, or written by hand.
    Mismatch {
        /// What is written in the pod.
        claimed: Vec<Claim>,
        /// The end of its owner chain.
        actual: Workload,
    },
    /// An object of the chain has not been seen (yet).
    Pending {
        /// Which.
        missing: Workload,
    },
}

impl Owner {
    /// The workload, when it is certain.
    pub fn confirmed(&self) -> Option<&Workload> {
        match self {
            Self::Confirmed(workload) => Some(workload),
            Self::Mismatch { .. } | Self::Pending { .. } => None,
        }
    }

    /// The workload the pod really belongs to, as far as it is known: what metrics and tables call it.
    pub fn actual(&self) -> &Workload {
        match self {
            Self::Confirmed(workload) | Self::Mismatch { actual: workload, .. } => workload,
            Self::Pending { missing } => missing,
        }
    }
}

impl fmt::Display for Owner {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Confirmed(workload) => workload.fmt(f),
            Self::Mismatch { claimed, actual } => {
                f.write_str("injected for ")?;
                for (index, claim) in claimed.iter().enumerate() {
                    write!(f, "{}{claim}", if index == 0 { "" } else { " and " })?;
                }
                write!(f, " but owned by {actual}")
            }
            Self::Pending { missing } => write!(f, "{missing} has not been seen yet"),
        }
    }
}

/// What injection wrote into a pod about its workload.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Claim {
    /// The workload's kind.
    pub kind: WorkloadKind,
    /// Its name as a label value: the name itself, or its hash form.
    pub label_value: String,
}

impl Claim {
    fn is(&self, workload: &Workload) -> bool {
        self.kind == workload.kind && self.label_value == workload.label_value()
    }
}

impl fmt::Display for Claim {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.kind.as_str(), self.label_value)
    }
}

/// What an object between a pod and its workload says of its own controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Owned {
    /// The object's uid.
    pub uid: String,
    /// Its controller.
    pub controller: Option<Controller>,
}

/// A reference to a controller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Controller {
    /// Its kind, none when it is not one that Conduit injects.
    pub kind: Option<WorkloadKind>,
    /// Its name, in the namespace of what it controls.
    pub name: String,
    /// Its uid.
    pub uid: String,
}

impl Owned {
    /// What `meta` says.
    pub fn of(meta: &ObjectMeta) -> Self {
        Self { uid: meta.uid.clone().unwrap_or_default(), controller: Controller::of(meta) }
    }
}

impl Controller {
    /// The controller that `meta` names.
    pub fn of(meta: &ObjectMeta) -> Option<Self> {
        let references = meta.owner_references.iter().flatten();
        let reference = references.into_iter().find(|reference| reference.controller == Some(true))?;
        let group = reference.api_version.split_once('/').map_or("", |(group, _)| group);
        // "extensions" is where Deployments and ReplicaSets of old clusters live.
        let known = matches!(group, "" | "apps" | "batch" | "extensions");
        Some(Self {
            kind: WorkloadKind::from_kubernetes(&reference.kind).filter(|_| known),
            name: reference.name.clone(),
            uid: reference.uid.clone(),
        })
    }
}

/// Knows the objects between pods and their workloads.
pub trait Owners {
    /// What is known of the ReplicaSet or Job (`kind`) called `key`; none when it has not been seen.
    fn owned(&self, kind: WorkloadKind, key: &ObjectKey) -> Option<Owned>;
}

/// The objects between pods and their workloads, kept by whoever follows them.
#[derive(Debug, Clone, Default)]
pub struct OwnerIndex {
    /// What is known of ReplicaSets.
    pub replica_sets: BTreeMap<ObjectKey, Owned>,
    /// What is known of Jobs.
    pub jobs: BTreeMap<ObjectKey, Owned>,
}

impl Owners for OwnerIndex {
    fn owned(&self, kind: WorkloadKind, key: &ObjectKey) -> Option<Owned> {
        match kind {
            WorkloadKind::ReplicaSet => self.replica_sets.get(key).cloned(),
            WorkloadKind::Job => self.jobs.get(key).cloned(),
            _ => None,
        }
    }
}

/// The same, as snapshots of caches.
#[derive(Debug, Clone)]
pub struct OwnerSnapshots {
    /// ReplicaSets.
    pub replica_sets: Snapshot<ReplicaSet>,
    /// Jobs.
    pub jobs: Snapshot<Job>,
}

impl Owners for OwnerSnapshots {
    fn owned(&self, kind: WorkloadKind, key: &ObjectKey) -> Option<Owned> {
        match kind {
            WorkloadKind::ReplicaSet => self.replica_sets.get(key).map(|object| Owned::of(&object.metadata)),
            WorkloadKind::Job => self.jobs.get(key).map(|object| Owned::of(&object.metadata)),
            _ => None,
        }
    }
}

/// The workload of the pod that `pod` is the metadata of.
pub fn owner(pod: &ObjectMeta, owners: &impl Owners) -> Owner {
    let key = ObjectKey::of(pod);
    let claimed = claims(pod);
    let is_claimed = |link: &Workload| claimed.iter().any(|claim| claim.is(link));
    let mut link = Workload { namespace: key.namespace, kind: WorkloadKind::Pod, name: key.name };
    let mut controller = Controller::of(pod);
    for _ in 0..LONGEST_CHAIN {
        if is_claimed(&link) {
            return Owner::Confirmed(link);
        }
        let Some(Controller { kind: Some(kind), name, uid }) = controller else { break };
        link = Workload { kind, name, ..link };
        controller = match kind {
            WorkloadKind::ReplicaSet | WorkloadKind::Job if !is_claimed(&link) => {
                let seen = owners.owned(kind, &ObjectKey::new(&link.namespace, &link.name));
                // Another uid is another life of the same name: what we know is not of the pod's owner.
                match seen.filter(|seen| seen.uid == uid) {
                    Some(seen) => seen.controller,
                    None => return Owner::Pending { missing: link },
                }
            }
            _ => None,
        };
    }
    match claimed.is_empty() {
        true => Owner::Confirmed(link),
        false => Owner::Mismatch { claimed, actual: link },
    }
}

/// What injection wrote: the annotation, which has the name in full, or else the labels.
fn claims(pod: &ObjectMeta) -> Vec<Claim> {
    let namespace = pod.namespace.as_deref().unwrap_or_default();
    let annotation = pod.annotations.as_ref().and_then(|annotations| annotations.get(ANNOTATION_OWNER));
    if let Some(workload) = annotation.and_then(|value| parse_owner_annotation(value, namespace)) {
        return vec![Claim { kind: workload.kind, label_value: workload.label_value() }];
    }
    let labels = WorkloadKind::ALL.into_iter().filter_map(|kind| {
        let label_value = label(pod, kind.proxy_label()?)?.to_owned();
        Some(Claim { kind, label_value })
    });
    labels.collect()
}

fn label<'a>(meta: &'a ObjectMeta, name: &str) -> Option<&'a str> {
    meta.labels.as_ref()?.get(name).map(String::as_str)
}

#[cfg(test)]
mod tests;
