//! A sample read as a hop between two pods: which row it belongs to, and whether a query means it. Pure.

use crate::{
    authority::Authority,
    inventory::{Inventory, Object, Pod},
    kind::Kind,
    query::Selection,
    samples::{Labels, PodName, Samples, Source},
};

/// One series' view of traffic between a client and a server.
pub(crate) struct Hop<'a> {
    source: &'a Source,
    labels: &'a Labels,
    inventory: &'a Inventory,
    /// Whether the source is the server; otherwise it is the client.
    pub(crate) is_inbound: bool,
    /// The destination's pod, when the source is the client and knows it.
    dst_pod: Option<&'a Pod>,
    authority: Option<Authority>,
}

impl<'a> Hop<'a> {
    /// None when the labels do not say which side speaks.
    pub(crate) fn read(source: &'a Source, labels: &'a Labels, inventory: &'a Inventory) -> Option<Self> {
        let is_inbound = match labels.get("direction")? {
            "inbound" => true,
            "outbound" => false,
            _ => return None,
        };
        let dst_pod = dst_pod(labels).and_then(|name| inventory.pods.get(&name)).map(|pod| &**pod);
        // A short name is looked up in the client's namespace. The server does not know that one; a short name that
        // reached it can only have come from its own.
        let exists = |namespace: &str, name: &str| inventory.has_service(namespace, name);
        let authority =
            labels.get("authority").and_then(|text| Authority::read(text, &source.pod.namespace, exists));
        Some(Self { source, labels, inventory, is_inbound, dst_pod, authority })
    }

    /// The row of `kind` that the hop counts for on its server's side.
    pub(crate) fn server(&self, kind: Kind) -> Option<Object> {
        match kind {
            Kind::Authority => {
                let authority = self.authority.as_ref()?;
                let namespace = match &authority.service {
                    Some((namespace, _)) => namespace.clone(),
                    None => self.server_namespace().unwrap_or(&self.source.pod.namespace).to_owned(),
                };
                Some(Object { kind, namespace, name: authority.to_string() })
            }
            Kind::Service => {
                if let (Some(namespace), Some(name)) =
                    (self.labels.get("dst_namespace"), self.labels.get("dst_service"))
                {
                    return Some(Object::new(kind, namespace, name));
                }
                let (namespace, name) = self.authority.as_ref()?.service.clone()?;
                Some(Object { kind, namespace, name })
            }
            Kind::Namespace => {
                self.server_namespace().map(|namespace| Object::new(kind, namespace, namespace))
            }
            _ => Some(Object::new(kind, self.server_namespace()?, self.server_owner(kind)?)),
        }
    }

    /// The row of `kind` that the hop counts for on its client's side; services and authorities are the server's.
    pub(crate) fn client(&self, kind: Kind) -> Option<Object> {
        let namespace = &self.source.pod.namespace;
        match kind {
            Kind::Authority | Kind::Service => self.server(kind),
            _ if self.is_inbound => None,
            Kind::Namespace => Some(Object::new(kind, namespace, namespace)),
            _ => Some(Object::new(kind, namespace, self.source.owners.get(&kind)?)),
        }
    }

    /// Whether nobody but the client can have counted this: the destination has no proxy that was read. Where the
    /// destination's pod is not known, a proxy that was read anywhere behind the same name counts as a witness: rather
    /// too little than twice.
    pub(crate) fn has_no_witness(&self, samples: &Samples) -> bool {
        let witnessed = |pod: &Pod| samples.sources.contains(&pod.name);
        if let Some(name) = dst_pod(self.labels) {
            return !samples.sources.contains(&name);
        }
        let Some(authority) = &self.authority else { return true };
        if let Some((namespace, name)) = &authority.service {
            return !self.inventory.behind(namespace, name).any(|pod| witnessed(pod));
        }
        let Ok(ip) = authority.host.trim_matches(['[', ']']).parse() else { return true };
        let services = &self.inventory.services;
        let at_service = services.iter().find(|(_, service)| service.cluster_ips.contains(&ip));
        !match at_service {
            Some(((namespace, name), _)) => self.inventory.behind(namespace, name).any(|pod| witnessed(pod)),
            None => self.inventory.pods.values().any(|pod| pod.ip == Some(ip) && witnessed(pod)),
        }
    }

    /// The destination's pod, when the source is the client and knows it.
    pub(crate) fn server_pod(&self) -> Option<&'a Pod> {
        self.dst_pod
    }

    /// What the client called the server, without the port.
    pub(crate) fn host(&self) -> Option<&str> {
        self.authority.as_ref().map(|authority| authority.host.as_str())
    }

    fn server_namespace(&self) -> Option<&str> {
        match self.is_inbound {
            true => Some(&self.source.pod.namespace),
            false => self.labels.get("dst_namespace"),
        }
    }

    fn server_owner(&self, kind: Kind) -> Option<&str> {
        if self.is_inbound {
            return self.source.owners.get(&kind).map(String::as_str);
        }
        let label =
            DST.iter().find(|(known, _)| *known == kind).and_then(|(_, label)| self.labels.get(label));
        // The destination service names owners of meshed pods; of the others we know ourselves.
        label.or_else(|| self.dst_pod?.owners.get(&kind).map(String::as_str))
    }
}

/// The labels by which a client's proxy names the destination.
const DST: [(Kind, &str); 7] = [
    (Kind::Deployment, "dst_deployment"),
    (Kind::StatefulSet, "dst_stateful_set"),
    (Kind::DaemonSet, "dst_daemon_set"),
    (Kind::Job, "dst_k8s_job"),
    (Kind::CronJob, "dst_cron_job"),
    (Kind::ReplicationController, "dst_replication_controller"),
    (Kind::Pod, "dst_pod"),
];

fn dst_pod(labels: &Labels) -> Option<PodName> {
    Some(PodName::new(labels.get("dst_namespace")?, labels.get("dst_pod")?))
}

/// Whether `object`, which is of `selection`'s kind, is meant by it.
pub(crate) fn selects(selection: &Selection, object: &Object) -> bool {
    let in_namespace = || selection.namespace.as_ref().is_none_or(|namespace| *namespace == object.namespace);
    let named = |name: &String| match object.kind {
        Kind::Authority => is_authority(name, object),
        _ => *name == object.name,
    };
    (object.kind == Kind::Namespace || in_namespace()) && selection.name.as_ref().is_none_or(named)
}

/// Whether a user who writes `name` means `object`, an authority: the row's own spelling, or any a client may use.
fn is_authority(name: &str, object: &Object) -> bool {
    let shown = |namespace: &str, service: &str| {
        namespace == object.namespace && object.name.starts_with(&format!("{service}.{namespace}:"))
    };
    Authority::read(name, &object.namespace, shown)
        .is_some_and(|authority| authority.to_string() == object.name)
}
