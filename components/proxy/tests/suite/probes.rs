//! The kubelet's probes of an application, and how they are counted.

use std::{collections::BTreeSet, net::SocketAddr};

use conduit_net::TokioNetwork;
use conduit_proxy::probe::TcpProbe;

use crate::support::{Client, Pod, World, app::nobody, serve, within};

const INBOUND: (&str, &str) = ("direction", "inbound");
const SOURCE: (&str, &str) = ("peer", "src");

/// A pod whose proxy was told of these probes.
async fn probed(world: &World, ports: &[SocketAddr], host: u8) -> Pod {
    let probes: BTreeSet<_> = ports.iter().map(|addr| probe(*addr)).collect();
    Pod::with(world, host, |config| config.tcp_probes = probes).await
}

fn probe(addr: SocketAddr) -> TcpProbe {
    TcpProbe { port: addr.port(), timeout_s: 10 }
}

/// What the admin server answers to a GET of `path`.
async fn ask(pod: &Pod, path: &str) -> String {
    let io = within(TokioNetwork::shared().connect(pod.proxy().bound.admin)).await.unwrap();
    let mut io = Client::new(io);
    io.send(format!("GET {path} HTTP/1.0\r\n\r\n")).await;
    String::from_utf8(io.rest().await.unwrap()).unwrap()
}

#[tokio::test]
async fn a_tcp_probe_is_answered_by_what_the_port_does() {
    let world = World::new().await;
    let plain = Pod::plain(&world, 2);
    let (open, closed) = (serve(&plain, |_| async {}).await, nobody(&plain).await);
    let web = probed(&world, &[open, closed], 2).await;
    let answer = ask(&web, &probe(open).path()).await;
    assert!(answer.starts_with("HTTP/1.0 200"), "{answer}");
    let answer = ask(&web, &probe(closed).path()).await;
    assert!(answer.starts_with("HTTP/1.0 503"), "{answer}");
    assert!(answer.ends_with(&format!("nothing listens on port {}\n", closed.port())), "{answer}");
    // Neither is the pod's traffic.
    web.until_metric("tcp_open_total", &[], 0.0).await;
}

#[tokio::test]
async fn no_port_is_looked_at_that_the_proxy_was_not_told_of() {
    let world = World::new().await;
    let plain = Pod::plain(&world, 2);
    let (told, untold) = (serve(&plain, |_| async {}).await, serve(&plain, |_| async {}).await);
    let web = probed(&world, &[told], 2).await;
    let closed = nobody(&plain).await;
    let longer = TcpProbe { timeout_s: 3_600, ..probe(told) };
    let mut answers = BTreeSet::new();
    for probe in [probe(untold), probe(closed), longer] {
        let answer = ask(&web, &probe.path()).await;
        assert!(answer.starts_with("HTTP/1.0 404"), "{answer}");
        answers.insert(answer);
    }
    assert_eq!(answers.len(), 1, "an answer tells something");
}

/// A kubelet without the HTTP probe, a load balancer, a port scan: nobody's bytes were in the clear.
#[tokio::test]
async fn a_connection_without_a_byte_is_a_probe_and_no_plaintext() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let kubelet = Pod::plain(&world, 9);
    let app = serve(&web, |mut client| async move { drop(client.rest().await) }).await;
    drop(kubelet.connect(app).await);
    web.until_metric("tcp_close_total", &[INBOUND, SOURCE, ("tls", "kubelet_probe")], 1.0).await;
    assert_eq!(web.metric("tcp_open_total", &[INBOUND, SOURCE, ("tls", "no_proxy_tls")]).await, 0.0);
}

#[tokio::test]
async fn an_application_that_answers_a_client_without_words_does_so_in_plaintext() {
    let world = World::new().await;
    let web = Pod::meshed(&world, 2, "web").await;
    let stranger = Pod::plain(&world, 9);
    let app = serve(&web, |mut client| async move {
        drop(client.rest().await);
        client.send("who is there?").await;
    })
    .await;
    let mut io = stranger.connect(app).await;
    io.finish().await;
    io.expect("who is there?").await;
    drop(io);
    web.until_metric("tcp_close_total", &[INBOUND, SOURCE, ("tls", "no_proxy_tls")], 1.0).await;
    assert_eq!(web.metric("tcp_open_total", &[INBOUND, ("tls", "kubelet_probe")]).await, 0.0);
}
