//! Live requests, seen by the control plane and by nobody else.

use std::{io, net::SocketAddr, sync::Arc};

use conduit_identity::Identity;
use conduit_net::TokioNetwork;
use conduit_proto::tap::{
    Event, Match, ObserveRequest,
    event::{self, response_end::Eos},
    r#match as kinds,
    tap_client::TapClient,
};
use conduit_runtime::grpc::{Channel, Transport};
use futures::FutureExt;
use parking_lot::Mutex;
use tokio::io::AsyncWriteExt;
use tonic::{Code, Streaming};

use crate::support::{
    Pod, World,
    authority::component,
    identity,
    web::{Browser, Form, web},
    within,
};

/// A channel over a connection that is open already.
fn channel(io: impl Transport) -> Channel {
    let io = Mutex::new(Some(Box::new(io) as Box<dyn Transport>));
    let connect = move || {
        let io = io.lock().take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async { io }.boxed()
    };
    Channel::new("tap", Arc::new(connect)).unwrap()
}

/// Whoever can prove to be `caller`, connected to the tap of `pod`, which is `owner`'s.
async fn connect(world: &World, pod: &Pod, owner: &str, caller: &Identity) -> TapClient<Channel> {
    let io = within(TokioNetwork::shared().connect(pod.proxy().bound.tap)).await.unwrap();
    let loaded = world.authority.loaded(caller, &world.clock);
    let (io, _) = within(conduit_identity::connect(&loaded, io, &identity(owner))).await.unwrap();
    TapClient::new(channel(io))
}

