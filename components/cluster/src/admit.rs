//! What the server makes of an object before it is checked: what the caller may not set is taken out, what it left out
//! is filled in. Defaults are those a client could miss; scheduling and storage fields stay as they come.

use serde_json::{Map, Value, json};

use crate::{
    base64,
    failure::Failure,
    object::{child_mut, fields_mut, items, meta_mut, take, text},
    resources::Resource,
};

/// Prepares a new object.
pub(crate) fn create(resource: &Resource, value: &mut Value) -> Result<(), Failure> {
    if resource.status {
        take(fields_mut(value), "status");
        match resource.kind {
            "Pod" => value["status"] = json!({ "phase": "Pending", "qosClass": "BestEffort" }),
            "Namespace" => value["status"] = json!({ "phase": "Active" }),
            "Service" => value["status"] = json!({ "loadBalancer": {} }),
            _ => {}
        }
    }
    if resource.kind == "Job" {
        own_job_pods(value);
    }
    common(resource, value)
}

/// Prepares a replacement: what the addressed subresource does not cover stays as it was.
pub(crate) fn update(
    resource: &Resource,
    subresource: &str,
    old: &Value,
    value: &mut Value,
) -> Result<(), Failure> {
    let keep = |value: &mut Value, field: &str| match old.get(field) {
        Some(kept) => value[field] = kept.clone(),
        None => drop(take(fields_mut(value), field)),
    };
    match subresource {
        "status" => {
            keep(value, "spec");
            match old.pointer("/metadata/ownerReferences") {
                Some(owners) => drop(meta_mut(value).insert("ownerReferences".to_owned(), owners.clone())),
                None => drop(take(meta_mut(value), "ownerReferences")),
            }
        }
        "finalize" => keep(value, "status"),
        _ => {
            if resource.status {
                keep(value, "status");
            }
            // A namespace's finalizers have a subresource of their own.
            if resource.kind == "Namespace" {
                keep(value, "spec");
            }
        }
    }
    common(resource, value)
}

fn common(resource: &Resource, value: &mut Value) -> Result<(), Failure> {
    match resource.kind {
        "Secret" => secret(value)?,
        "Namespace" => namespace(value),
        "Pod" => pod_spec(child_mut(value, "spec")),
        "Service" => service(value),
        "Endpoints" => endpoints(value),
        // What was empty in Go is null in JSON; clients of the beta have no typed decoder that would hide it.
        "EndpointSlice" if resource.version == "v1beta1" => {
            for name in ["endpoints", "ports"] {
                if value[name].as_array().is_none_or(Vec::is_empty) {
                    value[name] = Value::Null;
                }
            }
        }
        "Deployment" | "ReplicaSet" | "StatefulSet" | "DaemonSet" | "ReplicationController" | "Job" => {
            if resource.kind == "ReplicationController"
                && let Some(labels) = value.pointer("/spec/template/metadata/labels").cloned()
            {
                default(meta_mut(value), "labels", labels);
            }
            workload(resource.kind, child_mut(value, "spec"));
        }
        "CronJob" => cron_job(child_mut(value, "spec")),
        _ => {}
    }
    Ok(())
}

/// Gives a field its value if it has none.
pub(crate) fn default(fields: &mut Map<String, Value>, name: &str, value: impl Into<Value>) {
    if fields.get(name).is_none_or(Value::is_null) {
        fields.insert(name.to_owned(), value.into());
    }
}

fn each<'a>(
    fields: &'a mut Map<String, Value>,
    name: &str,
) -> impl Iterator<Item = &'a mut Map<String, Value>> {
    fields.get_mut(name).and_then(Value::as_array_mut).into_iter().flatten().filter_map(Value::as_object_mut)
}

/// `stringData` is for writing only: it goes into `data`, over what is there.
fn secret(value: &mut Value) -> Result<(), Failure> {
    let fields = fields_mut(value);
    default(fields, "type", "Opaque");
    let plain = take(fields, "stringData").unwrap_or_default();
    if let Value::Object(plain) = plain {
        let data = child_mut(value, "data");
        for (name, text) in plain {
            let Some(text) = text.as_str() else {
                return Err(Failure::bad_request(format!("stringData.{name} of a Secret is not a string")));
            };
            data.insert(name, base64::encode(text.as_bytes()).into());
        }
    }
    Ok(())
}

