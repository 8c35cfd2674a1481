//! A small shop, and how to ask it: what the tests of a whole mesh share.

use std::{sync::Arc, time::Duration};

use conduit_identity::SystemClock;
use conduit_mesh::{Addresses, Deployment, Mesh, Service, Sidecar};
use conduit_net::{Accepted, Net};
use conduit_runtime::{Seed, drain, serve};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

/// For everything that is waited for.
pub(crate) const DEADLINE: Duration = Duration::from_secs(60);

/// Says hello to every request, one a connection.
pub(crate) async fn hello(mut accepted: Accepted) {
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

/// Deployment `server`, which says hello.
pub(crate) fn server(sidecar: Sidecar) -> Deployment {
    Deployment::new("shop", "server", |net: Net, drain: drain::Watch| async move {
        let listener = net.bind("0.0.0.0:8080".parse().unwrap()).await?;
        serve::accept_loop(listener, 64, drain, hello).await;
        Ok(())
    })
    .port("http", 8080)
    .sidecar(sidecar)
}

/// A pod without an application of its own: the test uses its network.
pub(crate) fn client(name: &str, sidecar: Sidecar) -> (Deployment, Arc<Mutex<Option<Net>>>) {
    let place: Arc<Mutex<Option<Net>>> = Arc::default();
    let given = place.clone();
    let deployment = Deployment::new("shop", name, move |net: Net, drain: drain::Watch| {
        *given.lock() = Some(net);
        async move {
            drain.signaled().await;
            Ok(())
        }
    });
    (deployment.sidecar(sidecar), place)
}

/// The answer to one request, head and all.
pub(crate) async fn get(net: &Net, host: &str, port: u16, path: &str) -> String {
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
pub(crate) fn body(answer: &str) -> serde_json::Value {
    let (_, body) = answer.split_once("\r\n\r\n").unwrap_or_default();
    serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}"))
}

/// Waits until something is found.
pub(crate) async fn until<T>(what: &str, mut found: impl AsyncFnMut() -> Option<T>) -> T {
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

/// A mesh with a control plane, the namespace `shop` and its service `server`.
pub(crate) async fn mesh(addresses: Addresses) -> Mesh {
    let mesh = Mesh::builder(addresses, Seed::from_os().unwrap()).pull(Duration::ZERO);
    let mut mesh = mesh.start().await.unwrap();
    mesh.start_ca(Arc::new(SystemClock)).await.unwrap();
    mesh.start_destination().await.unwrap();
    mesh.start_observe().await.unwrap();
    mesh.namespace("shop").await.unwrap();
    mesh.service(&Service::new("shop", "server").port("http", 80, 8080)).await.unwrap();
    mesh
}
