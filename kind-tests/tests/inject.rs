//! `conduit inject --tls=optional emojivoto.yml | kubectl apply -f -`, and back.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{Cluster, mesh};
use serde_json::Value;

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
