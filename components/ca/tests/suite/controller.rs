//! The whole authority against a Kubernetes API in memory.

use std::time::Duration;

use conduit_cluster::{
    Verb,
    faults::{Effect, Target},
};
use conduit_k8s::{
    lease,
    owned::{BUNDLE_CONFIGMAP, ROOT_SECRET},
};
use k8s_openapi::api::core::v1::{ConfigMap, Secret};
use kube::{Api, api::PostParams};
use tokio::time::{Instant, sleep, timeout};

use crate::running::{PATIENCE, Running, cluster, deploy, issued, populated, quiet, secrets};

#[tokio::test]
async fn certificates_appear_and_a_restart_writes_nothing() {
    let cluster = cluster();
    let client = populated(&cluster, &["web", "voting"]).await;
    let running = Running::start(&cluster, 1).await;
    for owner in ["web", "voting"] {
        let secret = issued(&client, owner, None).await;
        assert_eq!(secret.data.unwrap().len(), 3);
    }
    let bundles: Api<ConfigMap> = Api::namespaced(client.clone(), "shop");
    assert!(
        bundles.get(BUNDLE_CONFIGMAP).await.unwrap().data.unwrap().values().next().unwrap().contains("BEGIN")
    );
    let settled = quiet(&cluster).await;
    let metrics = running.get("/metrics").await;
    for line in [
        "conduit_ca_certificates_issued_total{reason=\"missing\"} 2",
        "conduit_ca_workloads 2",
        "conduit_ca_leading 1",
        "conduit_ca_roots 1",
        "conduit_ca_leaf_min_not_after_seconds 1800093600",
    ] {
        assert!(metrics.contains(line), "{line} is not in\n{metrics}");
    }
    assert!(running.get("/ready").await.starts_with("HTTP/1.0 200"));
    running.stop().await;

    let running = Running::start(&cluster, 2).await;
    running.tells("conduit_ca_workloads 2").await;
    assert_eq!(quiet(&cluster).await, settled);
    running.stop().await;
}

#[tokio::test]
async fn a_deleted_secret_and_a_deleted_root_come_back() {
    let cluster = cluster();
    let client = populated(&cluster, &["web"]).await;
    let running = Running::start(&cluster, 1).await;
    let first = issued(&client, "web", None).await;
    quiet(&cluster).await;
    secrets(&client).delete("web-deployment-tls-conduit-io", &Default::default()).await.unwrap();
    let deleted = Instant::now();
    let second = issued(&client, "web", Some(&first)).await;
    assert!(deleted.elapsed() < Duration::from_secs(5), "at once, not when everything is looked at again");
    assert_ne!(first.data, second.data, "a new key each time");

    let roots: Api<Secret> = Api::namespaced(client.clone(), "conduit");
    let before = roots.get(ROOT_SECRET).await.unwrap();
    roots.delete(ROOT_SECRET, &Default::default()).await.unwrap();
    let restored = async {
        loop {
            match roots.get_opt(ROOT_SECRET).await.unwrap() {
                Some(secret) => return secret,
                None => sleep(Duration::from_millis(10)).await,
            }
        }
    };
    assert_eq!(timeout(PATIENCE, restored).await.unwrap().data, before.data);
    running.stop().await;
}

#[tokio::test(start_paused = true)]
async fn a_secret_that_is_not_ours_is_left_alone_until_it_is_gone() {
    let cluster = cluster();
    let client = populated(&cluster, &["web", "voting"]).await;
    let mut theirs = Secret::default();
    theirs.metadata.name = Some("web-deployment-tls-conduit-io".into());
    let theirs = secrets(&client).create(&PostParams::default(), &theirs).await.unwrap();
    let running = Running::start(&cluster, 1).await;
    issued(&client, "voting", None).await;
    quiet(&cluster).await;
    assert_eq!(secrets(&client).get("web-deployment-tls-conduit-io").await.unwrap(), theirs);
    assert!(running.get("/metrics").await.contains("conduit_ca_foreign_objects 1"));
    secrets(&client).delete("web-deployment-tls-conduit-io", &Default::default()).await.unwrap();
    // No watch tells: it carries none of our marks.
    sleep(Duration::from_secs(40)).await;
    issued(&client, "web", None).await;
    running.tells("conduit_ca_foreign_objects 0").await;
    running.stop().await;
}

#[tokio::test]
async fn workloads_that_come_later_are_served_too() {
    let cluster = cluster();
    let client = populated(&cluster, &[]).await;
    let running = Running::start(&cluster, 1).await;
    quiet(&cluster).await;
    deploy(&client, "late").await;
    issued(&client, "late", None).await;
    running.stop().await;
}

#[tokio::test]
async fn the_authority_dropped_half_way_leaves_nothing_that_the_next_one_cannot_finish() {
    let cluster = cluster();
    let names: Vec<String> = (0..20).map(|n| format!("w{n}")).collect();
    let client = populated(&cluster, &names.iter().map(String::as_str).collect::<Vec<_>>()).await;
    let running = Running::start(&cluster, 1).await;
    issued(&client, "w0", None).await;
    running.task.abort();
    let running = Running::start(&cluster, 2).await;
    for name in &names {
        issued(&client, name, None).await;
    }
    running.stop().await;
}

#[tokio::test]
async fn a_failing_api_server_delays_and_loses_nothing() {
    let cluster = cluster();
    let client = populated(&cluster, &["web", "voting", "emoji"]).await;
    // Two creations are refused, a third is carried out without an answer.
    let issuing = || Target::any().verb(Verb::Create).resource("secrets").namespace("shop");
    cluster.faults().inject(issuing(), Effect::fail(500), 2);
    let lost = cluster.faults().inject(issuing(), Effect::LoseReply, 1);
    cluster.faults().inject(Target::any().resource("configmaps").verb(Verb::List), Effect::Reset, 1);
    let running = Running::start(&cluster, 1).await;
    for owner in ["web", "voting", "emoji"] {
        issued(&client, owner, None).await;
    }
    running.tells("conduit_ca_errors_total{operation=\"write_leaf\"} 3").await;
    assert_eq!(lost.fired(), 1);
    quiet(&cluster).await;
    let metrics = running.get("/metrics").await;
    assert!(
        metrics.contains("issued_total{reason=\"missing\"} 2"),
        "what was written unanswered is kept:\n{metrics}"
    );
    running.stop().await;
}

#[tokio::test]
async fn of_two_replicas_one_issues_and_the_other_takes_over() {
    let cluster = cluster();
    let client = populated(&cluster, &["web"]).await;
    conduit_runtime::log::init("info");
    let timing = lease::Timing {
        lease: Duration::from_secs(1),
        claim: Duration::from_millis(600),
        retry: Duration::from_millis(100),
    };
    let replica = |seed: u64, name: &'static str| {
        let timing = timing.clone();
        Running::start_with(&cluster, seed, move |config| {
            (config.lease, config.holder) = (Some(timing), name.to_owned());
        })
    };
    let first = replica(1, "ca-1").await;
    first.tells("conduit_ca_leading 1").await;
    let second = replica(2, "ca-2").await;
    let web = issued(&client, "web", None).await;
    second.tells("conduit_ca_leading 0").await;

    // Dies without giving its lease up.
    first.task.abort();
    second.tells("conduit_ca_leading 1").await;
    deploy(&client, "late").await;
    issued(&client, "late", None).await;
    assert_eq!(issued(&client, "web", None).await, web, "the other's certificates are good");
    second.stop().await;
}
