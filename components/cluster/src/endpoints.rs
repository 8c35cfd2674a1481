//! The endpoints controllers: Services and pods make Endpoints and EndpointSlices.
//!
//! [`run`] reads what changed and rewrites what that concerns, as a real cluster's controllers do: a moment after the
//! change. It writes past the scripted faults, which are for the API's clients. What one pod contributes to one Service
//! is decided in `member.rs`; Endpoints by hand become slices in `mirror.rs`.
//!
//! One difference is on purpose: a pod that has an address but no node is an endpoint here; a real cluster waits for its
//! node, which nobody assigns where there is no scheduler.

use std::{collections::BTreeMap, sync::Arc};

use conduit_runtime::drain;
use serde_json::{Value, json};

use crate::{
    Shared,
    delete::DeleteOptions,
    member::{Member, members},
    mirror,
    object::{Key, Object, entries, fields_mut, text},
    resources::Res,
    select::Selector,
    slices,
    store::Store,
    write::{WriteOptions, Writer},
};
pub(crate) const SERVICE_NAME: &str = "kubernetes.io/service-name";
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
    let version = shared.config.slices;
    let mut state = shared.state.lock();
    let mut writer = state.writer(shared);
    let Some(service) = writer.store.get(kinds.services, key).cloned() else {
        // Slices go with their owner; Endpoints have none. They are there or not, and both are well.
        if removed {
            drop(writer.delete(kinds.endpoints, key, &DeleteOptions::default()));
        }
        mirror::write(&mut writer, kinds.slices, key, None, version);
        return;
    };
    let Some(selector) = selector(&service) else {
        let by_hand = writer.store.get(kinds.endpoints, key).cloned();
        mirror::write(&mut writer, kinds.slices, key, by_hand.as_deref(), version);
        return;
    };
    mirror::write(&mut writer, kinds.slices, key, None, version);
    let pods: Vec<_> = writer
        .store
        .list(kinds.pods, key.namespace())
        .into_iter()
        .filter(|pod| selector.matches(&pod.value))
        .collect();
    let members = members(&service, &pods);
    write_endpoints(&mut writer, kinds, &service, &members);
    slices::write(&mut writer, kinds.slices, &service, &members, version);
}

pub(crate) fn options() -> WriteOptions {
    WriteOptions { manager: "kube-controller-manager".to_owned(), ..Default::default() }
}

pub(crate) fn labels(service: &Object) -> Value {
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
        let mut value = json!({ "metadata": { "name": key.name(), "labels": labels } });
        set_subsets(&mut value, subsets);
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
    set_subsets(&mut value, subsets);
    drop(writer.replace(kinds.endpoints, &key, &old, value, &options()));
}

/// No subsets are no field.
fn set_subsets(endpoints: &mut Value, subsets: Vec<Value>) {
    if subsets.is_empty() {
        fields_mut(endpoints).shift_remove("subsets");
    } else {
        endpoints["subsets"] = subsets.into();
    }
}

/// One subset for each set of pods that have the same ports. A pod that lacks a named port is missing from that port's
/// subset alone, so that one pod may be in several.
fn subsets(members: &[Member]) -> Vec<Value> {
    let counted: Vec<&Member> =
        members.iter().filter(|member| !member.terminating || member.published).collect();
    let mut ports: Vec<&Value> = Vec::new();
    for port in counted.iter().flat_map(|member| &member.ports) {
        if !ports.contains(&port) {
            ports.push(port);
        }
    }
    let mut groups: Vec<(Vec<&Value>, Vec<usize>)> = Vec::new();
    for port in ports {
        let having = |(index, member): (usize, &&Member)| member.ports.contains(port).then_some(index);
        let pods: Vec<usize> = counted.iter().enumerate().filter_map(having).collect();
        match groups.iter_mut().find(|(_, group)| *group == pods) {
            Some((ports, _)) => ports.push(port),
            None => groups.push((vec![port], pods)),
        }
    }
    // A headless Service may have no ports at all, and still has pods.
    let bare = counted.iter().enumerate().filter(|(_, member)| member.ports.is_empty());
    let bare: Vec<usize> = bare.map(|(index, _)| index).collect();
    if groups.is_empty() && !bare.is_empty() {
        groups.push((Vec::new(), bare));
    }
    groups.iter().map(|(ports, pods)| subset(ports, pods.iter().map(|index| counted[*index]))).collect()
}

fn subset<'a>(ports: &[&Value], members: impl Iterator<Item = &'a Member> + Clone) -> Value {
    let mut subset = json!({});
    for (field, ready) in [("addresses", true), ("notReadyAddresses", false)] {
        let addresses = members.clone().filter(|member| member.ready() == ready).map(Member::address);
        let addresses: Vec<_> = addresses.collect();
        if !addresses.is_empty() {
            subset[field] = addresses.into();
        }
    }
    if !ports.is_empty() {
        subset["ports"] = ports.iter().map(|port| endpoints_port(port)).collect();
    }
    subset
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
