//! The whole authority against a Kubernetes API in memory.

use std::{sync::Arc, time::Duration};

use conduit_ca::{Bound, Config, Deps};
use conduit_cluster::{
    Cluster, Verb,
    faults::{Effect, Target},
};
use conduit_identity::{ControlPlane, Crypto, ManualClock, WorkloadKind};
use conduit_k8s::{
    lease,
    owned::{BUNDLE_CONFIGMAP, ROOT_SECRET},
};
use conduit_net::{Net, TokioNetwork};
use conduit_runtime::{Seed, drain};
use k8s_openapi::api::{
    apps::v1::ReplicaSet,
    core::v1::{ConfigMap, Namespace, Pod, Secret},
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

const PATIENCE: Duration = Duration::from_secs(20);

struct Running {
    net: Net,
    bound: Bound,
    trigger: drain::Trigger,
    task: JoinHandle<Result<(), conduit_ca::Error>>,
}

impl Running {
    async fn start(cluster: &Cluster, seed: u64) -> Self {
        Self::start_with(cluster, seed, |_| {}).await
    }

    async fn start_with(cluster: &Cluster, seed: u64, edit: impl FnOnce(&mut Config)) -> Self {
        let net = TokioNetwork::shared();
        let (started, bound) = oneshot::channel();
        let mut config = Config::new(ControlPlane::default(), "127.0.0.1:0".parse().unwrap());
        config.on_started = Some(started);
        edit(&mut config);
        let deps = Deps {
            client: cluster.client(),
            net: net.clone(),
            clock: Arc::new(ManualClock::at(NOW)),
            seed: Seed::fixed(seed),
            crypto: Crypto::shipped(),
        };
        let (trigger, drain) = drain::channel();
        let task = tokio::spawn(conduit_ca::run(config, deps, drain));
        Self { net, bound: bound.await.unwrap(), trigger, task }
    }

    async fn get(&self, path: &str) -> String {
        let mut io = self.net.connect(self.bound.admin).await.unwrap();
        io.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn tells(&self, line: &str) {
        let told = async {
            while !self.get("/metrics").await.contains(line) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        if timeout(PATIENCE, told).await.is_err() {
            panic!("{line} is never told:\n{}", self.get("/metrics").await);
        }
    }

    async fn stop(self) {
        assert!(self.trigger.drain(PATIENCE).await, "it ends when it is told to");
        self.task.await.unwrap().unwrap();
    }
}

fn cluster() -> Cluster {
    let clock: conduit_cluster::Clock = Arc::new(|| NOW.0);
    Cluster::new(conduit_cluster::Config::new(clock, Seed::fixed(3)))
}

async fn populated(cluster: &Cluster, names: &[&str]) -> Client {
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
async fn deploy(client: &Client, name: &str) {
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

fn secrets(client: &Client) -> Api<Secret> {
    Api::namespaced(client.clone(), "shop")
}

/// Waits for the Secret of the Deployment `owner`, in another version than `than`.
async fn issued(client: &Client, owner: &str, than: Option<&Secret>) -> Secret {
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
async fn quiet(cluster: &Cluster) -> u64 {
    let (mut revision, mut since) = (cluster.revision(), Instant::now());
    while since.elapsed() < Duration::from_millis(700) {
        sleep(Duration::from_millis(20)).await;
        if cluster.revision() != revision {
            (revision, since) = (cluster.revision(), Instant::now());
        }
    }
    revision
}

#[tokio::test]
async fn certificates_appear_and_a_restart_writes_nothing() {
    let cluster = cluster();
    let client = populated(&cluster, &["web", "voting"]).await;
    let running = Running::start(&cluster, 1).await;
    for owner in ["web", "voting"] {
        let secret = issued(&client, owner, None).await;
        assert_eq!(secret.data.unwrap().len(), 3);
    }
    let bundles: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    assert!(
        bundles.get(BUNDLE_CONFIGMAP).await.unwrap().data.unwrap().values().next().unwrap().contains("BEGIN")
    );
    let settled = quiet(&cluster).await;
    let metrics = running.get("/metrics").await;
    for line in [
        "conduit_ca_certificates_issued_total{reason=\"missing\"} 2",
        "conduit_ca_workloads 2",
        "conduit_ca_leading 1",
        "conduit_ca_roots 1",
        "conduit_ca_leaf_min_not_after_seconds 1800093600",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(running.get("/ready").await.starts_with("HTTP/1.0 200"));
    running.stop().await;

    let running = Running::start(&cluster, 2).await;
    running.tells("conduit_ca_workloads 2").await;
    assert_eq!(quiet(&cluster).await, settled);
    running.stop().await;
}

#[tokio::test]
async fn a_deleted_secret_and_a_deleted_root_come_back() {
    let cluster = cluster();
    let client = populated(&cluster, &["web"]).await;
    let running = Running::start(&cluster, 1).await;
    let first = issued(&client, "web", None).await;
    quiet(&cluster).await;
    secrets(&client).delete("web-deployment-tls-conduit-io", &Default::default()).await.unwrap();
    let second = issued(&client, "web", Some(&first)).await;
    assert_ne!(first.data, second.data, "a new key each time");

    let roots: Api<Secret> = Api::namespaced(client.clone(), "conduit");
    let before = roots.get(ROOT_SECRET).await.unwrap();
    roots.delete(ROOT_SECRET, &Default::default()).await.unwrap();
    let restored = async {
        loop {
            match roots.get_opt(ROOT_SECRET).await.unwrap() {
                Some(secret) => return secret,
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, restored).await.unwrap().data, before.data);
    running.stop().await;
}

#[tokio::test]
async fn a_secret_that_is_not_ours_is_left_alone_until_it_is_gone() {
    let cluster = cluster();
    let client = populated(&cluster, &["web", "voting"]).await;
    let mut theirs = Secret::default();
    theirs.metadata.name = Some("web-deployment-tls-conduit-io".into());
    let theirs = secrets(&client).create(&PostParams::default(), &theirs).await.unwrap();
    let running = Running::start(&cluster, 1).await;
    issued(&client, "voting", None).await;
    quiet(&cluster).await;
    assert_eq!(secrets(&client).get("web-deployment-tls-conduit-io").await.unwrap(), theirs);
    assert!(running.get("/metrics").await.contains("conduit_ca_foreign_objects 1"));
    running.stop().await;
}

#[tokio::test]
async fn workloads_that_come_later_are_served_too() {
    let cluster = cluster();
    let client = populated(&cluster, &[]).await;
    let running = Running::start(&cluster, 1).await;
    quiet(&cluster).await;
    deploy(&client, "late").await;
    issued(&client, "late", None).await;
    running.stop().await;
}

#[tokio::test]
async fn the_authority_dropped_half_way_leaves_nothing_that_the_next_one_cannot_finish() {
    let cluster = cluster();
    let names: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    let client = populated(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let running = Running::start(&cluster, 1).await;
    issued(&client, "w0", None).await;
    running.task.abort();
    let running = Running::start(&cluster, 2).await;
    for name in &names {
        issued(&client, name, None).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_failing_api_server_delays_and_loses_nothing() {
    let cluster = cluster();
    let client = populated(&cluster, &["web", "voting", "emoji"]).await;
    // Two creations are refused, a third is carried out without an answer.
    let issuing = || Target::any().verb(Verb::Create).resource("secrets").namespace("shop");
    cluster.faults().inject(issuing(), Effect::fail(500), 2);
    let lost = cluster.faults().inject(issuing(), Effect::LoseReply, 1);
    cluster.faults().inject(Target::any().resource("configmaps").verb(Verb::List), Effect::Reset, 1);
    let running = Running::start(&cluster, 1).await;
    for owner in ["web", "voting", "emoji"] {
        issued(&client, owner, None).await;
    }
    running.tells("conduit_ca_errors_total{operation=\"write_leaf\"} 3").await;
    assert_eq!(lost.fired(), 1);
    quiet(&cluster).await;
    let metrics = running.get("/metrics").await;
    assert!(
        metrics.contains("issued_total{reason=\"missing\"} 2"),
        "what was written unanswered is kept:\n{metrics}"
    );
    running.stop().await;
}

#[tokio::test]
async fn of_two_replicas_one_issues_and_the_other_takes_over() {
    let cluster = cluster();
    let client = populated(&cluster, &["web"]).await;
    conduit_runtime::log::init("info");
    let timing = lease::Timing {
        lease: Duration::from_secs(1),
        claim: Duration::from_millis(600),
        retry: Duration::from_millis(100),
    };
    let replica = |seed: u64, name: &'static str| {
        let timing = timing.clone();
        Running::start_with(&cluster, seed, move |config| {
            (config.lease, config.holder) = (Some(timing), name.to_owned());
        })
    };
    let first = replica(1, "ca-1").await;
    first.tells("conduit_ca_leading 1").await;
    let second = replica(2, "ca-2").await;
    let web = issued(&client, "web", None).await;
    second.tells("conduit_ca_leading 0").await;

    // Dies without giving its lease up.
    first.task.abort();
    second.tells("conduit_ca_leading 1").await;
    deploy(&client, "late").await;
    issued(&client, "late", None).await;
    assert_eq!(issued(&client, "web", None).await, web, "the other's certificates are good");
    second.stop().await;
}
