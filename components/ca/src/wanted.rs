//! Who is to have a certificate: pure, from pods and what is known of their owners.
//!
//! A workload gets one when a pod of it is meshed by our control plane and was injected with TLS, and the pod's owner
//! chain confirms the workload that injection wrote into it. Pods that have ended, or whose owners have not been seen
//! yet, ask for nothing.
//!
//! The control plane's own parts that terminate TLS themselves carry no proxy. They are the pods in its namespace with
//! the label `conduit.io/control-plane-component: <name>` and the annotation `conduit.io/tls: optional` (both written by
//! `conduit install` into their pod templates) that belong to the Deployment of that very name; their workload
//! is [`ControlPlane::component`].

use std::{cmp::Reverse, collections::BTreeMap};

use conduit_identity::{ControlPlane, Identity, Workload, WorkloadKind};
use conduit_k8s::{
    injected_tls, is_meshed,
    owned::{ANNOTATION_TLS, LABEL_COMPONENT, TLS_OPTIONAL},
    owner::{Claim, Controller, Owner, Owners, owner},
    watch::ObjectKey,
};
use k8s_openapi::api::core::v1::Pod;

/// One workload that is to have a certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Wanted {
    /// The workload.
    pub workload: Workload,
    /// Its name in certificates.
    pub identity: Identity,
    /// The uid of the workload's object, which owns the Secret.
    pub uid: String,
}

/// A pod that asks for the certificate of a workload it does not belong to.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Mismatch {
    /// The pod.
    pub pod: ObjectKey,
    /// What is written in it and what is true, for people.
    pub text: String,
}

/// Every Secret that is wanted, by its key, and every pod that is refused.
pub fn wanted<'a>(
    pods: impl Iterator<Item = &'a Pod>,
    components: impl Iterator<Item = &'a Pod>,
    owners: &impl Owners,
    control_plane: &ControlPlane,
) -> (BTreeMap<ObjectKey, Wanted>, Vec<Mismatch>) {
    let meshed = pods
        .filter(|pod| is_meshed(pod, &control_plane.namespace) && injected_tls(pod) && is_alive(pod))
        .map(|pod| (pod, owner(&pod.metadata, owners)));
    let own = components
        .filter(|pod| is_alive(pod) && asks_for_tls(pod) && in_namespace(pod, &control_plane.namespace))
        .map(|pod| (pod, component_owner(pod, owners, control_plane)));

    let mut found: BTreeMap<ObjectKey, (Preference, Wanted)> = BTreeMap::new();
    let mut mismatches = Vec::new();
    for (pod, owner) in meshed.chain(own) {
        match owner {
            Owner::Confirmed(workload) => {
                let Some(uid) = uid_of(pod, &workload, owners) else { continue };
                let key = ObjectKey::new(&workload.namespace, workload.secret_name());
                let identity = Identity::of(&workload, control_plane);
                let candidate = (Preference::of(pod), Wanted { workload, identity, uid });
                match found.get(&key) {
                    Some((kept, _)) if *kept >= candidate.0 => {}
                    _ => drop(found.insert(key, candidate)),
                }
            }
            mismatch @ Owner::Mismatch { .. } => {
                let pod = ObjectKey::of(&pod.metadata);
                mismatches.push(Mismatch { pod, text: mismatch.to_string() });
            }
            Owner::Pending { .. } => {}
        }
    }
    (found.into_iter().map(|(key, (_, wanted))| (key, wanted)).collect(), mismatches)
}

/// Which of a workload's pods knows best who owns it: while a workload is deleted and made again under the same name,
/// pods of both lives exist for a moment.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
struct Preference {
    stays: bool,
    created_s: i64,
    name: Reverse<String>,
}

impl Preference {
    fn of(pod: &Pod) -> Self {
        let meta = &pod.metadata;
        Self {
            stays: meta.deletion_timestamp.is_none(),
            created_s: meta.creation_timestamp.as_ref().map_or(0, |created| created.0.as_second()),
            name: Reverse(meta.name.clone().unwrap_or_default()),
        }
    }
}

fn is_alive(pod: &Pod) -> bool {
    let phase = pod.status.as_ref().and_then(|status| status.phase.as_deref());
    !matches!(phase, Some("Succeeded" | "Failed"))
}

fn asks_for_tls(pod: &Pod) -> bool {
    let annotations = pod.metadata.annotations.as_ref();
    annotations.and_then(|annotations| annotations.get(ANNOTATION_TLS)).is_some_and(|tls| tls == TLS_OPTIONAL)
}

fn in_namespace(pod: &Pod, namespace: &str) -> bool {
    pod.metadata.namespace.as_deref() == Some(namespace)
}

/// The owner of a pod of the control plane, which must be the Deployment that its component label names.
fn component_owner(pod: &Pod, owners: &impl Owners, control_plane: &ControlPlane) -> Owner {
    let name = pod.metadata.labels.as_ref().and_then(|labels| labels.get(LABEL_COMPONENT));
    let component = control_plane.component(name.map_or("", String::as_str));
    match owner(&pod.metadata, owners) {
        Owner::Confirmed(actual) if actual != component => {
            let claim = Claim { kind: component.kind, label_value: component.label_value() };
            Owner::Mismatch { claimed: vec![claim], actual }
        }
        other => other,
    }
}

/// The uid of `workload`, which the owner chain of `pod` leads to.
fn uid_of(pod: &Pod, workload: &Workload, owners: &impl Owners) -> Option<String> {
    if workload.kind == WorkloadKind::Pod {
        return pod.metadata.uid.clone();
    }
    let mut controller = Controller::of(&pod.metadata);
    // As long as the chain that led to the workload: ReplicaSet or Job, then its controller.
    for _ in 0..2 {
        let Controller { kind, name, uid } = controller?;
        if kind == Some(workload.kind) && name == workload.name {
            return Some(uid);
        }
        controller = owners.owned(kind?, &ObjectKey::new(&workload.namespace, name))?.controller;
    }
    None
}
