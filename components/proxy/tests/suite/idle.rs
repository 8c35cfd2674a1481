//! HTTP/1 connections on which nothing happens give their buffers up, and nobody notices.

use std::{net::SocketAddr, time::Duration};

use crate::support::{Client, HOUR, NOW, Pod, World, authority::Authority, identity, serve};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// Long enough to fall asleep, and to be asleep.
const PAUSE: Duration = Duration::from_millis(30);

/// Two meshed pods whose connections fall asleep at once.
async fn drowsy() -> (World, Pod, Pod) {
    let world = World::new().await;
    let mut pods = Vec::new();
    for (host, owner) in [(1, "client"), (2, "web")] {
        let pod = Pod::with(&world, host, |config| {
            config.timeouts.drowsy = Duration::from_millis(1);
            config.tls.own.as_mut().unwrap().identity = identity(owner);
        })
        .await;
        issue(&world.authority, &pod, owner);
        pod.until_tls_is("true").await;
        pods.push(pod);
    }
    let (web, client) = (pods.pop().unwrap(), pods.pop().unwrap());
    (world, client, web)
}

fn issue(authority: &Authority, pod: &Pod, owner: &str) {
    authority.issue(&identity(owner)).write(pod.proxy().files.path());
}

async fn application(world: &World, web: &Pod) -> SocketAddr {
    let app = serve(web, |mut client| async move {
        while let Some(head) = client.next_head().await {
            client.send(OK).await;
            if head.contains("/last") {
                // Later, on a connection that sleeps.
                assert!(client.is_silent(PAUSE).await);
                return;
            }
        }
    })
    .await;
    world.destination.tell(app, &[(app, Some(&identity("web")))]);
    app
}

async fn request(io: &mut Client) {
    io.send(GET).await;
    io.expect(OK).await;
    assert!(io.is_silent(PAUSE).await);
}

#[tokio::test]
async fn a_connection_that_slept_serves_the_next_request() {
    let (world, client, web) = drowsy().await;
    let app = application(&world, &web).await;
    let mut io = client.connect(app).await;
    for _ in 0..5 {
        request(&mut io).await;
    }
    assert_eq!(world.wires(app).len(), 1, "always over the same connection");
    // Bytes that come in pieces wake it too.
    for piece in [&GET[..1], &GET[1..20], &GET[20..]] {
        io.send(piece).await;
        assert!(piece.ends_with("\r\n\r\n") || io.is_silent(PAUSE).await);
    }
    io.expect(OK).await;
    let size = (6 * GET.len()) as f64;
    client.until_metric("tcp_read_bytes_total", &[("direction", "outbound"), ("peer", "src")], size).await;
    client.until_metric("response_total", &[("direction", "outbound"), ("tls", "true")], 6.0).await;
}

#[tokio::test]
async fn an_application_that_closes_a_sleeping_connection_closes_the_clients() {
    let (world, _client, web) = drowsy().await;
    let app = application(&world, &web).await;
    let mut io = Pod::plain(&world, 3).connect(app).await;
    io.send("GET /last HTTP/1.1\r\nHost: web\r\n\r\n").await;
    io.expect(OK).await;
    assert!(io.rest().await.unwrap().is_empty());
}

#[tokio::test]
async fn a_server_that_closes_a_sleeping_connection_costs_the_client_nothing() {
    let (world, client, web) = drowsy().await;
    let app = application(&world, &web).await;
    let mut io = client.connect(app).await;
    io.send("GET /last HTTP/1.1\r\nHost: web\r\n\r\n").await;
    io.expect(OK).await;
    web.until_metric("tcp_open_connections", &[("direction", "inbound"), ("peer", "src")], 0.0).await;
    request(&mut io).await;
    assert_eq!(world.wires(app).len(), 2);
}

#[tokio::test]
async fn a_client_who_chose_a_server_that_is_gone_hears_of_it_while_it_sleeps() {
    let (world, client, web) = drowsy().await;
    let app = application(&world, &web).await;
    let mut io = client.connect(app).await;
    request(&mut io).await;
    io.send("GET /last HTTP/1.1\r\nHost: web\r\n\r\n").await;
    io.expect(OK).await;
    assert!(io.is_silent(PAUSE).await, "a server may close what idles");
    world.destination.tell(app, &[]);
    assert!(io.rest().await.unwrap().is_empty(), "it would ask elsewhere if it knew");
}

#[tokio::test]
async fn a_client_that_closes_while_asleep_is_gone_everywhere() {
    let (world, client, web) = drowsy().await;
    let app = application(&world, &web).await;
    let mut io = client.connect(app).await;
    request(&mut io).await;
    drop(io);
    for pod in [&client, &web] {
        pod.until_metric("tcp_open_connections", &[], 0.0).await;
    }
}

#[tokio::test]
async fn a_sleeping_connection_ends_with_its_certificate_and_with_the_proxy() {
    let (world, client, mut web) = drowsy().await;
    let app = application(&world, &web).await;
    let mut io = client.connect(app).await;
    request(&mut io).await;
    world.clock.set(NOW + 30 * HOUR);
    web.until_metric("tcp_open_connections", &[("direction", "inbound"), ("tls", "true")], 0.0).await;

    let mut stranger = Pod::plain(&world, 3).connect(app).await;
    request(&mut stranger).await;
    let trigger = web.proxy.as_mut().unwrap().trigger.take().unwrap();
    let stopped = tokio::spawn(trigger.drain(Duration::from_secs(30)));
    assert!(stranger.rest().await.unwrap().is_empty());
    assert!(stopped.await.unwrap());
}
