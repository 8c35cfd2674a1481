//! Pods that come and go in the mesh.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{Cluster, cluster::PATIENCE, load::Load, mesh, process::until};
use serde_json::Value;

const NAMESPACE: &str = "conduit-tests-rollout";
const ROOT_SECRET: &str = "conduit-ca-root";

#[test]
fn rolling_updates_under_load_lose_no_request() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let load = Load::meshed(&cluster, NAMESPACE);
    let before = load.counts();
    for _ in 0..2 {
        cluster.kubectl(&["rollout", "restart", "-n", NAMESPACE, "deployment/server"]);
        cluster.rolled_out(NAMESPACE, &["server"]);
    }
    // The last of the old pods is on its way out for some seconds more.
    let since = load.after(&load.counts(), 1_000);
    assert_eq!(since.failed, 0, "{since:?}");
    let all = load.counts().since(&before);
    println!(
        "two rolling updates: {} requests, {} failed, p99 {}",
        all.sent(),
        all.failed,
        all.percentile(99)
    );
    assert_eq!(all.failed, 0, "{all:?}");
    load.until_encrypted();
    cluster.leave_namespace(NAMESPACE);
}

#[test]
fn an_upgrade_under_load_loses_no_request_and_keeps_the_root() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let root = || cluster.get_json(&["secret", ROOT_SECRET, "-n", mesh::CONTROL_PLANE])["data"].clone();
    let pods = || -> Vec<Value> {
        let pods = cluster.pods(mesh::CONTROL_PLANE, "conduit.io/control-plane-component");
        pods.iter().map(|pod| pod["metadata"]["uid"].clone()).collect()
    };
    let load = Load::meshed(&cluster, NAMESPACE);
    let (root_before, pods_before, before) = (root(), pods(), load.counts());
    // Every component is replaced, and then a server that is in the mesh.
    cluster.apply(&cluster.conduit(&["upgrade", "--controller-log-level=debug"]));
    cluster.rolled_out(mesh::CONTROL_PLANE, &mesh::COMPONENTS);
    assert!(pods().iter().all(|pod| !pods_before.contains(pod)));
    cluster.kubectl(&["rollout", "restart", "-n", NAMESPACE, "deployment/server"]);
    cluster.rolled_out(NAMESPACE, &["server"]);
    load.after(&load.counts(), 1_000);
    let all = load.counts().since(&before);
    println!("an upgrade: {} requests, {} failed, p99 {}", all.sent(), all.failed, all.percentile(99));
    assert_eq!(all.failed, 0, "{all:?}");
    load.until_encrypted();
    assert_eq!(root(), root_before);
    // What was chosen is kept until it is chosen otherwise.
    let again = cluster.apply(&cluster.conduit(&["upgrade"]));
    assert!(!again.is_empty() && again.lines().all(|line| line.ends_with(" unchanged")), "{again}");
    cluster.apply(&cluster.conduit(&["upgrade", "--controller-log-level=info"]));
    cluster.rolled_out(mesh::CONTROL_PLANE, &mesh::COMPONENTS);
    cluster.leave_namespace(NAMESPACE);
}

#[test]
fn a_job_in_the_mesh_completes_when_its_work_has_ended() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let _load = Load::meshed(&cluster, NAMESPACE);
    let job = mesh::file("kind-tests/manifests/job.yml");
    cluster.apply_to(NAMESPACE, &cluster.inject(&job, &["--tls=optional"]));
    let job = until("the Job is complete", PATIENCE, || {
        let job = cluster.get_json(&["job", "once", "-n", NAMESPACE]);
        if job["status"]["succeeded"] == 1 { Ok(job) } else { Err(format!("{:#}", job["status"])) }
    });
    let pods = cluster.pods(NAMESPACE, "app=once");
    let ended: Vec<(&Value, &Value)> = pods
        .iter()
        .flat_map(|pod| pod["status"]["containerStatuses"].as_array().unwrap())
        .map(|status| (&status["name"], &status["state"]["terminated"]))
        .collect();
    assert_eq!(ended.len(), 2, "{ended:#?}");
    assert!(ended.iter().all(|(_, terminated)| terminated["exitCode"] == 0), "{ended:#?}");
    for (name, terminated) in ended {
        println!("{name} ended at {}", terminated["finishedAt"]);
    }
    println!("the Job was complete at {}", job["status"]["completionTime"]);
    cluster.leave_namespace(NAMESPACE);
}
