//! A running authority, and a cluster in memory for it.

use std::{sync::Arc, time::Duration};

use conduit_ca::{Bound, Config, Deps};
use conduit_cluster::Cluster;
use conduit_identity::{ControlPlane, Crypto, ManualClock, WorkloadKind};
use conduit_net::{Net, TokioNetwork};
use conduit_runtime::{Seed, drain};
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{Namespace, Pod, Secret},
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
    time::{Instant, sleep, timeout},
};

use crate::{
    objects::{controlled_by, pod, replica_set},
    world::NOW,
};

pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// A running authority.
pub(crate) struct Running {
    net: Net,
    bound: Bound,
    trigger: drain::Trigger,
    pub(crate) task: JoinHandle<Result<(), conduit_ca::Error>>,
}

impl Running {
    pub(crate) async fn start(cluster: &Cluster, seed: u64) -> Self {
        Self::start_with(cluster, seed, |_| {}).await
    }

    pub(crate) async fn start_with(cluster: &Cluster, seed: u64, edit: impl FnOnce(&mut Config)) -> Self {
        Self::start_in(cluster.client(), ManualClock::at(NOW), seed, edit).await
    }

    /// An authority whose way to the cluster is `client`, and whose clock is `clock`.
    pub(crate) async fn start_in(
        client: Client,
        clock: ManualClock,
        seed: u64,
        edit: impl FnOnce(&mut Config),
    ) -> Self {
        let net = TokioNetwork::shared();
        let (started, bound) = oneshot::channel();
        let mut config = Config::new(ControlPlane::default(), "127.0.0.1:0".parse().unwrap());
        config.on_started = Some(started);
        edit(&mut config);
        let deps = Deps {
            client,
            net: net.clone(),
            clock: Arc::new(clock),
            seed: Seed::fixed(seed),
            crypto: Crypto::shipped(),
        };
        let (trigger, drain) = drain::channel();
        let task = tokio::spawn(conduit_ca::run(config, deps, drain));
        Self { net, bound: bound.await.unwrap(), trigger, task }
    }

    pub(crate) async fn get(&self, path: &str) -> String {
        let mut io = self.net.connect(self.bound.admin).await.unwrap();
        io.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    pub(crate) async fn tells(&self, line: &str) {
        let told = async {
            while !self.get("/metrics").await.contains(line) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(PATIENCE, told).await.is_err() {
            panic!("{line} is never told:\n{}", self.get("/metrics").await);
        }
    }

    pub(crate) async fn stop(self) {
        assert!(self.trigger.drain(PATIENCE).await, "it ends when it is told to");
        self.task.await.unwrap().unwrap();
    }
}

pub(crate) fn cluster() -> Cluster {
    let clock: conduit_cluster::Clock = Arc::new(|| NOW.0);
    Cluster::new(conduit_cluster::Config::new(clock, Seed::fixed(3)))
}

pub(crate) async fn populated(cluster: &Cluster, names: &[&str]) -> Client {
    let client = cluster.client();
    let params = PostParams::default();
    for name in ["conduit", "shop"] {
        let mut namespace = Namespace::default();
        namespace.metadata.name = Some(name.into());
        Api::<Namespace>::all(client.clone()).create(&params, &namespace).await.unwrap();
    }
    for name in names {
        deploy(&client, name).await;
    }
    client
}

/// A ReplicaSet and a pod as a Deployment's would be; the API gives uids of its own.
pub(crate) async fn deploy(client: &Client, name: &str) {
    let params = PostParams::default();
    let set = format!("{name}-1");
    let owner = Some(controlled_by(WorkloadKind::Deployment, name));
    let sets: Api<ReplicaSet> = Api::namespaced(client.clone(), "shop");
    let mut object = replica_set("shop", &set, owner);
    object.metadata.uid = None;
    object.spec = serde_json::from_value(serde_json::json!({
        "selector": { "matchLabels": { "app": name } },
        "template": { "metadata": { "labels": { "app": name } }, "spec": { "containers": [{ "name": "app", "image": "app" }] } },
    }))
    .unwrap();
    let made = sets.create(&params, &object).await.unwrap();
    let mut owner = controlled_by(WorkloadKind::ReplicaSet, &set);
    owner.uid = made.metadata.uid.unwrap();
    let mut object = pod("shop", &format!("{set}-a"), Some(owner));
    object.metadata.uid = None;
    for container in &mut object.spec.as_mut().unwrap().containers {
        container.image = Some("app".into());
    }
    Api::<Pod>::namespaced(client.clone(), "shop").create(&params, &object).await.unwrap();
}

pub(crate) fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "shop")
}

/// Waits for the Secret of the Deployment `owner`, in another version than `than`.
pub(crate) async fn issued(client: &Client, owner: &str, than: Option<&Secret>) -> Secret {
    let name = format!("{owner}-deployment-tls-conduit-io");
    let other = than.and_then(|than| than.metadata.uid.clone());
    let found = async {
        loop {
            match secrets(client).get_opt(&name).await.unwrap() {
                Some(secret) if secret.metadata.uid != other => return secret,
                _ => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    timeout(PATIENCE, found).await.unwrap_or_else(|_| panic!("{name} is not there"))
}

/// Waits until the API has seen no write for as long as several looks take.
pub(crate) async fn quiet(cluster: &Cluster) -> u64 {
    let (mut revision, mut since) = (cluster.revision(), Instant::now());
    while since.elapsed() < Duration::from_millis(700) {
        sleep(Duration::from_millis(20)).await;
        if cluster.revision() != revision {
            (revision, since) = (cluster.revision(), Instant::now());
        }
    }
    revision
}
