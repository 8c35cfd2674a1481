//! The thinnest line through every part: one request over mutual TLS between two pods, with certificates that the CA
//! issued through the API, and the row that tells of it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{sync::Arc, time::Duration};

use conduit_identity::SystemClock;
use conduit_mesh::{Addresses, Deployment, Mesh, Service, Sidecar};
use conduit_net::{Accepted, Net, TokioNetwork};
use conduit_runtime::{Seed, drain, serve};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(60);

/// Says hello to every request, one a connection.
async fn hello(mut accepted: Accepted) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match accepted.io.read_u8().await {
            Ok(octet) => head.push(octet),
            Err(_) => return,
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    drop(accepted.io.write_all(answer).await);
    drop(accepted.io.shutdown().await);
}

fn server(sidecar: Sidecar) -> Deployment {
    Deployment::new("shop", "server", |net: Net, drain: drain::Watch| async move {
        let listener = net.bind("0.0.0.0:8080".parse().unwrap()).await?;
        serve::accept_loop(listener, 64, drain, hello).await;
        Ok(())
    })
    .port("http", 8080)
    .sidecar(sidecar)
}

/// A pod without an application of its own: the test uses its network.
fn client(sidecar: Sidecar) -> (Deployment, Arc<Mutex<Option<Net>>>) {
    let place: Arc<Mutex<Option<Net>>> = Arc::default();
    let given = place.clone();
    let deployment = Deployment::new("shop", "client", move |net: Net, drain: drain::Watch| {
        *given.lock() = Some(net);
        async move {
            drain.signaled().await;
            Ok(())
        }
    });
    (deployment.sidecar(sidecar), place)
}

async fn get(net: &Net, host: &str, port: u16, path: &str) -> String {
    let asked = async {
        let ip = net.resolve(host).await.unwrap().addrs[0];
        let mut io = net.connect((ip, port).into()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap()
}

/// The body of an answer, as JSON.
fn body(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
    let found = async {
        loop {
            if let Some(found) = found().await {
                return found;
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(DEADLINE, found).await.unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"))
}

async fn mesh(addresses: Addresses) -> Mesh {
    let mesh = Mesh::builder(addresses, Seed::from_os().unwrap()).pull(Duration::ZERO);
    let mut mesh = mesh.start().await.unwrap();
    mesh.start_ca(Arc::new(SystemClock)).await.unwrap();
    mesh.start_destination().await.unwrap();
    mesh.start_observe().await.unwrap();
    mesh.namespace("shop").await.unwrap();
    mesh.service(&Service::new("shop", "server").port("http", 80, 8080)).await.unwrap();
    mesh
}

#[cfg(target_os = "linux")]
#[tokio::test]
async fn a_request_between_meshed_pods_is_tls_and_told_so() {
    told_of_tls(Addresses::loopback().starting_at(32 * 1024)).await;
}

#[tokio::test]
async fn the_same_on_ports_of_one_address() {
    told_of_tls(Addresses::ports()).await;
}

async fn told_of_tls(addresses: Addresses) {
    let mut mesh = mesh(addresses).await;
    let (client, net) = client(Sidecar::Tls);
    mesh.deploy(&[server(Sidecar::Tls), client]).await.unwrap();
    let net = net.lock().clone().unwrap();
    assert!(get(&net, "server.shop", 80, "/").await.ends_with("hello"));

    let machine = TokioNetwork::shared();
    let observe = mesh.observe_addr().unwrap();
    let row = until("a row with TLS", async || {
        assert!(get(&net, "server.shop", 80, "/").await.ends_with("hello"));
        let path = "/api/v1/stat?type=authority&namespace=shop&window=10s";
        let answer = get(&machine, &observe.ip().to_string(), observe.port(), path).await;
        let row = body(&answer)["rows"][0].clone();
        (row["tls"].as_f64().unwrap_or_default() > 0.0).then_some(row)
    })
    .await;
    assert_eq!(row["name"], "server.shop:80", "{row}");
    assert_eq!(row["success"].as_f64(), Some(1.0), "{row}");
    mesh.stop(Duration::from_secs(1)).await;
}

#[tokio::test]
async fn a_request_between_pods_without_sidecars_needs_no_mesh() {
    let mut mesh = mesh(Addresses::of_this_machine().await.starting_at(33 * 1024)).await;
    let (client, net) = client(Sidecar::Absent);
    mesh.deploy(&[server(Sidecar::Absent), client]).await.unwrap();
    let net = net.lock().clone().unwrap();
    assert!(get(&net, "server", 80, "/").await.ends_with("hello"));
    mesh.stop(Duration::from_secs(1)).await;
}
