//! Rivals, clocks that jump, and an API server that fails in the middle.

use std::{convert::Infallible, sync::Arc, time::Duration};

use conduit_cluster::{
    Cluster, Verb,
    faults::{Effect, Target},
};
use conduit_identity::{ControlPlane, Credentials, Crypto, Identity, ManualClock, Pem, UnixTime};
use conduit_k8s::{
    lease,
    owned::{BUNDLE_CONFIGMAP, BUNDLE_KEY, SECRET_CERT_KEY, SECRET_PRIVATE_KEY},
};
use http::{Method, Request};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, Client, api::ListParams, client::Body};
use parking_lot::Mutex;
use tokio::{
    sync::watch,
    time::{sleep, timeout},
};

use crate::{
    running::{PATIENCE, Running, cluster, deploy, issued, populated, quiet, secrets},
    world::{HOUR, NOW, deployment},
};

/// A process's way to the API server. What is sent while it is shut arrives when it is opened, whoever has stopped
/// waiting for the answer: like octets that are already under way.
#[derive(Clone)]
struct Gate {
    shut: watch::Sender<Shut>,
    held: Arc<Mutex<Vec<Method>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Shut {
    Nothing,
    SecretWrites,
    Everything,
}

impl Shut {
    fn holds(self, request: &Request<Body>) -> bool {
        let is_write = request.method() != Method::GET;
        match self {
            Self::Nothing => false,
            Self::SecretWrites => is_write && request.uri().path().contains("/secrets"),
            Self::Everything => true,
        }
    }
}

impl Gate {
    fn new() -> Self {
        Self { shut: watch::Sender::new(Shut::Nothing), held: Arc::default() }
    }

    fn client(&self, cluster: &Cluster) -> Client {
        let (gate, inner) = (self.clone(), cluster.client());
        let service = tower::service_fn(move |request: Request<Body>| {
            let (gate, inner) = (gate.clone(), inner.clone());
            let answer = tokio::spawn(async move {
                let mut shut = gate.shut.subscribe();
                if shut.borrow_and_update().holds(&request) {
                    gate.held.lock().push(request.method().clone());
                    shut.wait_for(|shut| *shut == Shut::Nothing).await.unwrap();
                }
                inner.send(request).await
            });
            async move { Ok::<_, Infallible>(answer.await.unwrap().unwrap()) }
        });
        Client::new(service, "default")
    }

