//! One request.
#![allow(clippy::unwrap_used, reason = "a test")]

use std::{sync::Arc, time::Duration};

use conduit_mesh::{Deployment, Service, Sidecar};
use conduit_net::{Accepted, Net};
use conduit_runtime::{drain, serve};
use parking_lot::Mutex;
use sim::{
    history::WireKind,
    run::{Setting, Stage, run},
};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

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

async fn story(mut stage: Stage) -> Result<Vec<String>, String> {
    let told = |error: conduit_mesh::Error| error.to_string();
    stage.mesh.start_ca(Arc::new(stage.clock.clone())).await.map_err(told)?;
    stage.mesh.start_destination().await.map_err(told)?;
    stage.mesh.start_observe().await.map_err(told)?;
    stage.machines.serve_control(false);
    stage.mesh.namespace("shop").await.map_err(told)?;
    stage.mesh.service(&Service::new("shop", "server").port("http", 80, 8080)).await.map_err(told)?;
    let server = Deployment::new("shop", "server", |net: Net, drain: drain::Watch| async move {
        let listener = net.bind("0.0.0.0:8080".parse().unwrap()).await?;
        serve::accept_loop(listener, 64, drain, hello).await;
        Ok(())
    })
    .port("http", 8080)
    .sidecar(Sidecar::Tls);
    let answers: Arc<Mutex<Vec<String>>> = Arc::default();
    let heard = answers.clone();
    let client = Deployment::new("shop", "client", move |net: Net, drain: drain::Watch| {
        let heard = heard.clone();
        async move {
            for _ in 0..20 {
                let ip = net.resolve("server.shop").await?.addrs[0];
                let mut io = net.connect((ip, 80).into()).await?;
                io.write_all(b"GET / HTTP/1.1\r\nhost: server.shop\r\nconnection: close\r\n\r\n").await?;
                let mut answer = String::new();
                io.read_to_string(&mut answer).await?;
                heard.lock().push(answer);
                tokio::time::sleep(Duration::from_millis(500)).await;
            }
            drain.signaled().await;
            Ok(())
        }
    })
    .sidecar(Sidecar::Tls);
    stage.mesh.deploy(&[server, client]).await.map_err(told)?;
    tokio::time::sleep(Duration::from_secs(12)).await;
    let wire = stage.wire.sniffed();
    for connection in wire.iter().filter(|c| c.server.port() == 8080) {
        println!("{connection:?}");
    }
    assert!(wire.iter().any(|c| c.server.port() == 8080 && c.kind == WireKind::Mesh));
    let answers = answers.lock().clone();
    Ok(answers)
}

#[test]
fn a_request_between_meshed_pods_crosses_over_tls() {
    let setting = Setting { seed: 1, hosts: 2, keeps_trace: true, ..Setting::default() };
    let begun = std::time::Instant::now();
    let (answers, trace) = run(&setting, story).unwrap();
    println!("took {:?} {:?}", begun.elapsed(), trace.sum());
    assert_eq!(answers.len(), 20);
    let (_, again) = run(&setting, story).unwrap();
    for (i, (a, b)) in trace.lines().iter().zip(again.lines()).enumerate() {
        assert_eq!(a, b, "line {i}: before {:?}", &trace.lines()[i.saturating_sub(5)..i]);
    }
    assert_eq!(trace.sum(), again.sum());
}
