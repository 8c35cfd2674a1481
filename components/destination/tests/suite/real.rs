//! In front of the cluster that `KUBECONFIG` names, whose own controllers make the endpoints: of whichever version its
//! slices are. Run by name, as a user who may do everything:
//! `cargo nextest run -p conduit-destination --run-ignored only`.

use std::time::Duration;

use conduit_identity::ManualClock;
use conduit_net::TokioNetwork;
use conduit_runtime::Seed;
use http::{Method, Request};
use kube::Client;
use rand::Rng;
use serde_json::{Value, json};
use tokio::time::{sleep, timeout};

use crate::world::{Destination, NOW, SOON};

/// A namespace and a node of its name that nobody runs.
struct Scratch {
    client: Client,
    name: String,
}

impl Scratch {
    async fn new() -> Self {
        let client = conduit_k8s::client::infer(TokioNetwork::shared()).await.unwrap();
        let name = format!("conduit-destination-{:08x}", Seed::from_os().unwrap().rng().next_u32());
        let scratch = Self { client, name };
        scratch.send(Method::POST, "/api/v1/namespaces", json!({"metadata": {"name": scratch.name}})).await;
        let node = json!({"metadata": {"name": scratch.name}, "spec": {"unschedulable": true}});
        scratch.send(Method::POST, "/api/v1/nodes", node).await;
        scratch
    }

    async fn remove(self) {
        for kind in ["nodes", "namespaces"] {
            self.send(Method::DELETE, &format!("/api/v1/{kind}/{}", self.name), Value::Null).await;
        }
    }

    /// The path of `rest` in the namespace.
    fn at(&self, api: &str, rest: &str) -> String {
        format!("{api}/namespaces/{}/{rest}", self.name)
    }

    async fn post(&self, rest: &str, body: Value) {
        self.send(Method::POST, &self.at("/api/v1", rest), body).await;
    }

    async fn send(&self, method: Method, path: &str, body: Value) -> Value {
        let kind = match method {
            Method::PATCH => "application/strategic-merge-patch+json",
            _ => "application/json",
        };
        let body = if body.is_null() { Vec::new() } else { body.to_string().into_bytes() };
        let request = Request::builder().method(method).uri(path).header("content-type", kind).body(body);
        self.client.request(request.unwrap()).await.unwrap()
    }

    /// The pod that the real controllers made for `app`.
    async fn pod_of(&self, app: &str) -> String {
        let path = self.at("/api/v1", &format!("pods?labelSelector=app%3D{app}"));
        let made = async {
            loop {
                let list = self.send(Method::GET, &path, Value::Null).await;
                match list["items"][0]["metadata"]["name"].as_str() {
                    Some(name) => return name.to_owned(),
                    None => sleep(Duration::from_millis(100)).await,
                }
            }
        };
        timeout(SOON, made).await.expect("a pod is made")
    }

    /// What a scheduler and a kubelet would do.
    async fn run(&self, pod: &str, ip: &str) {
        let target = json!({"kind": "Node", "name": self.name});
        let binding = json!({"metadata": {"name": pod}, "target": target});
        self.post(&format!("pods/{pod}/binding"), binding).await;
        let status = json!({"phase": "Running", "podIP": ip, "podIPs": [{"ip": ip}]});
        self.status(pod, status).await;
        self.ready(pod, "True").await;
    }

    async fn ready(&self, pod: &str, ready: &str) {
        self.status(pod, json!({"conditions": [{"type": "Ready", "status": ready}]})).await;
    }

    async fn status(&self, pod: &str, status: Value) {
        let path = self.at("/api/v1", &format!("pods/{pod}/status"));
        self.send(Method::PATCH, &path, json!({"status": status})).await;
    }

    async fn service(&self, name: &str, spec: Value) {
        self.post("services", json!({"metadata": {"name": name}, "spec": spec})).await;
    }

