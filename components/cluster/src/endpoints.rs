//! The endpoints controllers: Services and pods make Endpoints and EndpointSlices.
//!
//! [`run`] reads what changed and rewrites what that concerns, as a real cluster's controllers do: a moment after the
//! change. It writes past the scripted faults, which are for the API's clients. What one pod contributes to one Service
//! is decided in `member.rs`.
//!
//! One difference is on purpose: a pod that has an address but no node is an endpoint here; a real cluster waits for its
//! node, which nobody assigns where there is no scheduler.

use std::{collections::BTreeMap, sync::Arc};

use conduit_runtime::drain;
use serde_json::{Value, json};

use crate::{
    Shared, SliceVersion,
    member::{Member, members},
    object::{Key, Object, entries, items, text},
    resources::Res,
    select::Selector,
    store::Store,
    write::{DeleteOptions, WriteOptions, Writer},
};

/// The most endpoints a slice has; `--max-endpoints-per-slice` of the real controller.
const SLICE_LIMIT: usize = 100;
const SERVICE_NAME: &str = "kubernetes.io/service-name";
const MANAGED_BY: &str = "endpointslice.kubernetes.io/managed-by";
const SLICE_CONTROLLER: &str = "endpointslice-controller.k8s.io";
const HEADLESS: &str = "service.kubernetes.io/headless";
/// How many events are looked at before the lock is given to others.
const BATCH: usize = 1024;

/// The kinds it reads and writes.
#[derive(Clone, Copy)]
struct Kinds {
    pods: Res,
    services: Res,
    endpoints: Res,
    slices: Res,
}

impl Kinds {
    fn of(shared: &Shared) -> Option<Self> {
        let kind = |group, kind| shared.served.kind(group, kind);
        Some(Self {
            pods: kind("", "Pod")?,
            services: kind("", "Service")?,
            endpoints: kind("", "Endpoints")?,
            slices: kind("discovery.k8s.io", "EndpointSlice")?,
        })
    }

    fn all(self) -> [Res; 4] {
        [self.pods, self.services, self.endpoints, self.slices]
    }
}

/// Keeps endpoints in step until the drain begins.
pub(crate) async fn run(shared: Arc<Shared>, drain: drain::Watch) {
    let Some(kinds) = Kinds::of(&shared) else { return };
    let mut changes = kinds.all().map(|kind| shared.state.lock().store.subscribe(kind));
    let mut seen = reconcile_all(&shared, kinds);
    loop {
        for change in &mut changes {
            change.mark_unchanged();
        }
        let (until, dirty) = dirty_services(&shared, kinds, seen);
        for (service, removed) in dirty {
            reconcile(&shared, kinds, &service, removed);
        }
        seen = until;
        let [pods, services, endpoints, slices] = &mut changes;
        // The senders live in the store, which we hold.
        tokio::select! {
            biased;
            () = drain.signaled() => return,
            _ = pods.changed() => {}
            _ = services.changed() => {}
            _ = endpoints.changed() => {}
            _ = slices.changed() => {}
        }
    }
}

/// Brings every Service's endpoints up to date, once.
pub(crate) fn reconcile_now(shared: &Shared) {
    if let Some(kinds) = Kinds::of(shared) {
        reconcile_all(shared, kinds);
    }
}

fn reconcile_all(shared: &Shared, kinds: Kinds) -> u64 {
    let (seen, all) = {
        let state = shared.state.lock();
        let services = state.store.list(kinds.services, "").into_iter();
        (state.store.revision(), services.map(|service| service.key()).collect::<Vec<_>>())
    };
    for service in all {
        reconcile(shared, kinds, &service, false);
    }
    seen
}

/// The Services that changes after `seen` concern, with whether they were removed, and up to where those changes were
/// read.
fn dirty_services(shared: &Shared, kinds: Kinds, seen: u64) -> (u64, BTreeMap<Key, bool>) {
    let state = shared.state.lock();
    let store = &state.store;
    let mut dirty = BTreeMap::new();
    let mut until = store.revision();
    for kind in kinds.all() {
        let Ok(events) = store.events_after(kind, seen, BATCH) else {
            // We are behind what the history holds.
            dirty.extend(store.list(kinds.services, "").iter().map(|service| (service.key(), false)));
            continue;
        };
        if events.len() == BATCH
            && let Some(last) = events.last()
        {
            until = until.min(last.revision);
        }
        for event in events {
            for object in event.before.iter().chain([&event.after]) {
                for service in concerned(store, kinds, kind, &event.key, object) {
                    *dirty.entry(service).or_default() |= kind == kinds.services && event.removed;
                }
            }
        }
    }
    (until, dirty)
}

/// The Services that an object of some kind is for.
fn concerned(store: &Store, kinds: Kinds, kind: Res, key: &Key, object: &Object) -> Vec<Key> {
    if kind == kinds.pods {
        let services = store.list(kinds.services, key.namespace());
        let selects =
            |service: &Object| selector(service).is_some_and(|labels| labels.matches(&object.value));
        services.iter().filter(|service| selects(service)).map(|service| service.key()).collect()
    } else if kind == kinds.slices {
        let service = object.value.pointer("/metadata/labels").and_then(|labels| labels.get(SERVICE_NAME));
        service.and_then(Value::as_str).map(|name| Key::new(key.namespace(), name)).into_iter().collect()
    } else {
        vec![key.clone()]
    }
}

