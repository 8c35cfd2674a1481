//! TLS between two proxies, and what happens when it cannot be.

use crate::support::{Pod, World, identity, serve, within};

/// Answers every request on the connection with `body`.
async fn answering(pod: &Pod, body: &'static str) -> std::net::SocketAddr {
    serve(pod, move |mut client| async move {
        while client.next_head().await.is_some() {
            client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{body}", body.len())).await;
        }
    })
    .await
}

const GET: &str = "GET /secret-path HTTP/1.1\r\nHost: web\r\n\r\n";

#[tokio::test]
async fn http1_between_two_meshed_pods_is_encrypted_and_both_ends_say_so() {
    let world = World::new().await;
    let (web, client) = (Pod::meshed(&world, 2, "web").await, Pod::meshed(&world, 1, "client").await);
    let app = answering(&web, "secret-body").await;
    world.destination.tell(app, &[(app, Some(&identity("web")))]);

    let mut io = client.connect(app).await;
    for _ in 0..3 {
        io.send(GET).await;
        assert!(io.head().await.starts_with("HTTP/1.1 200 OK\r\n"));
        io.expect("secret-body").await;
    }

    let wires = world.wires(app);
    assert_eq!(wires.len(), 1);
    assert!(wires[0].is_tls() && !wires[0].shows("secret"));
    let (client_id, web_id) = (identity("client"), identity("web"));
    let ids = [("client_id", client_id.as_str()), ("server_id", web_id.as_str()), ("tls", "true")];
    client.until_metric("response_total", &[&ids[..], &[("direction", "outbound")]].concat(), 3.0).await;
    web.until_metric("response_total", &[&ids[..], &[("direction", "inbound")]].concat(), 3.0).await;
    drop(within(io.rest()));
}
