//! Reading the index: from a query to who answers.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use conduit_k8s::{slices, watch::ObjectKey};

use super::Index;
use crate::{
    names::{Query, Target, dashed},
    observed::{Pod, Service},
    view::{Choice, Endpoint, Known, View},
};

/// What one candidate of a query turns out to be.
enum Found {
    /// It does not exist: the next candidate may.
    Missing,
    /// It exists, and is the answer.
    Is(View),
}

impl Index {
    /// What `query` leads to.
    pub fn view(&self, query: &Query) -> View {
        for candidate in &query.candidates {
            let found = match candidate {
                Target::Service(key, port) => self.service(key, *port, None),
                Target::Pod(key, pod, port) => self.pod_of_service(key, pod, *port),
                Target::Address(address) => self.address(*address),
            };
            if let Found::Is(view) = found {
                return view;
            }
        }
        View::Unknown
    }

    /// Where the client at `ip` runs, when it is a pod that is known.
    pub fn node_of(&self, ip: IpAddr) -> Option<Arc<str>> {
        self.pod_at(ip)?.node.clone()
    }

    fn service(&self, key: &ObjectKey, port: u16, is_ipv6: Option<bool>) -> Found {
        let Some(service) = self.services.get(key) else { return Found::Missing };
        if service.is_external {
            return Found::Is(View::Unknown);
        }
        let Some(reaches) = Reaches::of(service, port) else { return Found::Is(View::Unknown) };
        let family = is_ipv6.or(service.is_ipv6);
        let of_family = |ip: &IpAddr| family.is_none_or(|is_ipv6| ip.is_ipv6() == is_ipv6);
        let endpoints = self.endpoints(key, &reaches, |_, ip| of_family(ip));
        Found::Is(self.known(key, port, endpoints, service.choice))
    }

    /// The pod that cluster DNS calls `pod` below a Service: by its hostname, or else by its address with dashes.
    fn pod_of_service(&self, key: &ObjectKey, pod: &str, port: u16) -> Found {
        let Some(service) = self.services.get(key).filter(|service| service.is_headless) else {
            return Found::Missing;
        };
        let Some(reaches) = Reaches::of(service, port) else { return Found::Missing };
        let address = dashed(pod);
        let endpoints = self.endpoints(key, &reaches, |endpoint, ip| match &endpoint.hostname {
            Some(hostname) => hostname.eq_ignore_ascii_case(pod),
            None => Some(*ip) == address,
        });
        match endpoints.is_empty() {
            true => Found::Missing,
            false => Found::Is(self.known(key, port, endpoints, Choice::default())),
        }
    }

    fn address(&self, address: SocketAddr) -> Found {
        let ip = address.ip();
        if let Some(key) = self.services_at.get(&ip).next() {
            return self.service(key, address.port(), Some(ip.is_ipv6()));
        }
        let Some(pod) = self.pod_at(ip) else { return Found::Missing };
        let endpoint = self.endpoint(Some(pod), address.port());
        Found::Is(View::Known(Arc::new(Known {
            endpoints: BTreeMap::from([(address, endpoint)]),
            ..Known::default()
        })))
    }

    fn known(
        &self,
        key: &ObjectKey,
        port: u16,
        endpoints: BTreeMap<SocketAddr, Endpoint>,
        choice: Choice,
    ) -> View {
        let ObjectKey { namespace, name } = key;
        let labels = [("namespace", namespace), ("service", name)];
        View::Known(Arc::new(Known {
            service: format!("{name}.{namespace}.svc.{}:{port}", self.scope.zone),
            labels: labels.map(|(label, value)| (label.to_owned(), value.clone())).into(),
            endpoints,
            choice,
        }))
    }

    /// Who takes new connections for the Service: who is ready, or, when nobody is, who still serves while it
    /// terminates, as kube-proxy does from 1.26 on: it is better than nobody.
    fn endpoints(
        &self,
        service: &ObjectKey,
        reaches: &Reaches,
        wanted: impl Fn(&slices::Endpoint, &IpAddr) -> bool,
    ) -> BTreeMap<SocketAddr, Endpoint> {
        let among = |eligible: fn(&slices::Endpoint) -> bool| {
            let slices = self.slices_of.get(service).filter_map(|key| self.slices.get(key));
            let mut found = BTreeMap::new();
            for subset in slices.flat_map(|slice| &slice.subsets) {
                let Some(port) = reaches.port(&subset.ports) else { continue };
                for endpoint in subset.endpoints.iter().filter(|endpoint| eligible(endpoint)) {
                    for ip in endpoint.addresses.iter().filter(|ip| wanted(endpoint, ip)) {
                        let pod = self.pod_behind(endpoint, *ip);
                        found.insert(SocketAddr::new(*ip, port), self.endpoint(pod, port));
                    }
                }
            }
            found
        };
        let ready = among(|endpoint| endpoint.ready);
        if ready.is_empty() { among(|endpoint| endpoint.serving && endpoint.terminating) } else { ready }
    }

    fn endpoint(&self, pod: Option<&Pod>, port: u16) -> Endpoint {
        let Some(pod) = pod else { return Endpoint::default() };
        let described = self.described.get(&ObjectKey::of(&pod.meta));
        let identity = described.and_then(|described| described.identity.clone());
        Endpoint {
            labels: described.map(|described| Arc::clone(&described.labels)).unwrap_or_default(),
            identity: identity.filter(|_| !pod.bypassing.contains(&port)),
            node: pod.node.clone(),
        }
    }

    /// The pod that an endpoint was made for, if it still is the one at `ip`.
    fn pod_behind(&self, endpoint: &slices::Endpoint, ip: IpAddr) -> Option<&Pod> {
        let Some(named) = &endpoint.pod else { return self.pod_at(ip) };
        let pod = self.pods.get(&named.key)?;
        let same = named.uid.is_empty() || named.uid == pod.uid;
        (same && !pod.is_over && pod.ips.contains(&ip)).then_some(pod)
    }

    /// The pod at `ip`. When two claim it, the older one has not been seen to go yet.
    fn pod_at(&self, ip: IpAddr) -> Option<&Pod> {
        let pods = self.pods_at.get(&ip).filter_map(|key| self.pods.get(key)).map(Arc::as_ref);
        let alive = pods.filter(|pod| !pod.is_over && !pod.on_host_network);
        alive.max_by(|a, b| {
            let rank = |pod: &Pod| (!pod.is_deleting, pod.created.clone(), pod.uid.clone());
            rank(a).cmp(&rank(b))
        })
    }
}

/// Which port of an endpoint a port of a Service leads to.
enum Reaches {
    /// There is no virtual address, hence nothing that would translate: the port is the pod's.
    Itself(u16),
    /// The endpoints' port of this name.
    Named(String),
}

impl Reaches {
    /// None when the Service has no such port: the virtual address does not answer there either.
    fn of(service: &Service, port: u16) -> Option<Self> {
        if service.is_headless {
            return Some(Self::Itself(port));
        }
        let found = service.ports.iter().find(|candidate| candidate.port == port)?;
        Some(Self::Named(found.name.clone()))
    }

    fn port(&self, ports: &[slices::Port]) -> Option<u16> {
        match self {
            Self::Itself(port) => Some(*port),
            Self::Named(name) => ports.iter().find(|port| port.name == *name).map(|port| port.port),
        }
    }
}
