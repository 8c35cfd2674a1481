//! What is answered.

use conduit_cluster::{SliceVersion, faults::Effect, fixtures};
use conduit_proto::destination::{GetRequest, get_request::Target};
use k8s_openapi::api::core::v1::{Endpoints, Pod, Service};
use kube::api::{DeleteParams, PostParams};
use serde_json::json;

use crate::world::{WEB, Watching, World};

fn name(pod: &Pod) -> &str {
    pod.metadata.name.as_deref().unwrap()
}

/// "address pod identity", as a client is told.
fn told(address: &str, pod: &Pod, identity: &str) -> String {
    format!("{address} {} {identity}", name(pod))
}

#[tokio::test]
async fn an_injected_service_is_answered_with_identities_by_name_and_by_address() {
    for slices in [SliceVersion::V1, SliceVersion::V1Beta1] {
        let world = World::serving(slices).await;
        let web = world.deploy_web(&["10.1.0.1", "10.1.0.2"]).await;
        let service = world.api::<Service>().get("web").await.unwrap();
        let cluster_ip = service.spec.unwrap().cluster_ip.unwrap();
        let destination = world.destination().await;
        let expected = [told("10.1.0.1:80", &web.pods[0], WEB), told("10.1.0.2:80", &web.pods[1], WEB)];
        let expected: Vec<&str> = expected.iter().map(String::as_str).collect();

        destination.authority("web").await.until(&expected).await;
        destination.authority("web.shop.svc.cluster.local:80").await.until(&expected).await;
        destination.address(&format!("{cluster_ip}:80")).await.until(&expected).await;
        destination.address("10.1.0.2:8080").await.until(&[&told("10.1.0.2:8080", &web.pods[1], WEB)]).await;
        for unknown in ["nobody", "web:81", "www.example.com", "web."] {
            destination.authority(unknown).await.until(&["unknown"]).await;
        }
        destination.address("192.0.2.1:443").await.until(&["unknown"]).await;
    }
}

#[tokio::test]
async fn where_no_slices_are_served_endpoints_are_read() {
    let world = World::new().await;
    let slices = conduit_cluster::faults::Target::any().resource("endpointslices");
    world.cluster.faults().inject_always(slices, Effect::fail(404));
    let web = world.deploy_web(&["10.1.0.1"]).await;
    let destination = world.destination().await;
    let mut watching = destination.authority("web").await;
    let told = told("10.1.0.1:80", &web.pods[0], WEB);
    watching.until(&[&told]).await;
    fixtures::set_ready(&world.client, "shop", name(&web.pods[0]), false).await.unwrap();
    watching.until(&[]).await;
    fixtures::set_ready(&world.client, "shop", name(&web.pods[0]), true).await.unwrap();
    watching.until(&[&told]).await;
}

#[tokio::test]
async fn endpoints_by_hand_are_answered_whatever_the_version_of_slices() {
    for slices in [SliceVersion::V1, SliceVersion::V1Beta1] {
        let world = World::serving(slices).await;
        let service = json!({"metadata": {"name": "legacy"}, "spec": {"ports": [{"port": 80}]}});
        let service: Service = serde_json::from_value(service).unwrap();
        world.api().create(&PostParams::default(), &service).await.unwrap();
        let destination = world.destination().await;
        let mut watching = destination.authority("legacy").await;
        watching.until(&[]).await;
        let subset = json!({"addresses": [{"ip": "192.0.2.7"}], "ports": [{"port": 3306}]});
        let endpoints = json!({"metadata": {"name": "legacy"}, "subsets": [subset]});
        let endpoints: Endpoints = serde_json::from_value(endpoints).unwrap();
        world.api().create(&PostParams::default(), &endpoints).await.unwrap();
        watching.until(&["192.0.2.7:3306 - -"]).await;
        world.api::<Endpoints>().delete("legacy", &DeleteParams::default()).await.unwrap();
        watching.until(&[]).await;
    }
}

