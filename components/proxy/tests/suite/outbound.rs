//! What a pod opens: where it goes, and what happens when the destination service does not say.

use std::{net::SocketAddr, time::Duration};

use crate::support::{
    Client, Pod, World,
    app::nobody,
    identity,
    path::{Mode, Path},
    serve,
    web::{Browser, Form, web},
};

/// Answers requests with its own name.
async fn named(pod: &Pod, name: &'static str) -> SocketAddr {
    serve(pod, move |mut client| async move {
        while client.next_head().await.is_some() {
            client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())).await;
        }
    })
    .await
}

async fn get(io: &mut Client, host: &str) -> String {
    io.send(format!("GET / HTTP/1.1\r\nHost: {host}\r\n\r\n")).await;
    let head = io.head().await;
    assert!(head.starts_with("HTTP/1.1 200 "), "{head}");
    String::from_utf8(io.receive(1).await).unwrap()
}

const SERVICE: &str = "10.96.0.1:80";

#[tokio::test]
async fn requests_are_balanced_over_the_endpoints_of_the_service_they_were_going_to() {
    let world = World::new().await;
    let (a, b) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = Pod::without_tls(&world, 1).await;
    let (app_a, app_b) = (named(&a, "a").await, named(&b, "b").await);
    world.destination.tell(SERVICE, &[(app_a, None), (app_b, None)]);
    let mut io = client.connect(SERVICE.parse().unwrap()).await;
    let mut answers = [0; 2];
    for _ in 0..60 {
        answers[usize::from(get(&mut io, "web").await == "b")] += 1;
    }
    assert!(answers.iter().all(|count| *count > 0), "{answers:?}");
    // A changed answer is followed.
    world.destination.tell(SERVICE, &[(app_b, None)]);
    crate::support::eventually(async || get(&mut io, "web").await == "b").await;
    for _ in 0..10 {
        assert_eq!(get(&mut io, "web").await, "b");
    }
}

#[tokio::test]
async fn a_connection_to_each_of_many_endpoints_is_opened_once() {
    let world = World::new().await;
    let servers = Pod::plain(&world, 2);
    let client = Pod::without_tls(&world, 1).await;
    let mut apps = Vec::new();
    for _ in 0..40 {
        apps.push((web(&servers, "a").await, None));
    }
    world.destination.tell(SERVICE, &apps);
    for form in [Form::Http1, Form::Http2] {
        let mut browser = Browser::open(&client, SERVICE.parse().unwrap(), form, "web.shop").await;
        for _ in 0..400 {
            assert_eq!(browser.get("/").await.0, 200);
        }
    }
    for (app, _) in apps {
        assert!(world.wires(app).len() <= 2, "{app}");
    }
}

#[tokio::test]
async fn an_endpoint_that_refuses_is_passed_over_for_one_that_does_not() {
    let world = World::new().await;
    let (dead, live) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = Pod::without_tls(&world, 1).await;
    let (refusing, app) = (nobody(&dead).await, named(&live, "b").await);
    world.destination.tell(SERVICE, &[(refusing, None), (app, None)]);
    for _ in 0..10 {
        let mut io = client.connect(SERVICE.parse().unwrap()).await;
        assert_eq!(get(&mut io, "web").await, "b");
    }
}

#[tokio::test]
async fn a_destination_service_that_is_silent_costs_a_moment_and_then_nothing() {
    let world = World::new().await;
    let web = Pod::plain(&world, 2);
    let client = Pod::with(&world, 1, |config| config.timeouts.discovery = Duration::from_millis(200)).await;
    let app = named(&web, "a").await;
    let service = world.service(SERVICE, app);
    world.destination.be_silent_about(SERVICE);
    let mut io = client.connect(service).await;
    let start = tokio::time::Instant::now();
    assert_eq!(get(&mut io, "web").await, "a");
    assert!(start.elapsed() >= Duration::from_millis(200));
    let start = tokio::time::Instant::now();
    let mut second = client.connect(service).await;
    assert_eq!(get(&mut second, "web").await, "a");
    assert!(start.elapsed() < Duration::from_millis(200), "only the first one waits");
    let labels = [("direction", "outbound"), ("tls", "no_config")];
    client.until_metric("response_total", &labels, 2.0).await;
}

#[tokio::test]
async fn without_an_answer_or_an_identity_the_reason_is_told() {
    let world = World::new().await;
    let web = Pod::plain(&world, 2);
    let client = Pod::meshed(&world, 1, "client").await;
    let (silent, unknown, unmeshed) =
        (named(&web, "a").await, named(&web, "a").await, named(&web, "a").await);
    world.destination.be_silent_about(silent);
    world.destination.tell(unmeshed, &[(unmeshed, None)]);
    for (app, why) in [(unknown, "no_identity"), (unmeshed, "no_identity")] {
        let mut io = client.connect(app).await;
        assert_eq!(get(&mut io, "web").await, "a", "{why}");
    }
    client.until_metric("response_total", &[("direction", "outbound"), ("tls", "no_identity")], 2.0).await;
    let mut io = client.connect(silent).await;
    assert_eq!(get(&mut io, "web").await, "a");
    client.until_metric("response_total", &[("direction", "outbound"), ("tls", "no_discovery")], 1.0).await;
}

