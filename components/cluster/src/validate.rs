//! What the server refuses: the rules that Conduit, its tests and its users run into.

use serde_json::Value;

use crate::{
    admit,
    failure::{Cause, Failure},
    immutable,
    names::{NAME_LIMIT, wrong_label_value, wrong_name, wrong_qualified_name},
    object::{entries, items, text},
    resources::{NameRule, Resource},
};
/// What all annotations of an object may weigh together.
const ANNOTATIONS_LIMIT: usize = 256 * 1024;
/// What a Secret or ConfigMap may hold.
const DATA_LIMIT: usize = 1024 * 1024;

/// The finalizers that need no domain in front.
const STANDARD_FINALIZERS: [&str; 3] = ["foregroundDeletion", "kubernetes", "orphan"];
const PORT_RULE: &str = "must be between 1 and 65535, inclusive";
const ADDRESS_RULE: &str = "must be a valid IP address, (e.g. 10.9.8.7 or 2001:db8::ffff)";
const KEY_RULE: &str = "a valid config key must consist of alphanumeric characters, '-', '_' or '.' (e.g. 'key.name',  or 'KEY_NAME',  or 'key-name', regex used for validation is '[-._a-zA-Z0-9]+')";

/// Checks a new object.
pub(crate) fn create(resource: &Resource, value: &Value) -> Result<(), Failure> {
    let causes = common(resource, value);
    verdict(resource, value, &causes)
}

/// Checks a replacement.
pub(crate) fn update(resource: &Resource, old: &Value, value: &Value) -> Result<(), Failure> {
    let mut causes = common(resource, value);
    immutable::check(resource, old, value, &mut causes);
    verdict(resource, value, &causes)
}

fn verdict(resource: &Resource, value: &Value, causes: &[Cause]) -> Result<(), Failure> {
    if causes.is_empty() {
        return Ok(());
    }
    Err(Failure::invalid(resource, text(value, "/metadata/name"), causes))
}

fn common(resource: &Resource, value: &Value) -> Vec<Cause> {
    let mut causes = Vec::new();
    metadata(resource, value, &mut causes);
    match resource.kind {
        "Secret" => secret(value, &mut causes),
        "ConfigMap" => config_map(value, &mut causes),
        "Pod" => pod_spec(&value["spec"], "spec", &mut causes),
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "Job" | "ReplicationController" => {
            if !matches!(resource.kind, "Job" | "ReplicationController") {
                selector(resource, value, &mut causes);
            }
            labels(&value["spec"]["template"]["metadata"], "spec.template", &mut causes);
            pod_spec(&value["spec"]["template"]["spec"], "spec.template.spec", &mut causes);
        }
        "Service" => service(value, &mut causes),
        "Endpoints" => endpoints(value, &mut causes),
        "Lease" => lease(value, &mut causes),
        _ => {}
    }
    if resource.kind == "Job" {
        job(value, &mut causes);
    }
    causes
}

fn metadata(resource: &Resource, value: &Value, causes: &mut Vec<Cause>) {
    let meta = &value["metadata"];
    let name = text(meta, "/name");
    if name.is_empty() {
        causes.push(Cause::required("metadata.name", "name or generateName is required"));
    } else if let Some(why) = wrong_name(resource.name, name) {
        causes.push(Cause::invalid("metadata.name", name, &why));
    }
    labels(meta, "", causes);
    let annotations: usize = entries(meta, "/annotations")
        .map(|(key, value)| key.len() + value.as_str().map_or(0, str::len))
        .sum();
    for (key, _) in entries(meta, "/annotations") {
        if let Some(why) = wrong_qualified_name(&key.to_lowercase()) {
            causes.push(Cause::invalid("metadata.annotations", key, &why));
        }
    }
    if annotations > ANNOTATIONS_LIMIT {
        let message = format!("Too long: must have at most {ANNOTATIONS_LIMIT} bytes");
        causes.push(Cause { reason: "FieldValueTooLong", field: "metadata.annotations".to_owned(), message });
    }
    owners(meta, causes);
    for (index, finalizer) in items(meta, "/finalizers").iter().enumerate() {
        let finalizer = finalizer.as_str().unwrap_or_default();
        let field = format!("metadata.finalizers[{index}]");
        if let Some(why) = wrong_qualified_name(finalizer) {
            causes.push(Cause::invalid(field, finalizer, &why));
        } else if !finalizer.contains('/') && !STANDARD_FINALIZERS.contains(&finalizer) {
            let why = "name is neither a standard finalizer name nor is it fully qualified";
            causes.push(Cause::invalid(field, finalizer, why));
        }
    }
}

