//! How fast certificates are issued from nothing, and what a restart costs: `cargo bench -p conduit-ca [-- workloads]`.
//! Prints figures and asserts none; the API server is the in-memory one, in the same thread.

#![allow(clippy::unwrap_used, clippy::print_stdout, reason = "it is a program to be read by people")]

use std::{sync::Arc, time::Duration};

use conduit_ca::{Bound, Config, Deps};
use conduit_cluster::{Cluster, fixtures::namespace};
use conduit_identity::{Clock, ControlPlane, Crypto, SystemClock};
use conduit_k8s::owned::{ANNOTATION_TLS, LABEL_CONTROL_PLANE_NS, PROXY_CONTAINER, TLS_OPTIONAL};
use conduit_net::{Net, TokioNetwork};
use conduit_runtime::{Seed, drain};
use futures::StreamExt;
use k8s_openapi::{
    api::core::v1::{Container, Namespace, Pod, PodSpec},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::{Api, api::PostParams};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    time::{Instant, sleep},
};

/// As many as the design speaks of.
const WORKLOADS: usize = 10_000;

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let asked = std::env::args().find_map(|argument| argument.parse().ok());
    let workloads: usize = asked.unwrap_or(WORKLOADS);
    let net = TokioNetwork::shared();
    let clock: conduit_cluster::Clock = Arc::new(|| SystemClock.now().0);
    let cluster = Cluster::new(conduit_cluster::Config::new(clock, Seed::fixed(1)));
    populate(&cluster, workloads).await;

    let begun = Instant::now();
    let first = Running::start(&cluster, &net).await;
    first.until(&format!("conduit_ca_certificates_issued_total{{reason=\"missing\"}} {workloads}\n")).await;
    let took = begun.elapsed();
    let rate = f64::from(u32::try_from(workloads).unwrap()) / took.as_secs_f64();
    println!("{workloads} certificates from nothing: {took:.2?}, {rate:.0} per second");
    first.stop().await;

    let revision = cluster.revision();
    let begun = Instant::now();
    let second = Running::start(&cluster, &net).await;
    second.until(&format!("conduit_ca_workloads {workloads}\n")).await;
    println!("restart with {workloads} workloads: {:.2?} until all are judged", begun.elapsed());
    sleep(Duration::from_secs(2)).await;
    println!("writes after the restart: {}", cluster.revision() - revision);
    second.stop().await;
}

struct Running {
    net: Net,
    bound: Bound,
    trigger: drain::Trigger,
    task: tokio::task::JoinHandle<Result<(), conduit_ca::Error>>,
}

impl Running {
    async fn start(cluster: &Cluster, net: &Net) -> Self {
        let (started, bound) = oneshot::channel();
        let mut config = Config::new(ControlPlane::default(), "127.0.0.1:0".parse().unwrap());
        config.on_started = Some(started);
        let deps = Deps {
            client: cluster.client(),
            net: net.clone(),
            clock: Arc::new(SystemClock),
            seed: Seed::from_os().unwrap(),
            crypto: Crypto::shipped(),
        };
        let (trigger, drain) = drain::channel();
        let task = tokio::spawn(conduit_ca::run(config, deps, drain));
        Self { net: net.clone(), bound: bound.await.unwrap(), trigger, task }
    }

    async fn until(&self, line: &str) {
        while !self.metrics().await.contains(line) {
            sleep(Duration::from_millis(10)).await;
        }
    }

    async fn metrics(&self) -> String {
        let mut io = self.net.connect(self.bound.admin).await.unwrap();
        io.write_all(b"GET /metrics HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    }

    async fn stop(self) {
        self.trigger.drain(Duration::from_secs(30)).await;
        self.task.await.unwrap().unwrap();
    }
}

async fn populate(cluster: &Cluster, workloads: usize) {
    let (client, params) = (cluster.client(), PostParams::default());
    for name in ["conduit", "shop"] {
        Api::<Namespace>::all(client.clone()).create(&params, &namespace(name)).await.unwrap();
    }
    let pods: Api<Pod> = Api::namespaced(client, "shop");
    let creations = (0..workloads).map(|number| {
        let object = meshed(&format!("w{number}"));
        let (pods, params) = (pods.clone(), params.clone());
        async move { pods.create(&params, &object).await.unwrap() }
    });
    futures::stream::iter(creations).buffer_unordered(16).for_each(|_| std::future::ready(())).await;
}

fn meshed(name: &str) -> Pod {
    let container = |name: &str| Container {
        name: name.to_owned(),
        image: Some("image".to_owned()),
        ..Container::default()
    };
    Pod {
        metadata: ObjectMeta {
            name: Some(name.to_owned()),
            labels: Some([(LABEL_CONTROL_PLANE_NS.to_owned(), "conduit".to_owned())].into()),
            annotations: Some([(ANNOTATION_TLS.to_owned(), TLS_OPTIONAL.to_owned())].into()),
            ..ObjectMeta::default()
        },
        spec: Some(PodSpec {
            containers: vec![container(PROXY_CONTAINER), container("app")],
            ..PodSpec::default()
        }),
        ..Pod::default()
    }
}
