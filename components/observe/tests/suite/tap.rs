use std::{net::Ipv4Addr, time::Duration};

use conduit_proto::tap::{Event, event, r#match as kinds};
use hyper::StatusCode;

use crate::support::{Injected, Observe, World};

fn request(id: u64, path: &str) -> Event {
    let init = event::RequestInit {
        method: "PROPFIND".to_owned(),
        scheme: "http".to_owned(),
        authority: "web.shop".to_owned(),
        path: path.to_owned(),
    };
    Event {
        source: "10.0.0.1:40000".to_owned(),
        destination: "10.0.0.2:80".to_owned(),
        direction: event::Direction::Inbound.into(),
        tls: "true".to_owned(),
        id,
        event: Some(event::Event::RequestInit(init)),
        ..Event::default()
    }
}

fn end(id: u64) -> Event {
    let end = event::ResponseEnd { since_request_init_ns: 1_500_000_000, ..event::ResponseEnd::default() };
    Event { event: Some(event::Event::ResponseEnd(end)), ..request(id, "") }
}

/// Observe with credentials, which it has loaded.
async fn start(world: &World, directory: &tempfile::TempDir) -> Observe {
    let observe = world.start(Some(directory.path())).await;
    observe.ready().await;
    observe
}

async fn nobody(world: &World) -> std::net::SocketAddr {
    world.net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap().local_addr()
}

#[tokio::test]
async fn events_come_from_the_proxy_that_proves_to_be_the_pods() {
    let world = World::new().await;
    let mut proxy = world.proxy("web", vec![request(7, "/a"), end(7)], false).await;
    world.deploy("web", Injected::WithTls, nobody(&world).await, proxy.addr).await;
    let directory = world.authority.mount();
    let observe = start(&world, &directory).await;

    let path = "/api/v1/tap?type=deploy/web&namespace=shop&method=propfind&path=/a&max_rps=2";
    let mut events = observe.events(path).await;
    let (name, first) = events.next().await.unwrap();
    assert_eq!(
        (name.as_str(), &first["event"], &first["method"]),
        ("", &"request".into(), &"PROPFIND".into())
    );
    assert_eq!(
        (&first["id"], &first["tls"], &first["direction"]),
        (&"0:7".into(), &"true".into(), &"inbound".into())
    );
    assert_eq!(first["pod"], "web-5d8b7c9f4-bbbbb");
    let (_, last) = events.next().await.unwrap();
    assert_eq!((&last["event"], &last["duration_ns"]), (&"end".into(), &1_500_000_000_u64.into()));

    let asked = proxy.asked.recv().await.unwrap();
    assert_eq!(asked.limit, 2);
    let Some(kinds::Match::All(all)) = asked.r#match.unwrap().r#match else { panic!("not all") };
    assert_eq!(all.matches.len(), 2);
}

#[tokio::test]
async fn no_more_requests_are_told_of_than_asked_for() {
    let world = World::new().await;
    let burst = (1..=50).flat_map(|id| [request(id, "/"), end(id)]).collect();
    let proxy = world.proxy("web", burst, false).await;
    world.deploy("web", Injected::WithTls, nobody(&world).await, proxy.addr).await;
    let directory = world.authority.mount();
    let observe = start(&world, &directory).await;
    let mut events = observe.events("/api/v1/tap?type=ns/shop&max_rps=3").await;
    let mut told = Vec::new();
    for _ in 0..6 {
        told.push(events.next().await.unwrap().1["id"].clone());
    }
    assert_eq!(told, ["0:1", "0:1", "0:2", "0:2", "0:3", "0:3"]);
}

#[tokio::test]
async fn a_pod_that_cannot_be_tapped_is_told_of_and_the_others_are_tapped() {
    let world = World::new().await;
    let web = world.proxy("web", vec![request(1, "/")], false).await;
    let impostor = world.proxy("other", vec![request(1, "/")], false).await;
    let nobody = nobody(&world).await;
    world.deploy("web", Injected::WithTls, nobody, web.addr).await;
    world.deploy("plain", Injected::WithoutTls, nobody, nobody).await;
    world.deploy("legacy", Injected::Not, nobody, nobody).await;
    world.deploy("robbed", Injected::WithTls, nobody, impostor.addr).await;
    world.deploy("stuck", Injected::WithTls, nobody, nobody).await;
    let directory = world.authority.mount();
    let observe = start(&world, &directory).await;

    let mut events = observe.events("/api/v1/tap?type=po&namespace=shop").await;
    let mut told = Vec::new();
    for _ in 0..5 {
        let (name, data) = events.next().await.unwrap();
        let pod = data["pod"].as_str().unwrap().split('-').next().unwrap().to_owned();
        told.push((pod, name, data["error"].as_str().unwrap_or_default().to_owned()));
    }
    told.sort();
    let expected = [
        ("legacy", "error", "no proxy"),
        ("plain", "error", "--tls=optional"),
        ("robbed", "error", "cannot be reached: tls handshake failed (wrong_name)"),
        ("stuck", "error", "cannot be reached"),
        ("web", "", ""),
    ];
    for ((pod, name, error), expected) in told.iter().zip(expected) {
        assert_eq!((pod.as_str(), name.as_str()), (expected.0, expected.1));
        assert!(error.contains(expected.2), "{pod}: {error}");
    }
}

#[tokio::test]
async fn a_tap_that_the_proxy_ends_is_told_of() {
    let world = World::new().await;
    let proxy = world.proxy("web", vec![], true).await;
    world.deploy("web", Injected::WithTls, nobody(&world).await, proxy.addr).await;
    let directory = world.authority.mount();
    let observe = start(&world, &directory).await;
    let mut events = observe.events("/api/v1/tap?type=deploy/web&namespace=shop").await;
    let (name, data) = events.next().await.unwrap();
    assert_eq!((name.as_str(), &data["error"]), ("error", &"its proxy ended the tap".into()));
}

#[tokio::test]
async fn what_cannot_be_tapped_at_all_is_refused_with_the_reason() {
    let world = World::new().await;
    let nobody = nobody(&world).await;
    world.deploy("plain", Injected::WithoutTls, nobody, nobody).await;
    world.deploy("legacy", Injected::Not, nobody, nobody).await;

    let observe = world.start(None).await;
    observe.ready().await;
    let (status, problem) = observe.get("/api/v1/tap?type=po&namespace=shop").await;
    assert_eq!(status, StatusCode::SERVICE_UNAVAILABLE);
    assert!(problem["detail"].as_str().unwrap().contains("(disabled)"), "{problem}");

    let directory = world.authority.mount();
    let observe = start(&world, &directory).await;
    for (resource, reason) in [
        ("deploy/plain", "--tls=optional"),
        ("deploy/legacy", "conduit inject"),
        ("deploy/nope", "no running pod"),
    ] {
        let (status, problem) = observe.get(&format!("/api/v1/tap?type={resource}&namespace=shop")).await;
        assert_eq!(status, StatusCode::NOT_FOUND, "{resource}");
        assert!(problem["detail"].as_str().unwrap().contains(reason), "{problem}");
    }
}

#[tokio::test]
async fn a_drain_ends_a_tap_in_order() {
    let world = World::new().await;
    let proxy = world.proxy("web", vec![request(1, "/")], false).await;
    world.deploy("web", Injected::WithTls, nobody(&world).await, proxy.addr).await;
    let directory = world.authority.mount();
    let observe = start(&world, &directory).await;
    let mut events = observe.events("/api/v1/tap?type=deploy/web&namespace=shop").await;
    events.next().await.unwrap();
    let drained = tokio::spawn(observe.trigger.drain(Duration::from_secs(10)));
    assert_eq!(events.next().await.unwrap().0, "end");
    assert_eq!(events.next().await, None);
    assert!(drained.await.unwrap());
}
