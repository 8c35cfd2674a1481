//! HTTP/2 and gRPC through two proxies: streams, trailers, resets, flow control.

use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use conduit_net::Io;
use conduit_proxy::Own;
use h2::{Reason, RecvStream, SendStream, client, server};
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode};
use tokio::sync::mpsc;

use crate::support::{
    Client, Pod, World,
    frames::{Frames, HEADERS, PING},
    identity,
    path::{Mode, Path},
    serve, within,
};

type Incoming = (Request<RecvStream>, server::SendResponse<Bytes>);

/// An application that speaks HTTP/2; each request goes to `handle`.
async fn application<Handled>(
    path: &Path,
    handle: impl Fn(Incoming) -> Handled + Clone + Send + Sync + 'static,
) -> std::net::SocketAddr
where
    Handled: Future<Output = ()> + Send + 'static,
{
    path.serve(move |client| {
        let handle = handle.clone();
        async move {
            let mut connection = server::handshake(client.io).await.unwrap();
            while let Some(Ok(incoming)) = connection.accept().await {
                tokio::spawn(handle(incoming));
            }
        }
    })
    .await
}

async fn connect(pod: &Pod, to: std::net::SocketAddr) -> client::SendRequest<Bytes> {
    open(pod.connect(to).await).await.0
}

async fn open(
    client: Client,
) -> (client::SendRequest<Bytes>, tokio::task::JoinHandle<Result<(), h2::Error>>) {
    let (sender, connection) = within(client::handshake(client.io)).await.unwrap();
    (sender, tokio::spawn(connection))
}

fn post(path: &str) -> Request<()> {
    Request::post(format!("http://web{path}")).header("te", "trailers").body(()).unwrap()
}

async fn read(mut body: RecvStream) -> Result<(Vec<u8>, Option<HeaderMap>), h2::Error> {
    let mut whole = Vec::new();
    while let Some(data) = within(body.data()).await {
        let data = data?;
        body.flow_control().release_capacity(data.len()).unwrap();
        whole.extend_from_slice(&data);
    }
    Ok((whole, within(body.trailers()).await?))
}

async fn write(mut stream: SendStream<Bytes>, mut data: Bytes) {
    while !data.is_empty() {
        stream.reserve_capacity(data.len());
        let capacity = within(std::future::poll_fn(|cx| stream.poll_capacity(cx))).await.unwrap().unwrap();
        stream.send_data(data.split_to(capacity.min(data.len())), false).unwrap();
    }
    stream.send_data(Bytes::new(), true).unwrap();
}

#[tokio::test]
async fn a_grpc_like_call_keeps_headers_messages_and_trailers() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = application(&path, |(request, mut respond)| async move {
            assert_eq!(request.headers()["te"], "trailers");
            assert_eq!(request.uri().authority().unwrap(), "web");
            let (body, _) = read(request.into_body()).await.unwrap();
            let head = Response::builder().header("content-type", "application/grpc").body(()).unwrap();
            let mut stream = respond.send_response(head, false).unwrap();
            stream.send_data(body.into(), false).unwrap();
            let trailers = [("grpc-status", "5"), ("grpc-message", "not found")];
            let trailers =
                trailers.map(|(name, value)| (name.parse().unwrap(), HeaderValue::from_static(value)));
            stream.send_trailers(trailers.into_iter().collect()).unwrap();
        })
        .await;
        let sender = connect(&path.client, app).await;
        let (response, stream) =
            within(sender.ready()).await.unwrap().send_request(post("/call"), false).unwrap();
        write(stream, Bytes::from_static(b"message")).await;
        let response = within(response).await.unwrap();
        assert_eq!(response.headers()["content-type"], "application/grpc");
        assert!(!response.headers().contains_key("date"), "nothing is invented");
        let (body, trailers) = read(response.into_body()).await.unwrap();
        assert_eq!(body, b"message");
        assert_eq!(trailers.unwrap()["grpc-status"], "5");
        path.assert_wires(app);
        let failed = [("direction", "outbound"), ("classification", "failure"), ("grpc_status_code", "5")];
        path.client.until_metric("response_total", &failed, 1.0).await;
    }
}