/// `parent` is where the metadata is, empty for the object's own.
fn labels(meta: &Value, parent: &str, causes: &mut Vec<Cause>) {
    let field = if parent.is_empty() { "metadata.labels".to_owned() } else { format!("{parent}.labels") };
    for (key, value) in entries(meta, "/labels") {
        if let Some(why) = wrong_qualified_name(key) {
            causes.push(Cause::invalid(&*field, key, &why));
        }
        let value = value.as_str().unwrap_or_default();
        if let Some(why) = wrong_label_value(value) {
            causes.push(Cause::invalid(&*field, value, why.as_str()));
        }
    }
}

fn owners(meta: &Value, causes: &mut Vec<Cause>) {
    let mut controllers = Vec::new();
    let field = "metadata.ownerReferences";
    for owner in items(meta, "/ownerReferences") {
        for name in ["apiVersion", "kind", "name", "uid"] {
            if text(owner, &format!("/{name}")).is_empty() {
                let why =
                    if name == "apiVersion" { "version must not be empty" } else { "must not be empty" };
                let why = if name == "apiVersion" { why.to_owned() } else { format!("{name} {why}") };
                causes.push(Cause::invalid(format!("{field}.{name}"), "", &why));
            }
        }
        if owner["controller"] == Value::Bool(true) {
            controllers.push(text(owner, "/name"));
        }
    }
    if let [first, second, ..] = controllers.as_slice() {
        let why = format!(
            "Only one reference can have Controller set to true. Found \"true\" in references for {first} and {second}"
        );
        causes.push(Cause::invalid(field, &meta["ownerReferences"], &why));
    }
}

fn secret(value: &Value, causes: &mut Vec<Cause>) {
    data_keys(value, "data", causes);
    let needed: &[&str] = match text(value, "/type") {
        "kubernetes.io/tls" => &["tls.crt", "tls.key"],
        "kubernetes.io/dockerconfigjson" => &[".dockerconfigjson"],
        "kubernetes.io/ssh-auth" => &["ssh-privatekey"],
        "kubernetes.io/service-account-token" => {
            if text(&value["metadata"]["annotations"], "/kubernetes.io~1service-account.name").is_empty() {
                let field = "metadata.annotations[kubernetes.io/service-account.name]";
                causes.push(Cause::required(field, ""));
            }
            &[]
        }
        _ => &[],
    };
    for key in needed.iter().filter(|key| value["data"].get(**key).is_none()) {
        causes.push(Cause::required(format!("data[{key}]"), ""));
    }
    let size: usize =
        entries(value, "/data").map(|(_, data)| data.as_str().map_or(0, str::len) / 4 * 3).sum();
    too_much("data", size, causes);
}

fn config_map(value: &Value, causes: &mut Vec<Cause>) {
    data_keys(value, "data", causes);
    data_keys(value, "binaryData", causes);
    for (key, _) in entries(value, "/binaryData").filter(|(key, _)| value["data"].get(key.as_str()).is_some())
    {
        causes.push(Cause::invalid(format!("data[{key}]"), key, "duplicate of key present in binaryData"));
    }
    let size: usize = entries(value, "/data").map(|(_, data)| data.as_str().map_or(0, str::len)).sum();
    too_much("", size, causes);
}

fn too_much(field: &str, size: usize, causes: &mut Vec<Cause>) {
    if size > DATA_LIMIT {
        let message = format!("Too long: must have at most {DATA_LIMIT} bytes");
        causes.push(Cause { reason: "FieldValueTooLong", field: field.to_owned(), message });
    }
}

fn data_keys(value: &Value, field: &str, causes: &mut Vec<Cause>) {
    for (key, _) in entries(value, &format!("/{field}")) {
        let valid = key.len() <= NAME_LIMIT
            && key.chars().all(|c| c.is_ascii_alphanumeric() || "-._".contains(c))
            && !key.is_empty()
            && key != "."
            && !key.starts_with("..");
        if !valid {
            causes.push(Cause::invalid(format!("{field}[{key}]"), key, KEY_RULE));
        }
    }
}

