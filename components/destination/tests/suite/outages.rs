//! What is answered when something is away.

use std::time::Duration;

use conduit_cluster::{
    Verb,
    faults::{Effect, Target},
    fixtures,
};
use conduit_identity::ManualClock;

use crate::world::{NOW, WEB, World};

#[tokio::test]
async fn nothing_is_answered_before_the_cluster_is_known() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    world.cluster.faults().down();
    let destination = world.destination().await;
    let mut watching = destination.authority("web").await;
    assert!(watching.is_silent().await);
    let ready = destination.admin("/ready").await;
    assert!(ready.starts_with("HTTP/1.0 503") && ready.contains("waiting for the cluster's"), "{ready}");
    assert!(destination.admin("/live").await.starts_with("HTTP/1.0 200"));

    world.cluster.faults().up();
    let name = web.pods[0].metadata.name.clone().unwrap();
    watching.until(&[&format!("10.1.0.1:80 {name} {WEB}")]).await;
    assert!(destination.admin("/ready").await.starts_with("HTTP/1.0 200"));
}

#[tokio::test]
async fn what_was_known_is_answered_while_the_api_server_is_away() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    let name = web.pods[0].metadata.name.clone().unwrap();
    let first = format!("10.1.0.1:80 {name} {WEB}");
    let destination = world.destination().await;
    let mut early = destination.authority("web").await;
    early.until(&[&first]).await;

    world.cluster.faults().down();
    let mut late = destination.address("10.1.0.1:80").await;
    late.until(&[&first]).await;
    assert!(early.is_silent().await && late.is_silent().await);

    world.cluster.faults().up();
    let pod = fixtures::pod(&web.replica_set, 1);
    let pod = fixtures::start_pod(&world.client, &pod, "10.1.0.2".parse().unwrap()).await.unwrap();
    early.until(&[&first, &format!("10.1.0.2:80 {} {WEB}", pod.metadata.name.unwrap())]).await;
    assert!(late.is_silent().await, "nothing about it has changed");
}

#[tokio::test]
async fn clients_are_told_whether_the_cluster_is_followed() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    let first = format!("10.1.0.1:80 {} {WEB}", web.pods[0].metadata.name.clone().unwrap());
    let destination = world.destination().await;
    let mut early = destination.authority("web").await;
    early.until(&[&first]).await;
    assert!(!early.is_stale);
    let lost: [fn(&World); 2] =
        [|world| world.cluster.faults().down(), |world| world.cluster.faults().black_hole()];
    for lose in lost {
        lose(&world);
        early.until_stale(true).await;
        assert_eq!(early.told(), [first.as_str()], "it is still told");
        // Who asks meanwhile hears both at once.
        let mut late = destination.address("10.1.0.1:80").await;
        late.until(&[&first]).await;
        assert!(late.is_stale);
        let metrics = destination.admin("/metrics").await;
        assert!(metrics.contains("conduit_destination_stale 1\n"), "{metrics}");

        world.cluster.faults().up();
        early.until_stale(false).await;
        late.until_stale(false).await;
        assert_eq!((early.told(), late.told()), (vec![first.clone()], vec![first.clone()]));
    }
}

#[tokio::test]
async fn what_was_listed_and_never_followed_is_not_stood_by() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    let first = format!("10.1.0.1:80 {} {WEB}", web.pods[0].metadata.name.clone().unwrap());
    let faults = world.cluster.faults();
    let watches = Target::any().verb(Verb::Watch).resource("endpointslices");
    let refused = faults.inject_always(watches, Effect::fail(500));
    let destination = world.destination().await;
    let mut watching = destination.authority("web").await;
    watching.until(&[&first]).await;
    assert!(watching.is_stale, "it may be as old as a cache");
    refused.remove();
    watching.until_stale(false).await;
    assert_eq!(watching.told(), [first]);
}

#[tokio::test]
async fn watches_that_break_and_versions_that_are_forgotten_cost_no_change() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    let destination = world.destination().await;
    let mut watching = destination.authority("web").await;
    let mut wanted = vec![format!("10.1.0.1:80 {} {WEB}", web.pods[0].metadata.name.clone().unwrap())];
    for n in 1..6_u8 {
        let pod = fixtures::pod(&web.replica_set, n.into());
        let ip = std::net::IpAddr::from([10, 1, 0, n + 1]);
        let pod = fixtures::start_pod(&world.client, &pod, ip).await.unwrap();
        world.cluster.faults().cut_watches(&Target::any());
        if n % 2 == 0 {
            world.cluster.compact();
        }
        wanted.push(format!("{ip}:80 {} {WEB}", pod.metadata.name.unwrap()));
        watching.until(&wanted.iter().map(String::as_str).collect::<Vec<_>>()).await;
    }
}

#[tokio::test]
async fn a_silent_api_server_is_given_up_and_asked_again() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    world.cluster.faults().black_hole();
    let impatient =
        |config: &mut conduit_destination::Config| config.timing.answer = Duration::from_millis(50);
    let destination = world.destination_with(impatient, ManualClock::at(NOW)).await;
    let mut watching = destination.authority("web").await;
    assert!(watching.is_silent().await);
    world.cluster.faults().up();
    let name = web.pods[0].metadata.name.clone().unwrap();
    watching.until(&[&format!("10.1.0.1:80 {name} {WEB}")]).await;
}

#[tokio::test]
async fn a_drain_ends_every_stream_and_the_next_instance_says_the_same() {
    let world = World::new().await;
    let web = world.deploy_web(&["10.1.0.1"]).await;
    let expected = format!("10.1.0.1:80 {} {WEB}", web.pods[0].metadata.name.clone().unwrap());
    let first = world.destination().await;
    let mut watching = first.authority("web").await;
    watching.until(&[&expected]).await;
    let drained = tokio::spawn(first.drain());
    assert!(!watching.more().await, "the stream ends");
    drop(watching);
    assert!(drained.await.unwrap());

    let second = world.destination().await;
    let mut watching = second.authority("web").await;
    watching.until(&[&expected]).await;
    assert_eq!(watching.messages, 1, "all of it at once");
}
