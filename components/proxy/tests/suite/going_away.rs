//! Servers that go away: nothing that waits for them hangs, what they have not looked at may be sent again, and who chose them
//! itself hears of it.

use bytes::Bytes;
use h2::{Ping, Reason, client, server};
use http::{HeaderValue, Request};
use tokio::sync::mpsc;

use crate::support::{
    Pod,
    frames::{Frames, GOAWAY, HEADERS, PING, RST_STREAM},
    identity,
    path::{Mode, Path},
    serve, within,
};

#[tokio::test]
async fn a_request_behind_the_applications_farewell_is_refused_at_once() {
    let path = Path::new(Mode::Plain).await;
    let (answer, may_answer) = tokio::sync::watch::channel(false);
    let (told, mut hears) = mpsc::unbounded_channel();
    let app = path
        .serve(move |client| {
            let (told, mut may_answer) = (told.clone(), may_answer.clone());
            async move {
                let mut io = Frames::server(client).await;
                assert_eq!(io.next(HEADERS).await.stream, 1);
                io.go_away(1).await;
                io.send(PING, 0, 0, b"heard it").await;
                io.next(PING).await;
                told.send(()).unwrap();
                drop(may_answer.wait_for(|may| *may).await);
                io.respond(1).await;
                io.rest().await;
            }
        })
        .await;
    let mut io = Frames::client(Pod::plain(&path.world, 3).connect(app).await).await;
    io.get(1).await;
    within(hears.recv()).await.unwrap();
    io.get(3).await;
    assert_eq!(io.reset().await, (3, Reason::REFUSED_STREAM));
    answer.send(true).unwrap();
    assert_eq!(io.next(HEADERS).await.stream, 1, "what was under way goes on");
}

#[tokio::test]
async fn a_request_behind_the_applications_close_is_refused_at_once() {
    let path = Path::new(Mode::Plain).await;
    let app = path
        .serve(|client| async move {
            let mut connection = server::handshake(client.io).await.unwrap();
            drop(connection.accept().await);
        })
        .await;
    let mut io = Frames::client(Pod::plain(&path.world, 3).connect(app).await).await;
    io.get(1).await;
    assert_eq!(io.reset().await.0, 1);
    io.call(3).await;
    assert_eq!(io.reset().await, (3, Reason::REFUSED_STREAM));
}

#[tokio::test]
async fn requests_that_wait_for_their_turn_do_not_outlast_the_application() {
    let path = Path::new(Mode::Plain).await;
    let (leave, may_leave) = tokio::sync::watch::channel(false);
    let (told, mut hears) = mpsc::unbounded_channel();
    let app = path
        .serve(move |client| {
            let (told, mut may_leave) = (told.clone(), may_leave.clone());
            async move {
                let mut one_at_a_time = server::Builder::new();
                one_at_a_time.max_concurrent_streams(1);
                let mut connection = one_at_a_time.handshake::<_, Bytes>(client.io).await.unwrap();
                let mut pings = connection.ping_pong().unwrap();
                let _under_way = connection.accept().await;
                // Whoever answers a PING has read the SETTINGS before it.
                tokio::select! {
                    pong = pings.ping(Ping::opaque()) => drop(pong.unwrap()),
                    _ = connection.accept() => panic!("more than one at a time"),
                }
                told.send(()).unwrap();
                tokio::select! {
                    _ = connection.accept() => panic!("more than one at a time"),
                    _ = may_leave.changed() => {}
                }
            }
        })
        .await;
    let mut io = Frames::client(Pod::plain(&path.world, 3).connect(app).await).await;
    io.get(1).await;
    within(hears.recv()).await.unwrap();
    for stream in [3, 5] {
        io.get(stream).await;
    }
    io.call(7).await;
    path.server.until_metric("request_total", &[("direction", "inbound")], 4.0).await;
    leave.send(true).unwrap();
    let mut resets = [io.reset().await, io.reset().await, io.reset().await, io.reset().await];
    resets.sort_by_key(|(stream, _)| *stream);
    // The client side holds one request ready for the next turn, and of that one it cannot say that it was not sent.
    assert_eq!([resets[0].0, resets[1].0], [1, 3]);
    assert_eq!(resets[2..], [5, 7].map(|stream| (stream, Reason::REFUSED_STREAM)));
}

/// How a server says that it has not looked at a request.
#[derive(Debug, Clone, Copy)]
enum Unseen {
    Refused,
    Away,
}

#[tokio::test]
async fn a_request_with_a_body_that_no_server_looked_at_is_refused_and_not_failed() {
    for unseen in [Unseen::Refused, Unseen::Away] {
        let path = Path::new(Mode::Tls).await;
        let (stranger, unmeshed) = (Pod::plain(&path.world, 3), Pod::plain(&path.world, 4));
        let turns_away = move |io| async move {
            let mut io = Frames::server(io).await;
            let stream = io.next(HEADERS).await.stream;
            match unseen {
                Unseen::Refused => io.send(RST_STREAM, 0, stream, &7_u32.to_be_bytes()).await,
                Unseen::Away => io.go_away(stream - 1).await,
            }
            io.rest().await;
        };
        let meshed = path.serve(turns_away).await;
        let plain = serve(&unmeshed, turns_away).await;
        // Through the server's proxy, through the client's, through both.
        for (pod, app) in [(&stranger, meshed), (&path.client, plain), (&path.client, meshed)] {
            for content_type in ["application/grpc", "text/plain"] {
                let (mut sender, connection) =
                    within(client::handshake(pod.connect(app).await.io)).await.unwrap();
                tokio::spawn(connection);
                let mut request = Request::post("http://web/").body(()).unwrap();
                request.headers_mut().insert("content-type", HeaderValue::from_static(content_type));
                let (response, mut stream) = sender.send_request(request, false).unwrap();
                stream.send_data(Bytes::from_static(b"message"), true).unwrap();
                let reason = within(response).await.map(drop).unwrap_err().reason();
                assert_eq!(reason, Some(Reason::REFUSED_STREAM), "{unseen:?} {content_type} {app}");
            }
        }
    }
}

#[tokio::test]
async fn a_client_over_http2_hears_that_the_server_it_chose_is_gone() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|client| async move {
                let mut io = Frames::server(client).await;
                io.next(HEADERS).await;
                io.respond(1).await;
            })
            .await;
        let mut io = Frames::client(path.client.connect(app).await).await;
        io.get(1).await;
        assert_eq!(io.next(HEADERS).await.stream, 1, "{mode:?}");
        path.world.destination.tell(app, &[]);
        io.next(GOAWAY).await;
    }
}

#[tokio::test]
async fn a_client_over_http1_hears_that_the_server_it_chose_is_gone() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.head().await;
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert_eq!(io.head().await, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n", "{mode:?}");
        io.expect("ok").await;
        path.world.destination.tell(app, &[]);
        assert!(io.rest().await.unwrap().is_empty(), "{mode:?}");
    }
}

#[tokio::test]
async fn a_client_that_chose_its_server_is_told_which_response_is_the_last() {
    let path = Path::new(Mode::Tls).await;
    let app = path
        .serve(|mut client| async move {
            client.head().await;
            client.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
        })
        .await;
    let service = path.world.service("10.96.0.1:80", app);
    path.world.destination.tell(service, &[(app, Some(&identity("web")))]);
    for (to, is_last) in [(app, true), (service, false)] {
        let mut io = path.client.connect(to).await;
        io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert_eq!(io.head().await.contains("Connection: close"), is_last, "{to}");
        io.expect("ok").await;
    }
}
