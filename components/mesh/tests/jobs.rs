//! The proxies of Jobs, with a real destination service in front of an API in memory: they end with their application.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

use std::{net::SocketAddr, sync::Arc, time::Duration};

use conduit_cluster::{Cluster, fixtures};
use conduit_identity::{Crypto, SystemClock};
use conduit_net::{Net, TokioNetwork};
use conduit_runtime::{Seed, drain};
use k8s_openapi::api::core::v1::{Pod, PodSpec};
use kube::{
    Api,
    api::{Patch, PatchParams, PostParams},
};
use serde_json::{Value, json};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, timeout},
};

/// How long a Job may take to complete after its application has ended.
const PROMISED: Duration = Duration::from_secs(5);
const SOON: Duration = Duration::from_secs(30);

fn any_port() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A cluster with a destination service.
struct World {
    net: Net,
    pods: Api<Pod>,
    destination: SocketAddr,
    _drains: Vec<drain::Trigger>,
}

impl World {
    async fn new() -> Self {
        let net = TokioNetwork::shared();
        let config =
            conduit_cluster::Config::new(Arc::new(|| Duration::from_secs(1_800_000_000)), Seed::fixed(1));
        let cluster = Cluster::new(config);
        let (api_drain, watch) = drain::channel();
        let serving = cluster.serve(&net, any_port(), watch).await.unwrap();
        tokio::spawn(serving.server);
        let client = cluster.client();
        let namespace = fixtures::namespace("shop");
        Api::all(client.clone()).create(&PostParams::default(), &namespace).await.unwrap();
        let config = conduit_destination::Config {
            listener: any_port(),
            admin: any_port(),
            ..conduit_destination::Config::default()
        };
        let (started, bound) = oneshot::channel();
        let deps = conduit_destination::Deps {
            client: conduit_k8s::client::plain(net.clone(), serving.addr, "conduit").unwrap(),
            net: net.clone(),
            clock: Arc::new(SystemClock),
            seed: Seed::fixed(2),
            crypto: Crypto::shipped(),
            started: Some(started),
        };
        let (destination_drain, watch) = drain::channel();
        tokio::spawn(conduit_destination::run(config, deps, watch));
        let destination = timeout(SOON, bound).await.unwrap().unwrap().grpc;
        let pods = Api::namespaced(client, "shop");
        Self { net, pods, destination, _drains: vec![api_drain, destination_drain] }
    }

    /// A running pod as a Job or a Deployment makes it; its uid.
    async fn pod(&self, name: &str, restart: &str) -> String {
        let containers = ["conduit-proxy", "work", "log"].map(|name| json!({"name": name, "image": "x:1"}));
        let spec: PodSpec =
            serde_json::from_value(json!({"restartPolicy": restart, "containers": containers})).unwrap();
        let mut pod = Pod { spec: Some(spec), ..Pod::default() };
        pod.metadata.name = Some(name.to_owned());
        let made = self.pods.create(&PostParams::default(), &pod).await.unwrap();
        self.become_(name, &[("conduit-proxy", None), ("work", None), ("log", None)]).await;
        made.metadata.uid.unwrap()
    }

    /// Reports the containers of a pod running, or ended with a code, as a kubelet does.
    async fn become_(&self, name: &str, containers: &[(&str, Option<i32>)]) {
        let status = |(name, code): &(&str, Option<i32>)| {
            let state = match code {
                Some(code) => json!({"terminated": {"exitCode": code}}),
                None => json!({"running": {}}),
            };
            json!({
                "name": name, "image": "x:1", "imageID": "", "ready": true, "restartCount": 0, "state": state,
            })
        };
        let statuses: Vec<Value> = containers.iter().map(status).collect();
        let status = json!({"status": {"phase": "Running", "containerStatuses": statuses}});
        self.pods.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }

    /// A proxy that was told to end with the pod of this uid, or was not.
    async fn proxy(&self, ends_with: Option<String>) -> Proxy {
        let config = conduit_proxy::Config {
            listen: conduit_proxy::Listen {
                inbound: any_port(),
                outbound: any_port(),
                tap: any_port(),
                admin: any_port(),
            },
            destination: Some(conduit_proxy::Destination {
                host: self.destination.ip().to_string(),
                port: self.destination.port(),
                identity: None,
            }),
            end_with_pod: ends_with,
            ..conduit_proxy::Config::default()
        };
        let (started, bound) = oneshot::channel();
        let deps = conduit_proxy::Deps {
            net: self.net.clone(),
            clock: Arc::new(SystemClock),
            seed: Seed::fixed(3),
            crypto: Crypto::shipped(),
            started: Some(started),
        };
        let (trigger, watch) = drain::channel();
        let running = tokio::spawn(conduit_proxy::run(config, deps, watch));
        let bound = timeout(SOON, bound).await.unwrap().unwrap();
        Proxy { net: self.net.clone(), bound, running, _trigger: trigger }
    }
}

struct Proxy {
    net: Net,
    bound: conduit_proxy::Bound,
    running: JoinHandle<Result<(), conduit_proxy::Error>>,
    _trigger: drain::Trigger,
}

impl Proxy {
    async fn is_live(&self) -> bool {
        let mut io = self.net.connect(self.bound.admin).await.unwrap();
        io.write_all(b"GET /live HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        timeout(SOON, io.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer.ends_with("ok\n")
    }

    async fn ends(self, within: Duration) {
        timeout(within, self.running).await.expect("it ends in time").unwrap().unwrap();
    }
}

#[tokio::test]
async fn the_proxy_of_a_job_ends_within_five_seconds_of_its_application() {
    let world = World::new().await;
    for (name, restart, code) in [("once", "Never", 1), ("again", "OnFailure", 0)] {
        let uid = world.pod(name, restart).await;
        let proxy = world.proxy(Some(uid)).await;
        // One container of two, or one that will be started again, is not the end.
        world.become_(name, &[("conduit-proxy", None), ("work", Some(0)), ("log", None)]).await;
        assert!(proxy.is_live().await);
        let began = Instant::now();
        world.become_(name, &[("conduit-proxy", None), ("work", Some(code)), ("log", Some(code))]).await;
        proxy.ends(PROMISED).await;
        assert!(began.elapsed() < PROMISED);
    }
}

#[tokio::test]
async fn the_proxy_of_a_deployment_does_not_end_whatever_its_containers_do() {
    let world = World::new().await;
    let (deployed, job) = (world.pod("web", "Always").await, world.pod("once", "Never").await);
    // Neither one that asks although it should not, nor one that does not ask.
    let proxies = [world.proxy(Some(deployed)).await, world.proxy(None).await];
    let witness = world.proxy(Some(job)).await;
    for name in ["web", "once"] {
        world.become_(name, &[("conduit-proxy", None), ("work", Some(0)), ("log", Some(0))]).await;
    }
    // What was told to one would have been told to the other.
    witness.ends(PROMISED).await;
    for proxy in proxies {
        assert!(proxy.is_live().await && !proxy.running.is_finished());
    }
}
