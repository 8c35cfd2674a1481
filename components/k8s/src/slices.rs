//! Who answers for a Service, read from EndpointSlices in whichever version the cluster serves: `discovery.k8s.io/v1`
//! (from 1.21), `v1beta1` (1.17 to 1.24), or the Endpoints that came before both.
//!
//! The version is found by asking for a list, which is also what we then need; a cluster that is upgraded and stops
//! serving ours answers "not found", and we ask again from the newest on.

use std::net::IpAddr;

use conduit_runtime::Seed;
use k8s_openapi::{
    api::core::v1::{EndpointAddress, EndpointPort, EndpointSubset, Endpoints, ObjectReference},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Client;
use serde::Deserialize;

use crate::{
    cause::News,
    watch::{Event, Follow, Health, NotServed, Object, ObjectKey, Source, Timing},
};

/// Label of a slice: the Service it belongs to.
const LABEL_SERVICE: &str = "kubernetes.io/service-name";

/// Part or all of what answers for one Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Slice {
    /// The Service; none for a slice that somebody keeps for another purpose.
    pub service: Option<ObjectKey>,
    /// Endpoints with the ports they answer on; one of them, unless it was read from Endpoints.
    pub subsets: Vec<Subset>,
}

/// Endpoints that answer on the same ports.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Subset {
    /// Their ports.
    pub ports: Vec<Port>,
    /// Who answers.
    pub endpoints: Vec<Endpoint>,
}

/// A port of the endpoints, which is the Service's target port, already resolved for these endpoints.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// The name of the Service's port; empty when the Service has one port without a name.
    pub name: String,
    /// The port the endpoints listen on.
    pub port: u16,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Endpoint {
    /// Its addresses, IPv4 or IPv6; all lead to the same pod.
    pub addresses: Vec<IpAddr>,
    /// Whether new connections may be sent to it.
    pub ready: bool,
    /// Whether it would be ready, were it not terminating.
    pub serving: bool,
    /// Whether it is terminating.
    pub terminating: bool,
    /// The name under which it has a DNS record of its own below a headless Service.
    pub hostname: Option<String>,
    /// The pod behind it; none when somebody wrote the endpoint by hand.
    pub pod: Option<PodRef>,
}

/// Which pod: the uid tells two lives of a name, and two owners of an address, apart.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PodRef {
    /// Its namespace and name.
    pub key: ObjectKey,
    /// Its uid; empty when the writer of the endpoint did not say.
    pub uid: String,
}

/// Calls `on` with every slice of the cluster, for ever. Dropping it stops the following.
pub async fn follow(
    client: Client,
    timing: Timing,
    seed: Seed,
    health: Health,
    news: News,
    mut on: impl FnMut(Event<Slice>),
) {
    let mut retry = conduit_runtime::Backoff::new(timing.retry_min, timing.retry_max, &seed.fork("slices"));
    loop {
        for path in
            ["/apis/discovery.k8s.io/v1/endpointslices", "/apis/discovery.k8s.io/v1beta1/endpointslices"]
        {
            let source = Source::<EndpointSlice>::at(client.clone(), path);
            let mut following =
                Follow::new(source, timing.clone(), &seed).reporting_to(health.clone()).telling(news.clone());
            let NotServed = following.run_while_served(&EndpointSlice::read, &mut on).await;
        }
        let source = Source::<Endpoints>::all(client.clone());
        let mut following =
            Follow::new(source, timing.clone(), &seed).reporting_to(health.clone()).telling(news.clone());
        let NotServed = following.run_while_served(&from_endpoints, &mut on).await;
        tokio::time::sleep(retry.next_delay()).await;
    }
}

/// What `v1` and `v1beta1` have in common, which is all we need.
#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct EndpointSlice {
    metadata: ObjectMeta,
    endpoints: Option<Vec<SliceEndpoint>>,
    ports: Option<Vec<SlicePort>>,
}

#[derive(Debug, Clone, Deserialize)]
#[serde(rename_all = "camelCase")]
struct SliceEndpoint {
    addresses: Option<Vec<String>>,
    conditions: Option<Conditions>,
    hostname: Option<String>,
    target_ref: Option<ObjectReference>,
}

#[derive(Debug, Clone, Default, Deserialize)]
struct Conditions {
    ready: Option<bool>,
    serving: Option<bool>,
    terminating: Option<bool>,
}

#[derive(Debug, Clone, Deserialize)]
struct SlicePort {
    name: Option<String>,
    port: Option<i32>,
    protocol: Option<String>,
}

impl Object for EndpointSlice {
    fn meta(&self) -> &ObjectMeta {
        &self.metadata
    }
}

impl EndpointSlice {
    fn read(self) -> Slice {
        let namespace = self.metadata.namespace.unwrap_or_default();
        let service = self.metadata.labels.and_then(|mut labels| labels.remove(LABEL_SERVICE));
        let ports = self.ports.unwrap_or_default().into_iter();
        let endpoints = self.endpoints.unwrap_or_default().into_iter();
        Slice {
            service: service.map(|name| ObjectKey::new(&namespace, name)),
            subsets: vec![Subset {
                ports: ports.filter_map(|port| read_port(port.name, port.port?, port.protocol)).collect(),
                endpoints: endpoints.map(|endpoint| endpoint.read(&namespace)).collect(),
            }],
        }
    }
}

impl SliceEndpoint {
    /// Conditions that are not told: "ready" is to be taken as true, "serving" as "ready", "terminating" as false
    /// (the API's documentation of `EndpointConditions`).
    fn read(self, namespace: &str) -> Endpoint {
        let conditions = self.conditions.unwrap_or_default();
        let ready = conditions.ready.unwrap_or(true);
        Endpoint {
            // Slices of names (address type FQDN) have none that parse.
            addresses: self.addresses.iter().flatten().filter_map(|address| address.parse().ok()).collect(),
            ready,
            serving: conditions.serving.unwrap_or(ready),
            terminating: conditions.terminating.unwrap_or(false),
            hostname: self.hostname,
            pod: self.target_ref.and_then(|target| read_target(target, namespace)),
        }
    }
}