fn pod_spec(spec: &Value, path: &str, causes: &mut Vec<Cause>) {
    let containers = items(spec, "/containers");
    if containers.is_empty() {
        causes.push(Cause::required(format!("{path}.containers"), ""));
    }
    let mut seen = Vec::new();
    for (list, containers) in [("initContainers", items(spec, "/initContainers")), ("containers", containers)]
    {
        for (index, container) in containers.iter().enumerate() {
            let at = format!("{path}.{list}[{index}]");
            let name = text(container, "/name");
            if name.is_empty() {
                causes.push(Cause::required(format!("{at}.name"), ""));
            } else if let Some(why) = wrong_name(NameRule::Label, name) {
                causes.push(Cause::invalid(format!("{at}.name"), name, &why));
            } else if seen.contains(&name) {
                let message = format!("Duplicate value: {name:?}");
                causes.push(Cause { reason: "FieldValueDuplicate", field: format!("{at}.name"), message });
            }
            seen.push(name);
            if text(container, "/image").is_empty() {
                causes.push(Cause::required(format!("{at}.image"), ""));
            }
            mounts(spec, container, &at, causes);
        }
    }
}

/// Every mount names a volume of the pod.
fn mounts(spec: &Value, container: &Value, at: &str, causes: &mut Vec<Cause>) {
    let volumes = items(spec, "/volumes");
    for (index, mount) in items(container, "/volumeMounts").iter().enumerate() {
        let name = text(mount, "/name");
        // A service account's volume is mounted by name before admission has added it.
        if !volumes.iter().any(|volume| text(volume, "/name") == name) {
            let message = format!("Not found: {name:?}");
            let field = format!("{at}.volumeMounts[{index}].name");
            causes.push(Cause { reason: "FieldValueNotFound", field, message });
        }
    }
}

fn service(value: &Value, causes: &mut Vec<Cause>) {
    let kind = text(value, "/spec/type");
    let ports = items(value, "/spec/ports");
    if ports.is_empty() && kind != "ExternalName" && text(value, "/spec/clusterIP") != "None" {
        causes.push(Cause::required("spec.ports", ""));
    }
    if kind == "ExternalName" && text(value, "/spec/externalName").is_empty() {
        causes.push(Cause::required("spec.externalName", ""));
    }
    for (index, port) in ports.iter().enumerate() {
        let at = format!("spec.ports[{index}]");
        if ports.len() > 1 && text(port, "/name").is_empty() {
            causes.push(Cause::required(format!("{at}.name"), ""));
        }
        let number = port["port"].as_i64().unwrap_or(0);
        if !(1..=65_535).contains(&number) {
            causes.push(Cause::invalid(format!("{at}.port"), number, PORT_RULE));
        }
        match &port["targetPort"] {
            Value::Number(target)
                if !target.as_i64().is_some_and(|target| (1..=65_535).contains(&target)) =>
            {
                causes.push(Cause::invalid(format!("{at}.targetPort"), target, PORT_RULE));
            }
            _ => {}
        }
    }
}

fn endpoints(value: &Value, causes: &mut Vec<Cause>) {
    for (index, subset) in items(value, "/subsets").iter().enumerate() {
        for list in ["addresses", "notReadyAddresses"] {
            for (place, address) in items(subset, &format!("/{list}")).iter().enumerate() {
                let ip = text(address, "/ip");
                if ip.parse::<std::net::IpAddr>().is_err() {
                    causes.push(Cause::invalid(
                        format!("subsets[{index}].{list}[{place}].ip"),
                        ip,
                        ADDRESS_RULE,
                    ));
                }
            }
        }
    }
}

fn lease(value: &Value, causes: &mut Vec<Cause>) {
    if let Some(seconds) = value["spec"]["leaseDurationSeconds"].as_i64().filter(|seconds| *seconds <= 0) {
        causes.push(Cause::invalid("spec.leaseDurationSeconds", seconds, "must be greater than 0"));
    }
}

fn job(value: &Value, causes: &mut Vec<Cause>) {
    let policy = text(value, "/spec/template/spec/restartPolicy");
    if !matches!(policy, "OnFailure" | "Never") {
        let why = "valid values: \"OnFailure\", \"Never\"";
        causes.push(Cause::required("spec.template.spec.restartPolicy", why));
    }
}

fn selector(resource: &Resource, value: &Value, causes: &mut Vec<Cause>) {
    let spec = &value["spec"];
    let empty = entries(spec, "/selector/matchLabels").next().is_none()
        && items(spec, "/selector/matchExpressions").is_empty();
    if empty {
        let why = format!("empty selector is invalid for {}", resource.kind.to_lowercase());
        causes.push(Cause::invalid("spec.selector", &spec["selector"], &why));
    } else if !admit::selects_own_template(spec) {
        let why = "`selector` does not match template `labels`";
        causes.push(Cause::invalid(
            "spec.template.metadata.labels",
            &spec["template"]["metadata"]["labels"],
            why,
        ));
    }
}
