//! What the cluster's objects mean to a client: an authority or an address in, who answers there out. Pure: events in
//! (here), views out (`index/lookup.rs`), no clock and no network.
//!
//! Objects come in any order, because each resource is watched on its own: an endpoint may be known before its pod, and
//! a pod before its ReplicaSet. Nothing is therefore computed once and kept: each event says which Services and
//! addresses may now read otherwise ([`Dirty`]), and their views are made anew from what is known by then.
//!
//! An endpoint gets labels and an identity only from the very pod it was made for: by uid where the endpoint names its
//! pod, because an address outlives its pod and is given to another; and an identity only if that pod runs, was injected
//! with TLS for our control plane, and belongs to the workload that its injection claims.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use conduit_identity::{ControlPlane, Identity, WorkloadKind};
use conduit_k8s::{
    owned::LABEL_CONTROL_PLANE_NS,
    owner::{self, Owned, Owner, Owners},
    slices::Slice,
    watch::{Event, ObjectKey},
};

use crate::{
    observed::{LABEL_POD_TEMPLATE_HASH, Pod, Service},
    table::{Change, Multi, Table},
    view::Labels,
};

mod lookup;

/// Whose identities are given out, and what names end in.
#[derive(Debug, Clone)]
pub struct Scope {
    /// The control plane whose pods have identities.
    pub control_plane: ControlPlane,
    /// The cluster's DNS zone, "cluster.local".
    pub zone: String,
}

/// Everything observed.
#[derive(Debug)]
pub struct Index {
    scope: Scope,
    services: Table<Service>,
    slices: Table<Slice>,
    pods: Table<Pod>,
    replica_sets: Table<Owned>,
    jobs: Table<Owned>,
    /// What is told of each pod.
    described: BTreeMap<ObjectKey, Described>,
    services_at: Multi<IpAddr, ObjectKey>,
    slices_of: Multi<ObjectKey, ObjectKey>,
    slices_at: Multi<IpAddr, ObjectKey>,
    pods_at: Multi<IpAddr, ObjectKey>,
    pods_owned_by: Multi<(WorkloadKind, ObjectKey), ObjectKey>,
    /// The uids of pods whose application has ended.
    ended: BTreeSet<String>,
}

/// What is told of a pod.
#[derive(Debug, Clone, PartialEq)]
struct Described {
    labels: Arc<Labels>,
    identity: Option<Identity>,
}

/// Whose views may have changed.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Dirty {
    /// Services.
    pub services: BTreeSet<ObjectKey>,
    /// Addresses, of Services and of pods.
    pub addresses: BTreeSet<IpAddr>,
    /// The application of a pod has ended.
    pub ended: bool,
}

impl Dirty {
    /// Adds `other`.
    pub fn merge(&mut self, other: Self) {
        self.services.extend(other.services);
        self.addresses.extend(other.addresses);
        self.ended |= other.ended;
    }
}

/// How many objects of each resource are known.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[allow(missing_docs, reason = "they are the resources' names")]
pub struct Sizes {
    pub services: usize,
    pub slices: usize,
    pub pods: usize,
    pub replica_sets: usize,
    pub jobs: usize,
}

impl Index {
    /// An index of nothing yet.
    pub fn new(scope: Scope) -> Self {
        Self {
            scope,
            services: Table::default(),
            slices: Table::default(),
            pods: Table::default(),
            replica_sets: Table::default(),
            jobs: Table::default(),
            described: BTreeMap::new(),
            services_at: Multi::default(),
            slices_of: Multi::default(),
            slices_at: Multi::default(),
            pods_at: Multi::default(),
            pods_owned_by: Multi::default(),
            ended: BTreeSet::new(),
        }
    }

    /// The zone and the control plane.
    pub fn scope(&self) -> &Scope {
        &self.scope
    }

    /// How much is known.
    pub fn sizes(&self) -> Sizes {
        Sizes {
            services: self.services.len(),
            slices: self.slices.len(),
            pods: self.pods.len(),
            replica_sets: self.replica_sets.len(),
            jobs: self.jobs.len(),
        }
    }

    /// Services appeared, changed or went.
    pub fn services(&mut self, event: Event<Service>) -> Dirty {
        let mut dirty = Dirty::default();
        for Change { key, before, after } in self.services.apply(event) {
            let ips = |service: &Option<Arc<Service>>| {
                service.iter().flat_map(|service| service.cluster_ips.clone()).collect::<Vec<_>>()
            };
            let (old, new) = (ips(&before), ips(&after));
            self.services_at.move_value(&key, &old, &new);
            dirty.addresses.extend(old.into_iter().chain(new));
            dirty.services.insert(key);
        }
        dirty
    }

    /// Endpoints appeared, changed or went.
    pub fn slices(&mut self, event: Event<Slice>) -> Dirty {
        let mut dirty = Dirty::default();
        for Change { key, before, after } in self.slices.apply(event) {
            let services =
                |slice: &Option<Arc<Slice>>| slice.as_ref().and_then(|slice| slice.service.clone());
            let (old, new) = (services(&before), services(&after));
            self.slices_of.move_value(&key, &old, &new);
            let (from, to) = (addresses_of(before.as_deref()), addresses_of(after.as_deref()));
            self.slices_at.move_value(&key, &from, &to);
            old.iter().chain(&new).for_each(|service| self.soil(service, &mut dirty));
        }
        dirty
    }

