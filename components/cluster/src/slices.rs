//! EndpointSlices of a Service, changed as little as its pods' changes allow.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    SliceVersion,
    delete::DeleteOptions,
    endpoints::{SERVICE_NAME, labels, options},
    member::Member,
    object::{Object, items, text},
    resources::Res,
    write::Writer,
};

/// The most endpoints a slice has; `--max-endpoints-per-slice` of the real controller.
const SLICE_LIMIT: usize = 100;
pub(crate) const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";

pub(crate) fn write(
    writer: &mut Writer<'_>,
    slices: Res,
    service: &Object,
    members: &[Member],
    version: SliceVersion,
) {
    let key = service.key();
    let ours = |slice: &Arc<Object>| {
        let labels = slice.value.pointer("/metadata/labels");
        let label = |name: &str| labels.and_then(|labels| labels.get(name)).and_then(Value::as_str);
        label(SERVICE_NAME) == Some(key.name()) && label(MANAGED_BY) == Some(SLICE_CONTROLLER)
    };
    let existing: Vec<_> = writer.store.list(slices, key.namespace()).into_iter().filter(ours).collect();
    let mut plan = Plan { kept: Vec::new(), made: Vec::new() };
    let mut wanted = slice_groups(members, version);
    for slice in existing {
        plan.keep(slice, &mut wanted);
    }
    for group in wanted {
        plan.place(group);
    }
    if plan.kept.iter().all(|(_, endpoints)| endpoints.is_empty()) && plan.made.is_empty() {
        plan.keep_one_empty();
    }
    plan.carry_out(writer, slices, service, version);
}

/// Endpoints that may share a slice: one address family, one set of ports.
struct Group {
    family: &'static str,
    ports: Vec<Value>,
    endpoints: Vec<Value>,
}

fn slice_groups(members: &[Member], version: SliceVersion) -> Vec<Group> {
    let mut groups: Vec<Group> = Vec::new();
    // The beta knew no terminating endpoints.
    for member in members.iter().filter(|member| version == SliceVersion::V1 || !member.terminating) {
        let (family, endpoint) = (member.family(), member.endpoint(version));
        match groups.iter_mut().find(|group| group.family == family && group.ports == member.ports) {
            Some(group) => group.endpoints.push(endpoint),
            None => groups.push(Group { family, ports: member.ports.clone(), endpoints: vec![endpoint] }),
        }
    }
    groups
}

/// What becomes of a Service's slices: endpoints stay in the slice they are in, so that a change rewrites few.
struct Plan {
    kept: Vec<(Arc<Object>, Vec<Value>)>,
    made: Vec<Group>,
}

impl Plan {
    /// Takes out of `wanted` what `slice` already has a place for.
    fn keep(&mut self, slice: Arc<Object>, wanted: &mut [Group]) {
        let mut endpoints = Vec::new();
        if let Some(group) = wanted.iter_mut().find(|group| fits(&slice, group.family, &group.ports)) {
            for old in items(&slice.value, "/endpoints") {
                let same = |new: &Value| {
                    new["addresses"] == old["addresses"] && new["targetRef"] == old["targetRef"]
                };
                if let Some(index) = group.endpoints.iter().position(same) {
                    endpoints.push(group.endpoints.remove(index));
                }
            }
        }
        self.kept.push((slice, endpoints));
    }

    /// Finds room for the rest of a group, in kept slices first.
    fn place(&mut self, mut group: Group) {
        for (slice, endpoints) in &mut self.kept {
            if !fits(slice, group.family, &group.ports) {
                continue;
            }
            let room = SLICE_LIMIT.saturating_sub(endpoints.len()).min(group.endpoints.len());
            endpoints.extend(group.endpoints.drain(..room));
        }
        while !group.endpoints.is_empty() {
            let count = group.endpoints.len().min(SLICE_LIMIT);
            let endpoints = group.endpoints.drain(..count).collect();
            self.made.push(Group { family: group.family, ports: group.ports.clone(), endpoints });
        }
    }

    /// A Service without pods has one slice without endpoints: it says that somebody looked.
    fn keep_one_empty(&mut self) {
        if self.kept.is_empty() {
            self.made.push(Group { family: "IPv4", ports: Vec::new(), endpoints: Vec::new() });
        }
    }

    fn carry_out(self, writer: &mut Writer<'_>, slices: Res, service: &Object, version: SliceVersion) {
        let (key, nothing_made) = (service.key(), self.made.is_empty());
        for group in self.made {
            let value = new_slice(service, &group, version);
            // It fails only when the namespace is going away.
            drop(writer.create(slices, key.namespace(), value, &options()));
        }
        let all_empty = nothing_made && self.kept.iter().all(|(_, endpoints)| endpoints.is_empty());
        for (index, (slice, endpoints)) in self.kept.into_iter().enumerate() {
            if endpoints.is_empty() && !(all_empty && index == 0) {
                drop(writer.delete(slices, &slice.key(), &DeleteOptions::default()));
                continue;
            }
            let mut value = slice.value.clone();
            let ports = value["ports"].clone();
            value["endpoints"] = endpoints.into();
            if all_empty {
                value["ports"] = json!([]);
            }
            value["metadata"]["labels"] = slice_labels(service);
            if value["endpoints"] != slice.value["endpoints"]
                || value["metadata"]["labels"] != slice.value["metadata"]["labels"]
                || ports != value["ports"]
            {
                drop(writer.replace(slices, &slice.key(), &slice, value, &options()));
            }
        }
    }
}

/// Whether `slice` takes endpoints of this address family with these ports.
pub(crate) fn fits(slice: &Object, family: &str, ports: &[Value]) -> bool {
    text(&slice.value, "/addressType") == family && items(&slice.value, "/ports") == ports
}

fn slice_labels(service: &Object) -> Value {
    let mut labels = labels(service);
    labels[SERVICE_NAME] = service.key().name().into();
    labels[MANAGED_BY] = SLICE_CONTROLLER.into();
    labels
}

fn new_slice(service: &Object, group: &Group, version: SliceVersion) -> Value {
    let key = service.key();
    json!({
        "apiVersion": format!("discovery.k8s.io/{}", version.as_str()),
        "metadata": {
            "generateName": format!("{}-", key.name()),
            "labels": slice_labels(service),
            "ownerReferences": [{
                "apiVersion": "v1", "kind": "Service", "name": key.name(), "uid": service.uid(),
                "controller": true, "blockOwnerDeletion": true,
            }],
        },
        "addressType": group.family,
        "endpoints": group.endpoints,
        "ports": group.ports,
    })
}
