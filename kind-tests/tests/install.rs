//! `conduit install --tls=optional | kubectl apply -f -`: a control plane that works, and may do no more than it needs.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{Cluster, mesh};

#[test]
fn the_documented_line_installs_a_control_plane_and_said_again_changes_nothing() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let again = cluster.apply(&cluster.conduit(&["install", "--tls=optional"]));
    let changed: Vec<&str> = again.lines().filter(|line| !line.ends_with(" unchanged")).collect();
    assert!(!again.is_empty() && changed.is_empty(), "{changed:#?}");
}

#[test]
fn every_component_may_do_what_it_needs_and_nothing_else() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let questions = [
        ("ca", "list pods -A", true),
        ("ca", "create secrets -n default", true),
        ("ca", "update secrets -n default", true),
        ("ca", "update configmaps/conduit-ca-bundle -n default", true),
        ("ca", "update configmaps/other -n default", false),
        ("ca", "delete secrets -n default", false),
        ("ca", "create pods -n default", false),
        ("ca", "update deployments -n default", false),
        ("ca", "update leases/conduit-ca -n conduit", true),
        ("ca", "update leases/other -n conduit", false),
        ("destination", "watch endpointslices.discovery.k8s.io -A", true),
        ("destination", "list pods -A", true),
        ("destination", "get secrets -n default", false),
        ("destination", "update pods -n default", false),
        ("observe", "list deployments.apps -A", true),
        ("observe", "get secrets -n default", false),
        ("observe", "create pods/exec -n default", false),
        ("observe", "create pods/portforward -n default", false),
    ];
    for (account, question, allowed) in questions {
        let user = format!("--as=system:serviceaccount:conduit:{account}");
        let args: Vec<&str> =
            ["auth", "can-i"].into_iter().chain(question.split(' ')).chain([user.as_str()]).collect();
        // "no" ends with 1.
        let answer = cluster.try_kubectl(&args, "").is_ok();
        assert_eq!(answer, allowed, "may {account} {question}?");
    }
}
