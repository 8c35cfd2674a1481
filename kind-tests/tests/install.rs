//! `conduit install --tls=optional | kubectl apply -f -`: a control plane that works, and may do no more than it needs.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeSet;

use kind_tests::{Cluster, mesh};
use serde_json::Value;

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
        ("observe", "create tokenreviews.authentication.k8s.io -A", true),
        ("observe", "create subjectaccessreviews.authorization.k8s.io -A", true),
        ("observe", "create serviceaccounts/token -n conduit", false),
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

/// What the API server says that a component may do in this namespace, beyond what every account may: `resource verb`, or
/// `resource/name verb`.
fn rights(cluster: &Cluster, account: &str, namespace: &str) -> BTreeSet<String> {
    let question = format!(
        "apiVersion: authorization.k8s.io/v1\nkind: SelfSubjectRulesReview\nspec:\n  namespace: {namespace}\n"
    );
    let user = format!("--as=system:serviceaccount:conduit:{account}");
    let answer = cluster.try_kubectl(&["create", &user, "-f", "-", "-o", "json"], &question).unwrap();
    let answer: Value = serde_json::from_str(&answer).unwrap();
    let texts = |value: &Value| -> Vec<String> {
        value.as_array().into_iter().flatten().filter_map(|text| Some(text.as_str()?.to_owned())).collect()
    };
    let mut rights = BTreeSet::new();
    for rule in answer["status"]["resourceRules"].as_array().unwrap() {
        let names: Vec<String> =
            texts(&rule["resourceNames"]).iter().map(|name| format!("/{name}")).collect();
        let names = if names.is_empty() { vec![String::new()] } else { names };
        for resource in
            texts(&rule["resources"]).iter().filter(|resource| !resource.starts_with("selfsubject"))
        {
            for name in &names {
                rights.extend(texts(&rule["verbs"]).iter().map(|verb| format!("{resource}{name} {verb}")));
            }
        }
    }
    rights
}

fn of(verbs: &[&str], resources: &[&str]) -> Vec<String> {
    resources.iter().flat_map(|resource| verbs.iter().map(move |verb| format!("{resource} {verb}"))).collect()
}

#[test]
fn no_component_has_a_right_that_is_not_listed_here() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let follow = |resources: &[&str]| of(&["list", "watch"], resources);
    let ca = [
        follow(&["pods", "replicasets", "jobs"]),
        of(&["get", "list", "watch", "create", "update"], &["secrets"]),
        of(&["get", "list", "watch", "update"], &["configmaps/conduit-ca-bundle"]),
        of(&["create"], &["configmaps"]),
    ]
    .concat();
    let ca_at_home = [of(&["get", "update"], &["leases/conduit-ca"]), of(&["create"], &["leases"])].concat();
    let destination = follow(&["endpoints", "endpointslices", "pods", "services", "replicasets", "jobs"]);
    let followed = ["namespaces", "pods", "services", "replicationcontrollers", "daemonsets", "deployments"];
    let observe = [
        follow(&followed),
        follow(&["replicasets", "statefulsets", "cronjobs", "jobs"]),
        of(&["create"], &["tokenreviews", "subjectaccessreviews"]),
    ]
    .concat();
    for (account, everywhere, at_home) in
        [("ca", ca, ca_at_home), ("destination", destination, vec![]), ("observe", observe, vec![])]
    {
        let everywhere: BTreeSet<String> = everywhere.into_iter().collect();
        assert_eq!(rights(&cluster, account, "default"), everywhere, "{account}, anywhere");
        let at_home = everywhere.into_iter().chain(at_home).collect();
        assert_eq!(
            rights(&cluster, account, mesh::CONTROL_PLANE),
            at_home,
            "{account}, in its own namespace"
        );
    }
    assert_eq!(rights(&cluster, "default", mesh::CONTROL_PLANE), BTreeSet::new());
}
