//! TLS between two proxies, and what happens when it cannot be: the request is served all the same, once, and soon.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{Files, UnixTime};
use conduit_net::Io;
use tokio::time::Instant;

use crate::support::{
    Authority, Client, HOUR, NOW, Pod, World,
    authority::Issued,
    eventually, identity,
    path::{Mode, Path},
    serve,
};

/// Answers every request on the connection with `body`.
async fn answering(pod: &Pod, body: &'static str) -> SocketAddr {
    serve(pod, move |mut client| async move {
        while client.next_head().await.is_some() {
            client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await
}

/// Answers requests, unless what comes is none.
async fn plain_requests(client: &mut Client) -> bool {
    if client.receive(1).await != b"G" {
        return false;
    }
    while client.next_head().await.is_some() {
        client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{BODY}", BODY.len())).await;
    }
    true
}

/// One request on a connection of its own; tells how long it took.
async fn get(pod: &Pod, app: SocketAddr) -> Duration {
    let start = Instant::now();
    let mut io = pod.connect(app).await;
    request(&mut io).await;
    start.elapsed()
}

async fn request(io: &mut Client) {
    io.send("GET /secret-path HTTP/1.1\r\nHost: web\r\n\r\n").await;
    let head = io.head().await;
    assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
    io.expect("secret-body").await;
}

const BODY: &str = "secret-body";

/// A meshed client, and a server's pod that claims to be `web` and is not able to prove it.
async fn broken(server: impl AsyncFnOnce(&World) -> Pod) -> (World, Pod, Pod) {
    let world = World::new().await;
    let server = server(&world).await;
    let client = Pod::meshed(&world, 1, "client").await;
    (world, client, server)
}

/// Requests succeed in plaintext, the first after at most the handshake's deadline, the next at once; and the numbers
/// say so.
async fn assert_falls_back(world: &World, client: &Pod, app: SocketAddr, reason: &str) {
    world.destination.tell(app, &[(app, Some(&identity("web")))]);
    let first = get(client, app).await;
    assert!(first < Duration::from_millis(1_500), "{first:?}");
    let second = get(client, app).await;
    assert!(second < Duration::from_millis(500), "{second:?}");
    let labels = [("direction", "outbound"), ("tls", "handshake_failed"), ("tls_reason", reason)];
    client.until_metric("response_total", &labels, 2.0).await;
    client.until_metric("tls_fallback_total", &[("reason", reason)], 1.0).await;
    assert!(world.wires(app).iter().any(|wire| !wire.is_tls() && wire.shows("secret-body")));
}

#[tokio::test]
async fn http1_between_two_meshed_pods_is_encrypted_and_both_ends_say_so() {
    let path = Path::new(Mode::Tls).await;
    let app = answering(&path.server, BODY).await;
    path.tell(app);
    let mut io = path.client.connect(app).await;
    for _ in 0..3 {
        request(&mut io).await;
    }
    let wires = path.world.wires(app);
    assert_eq!(wires.len(), 1);
    assert!(wires[0].is_tls() && !wires[0].shows("secret"));
    let (client_id, web_id) = (identity("client"), identity("web"));
    let ids = [("client_id", client_id.as_str()), ("server_id", web_id.as_str()), ("tls", "true")];
    path.client.until_metric("response_total", &[&ids[..], &[("direction", "outbound")]].concat(), 3.0).await;
    path.server.until_metric("response_total", &[&ids[..], &[("direction", "inbound")]].concat(), 3.0).await;
}

#[tokio::test]
async fn a_peer_without_credentials_refuses_at_once_and_gets_tls_when_they_come() {
    let (world, client, web) = broken(async |world| Pod::without_credentials(world, 2, "web").await).await;
    let app = answering(&web, BODY).await;
    world.destination.tell(app, &[(app, Some(&identity("web")))]);
    let first = get(&client, app).await;
    assert!(first < Duration::from_millis(500), "refused, not waited for: {first:?}");
    client.until_metric("tls_fallback_total", &[("reason", "refused")], 1.0).await;
    web.until_metric("response_total", &[("direction", "inbound"), ("tls", "no_config")], 1.0).await;

    world.authority.issue(&identity("web")).write(web.proxy().files.path());
    web.until_tls_is("true").await;
    eventually(async || {
        get(&client, app).await;
        client.metric("response_total", &[("direction", "outbound"), ("tls", "true")]).await > 0.0
    })
    .await;
}

#[tokio::test]
async fn our_own_missing_credentials_are_the_reason_until_they_come() {
    let world = World::new().await;
    let (web, client) =
        (Pod::meshed(&world, 2, "web").await, Pod::without_credentials(&world, 1, "client").await);
    let app = answering(&web, BODY).await;
    world.destination.tell(app, &[(app, Some(&identity("web")))]);
    get(&client, app).await;
    client.until_metric("response_total", &[("direction", "outbound"), ("tls", "no_config")], 1.0).await;
    world.authority.issue(&identity("client")).write(client.proxy().files.path());
    client.until_tls_is("true").await;
    get(&client, app).await;
    client.until_metric("response_total", &[("direction", "outbound"), ("tls", "true")], 1.0).await;
}

#[tokio::test]
async fn a_server_of_another_root_is_untrusted() {
    let (world, client, web) = broken(async |world| {
        let web = Pod::without_credentials(world, 2, "web").await;
        Authority::new().issue(&identity("web")).write(web.proxy().files.path());
        web.until_tls_is("true").await;
        web
    })
    .await;
    let app = answering(&web, BODY).await;
    assert_falls_back(&world, &client, app, "untrusted").await;
}

#[tokio::test]
async fn a_server_of_another_name_refuses_or_fails() {
    // It does not know the name it is asked for: to it, this is the application's TLS.
    let (world, client, other) = broken(async |world| Pod::meshed(world, 2, "other").await).await;
    let app = serve(&other, |mut client| async move {
        if !plain_requests(&mut client).await {
            drop(client.rest().await);
        }
    })
    .await;
    assert_falls_back(&world, &client, app, "timeout").await;
}

#[tokio::test]
async fn a_server_that_proves_another_name_is_not_believed() {
    let (world, client, impostor) = broken(async |world| Pod::plain(world, 2)).await;
    let other = Arc::new(world.authority.loaded(&identity("other"), &world.clock));
    let app = serve(&impostor, move |mut client| {
        let other = other.clone();
        async move {
            let Io::Tcp(tcp) = &client.io else { panic!("a real socket") };
            let mut first = [0];
            tcp.peek(&mut first).await.unwrap();
            match first {
                [22] => drop(conduit_identity::accept(&other, client.io).await),
                _ => drop(plain_requests(&mut client).await),
            }
        }
    })
    .await;
    assert_falls_back(&world, &client, app, "wrong_name").await;
}

#[tokio::test]
async fn a_key_of_another_certificate_is_not_used_by_a_client() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let client = Pod::without_credentials(&world, 1, "client").await;
    let app = answering(&web, BODY).await;
    world.destination.tell(app, &[(app, Some(&identity("web")))]);
    let (issued, another) =
        (world.authority.issue(&identity("client")), world.authority.issue(&identity("client")));
    Issued { key: another.key, ..issued.clone() }.write(client.proxy().files.path());
    client.until_tls_is("bad_credentials").await;
    get(&client, app).await;
    let labels = [("direction", "outbound"), ("tls", "bad_credentials")];
    client.until_metric("response_total", &labels, 1.0).await;
    issued.write(client.proxy().files.path());
    client.until_tls_is("true").await;
    get(&client, app).await;
    client.until_metric("response_total", &[("direction", "outbound"), ("tls", "true")], 1.0).await;
}

#[tokio::test]
async fn opaque_bytes_and_servers_that_speak_first_fall_back_too() {
    let (world, client, web) = broken(async |world| {
        let web = Pod::without_credentials(world, 2, "web").await;
        Authority::new().issue(&identity("web")).write(web.proxy().files.path());
        web.until_tls_is("true").await;
        web
    })
    .await;
    let echo = serve(&web, |mut client| async move {
        let said = client.receive(4).await;
        client.send(said).await;
    })
    .await;
    let greeting = serve(&web, |mut client| async move { client.send("greeting").await }).await;
    for app in [echo, greeting] {
        world.destination.tell(app, &[(app, Some(&identity("web")))]);
    }
    for connections in 1..=2 {
        let start = Instant::now();
        let mut io = client.connect(echo).await;
        io.send(b"\x01\x02\x03\x04").await;
        io.expect(b"\x01\x02\x03\x04").await;
        assert!(io.rest().await.unwrap().is_empty());
        assert_eq!(client.connect(greeting).await.rest().await.unwrap(), b"greeting");
        assert!(start.elapsed() < Duration::from_millis(3_000), "{:?}", start.elapsed());
        let labels = [("peer", "dst"), ("tls", "handshake_failed"), ("tls_reason", "untrusted")];
        client.until_metric("tcp_open_total", &labels, 2.0 * f64::from(connections)).await;
    }
    client.until_metric("tls_fallback_total", &[("reason", "untrusted")], 2.0).await;
}

#[tokio::test]
async fn a_server_that_expired_is_not_believed() {
    let (world, client, web) = broken(async |world| {
        let web = Pod::without_credentials(world, 2, "web").await;
        world.authority.issue_for(&identity("web"), NOW - HOUR, NOW + HOUR).write(web.proxy().files.path());
        web.until_tls_is("true").await;
        web
    })
    .await;
    let app = answering(&web, BODY).await;
    world.destination.tell(app, &[(app, Some(&identity("web")))]);
    get(&client, app).await;
    world.clock.set(NOW + 2 * HOUR);
    get(&client, app).await;
    // It knows that it has expired, and refuses.
    client
        .until_metric("response_total", &[("direction", "outbound"), ("tls", "handshake_failed")], 1.0)
        .await;
    web.until_metric("response_total", &[("direction", "inbound"), ("tls", "expired")], 1.0).await;
    world.authority.issue_for(&identity("web"), NOW + HOUR, NOW + 20 * HOUR).write(web.proxy().files.path());
    web.until_tls_is("true").await;
}

#[tokio::test]
async fn an_application_that_is_not_meshed_sees_one_hello_and_then_its_requests() {
    let (world, client, web) = broken(async |world| Pod::plain(world, 2)).await;
    // It closes what it does not understand.
    let app = serve(&web, |mut client| async move {
        plain_requests(&mut client).await;
    })
    .await;
    assert_falls_back(&world, &client, app, "reset").await;
    assert_eq!(world.wires(app).iter().filter(|wire| wire.is_tls()).count(), 1);
}

#[tokio::test]
async fn a_silent_peer_costs_one_handshake_deadline() {
    let (world, client, web) = broken(async |world| Pod::plain(world, 2)).await;
    let app = serve(&web, |mut client| async move {
        if !plain_requests(&mut client).await {
            drop(client.rest().await);
        }
    })
    .await;
    assert_falls_back(&world, &client, app, "timeout").await;
}

#[tokio::test]
async fn a_peer_that_answers_something_else_does_not_speak_tls() {
    let (world, client, web) = broken(async |world| Pod::plain(world, 2)).await;
    let app = serve(&web, |mut client| async move {
        if !plain_requests(&mut client).await {
            client.send("HTTP/1.1 400 Bad Request\r\n\r\n").await;
            drop(client.rest().await);
        }
    })
    .await;
    assert_falls_back(&world, &client, app, "protocol").await;
}

#[tokio::test]
async fn a_peer_that_resets_does_no_harm() {
    let (world, client, web) = broken(async |world| Pod::plain(world, 2)).await;
    let app = serve(&web, |mut client| async move {
        if !plain_requests(&mut client).await {
            client.io.reset();
        }
    })
    .await;
    assert_falls_back(&world, &client, app, "reset").await;
}

type Spoil<'a> = &'a dyn Fn(&Files);

#[tokio::test]
async fn no_files_whatever_is_in_them_keep_the_proxy_from_serving() {
    let world = World::new().await;
    let good = world.authority.issue(&identity("web"));
    let other_key = world.authority.issue(&identity("web")).key;
    let cases: [(&str, Spoil<'_>); 6] = [
        ("bad_credentials", &|files| std::fs::write(&files.cert, "nonsense").unwrap()),
        ("bad_credentials", &|files| std::fs::write(&files.key, &other_key).unwrap()),
        ("bad_credentials", &|files| std::fs::write(&files.anchors, "").unwrap()),
        ("no_config", &|files| std::fs::remove_file(&files.key).unwrap()),
        ("expired", &|files| {
            world.authority.issue_for(&identity("web"), at(-9), at(-1)).write(files.cert.parent().unwrap())
        }),
        ("clock_skew", &|files| {
            world.authority.issue_for(&identity("web"), at(1), at(9)).write(files.cert.parent().unwrap())
        }),
    ];
    let client = Pod::plain(&world, 3);
    for (host, (reason, spoil)) in (10..).zip(cases) {
        let web = Pod::plain(&world, host);
        let directory = tempfile::TempDir::new().unwrap();
        good.write(directory.path());
        spoil(&Files::in_directory(directory.path()));
        drop(web);
        let web = Pod::with(&world, host, |config| {
            let own = config.tls.own.as_mut().unwrap();
            (own.identity, own.files) = (identity("web"), Files::in_directory(directory.path()));
        })
        .await;
        let app = answering(&web, BODY).await;
        web.until_tls_is(reason).await;
        get(&client, app).await;
        web.until_metric("response_total", &[("direction", "inbound"), ("tls", reason)], 1.0).await;
        // Repaired, without a restart.
        good.write(directory.path());
        web.until_tls_is("true").await;
    }
}

fn at(hours: i32) -> UnixTime {
    let distance = HOUR * hours.unsigned_abs();
    if hours < 0 { NOW - distance } else { NOW + distance }
}

#[tokio::test]
async fn a_reload_leaves_connections_alone_and_a_failed_one_changes_nothing() {
    let path = Path::new(Mode::Tls).await;
    let app = answering(&path.server, BODY).await;
    path.tell(app);
    let mut io = path.client.connect(app).await;
    request(&mut io).await;
    let directory = path.server.proxy().files.path();
    let reloads = path.server.metric("tls_config_reload_total", &[("status", "reloaded")]).await;
    path.world.authority.issue(&identity("web")).write(directory);
    path.server.until_metric("tls_config_reload_total", &[("status", "reloaded")], reloads + 1.0).await;
    request(&mut io).await;
    std::fs::write(Files::in_directory(directory).cert, "nonsense").unwrap();
    eventually(async || path.server.admin("/ready").await.contains("tls: true, until 1800093600: ")).await;
    request(&mut io).await;
    get(&path.client, app).await;
    path.client.until_metric("response_total", &[("direction", "outbound"), ("tls", "true")], 4.0).await;
    assert_eq!(path.world.wires(app).len(), 2);
}

#[tokio::test]
async fn pooled_connections_end_with_their_certificates_and_streams_go_on() {
    let path = Path::new(Mode::Tls).await;
    let http = answering(&path.server, BODY).await;
    let opaque = serve(&path.server, |mut client| async move {
        client.expect("\x01one").await;
        client.send("two").await;
        client.expect("three").await;
        client.send("four").await;
        drop(client.rest().await);
    })
    .await;
    path.tell(http);
    path.tell(opaque);
    let mut io = path.client.connect(http).await;
    request(&mut io).await;
    let mut stream = path.client.connect(opaque).await;
    stream.send("\x01one").await;
    stream.expect("two").await;

    path.world.clock.set(NOW + 30 * HOUR);
    for pod in [&path.client, &path.server] {
        pod.until_tls_is("expired").await;
    }
    request(&mut io).await;
    let wires = path.world.wires(http);
    assert_eq!((wires.len(), wires[1].is_tls()), (2, false), "in plaintext, over a new connection");
    path.client.until_metric("response_total", &[("direction", "outbound"), ("tls", "expired")], 1.0).await;
    stream.send("three").await;
    stream.expect("four").await;
}

#[tokio::test]
async fn no_byte_is_downgraded_after_tls_was_agreed_on() {
    let path = Path::new(Mode::Tls).await;
    let app = answering(&path.server, BODY).await;
    path.tell(app);
    let mut io = path.client.connect(app).await;
    request(&mut io).await;
    // The server's proxy dies; what comes next is refused by nobody, and goes nowhere in plaintext.
    path.server.proxy().task.abort();
    io.send("GET /secret-path HTTP/1.1\r\nHost: web\r\n\r\n").await;
    io.is_reset().await;
    assert!(path.world.wires(app).iter().all(|wire| !wire.shows("secret")));
}
