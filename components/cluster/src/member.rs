//! What one pod is to one Service: whether it counts, where it is, which ports it has, how it is.

use std::sync::Arc;

use serde_json::{Value, json};

use crate::{
    SliceVersion,
    object::{Object, items, text},
};

/// A pod behind a Service.
#[derive(Debug, Clone)]
pub(crate) struct Member {
    address: String,
    /// The Service's ports as this pod has them; a named port that it does not have is missing.
    pub(crate) ports: Vec<Value>,
    serving: bool,
    pub(crate) terminating: bool,
    /// The Service wants its pods seen before they are ready.
    pub(crate) published: bool,
    hostname: Option<String>,
    node: String,
    target: Value,
}

/// The pods that belong into a Service's endpoints, by address.
pub(crate) fn members(service: &Object, pods: &[Arc<Object>]) -> Vec<Member> {
    let mut members: Vec<_> = pods.iter().filter_map(|pod| member(service, pod)).collect();
    members.sort_by(|a, b| address_order(a).cmp(&address_order(b)));
    members
}

fn address_order(member: &Member) -> (Option<std::net::IpAddr>, &str) {
    (member.address.parse().ok(), text(&member.target, "/name"))
}

fn member(service: &Object, pod: &Object) -> Option<Member> {
    let (spec, value) = (&service.value["spec"], &pod.value);
    let address = text(value, "/status/podIP");
    // A pod that has run to its end will not come back to this address.
    if address.is_empty() || matches!(text(value, "/status/phase"), "Succeeded" | "Failed") {
        return None;
    }
    let ready = items(value, "/status/conditions")
        .iter()
        .any(|condition| text(condition, "/type") == "Ready" && text(condition, "/status") == "True");
    let in_domain = text(value, "/spec/subdomain") == text(&service.value, "/metadata/name");
    let hostname = text(value, "/spec/hostname");
    Some(Member {
        address: address.to_owned(),
        ports: items(spec, "/ports").iter().filter_map(|port| resolve(port, value)).collect(),
        serving: ready,
        terminating: !text(value, "/metadata/deletionTimestamp").is_empty(),
        published: spec["publishNotReadyAddresses"] == Value::Bool(true),
        hostname: (in_domain && !hostname.is_empty()).then(|| hostname.to_owned()),
        node: text(value, "/spec/nodeName").to_owned(),
        target: json!({
            "kind": "Pod",
            "namespace": text(value, "/metadata/namespace"),
            "name": text(value, "/metadata/name"),
            "uid": pod.uid(),
        }),
    })
}

/// A Service's port as a pod has it.
fn resolve(port: &Value, pod: &Value) -> Option<Value> {
    let protocol = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
    let target = port.get("targetPort").unwrap_or(&port["port"]);
    let number = match target {
        Value::String(name) => named_port(pod, name, protocol)?,
        number => number.as_u64()?,
    };
    let mut resolved = json!({ "name": text(port, "/name"), "port": number, "protocol": protocol });
    if let Some(application) = port.get("appProtocol") {
        resolved["appProtocol"] = application.clone();
    }
    Some(resolved)
}

fn named_port(pod: &Value, name: &str, protocol: &str) -> Option<u64> {
    // An init container that restarts is a sidecar, and its ports count.
    let sidecars = items(pod, "/spec/initContainers")
        .iter()
        .filter(|container| text(container, "/restartPolicy") == "Always");
    let containers = items(pod, "/spec/containers").iter().chain(sidecars);
    containers
        .flat_map(|container| items(container, "/ports"))
        .find(|port| {
            let speaks = port.get("protocol").and_then(Value::as_str).unwrap_or("TCP");
            text(port, "/name") == name && speaks == protocol
        })
        .and_then(|port| port["containerPort"].as_u64())
}

impl Member {
    /// Whether traffic should go there.
    pub(crate) fn ready(&self) -> bool {
        self.published || self.serving && !self.terminating
    }

    pub(crate) fn family(&self) -> &'static str {
        if self.address.contains(':') { "IPv6" } else { "IPv4" }
    }

    /// As Endpoints show it.
    pub(crate) fn address(&self) -> Value {
        let mut address = json!({ "ip": self.address });
        if let Some(hostname) = &self.hostname {
            address["hostname"] = hostname.as_str().into();
        }
        if !self.node.is_empty() {
            address["nodeName"] = self.node.as_str().into();
        }
        address["targetRef"] = self.target.clone();
        address
    }

    /// As an EndpointSlice shows it.
    pub(crate) fn endpoint(&self, version: SliceVersion) -> Value {
        let mut endpoint = json!({ "addresses": [self.address] });
        endpoint["conditions"] = match version {
            SliceVersion::V1 => {
                json!({ "ready": self.ready(), "serving": self.serving, "terminating": self.terminating })
            }
            SliceVersion::V1Beta1 => json!({ "ready": self.ready() }),
        };
        if let Some(hostname) = &self.hostname {
            endpoint["hostname"] = hostname.as_str().into();
        }
        if !self.node.is_empty() {
            match version {
                SliceVersion::V1 => endpoint["nodeName"] = self.node.as_str().into(),
                SliceVersion::V1Beta1 => {
                    endpoint["topology"] = json!({ "kubernetes.io/hostname": self.node });
                }
            }
        }
        endpoint["targetRef"] = self.target.clone();
        endpoint
    }
}
