//! Faults do what they say, to whom they say, and count it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::{sync::Arc, time::Duration};

use conduit_cluster::{
    Cluster, Config, Verb,
    faults::{Effect, Target},
};
use conduit_net::TokioNetwork;
use conduit_runtime::{Seed, drain};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api, Client,
    api::{ListParams, ObjectMeta, PostParams, WatchEvent, WatchParams},
    runtime::{WatchStreamExt, watcher},
};
use tokio::time::{Instant, timeout};

const LONG: Duration = Duration::from_secs(3600);

fn cluster() -> Cluster {
    let clock = || Duration::from_secs(1_800_000_000);
    Cluster::new(Config::new(Arc::new(clock), Seed::fixed(1)))
}

fn maps(cluster: &Cluster) -> Api<ConfigMap> {
    Api::default_namespaced(cluster.client())
}

fn map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    }
}

async fn create(api: &Api<ConfigMap>, name: &str) -> kube::Result<ConfigMap> {
    api.create(&PostParams::default(), &map(name)).await
}

fn code<T: std::fmt::Debug>(result: kube::Result<T>) -> u16 {
    match result.unwrap_err() {
        kube::Error::Api(status) => status.code,
        other => panic!("not a refusal: {other:?}"),
    }
}

#[tokio::test]
async fn an_error_hits_the_next_matching_requests_and_no_other() {
    let cluster = cluster();
    let api = maps(&cluster);
    let creates = Target::any().verb(Verb::Create).resource("configmaps").namespace("default");
    let fault = cluster.faults().inject(creates, Effect::fail(503), 2);
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 0);
    assert_eq!(code(create(&api, "a").await), 503);
    assert_eq!(code(create(&api, "a").await), 503);
    create(&api, "a").await.unwrap();
    assert_eq!(fault.fired(), 2);
}

#[tokio::test]
async fn an_error_by_name_lasts_until_it_is_removed() {
    let cluster = cluster();
    let api = maps(&cluster);
    for status in [409, 410, 429, 500, 503] {
        let fault =
            cluster.faults().inject_always(Target::any().verb(Verb::Get).name("a"), Effect::fail(status));
        assert_eq!(code(api.get("a").await), status);
        assert_eq!(code(api.get("b").await), 404);
        fault.remove();
        assert_eq!(code(api.get("a").await), 404);
        assert_eq!(fault.fired(), 1);
    }
}

#[tokio::test(start_paused = true)]
async fn a_delay_takes_its_time() {
    let cluster = cluster();
    let fault = cluster.faults().inject(Target::any(), Effect::Delay(Duration::from_secs(7)), 1);
    let start = Instant::now();
    create(&maps(&cluster), "a").await.unwrap();
    assert_eq!((start.elapsed(), fault.fired()), (Duration::from_secs(7), 1));
}

