//! Objects for tests and the demo: what a user's `kubectl apply` and a cluster's controllers leave behind.
//!
//! The plain functions build objects, which the caller may edit before creating them; [`deploy`] and [`start_pod`] do
//! what the controllers and a kubelet do. There is no workload controller here: pods are made by whoever needs them.

use std::{collections::BTreeMap, net::IpAddr};

use k8s_openapi::{
    api::{
        apps::v1::{Deployment, DeploymentSpec, ReplicaSet, ReplicaSetSpec},
        core::v1::{
            Container, ContainerPort, Namespace, Pod, PodSpec, PodTemplateSpec, Service, ServicePort,
            ServiceSpec,
        },
    },
    apimachinery::pkg::{
        apis::meta::v1::{LabelSelector, ObjectMeta, OwnerReference},
        util::intstr::IntOrString,
    },
};
use kube::{
    Api, Client, Resource,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::json;

/// The label by which services and selectors of fixtures find their pods.
pub const APP_LABEL: &str = "app";
/// The port an application listens on unless the caller says otherwise.
pub const APP_PORT: i32 = 80;

/// A Deployment with the ReplicaSet and the pods that a cluster would make of it.
#[derive(Debug, Clone)]
pub struct Deployed {
    /// The Deployment.
    pub deployment: Deployment,
    /// Its one ReplicaSet.
    pub replica_set: ReplicaSet,
    /// Its pods, running and ready, in the order of their addresses.
    pub pods: Vec<Pod>,
}

/// A namespace of this name.
pub fn namespace(name: &str) -> Namespace {
    Namespace {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    }
}

/// A Deployment whose pods carry the label `app=<name>` and run one container `app` with one port, `http`, 80.
pub fn deployment(namespace: &str, name: &str) -> Deployment {
    let labels = app_labels(name);
    let container = Container {
        name: "app".to_owned(),
        image: Some(format!("example/{name}:v1")),
        ports: Some(vec![ContainerPort {
            name: Some("http".to_owned()),
            container_port: APP_PORT,
            ..Default::default()
        }]),
        ..Default::default()
    };
    Deployment {
        metadata: metadata(namespace, name, &labels),
        spec: Some(DeploymentSpec {
            replicas: Some(1),
            selector: LabelSelector { match_labels: Some(labels.clone()), ..Default::default() },
            template: PodTemplateSpec {
                metadata: Some(ObjectMeta { labels: Some(labels), ..Default::default() }),
                spec: Some(PodSpec { containers: vec![container], ..Default::default() }),
            },
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The ReplicaSet of a Deployment that was created: it has its template, and is owned by it.
pub fn replica_set(deployment: &Deployment) -> ReplicaSet {
    let spec = deployment.spec.clone().unwrap_or_default();
    let hash = BTreeMap::from([("pod-template-hash".to_owned(), TEMPLATE_HASH.to_owned())]);
    let mut selector = spec.selector;
    selector.match_labels.get_or_insert_default().extend(hash.clone());
    let mut template = spec.template;
    template.metadata.get_or_insert_default().labels.get_or_insert_default().extend(hash);
    let labels = template.metadata.clone().unwrap_or_default().labels.unwrap_or_default();
    let name = format!("{}-{TEMPLATE_HASH}", name_of(deployment));
    let mut metadata = metadata(&namespace_of(deployment), &name, &labels);
    metadata.owner_references = Some(vec![owned_by(deployment)]);
    let spec =
        ReplicaSetSpec { replicas: spec.replicas, selector, template: Some(template), ..Default::default() };
    ReplicaSet { metadata, spec: Some(spec), ..Default::default() }
}

/// The `index`th pod of a ReplicaSet that was created.
pub fn pod(replica_set: &ReplicaSet, index: usize) -> Pod {
    let template = replica_set.spec.clone().unwrap_or_default().template.unwrap_or_default();
    let mut pod = pod_of_template(&namespace_of(replica_set), template);
    pod.metadata.name = Some(format!("{}-{}", name_of(replica_set), suffix(index)));
    pod.metadata.owner_references = Some(vec![owned_by(replica_set)]);
    pod
}

/// A pod of a template, without name and owner.
pub fn pod_of_template(namespace: &str, template: PodTemplateSpec) -> Pod {
    let mut metadata = template.metadata.unwrap_or_default();
    metadata.namespace = Some(namespace.to_owned());
    Pod { metadata, spec: template.spec, ..Default::default() }
}

/// A Service for the pods labelled `app=<name>`: of each port its name and number, which is also the pods'.
pub fn service(namespace: &str, name: &str, ports: &[(&str, u16)]) -> Service {
    let ports = ports.iter().map(|(port_name, number)| ServicePort {
        name: Some((*port_name).to_owned()),
        port: i32::from(*number),
        target_port: Some(IntOrString::Int(i32::from(*number))),
        protocol: Some("TCP".to_owned()),
        ..Default::default()
    });
    Service {
        metadata: metadata(namespace, name, &app_labels(name)),
        spec: Some(ServiceSpec {
            selector: Some(app_labels(name)),
            ports: Some(ports.collect()),
            ..Default::default()
        }),
        ..Default::default()
    }
}

/// The reference that makes `owner`, which was created, the controller of another object.
pub fn owned_by<K: Resource<DynamicType = ()>>(owner: &K) -> OwnerReference {
    owner.controller_owner_ref(&()).unwrap_or_default()
}

/// Creates a Deployment, its ReplicaSet and a running, ready pod at each address.
///
/// # Errors
/// The API's.
pub async fn deploy(
    client: &Client,
    deployment: &Deployment,
    addresses: &[IpAddr],
) -> kube::Result<Deployed> {
    let namespace = namespace_of(deployment);
    let params = PostParams::default();
    let deployment = Api::namespaced(client.clone(), &namespace).create(&params, deployment).await?;
    let replica_set =
        Api::namespaced(client.clone(), &namespace).create(&params, &replica_set(&deployment)).await?;
    let mut pods = Vec::with_capacity(addresses.len());
    for (index, address) in addresses.iter().enumerate() {
        pods.push(start_pod(client, &pod(&replica_set, index), *address).await?);
    }
    Ok(Deployed { deployment, replica_set, pods })
}

/// Creates a pod and reports it running and ready at `address`, as a kubelet does.
///
/// # Errors
/// The API's.
pub async fn start_pod(client: &Client, pod: &Pod, address: IpAddr) -> kube::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), &namespace_of(pod));
    let created = pods.create(&PostParams::default(), pod).await?;
    let status = json!({ "status": {
        "phase": "Running",
        "podIP": address,
        "podIPs": [{ "ip": address }],
        "conditions": [condition("ContainersReady", true), condition("Ready", true)],
    } });
    pods.patch_status(&name_of(&created), &PatchParams::default(), &Patch::Strategic(status)).await
}

/// Reports a pod ready or not, as a kubelet does after a probe.
///
/// # Errors
/// The API's.
pub async fn set_ready(client: &Client, namespace: &str, pod: &str, ready: bool) -> kube::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let conditions = [condition("ContainersReady", ready), condition("Ready", ready)];
    let status = json!({ "status": { "conditions": conditions } });
    pods.patch_status(pod, &PatchParams::default(), &Patch::Strategic(status)).await
}

/// What a pod template's hash looks like; fixtures have one template for ever.
const TEMPLATE_HASH: &str = "5d8b7c9f4";

fn condition(kind: &str, holds: bool) -> serde_json::Value {
    json!({ "type": kind, "status": if holds { "True" } else { "False" } })
}

fn app_labels(name: &str) -> BTreeMap<String, String> {
    BTreeMap::from([(APP_LABEL.to_owned(), name.to_owned())])
}

fn metadata(namespace: &str, name: &str, labels: &BTreeMap<String, String>) -> ObjectMeta {
    ObjectMeta {
        name: Some(name.to_owned()),
        namespace: Some(namespace.to_owned()),
        labels: Some(labels.clone()),
        ..Default::default()
    }
}

/// Five letters of the kind that `generateName` draws, counting upwards.
fn suffix(index: usize) -> String {
    const LETTERS: &[u8] = b"bcdfghjklm";
    let digits = [10_000, 1000, 100, 10, 1].map(|unit| index / unit % 10);
    digits.iter().map(|digit| char::from(LETTERS[*digit])).collect()
}

fn name_of<K: Resource>(object: &K) -> String {
    object.meta().name.clone().unwrap_or_default()
}

fn namespace_of<K: Resource>(object: &K) -> String {
    object.meta().namespace.clone().unwrap_or_else(|| "default".to_owned())
}