fn namespace(value: &mut Value) {
    let name = text(value, "/metadata/name").to_owned();
    let deleting = !text(value, "/metadata/deletionTimestamp").is_empty();
    let meta = meta_mut(value);
    let labels = fields_mut(meta.entry("labels").or_insert(Value::Null));
    labels.insert("kubernetes.io/metadata.name".to_owned(), name.into());
    let spec = child_mut(value, "spec");
    let kept = spec.get("finalizers").and_then(Value::as_array).cloned().unwrap_or_default();
    if !kept.contains(&"kubernetes".into()) && !deleting {
        spec.insert("finalizers".to_owned(), kept.into_iter().chain(["kubernetes".into()]).collect());
    }
}

fn endpoints(value: &mut Value) {
    for subset in each(fields_mut(value), "subsets") {
        for port in each(subset, "ports") {
            default(port, "protocol", "TCP");
        }
    }
}

fn service(value: &mut Value) {
    let spec = child_mut(value, "spec");
    default(spec, "type", "ClusterIP");
    default(spec, "sessionAffinity", "None");
    let external = spec.get("type").is_some_and(|kind| kind == "ExternalName");
    if !external {
        default(spec, "internalTrafficPolicy", "Cluster");
    }
    for port in each(spec, "ports") {
        default(port, "protocol", "TCP");
        let number = port.get("port").cloned().unwrap_or_default();
        if port.get("targetPort").is_none_or(|target| target.is_null() || *target == 0 || *target == "") {
            port.insert("targetPort".to_owned(), number);
        }
    }
}

fn workload(kind: &str, spec: &mut Map<String, Value>) {
    match kind {
        "Deployment" => {
            default(spec, "replicas", 1);
            default(spec, "revisionHistoryLimit", 10);
            default(spec, "progressDeadlineSeconds", 600);
            let strategy = fields_mut(spec.entry("strategy").or_insert(Value::Null));
            default(strategy, "type", "RollingUpdate");
            if strategy.get("type").is_some_and(|kind| kind == "RollingUpdate") {
                let rolling = fields_mut(strategy.entry("rollingUpdate").or_insert(Value::Null));
                default(rolling, "maxUnavailable", "25%");
                default(rolling, "maxSurge", "25%");
            }
        }
        "StatefulSet" => {
            default(spec, "replicas", 1);
            default(spec, "revisionHistoryLimit", 10);
            default(spec, "podManagementPolicy", "OrderedReady");
            default(
                spec,
                "updateStrategy",
                json!({ "type": "RollingUpdate", "rollingUpdate": { "partition": 0 } }),
            );
        }
        "DaemonSet" => {
            default(spec, "revisionHistoryLimit", 10);
            let rolling = json!({ "maxUnavailable": 1, "maxSurge": 0 });
            default(spec, "updateStrategy", json!({ "type": "RollingUpdate", "rollingUpdate": rolling }));
        }
        "Job" => {
            default(spec, "parallelism", 1);
            default(spec, "completions", 1);
            default(spec, "backoffLimit", 6);
        }
        _ => default(spec, "replicas", 1),
    }
    if kind == "ReplicationController" {
        let labels = spec.get("template").and_then(|template| template.pointer("/metadata/labels")).cloned();
        default(spec, "selector", labels.unwrap_or_default());
    }
    template(spec);
}

/// The pod template of a workload's spec.
fn template(spec: &mut Map<String, Value>) {
    if let Some(template) = spec.get_mut("template") {
        pod_spec(child_mut(template, "spec"));
    }
}

