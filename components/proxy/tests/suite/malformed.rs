//! Input that makes no sense: who sent it is told so in the words of its protocol, and it is counted.

use crate::support::{
    Client, Pod,
    frames::{DATA, Frames, GOAWAY},
    path::{Mode, Path},
};

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

async fn answering(mut client: Client) {
    while client.next_head().await.is_some() {
        client.send(OK).await;
    }
}

/// So many inputs were counted.
async fn until_counted(pod: &Pod, source: &str, count: u8) {
    pod.until_metric("malformed_input_total", &[("source", source)], count.into()).await;
}

#[tokio::test]
async fn a_later_request_that_cannot_be_forwarded_gets_the_prescribed_error() {
    let path = Path::new(Mode::Tls).await;
    let app = path.serve(answering).await;
    let stranger = Pod::plain(&path.world, 3);
    let cases = [
        ("400", "GET web:80 HTTP/1.1\r\nHost: web\r\n\r\n".to_owned()),
        ("400", "GET / HTTP/1.1\r\nno colon\r\n\r\n".to_owned()),
        ("414", format!("GET /{} HTTP/1.1\r\nHost: web\r\n\r\n", "x".repeat(1 << 16))),
        ("431", format!("GET / HTTP/1.1\r\nHost: web\r\n{}\r\n", "a: b\r\n".repeat(2_000))),
        ("431", format!("GET / HTTP/1.1\r\nHost: web\r\na: {}", "b".repeat(2 << 20))),
    ];
    for (pod, counts) in [(&path.client, &path.client), (&stranger, &path.server)] {
        for (number, (status, request)) in (1..).zip(&cases) {
            let mut io = pod.connect(app).await;
            io.send(GET).await;
            io.expect(OK).await;
            io.send(request).await;
            let head = io.head().await;
            assert!(head.starts_with(&format!("HTTP/1.1 {status} ")), "{head}");
            until_counted(counts, "http", number).await;
        }
    }
}

#[tokio::test]
async fn a_body_whose_coding_makes_no_sense_ends_its_connection() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.head().await;
                drop(client.rest().await);
            })
            .await;
        let stranger = Pod::plain(&path.world, 3);
        for (pod, counts) in [(&path.client, &path.client), (&stranger, &path.server)] {
            let mut io = pod.connect(app).await;
            io.send("POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\nno\r\n")
                .await;
            drop(io.rest().await);
            until_counted(counts, "http", 1).await;
        }
    }
}

#[tokio::test]
async fn frames_that_make_no_sense_are_answered_by_a_farewell() {
    let path = Path::new(Mode::Plain).await;
    let app = path
        .serve(|client| async move {
            let mut connection = h2::server::handshake(client.io).await.unwrap();
            while connection.accept().await.is_some() {}
        })
        .await;
    let stranger = Pod::plain(&path.world, 3);
    for (pod, counts) in [(&path.client, &path.client), (&stranger, &path.server)] {
        let mut io = Frames::client(pod.connect(app).await).await;
        // Data of no stream.
        io.send(DATA, 0, 0, b"data").await;
        let reason = io.next(GOAWAY).await.payload[4..8].to_vec();
        assert_eq!(reason, u32::from(h2::Reason::PROTOCOL_ERROR).to_be_bytes());
        until_counted(counts, "http", 1).await;
    }
}

#[tokio::test]
async fn what_begins_like_a_hello_and_becomes_none_is_the_applications_unless_it_breaks_off() {
    let path = Path::new(Mode::Tls).await;
    let (told, mut hears) = tokio::sync::mpsc::unbounded_channel();
    let app = path
        .serve(move |mut client| {
            let told = told.clone();
            async move { told.send(client.rest().await.unwrap()).unwrap() }
        })
        .await;
    let stranger = Pod::plain(&path.world, 3);
    // A finished message, and the beginning of a hello.
    let (other, cut_off) = (b"\x16\x03\x01\x00\x04\x14\x00\x00\x00", b"\x16\x03\x01\x00\x40\x01\x00\x00");
    let mut io = stranger.connect(app).await;
    io.send(other).await;
    io.finish().await;
    assert_eq!(crate::support::within(hears.recv()).await.unwrap(), other);
    until_counted(&path.server, "hello", 1).await;
    let mut io = stranger.connect(app).await;
    io.send(cut_off).await;
    io.finish().await;
    drop(io.rest().await);
    until_counted(&path.server, "hello", 2).await;
    assert!(hears.try_recv().is_err(), "it may have been a peer's");
}
