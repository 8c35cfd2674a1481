//! What is kept of the objects that are observed: what an answer depends on, and nothing else.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    sync::Arc,
};

use conduit_k8s::{
    injected_tls, is_meshed,
    owned::{
        ANNOTATION_OWNER, INIT_CONTAINER, LABEL_CONTROL_PLANE_NS, PORT_ADMIN, PORT_TAP, PROXY_CONTAINER,
    },
};
use k8s_openapi::{
    api::core::v1,
    apimachinery::pkg::apis::meta::v1::{ObjectMeta, Time},
};

use crate::view::Choice;

/// The label that tells the pods of two versions of a Deployment apart.
pub(crate) const LABEL_POD_TEMPLATE_HASH: &str = "pod-template-hash";
/// The argument of the init container that names the ports whose connections do not come to the proxy.
const IGNORED_PORTS: &str = "--inbound-ports-to-ignore";

/// A Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    /// Its virtual addresses; none when it is headless.
    pub cluster_ips: Vec<IpAddr>,
    /// Its TCP ports.
    pub ports: Vec<ServicePort>,
    /// Without a virtual address: clients choose a pod by DNS.
    pub is_headless: bool,
    /// An alias for a name outside the cluster.
    pub is_external: bool,
    /// Whether its first address family is IPv6; none when it is not told.
    pub is_ipv6: Option<bool>,
    /// What it demands of the choice of an endpoint.
    pub choice: Choice,
}

/// A TCP port of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServicePort {
    /// Its name, by which the endpoints' ports are found; empty when it has none.
    pub name: String,
    /// The port of the virtual address.
    pub port: u16,
}

impl Service {
    /// What is kept of `service`.
    pub fn read(service: v1::Service) -> Self {
        let spec = service.spec.unwrap_or_default();
        let first = spec.cluster_ip.into_iter();
        let more = spec.cluster_ips.unwrap_or_default().into_iter().skip(1);
        let texts: Vec<String> = first.chain(more).collect();
        let cluster_ips: Vec<IpAddr> = texts.iter().filter_map(|text| text.parse().ok()).collect();
        let family = spec.ip_families.unwrap_or_default().first().map(|family| family == "IPv6");
        Self {
            is_headless: texts.iter().any(|text| text == "None"),
            is_external: spec.type_.as_deref() == Some("ExternalName"),
            is_ipv6: cluster_ips.first().map(IpAddr::is_ipv6).or(family),
            cluster_ips,
            ports: spec.ports.unwrap_or_default().into_iter().filter_map(ServicePort::read).collect(),
            choice: Choice {
                by_client: spec.session_affinity.as_deref() == Some("ClientIP"),
                on_node: spec.internal_traffic_policy.as_deref() == Some("Local"),
            },
        }
    }
}

impl ServicePort {
    fn read(port: v1::ServicePort) -> Option<Self> {
        let tcp = port.protocol.as_deref().is_none_or(|protocol| protocol == "TCP");
        let number = u16::try_from(port.port).ok().filter(|_| tcp)?;
        Some(Self { name: port.name.unwrap_or_default(), port: number })
    }
}

/// A pod.
#[derive(Debug, Clone, PartialEq)]
pub struct Pod {
    /// Tells two pods of one name apart.
    pub uid: String,
    /// Its addresses.
    pub ips: Vec<IpAddr>,
    /// Whether it runs: not before its containers were started, and not after they have ended.
    pub is_running: bool,
    /// It has ended, and its addresses may belong to another pod.
    pub is_over: bool,
    /// It is being deleted.
    pub is_deleting: bool,
    /// Its addresses are its node's, and shared.
    pub on_host_network: bool,
    /// Since when it exists.
    pub created: Option<Time>,
    /// Its node.
    pub node: Option<Arc<str>>,
    /// Name, namespace, owner references, and the labels and annotations that answers depend on.
    pub meta: ObjectMeta,
    /// It has a proxy of our control plane, injected with TLS.
    pub has_tls: bool,
    /// The ports that do not lead to its proxy.
    pub bypassing: BTreeSet<u16>,
    /// Its application has ended for good, and only its proxy keeps it from being over.
    pub has_ended: bool,
}