    /// A Deployment as `conduit inject --tls=optional` leaves it, whose pods no scheduler takes.
    async fn deploy(&self, app: &str) {
        let port = json!({"name": "http", "containerPort": 8080});
        let template = json!({
            "metadata": {
                "labels": {
                    "app": app, "conduit.io/control-plane-ns": "conduit", "conduit.io/proxy-deployment": app,
                },
                "annotations": {"conduit.io/tls": "optional", "conduit.io/owner": format!("deployment/{app}")},
            },
            "spec": {
                "schedulerName": "nobody",
                "containers": [
                    {"name": "conduit-proxy", "image": "example/proxy:1"},
                    {"name": "app", "image": "example/app:1", "ports": [port]},
                ],
            },
        });
        let spec = json!({"selector": {"matchLabels": {"app": app}}, "template": template});
        let path = self.at("/apis/apps/v1", "deployments");
        self.send(Method::POST, &path, json!({"metadata": {"name": app}, "spec": spec})).await;
    }

    /// An EndpointSlice that no controller made, in the version that the cluster serves.
    async fn slice(&self, service: &str, ip: &str, port: u16) {
        let group = self.send(Method::GET, "/apis/discovery.k8s.io", Value::Null).await;
        let version = group["preferredVersion"]["groupVersion"].as_str().unwrap().to_owned();
        let slice = json!({
            "apiVersion": version, "kind": "EndpointSlice", "addressType": "IPv4",
            "metadata": {"name": service, "labels": {"kubernetes.io/service-name": service}},
            "ports": [{"name": "", "port": port, "protocol": "TCP"}],
            "endpoints": [{"addresses": [ip]}],
        });
        self.send(Method::POST, &self.at(&format!("/apis/{version}"), "endpointslices"), slice).await;
    }

    /// As clients call a Service of the namespace.
    fn authority(&self, service: &str, port: u16) -> String {
        format!("{service}.{}.svc.cluster.local:{port}", self.name)
    }
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn what_a_real_clusters_controllers_make_is_answered() {
    let scratch = Scratch::new().await;
    let destination = Destination::start(scratch.client.clone(), |_| {}, ManualClock::at(NOW)).await;
    let asked = async |service: &str, port| destination.authority(&scratch.authority(service, port)).await;

    let mut web = asked("web", 80).await;
    web.until(&["unknown"]).await;
    let ports = json!([{"name": "web", "port": 80, "targetPort": "http"}]);
    scratch.service("web", json!({"selector": {"app": "web"}, "ports": ports})).await;
    web.until(&[]).await;
    scratch.deploy("web").await;
    let pod = scratch.pod_of("web").await;
    scratch.run(&pod, "192.0.2.11").await;
    let identity = format!("web.deployment.{}.conduit-managed.conduit.svc.cluster.local", scratch.name);
    web.until(&[&format!("192.0.2.11:8080 {pod} {identity}")]).await;
    scratch.ready(&pod, "False").await;
    web.until(&[]).await;
    scratch.ready(&pod, "True").await;
    web.until(&[&format!("192.0.2.11:8080 {pod} {identity}")]).await;

    let ports = json!([{"name": "web", "port": 80}]);
    scratch
        .service("headless", json!({"clusterIP": "None", "selector": {"app": "web"}, "ports": ports}))
        .await;
    asked("headless", 8080).await.until(&[&format!("192.0.2.11:8080 {pod} {identity}")]).await;

    let external = json!({"type": "ExternalName", "externalName": "www.example.com"});
    scratch.service("external", external).await;
    asked("external", 80).await.until(&["unknown"]).await;

    // Endpoints by hand, which the cluster mirrors into slices where it has them.
    scratch.service("legacy", json!({"ports": [{"port": 80}]})).await;
    let subset = json!({"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 3306}]});
    scratch.post("endpoints", json!({"metadata": {"name": "legacy"}, "subsets": [subset]})).await;
    asked("legacy", 80).await.until(&["192.0.2.7:3306 - -"]).await;

    scratch.service("sliced", json!({"ports": [{"port": 80}]})).await;
    scratch.slice("sliced", "192.0.2.8", 5432).await;
    asked("sliced", 80).await.until(&["192.0.2.8:5432 - -"]).await;

    scratch.send(Method::DELETE, &scratch.at("/api/v1", "services/web"), Value::Null).await;
    web.until(&["unknown"]).await;
    let metrics = destination.admin("/metrics").await;
    for resource in ["services", "endpoint_slices", "pods", "replica_sets", "jobs"] {
        let line = format!("conduit_destination_watch_failures{{resource=\"{resource}\"}} 0\n");
        assert!(metrics.contains(&line), "{line} is missing in\n{metrics}");
    }
    scratch.remove().await;
}
