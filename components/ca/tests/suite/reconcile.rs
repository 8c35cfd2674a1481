//! What is written, for whom and why, as tables.

use std::collections::BTreeMap;

use conduit_ca::{reconcile::Report, state::State};
use conduit_identity::WorkloadKind;
use conduit_k8s::{
    owned::{ANNOTATION_TLS, BUNDLE_CONFIGMAP, LABEL_CONTROL_PLANE_NS, SECRET_CERT_KEY, SECRET_PRIVATE_KEY},
    watch::ObjectKey,
};
use k8s_openapi::{
    ByteString,
    api::core::v1::{ConfigMap, Pod, PodStatus, Secret},
    apimachinery::pkg::apis::meta::v1::Time,
};
use tokio::time::Instant;

use crate::{
    objects::{claiming, component_pod, controlled_by, job, pod, replica_set, with_uid},
    world::{HOUR, NOW, World, secret_key},
};

#[test]
fn the_first_installation_issues_at_once() {
    let mut world = World::new();
    world.deploy(&["web", "voting"]);
    insta::assert_snapshot!(world.settle().join("\n"), @r"
    root: create, adopting 0
    root: new issuer
    bundle: conduit/conduit-ca-bundle, 1 roots
    bundle: shop/conduit-ca-bundle, 1 roots
    leaf: shop/voting-deployment-tls-conduit-io, missing
    leaf: shop/web-deployment-tls-conduit-io, missing
    root: published
    ");
    let credentials = world.credentials("web").unwrap();
    assert_eq!(credentials.not_before(), NOW - HOUR);
    assert_eq!(credentials.not_after(), NOW + 26 * HOUR);
}

#[test]
fn a_restart_writes_nothing() {
    let mut world = World::settled(&["web", "voting", "emoji"]);
    world.restart();
    world.clock.advance(6 * HOUR);
    assert_eq!(world.settle(), [""; 0]);
}

#[test]
fn what_happens_to_pods_writes_nothing() {
    let mut world = World::settled(&["web"]);
    let again = controlled_by(WorkloadKind::ReplicaSet, "web-1");
    world.pods.push(pod("shop", "web-1-b", Some(again)));
    world.pods[0].status = Some(PodStatus { phase: Some("Pending".into()), ..PodStatus::default() });
    world.pods[0].metadata.resource_version = Some("77".into());
    assert_eq!(world.settle(), [""; 0]);
    world.pods.clear();
    assert_eq!(world.settle(), [""; 0], "what is not needed any more goes with its owner");
}

#[test]
fn a_secret_tells_whose_it_is_and_goes_with_its_owner() {
    let world = World::settled(&["web"]);
    let secret = world.secret("web");
    let owner = &secret.metadata.owner_references.as_ref().unwrap()[0];
    assert_eq!(
        (owner.api_version.as_str(), owner.kind.as_str(), owner.name.as_str()),
        ("apps/v1", "Deployment", "web")
    );
    assert_eq!(
        (owner.uid.as_str(), owner.block_owner_deletion, owner.controller),
        ("uid-of-web", Some(false), None)
    );
    assert_eq!(secret.type_.as_deref(), Some("kubernetes.io/tls"));
    let keys: Vec<_> = secret.data.as_ref().unwrap().keys().map(String::as_str).collect();
    assert_eq!(keys, ["ca.crt", "tls.crt", "tls.key"]);
    insta::assert_yaml_snapshot!((&secret.metadata.labels, &secret.metadata.annotations), @r#"
    - app.kubernetes.io/managed-by: conduit
      conduit.io/control-plane-ns: conduit
    - conduit.io/created-by: conduit/ca 0.6.0
      conduit.io/owner: deployment/web
    "#);
}

#[test]
fn every_kind_of_owner_has_its_secret() {
    use WorkloadKind as K;
    let mut world = World::new();
    let controlled = |kind, name: &str| pod("shop", &format!("{name}-x"), Some(controlled_by(kind, name)));
    world.pods.push(controlled(K::StatefulSet, "db"));
    world.pods.push(controlled(K::DaemonSet, "agent"));
    world.pods.push(controlled(K::ReplicationController, "old"));
    world.pods.push(controlled(K::ReplicaSet, "bare-set"));
    world.replica_sets.push(replica_set("shop", "bare-set", None));
    world.pods.push(controlled(K::Job, "once"));
    world.jobs.push(job("shop", "once", None));
    world.pods.push(controlled(K::Job, "nightly-1"));
    world.jobs.push(job("shop", "nightly-1", Some(controlled_by(K::CronJob, "nightly"))));
    world.pods.push(pod("shop", "alone", None));
    world.pods.push(claiming(controlled(K::ReplicaSet, "kept"), K::ReplicaSet, "kept"));
    world.replica_sets.push(replica_set("shop", "kept", Some(controlled_by(K::Deployment, "adopter"))));
    world.settle();
    let owners: Vec<_> = world
        .secrets
        .values()
        .filter_map(|secret| {
            let owner = &secret.metadata.owner_references.as_ref()?[0];
            let name = secret.metadata.name.as_ref()?;
            Some(format!("{name}: {} {} {} {}", owner.api_version, owner.kind, owner.name, owner.uid))
        })
        .collect();
    insta::assert_snapshot!(owners.join("\n"), @r"
    agent-daemonset-tls-conduit-io: apps/v1 DaemonSet agent uid-of-agent
    alone-pod-tls-conduit-io: v1 Pod alone uid-of-alone
    bare-set-replicaset-tls-conduit-io: apps/v1 ReplicaSet bare-set uid-of-bare-set
    db-statefulset-tls-conduit-io: apps/v1 StatefulSet db uid-of-db
    kept-replicaset-tls-conduit-io: apps/v1 ReplicaSet kept uid-of-kept
    nightly-cronjob-tls-conduit-io: batch/v1 CronJob nightly uid-of-nightly
    old-replicationcontroller-tls-conduit-io: v1 ReplicationController old uid-of-old
    once-job-tls-conduit-io: batch/v1 Job once uid-of-once
    ");
}

#[test]
fn a_name_too_long_for_dns_has_its_secret_in_the_hash_form_and_its_owner_in_full() {
    // A label of a name holds 63 octets, a whole name 253.
    let long = "a".repeat(63) + "b";
    let dotted = ["c".repeat(60), "d".repeat(60), "e".repeat(60), "f".repeat(60)].join(".");
    for name in [&long, &dotted] {
        let world = World::settled(&[name]);
        let secret = world.secret(name);
        let secret_name = secret.metadata.name.as_deref().unwrap();
        assert!(secret_name.starts_with("conduit-hash-") && secret_name.len() < 100, "{secret_name}");
        let annotations = secret.metadata.annotations.as_ref().unwrap();
        assert_eq!(annotations["conduit.io/owner"], format!("deployment/{name}"));
        assert_eq!(secret.metadata.owner_references.as_ref().unwrap()[0].name, **name);
        let identity = world.credentials(name).unwrap().identity().as_str().to_owned();
        let label = identity.split('.').next().unwrap();
        assert!(secret_name.starts_with(&format!("{label}-deployment")), "{identity}, {secret_name}");
        assert!(identity.len() <= 253, "{identity}");
    }
    // The longest that fits is written out.
    let fits = "a".repeat(63);
    assert!(World::settled(&[&fits]).secret(&fits).metadata.name.as_deref().unwrap().starts_with(&fits));
}

#[test]
fn only_pods_that_were_injected_with_tls_by_us_ask_for_anything() {
    let annotated = |tls: &str| {
        let mut pod = pod("shop", "web", None);
        pod.metadata.annotations = Some(BTreeMap::from([(ANNOTATION_TLS.into(), tls.into())]));
        pod
    };
    let mut theirs = pod("shop", "web", None);
    theirs.metadata.labels = Some(BTreeMap::from([(LABEL_CONTROL_PLANE_NS.into(), "other".into())]));
    let mut no_proxy = pod("shop", "web", None);
    no_proxy.spec.as_mut().unwrap().containers.clear();
    let in_phase = |phase: &str| {
        let status = Some(PodStatus { phase: Some(phase.into()), ..PodStatus::default() });
        Pod { status, ..pod("shop", "web", None) }
    };
    let unknown_owner = pod("shop", "web", Some(controlled_by(WorkloadKind::ReplicaSet, "never-seen")));
    let cases = [
        ("disabled", annotated("disabled")),
        ("nonsense", annotated("yes")),
        ("another control plane's", theirs),
        ("without a proxy", no_proxy),
        ("succeeded", in_phase("Succeeded")),
        ("failed", in_phase("Failed")),
        ("of an owner that was not seen yet", unknown_owner),
    ];
    for (what, pod) in cases {
        let mut world = World::settled(&[]);
        world.pods.push(pod);
        assert_eq!(world.settle(), [""; 0], "a pod {what}");
    }
}

#[test]
fn parts_of_the_control_plane_get_their_own_names() {
    let mut world = World::settled(&[]);
    let set = |name: &str| controlled_by(WorkloadKind::ReplicaSet, &format!("{name}-1"));
    for name in ["destination", "impostor"] {
        world.components.push(component_pod(name, set("destination")));
    }
    let owner = controlled_by(WorkloadKind::Deployment, "destination");
    world.replica_sets.push(replica_set("conduit", "destination-1", Some(owner)));
    assert_eq!(world.settle(), ["leaf: conduit/destination-deployment-tls-conduit-io, missing"]);
    let reports = world.reports();
    assert!(matches!(reports.as_slice(), [Report::Mismatch(m)] if m.pod.name == "impostor-1"), "{reports:?}");
}

#[test]
fn a_pod_that_claims_anothers_workload_is_refused_and_reported() {
    let mut world = World::settled(&[]);
    world.pods.push(claiming(pod("shop", "evil", None), WorkloadKind::Deployment, "web"));
    assert_eq!(world.settle(), [""; 0]);
    assert!(matches!(world.reports().as_slice(), [Report::Mismatch(_)]));
}

#[test]
fn a_deleted_secret_or_bundle_is_made_again() {
    let mut world = World::settled(&["web"]);
    world.secrets.remove(&secret_key("web"));
    world.bundles.remove(&ObjectKey::new("shop", BUNDLE_CONFIGMAP));
    insta::assert_snapshot!(world.settle().join("\n"), @r"
    bundle: shop/conduit-ca-bundle, 1 roots
    leaf: shop/web-deployment-tls-conduit-io, missing
    ");
}

#[test]
fn a_secret_of_an_earlier_life_of_its_workload_is_replaced() {
    let mut world = World::settled(&["web"]);
    world.replica_sets.clear();
    let reborn = with_uid(controlled_by(WorkloadKind::Deployment, "web"), "uid-2");
    world.replica_sets.push(replica_set("shop", "web-1", Some(reborn)));
    assert_eq!(world.settle(), ["leaf: shop/web-deployment-tls-conduit-io, wrong_owner"]);
    assert_eq!(world.secret("web").metadata.owner_references.as_ref().unwrap()[0].uid, "uid-2");
}

#[test]
fn while_two_lives_of_a_workload_overlap_the_younger_owns_the_secret() {
    let mut world = World::settled(&[]);
    for (life, created_s, deleted) in [("uid-old", 10, true), ("uid-new", 20, false)] {
        let owner = with_uid(controlled_by(WorkloadKind::StatefulSet, "db"), life);
        let mut pod = pod("shop", &format!("db-{life}"), Some(owner));
        let at = |s| Some(Time(k8s_openapi::jiff::Timestamp::from_second(s).unwrap()));
        pod.metadata.creation_timestamp = at(created_s);
        pod.metadata.deletion_timestamp = at(30).filter(|_| deleted);
        world.pods.push(pod);
    }
    world.settle();
    let secret = &world.secrets[&ObjectKey::new("shop", "db-statefulset-tls-conduit-io")];
    assert_eq!(secret.metadata.owner_references.as_ref().unwrap()[0].uid, "uid-new");
}

#[test]
fn what_is_wrong_with_a_secret_is_why_it_is_replaced() {
    type Spoil = fn(&mut Secret, &Secret);
    let cases: [(&str, Spoil); 5] = [
        ("invalid", |secret, _| secret.data = None),
        ("invalid", |secret, _| {
            let chain = ByteString(b"nonsense".to_vec());
            secret.data.as_mut().unwrap().insert(SECRET_CERT_KEY.into(), chain);
        }),
        ("invalid", |secret, other| {
            let key = other.data.as_ref().unwrap()[SECRET_PRIVATE_KEY].clone();
            secret.data.as_mut().unwrap().insert(SECRET_PRIVATE_KEY.into(), key);
        }),
        ("wrong_name", |secret, other| secret.data.clone_from(&other.data)),
        ("wrong_owner", |secret, _| secret.metadata.owner_references = None),
    ];
    for (reason, spoil) in cases {
        let mut world = World::settled(&["web", "voting"]);
        let mut secret = world.secret("web").clone();
        spoil(&mut secret, world.secret("voting"));
        world.put_secret(secret_key("web"), secret);
        assert_eq!(world.settle(), [format!("leaf: shop/web-deployment-tls-conduit-io, {reason}")]);
        assert!(world.credentials("web").is_ok());
    }
}

#[test]
fn a_secret_of_another_authority_is_under_a_wrong_root() {
    let mut theirs = World::new();
    theirs.restart();
    theirs.deploy(&["web"]);
    theirs.settle();
    let mut world = World::settled(&["web"]);
    world.put_secret(secret_key("web"), theirs.secret("web").clone());
    assert_eq!(world.settle(), ["leaf: shop/web-deployment-tls-conduit-io, wrong_root"]);
}

#[test]
fn a_foreign_secret_is_left_alone_and_reported() {
    let foreign = Secret {
        data: Some(BTreeMap::from([("password".into(), ByteString(b"dear".to_vec()))])),
        ..Secret::default()
    };
    let key = secret_key("web");
    let mut world = World::settled(&["web"]);
    world.secrets.insert(key.clone(), std::sync::Arc::new(foreign));
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.reports(), [Report::ForeignSecret(key.clone())]);

    // As the watch has it, which shows only what carries our marks.
    world.secrets.remove(&key);
    world.foreign.insert(key.clone(), Instant::now());
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.reports(), [Report::ForeignSecret(key)]);
}

#[test]
fn a_foreign_bundle_is_left_alone_and_does_not_hold_up_the_others() {
    let key = ObjectKey::new("shop", BUNDLE_CONFIGMAP);
    let mut world = World::new();
    world.deploy(&["web"]);
    world.put_bundle(key.clone(), ConfigMap::default());
    let written = world.settle();
    assert!(written.contains(&"root: published".to_owned()), "{written:?}");
    assert!(!written.iter().any(|write| write.contains(&key.to_string())), "{written:?}");
    assert_eq!(world.reports(), [Report::ForeignBundle(key)]);
}

#[test]
fn what_others_add_to_our_objects_is_kept() {
    let mut world = World::settled(&["web"]);
    let mut secret = world.secret("web").clone();
    secret.metadata.annotations.as_mut().unwrap().insert("team".into(), "shop".into());
    world.put_secret(secret_key("web"), secret);
    world.clock.advance(13 * HOUR);
    assert_eq!(world.settle(), ["leaf: shop/web-deployment-tls-conduit-io, due"]);
    assert_eq!(world.secret("web").metadata.annotations.as_ref().unwrap()["team"], "shop");
}

#[test]
fn renewals_come_around_fourteen_hours_before_the_end_and_not_together() {
    let names: Vec<String> = (0..60).map(|n| format!("w{n}")).collect();
    let mut world = World::settled(&names.iter().map(String::as_str).collect::<Vec<_>>());
    let mut renewed_by_minute = BTreeMap::new();
    for minute in 0..(13 * 60) {
        let renewed = world.settle();
        assert!(renewed.iter().all(|write| write.ends_with(", due")), "{renewed:?}");
        if !renewed.is_empty() {
            renewed_by_minute.insert(minute, renewed.len());
        }
        world.clock.advance(HOUR / 60);
    }
    let (first, last) = (renewed_by_minute.keys().next().unwrap(), renewed_by_minute.keys().last().unwrap());
    assert!(
        (11 * 60 + 30..11 * 60 + 45).contains(first) && (12 * 60 + 15..=12 * 60 + 31).contains(last),
        "{renewed_by_minute:?}"
    );
    assert_eq!(renewed_by_minute.values().sum::<usize>(), 60, "each once");
    assert!(renewed_by_minute.values().all(|together| *together < 15), "{renewed_by_minute:?}");
}

#[test]
fn each_renewal_has_a_new_key_and_serial_number() {
    let mut world = World::settled(&["web"]);
    let before = world.secret("web").data.clone().unwrap();
    world.clock.advance(13 * HOUR);
    world.settle();
    let after = world.secret("web").data.clone().unwrap();
    assert_ne!(before[SECRET_PRIVATE_KEY], after[SECRET_PRIVATE_KEY]);
    assert_ne!(before[SECRET_CERT_KEY], after[SECRET_CERT_KEY]);
}

#[test]
fn a_certificate_from_a_clock_that_was_ahead_is_replaced() {
    let mut world = World::settled(&["web"]);
    world.clock.advance(10 * HOUR);
    world.secrets.remove(&secret_key("web"));
    world.settle();
    world.clock.set(NOW + 2 * HOUR);
    assert_eq!(world.settle(), ["leaf: shop/web-deployment-tls-conduit-io, not_yet_valid"]);
}

#[test]
fn a_clock_behind_the_authoritys_own_certificates_churns_nothing() {
    let mut world = World::settled(&["web"]);
    world.clock.set(NOW - 48 * HOUR);
    assert_eq!(world.settle(), [""; 0]);
    world.clock.set(NOW);
    assert_eq!(world.settle(), [""; 0]);
}

#[test]
fn the_stored_state_reads_back_as_it_was() {
    let world = World::settled(&["web"]);
    let state = world.state().unwrap();
    assert_eq!(State::from_json(&state.to_json()), Ok(state.clone()));
    for broken in [&b""[..], b"{}", b"{\"version\":9,\"roots\":[],\"issuer\":null}", b"\xff"] {
        assert!(State::from_json(broken).is_err());
    }
    assert!(!format!("{state:?}").contains("PRIVATE"), "keys are never shown");
}