impl Pod {
    /// What is kept of `pod`, for the control plane in `control_plane_ns`.
    pub fn read(pod: v1::Pod, control_plane_ns: &str) -> Self {
        let has_tls = is_meshed(&pod, control_plane_ns) && injected_tls(&pod);
        let bypassing = bypassing(&pod);
        let spec = pod.spec.unwrap_or_default();
        let status = pod.status.unwrap_or_default();
        let has_ended = has_ended(&spec, &status);
        let first = status.pod_ip.into_iter();
        let all = status.pod_ips.unwrap_or_default().into_iter().map(|pod_ip| pod_ip.ip);
        let ips: BTreeSet<IpAddr> = first.chain(all).filter_map(|text| text.parse().ok()).collect();
        let phase = status.phase.unwrap_or_default();
        Self {
            uid: pod.metadata.uid.clone().unwrap_or_default(),
            ips: ips.into_iter().collect(),
            is_running: phase == "Running",
            is_over: matches!(phase.as_str(), "Succeeded" | "Failed"),
            is_deleting: pod.metadata.deletion_timestamp.is_some(),
            on_host_network: spec.host_network == Some(true),
            created: pod.metadata.creation_timestamp.clone(),
            node: spec.node_name.map(Into::into),
            meta: slim(pod.metadata),
            has_tls,
            bypassing,
            has_ended,
        }
    }
}

/// Whether every container but the proxy has ended and will not be started again. In a pod whose containers always are,
/// as those of a Deployment, that is never so.
fn has_ended(spec: &v1::PodSpec, status: &v1::PodStatus) -> bool {
    let is_final = |code: i32| match spec.restart_policy.as_deref() {
        Some("Never") => true,
        Some("OnFailure") => code == 0,
        _ => false,
    };
    let ended = |container: &v1::Container| {
        let mut statuses = status.container_statuses.iter().flatten();
        let status = statuses.find(|status| status.name == container.name);
        let terminated = status.and_then(|status| status.state.as_ref()?.terminated.as_ref());
        terminated.is_some_and(|terminated| is_final(terminated.exit_code))
    };
    let (proxy, application): (Vec<_>, Vec<_>) =
        spec.containers.iter().partition(|container| container.name == PROXY_CONTAINER);
    !proxy.is_empty() && !application.is_empty() && application.into_iter().all(ended)
}

/// The metadata that answers depend on. Labels are kept by name: pods carry many, and change them.
fn slim(meta: ObjectMeta) -> ObjectMeta {
    let keep = |map: Option<BTreeMap<String, String>>, wanted: &dyn Fn(&str) -> bool| {
        let kept: BTreeMap<_, _> =
            map.unwrap_or_default().into_iter().filter(|(key, _)| wanted(key)).collect();
        (!kept.is_empty()).then_some(kept)
    };
    let label = |key: &str| {
        key.starts_with("conduit.io/proxy-")
            || matches!(key, LABEL_CONTROL_PLANE_NS | LABEL_POD_TEMPLATE_HASH)
    };
    ObjectMeta {
        name: meta.name,
        namespace: meta.namespace,
        labels: keep(meta.labels, &label),
        annotations: keep(meta.annotations, &|key| key == ANNOTATION_OWNER),
        owner_references: meta.owner_references,
        ..ObjectMeta::default()
    }
}