#[tokio::test]
async fn no_method_gains_a_length() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = application(&path, |(request, mut respond)| async move {
            let status = match request.headers().contains_key("content-length") {
                true => StatusCode::BAD_REQUEST,
                false => StatusCode::OK,
            };
            respond.send_response(Response::builder().status(status).body(()).unwrap(), true).unwrap();
        })
        .await;
        let mut sender = connect(&path.client, app).await;
        for method in ["GET", "POST", "PUT", "PATCH", "DELETE"] {
            let request = Request::builder().method(method).uri("http://web/").body(()).unwrap();
            let (response, _) = sender.send_request(request, true).unwrap();
            assert_eq!(within(response).await.unwrap().status(), StatusCode::OK, "{method}");
        }
    }
}

#[tokio::test]
async fn a_request_without_an_authority_arrives_as_it_is() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let (told, mut hears) = mpsc::unbounded_channel();
        let app = application(&path, move |(request, mut respond)| {
            let (head, _) = request.into_parts();
            told.send((head.uri.to_string(), head.headers.get("host").cloned())).unwrap();
            drop(respond.send_response(Response::new(()), true).unwrap());
            std::future::ready(())
        })
        .await;
        let stranger = Pod::plain(&path.world, 3);
        for pod in [&path.client, &stranger] {
            let mut io = Frames::client(pod.connect(app).await).await;
            // GET, http, /path, host: web
            io.request(1, b"\x82\x86\x44\x05/path\x66\x03web").await;
            assert_eq!(
                within(hears.recv()).await.unwrap(),
                ("/path".to_owned(), Some("web".parse().unwrap()))
            );
            io.request(3, b"\x82\x86\x84").await;
            assert_eq!(within(hears.recv()).await.unwrap(), ("/".to_owned(), None));
            for stream in [1, 3] {
                assert_eq!(io.next(HEADERS).await.stream, stream);
            }
        }
    }
}

#[tokio::test]
async fn another_proxy_is_asked_whether_it_is_still_there_and_nobody_else() {
    let world = World::new().await;
    let client = Pod::with(&world, 1, |config| {
        let files = config.tls.own.take().unwrap().files;
        config.tls.own = Some(Own { identity: identity("client"), files });
        config.timeouts.ping = Duration::from_millis(50);
    })
    .await;
    world.authority.issue(&identity("client")).write(client.proxy().files.path());
    client.until_tls_is("true").await;
    let server = Pod::plain(&world, 2);
    let (told, mut hears) = mpsc::unbounded_channel();
    let credentials = Arc::new(world.authority.loaded(&identity("web"), &world.clock));
    let proxy = {
        let told = told.clone();
        serve(&server, move |client| {
            let (told, credentials) = (told.clone(), credentials.clone());
            async move {
                let (tls, _) = conduit_identity::accept(&credentials, client.io).await.unwrap();
                let (near, mut far) = tokio::io::duplex(64 << 10);
                let relay = tokio::spawn(async move {
                    let mut tls = tls;
                    drop(tokio::io::copy_bidirectional(&mut tls, &mut far).await);
                });
                Frames::server(Client::new(Io::other(near))).await.next(PING).await;
                told.send("proxy").unwrap();
                relay.abort();
            }
        })
        .await
    };
    let other = serve(&server, move |client| {
        let told = told.clone();
        async move {
            Frames::server(client).await.next(PING).await;
            told.send("somebody else").unwrap();
        }
    })
    .await;
    world.destination.tell(proxy, &[(proxy, Some(&identity("web")))]);
    world.destination.tell(other, &[(other, None)]);
    let mut senders = Vec::new();
    for to in [other, proxy] {
        let mut sender = connect(&client, to).await;
        tokio::spawn(sender.send_request(post("/"), true).unwrap().0);
        senders.push(sender);
    }
    assert_eq!(within(hears.recv()).await, Some("proxy"));
}

