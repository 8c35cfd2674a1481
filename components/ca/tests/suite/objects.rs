//! Pods and what owns them, as a cluster would have them.

use std::collections::BTreeMap;

use conduit_identity::{Workload, WorkloadKind};
use conduit_k8s::owned::{
    ANNOTATION_OWNER, ANNOTATION_TLS, LABEL_COMPONENT, LABEL_CONTROL_PLANE_NS, PROXY_CONTAINER,
    owner_annotation,
};
use k8s_openapi::{
    api::{
        apps::v1::ReplicaSet,
        batch::v1::Job,
        core::v1::{Container, Pod, PodSpec, PodStatus},
    },
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

/// A pod that `conduit inject --tls=optional` made of one that `owner` controls.
pub(crate) fn pod(namespace: &str, name: &str, owner: Option<OwnerReference>) -> Pod {
    let container = |name: &str| Container { name: name.into(), ..Container::default() };
    Pod {
        metadata: ObjectMeta {
            labels: Some(BTreeMap::from([(LABEL_CONTROL_PLANE_NS.into(), "conduit".into())])),
            annotations: Some(BTreeMap::from([(ANNOTATION_TLS.into(), "optional".into())])),
            ..meta(namespace, name, owner)
        },
        spec: Some(PodSpec {
            containers: vec![container(PROXY_CONTAINER), container("app")],
            ..PodSpec::default()
        }),
        status: Some(PodStatus { phase: Some("Running".into()), ..PodStatus::default() }),
    }
}

/// A pod of the control plane's own `component`.
pub(crate) fn component_pod(component: &str, owner: OwnerReference) -> Pod {
    let mut pod = pod("conduit", &format!("{component}-1"), Some(owner));
    pod.metadata.labels = Some(BTreeMap::from([(LABEL_COMPONENT.into(), component.into())]));
    pod.spec = Some(PodSpec { containers: Vec::new(), ..PodSpec::default() });
    pod
}

/// As injection notes what it injected.
pub(crate) fn claiming(mut pod: Pod, kind: WorkloadKind, name: &str) -> Pod {
    let namespace = pod.metadata.namespace.clone().unwrap();
    let workload = Workload { namespace, kind, name: name.into() };
    let annotations = pod.metadata.annotations.get_or_insert_default();
    annotations.insert(ANNOTATION_OWNER.into(), owner_annotation(&workload));
    pod
}

pub(crate) fn replica_set(namespace: &str, name: &str, owner: Option<OwnerReference>) -> ReplicaSet {
    ReplicaSet { metadata: meta(namespace, name, owner), ..ReplicaSet::default() }
}

pub(crate) fn job(namespace: &str, name: &str, owner: Option<OwnerReference>) -> Job {
    Job { metadata: meta(namespace, name, owner), ..Job::default() }
}

/// A reference to the controller `name`; its uid is made of both, unless told otherwise by [`with_uid`].
pub(crate) fn controlled_by(kind: WorkloadKind, name: &str) -> OwnerReference {
    let api_version = match kind {
        WorkloadKind::Job | WorkloadKind::CronJob => "batch/v1",
        WorkloadKind::Pod | WorkloadKind::ReplicationController => "v1",
        _ => "apps/v1",
    };
    OwnerReference {
        api_version: api_version.into(),
        kind: kind.kubernetes().into(),
        name: name.into(),
        uid: uid(name),
        controller: Some(true),
        block_owner_deletion: Some(true),
    }
}

pub(crate) fn with_uid(owner: OwnerReference, uid: &str) -> OwnerReference {
    OwnerReference { uid: uid.into(), ..owner }
}

pub(crate) fn uid(name: &str) -> String {
    format!("uid-of-{name}")
}

fn meta(namespace: &str, name: &str, owner: Option<OwnerReference>) -> ObjectMeta {
    ObjectMeta {
        namespace: Some(namespace.into()),
        name: Some(name.into()),
        uid: Some(uid(name)),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}
