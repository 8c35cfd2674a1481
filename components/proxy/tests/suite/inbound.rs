//! What comes to a pod: TLS for its proxy, TLS for its application, and everything else.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{Credentials, Crypto, Loaded, Pem, ServerPeer};
use conduit_net::Io;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_rustls::client::TlsStream;

use crate::support::{Client, NOW, Pod, World, authority::Issued, identity, serve, within};

/// Says what it received, and that it is the application.
async fn echo(mut client: Client) {
    let received = client.receive(5).await;
    client.send([b"app got ".as_slice(), &received].concat()).await;
    drop(client.rest().await);
}

/// A mesh client of our own making, which opens TLS to the proxy in front of `to`.
async fn handshake(
    world: &World,
    client: Client,
    credentials: &Issued,
) -> Result<(TlsStream<Io>, ServerPeer), conduit_identity::HandshakeError> {
    let pem = Pem {
        chain: credentials.chain.clone().into_bytes(),
        key: credentials.key.clone().into_bytes(),
        anchors: credentials.anchors.clone().into_bytes(),
    };
    let crypto = Crypto::shipped();
    let credentials = Credentials::load(&pem, &identity("client"), NOW, &crypto).unwrap();
    let loaded = Loaded::new(credentials, &crypto, Arc::new(world.clock.clone())).unwrap();
    within(conduit_identity::connect(&loaded, client.io, &identity("web"))).await
}

/// A TLS 1.2 or 1.3 ClientHello for `name`, in one record.
fn client_hello(name: &str) -> Vec<u8> {
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let config = rustls::ClientConfig::builder_with_provider(provider)
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(rustls::RootCertStore::empty())
        .with_no_client_auth();
    let name = rustls::pki_types::ServerName::try_from(name.to_owned()).unwrap();
    let mut hello = Vec::new();
    rustls::ClientConnection::new(Arc::new(config), name).unwrap().write_tls(&mut hello).unwrap();
    hello
}

#[tokio::test]
async fn tls_for_another_name_reaches_the_application_byte_for_byte() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let web_name = identity("web");
    for name in [
        "example.com",
        identity("other").as_str(),
        &format!("x{web_name}"),
        &web_name.as_str()[1..],
        "10.0.0.1",
    ] {
        let hello = client_hello(name);
        let expected = hello.clone();
        let app = serve(&web, move |mut client| {
            let expected = expected.clone();
            async move {
                assert_eq!(client.receive(expected.len()).await, expected);
                client.send("the application's own TLS").await;
                assert_eq!(client.rest().await.unwrap(), b"more");
            }
        })
        .await;
        let mut io = stranger.connect(app).await;
        // In two packets.
        let (first, second) = hello.split_at(7);
        io.send(first).await;
        tokio::task::yield_now().await;
        io.send(second).await;
        io.expect("the application's own TLS").await;
        io.send("more").await;
        io.finish().await;
        assert!(io.rest().await.unwrap().is_empty(), "{name}");
    }
    web.until_metric(
        "tcp_close_total",
        &[("direction", "inbound"), ("peer", "src"), ("tls", "app_tls")],
        5.0,
    )
    .await;
}

#[tokio::test]
async fn a_client_without_tls_is_served_by_a_pod_with_it() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let app = serve(&web, echo).await;
    let mut io = stranger.connect(app).await;
    io.send("\x01clea").await;
    io.expect("app got \x01clea").await;
    drop(io);
    web.until_metric(
        "tcp_close_total",
        &[("direction", "inbound"), ("peer", "src"), ("tls", "no_proxy_tls")],
        1.0,
    )
    .await;
}

#[tokio::test]
async fn a_silent_client_delays_nobody() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let app = serve(&web, echo).await;
    let mut silent = Vec::new();
    for beginning in [&b""[..], b"\x16\x03\x01", b"GET / HT", b"PRI * HTTP/2.0\r\n"] {
        let mut client = stranger.connect(app).await;
        client.send(beginning).await;
        silent.push(client);
    }
    let mut io = stranger.connect(app).await;
    io.send("\x01fast").await;
    io.expect("app got \x01fast").await;
}