/// The pods a Service selects; none when somebody else keeps its endpoints.
fn selector(service: &Object) -> Option<Selector> {
    let external = text(&service.value, "/spec/type") == "ExternalName";
    let mut labels = entries(&service.value, "/spec/selector").peekable();
    if external || labels.peek().is_none() {
        return None;
    }
    Some(Selector::equal_labels(labels))
}

/// Brings one Service's endpoints up to date, within one hold of the lock. `removed` says that there was such a Service:
/// Endpoints that never had one are their maker's.
fn reconcile(shared: &Shared, kinds: Kinds, key: &Key, removed: bool) {
    let mut state = shared.state.lock();
    let mut writer = state.writer(shared);
    let Some(service) = writer.store.get(kinds.services, key).cloned() else {
        // Slices go with their owner; Endpoints have none. They are there or not, and both are well.
        if removed {
            drop(writer.delete(kinds.endpoints, key, &DeleteOptions::default()));
        }
        return;
    };
    let Some(selector) = selector(&service) else { return };
    let pods: Vec<_> = writer
        .store
        .list(kinds.pods, key.namespace())
        .into_iter()
        .filter(|pod| selector.matches(&pod.value))
        .collect();
    let members = members(&service, &pods);
    write_endpoints(&mut writer, kinds, &service, &members);
    write_slices(&mut writer, kinds, &service, &members, shared.config.slices);
}

fn options() -> WriteOptions {
    WriteOptions { manager: "kube-controller-manager".to_owned(), ..Default::default() }
}

fn labels(service: &Object) -> Value {
    let mut labels = service.value.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    if text(&service.value, "/spec/clusterIP") == "None" {
        labels[HEADLESS] = "".into();
    }
    labels
}

fn write_endpoints(writer: &mut Writer<'_>, kinds: Kinds, service: &Object, members: &[Member]) {
    let key = service.key();
    let subsets = subsets(members);
    let labels = labels(service);
    let Some(old) = writer.store.get(kinds.endpoints, &key).cloned() else {
        let value = json!({
            "metadata": { "name": key.name(), "labels": labels },
            "subsets": subsets,
        });
        // It fails only when the namespace is going away.
        drop(writer.create(kinds.endpoints, key.namespace(), value, &options()));
        return;
    };
    let was = old.value.get("subsets").cloned().unwrap_or_else(|| json!([]));
    let had = old.value.pointer("/metadata/labels").cloned().unwrap_or_else(|| json!({}));
    if was == Value::Array(subsets.clone()) && had == labels {
        return;
    }
    let mut value = old.value.clone();
    value["metadata"]["labels"] = labels;
    value["subsets"] = subsets.into();
    drop(writer.replace(kinds.endpoints, &key, &old, value, &options()));
}

/// One subset for each set of ports that some pods share.
fn subsets(members: &[Member]) -> Vec<Value> {
    let in_endpoints = |member: &&Member| !member.terminating || member.published;
    let mut groups: Vec<(&Vec<Value>, Vec<&Member>)> = Vec::new();
    for member in members.iter().filter(in_endpoints) {
        match groups.iter_mut().find(|(ports, _)| **ports == member.ports) {
            Some((_, group)) => group.push(member),
            None => groups.push((&member.ports, vec![member])),
        }
    }
    groups
        .into_iter()
        .map(|(ports, group)| {
            let mut subset = json!({});
            for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
                let addresses: Vec<_> = group
                    .iter()
                    .filter(|member| member.ready() == ready)
                    .map(|member| member.address())
                    .collect();
                if !addresses.is_empty() {
                    subset[field] = addresses.into();
                }
            }
            if !ports.is_empty() {
                subset["ports"] = ports.iter().map(endpoints_port).collect();
            }
            subset
        })
        .collect()
}

/// A port in Endpoints leaves out what is empty; in a slice it does not.
fn endpoints_port(port: &Value) -> Value {
    let mut port = port.clone();
    if port["name"] == ""
        && let Some(fields) = port.as_object_mut()
    {
        fields.shift_remove("name");
    }
    port
}

fn write_slices(
    writer: &mut Writer<'_>,
    kinds: Kinds,
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
    let existing: Vec<_> =
        writer.store.list(kinds.slices, key.namespace()).into_iter().filter(ours).collect();
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
    plan.carry_out(writer, kinds, service, version);
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
        if let Some(group) = wanted.iter_mut().find(|group| fits(&slice, group)) {
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
            if !fits(slice, &group) {
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

    fn carry_out(self, writer: &mut Writer<'_>, kinds: Kinds, service: &Object, version: SliceVersion) {
        let (key, nothing_made) = (service.key(), self.made.is_empty());
        for group in self.made {
            let value = new_slice(service, &group, version);
            // It fails only when the namespace is going away.
            drop(writer.create(kinds.slices, key.namespace(), value, &options()));
        }
        let all_empty = nothing_made && self.kept.iter().all(|(_, endpoints)| endpoints.is_empty());
        for (index, (slice, endpoints)) in self.kept.into_iter().enumerate() {
            if endpoints.is_empty() && !(all_empty && index == 0) {
                drop(writer.delete(kinds.slices, &slice.key(), &DeleteOptions::default()));
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
                drop(writer.replace(kinds.slices, &slice.key(), &slice, value, &options()));
            }
        }
    }
}

fn fits(slice: &Object, group: &Group) -> bool {
    text(&slice.value, "/addressType") == group.family
        && items(&slice.value, "/ports") == group.ports.as_slice()
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
