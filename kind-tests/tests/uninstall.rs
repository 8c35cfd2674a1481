//! `conduit uninstall | kubectl delete -f -`: nothing of Conduit is left, and the application does not notice.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{Cluster, cluster::PATIENCE, load::Load, mesh, process::until};

const NAMESPACE: &str = "conduit-tests-uninstall";
const KINDS: &str = "namespaces,clusterroles,clusterrolebindings,roles,rolebindings,serviceaccounts,services,deployments,\
                     poddisruptionbudgets,configmaps,secrets,leases";

#[test]
fn nothing_labelled_is_left_and_running_applications_are_unharmed() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let load = Load::meshed(&cluster, NAMESPACE);
    let before = load.counts();
    let manifests = cluster.conduit(&["uninstall"]);
    cluster.try_kubectl(&["delete", "--timeout=280s", "-f", "-"], &manifests).unwrap();
    for label in ["conduit.io/control-plane-ns=conduit", "app.kubernetes.io/managed-by=conduit"] {
        until("nothing is left", PATIENCE, || {
            let left = cluster.kubectl(&["get", KINDS, "-A", "-o", "name", "-l", label]);
            if left.is_empty() { Ok(()) } else { Err(left) }
        });
    }
    let since = load.after(&before, 2000);
    assert_eq!(since.failed, 0, "{since:?}");
    cluster.leave_namespace(NAMESPACE);
}
