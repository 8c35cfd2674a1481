//! What is special about the cluster in memory: it is the same every time, it is bounded, it is fast enough, and it can
//! be told to forget.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::{net::IpAddr, sync::Arc, time::Duration};

use conduit_cluster::{Cluster, Config, fixtures, kubelet::Kubelet};
use conduit_runtime::{Seed, drain};
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::api::core::v1::{ConfigMap, Endpoints, Pod, Secret};
use kube::{
    Api,
    api::{DeleteParams, ListParams, ObjectMeta, Patch, PatchParams, PostParams, WatchEvent, WatchParams},
};
use serde_json::{Value, json};

fn config() -> Config {
    Config::new(Arc::new(|| Duration::from_secs(1_800_000_000)), Seed::fixed(1))
}

fn map(name: &str) -> ConfigMap {
    ConfigMap {
        metadata: ObjectMeta { name: Some(name.to_owned()), ..Default::default() },
        ..Default::default()
    }
}

/// Everything a small scenario leaves behind, as text.
async fn scenario(config: Config) -> String {
    let cluster = Cluster::new(config);
    let client = cluster.client();
    let addresses = ["10.1.0.1", "10.1.0.2"].map(|address| address.parse::<IpAddr>().unwrap());
    fixtures::deploy(&client, &fixtures::deployment("default", "web"), &addresses).await.unwrap();
    let service = fixtures::service("default", "web", &[("http", 80)]);
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &service).await.unwrap();
    cluster.reconcile_endpoints();
    let mut left = String::new();
    for path in [
        "/api/v1/pods",
        "/api/v1/services",
        "/api/v1/endpoints",
        "/apis/apps/v1/deployments",
        "/apis/apps/v1/replicasets",
        "/apis/discovery.k8s.io/v1/endpointslices",
    ] {
        let request = http::Request::get(path).body(Vec::new()).unwrap();
        left.push_str(&client.request_text(request).await.unwrap());
    }
    left
}

#[tokio::test]
async fn the_same_seed_and_clock_give_the_same_bytes() {
    let once = scenario(config()).await;
    assert_eq!(once, scenario(config()).await);
    let other = Config { seed: Seed::fixed(2), ..config() };
    assert_ne!(once, scenario(other).await);
}

#[tokio::test]
async fn a_watch_that_reads_too_slowly_is_told_that_it_expired() {
    let cluster = Cluster::new(Config { event_history: 8, ..config() });
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let mut watch =
        api.watch(&WatchParams::default(), &cluster.revision().to_string()).await.unwrap().boxed();
    for index in 0..9 {
        api.create(&PostParams::default(), &map(&format!("m{index}"))).await.unwrap();
    }
    let Some(WatchEvent::Error(status)) = watch.try_next().await.unwrap() else { panic!("no error event") };
    assert_eq!((status.code, status.reason.as_str()), (410, "Expired"));
    assert!(watch.try_next().await.unwrap().is_none());
}

#[tokio::test]
async fn a_page_whose_version_is_forgotten_has_expired() {
    let cluster = Cluster::new(config());
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    for name in ["a", "b", "c"] {
        api.create(&PostParams::default(), &map(name)).await.unwrap();
    }
    let first = api.list(&ListParams::default().limit(1)).await.unwrap();
    let token = first.metadata.continue_.unwrap();
    api.create(&PostParams::default(), &map("d")).await.unwrap();
    cluster.compact();
    let refused = api.list(&ListParams::default().limit(1).continue_token(&token)).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 410), "{refused:?}");
}

#[tokio::test]
async fn bodies_and_watches_are_bounded() {
    let cluster = Cluster::new(Config { max_body: 1000, max_watches: 1, ..config() });
    let api: Api<ConfigMap> = Api::default_namespaced(cluster.client());
    let mut large = map("a");
    large.data = Some([("k".to_owned(), "x".repeat(1000))].into());
    let refused = api.create(&PostParams::default(), &large).await.unwrap_err();
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 413), "{refused:?}");
    let watch = api.watch(&WatchParams::default(), "0").await.unwrap();
    let Err(refused) = api.watch(&WatchParams::default(), "0").await else { panic!("two watches") };
    assert!(matches!(&refused, kube::Error::Api(status) if status.code == 429), "{refused:?}");
    drop(watch);
    api.watch(&WatchParams::default(), "0").await.map(drop).unwrap();
}

#[tokio::test]
async fn an_object_of_an_owner_that_never_was_is_collected_by_a_sweep() {
    let cluster = Cluster::new(config());
    let secrets: Api<Secret> = Api::default_namespaced(cluster.client());
    let secret: Secret = serde_json::from_value(json!({ "metadata": { "name": "a", "ownerReferences": [
        { "apiVersion": "apps/v1", "kind": "Deployment", "name": "gone", "uid": "never" }] } }))
    .unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    assert_eq!(cluster.collect_garbage(), 1);
    assert!(secrets.get_opt("a").await.unwrap().is_none());
}