/// The ports whose connections go to the application, or to the proxy's own servers, and never to its inbound side: a
/// TLS greeting for the proxy would end up where nobody expects it. What is written in the pod is what was redirected.
fn bypassing(pod: &v1::Pod) -> BTreeSet<u16> {
    let containers = pod.spec.iter().flat_map(|spec| spec.init_containers.iter().flatten());
    let init = containers.filter(|container| container.name == INIT_CONTAINER);
    let args: Vec<&str> =
        init.flat_map(|container| container.args.iter().flatten()).map(String::as_str).collect();
    let separate = args.windows(2).filter(|pair| pair[0] == IGNORED_PORTS).map(|pair| pair[1]);
    let joined = args.iter().filter_map(|arg| arg.strip_prefix(IGNORED_PORTS)?.strip_prefix('='));
    let listed = separate.chain(joined).flat_map(|list| list.split(','));
    let ports = listed.filter_map(|port| port.trim().parse().ok());
    ports.chain([PORT_TAP, PORT_ADMIN]).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn service(spec: Value) -> Service {
        Service::read(serde_json::from_value(json!({"metadata": {}, "spec": spec})).unwrap())
    }

    #[test]
    fn services_of_every_type_are_read() {
        let plain = service(json!({
            "clusterIP": "10.96.0.5", "clusterIPs": ["10.96.0.5", "fd00::5"], "sessionAffinity": "ClientIP",
            "ports": [{"port": 80, "name": "http"}, {"port": 53, "protocol": "UDP"}],
        }));
        assert_eq!(plain.cluster_ips.len(), 2);
        assert_eq!(plain.ports, [ServicePort { name: "http".into(), port: 80 }]);
        assert_eq!(plain.is_ipv6, Some(false));
        assert_eq!(plain.choice, Choice { by_client: true, on_node: false });

        let headless = service(json!({"clusterIP": "None", "ipFamilies": ["IPv6"]}));
        assert!(headless.is_headless && headless.cluster_ips.is_empty());
        assert_eq!(headless.is_ipv6, Some(true));

        let external = service(json!({"type": "ExternalName", "externalName": "db.example.com"}));
        assert!(external.is_external && !external.is_headless);
        assert!(service(json!({"internalTrafficPolicy": "Local"})).choice.on_node);
    }

    #[test]
    fn a_pod_is_read_with_what_its_injection_wrote() {
        let pod = |args: Value| {
            let pod = json!({
                "metadata": {
                    "namespace": "shop", "name": "web-1", "uid": "u1",
                    "labels": {
                        "conduit.io/control-plane-ns": "conduit", "conduit.io/proxy-deployment": "web",
                        "pod-template-hash": "1", "app": "web",
                    },
                    "annotations": {"conduit.io/tls": "optional", "other": "x"},
                },
                "spec": {
                    "nodeName": "node-1",
                    "containers": [{"name": "conduit-proxy"}],
                    "initContainers": [{"name": "conduit-init", "args": args}],
                },
                "status": {"phase": "Running", "podIP": "10.1.0.7", "podIPs": [{"ip": "10.1.0.7"}, {"ip": "fd00::7"}]},
            });
            Pod::read(serde_json::from_value(pod).unwrap(), "conduit")
        };
        let read = pod(json!(["--inbound-ports-to-ignore", "25, 4190,4191", "--proxy-uid", "2102"]));
        assert!(read.has_tls && read.is_running && !read.is_over);
        assert_eq!(read.ips.len(), 2);
        assert_eq!(read.bypassing, BTreeSet::from([25, 4190, 4191]));
        let labels: Vec<String> = read.meta.labels.unwrap().into_keys().collect();
        assert_eq!(
            labels,
            ["conduit.io/control-plane-ns", "conduit.io/proxy-deployment", "pod-template-hash"]
        );
        assert_eq!(read.meta.annotations, None);

        assert_eq!(
            pod(json!(["--inbound-ports-to-ignore=3306"])).bypassing,
            BTreeSet::from([3306, 4190, 4191])
        );
        assert_eq!(pod(Value::Null).bypassing, BTreeSet::from([4190, 4191]));
    }

    #[test]
    fn an_application_has_ended_when_no_container_of_it_is_started_again() {
        let ended = |restart: Value, names: &[&str], states: Value| {
            let statuses = states.as_object().unwrap().iter();
            let statuses: Vec<_> =
                statuses.map(|(name, state)| json!({"name": name, "image": "", "imageID": "", "ready": false, "restartCount": 0, "state": state})).collect();
            let containers: Vec<_> = names.iter().map(|name| json!({"name": name})).collect();
            let pod = json!({
                "metadata": {},
                "spec": {"restartPolicy": restart, "containers": containers},
                "status": {"containerStatuses": statuses},
            });
            Pod::read(serde_json::from_value(pod).unwrap(), "conduit").has_ended
        };
        let (run, zero, one) = (
            json!({"running": {}}),
            json!({"terminated": {"exitCode": 0}}),
            json!({"terminated": {"exitCode": 1}}),
        );
        let names = ["conduit-proxy", "a", "b"];
        let states = |a: &Value, b: &Value| json!({"conduit-proxy": run, "a": a, "b": b});
        for (restart, both_zero, with_one) in [
            (json!("Never"), true, true),
            (json!("OnFailure"), true, false),
            (json!("Always"), false, false),
            (Value::Null, false, false),
        ] {
            assert_eq!(ended(restart.clone(), &names, states(&zero, &zero)), both_zero, "{restart}");
            assert_eq!(ended(restart.clone(), &names, states(&zero, &one)), with_one, "{restart}");
            assert!(!ended(restart.clone(), &names, states(&zero, &run)), "{restart}");
            // One of which nothing is known yet.
            assert!(!ended(restart, &names, json!({"conduit-proxy": run, "a": zero})));
        }
        let never = json!("Never");
        assert!(!ended(never.clone(), &["a"], json!({"a": zero})), "it has no proxy");
        assert!(!ended(never, &["conduit-proxy"], json!({"conduit-proxy": run})), "it has nothing else");
    }

    #[test]
    fn nothing_in_an_object_makes_reading_panic() {
        Pod::read(v1::Pod::default(), "conduit");
        Service::read(v1::Service::default());
        service(json!({"clusterIP": "", "ports": [{"port": 0}, {"port": -1}, {"port": 70000}]}));
    }
}
