//! The objects a mesh consists of in the API, as `conduit install`, `conduit inject` and the cluster's own controllers
//! would have written them. Pure.

use std::{net::IpAddr, time::Duration};

use conduit_identity::{ControlPlane, Workload};
use conduit_k8s::owned;
use k8s_openapi::api::{
    apps::v1::{Deployment as KubeDeployment, ReplicaSet},
    core::v1::{Namespace, Pod, Service as KubeService},
};
use serde_json::{Value, json};

use crate::{
    deployment::{Deployment, Service, Sidecar},
    sidecar,
};

/// A namespace.
pub(crate) fn namespace(name: &str) -> Result<Namespace, serde_json::Error> {
    serde_json::from_value(json!({"metadata": {"name": name}}))
}

/// What a pod is made from: its metadata without a name, and its spec.
pub(crate) struct Template {
    pub(crate) labels: Value,
    pub(crate) annotations: Value,
    pub(crate) spec: Value,
}

impl Template {
    /// The template of an application's Deployment, injected as it says.
    pub(crate) fn of(deployment: &Deployment, control_plane: &ControlPlane, grace: Duration) -> Self {
        let ports: Vec<Value> = deployment
            .ports
            .iter()
            .map(|port| json!({"name": port.name, "containerPort": port.number, "protocol": "TCP"}))
            .collect();
        let container = json!({"name": deployment.name, "image": "conduit/app", "ports": ports});
        let mut template = Self {
            labels: json!({"app": deployment.label}),
            annotations: json!({}),
            spec: json!({"containers": [container]}),
        };
        if deployment.sidecar != Sidecar::Absent {
            template.inject(deployment, control_plane, grace);
        }
        template
    }

    /// The template of a component of the control plane: no sidecar, but a certificate of its own where it serves TLS.
    pub(crate) fn component(component: &Workload, ports: &[(&str, u16)], has_certificate: bool) -> Self {
        let ports: Vec<Value> =
            ports.iter().map(|(name, port)| json!({"name": name, "containerPort": port})).collect();
        let mut container = json!({"name": component.name, "image": "conduit/component", "ports": ports});
        let mut spec = json!({"serviceAccountName": format!("conduit-{}", component.name)});
        let tls = if has_certificate { owned::TLS_OPTIONAL } else { owned::TLS_DISABLED };
        if has_certificate {
            container["volumeMounts"] = mounts();
            spec["volumes"] = json!([identity_volume(component, true)]);
        }
        spec["containers"] = json!([container]);
        let annotations = json!({owned::ANNOTATION_TLS: tls});
        Self { labels: json!({owned::LABEL_COMPONENT: component.name}), annotations, spec }
    }

    fn inject(&mut self, deployment: &Deployment, control_plane: &ControlPlane, grace: Duration) {
        let workload = deployment.workload();
        let has_tls = deployment.sidecar == Sidecar::Tls;
        self.labels[owned::LABEL_CONTROL_PLANE_NS] = json!(control_plane.namespace);
        if let Some(label) = workload.kind.proxy_label() {
            self.labels[label] = json!(workload.label_value());
        }
        self.annotations = json!({
            owned::ANNOTATION_CREATED_BY: format!("conduit/demo {}", env!("CARGO_PKG_VERSION")),
            owned::ANNOTATION_PROXY_VERSION: env!("CARGO_PKG_VERSION"),
            owned::ANNOTATION_TLS: if has_tls { owned::TLS_OPTIONAL } else { owned::TLS_DISABLED },
            owned::ANNOTATION_OWNER: owned::owner_annotation(&workload),
        });
        let env: Vec<Value> =
            sidecar::environment(deployment, control_plane, grace, owned::IDENTITY_MOUNT.as_ref())
                .into_iter()
                .map(|(name, value)| json!({"name": name, "value": value}))
                .collect();
        let mut proxy = json!({
            "name": owned::PROXY_CONTAINER,
            "image": format!("conduit/proxy:{}", env!("CARGO_PKG_VERSION")),
            "env": env,
            "ports": [
                {"name": owned::PORT_NAME_PROXY, "containerPort": owned::PORT_INBOUND},
                {"name": owned::PORT_NAME_METRICS, "containerPort": owned::PORT_ADMIN},
            ],
        });
        if has_tls {
            proxy["volumeMounts"] = mounts();
            self.spec["volumes"] = json!([identity_volume(&workload, deployment.mounts_certificate)]);
        }
        let init = format!("conduit/proxy-init:{}", env!("CARGO_PKG_VERSION"));
        self.spec["initContainers"] = json!([{"name": owned::INIT_CONTAINER, "image": init}]);
        if let Some(containers) = self.spec["containers"].as_array_mut() {
            containers.insert(0, proxy);
        }
    }
}