#[tokio::test]
async fn a_lost_reply_is_a_write_that_happened() {
    let cluster = cluster();
    let api = maps(&cluster);
    let fault = cluster.faults().inject(Target::any().verb(Verb::Create), Effect::LoseReply, 1);
    assert!(!matches!(create(&api, "a").await, Ok(_) | Err(kube::Error::Api(_))));
    api.get("a").await.unwrap();
    assert_eq!(fault.fired(), 1);
    let fault = cluster.faults().inject(Target::any().verb(Verb::Create), Effect::Reset, 1);
    assert!(create(&api, "b").await.is_err());
    assert_eq!(code(api.get("b").await), 404);
    assert_eq!(fault.fired(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_hanging_request_is_never_answered_and_changes_nothing() {
    let cluster = cluster();
    let api = maps(&cluster);
    let fault = cluster.faults().inject(Target::any().verb(Verb::Create), Effect::Hang, 1);
    assert!(timeout(LONG, create(&api, "a")).await.is_err());
    assert_eq!((code(api.get("a").await), fault.fired()), (404, 1));
}

#[tokio::test]
async fn a_stale_list_misses_the_last_changes_and_says_so_by_its_version() {
    let cluster = cluster();
    let api = maps(&cluster);
    let first = create(&api, "a").await.unwrap();
    create(&api, "b").await.unwrap();
    let fault = cluster.faults().inject(Target::any().verb(Verb::List), Effect::StaleList { events: 1 }, 1);
    let stale = api.list(&ListParams::default()).await.unwrap();
    let names: Vec<_> = stale.items.iter().map(|map| map.metadata.name.clone().unwrap()).collect();
    assert_eq!(names, ["a"]);
    assert_eq!(stale.metadata.resource_version, first.metadata.resource_version);
    assert_eq!(api.list(&ListParams::default()).await.unwrap().items.len(), 2);
    assert_eq!(fault.fired(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_cut_watch_breaks_and_a_watcher_goes_on_without_a_gap() {
    let cluster = cluster();
    let api = maps(&cluster);
    let mut seen = watcher(api.clone(), watcher::Config::default())
        .default_backoff()
        .applied_objects()
        .filter_map(|event| async { event.ok() })
        .boxed();
    create(&api, "a").await.unwrap();
    assert_eq!(seen.next().await.unwrap().metadata.name.unwrap(), "a");
    let target = Target::any().resource("configmaps");
    // The watcher lists first; its watch is open once it has asked for more than the list.
    create(&api, "b").await.unwrap();
    assert_eq!(seen.next().await.unwrap().metadata.name.unwrap(), "b");
    assert_eq!(cluster.faults().open_watches(&target), 1);
    assert_eq!(cluster.faults().cut_watches(&Target::any().resource("secrets")), 0);
    assert_eq!(cluster.faults().cut_watches(&target), 1);
    create(&api, "c").await.unwrap();
    assert_eq!(seen.next().await.unwrap().metadata.name.unwrap(), "c");
}

#[tokio::test(start_paused = true)]
async fn a_black_hole_swallows_requests_and_events_until_it_closes() {
    let cluster = cluster();
    let api = maps(&cluster);
    let mut watch = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
    cluster.faults().black_hole();
    assert!(timeout(LONG, create(&api, "a")).await.is_err());
    let late = tokio::spawn({
        let api = api.clone();
        async move { create(&api, "b").await }
    });
    assert!(timeout(LONG, watch.try_next()).await.is_err());
    cluster.faults().up();
    late.await.unwrap().unwrap();
    assert!(
        matches!(watch.try_next().await.unwrap(), Some(WatchEvent::Added(map)) if map.metadata.name.as_deref() == Some("b"))
    );
}

#[tokio::test]
async fn a_cluster_that_is_down_refuses_connections_and_comes_back_with_its_state() {
    let cluster = cluster();
    let (_trigger, watch) = drain::channel();
    let serving =
        cluster.serve(&TokioNetwork::shared(), "127.0.0.1:0".parse().unwrap(), watch).await.unwrap();
    let mut config = kube::Config::new(format!("http://{}", serving.addr).parse().unwrap());
    config.default_retry = false;
    let server = tokio::spawn(serving.server);
    for client in [Client::try_from(config).unwrap(), cluster.client()] {
        let api: Api<ConfigMap> = Api::default_namespaced(client);
        let mut watch = api.watch(&WatchParams::default(), "0").await.unwrap().boxed();
        create(&api, "a").await.unwrap();
        assert!(matches!(watch.try_next().await.unwrap(), Some(WatchEvent::Added(_))));
        cluster.faults().down();
        // A broken stream is an error to some clients and an end to others; what matters is that it does not hang.
        assert!(!matches!(watch.try_next().await, Ok(Some(_))));
        assert!(!matches!(create(&api, "b").await, Ok(_) | Err(kube::Error::Api(_))));
        cluster.faults().up();
        api.delete("a", &Default::default()).await.unwrap();
    }
    server.abort();
}