fn cron_job(spec: &mut Map<String, Value>) {
    default(spec, "concurrencyPolicy", "Allow");
    default(spec, "suspend", false);
    default(spec, "successfulJobsHistoryLimit", 3);
    default(spec, "failedJobsHistoryLimit", 1);
    if let Some(job) = spec.get_mut("jobTemplate") {
        template(child_mut(job, "spec"));
    }
}

/// A Job finds its pods by its own uid.
fn own_job_pods(value: &mut Value) {
    let (uid, name) = (text(value, "/metadata/uid").to_owned(), text(value, "/metadata/name").to_owned());
    let spec = child_mut(value, "spec");
    if spec.get("manualSelector").is_some_and(|manual| *manual == true) {
        return;
    }
    spec.insert("selector".to_owned(), json!({ "matchLabels": { "controller-uid": uid } }));
    let template = spec.entry("template").or_insert(Value::Null);
    let labels = fields_mut(meta_mut(template).entry("labels").or_insert(Value::Null));
    labels.insert("controller-uid".to_owned(), uid.into());
    labels.insert("job-name".to_owned(), name.into());
    let labels = labels.clone();
    default(meta_mut(value), "labels", labels);
}

fn pod_spec(spec: &mut Map<String, Value>) {
    default(spec, "restartPolicy", "Always");
    default(spec, "terminationGracePeriodSeconds", 30);
    default(spec, "dnsPolicy", "ClusterFirst");
    default(spec, "securityContext", json!({}));
    default(spec, "schedulerName", "default-scheduler");
    for list in ["initContainers", "containers"] {
        each(spec, list).for_each(container);
    }
    for volume in each(spec, "volumes") {
        for source in ["secret", "configMap", "projected", "downwardAPI"] {
            if let Some(Value::Object(source)) = volume.get_mut(source) {
                default(source, "defaultMode", 0o644);
            }
        }
    }
}

fn container(container: &mut Map<String, Value>) {
    let image = container.get("image").and_then(Value::as_str).unwrap_or_default();
    let tag = image.rsplit('/').next().and_then(|name| name.split_once(':')).map(|(_, tag)| tag);
    let moving = !image.contains('@') && tag.is_none_or(|tag| tag == "latest");
    default(container, "imagePullPolicy", if moving { "Always" } else { "IfNotPresent" });
    default(container, "resources", json!({}));
    default(container, "terminationMessagePath", "/dev/termination-log");
    default(container, "terminationMessagePolicy", "File");
    for port in each(container, "ports") {
        default(port, "protocol", "TCP");
    }
    for variable in each(container, "env") {
        if let Some(Value::Object(field)) =
            variable.get_mut("valueFrom").and_then(|from| from.get_mut("fieldRef"))
        {
            default(field, "apiVersion", "v1");
        }
    }
    for probe in ["livenessProbe", "readinessProbe", "startupProbe"] {
        let Some(Value::Object(probe)) = container.get_mut(probe) else { continue };
        for (name, seconds) in
            [("timeoutSeconds", 1), ("periodSeconds", 10), ("successThreshold", 1), ("failureThreshold", 3)]
        {
            default(probe, name, seconds);
        }
        if let Some(Value::Object(get)) = probe.get_mut("httpGet") {
            default(get, "scheme", "HTTP");
            default(get, "path", "/");
        }
    }
}

/// Whether a workload's selector selects its own pods.
pub(crate) fn selects_own_template(spec: &Value) -> bool {
    let labels = spec.pointer("/template/metadata/labels");
    let label = |key: &str| labels.and_then(|labels| labels.get(key)).and_then(Value::as_str);
    let equal = crate::object::entries(spec, "/selector/matchLabels")
        .all(|(key, value)| label(key) == value.as_str());
    equal
        && items(spec, "/selector/matchExpressions").iter().all(|term| {
            let values = || items(term, "/values").iter().filter_map(Value::as_str);
            let found = label(text(term, "/key"));
            match text(term, "/operator") {
                "In" => found.is_some_and(|found| values().any(|value| value == found)),
                "NotIn" => found.is_none_or(|found| values().all(|value| value != found)),
                "Exists" => found.is_some(),
                _ => found.is_none(),
            }
        })
}
