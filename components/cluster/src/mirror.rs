//! EndpointSlices of Endpoints that somebody wrote by hand for a Service without a selector, as the mirroring controller
//! of a real cluster keeps them: who reads slices alone misses nobody.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    SliceVersion,
    delete::DeleteOptions,
    endpoints::{SERVICE_NAME, options},
    object::{Key, Object, items, text},
    resources::Res,
    slices::{MANAGED_BY, fits},
    write::Writer,
};

const MIRRORING_CONTROLLER: &str = "endpointslicemirroring-controller.k8s.io";
/// A label of Endpoints that are not to be mirrored.
const SKIP: &str = "endpointslice.kubernetes.io/skip-mirror";
/// The most endpoints that are mirrored of one set of ports; `--mirroring-max-endpoints-per-subset` of the controller.
const LIMIT: usize = 1000;

/// What one slice is to hold.
struct Group {
    family: &'static str,
    ports: Vec<Value>,
    endpoints: Vec<Value>,
}

/// Makes the slices of `endpoints`, and none where there are no such Endpoints.
pub(crate) fn write(
    writer: &mut Writer<'_>,
    slices: Res,
    key: &Key,
    endpoints: Option<&Object>,
    version: SliceVersion,
) {
    let endpoints = endpoints.filter(|endpoints| label(endpoints, SKIP) != Some("true"));
    let mut wanted = endpoints.map(|endpoints| groups(&endpoints.value, version)).unwrap_or_default();
    for slice in mirrored(writer, slices, key) {
        let group = wanted.iter().position(|group| fits(&slice, group.family, &group.ports));
        match (group.map(|index| wanted.remove(index)), endpoints) {
            (Some(group), Some(endpoints)) => {
                let mut value = slice.value.clone();
                value["endpoints"] = group.endpoints.into();
                value["metadata"]["labels"] = labels(endpoints);
                if value != slice.value {
                    drop(writer.replace(slices, &slice.key(), &slice, value, &options()));
                }
            }
            _ => drop(writer.delete(slices, &slice.key(), &DeleteOptions::default())),
        }
    }
    for group in wanted {
        let value = endpoints.map(|endpoints| new_slice(endpoints, group, version));
        // It fails only when the namespace is going away.
        drop(value.map(|value| writer.create(slices, key.namespace(), value, &options())));
    }
}

fn mirrored(writer: &Writer<'_>, slices: Res, key: &Key) -> Vec<Arc<Object>> {
    let is_ours = |slice: &Arc<Object>| {
        label(slice, SERVICE_NAME) == Some(key.name())
            && label(slice, MANAGED_BY) == Some(MIRRORING_CONTROLLER)
    };
    writer.store.list(slices, key.namespace()).into_iter().filter(is_ours).collect()
}

fn label<'a>(object: &'a Object, name: &str) -> Option<&'a str> {
    object.value.pointer("/metadata/labels")?.get(name)?.as_str()
}

/// One group for each address family and set of ports.
fn groups(endpoints: &Value, version: SliceVersion) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    for subset in items(endpoints, "/subsets") {
        let ports: Vec<Value> = items(subset, "/ports").iter().map(port).collect();
        for (field, ready) in [("/addresses", true), ("/notReadyAddresses", false)] {
            for address in items(subset, field) {
                let family = if text(address, "/ip").contains(':') { "IPv6" } else { "IPv4" };
                let endpoint = endpoint(address, ready, version);
                let same = |group: &&mut Group| group.family == family && group.ports == ports;
                match groups.iter_mut().find(same) {
                    Some(group) if group.endpoints.len() == LIMIT => {}
                    Some(group) => group.endpoints.push(endpoint),
                    None => groups.push(Group { family, ports: ports.clone(), endpoints: vec![endpoint] }),
                }
            }
        }
    }
    groups
}

/// In a slice every port has a name, if only an empty one.
fn port(port: &Value) -> Value {
    let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
    let mut mirrored = json!({ "name": text(port, "/name"), "port": port["port"], "protocol": protocol });
    if let Some(application) = port.get("appProtocol") {
        mirrored["appProtocol"] = application.clone();
    }
    mirrored
}

fn endpoint(address: &Value, ready: bool, version: SliceVersion) -> Value {
    let mut endpoint = json!({ "addresses": [address["ip"]], "conditions": { "ready": ready } });
    for field in ["hostname", "targetRef"] {
        if let Some(value) = address.get(field) {
            endpoint[field] = value.clone();
        }
    }
    if let Some(node) = address.get("nodeName") {
        match version {
            SliceVersion::V1 => endpoint["nodeName"] = node.clone(),
            SliceVersion::V1Beta1 => endpoint["topology"] = json!({ "kubernetes.io/hostname": node }),
        }
    }
    endpoint
}

fn labels(endpoints: &Object) -> Value {
    let mut labels = endpoints.value.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    labels[SERVICE_NAME] = endpoints.key().name().into();
    labels[MANAGED_BY] = MIRRORING_CONTROLLER.into();
    labels
}

fn new_slice(endpoints: &Object, group: Group, version: SliceVersion) -> Value {
    let key = endpoints.key();
    json!({
        "apiVersion": format!("discovery.k8s.io/{}", version.as_str()),
        "metadata": {
            "generateName": format!("{}-", key.name()),
            "labels": labels(endpoints),
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Endpoints", "name": key.name(), "uid": endpoints.uid(),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": group.family,
        "endpoints": group.endpoints,
        "ports": group.ports,
    })
}
