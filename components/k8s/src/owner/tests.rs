use k8s_openapi::apimachinery::pkg::apis::meta::v1::OwnerReference;
use serde_json::json;

use super::*;

fn meta(name: &str, labels: &[(&str, &str)], controller: Option<(&str, &str, &str)>) -> ObjectMeta {
    let owner = controller.map(|(api_version, kind, name)| OwnerReference {
        api_version: api_version.into(),
        kind: kind.into(),
        name: name.into(),
        uid: format!("uid-{name}"),
        controller: Some(true),
        block_owner_deletion: None,
    });
    ObjectMeta {
        name: Some(name.into()),
        namespace: Some("shop".into()),
        uid: Some(format!("uid-{name}")),
        labels: Some(labels.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect()),
        owner_references: owner.map(|owner| vec![owner]),
        ..ObjectMeta::default()
    }
}

fn annotated(mut meta: ObjectMeta, owner: &str) -> ObjectMeta {
    meta.annotations = Some([(ANNOTATION_OWNER.to_owned(), owner.to_owned())].into());
    meta
}

/// ReplicaSet web-1 of Deployment web, ReplicaSet roll-1 of a Rollout, Job tick-7 of CronJob tick, Job once.
fn owners() -> OwnerIndex {
    let owned =
        |name: &str, controller| (ObjectKey::new("shop", name), Owned::of(&meta(name, &[], controller)));
    OwnerIndex {
        replica_sets: [
            owned("web-1", Some(("apps/v1", "Deployment", "web"))),
            owned("roll-1", Some(("argoproj.io/v1alpha1", "Rollout", "roll"))),
        ]
        .into(),
        jobs: [owned("tick-7", Some(("batch/v1", "CronJob", "tick"))), owned("once", None)].into(),
    }
}

fn confirmed(pod: &ObjectMeta) -> String {
    match owner(pod, &owners()) {
        Owner::Confirmed(workload) => format!("{}/{}", workload.kind.as_str(), workload.name),
        other => panic!("not confirmed: {other}"),
    }
}

#[test]
fn a_pod_belongs_to_the_end_of_its_owner_chain() {
    for (controller, expected) in [
        (None, "pod/p"),
        (Some(("apps/v1", "ReplicaSet", "web-1")), "deployment/web"),
        (Some(("extensions/v1beta1", "ReplicaSet", "web-1")), "deployment/web"),
        (Some(("apps/v1", "ReplicaSet", "roll-1")), "replicaset/roll-1"),
        (Some(("v1", "ReplicationController", "old")), "replicationcontroller/old"),
        (Some(("apps/v1", "StatefulSet", "db")), "statefulset/db"),
        (Some(("apps/v1", "DaemonSet", "agent")), "daemonset/agent"),
        (Some(("batch/v1", "Job", "tick-7")), "cronjob/tick"),
        (Some(("batch/v1", "Job", "once")), "job/once"),
        (Some(("example.com/v1", "Kafka", "events")), "pod/p"),
        (Some(("example.com/v1", "Deployment", "not-ours")), "pod/p"),
    ] {
        assert_eq!(confirmed(&meta("p", &[], controller)), expected, "{controller:?}");
    }
}

#[test]
fn what_injection_wrote_decides_where_the_chain_stops() {
    let of_web = Some(("apps/v1", "ReplicaSet", "web-1"));
    for (labels, expected) in [
        (("conduit.io/proxy-deployment", "web"), "deployment/web"),
        (("conduit.io/proxy-replica-set", "web-1"), "replicaset/web-1"),
    ] {
        assert_eq!(confirmed(&meta("p", &[labels], of_web)), expected);
    }
    assert_eq!(confirmed(&annotated(meta("p", &[], of_web), "pod/p")), "pod/p");
    assert_eq!(confirmed(&annotated(meta("p", &[], of_web), "no such form")), "deployment/web");
}

#[test]
fn a_name_too_long_for_a_label_is_confirmed_in_its_hash_form() {
    let name = "n".repeat(80);
    let workload = Workload { namespace: "shop".into(), kind: WorkloadKind::StatefulSet, name: name.clone() };
    let value = workload.label_value();
    assert_ne!(value, name);
    let pod =
        meta("p", &[("conduit.io/proxy-stateful-set", &value)], Some(("apps/v1", "StatefulSet", &name)));
    assert_eq!(owner(&pod, &owners()), Owner::Confirmed(workload));
}

#[test]
fn a_claim_that_the_chain_does_not_have_is_a_mismatch_that_can_be_told() {
    let pod =
        meta("p", &[("conduit.io/proxy-deployment", "payments")], Some(("apps/v1", "ReplicaSet", "web-1")));
    let owner = owner(&pod, &owners());
    assert_eq!(owner.confirmed(), None);
    assert_eq!(owner.actual().name, "web");
    assert_eq!(owner.to_string(), "injected for deployment/payments but owned by deployment/shop/web");
}

#[test]
fn an_owner_that_was_not_seen_or_was_made_anew_is_pending() {
    let unseen = meta("p", &[], Some(("apps/v1", "ReplicaSet", "web-2")));
    assert!(matches!(owner(&unseen, &owners()), Owner::Pending { .. }));

    let mut anew = meta("p", &[], Some(("apps/v1", "ReplicaSet", "web-1")));
    anew.owner_references.as_mut().unwrap()[0].uid = "another life".into();
    assert!(matches!(owner(&anew, &owners()), Owner::Pending { .. }));
}

#[test]
fn a_claim_that_the_pods_own_controller_confirms_needs_no_lookup() {
    let pod =
        meta("p", &[("conduit.io/proxy-replica-set", "web-2")], Some(("apps/v1", "ReplicaSet", "web-2")));
    assert_eq!(confirmed(&pod), "replicaset/web-2");
}

#[test]
fn a_loop_of_owners_ends() {
    let mut owners = owners();
    let key = ObjectKey::new("shop", "loop");
    let looped = meta("loop", &[], Some(("apps/v1", "ReplicaSet", "loop")));
    owners.replica_sets.insert(key, Owned::of(&looped));
    let pod = meta("p", &[], Some(("apps/v1", "ReplicaSet", "loop")));
    assert_eq!(owner(&pod, &owners).actual().name, "loop");
}

#[test]
fn only_a_pod_with_a_proxy_is_meshed_and_only_the_annotation_turns_tls_on() {
    let pod = |control_plane: &str, tls: &str, containers: &[&str], init: &[&str]| -> Pod {
        let named = |names: &[&str]| names.iter().map(|name| json!({"name": name})).collect::<Vec<_>>();
        serde_json::from_value(json!({
            "metadata": {
                "labels": {LABEL_CONTROL_PLANE_NS: control_plane},
                "annotations": {ANNOTATION_TLS: tls},
            },
            "spec": {"containers": named(containers), "initContainers": named(init)},
        }))
        .unwrap()
    };
    let cases = [
        (pod("conduit", "optional", &["conduit-proxy", "app"], &[]), true, true),
        (pod("conduit", "optional", &["app"], &["conduit-proxy"]), true, true),
        (pod("conduit", "disabled", &["conduit-proxy"], &[]), true, false),
        (pod("conduit", "optional", &["app"], &[]), false, false),
        (pod("another", "optional", &["conduit-proxy"], &[]), false, true),
        (Pod::default(), false, false),
    ];
    for (pod, meshed, tls) in cases {
        assert_eq!((is_meshed(&pod, "conduit"), injected_tls(&pod)), (meshed, tls), "{pod:?}");
    }
}