#[tokio::test]
async fn a_hello_for_us_without_credentials_is_refused_with_an_alert_and_never_shown_to_the_application() {
    let world = World::new().await;
    let web = Pod::without_credentials(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let app = serve(&web, |mut client| async move {
        client.expect("plain").await;
        client.send("served").await;
        drop(client.rest().await);
    })
    .await;
    let mut io = stranger.connect(app).await;
    io.send(client_hello(identity("web").as_str())).await;
    // More than the alert waits for: it must not be overtaken by a reset.
    io.send(vec![0; 1_000]).await;
    io.expect(conduit_identity::refuse_alert()).await;
    io.finish().await;
    assert!(io.rest().await.unwrap().is_empty());
    web.until_metric("tls_refused_total", &[("reason", "no_config")], 1.0).await;

    let mut io = stranger.connect(app).await;
    io.send("plain").await;
    io.expect("served").await;
    drop(io);
    web.until_metric(
        "tcp_close_total",
        &[("direction", "inbound"), ("peer", "src"), ("tls", "no_config")],
        1.0,
    )
    .await;
}

#[tokio::test]
async fn a_client_whose_certificate_does_not_verify_is_encrypted_and_shown_as_unauthenticated() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let app = serve(&web, echo).await;
    // Trusts our root, and is signed by another.
    let mut credentials = crate::support::Authority::new().issue(&identity("client"));
    credentials.anchors.push_str(&world.authority.root);
    let (mut tls, _) = handshake(&world, stranger.connect(app).await, &credentials).await.unwrap();
    tls.write_all(b"hello").await.unwrap();
    let mut answer = [0; 13];
    within(tls.read_exact(&mut answer)).await.unwrap();
    assert_eq!(&answer, b"app got hello");
    drop(tls);
    let labels =
        [("direction", "inbound"), ("peer", "src"), ("tls", "true"), ("client_id", "unauthenticated")];
    web.until_metric("tcp_close_total", &labels, 1.0).await;
}

#[tokio::test]
async fn a_client_that_stops_within_its_handshake_is_given_up() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let app = serve(&web, echo).await;
    let mut io = stranger.connect(app).await;
    io.send(client_hello(identity("web").as_str())).await;
    // The server's half of it, and the end.
    drop(io.rest().await);
    let labels = [("direction", "inbound"), ("result", "timeout")];
    web.until_metric("tls_handshake_total", &labels, 1.0).await;
    web.until_metric("tcp_open_total", &[], 0.0).await;
}

#[tokio::test]
async fn a_hello_in_any_split_is_terminated() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let app = serve(&web, echo).await;
    let credentials = world.authority.issue(&identity("client"));
    for split in [1, 5, 6, 43, 200, 600] {
        let (near, far) = tokio::io::duplex(64 << 10);
        let client = stranger.connect(app).await;
        tokio::spawn(in_two_packets(far, client.io, split));
        let (mut tls, _) = handshake(&world, Client::new(Io::other(near)), &credentials)
            .await
            .unwrap_or_else(|error| panic!("{split}: {error}"));
        tls.write_all(b"hello").await.unwrap();
        within(tls.read_exact(&mut [0; 13])).await.unwrap();
    }
}

/// Passes bytes on, the first ones in two packets.
async fn in_two_packets(from: tokio::io::DuplexStream, to: Io, split: usize) {
    let (mut from_read, mut from_write) = tokio::io::split(from);
    let (mut to_read, mut to_write) = tokio::io::split(to);
    let there = async {
        let mut first = vec![0; split];
        from_read.read_exact(&mut first).await?;
        to_write.write_all(&first).await?;
        tokio::time::sleep(Duration::from_millis(10)).await;
        tokio::io::copy(&mut from_read, &mut to_write).await?;
        to_write.shutdown().await
    };
    let _ended = tokio::join!(there, tokio::io::copy(&mut to_read, &mut from_write));
}