#[tokio::test]
async fn changes_are_told_as_they_happen() {
    let world = World::new().await;
    let destination = world.destination().await;
    let mut watching = destination.authority("web").await;
    watching.until(&["unknown"]).await;

    let web = world.deploy_web(&["10.1.0.1"]).await;
    let first = told("10.1.0.1:80", &web.pods[0], WEB);
    watching.until(&[&first]).await;

    let pod = fixtures::pod(&web.replica_set, 1);
    let pod = fixtures::start_pod(&world.client, &pod, "10.1.0.2".parse().unwrap()).await.unwrap();
    let second = told("10.1.0.2:80", &pod, WEB);
    watching.until(&[&first, &second]).await;

    fixtures::set_ready(&world.client, "shop", name(&web.pods[0]), false).await.unwrap();
    watching.until(&[&second]).await;
    fixtures::set_ready(&world.client, "shop", name(&web.pods[0]), true).await.unwrap();
    watching.until(&[&first, &second]).await;

    world.api::<Pod>().delete(name(&pod), &DeleteParams::default().grace_period(0)).await.unwrap();
    watching.until(&[&first]).await;
    world.api::<Service>().delete("web", &DeleteParams::default()).await.unwrap();
    watching.until(&["unknown"]).await;
}

#[tokio::test]
async fn an_endpoint_whose_pod_becomes_known_later_is_told_of_later() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    let replica_sets = conduit_cluster::faults::Target::any().resource("replicasets");
    let owners = world.cluster.faults().inject_always(replica_sets, Effect::fail(500));
    let destination = world.destination().await;
    let mut watching = destination.authority("web").await;
    // After the owners were waited for in vain.
    watching.until(&[&told("10.1.0.1:80", &web.pods[0], "-")]).await;
    assert!(destination.admin("/ready").await.starts_with("HTTP/1.0 200"));
    owners.remove();
    watching.until(&[&told("10.1.0.1:80", &web.pods[0], WEB)]).await;
}

#[tokio::test]
async fn an_address_that_another_pod_got_loses_the_identity_of_the_one_before() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    let destination = world.destination().await;
    let mut watching = destination.address("10.1.0.1:80").await;
    watching.until(&[&told("10.1.0.1:80", &web.pods[0], WEB)]).await;

    world.api::<Pod>().delete(name(&web.pods[0]), &DeleteParams::default().grace_period(0)).await.unwrap();
    let other = fixtures::deployment("shop", "other");
    let other = fixtures::deploy(&world.client, &other, &["10.1.0.1".parse().unwrap()]).await.unwrap();
    watching.until(&[&told("10.1.0.1:80", &other.pods[0], "-")]).await;
}

#[tokio::test]
async fn a_request_that_asks_for_nothing_is_refused() {
    let world = World::new().await;
    let destination = world.destination().await;
    for address in ["", "10.1.0.1", "web:80", "fd00::1:80"] {
        let refused = Watching::open(destination.client(), Target::Address(address.into())).await;
        assert_eq!(refused.err().unwrap().code(), tonic::Code::InvalidArgument, "{address}");
    }
    let refused = destination.client().get(GetRequest::default()).await;
    assert_eq!(refused.err().unwrap().code(), tonic::Code::InvalidArgument);
}

#[tokio::test]
async fn streams_are_counted_and_bounded() {
    let world = World::new().await;
    let destination = world
        .destination_with(
            |config| config.max_streams = 2,
            conduit_identity::ManualClock::at(crate::world::NOW),
        )
        .await;
    let mut first = destination.authority("web").await;
    let mut second = destination.authority("web").await;
    first.until(&["unknown"]).await;
    second.until(&["unknown"]).await;
    let refused = Watching::open(destination.client(), Target::Authority("web".into())).await;
    assert_eq!(refused.err().unwrap().code(), tonic::Code::ResourceExhausted);
    let metrics = destination.admin("/metrics").await;
    for line in [
        "conduit_destination_streams 2\n",
        "conduit_destination_queries 1\n",
        "conduit_destination_refused_streams_total 1\n",
        "conduit_destination_updates_total{kind=\"unknown\"} 2\n",
        "conduit_destination_connections_total{tls=\"no_proxy_tls\"} 3\n",
        "conduit_destination_objects{resource=\"pods\"} 0\n",
        "conduit_destination_sync_age_seconds{resource=\"endpoint_slices\"}",
    ] {
        assert!(metrics.contains(line), "{line} is missing in\n{metrics}");
    }
    drop(first);
    while !destination.admin("/metrics").await.contains("conduit_destination_streams 1\n") {
        tokio::task::yield_now().await;
    }
    destination.authority("web").await.until(&["unknown"]).await;
}
