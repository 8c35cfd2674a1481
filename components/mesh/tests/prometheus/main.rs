//! Both sources of numbers, the proxies themselves and a real Prometheus, tell the same rows and the same edges. Without a
//! `prometheus` the tests say so and pass, unless `CONDUIT_PROMETHEUS` is `required`.

#![cfg(target_os = "linux")]
#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a test")]

#[path = "../support/mod.rs"]
mod support;

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    sync::Arc,
    time::Duration,
};

use conduit_identity::{Crypto, SystemClock};
use conduit_k8s::owned;
use conduit_mesh::{Addresses, Mesh, Sidecar};
use conduit_net::{Net, TokioNetwork};
use conduit_observe::sources::prometheus::{ALERTS, DASHBOARDS, RULES};
use conduit_runtime::{Seed, drain};
use serde_json::Value;
use support::{body, client, get, mesh, server, until};

/// How far back both look, in seconds: everything that is sent must fit, and be read twice over.
const WINDOW: u64 = 20;
/// How often it is tried: on a busy machine, what was sent first may leave the window before it was compared.
const ATTEMPTS: usize = 3;

/// Where the program is; a machine without it is told that nothing was tested.
fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    let found =
        std::env::split_paths(&path).map(|folder| folder.join("prometheus")).find(|file| file.is_file());
    if found.is_none() {
        let required = std::env::var_os("CONDUIT_PROMETHEUS").is_some_and(|value| value == "required");
        assert!(!required, "there is no prometheus on the PATH");
        eprintln!(
            "SKIPPED: there is no prometheus on the PATH; install Debian's package of that name to test against it"
        );
    }
    found
}

/// A server that reads the pods every second. Dropping it ends it.
struct Prometheus {
    process: Child,
    addr: SocketAddr,
    _folder: tempfile::TempDir,
}