#[tokio::test]
async fn a_large_namespace_goes_with_everything_in_it() {
    let cluster = Cluster::new(config());
    let client = cluster.client();
    let params = PostParams::default();
    let namespaces = Api::all(client.clone());
    namespaces.create(&params, &fixtures::namespace("big")).await.unwrap();
    let api: Api<ConfigMap> = Api::namespaced(client.clone(), "big");
    let owner = api.create(&params, &map("owner")).await.unwrap();
    for index in 0..3000 {
        let mut child = map(&format!("m{index}"));
        child.metadata.owner_references = Some(vec![fixtures::owned_by(&owner)]);
        api.create(&params, &child).await.unwrap();
    }
    // Neither a cascade nor a namespace may recurse once for each object.
    api.delete("owner", &DeleteParams::foreground()).await.unwrap();
    assert!(api.list(&ListParams::default()).await.unwrap().items.is_empty());
    for index in 0..3000 {
        api.create(&params, &map(&format!("m{index}"))).await.unwrap();
    }
    namespaces.delete("big", &DeleteParams::default()).await.unwrap();
    assert!(namespaces.get_opt("big").await.unwrap().is_none());
}

#[tokio::test(start_paused = true)]
async fn controllers_follow_a_deployment_of_fixtures() {
    let cluster = Cluster::new(config());
    let client = cluster.client();
    let (trigger, watch) = drain::channel();
    let controllers = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.run_controllers(watch).await }
    });
    let service = fixtures::service("default", "web", &[("http", 80)]);
    Api::default_namespaced(client.clone()).create(&PostParams::default(), &service).await.unwrap();
    let address: IpAddr = "10.1.0.1".parse().unwrap();
    let deployed =
        fixtures::deploy(&client, &fixtures::deployment("default", "web"), &[address]).await.unwrap();
    let name = deployed.pods[0].metadata.name.clone().unwrap();
    fixtures::set_ready(&client, "default", &name, false).await.unwrap();
    let endpoints: Api<Endpoints> = Api::default_namespaced(client);
    tokio::time::sleep(Duration::from_millis(1)).await;
    let subsets = endpoints.get("web").await.unwrap().subsets.unwrap();
    assert_eq!(subsets[0].not_ready_addresses.as_ref().unwrap()[0].ip, "10.1.0.1");
    assert!(trigger.drain(Duration::from_secs(1)).await);
    controllers.await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_projected_volume_appears_changes_and_goes_with_its_sources() {
    let cluster = Cluster::new(config());
    let client = cluster.client();
    let secrets: Api<Secret> = Api::default_namespaced(client.clone());
    let sources = json!([
        { "secret": { "name": "tls", "optional": true, "items": [{ "key": "tls.crt", "path": "cert.pem" }] } },
        { "configMap": { "name": "trust", "optional": true } },
    ]);
    let pod: Pod = serde_json::from_value(json!({
        "metadata": { "name": "p", "namespace": "default" },
        "spec": { "containers": [], "volumes": [{ "name": "id", "projected": { "sources": sources, "defaultMode": 0o444 } }] },
    }))
    .unwrap();
    let kubelet =
        Kubelet { client: client.clone(), period: Duration::from_secs(60), deadline: Duration::from_secs(5) };
    let directory = tempfile::tempdir().unwrap();
    let at = directory.path();
    let read = |name: &str| std::fs::read_to_string(at.join(name)).ok();

    assert!(kubelet.sync(&pod, "id", at).await.unwrap());
    assert_eq!(read("cert.pem"), None);
    let (_trigger, watch) = drain::channel();
    let running = tokio::spawn({
        let (kubelet, pod, at) = (kubelet.clone(), pod.clone(), at.to_owned());
        async move { kubelet.run(&pod, "id", &at, watch).await }
    });
    let secret: Secret = serde_json::from_value(
        json!({ "metadata": { "name": "tls" }, "stringData": { "tls.crt": "1", "tls.key": "k" } }),
    )
    .unwrap();
    secrets.create(&PostParams::default(), &secret).await.unwrap();
    let mut trust = map("trust");
    trust.data = Some([("anchors.pem".to_owned(), "root".to_owned())].into());
    Api::<ConfigMap>::default_namespaced(client).create(&PostParams::default(), &trust).await.unwrap();
    tokio::time::sleep(Duration::from_secs(61)).await;
    assert_eq!((read("cert.pem").as_deref(), read("anchors.pem").as_deref()), (Some("1"), Some("root")));
    assert_eq!(read("tls.key"), None);
    let newer: Value = json!({ "stringData": { "tls.crt": "2" } });
    secrets.patch("tls", &PatchParams::default(), &Patch::Merge(newer)).await.unwrap();
    assert_eq!(read("cert.pem").as_deref(), Some("1"));
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!(read("cert.pem").as_deref(), Some("2"));
    secrets.delete("tls", &DeleteParams::default()).await.unwrap();
    tokio::time::sleep(Duration::from_secs(60)).await;
    assert_eq!((read("cert.pem"), read("anchors.pem").as_deref()), (None, Some("root")));
    running.abort();
}
