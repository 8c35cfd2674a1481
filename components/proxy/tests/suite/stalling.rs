//! Receivers that stop reading: their senders are held up, and the proxies hold little of what is on its way.

use std::{net::SocketAddr, time::Duration};

use bytes::Bytes;

use crate::support::{
    Client, Pod,
    path::{Mode, Path},
    within,
};

/// More than all sockets on the way hold.
const SIZE: usize = 256 << 20;

/// A sender that gets rid of nothing for so long is held up.
const HELD_UP: Duration = Duration::from_millis(300);

/// Sends until it is held up.
async fn fill(io: &mut Client) {
    use tokio::io::AsyncWriteExt;
    let block = vec![0; 64 << 10];
    let mut sent = 0;
    while let Ok(written) = tokio::time::timeout(HELD_UP, io.io.write(&block)).await {
        sent += written.unwrap();
        assert!(sent < SIZE, "nobody holds the sender up");
    }
}

/// What the proxy of `pod` has read on one side and not written on the other.
async fn held(pod: &Pod, from: &str, to: &str) -> f64 {
    let read = pod.metric("tcp_read_bytes_total", &[("peer", from)]).await;
    read - pod.metric("tcp_write_bytes_total", &[("peer", to)]).await
}

async fn assert_little_is_held(path: &Path, (from, to): (&str, &str), most: usize, what: &str) {
    for pod in [&path.client, &path.server] {
        let held = held(pod, from, to).await;
        assert!(held <= most as f64, "{what}: {held} bytes are held at {}", pod.ip);
    }
}

const UP: (&str, &str) = ("src", "dst");
const DOWN: (&str, &str) = ("dst", "src");

#[tokio::test]
async fn a_server_that_stops_reading_holds_its_client_up() {
    let beginnings = [
        ("HTTP/1", format!("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: {SIZE}\r\n\r\n")),
        (
            "HTTP/1, chunked",
            "PUT / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\nfffffff\r\n".into(),
        ),
        ("opaque", "\u{1}\u{2}\u{3}\u{4}".into()),
    ];
    for mode in Mode::ALL {
        for (what, beginning) in &beginnings {
            let path = Path::new(mode).await;
            let app = path.serve(|client| async move { hold(client).await }).await;
            let mut io = path.client.connect(app).await;
            io.send(beginning).await;
            fill(&mut io).await;
            assert_little_is_held(&path, UP, 192 << 10, what).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_stops_reading_holds_its_server_up() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let (full, is_full) = tokio::sync::watch::channel(false);
        let app = path
            .serve(move |mut client| {
                let full = full.clone();
                async move {
                    client.head().await;
                    client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
                    fill(&mut client).await;
                    full.send(true).unwrap();
                    hold(client).await;
                }
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        let mut is_full = is_full;
        within(is_full.wait_for(|full| *full)).await.unwrap();
        assert_little_is_held(&path, DOWN, 192 << 10, "HTTP/1").await;
    }
}

#[tokio::test]
async fn a_server_that_takes_no_more_of_a_stream_holds_its_client_up() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app: SocketAddr = path
            .serve(|client| async move {
                let mut connection = h2::server::handshake(client.io).await.unwrap();
                let mut streams = Vec::<(_, h2::server::SendResponse<Bytes>)>::new();
                while let Some(Ok(stream)) = connection.accept().await {
                    streams.push(stream);
                }
            })
            .await;
        let (mut sender, connection) =
            within(h2::client::handshake(path.client.connect(app).await.io)).await.unwrap();
        tokio::spawn(connection);
        let request = http::Request::put("http://web/").body(()).unwrap();
        let (_response, mut stream) = sender.send_request(request, false).unwrap();
        let block = Bytes::from(vec![0; 64 << 10]);
        let mut sent = 0;
        loop {
            stream.reserve_capacity(block.len());
            let capacity = std::future::poll_fn(|cx| stream.poll_capacity(cx));
            let Ok(capacity) = tokio::time::timeout(HELD_UP, capacity).await else { break };
            let block = block.slice(..capacity.unwrap().unwrap().min(block.len()));
            sent += block.len();
            assert!(sent < SIZE, "nobody holds the sender up");
            stream.send_data(block, false).unwrap();
        }
        // The windows of HTTP/2, which a stream needs to be fast.
        assert_little_is_held(&path, UP, 3 << 20, "HTTP/2").await;
    }
}

/// Keeps a connection open without reading it.
async fn hold(client: Client) {
    let _client = client;
    std::future::pending().await
}