    /// Pods appeared, changed or went.
    pub fn pods(&mut self, event: Event<Pod>) -> Dirty {
        let mut dirty = Dirty::default();
        for Change { key, before, after } in self.pods.apply(event) {
            let ips = |pod: &Option<Arc<Pod>>| {
                pod.iter().flat_map(|pod| pod.ips.clone()).collect::<BTreeSet<IpAddr>>()
            };
            let (old, new) = (ips(&before), ips(&after));
            self.pods_at.move_value(&key, &old, &new);
            self.pods_owned_by.move_value(
                &key,
                &before.as_deref().and_then(controller_of),
                &after.as_deref().and_then(controller_of),
            );
            dirty.ended |= self.note_end(before.as_deref(), after.as_deref());
            match after {
                Some(pod) => drop(self.described.insert(key, self.describe(&pod))),
                None => drop(self.described.remove(&key)),
            }
            self.soil_addresses(old.into_iter().chain(new), &mut dirty);
        }
        dirty
    }

    /// Whether the application of the pod with this uid has ended.
    pub fn has_ended(&self, uid: &str) -> bool {
        self.ended.contains(uid)
    }

    /// Whether the application of `after` has ended just now.
    fn note_end(&mut self, before: Option<&Pod>, after: Option<&Pod>) -> bool {
        if let Some(before) = before {
            self.ended.remove(&before.uid);
        }
        let ended = after.filter(|pod| pod.has_ended);
        ended.is_some_and(|pod| self.ended.insert(pod.uid.clone()))
    }

    /// ReplicaSets appeared, changed or went.
    pub fn replica_sets(&mut self, event: Event<Owned>) -> Dirty {
        let changes = self.replica_sets.apply(event);
        self.owners_changed(WorkloadKind::ReplicaSet, changes)
    }

    /// Jobs appeared, changed or went.
    pub fn jobs(&mut self, event: Event<Owned>) -> Dirty {
        let changes = self.jobs.apply(event);
        self.owners_changed(WorkloadKind::Job, changes)
    }

    fn owners_changed(&mut self, kind: WorkloadKind, changes: Vec<Change<Owned>>) -> Dirty {
        let mut dirty = Dirty::default();
        for Change { key, .. } in changes {
            let pods: Vec<ObjectKey> = self.pods_owned_by.get(&(kind, key)).cloned().collect();
            for key in pods {
                let Some(pod) = self.pods.get(&key).cloned() else { continue };
                let described = self.describe(&pod);
                if self.described.get(&key) != Some(&described) {
                    self.described.insert(key, described);
                    self.soil_addresses(pod.ips.iter().copied(), &mut dirty);
                }
            }
        }
        dirty
    }

    /// What hangs on these addresses: themselves, and the Services that have endpoints there.
    fn soil_addresses(&self, addresses: impl IntoIterator<Item = IpAddr>, dirty: &mut Dirty) {
        for address in addresses {
            let slices = self.slices_at.get(&address).filter_map(|key| self.slices.get(key));
            let services: BTreeSet<&ObjectKey> = slices.filter_map(|slice| slice.service.as_ref()).collect();
            services.into_iter().for_each(|service| self.soil(service, dirty));
            dirty.addresses.insert(address);
        }
    }

    /// What hangs on a Service's endpoints: itself, by name and by address.
    fn soil(&self, service: &ObjectKey, dirty: &mut Dirty) {
        let cluster_ips = self.services.get(service).into_iter().flat_map(|service| &service.cluster_ips);
        dirty.addresses.extend(cluster_ips.copied());
        dirty.services.insert(service.clone());
    }

    fn describe(&self, pod: &Pod) -> Described {
        let owner = owner::owner(&pod.meta, self);
        let label = |name: &str| pod.meta.labels.as_ref()?.get(name).cloned();
        let mut labels = Labels::new();
        let mut tell = |name: &str, value: Option<String>| {
            if let Some(value) = value {
                labels.insert(name.to_owned(), value);
            }
        };
        tell("namespace", pod.meta.namespace.clone());
        tell("pod_template_hash", label(LABEL_POD_TEMPLATE_HASH));
        tell("conduit_io_control_plane_ns", label(LABEL_CONTROL_PLANE_NS));
        if !matches!(owner, Owner::Pending { .. }) {
            let workload = owner.actual();
            tell(workload.kind.metric_label(), Some(workload.name.clone()));
        }
        // Last: a bare pod's own name and its workload's are the same.
        tell("pod", pod.meta.name.clone());
        let proves = pod.has_tls && pod.is_running && !pod.on_host_network;
        let workload = owner.confirmed().filter(|_| proves);
        Described {
            labels: Arc::new(labels),
            identity: workload.map(|workload| Identity::of(workload, &self.scope.control_plane)),
        }
    }
}

impl Owners for Index {
    fn owned(&self, kind: WorkloadKind, key: &ObjectKey) -> Option<Owned> {
        let table = match kind {
            WorkloadKind::ReplicaSet => &self.replica_sets,
            WorkloadKind::Job => &self.jobs,
            _ => return None,
        };
        table.get(key).map(|owned| (**owned).clone())
    }
}

fn addresses_of(slice: Option<&Slice>) -> BTreeSet<IpAddr> {
    let subsets = slice.into_iter().flat_map(|slice| &slice.subsets);
    let endpoints = subsets.flat_map(|subset| &subset.endpoints);
    endpoints.flat_map(|endpoint| endpoint.addresses.iter().copied()).collect()
}

fn controller_of(pod: &Pod) -> Option<(WorkloadKind, ObjectKey)> {
    let controller = owner::Controller::of(&pod.meta)?;
    let namespace = pod.meta.namespace.clone().unwrap_or_default();
    Some((controller.kind?, ObjectKey::new(namespace, controller.name)))
}

#[cfg(test)]
mod tests;