#[tokio::test]
async fn resets_pass_both_ways_with_their_reason() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let (told, mut hears) = mpsc::unbounded_channel();
        let app = application(&path, move |(request, mut respond)| {
            let told = told.clone();
            async move {
                match request.uri().path() {
                    "/at-once" => respond.send_reset(Reason::ENHANCE_YOUR_CALM),
                    "/in-the-middle" => {
                        let mut stream = respond.send_response(Response::new(()), false).unwrap();
                        stream.send_data(Bytes::from_static(b"half"), false).unwrap();
                        stream.reserve_capacity(1);
                        std::future::poll_fn(|cx| stream.poll_capacity(cx)).await;
                        stream.send_reset(Reason::INADEQUATE_SECURITY);
                    }
                    _ => {
                        let _stream = respond.send_response(Response::new(()), false).unwrap();
                        let mut body = request.into_body();
                        while let Some(Ok(_)) = body.data().await {}
                        let end = std::future::poll_fn(|cx| respond.poll_reset(cx));
                        told.send(within(end).await.ok()).unwrap();
                    }
                }
            }
        })
        .await;
        let mut sender = connect(&path.client, app).await;
        let (response, _) = sender.send_request(post("/at-once"), true).unwrap();
        assert_eq!(within(response).await.unwrap_err().reason(), Some(Reason::ENHANCE_YOUR_CALM));
        let (response, _) = sender.send_request(post("/in-the-middle"), true).unwrap();
        let reset = match within(response).await {
            Ok(response) => read(response.into_body()).await.unwrap_err(),
            Err(reset) => reset,
        };
        assert_eq!(reset.reason(), Some(Reason::INADEQUATE_SECURITY));
        let (response, mut stream) = sender.send_request(post("/wait"), false).unwrap();
        let response = within(response).await.unwrap();
        stream.send_reset(Reason::CANCEL);
        assert_eq!(within(hears.recv()).await.unwrap(), Some(Reason::CANCEL));
        drop(response);
    }
}

#[tokio::test]
async fn a_request_that_the_server_refused_unseen_is_sent_again() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let (told, mut hears) = mpsc::unbounded_channel();
        let app = application(&path, move |(request, mut respond)| {
            let told = told.clone();
            async move {
                told.send(request.uri().path().to_owned()).unwrap();
                match told.strong_count() % 2 {
                    _ if request.uri().path() == "/refused" => respond.send_reset(Reason::REFUSED_STREAM),
                    _ => drop(respond.send_response(Response::new(()), true).unwrap()),
                }
            }
        })
        .await;
        let mut sender = connect(&path.client, app).await;
        let (response, _) = sender.send_request(post("/refused"), true).unwrap();
        assert_eq!(within(response).await.unwrap_err().reason(), Some(Reason::REFUSED_STREAM));
        // The first time, and three times again.
        for _ in 0..4 {
            assert_eq!(within(hears.recv()).await.unwrap(), "/refused");
        }
        let (response, _) = sender.send_request(post("/taken"), true).unwrap();
        assert_eq!(within(response).await.unwrap().status(), StatusCode::OK);
        assert_eq!(within(hears.recv()).await.unwrap(), "/taken");
        assert!(hears.try_recv().is_err());
    }
}

#[tokio::test]
async fn many_streams_share_the_connection_and_large_bodies_flow() {
    const SIZE: usize = 3 << 20;
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = application(&path, |(request, mut respond)| async move {
            let (body, _) = read(request.into_body()).await.unwrap();
            let stream = respond.send_response(Response::new(()), false).unwrap();
            write(stream, body.into()).await;
        })
        .await;
        let sender = connect(&path.client, app).await;
        let large = Bytes::from((0..SIZE).map(|at| at as u8).collect::<Vec<_>>());
        let calls = (0..20).map(|number| {
            let (sender, large) = (sender.clone(), large.clone());
            async move {
                let sent = if number == 0 { large } else { Bytes::from(format!("call {number}")) };
                let mut sender = within(sender.ready()).await.unwrap();
                let (response, stream) = sender.send_request(post("/echo"), false).unwrap();
                let body = async { read(within(response).await.unwrap().into_body()).await.unwrap().0 };
                let (body, ()) = tokio::join!(body, write(stream, sent.clone()));
                assert!(body == sent, "call {number}");
            }
        });
        futures::future::join_all(calls).await;
        assert_eq!(path.world.wires(app).len(), 1);
        path.assert_wires(app);
    }
}

