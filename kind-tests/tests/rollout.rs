//! Pods that come and go in the mesh.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{Cluster, load::Load, mesh};

const NAMESPACE: &str = "conduit-tests-rollout";

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
