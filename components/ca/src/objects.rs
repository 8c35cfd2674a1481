//! The objects the authority writes, and the marks by which it knows its own.
//!
//! Everything carries `app.kubernetes.io/managed-by: conduit` and `conduit.io/control-plane-ns: <namespace>`: what does
//! not, or carries another control plane's, is never written to. Labels and annotations that others add are kept.

use std::collections::BTreeMap;

use conduit_identity::{ControlPlane, Workload, WorkloadKind};
use conduit_k8s::{
    owned::{
        ANNOTATION_CREATED_BY, ANNOTATION_OWNER, BUNDLE_KEY, COMPONENT_CA, LABEL_COMPONENT,
        LABEL_CONTROL_PLANE_NS, LABEL_MANAGED_BY, MANAGED_BY, ROOT_SECRET, SECRET_CA_KEY, SECRET_CERT_KEY,
        SECRET_PRIVATE_KEY, SECRET_TYPE, owner_annotation,
    },
    watch::ObjectKey,
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Secret},
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, OwnerReference},
};

use crate::{
    authority::Leaf,
    state::{State, Unreadable},
    wanted::Wanted,
};

/// Key of the state in [`ROOT_SECRET`].
const STATE_KEY: &str = "authority.json";

/// Which objects are ours, as a selector for lists and watches.
pub fn selector(control_plane_ns: &str) -> String {
    format!("{LABEL_MANAGED_BY}={MANAGED_BY},{LABEL_CONTROL_PLANE_NS}={control_plane_ns}")
}

/// Whether the object of `meta` carries the marks of the control plane in `control_plane_ns`.
pub fn belongs_to(meta: &ObjectMeta, control_plane_ns: &str) -> bool {
    let label = |name: &str| meta.labels.as_ref().and_then(|labels| labels.get(name)).map(String::as_str);
    label(LABEL_MANAGED_BY) == Some(MANAGED_BY) && label(LABEL_CONTROL_PLANE_NS) == Some(control_plane_ns)
}

/// The uid of the workload that the Secret of `meta` belongs to, when it belongs to exactly one.
pub fn owner_uid(meta: &ObjectMeta) -> Option<&String> {
    match meta.owner_references.as_deref() {
        Some([owner]) => Some(&owner.uid),
        _ => None,
    }
}

/// The Secret that holds the authority's own state.
pub fn root_key(control_plane: &ControlPlane) -> ObjectKey {
    ObjectKey::new(&control_plane.namespace, ROOT_SECRET)
}

/// That Secret with `state`, on top of `before`.
pub fn root(state: &State, control_plane: &ControlPlane, before: Option<&Secret>) -> Secret {
    let mut metadata = meta(&root_key(control_plane), control_plane, before.map(|secret| &secret.metadata));
    metadata.labels.get_or_insert_default().insert(LABEL_COMPONENT.to_owned(), COMPONENT_CA.to_owned());
    Secret {
        metadata,
        type_: Some("Opaque".to_owned()),
        data: Some(BTreeMap::from([(STATE_KEY.to_owned(), ByteString(state.to_json()))])),
        ..Secret::default()
    }
}

/// The state that `secret` holds.
///
/// # Errors
/// It holds none that can be read.
pub fn read_root(secret: &Secret) -> Result<State, Unreadable> {
    let json = secret.data.as_ref().and_then(|data| data.get(STATE_KEY));
    State::from_json(&json.ok_or_else(|| Unreadable(format!("it has no {STATE_KEY}")))?.0)
}

/// The ConfigMap `key` with the trust bundle `pem`, on top of `before`.
pub fn bundle(
    key: &ObjectKey,
    pem: &str,
    control_plane: &ControlPlane,
    before: Option<&ConfigMap>,
) -> ConfigMap {
    ConfigMap {
        metadata: meta(key, control_plane, before.map(|map| &map.metadata)),
        data: Some(BTreeMap::from([(BUNDLE_KEY.to_owned(), pem.to_owned())])),
        ..ConfigMap::default()
    }
}

/// The Secret `key` with `leaf` for `wanted`, on top of `before`. Its `ca.crt` is the trust bundle at the moment of
/// issuing, for readers other than our proxies, which trust the ConfigMap.
pub fn leaf(
    key: &ObjectKey,
    leaf: &Leaf,
    bundle: &str,
    wanted: &Wanted,
    control_plane: &ControlPlane,
    before: Option<&Secret>,
) -> Secret {
    let mut metadata = meta(key, control_plane, before.map(|secret| &secret.metadata));
    let annotations = metadata.annotations.get_or_insert_default();
    annotations.insert(ANNOTATION_OWNER.to_owned(), owner_annotation(&wanted.workload));
    metadata.owner_references = Some(vec![owner_reference(&wanted.workload, &wanted.uid)]);
    let data = [
        (SECRET_CERT_KEY, leaf.chain.clone()),
        (SECRET_PRIVATE_KEY, leaf.key.reveal().to_owned()),
        (SECRET_CA_KEY, bundle.to_owned()),
    ];
    let encoded = data.map(|(name, text)| (name.to_owned(), ByteString(text.into_bytes())));
    Secret {
        metadata,
        type_: Some(SECRET_TYPE.to_owned()),
        data: Some(BTreeMap::from(encoded)),
        ..Secret::default()
    }
}

/// Ties a Secret to its workload, so that it is deleted with it. It never blocks that deletion: `blockOwnerDeletion`
/// would, and where admission checks it, it takes the right to finalise the owner.
fn owner_reference(workload: &Workload, uid: &str) -> OwnerReference {
    OwnerReference {
        api_version: api_version(workload.kind).to_owned(),
        kind: workload.kind.kubernetes().to_owned(),
        name: workload.name.clone(),
        uid: uid.to_owned(),
        controller: None,
        block_owner_deletion: Some(false),
    }
}

fn api_version(kind: WorkloadKind) -> &'static str {
    match kind {
        WorkloadKind::Deployment
        | WorkloadKind::ReplicaSet
        | WorkloadKind::StatefulSet
        | WorkloadKind::DaemonSet => "apps/v1",
        WorkloadKind::Job | WorkloadKind::CronJob => "batch/v1",
        WorkloadKind::Pod | WorkloadKind::ReplicationController => "v1",
    }
}

/// Name, marks, what others added, and the version that was seen: a write on top of another one fails.
fn meta(key: &ObjectKey, control_plane: &ControlPlane, before: Option<&ObjectMeta>) -> ObjectMeta {
    let mut labels = before.and_then(|meta| meta.labels.clone()).unwrap_or_default();
    labels.insert(LABEL_MANAGED_BY.to_owned(), MANAGED_BY.to_owned());
    labels.insert(LABEL_CONTROL_PLANE_NS.to_owned(), control_plane.namespace.clone());
    let mut annotations = before.and_then(|meta| meta.annotations.clone()).unwrap_or_default();
    let created_by = concat!("conduit/ca ", env!("CARGO_PKG_VERSION"));
    annotations.insert(ANNOTATION_CREATED_BY.to_owned(), created_by.to_owned());
    ObjectMeta {
        namespace: Some(key.namespace.clone()),
        name: Some(key.name.clone()),
        labels: Some(labels),
        annotations: Some(annotations),
        resource_version: before.and_then(|meta| meta.resource_version.clone()),
        uid: before.and_then(|meta| meta.uid.clone()),
        finalizers: before.and_then(|meta| meta.finalizers.clone()),
        ..ObjectMeta::default()
    }
}
