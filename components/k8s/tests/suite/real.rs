//! Against the cluster that `KUBECONFIG` names, in a namespace of its own: what an API server of ours agrees to must be
//! what a real one does. Run by name: `cargo nextest run -p conduit-k8s --run-ignored only`.

use std::{sync::Arc, time::Duration};

use conduit_identity::{Clock, SystemClock};
use conduit_k8s::{
    cache::Cache,
    cause::News,
    client,
    lease::{self, Campaign},
    slices,
    watch::{Event, Follow, Health, ObjectKey, Source, Timing},
};
use conduit_net::TokioNetwork;
use conduit_runtime::{Seed, drain};
use k8s_openapi::api::{
    coordination::v1::Lease,
    core::v1::{ConfigMap, Endpoints, Namespace, Service},
};
use kube::{
    Api,
    api::{DeleteParams, PostParams},
};
use rand::Rng;
use serde_json::json;
use tokio::{sync::mpsc, time::timeout};

const SOON: Duration = Duration::from_secs(60);

/// A namespace that is deleted in the end, whatever happens to the test.
async fn in_a_namespace<F: Future<Output = ()> + Send + 'static>(
    purpose: &str,
    test: impl FnOnce(kube::Client, String) -> F,
) {
    // A run must not meet the namespace of the last, which may still be terminating.
    let name = format!("conduit-k8s-{purpose}-{:08x}", Seed::from_os().unwrap().rng().next_u32());
    let client = client::infer(TokioNetwork::shared()).await.unwrap();
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    namespaces.create(&PostParams::default(), &namespace).await.unwrap();
    let outcome = tokio::spawn(test(client, name.clone())).await;
    namespaces.delete(&name, &DeleteParams::default()).await.unwrap();
    outcome.unwrap();
}

fn config_map(name: &str, value: &str) -> ConfigMap {
    serde_json::from_value(json!({"metadata": {"name": name}, "data": {"key": value}})).unwrap()
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_cache_follows_a_real_api_server() {
    in_a_namespace("cache", |client, namespace| async move {
        let maps: Api<ConfigMap> = Api::namespaced(client.clone(), &namespace);
        for name in ["b", "a", "c"] {
            maps.create(&PostParams::default(), &config_map(name, "1")).await.unwrap();
        }
        // Pages of two, and watches of a second: every transition happens.
        let timing = Timing { page: 2, watch: Duration::from_secs(1), ..Timing::default() };
        let source = Source::namespaced(client, &namespace);
        let follow = Follow::new(source, timing, &Seed::fixed(1));
        let (cache, filled) = Cache::<ConfigMap>::new(follow, |_| {});
        let filling = tokio::spawn(filled);
        timeout(SOON, cache.synced()).await.unwrap();
        // Newer clusters put a ConfigMap of their own into each namespace.
        let ours = |cache: &Cache<ConfigMap>| {
            let names = cache.snapshot().keys().map(|key| key.name.clone()).collect::<Vec<_>>();
            names.into_iter().filter(|name| name.len() == 1).collect::<String>()
        };
        assert_eq!(ours(&cache), "abc");

        let mut changes = cache.changes();
        maps.delete("b", &DeleteParams::default()).await.unwrap();
        maps.create(&PostParams::default(), &config_map("d", "1")).await.unwrap();
        tokio::time::sleep(Duration::from_secs(4)).await;
        maps.create(&PostParams::default(), &config_map("e", "1")).await.unwrap();
        while ours(&cache) != "acde" {
            timeout(SOON, changes.changed()).await.unwrap().unwrap();
        }
        assert_eq!(cache.health().failures(), 0, "{:?}", cache.health().last_error());
        filling.abort();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn slices_are_followed_in_the_version_that_is_served() {
    in_a_namespace("slices", |client, namespace| async move {
        let (told, mut events) = mpsc::unbounded_channel();
        let on = move |event| {
            told.send(event).ok();
        };
        let (seed, health) = (Seed::fixed(1), Health::default());
        let following = tokio::spawn(slices::follow(
            client.clone(),
            Timing::default(),
            seed,
            health.clone(),
            News::default(),
            on,
        ));
        timeout(SOON, health.synced()).await.unwrap();
        assert_eq!(health.failures(), 0);

        // Endpoints by hand, which the cluster mirrors into a slice.
        let service = json!({"metadata": {"name": "legacy"}, "spec": {"ports": [{"port": 80}]}});
        let service: Service = serde_json::from_value(service).unwrap();
        let services = Api::namespaced(client.clone(), &namespace);
        services.create(&PostParams::default(), &service).await.unwrap();
        let endpoints = json!({
            "metadata": {"name": "legacy"},
            "subsets": [{"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 3306}]}],
        });
        let endpoints: Endpoints = serde_json::from_value(endpoints).unwrap();
        let api = Api::namespaced(client, &namespace);
        api.create(&PostParams::default(), &endpoints).await.unwrap();
        let legacy = Some(ObjectKey::new(&namespace, "legacy"));
        loop {
            let event = timeout(SOON, events.recv()).await.unwrap().unwrap();
            let Event::Applied(_, slice) = event else { continue };
            if slice.service == legacy && !slice.subsets[0].endpoints.is_empty() {
                assert_eq!(slice.subsets[0].ports[0].port, 3306);
                assert_eq!(slice.subsets[0].endpoints[0].addresses[0].to_string(), "192.0.2.7");
                break;
            }
        }
        following.abort();
    })
    .await;
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_lease_is_taken_renewed_and_handed_over() {
    in_a_namespace("lease", |client, namespace| async move {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let timing = lease::Timing {
            lease: Duration::from_secs(6),
            claim: Duration::from_secs(4),
            retry: Duration::from_secs(1),
        };
        let candidate = |name: &str| {
            let (clock, timing) = (Arc::clone(&clock), timing.clone());
            let (campaign, leadership) =
                Campaign::new(client.clone(), &namespace, "test", name, clock, timing, &Seed::fixed(1));
            let (trigger, watch) = drain::channel();
            tokio::spawn(campaign.run(watch));
            (leadership, trigger)
        };
        let (first, stop_first) = candidate("first");
        timeout(SOON, first.gained()).await.unwrap();
        let (second, stop_second) = candidate("second");
        for _ in 0..10 {
            tokio::time::sleep(Duration::from_secs(1)).await;
            assert!(first.is_leading() && !second.is_leading());
        }
        assert!(stop_first.drain(SOON).await);
        timeout(timing.lease, second.gained()).await.unwrap();
        let leases: Api<Lease> = Api::namespaced(client.clone(), &namespace);
        let spec = leases.get("test").await.unwrap().spec.unwrap();
        assert_eq!((spec.holder_identity.as_deref(), spec.lease_transitions), (Some("second"), Some(2)));
        assert!(stop_second.drain(SOON).await);
    })
    .await;
}