    async fn holds(&self, method: &Method) {
        let held = async {
            while !self.held.lock().contains(method) {
                sleep(Duration::from_millis(10)).await;
            }
        };
        timeout(PATIENCE, held).await.expect("something is held");
    }
}

fn timing() -> lease::Timing {
    lease::Timing {
        lease: Duration::from_secs(15),
        claim: Duration::from_secs(10),
        retry: Duration::from_secs(2),
    }
}

/// A replica whose lease is timed as it is shipped.
async fn replica(client: Client, clock: &ManualClock, seed: u64) -> Running {
    Running::start_in(client, clock.clone(), seed, |config| {
        (config.lease, config.holder) = (Some(timing()), format!("ca-{seed}"));
    })
    .await
}

fn names(count: usize) -> Vec<String> {
    (0..count).map(|number| format!("w{number:04}")).collect()
}

async fn deployed(cluster: &Cluster, count: usize) -> (Client, Vec<String>) {
    let names = names(count);
    let client = populated(cluster, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    (client, names)
}

/// Waits until every workload holds what its proxy can use at `now`.
async fn all_hold(client: &Client, names: &[String], now: UnixTime) {
    let bundles: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    let all = async {
        loop {
            let held = secrets(client).list(&ListParams::default()).await.unwrap().items;
            let bundle = bundles.get_opt(BUNDLE_CONFIGMAP).await.unwrap();
            let anchors = bundle.and_then(|map| map.data?.remove(BUNDLE_KEY)).unwrap_or_default();
            let good = names.iter().filter(|name| {
                let wanted = deployment(name).secret_name();
                let secret = held.iter().find(|secret| secret.metadata.name.as_ref() == Some(&wanted));
                secret.is_some_and(|secret| is_usable(secret, name, &anchors, now))
            });
            if good.count() == names.len() {
                return;
            }
            sleep(Duration::from_millis(250)).await;
        }
    };
    timeout(Duration::from_secs(600), all).await.expect("everybody has a certificate");
}

fn is_usable(secret: &Secret, name: &str, anchors: &str, now: UnixTime) -> bool {
    let data = secret.data.as_ref().unwrap();
    let pem = Pem {
        chain: data[SECRET_CERT_KEY].0.clone(),
        key: data[SECRET_PRIVATE_KEY].0.clone(),
        anchors: anchors.as_bytes().to_vec(),
    };
    let identity = Identity::of(&deployment(name), &ControlPlane::default());
    Credentials::load(&pem, &identity, now, &Crypto::shipped()).is_ok()
}

/// The number after `metric` in what `running` tells; 0 when it is not told.
async fn told(running: &Running, metric: &str) -> usize {
    let metrics = running.get("/metrics").await;
    let line = metrics.lines().find_map(|line| line.strip_prefix(metric)?.strip_prefix(' '));
    line.map_or(0, |number| number.parse().unwrap())
}

const MISSING: &str = "conduit_ca_certificates_issued_total{reason=\"missing\"}";
const DUE: &str = "conduit_ca_certificates_issued_total{reason=\"due\"}";
const NOT_YET_VALID: &str = "conduit_ca_certificates_issued_total{reason=\"not_yet_valid\"}";

#[tokio::test(start_paused = true)]
async fn of_rivals_that_start_together_one_issues_everything_once() {
    let (cluster, clock) = (cluster(), ManualClock::at(NOW));
    let (client, names) = deployed(&cluster, 40).await;
    let rivals = [
        replica(cluster.client(), &clock, 1).await,
        replica(cluster.client(), &clock, 2).await,
        replica(cluster.client(), &clock, 3).await,
    ];
    all_hold(&client, &names, NOW).await;
    quiet(&cluster).await;
    let (mut issued, mut leading) = (Vec::new(), 0);
    for rival in &rivals {
        issued.push(told(rival, MISSING).await);
        leading += told(rival, "conduit_ca_leading").await;
    }
    issued.sort_unstable();
    assert_eq!((issued.as_slice(), leading), (&[0, 0, 40][..], 1));
}

#[tokio::test(start_paused = true)]
async fn what_a_deposed_leader_had_already_sent_overwrites_nothing() {
    let (cluster, clock, gate) = (cluster(), ManualClock::at(NOW), Gate::new());
    let (client, names) = deployed(&cluster, 3).await;
    let _first = replica(gate.client(&cluster), &clock, 1).await;
    all_hold(&client, &names, NOW).await;

    // One creation and one renewal are on their way when the first is cut off.
    gate.shut.send_replace(Shut::SecretWrites);
    deploy(&client, "late").await;
    gate.holds(&Method::POST).await;
    clock.advance(13 * HOUR);
    gate.holds(&Method::PUT).await;
    gate.shut.send_replace(Shut::Everything);

    let second = replica(cluster.client(), &clock, 2).await;
    let everybody: Vec<String> = names.iter().cloned().chain(["late".to_owned()]).collect();
    all_hold(&client, &everybody, NOW + 14 * HOUR).await;
    second.tells("conduit_ca_leading 1").await;
    let held = secrets(&client).list(&ListParams::default()).await.unwrap().items;
    gate.shut.send_replace(Shut::Nothing);
    sleep(Duration::from_secs(60)).await;
    let after = secrets(&client).list(&ListParams::default()).await.unwrap().items;
    assert_eq!(after, held, "each of them names the version it replaces");
    assert_eq!(told(&second, "conduit_ca_leading").await, 1);
}

#[tokio::test(start_paused = true)]
async fn a_clock_that_jumps_ahead_and_back_costs_each_workload_two_certificates() {
    let (cluster, clock) = (cluster(), ManualClock::at(NOW));
    let (client, names) = deployed(&cluster, 5).await;
    let running = Running::start_in(cluster.client(), clock.clone(), 1, |_| {}).await;
    all_hold(&client, &names, NOW).await;
    clock.advance(13 * HOUR);
    all_hold(&client, &names, NOW + 30 * HOUR).await;
    clock.set(NOW);
    all_hold(&client, &names, NOW).await;
    sleep(Duration::from_secs(600)).await;
    let issued = [MISSING, DUE, NOT_YET_VALID];
    let issued =
        [told(&running, issued[0]).await, told(&running, issued[1]).await, told(&running, issued[2]).await];
    assert_eq!(issued, [5, 5, 5]);
}

#[tokio::test(start_paused = true)]
async fn an_api_server_that_fails_in_the_middle_costs_no_certificate_and_no_second_one() {
    let (cluster, clock) = (cluster(), ManualClock::at(NOW));
    let (client, names) = deployed(&cluster, 30).await;
    let busy = Effect::Fail { code: 429, retry_after_seconds: Some(1) };
    let fail = |verb: Verb, resource: &str, effect: Effect, times| {
        cluster.faults().inject(Target::any().verb(verb).resource(resource), effect, times)
    };
    let of_writes = |verb: Verb| {
        [
            fail(verb, "secrets", busy.clone(), 4),
            fail(verb, "secrets", Effect::fail(409), 3),
            fail(verb, "secrets", Effect::fail(500), 3),
            fail(verb, "secrets", Effect::fail(410), 1),
            fail(verb, "secrets", Effect::Reset, 2),
            fail(verb, "secrets", Effect::Hang, 2),
            fail(verb, "secrets", Effect::LoseReply, 3),
            fail(verb, "configmaps", Effect::fail(409), 1),
        ]
    };
    // In no namespace, so that it is not the test that fails.
    let fail_everywhere = |verb: Verb, resource: &str, effect: Effect, times| {
        cluster.faults().inject(Target::any().verb(verb).resource(resource).namespace(""), effect, times)
    };
    let of_reads = || {
        [
            fail_everywhere(Verb::List, "pods", Effect::fail(410), 1),
            fail_everywhere(Verb::List, "secrets", busy.clone(), 2),
            fail_everywhere(Verb::Watch, "secrets", Effect::fail(410), 2),
            fail_everywhere(Verb::Watch, "pods", Effect::fail(500), 2),
            fail_everywhere(Verb::Watch, "replicasets", busy.clone(), 1),
        ]
    };
    let all_fired =
        |faults: &[conduit_cluster::faults::Injected]| faults.iter().all(|fault| fault.fired() > 0);

    let (creating, reading) = (of_writes(Verb::Create), of_reads());
    let running = Running::start_in(cluster.client(), clock.clone(), 1, |_| {}).await;
    all_hold(&client, &names, NOW).await;
    quiet(&cluster).await;
    assert!(all_fired(&creating) && all_fired(&reading), "{creating:#?}");

    let before = cluster.revision();
    let (updating, reading) = (of_writes(Verb::Update), of_reads());
    clock.advance(13 * HOUR);
    cluster.faults().cut_watches(&Target::any());
    all_hold(&client, &names, NOW + 30 * HOUR).await;
    sleep(Duration::from_secs(600)).await;
    assert!(all_fired(&updating[..7]) && all_fired(&reading[2..]), "{updating:#?} {reading:#?}");
    assert_eq!(cluster.revision() - before, 30, "each is renewed once, whatever became of the answer");
    running.tells("conduit_ca_errors_total{operation=\"write_leaf\"}").await;
}

#[tokio::test(start_paused = true)]
async fn more_workloads_than_a_page_or_a_batch_holds_are_served_and_a_restart_writes_nothing() {
    let (cluster, clock) = (cluster(), ManualClock::at(NOW));
    let (client, names) = deployed(&cluster, 1_100).await;
    let running = Running::start_in(cluster.client(), clock.clone(), 1, |_| {}).await;
    all_hold(&client, &names, NOW).await;
    let settled = quiet(&cluster).await;
    assert_eq!(told(&running, MISSING).await, 1_100);
    running.stop().await;

    let running = Running::start_in(cluster.client(), clock, 2, |_| {}).await;
    running.tells("conduit_ca_workloads 1100").await;
    sleep(Duration::from_secs(300)).await;
    assert_eq!(cluster.revision(), settled);
    issued(&client, "w1099", None).await;
}
