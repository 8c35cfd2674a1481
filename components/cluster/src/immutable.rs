//! What may not change once it is there.

use serde_json::Value;

use crate::{
    failure::Cause,
    object::{items, text},
    resources::Resource,
};

/// What may never change once it is there.
pub(crate) fn check(resource: &Resource, old: &Value, value: &Value, causes: &mut Vec<Cause>) {
    late_finalizers(old, value, causes);
    let mut fixed = |pointer: &str| {
        let (was, is) = (old.pointer(pointer), value.pointer(pointer));
        if was != is {
            let field = pointer.trim_start_matches('/').replace('/', ".");
            causes.push(Cause::invalid(field, is.unwrap_or(&Value::Null), "field is immutable"));
        }
    };
    match resource.kind {
        "Secret" => fixed("/type"),
        "Deployment" | "ReplicaSet" | "DaemonSet" => fixed("/spec/selector"),
        "Job" => {
            fixed("/spec/selector");
            fixed("/spec/template");
            fixed("/spec/completions");
        }
        "EndpointSlice" => fixed("/addressType"),
        _ => {}
    }
    match resource.kind {
        "Pod" => pod_update(old, value, causes),
        "RoleBinding" | "ClusterRoleBinding" if old["roleRef"] != value["roleRef"] => {
            causes.push(Cause::invalid("roleRef", &value["roleRef"], "cannot change roleRef"));
        }
        "Service"
            if text(old, "/spec/type") != "ExternalName" && text(value, "/spec/type") != "ExternalName" =>
        {
            let (was, is) = (&old["spec"]["clusterIP"], &value["spec"]["clusterIP"]);
            if was != is {
                causes.push(Cause::invalid("spec.clusterIPs[0]", [is], "may not change once set"));
            }
        }
        "StatefulSet" => stateful_set_update(old, value, causes),
        "Secret" | "ConfigMap" if old["immutable"] == Value::Bool(true) => {
            for field in ["data", "binaryData", "immutable"] {
                if old.get(field) != value.get(field) {
                    causes.push(Cause::forbidden(field, "field is immutable when `immutable` is set"));
                }
            }
        }
        _ => {}
    }
}

/// Once somebody has asked for the deletion, nobody may put it off any further.
fn late_finalizers(old: &Value, value: &Value, causes: &mut Vec<Cause>) {
    if text(old, "/metadata/deletionTimestamp").is_empty() {
        return;
    }
    let before = items(old, "/metadata/finalizers");
    let new: Vec<_> =
        items(value, "/metadata/finalizers").iter().filter(|finalizer| !before.contains(finalizer)).collect();
    if !new.is_empty() {
        let new = new.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ");
        let why = format!(
            "no new finalizers can be added if the object is being deleted, found new finalizers []string{{{new}}}"
        );
        causes.push(Cause::forbidden("metadata.finalizers", &why));
    }
}

/// Of a pod's spec only images, deadlines and tolerations may change.
fn pod_update(old: &Value, value: &Value, causes: &mut Vec<Cause>) {
    let fixed = |pod: &Value| {
        let mut spec = pod["spec"].clone();
        for list in ["initContainers", "containers"] {
            for container in spec.get_mut(list).and_then(Value::as_array_mut).into_iter().flatten() {
                container["image"] = Value::Null;
            }
        }
        for free in ["activeDeadlineSeconds", "tolerations", "terminationGracePeriodSeconds"] {
            spec[free] = Value::Null;
        }
        // Binding to a node is the scheduler's, and comes once.
        if text(&old["spec"], "/nodeName").is_empty() {
            spec["nodeName"] = Value::Null;
        }
        spec
    };
    if fixed(old) != fixed(value) {
        let why = "pod updates may not change fields other than `spec.containers[*].image`, `spec.initContainers[*].image`, `spec.activeDeadlineSeconds` or `spec.tolerations` (only additions to existing tolerations)";
        causes.push(Cause::forbidden("spec", why));
    }
}

fn stateful_set_update(old: &Value, value: &Value, causes: &mut Vec<Cause>) {
    let fixed = |set: &Value| {
        let mut spec = set["spec"].clone();
        for free in [
            "replicas",
            "template",
            "updateStrategy",
            "minReadySeconds",
            "persistentVolumeClaimRetentionPolicy",
        ] {
            spec[free] = Value::Null;
        }
        spec
    };
    if fixed(old) != fixed(value) {
        let why = "updates to statefulset spec for fields other than 'replicas', 'template', and 'updateStrategy' are forbidden";
        causes.push(Cause::forbidden("spec", why));
    }
}