async fn greeting_server(pod: &Pod) -> SocketAddr {
    serve(pod, |mut client| async move {
        client.send("greeting").await;
        drop(client.rest().await);
    })
    .await
}

#[tokio::test]
async fn a_greeting_is_let_out_to_a_stranger_after_its_hold_and_counted() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let app = greeting_server(&web).await;
    let mut io = stranger.connect(app).await;
    let start = tokio::time::Instant::now();
    io.expect("greeting").await;
    assert!(start.elapsed() >= Duration::from_millis(100));
    web.until_metric("greeting_released_total", &[("known_peer", "false")], 1.0).await;
}

#[tokio::test]
async fn a_late_hello_of_a_known_peer_gets_the_greeting_encrypted() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let peer = Pod::plain(&world, 3);
    let app = greeting_server(&web).await;
    let credentials = world.authority.issue(&identity("client"));
    let mut greeted = [0; 8];

    let (mut tls, _) = handshake(&world, peer.connect(app).await, &credentials).await.unwrap();
    within(tls.read_exact(&mut greeted)).await.unwrap();

    // Silent for longer than a stranger's greeting is held.
    let mut late = peer.connect(app).await;
    assert!(late.is_silent(Duration::from_millis(300)).await);
    let (mut tls, _) = handshake(&world, late, &credentials).await.unwrap();
    within(tls.read_exact(&mut greeted)).await.unwrap();
    assert_eq!(&greeted, b"greeting");
    assert_eq!(web.metric("greeting_released_total", &[]).await, 0.0);
}

/// The ClientHello of a stranger that is slower than the hold, and what else may be said after a greeting.
#[tokio::test]
async fn a_hello_for_us_after_the_greeting_is_not_shown_to_the_application_and_other_words_are() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 3);
    let (ours, theirs) = (client_hello(identity("web").as_str()), client_hello("example.com"));
    let cut = ours[..100].to_vec();
    for (words, is_shown) in [(b"RETR 1\r\n".to_vec(), true), (theirs, true), (ours, false), (cut, false)] {
        let (heard, mut shown) = tokio::sync::mpsc::unbounded_channel();
        let app = serve(&web, move |mut client| {
            let heard = heard.clone();
            async move {
                client.send("greeting").await;
                heard.send(client.rest().await.unwrap_or_default()).unwrap();
            }
        })
        .await;
        let mut io = stranger.connect(app).await;
        io.expect("greeting").await;
        for part in words.chunks(60) {
            io.send(part).await;
        }
        io.finish().await;
        let expected = if is_shown { words } else { Vec::new() };
        assert_eq!(within(shown.recv()).await.unwrap(), expected);
    }
}

#[tokio::test]
async fn a_kubelet_probe_is_called_one() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let kubelet = Pod::plain(&world, 9);
    let app = serve(&web, |mut client| async move {
        client.head().await;
        client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
        drop(client.rest().await);
    })
    .await;
    let mut io = kubelet.connect(app).await;
    io.send("GET /ready HTTP/1.1\r\nHost: web\r\nUser-Agent: kube-probe/1.36\r\n\r\n").await;
    io.head().await;
    web.until_metric("response_total", &[("direction", "inbound"), ("tls", "kubelet_probe")], 1.0).await;
}

#[tokio::test]
async fn a_connection_without_an_original_destination_goes_to_the_configured_one_or_nowhere() {
    let world = World::new().await;
    let plain = Pod::plain(&world, 2);
    let app = serve(&plain, echo).await;
    let forwarding = Pod::with(&world, 2, |config| config.forward = Some(app)).await;
    let direct = conduit_net::TokioNetwork::shared();
    let mut io = Client::new(within(direct.connect(forwarding.proxy().bound.inbound)).await.unwrap());
    io.send("\x01ward").await;
    io.expect("app got \x01ward").await;

    let nowhere = Pod::without_tls(&world, 4).await;
    let mut io = Client::new(within(direct.connect(nowhere.proxy().bound.inbound)).await.unwrap());
    io.is_reset().await;
}