impl Drop for Prometheus {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

impl Prometheus {
    fn start(program: &Path, targets: &str) -> Self {
        let folder = tempfile::tempdir().unwrap();
        let config = folder.path().join("prometheus.yml");
        let text = format!(
            "global: {{scrape_interval: 1s, scrape_timeout: 1s, evaluation_interval: 1s}}\n\
             rule_files: [rules.yml, alerts.yml]\nscrape_configs:\n{targets}"
        );
        for (name, text) in [("prometheus.yml", text.as_str()), ("rules.yml", RULES), ("alerts.yml", ALERTS)]
        {
            std::fs::write(folder.path().join(name), text).unwrap();
        }
        // An address of its own, so that its port need not be found out.
        let [.., high, low] = std::process::id().to_be_bytes();
        let addr = SocketAddr::from((Ipv4Addr::new(127, 200, high, low.max(1)), 9090));
        let process = Command::new(program)
            .arg(format!("--config.file={}", config.display()))
            .arg(format!("--storage.tsdb.path={}", folder.path().join("data").display()))
            .arg(format!("--web.listen-address={addr}"))
            .arg("--log.level=error")
            .stdin(Stdio::null())
            .spawn()
            .unwrap();
        Self { process, addr, _folder: folder }
    }
}

/// The meshed pods and the CA, as Prometheus is told of them where the API server does not.
async fn targets(mesh: &Mesh) -> String {
    let observe = mesh.observe_addr().unwrap();
    let machine = TokioNetwork::shared();
    let path = "/api/v1/pods?namespace=shop";
    let target = |pod: &Value| {
        let (name, ip) = (pod["name"].as_str()?, pod["ip"].as_str()?);
        let deployment = pod["owner"].as_str()?.strip_prefix("deployment/")?;
        Some(format!(
            "  - targets: ['{ip}:4191']\n    labels: {{namespace: shop, pod: {name}, deployment: {deployment}}}\n"
        ))
    };
    // Pods are known before their owners are, and the first before the others.
    let proxies = until("the two meshed pods and their owners", async || {
        let pods = body(&get(&machine, &observe.ip().to_string(), observe.port(), path).await);
        let meshed = pods["pods"].as_array()?.iter().filter(|pod| pod["meshed"] == true);
        let targets = meshed.map(target).collect::<Option<Vec<String>>>()?;
        (targets.len() == 2).then(|| targets.concat())
    })
    .await;
    let ca = mesh.component_ips(owned::COMPONENT_CA)[0];
    format!(
        "- job_name: conduit-proxy\n  static_configs:\n{proxies}\
         - job_name: conduit-controller\n  static_configs: [{{targets: ['{ca}:{}']}}]\n",
        owned::PORT_CA_ADMIN
    )
}

/// A second observe of the same mesh, whose numbers come from Prometheus.
async fn observe(mesh: &Mesh, prometheus: SocketAddr) -> (SocketAddr, drain::Trigger) {
    let config = conduit_observe::Config {
        listener: (Ipv4Addr::LOCALHOST, 0).into(),
        admin: (Ipv4Addr::LOCALHOST, 0).into(),
        control_plane: mesh.control_plane().clone(),
        prometheus: Some(format!("http://{prometheus}").parse().unwrap()),
        ..conduit_observe::Config::default()
    };
    let (started, bound) = tokio::sync::oneshot::channel();
    let deps = conduit_observe::Deps {
        client: mesh.client(),
        net: TokioNetwork::shared(),
        clock: Arc::new(SystemClock),
        seed: Seed::from_os().unwrap(),
        crypto: Crypto::shipped(),
        started: Some(started),
    };
    let (trigger, watch) = drain::channel();
    tokio::spawn(conduit_observe::run(config, deps, watch));
    (bound.await.unwrap().api, trigger)
}

async fn ask(observe: SocketAddr, question: &str) -> Value {
    let path = format!("/api/v1/{question}&window={WINDOW}s");
    body(&get(&TokioNetwork::shared(), &observe.ip().to_string(), observe.port(), &path).await)
}

/// Where two answers differ by more than one in a hundred; what depends on the moment of asking is left out.
fn difference(place: &str, one: &Value, other: &Value) -> Option<String> {
    match (one, other) {
        (Value::Number(one), Value::Number(other)) => {
            let (one, other) = (one.as_f64().unwrap(), other.as_f64().unwrap());
            let is_same = (one - other).abs() <= 0.01 * one.abs().max(other.abs());
            (!is_same).then(|| format!("{place}: {one} and {other}"))
        }
        (Value::Array(these), Value::Array(those)) if these.len() == those.len() => these
            .iter()
            .zip(those)
            .enumerate()
            .find_map(|(at, (one, other))| difference(&format!("{place}[{at}]"), one, other)),
        (Value::Object(these), Value::Object(those)) if these.len() == those.len() => these
            .iter()
            .filter(|(name, _)| !matches!(name.as_str(), "since_ms" | "covered_ms"))
            .find_map(|(name, one)| difference(&format!("{place}.{name}"), one, &those[name])),
        _ => (one != other).then(|| format!("{place}: {one} and {other}")),
    }
}

const QUESTIONS: [&str; 4] = [
    "stat?type=all&namespace=shop",
    "stat?type=deploy&namespace=shop&to=deploy/server",
    "stat?type=po&namespace=shop&from=deploy/client",
    "edges?namespace=shop",
];

async fn differences(one: SocketAddr, other: SocketAddr) -> Vec<String> {
    let mut found = Vec::new();
    for question in QUESTIONS {
        let (one, other) = (ask(one, question).await, ask(other, question).await);
        found.extend(difference(question, &one, &other));
    }
    found
}

/// What the shipped dashboards ask, of every namespace.
fn expressions() -> Vec<(&'static str, String)> {
    let mut found = Vec::new();
    for (name, text) in DASHBOARDS {
        let dashboard: Value = serde_json::from_str(text).unwrap();
        for target in dashboard["panels"]
            .as_array()
            .unwrap()
            .iter()
            .flat_map(|panel| panel["targets"].as_array().unwrap())
        {
            found.push((name, target["expr"].as_str().unwrap().replace("$namespace", ".*")));
        }
    }
    found
}

/// Prometheus' own answer.
async fn query(prometheus: SocketAddr, expression: &str) -> Value {
    let escaped: String = expression.bytes().map(|octet| format!("%{octet:02X}")).collect();
    let path = format!("/api/v1/query?query={escaped}");
    body(&get(&TokioNetwork::shared(), &prometheus.ip().to_string(), prometheus.port(), &path).await)
}

async fn requests(net: &Net, count: usize) {
    for _ in 0..count {
        assert!(get(net, "server.shop", 80, "/").await.ends_with("hello"));
    }
}

/// What `observe` knows to have arrived at the server.
async fn arrived(observe: SocketAddr) -> f64 {
    let stat = ask(observe, "stat?type=deploy/server&namespace=shop").await;
    stat["rows"][0]["counts"]["success"].as_f64().unwrap_or_default()
}

#[tokio::test]
async fn prometheus_tells_the_same_as_the_proxies() {
    let Some(program) = program() else { return };
    let mut mesh = mesh(Addresses::loopback().starting_at(34 * 1024)).await;
    let (meshed, meshed_net) = client("client", Sidecar::Tls);
    let (legacy, legacy_net) = client("legacy", Sidecar::Absent);
    mesh.deploy(&[server(Sidecar::Tls), meshed, legacy]).await.unwrap();
    let (meshed, legacy) = (meshed_net.lock().clone().unwrap(), legacy_net.lock().clone().unwrap());
    let embedded = mesh.observe_addr().unwrap();
    let prometheus = Prometheus::start(&program, &targets(&mesh).await);
    let (second, _running) = observe(&mesh, prometheus.addr).await;
    for source in [embedded, second] {
        until("a source that knows the whole window", async || {
            let stat = ask(source, "stat?type=deploy&namespace=shop").await;
            (stat["covered_ms"].as_u64()? >= WINDOW * 1000 && stat["unscraped"].is_null()).then_some(())
        })
        .await;
    }

    let mut last = Vec::new();
    for _ in 0..ATTEMPTS {
        requests(&meshed, 40).await;
        requests(&legacy, 20).await;
        for source in [embedded, second] {
            until("all that was sent", async || (arrived(source).await >= 59.5).then_some(())).await;
        }
        // The client tells of the same requests, and is read at moments of its own.
        until("the same of both, or that the window has moved on", async || {
            last = differences(embedded, second).await;
            (last.is_empty() || arrived(embedded).await < 59.5).then_some(())
        })
        .await;
        if last.is_empty() {
            break;
        }
        for source in [embedded, second] {
            until("an empty window", async || (arrived(source).await == 0.0).then_some(())).await;
        }
    }
    assert_eq!(last, Vec::<String>::new());
    // Both know all of it, and that some of it was in the clear.
    let stat = ask(second, "stat?type=deploy/server&namespace=shop").await;
    let row = &stat["rows"][0];
    assert_eq!(row["counts"]["success"], 60.0, "{row}");
    assert!(row["tls"].as_f64().is_some_and(|tls| tls > 0.0 && tls < 1.0), "{row}");
    for (dashboard, expression) in expressions() {
        until(&format!("an answer to {expression} of {dashboard}"), async || {
            // Rates are of what goes on.
            requests(&meshed, 1).await;
            let answer = query(prometheus.addr, &expression).await;
            assert_eq!(answer["status"], "success", "{dashboard}: {answer}");
            (!answer["data"]["result"].as_array()?.is_empty()).then_some(())
        })
        .await;
    }
    mesh.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_prometheus_that_is_not_there_is_an_error_that_says_so() {
    let mesh = mesh(Addresses::of_this_machine().await.starting_at(35 * 1024)).await;
    let (observe, _running) = observe(&mesh, SocketAddr::from((Ipv4Addr::LOCALHOST, 1))).await;
    let problem = until("an answer about the source", async || {
        let answer = ask(observe, "stat?type=deploy&namespace=shop").await;
        (answer["status"] == 502).then_some(answer)
    })
    .await;
    let detail = problem["detail"].as_str().unwrap();
    assert!(detail.contains("http://127.0.0.1:1 cannot be reached"), "{detail}");
    mesh.stop(Duration::from_secs(1)).await;
}