#[tokio::test]
async fn an_identity_of_another_control_plane_is_none() {
    let world = World::new().await;
    let web = Pod::plain(&world, 2);
    let client = Pod::meshed(&world, 1, "client").await;
    let app = named(&web, "a").await;
    let other =
        conduit_identity::Identity::parse("web.deployment.shop.conduit-managed.other.svc.cluster.local")
            .unwrap();
    world.destination.tell(app, &[(app, Some(&other))]);
    let mut io = client.connect(app).await;
    assert_eq!(get(&mut io, "web").await, "a");
    client.until_metric("response_total", &[("direction", "outbound"), ("tls", "no_identity")], 1.0).await;
    assert!(!world.wires(app)[0].is_tls());
}

#[tokio::test]
async fn a_service_without_endpoints_is_left_to_kubernetes() {
    let world = World::new().await;
    let web = Pod::plain(&world, 2);
    let client = Pod::meshed(&world, 1, "client").await;
    let app = named(&web, "a").await;
    let service = world.service(SERVICE, app);
    world.destination.tell(SERVICE, &[]);
    let mut io = client.connect(service).await;
    assert_eq!(get(&mut io, "web").await, "a");
}

#[tokio::test]
async fn a_pod_that_calls_itself_is_not_encrypted() {
    let path = Path::new(Mode::Tls).await;
    let app = named(&path.client, "a").await;
    path.world.destination.tell(SERVICE, &[(app, Some(&identity("client")))]);
    let mut io = path.client.connect(SERVICE.parse().unwrap()).await;
    assert_eq!(get(&mut io, "web").await, "a");
    path.client.until_metric("response_total", &[("direction", "outbound"), ("tls", "loopback")], 1.0).await;
}

#[tokio::test]
async fn the_proxy_is_an_http_proxy_for_those_who_ask_it_by_name() {
    let world = World::new().await;
    let (known, dns) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = Pod::without_tls(&world, 1).await;
    let (app, external) = (named(&known, "a").await, named(&dns, "b").await);
    world.destination.tell("web.shop.svc.cluster.local:80", &[(app, None)]);
    world.destination.tell("web.shop.svc:80", &[(app, None)]);
    world.name("example.com", dns.ip);
    let direct = conduit_net::TokioNetwork::shared();
    let mut io = Client::new(direct.connect(client.proxy().bound.outbound).await.unwrap());
    assert_eq!(get(&mut io, "web").await, "a");
    assert_eq!(get(&mut io, &format!("example.com:{}", external.port())).await, "b");
    io.send("GET / HTTP/1.1\r\nHost: nowhere.example\r\n\r\n").await;
    assert!(io.head().await.starts_with("HTTP/1.1 503 "));
}

#[tokio::test]
async fn opaque_bytes_find_the_endpoint_and_its_tls_by_the_original_destination() {
    let path = Path::new(Mode::Tls).await;
    let app = serve(&path.server, |mut client| async move {
        client.expect("\x01ping").await;
        client.send("pong").await;
        drop(client.rest().await);
    })
    .await;
    path.world.destination.tell(SERVICE, &[(app, Some(&identity("web")))]);
    let mut io = path.client.connect(SERVICE.parse().unwrap()).await;
    io.send("\x01ping").await;
    io.expect("pong").await;
    path.assert_wires(app);
}

#[tokio::test]
async fn the_applications_own_tls_is_called_so_unless_ours_is_around_it() {
    let hello = b"\x16\x03\x01\x00\x2f\x01\x00\x00\x2b\x03\x03";
    let hello = [hello.as_slice(), &[7; 32], b"\x00\x00\x02\x13\x01\x01\x00\x00\x00"].concat();
    for (mode, label) in [(Mode::Tls, "true"), (Mode::Plain, "app_tls")] {
        let path = Path::new(mode).await;
        let expected = hello.clone();
        let app = path
            .serve(move |mut client| {
                let expected = expected.clone();
                async move {
                    assert_eq!(client.receive(expected.len()).await, expected);
                    client.send("server hello").await;
                    drop(client.rest().await);
                }
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send(&hello).await;
        io.expect("server hello").await;
        drop(io);
        let labels = [("direction", "outbound"), ("peer", "dst"), ("tls", label)];
        path.client.until_metric("tcp_close_total", &labels, 1.0).await;
        let labels = [("direction", "inbound"), ("peer", "src"), ("tls", label)];
        path.server.until_metric("tcp_close_total", &labels, 1.0).await;
    }
}