#[tokio::test]
async fn a_fragmented_preface_is_http2() {
    let path = Path::new(Mode::Tls).await;
    let app = application(&path, |(_, mut respond)| async move {
        respond.send_response(Response::new(()), true).unwrap();
    })
    .await;
    let client = path.client.connect(app).await;
    let (near, far) = tokio::io::duplex(64 << 10);
    // Octet by octet, each in a packet of its own.
    tokio::spawn(async move {
        let (mut from, mut to) = tokio::io::split(far);
        let (mut read, mut write) = tokio::io::split(client.io);
        let there = async {
            let mut octet = [0; 1];
            for count in 0.. {
                if tokio::io::AsyncReadExt::read_exact(&mut from, &mut octet).await.is_err() {
                    break;
                }
                tokio::io::AsyncWriteExt::write_all(&mut write, &octet).await.unwrap();
                if count < 30 {
                    tokio::task::yield_now().await;
                }
            }
        };
        let _ended = tokio::join!(there, tokio::io::copy(&mut read, &mut to));
    });
    let (mut sender, connection) = within(client::handshake(near)).await.unwrap();
    tokio::spawn(connection);
    let (response, _) = sender.send_request(post("/"), true).unwrap();
    assert_eq!(within(response).await.unwrap().status(), StatusCode::OK);
    path.client.until_metric("response_total", &[("direction", "outbound"), ("tls", "true")], 1.0).await;
}

#[tokio::test]
async fn an_application_that_goes_away_takes_the_clients_connection_along() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|client| async move {
                let mut connection = server::handshake(client.io).await.unwrap();
                let (_, mut respond) = connection.accept().await.unwrap().unwrap();
                respond.send_response(Response::new(()), true).unwrap();
                connection.graceful_shutdown();
                while connection.accept().await.is_some() {}
            })
            .await;
        let stranger = Pod::plain(&path.world, 3);
        let (mut sender, connection) = open(stranger.connect(app).await).await;
        let (response, _) = sender.send_request(post("/"), true).unwrap();
        within(response).await.unwrap();
        within(connection).await.unwrap().unwrap();
    }
}

#[tokio::test]
async fn a_call_of_grpc_that_loses_its_server_is_told_so_by_a_status() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|client| async move {
                let mut connection = server::handshake(client.io).await.unwrap();
                let (request, mut respond) = connection.accept().await.unwrap().unwrap();
                if request.uri().path() == "/later" {
                    let mut stream = respond.send_response(Response::new(()), false).unwrap();
                    stream.send_data(Bytes::from_static(b"half"), false).unwrap();
                    // Driven until the data has left; then everything is dropped.
                    let sent = std::future::poll_fn(|cx| connection.poll_closed(cx));
                    drop(tokio::time::timeout(std::time::Duration::from_millis(50), sent).await);
                }
            })
            .await;
        for (call, half) in [("/at-once", &b""[..]), ("/later", b"half")] {
            let mut sender = connect(&path.client, app).await;
            let mut request = post(call);
            request.headers_mut().insert("content-type", HeaderValue::from_static("application/grpc+proto"));
            let (response, _) = sender.send_request(request, true).unwrap();
            let response = within(response).await.unwrap();
            let status = response.headers().get("grpc-status").cloned();
            let (body, trailers) = read(response.into_body()).await.unwrap();
            assert_eq!(body, half);
            let status =
                status.or_else(|| trailers.and_then(|trailers| trailers.get("grpc-status").cloned()));
            assert_eq!(status.unwrap(), "14", "{mode:?} {call}");
        }
    }
}
