//! `conduit inject --tls=optional emojivoto.yml | kubectl apply -f -`, and back.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{Cluster, cluster::PATIENCE, mesh, process::until};
use serde_json::Value;

const PROBES: &str = "conduit-tests-probes";

#[test]
fn the_sample_application_runs_in_the_mesh_and_its_proxies_come_first() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    cluster.apply(&cluster.inject(&mesh::emojivoto(), &["--tls=optional"]));
    cluster.rolled_out(mesh::EMOJIVOTO, &mesh::PARTS);
    for label in ["app=emoji-svc", "app=voting-svc", "app=web-svc", "app=vote-bot"] {
        let pods = cluster.pods(mesh::EMOJIVOTO, label);
        assert_eq!(pods.len(), 1, "{label}");
        let names = |pointer: &str| -> Vec<String> {
            let containers = pods[0].pointer(pointer).and_then(Value::as_array);
            containers
                .into_iter()
                .flatten()
                .map(|it| it["name"].as_str().unwrap_or_default().to_owned())
                .collect()
        };
        assert_eq!(names("/spec/initContainers"), ["conduit-init"], "{label}");
        assert_eq!(names("/spec/containers")[0], "conduit-proxy", "{label}");
        let restarts = pods[0]["status"]["containerStatuses"].as_array().unwrap().iter();
        let restarts: Vec<u64> = restarts.filter_map(|status| status["restartCount"].as_u64()).collect();
        assert_eq!(restarts, [0, 0], "{label}: the proxy accepts before the application starts");
    }
}

#[test]
fn what_was_injected_is_what_it_was_after_uninject() {
    let cluster = Cluster::get();
    let plain = mesh::emojivoto();
    let injected = cluster.inject(&plain, &["--tls=optional"]);
    assert!(injected.contains("conduit-proxy"));
    assert_eq!(cluster.conduit_fed(&["uninject", "-"], &injected).stdout, plain);
}

/// The server of the load with a `tcpSocket` probe of this port, called so.
fn probed_on(name: &str, port: u16) -> String {
    let manifests = mesh::file("kind-tests/manifests/load.yml");
    let server = manifests.split("---\n").nth(1).unwrap();
    let http = "httpGet:\n              path: /\n              port: http\n";
    assert!(server.contains(http), "{server}");
    let tcp = format!("tcpSocket:\n              port: {port}\n");
    server
        .replace(http, &tcp)
        .replace("name: server\n", &format!("name: {name}\n"))
        .replace("app: server", &format!("app: {name}"))
}

#[test]
fn a_pod_whose_tcp_probe_finds_a_closed_port_is_not_ready() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    cluster.remove_namespace(PROBES);
    cluster.make_namespace(PROBES);
    for (name, port) in [("open", 8080), ("closed", 8079)] {
        cluster.apply_to(PROBES, &cluster.inject(&probed_on(name, port), &["--tls=optional"]));
    }
    cluster.rolled_out(PROBES, &["open"]);
    // The kubelet has asked and was told so, while everything in the pod runs.
    until("a readiness probe that fails", PATIENCE, || {
        let pods = cluster.pods(PROBES, "app=closed");
        let name = pods.first().and_then(|pod| pod["metadata"]["name"].as_str()).ok_or("it does not run")?;
        let about = format!("involvedObject.name={name},reason=Unhealthy");
        let events = cluster.kubectl(&["get", "events", "-n", PROBES, "--field-selector", &about]);
        let is_told = events.contains("Readiness probe failed: HTTP probe failed with statuscode: 503");
        if is_told { Ok(()) } else { Err(format!("{events}{:#}", pods[0]["status"])) }
    });
    let closed = cluster.get_json(&["deployment", "closed", "-n", PROBES]);
    assert_eq!(closed["status"]["readyReplicas"], Value::Null, "{:#}", closed["status"]);
    cluster.leave_namespace(PROBES);
}
