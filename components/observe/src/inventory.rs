//! What runs in the cluster, as one immutable value: which pods there are, whose they are and which are meshed.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use conduit_identity::{Identity, UnixTime};

use crate::{kind::Kind, samples::PodName};

/// An object that rows can be about.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Object {
    /// Its kind.
    pub kind: Kind,
    /// Its namespace; a namespace's is itself.
    pub namespace: String,
    /// Its name.
    pub name: String,
}

impl Object {
    /// Names an object.
    pub fn new(kind: Kind, namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { kind, namespace: namespace.into(), name: name.into() }
    }
}

/// A pod, as far as traffic is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pod {
    /// Its name.
    pub name: PodName,
    /// Its uid: a StatefulSet's pods reuse their names.
    pub uid: String,
    /// The names of the objects it belongs to; itself under [`Kind::Pod`].
    pub owners: BTreeMap<Kind, String>,
    /// Its labels, which services select by.
    pub labels: BTreeMap<String, String>,
    /// Its phase, or `Terminating`.
    pub status: String,
    /// Whether it runs or is about to, and is not being deleted.
    pub running: bool,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// Whether it has a proxy of our control plane.
    pub meshed: bool,
    /// Whether its proxy was injected with TLS.
    pub tls: bool,
    /// Its address, once it has one.
    pub ip: Option<IpAddr>,
    /// Where its proxy serves metrics.
    pub metrics_port: u16,
    /// Where its proxy answers tap.
    pub tap_port: u16,
    /// What its proxy proves; none unless it is meshed with TLS.
    pub identity: Option<Identity>,
    /// When it was created.
    pub created: Option<UnixTime>,
    /// The Secret that its proxy has its certificate from, as its volumes name it.
    pub mounts: Option<String>,
    /// The version of its proxy, as inject wrote it.
    pub proxy_version: Option<String>,
}

impl Pod {
    /// Where to read its metrics; none while it is not meshed or has no address.
    pub fn metrics(&self) -> Option<SocketAddr> {
        Some(SocketAddr::new(self.ip.filter(|_| self.meshed)?, self.metrics_port))
    }

    /// What it belongs to in the end: a CronJob rather than its Job, and itself when it belongs to nothing.
    pub fn workload(&self) -> (Kind, &str) {
        let owners = self.owners.iter().filter(|(kind, _)| **kind != Kind::Pod);
        let last = owners.max_by_key(|(kind, _)| **kind);
        last.map_or((Kind::Pod, self.name.name.as_str()), |(kind, name)| (*kind, name.as_str()))
    }
}

/// A Service, as far as traffic is concerned.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Service {
    /// Which pods answer; empty for a Service whose endpoints are made by hand.
    pub selector: BTreeMap<String, String>,
    /// Its own addresses; none when headless.
    pub cluster_ips: Vec<IpAddr>,
}

impl Service {
    fn selects(&self, pod: &Pod) -> bool {
        !self.selector.is_empty()
            && self.selector.iter().all(|(name, value)| pod.labels.get(name) == Some(value))
    }
}

/// A snapshot of the cluster.
#[derive(Debug, Clone, Default)]
pub struct Inventory {
    /// Whether the cluster has been seen at all; nothing is known before.
    pub is_known: bool,
    /// Every pod.
    pub pods: BTreeMap<PodName, Arc<Pod>>,
    /// Deployments and all other owners of pods, and namespaces. Pods and services are not repeated here.
    pub objects: BTreeSet<Object>,
    /// Services, by namespace and name.
    pub services: BTreeMap<(String, String), Service>,
}

/// How many pods of an object run, and how many of those are meshed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Meshed {
    /// Of the running ones.
    pub meshed: u32,
    /// Running or about to.
    pub running: u32,
}

impl Meshed {
    fn add(&mut self, pod: &Pod) {
        self.running += 1;
        self.meshed += u32::from(pod.meshed);
    }
}

impl Inventory {
    /// Whether there is such a Service.
    pub fn has_service(&self, namespace: &str, name: &str) -> bool {
        self.services.contains_key(&(namespace.to_owned(), name.to_owned()))
    }

    /// The pods behind a Service.
    pub fn behind(&self, namespace: &str, name: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let service = self.services.get(&(namespace.to_owned(), name.to_owned()));
        self.in_namespace(namespace).filter(move |pod| service.is_some_and(|service| service.selects(pod)))
    }

    /// The names of the Services that `pod` answers for.
    pub fn services_of(&self, pod: &Pod) -> impl Iterator<Item = &str> {
        let selecting = |((namespace, _), service): &(&(String, String), &Service)| {
            *namespace == pod.name.namespace && service.selects(pod)
        };
        self.services.iter().filter(selecting).map(|((_, name), _)| name.as_str())
    }

    /// The pods of a namespace.
    pub fn in_namespace(&self, namespace: &str) -> impl Iterator<Item = &Arc<Pod>> {
        let own = namespace.to_owned();
        self.pods
            .range(PodName::new(namespace, "")..)
            .take_while(move |(name, _)| name.namespace == own)
            .map(|(_, pod)| pod)
    }

    /// Every object that rows can be about, with its pods counted; authorities are none.
    pub fn meshed(&self) -> BTreeMap<Object, Meshed> {
        let mut counts: BTreeMap<Object, Meshed> =
            self.objects.iter().map(|object| (object.clone(), Meshed::default())).collect();
        for pod in self.pods.values().filter(|pod| pod.running) {
            let namespace = &pod.name.namespace;
            for (kind, name) in &pod.owners {
                counts.entry(Object::new(*kind, namespace, name)).or_default().add(pod);
            }
            counts.entry(Object::new(Kind::Namespace, namespace, namespace)).or_default().add(pod);
        }
        for (namespace, name) in self.services.keys() {
            let count = counts.entry(Object::new(Kind::Service, namespace, name)).or_default();
            self.behind(namespace, name).filter(|pod| pod.running).for_each(|pod| count.add(pod));
        }
        counts
    }

    /// The pods that an object stands for, running or about to.
    pub fn pods_of(&self, kind: Kind, namespace: Option<&str>, name: Option<&str>) -> Vec<Arc<Pod>> {
        let within = |pod: &Pod| match kind {
            Kind::Namespace => name.is_none_or(|name| pod.name.namespace == name),
            _ => namespace.is_none_or(|namespace| pod.name.namespace == namespace),
        };
        let owned = |pod: &Pod| match kind {
            Kind::Namespace => true,
            Kind::Service | Kind::Authority => false,
            _ => pod.owners.get(&kind).is_some_and(|owner| name.is_none_or(|name| owner == name)),
        };
        let behind = |pod: &Pod| {
            let in_namespace = |key: &(String, String)| key.0 == pod.name.namespace;
            let named = |key: &(String, String)| name.is_none_or(|name| key.1 == name);
            kind == Kind::Service
                && self
                    .services
                    .iter()
                    .any(|(key, service)| in_namespace(key) && named(key) && service.selects(pod))
        };
        let chosen = |pod: &&Arc<Pod>| pod.running && within(pod) && (owned(pod) || behind(pod));
        self.pods.values().filter(chosen).cloned().collect()
    }

    /// Whether there is such an object; every authority is thought to exist.
    pub fn has(&self, object: &Object) -> bool {
        match object.kind {
            Kind::Authority => true,
            Kind::Service => self.has_service(&object.namespace, &object.name),
            Kind::Pod => self.pods.contains_key(&PodName::new(&object.namespace, &object.name)),
            _ => self.objects.contains(object),
        }
    }
}