fn mounts() -> Value {
    json!([{"name": owned::IDENTITY_VOLUME, "mountPath": owned::IDENTITY_MOUNT, "readOnly": true}])
}

/// Certificate, key and trust anchors in one volume, all of them optional: a pod must start before they exist.
fn identity_volume(workload: &Workload, with_certificate: bool) -> Value {
    let item = |key: &str| json!({"key": key, "path": key});
    let mut sources = Vec::new();
    if with_certificate {
        let certificate = [owned::SECRET_CERT_KEY, owned::SECRET_PRIVATE_KEY, owned::SECRET_CA_KEY].map(item);
        sources.push(json!({"secret": {
            "name": workload.secret_name(),
            "optional": true,
            "items": certificate,
        }}));
    }
    sources.push(json!({"configMap": {
        "name": owned::BUNDLE_CONFIGMAP,
        "optional": true,
        "items": [item(owned::BUNDLE_KEY)],
    }}));
    json!({"name": owned::IDENTITY_VOLUME, "projected": {"defaultMode": 0o444, "sources": sources}})
}

/// The Deployment of `workload`.
pub(crate) fn deployment(
    workload: &Workload,
    template: &Template,
    replicas: usize,
) -> Result<KubeDeployment, serde_json::Error> {
    serde_json::from_value(json!({
        "metadata": {"name": workload.name, "namespace": workload.namespace, "labels": template.labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": template.labels},
            "template": pod_template(template),
        },
    }))
}

/// The ReplicaSet that the Deployment's controller makes.
pub(crate) fn replica_set(
    workload: &Workload,
    template: &Template,
    replicas: usize,
    owner_uid: &str,
) -> Result<ReplicaSet, serde_json::Error> {
    serde_json::from_value(json!({
        "metadata": {
            "name": replica_set_name(workload),
            "namespace": workload.namespace,
            "labels": template.labels,
            "ownerReferences": [owner("Deployment", &workload.name, owner_uid)],
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": template.labels},
            "template": pod_template(template),
        },
    }))
}

/// A pod that the ReplicaSet's controller makes; the API server completes its name.
pub(crate) fn pod(
    workload: &Workload,
    template: &Template,
    owner_uid: &str,
) -> Result<Pod, serde_json::Error> {
    let replica_set = replica_set_name(workload);
    serde_json::from_value(json!({
        "metadata": {
            "generateName": format!("{replica_set}-"),
            "namespace": workload.namespace,
            "labels": template.labels,
            "annotations": template.annotations,
            "ownerReferences": [owner("ReplicaSet", &replica_set, owner_uid)],
        },
        "spec": template.spec,
    }))
}

fn pod_template(template: &Template) -> Value {
    let metadata = json!({"labels": template.labels, "annotations": template.annotations});
    json!({"metadata": metadata, "spec": template.spec})
}

/// A Deployment's controller appends a hash of the template; one template a Deployment is all there is here.
fn replica_set_name(workload: &Workload) -> String {
    format!("{}-7c9d8b5f46", workload.name)
}

fn owner(kind: &str, name: &str, uid: &str) -> Value {
    json!({
        "apiVersion": "apps/v1", "kind": kind, "name": name, "uid": uid,
        "controller": true, "blockOwnerDeletion": true,
    })
}

/// The status that kubelet gives a pod whose containers run.
pub(crate) fn pod_status(ip: IpAddr, containers: &[String], is_ready: bool) -> Value {
    let condition =
        |kind: &str, holds: bool| json!({"type": kind, "status": if holds { "True" } else { "False" }});
    let statuses: Vec<Value> = containers
        .iter()
        .map(|name| {
            json!({
                "name": name, "ready": is_ready, "restartCount": 0, "image": "", "imageID": "",
                "state": {"running": {}},
            })
        })
        .collect();
    json!({"status": {
        "phase": "Running",
        "podIP": ip.to_string(),
        "podIPs": [{"ip": ip.to_string()}],
        "conditions": [
            condition("PodScheduled", true),
            condition("Initialized", true),
            condition("ContainersReady", is_ready),
            condition("Ready", is_ready),
        ],
        "containerStatuses": statuses,
    }})
}

/// A Service.
pub(crate) fn service(service: &Service, selector: &str) -> Result<KubeService, serde_json::Error> {
    let ports: Vec<Value> = service
        .ports
        .iter()
        .map(|port| json!({"name": port.name, "port": port.port, "targetPort": port.target, "protocol": "TCP"}))
        .collect();
    let mut spec = json!({"selector": {selector: service.selects}, "ports": ports});
    if service.headless {
        spec["clusterIP"] = json!("None");
    }
    let metadata = json!({"name": service.name, "namespace": service.namespace});
    serde_json::from_value(json!({"metadata": metadata, "spec": spec}))
}