fn from_endpoints(endpoints: Endpoints) -> Slice {
    let key = ObjectKey::of(&endpoints.metadata);
    let subsets = endpoints.subsets.unwrap_or_default();
    Slice {
        subsets: subsets.into_iter().map(|subset| from_subset(subset, &key.namespace)).collect(),
        service: Some(key),
    }
}

fn from_subset(subset: EndpointSubset, namespace: &str) -> Subset {
    let read = |ready: bool| {
        move |address: EndpointAddress| Endpoint {
            addresses: address.ip.parse().into_iter().collect(),
            ready,
            serving: ready,
            terminating: false,
            hostname: address.hostname,
            pod: address.target_ref.and_then(|target| read_target(target, namespace)),
        }
    };
    let ready = subset.addresses.unwrap_or_default().into_iter().map(read(true));
    let not_ready = subset.not_ready_addresses.unwrap_or_default().into_iter().map(read(false));
    let ports = subset.ports.unwrap_or_default().into_iter();
    Subset {
        ports: ports
            .filter_map(|EndpointPort { name, port, protocol, .. }| read_port(name, port, protocol))
            .collect(),
        endpoints: ready.chain(not_ready).collect(),
    }
}

/// Ports of other protocols than TCP are left out: nothing of Conduit's sees their traffic.
fn read_port(name: Option<String>, port: i32, protocol: Option<String>) -> Option<Port> {
    let tcp = protocol.is_none_or(|protocol| protocol == "TCP");
    let port = u16::try_from(port).ok().filter(|port| tcp && *port != 0)?;
    Some(Port { name: name.unwrap_or_default(), port })
}

fn read_target(target: ObjectReference, namespace: &str) -> Option<PodRef> {
    let name = target.name.filter(|_| target.kind.as_deref() == Some("Pod"))?;
    let namespace = target.namespace.unwrap_or_else(|| namespace.to_owned());
    Some(PodRef { key: ObjectKey::new(namespace, name), uid: target.uid.unwrap_or_default() })
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn slice(value: serde_json::Value) -> Slice {
        serde_json::from_value::<EndpointSlice>(value).unwrap().read()
    }

    /// As a 1.20 API server sends it.
    #[test]
    fn a_v1beta1_slice_is_read() {
        let slice = slice(json!({
            "metadata": {"namespace": "shop", "name": "web-x", "labels": {LABEL_SERVICE: "web"}},
            "addressType": "IPv4",
            "ports": [
                {"name": "http", "port": 8080, "protocol": "TCP"},
                {"name": "dns", "port": 53, "protocol": "UDP"},
            ],
            "endpoints": [{
                "addresses": ["10.1.0.7"],
                "conditions": {"ready": false},
                "topology": {"kubernetes.io/hostname": "node-1"},
                "targetRef": {"kind": "Pod", "namespace": "shop", "name": "web-1", "uid": "u1"},
            }],
        }));
        assert_eq!(slice.service, Some(ObjectKey::new("shop", "web")));
        let [subset] = &slice.subsets[..] else { panic!("one subset expected: {slice:?}") };
        assert_eq!(subset.ports, [Port { name: "http".into(), port: 8080 }]);
        let [endpoint] = &subset.endpoints[..] else { panic!("one endpoint expected: {slice:?}") };
        assert_eq!(endpoint.addresses, ["10.1.0.7".parse::<IpAddr>().unwrap()]);
        assert!(!endpoint.ready && !endpoint.serving && !endpoint.terminating);
        assert_eq!(endpoint.pod, Some(PodRef { key: ObjectKey::new("shop", "web-1"), uid: "u1".into() }));
    }

    #[test]
    fn conditions_that_are_not_told_mean_ready() {
        let slice = slice(json!({
            "metadata": {"namespace": "shop", "name": "web-x"},
            "endpoints": [{"addresses": ["fd00::1", "web.example.com"]}],
            "ports": null,
        }));
        assert_eq!(slice.service, None);
        let endpoint = &slice.subsets[0].endpoints[0];
        assert!(endpoint.ready && endpoint.serving && !endpoint.terminating);
        assert_eq!(endpoint.addresses, ["fd00::1".parse::<IpAddr>().unwrap()], "a name is no address");
        assert_eq!(endpoint.pod, None);
    }

    #[test]
    fn endpoints_become_one_subset_each() {
        let endpoints = serde_json::from_value(json!({
            "metadata": {"namespace": "shop", "name": "db"},
            "subsets": [
                {"addresses": [{"ip": "10.1.0.1"}], "notReadyAddresses": [{"ip": "10.1.0.2"}],
                 "ports": [{"port": 5432}]},
                {"addresses": [{"ip": "10.1.0.3", "hostname": "db-0"}], "ports": [{"port": 5433, "name": "alt"}]},
            ],
        }))
        .unwrap();
        let slice = from_endpoints(endpoints);
        assert_eq!(slice.service, Some(ObjectKey::new("shop", "db")));
        let ready: Vec<Vec<bool>> =
            slice.subsets.iter().map(|subset| subset.endpoints.iter().map(|e| e.ready).collect()).collect();
        assert_eq!(ready, [vec![true, false], vec![true]]);
        assert_eq!(slice.subsets[0].ports, [Port { name: String::new(), port: 5432 }]);
        assert_eq!(slice.subsets[1].endpoints[0].hostname.as_deref(), Some("db-0"));
    }
}