fn request(limit: u32, condition: kinds::Match) -> ObserveRequest {
    ObserveRequest { limit, r#match: Some(Match { r#match: Some(condition) }) }
}

fn everything() -> kinds::Match {
    kinds::Match::All(kinds::Seq { matches: Vec::new() })
}

fn path(prefix: &str) -> kinds::Match {
    let text = kinds::StringMatch { r#match: Some(kinds::string_match::Match::Prefix(prefix.into())) };
    kinds::Match::Http(kinds::Http { r#match: Some(kinds::http::Match::Path(text)) })
}

async fn observe(
    world: &World,
    pod: &Pod,
    owner: &str,
    limit: u32,
    condition: kinds::Match,
) -> Streaming<Event> {
    let mut client = connect(world, pod, owner, &component("observe")).await;
    within(client.observe(request(limit, condition))).await.unwrap().into_inner()
}

async fn next(events: &mut Streaming<Event>) -> Event {
    within(events.message()).await.unwrap().expect("an event")
}

struct Seen {
    init: Event,
    request: event::RequestInit,
    status: u32,
    end: event::ResponseEnd,
}

/// The three events of the next request.
async fn next_request(events: &mut Streaming<Event>) -> Seen {
    let init = next(events).await;
    let Some(event::Event::RequestInit(request)) = init.event.clone() else { panic!("{init:?}") };
    let response = next(events).await;
    let Some(event::Event::ResponseInit(head)) = response.event else { panic!("{response:?}") };
    let end = next(events).await;
    let Some(event::Event::ResponseEnd(ended)) = end.event else { panic!("{end:?}") };
    assert!(init.id == response.id && init.id == end.id);
    Seen { init, request, status: head.http_status, end: ended }
}

/// A client and a server, both meshed, and the server's application.
async fn two(world: &World, with_identity: bool) -> (Pod, Pod, SocketAddr) {
    let client = Pod::meshed(world, 1, "client").await;
    let server = Pod::meshed(world, 2, "web").await;
    let to = web(&server, "web").await;
    world.destination.tell(to, &[(to, with_identity.then_some(&identity("web")))]);
    (client, server, to)
}

#[tokio::test]
async fn both_proxies_show_a_request_with_the_tls_that_carried_it() {
    for form in Form::ALL {
        for encrypted in [true, false] {
            let world = World::new().await;
            let (client, server, to) = two(&world, encrypted).await;
            let mut outbound = observe(&world, &client, "client", 1, everything()).await;
            let mut inbound = observe(&world, &server, "web", 1, everything()).await;
            let mut browser = Browser::open(&client, to, form, "web.shop").await;
            assert_eq!(browser.get("/status/404?token=secret").await.0, 404);

            let (sent, received) = (next_request(&mut outbound).await, next_request(&mut inbound).await);
            for seen in [&sent, &received] {
                let request = &seen.request;
                assert_eq!((request.method.as_str(), request.scheme.as_str()), ("GET", "http"));
                assert_eq!((request.authority.as_str(), request.path.as_str()), ("web.shop", "/status/404"));
                assert_eq!((seen.status, seen.end.response_bytes, seen.end.eos), (404, 3, None));
                assert!(seen.end.since_request_init_ns >= seen.end.since_response_init_ns);
                assert_eq!(seen.init.destination, to.to_string());
            }
            let (sent, received) = (sent.init, received.init);
            assert_eq!(
                (sent.direction(), received.direction()),
                (event::Direction::Outbound, event::Direction::Inbound)
            );
            assert!(sent.source.starts_with("127.1.0.1:") && received.source.starts_with("127.1.0.1:"));
            assert_eq!(sent.source_labels["tls"], "internal_traffic");
            assert_eq!(sent.destination_labels["pod"], "127.1.0.2");
            assert_eq!(received.destination_labels["tls"], "loopback");
            if encrypted {
                assert_eq!((sent.tls.as_str(), received.tls.as_str()), ("true", "true"));
                assert_eq!(sent.destination_labels["server_id"], identity("web").as_str());
                assert_eq!(received.source_labels["client_id"], identity("client").as_str());
            } else {
                assert_eq!((sent.tls.as_str(), received.tls.as_str()), ("no_identity", "no_proxy_tls"));
                assert!(!received.source_labels.contains_key("client_id"));
            }
        }
    }
}

#[tokio::test]
async fn a_fallback_is_shown_as_what_it_became() {
    let world = World::new().await;
    let (client, _server, to) = two(&world, true).await;
    world.destination.tell(to, &[(to, Some(&identity("somebody-else")))]);
    let mut events = observe(&world, &client, "client", 1, everything()).await;
    Browser::open(&client, to, Form::Http1, "web").await.get("/").await;
    let seen = next_request(&mut events).await.init;
    assert_eq!(seen.tls, "handshake_failed");
    // Its application was sent a hello that names somebody else, and answered that this is no HTTP.
    assert_eq!(seen.destination_labels["tls_reason"], "protocol");
}

#[tokio::test]
async fn only_matching_requests_are_shown_and_the_tap_ends_with_the_last_one_asked_for() {
    let world = World::new().await;
    let (client, server, to) = two(&world, true).await;
    let mut events = observe(&world, &server, "web", 2, path("/status/2")).await;
    let mut browser = Browser::open(&client, to, Form::Http2, "web").await;
    for path in ["/status/404", "/status/200", "/", "/status/201", "/status/202"] {
        browser.get(path).await;
    }
    assert_eq!(next_request(&mut events).await.request.path, "/status/200");
    assert_eq!(next_request(&mut events).await.request.path, "/status/201");
    assert_eq!(within(events.message()).await.unwrap(), None);
    server.until_metric("tap_active", &[], 0.0).await;
}

#[tokio::test]
async fn the_status_of_a_grpc_call_is_its_end() {
    let world = World::new().await;
    let (client, server, to) = two(&world, true).await;
    let mut events = observe(&world, &server, "web", 1, everything()).await;
    Browser::open(&client, to, Form::Http2, "web").await.get("/grpc/14").await;
    assert_eq!(next_request(&mut events).await.end.eos, Some(Eos::GrpcStatusCode(14)));
}

#[tokio::test]
async fn nobody_but_observe_may_tap() {
    let world = World::new().await;
    let (_client, server, _to) = two(&world, true).await;
    for caller in [identity("client"), identity("web"), component("destination")] {
        let mut client = connect(&world, &server, "web", &caller).await;
        let refused = within(client.observe(request(1, everything()))).await.unwrap_err();
        assert_eq!(refused.code(), Code::Unavailable, "{caller}");
    }
    let io = within(TokioNetwork::shared().connect(server.proxy().bound.tap)).await.unwrap();
    let refused = within(TapClient::new(channel(io)).observe(request(1, everything()))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable, "in plaintext");
    server.until_metric("tap_refused_total", &[], 4.0).await;
}

#[tokio::test]
async fn a_pod_without_tls_has_no_tap() {
    let world = World::new().await;
    let pod = Pod::without_tls(&world, 1).await;
    let io = within(TokioNetwork::shared().connect(pod.proxy().bound.tap)).await.unwrap();
    let refused = within(TapClient::new(channel(io)).observe(request(1, everything()))).await.unwrap_err();
    assert_eq!(refused.code(), Code::Unavailable);
    let io = within(TokioNetwork::shared().connect(pod.proxy().bound.tap)).await.unwrap();
    let loaded = world.authority.loaded(&component("observe"), &world.clock);
    assert!(within(conduit_identity::connect(&loaded, io, &identity("web"))).await.is_err());
}

#[tokio::test]
async fn a_reader_that_does_not_read_slows_nobody() {
    let world = World::new().await;
    let (client, server, to) = two(&world, true).await;
    let events = observe(&world, &server, "web", 100_000, everything()).await;
    let mut browser = Browser::open(&client, to, Form::Http2, "web").await;
    for _ in 0..300 {
        assert_eq!(browser.get("/").await.0, 200);
    }
    drop(events);
    server.until_metric("tap_active", &[], 0.0).await;
}

#[tokio::test]
async fn strangers_who_hold_every_connection_do_not_keep_observe_out() {
    let world = World::new().await;
    let (client, server, to) = two(&world, true).await;
    let mut events = observe(&world, &server, "web", 1, everything()).await;
    let mut strangers = Vec::new();
    for _ in 0..300 {
        let mut io = within(TokioNetwork::shared().connect(server.proxy().bound.tap)).await.unwrap();
        // The beginning of HTTP/2, and no more.
        within(io.write_all(b"PRI")).await.unwrap();
        strangers.push(io);
    }
    let mut another = observe(&world, &server, "web", 1, everything()).await;
    let mut browser = Browser::open(&client, to, Form::Http1, "web.shop").await;
    assert_eq!(browser.get("/").await.0, 200);
    for events in [&mut events, &mut another] {
        assert_eq!(next_request(events).await.status, 200);
    }
}
