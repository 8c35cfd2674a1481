//! The thinnest line through every part: one request over mutual TLS between two pods, with certificates that the CA
//! issued through the API, and the row that tells of it.

#![allow(clippy::unwrap_used, reason = "a test")]

mod support;

use std::time::Duration;

use conduit_mesh::{Addresses, Sidecar};
use conduit_net::TokioNetwork;
use support::{body, client, get, mesh, server, until};

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
    let (client, net) = client("client", Sidecar::Tls);
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
    let (client, net) = client("client", Sidecar::Absent);
    mesh.deploy(&[server(Sidecar::Absent), client]).await.unwrap();
    let net = net.lock().clone().unwrap();
    assert!(get(&net, "server", 80, "/").await.ends_with("hello"));
    mesh.stop(Duration::from_secs(1)).await;
}
