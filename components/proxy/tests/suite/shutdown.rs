//! A proxy that is told to stop finishes what is under way, and leaves last.

use std::time::Duration;

use bytes::Bytes;
use http::{Request, Response};
use tokio::sync::{mpsc, oneshot};

use crate::support::{
    Client, PATIENCE, Pod, World,
    path::{Mode, Path},
    serve, within,
};

const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";
const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";

/// Signals the pod's proxy. The result is whether everything ended by itself.
fn stop(pod: &mut Pod) -> tokio::task::JoinHandle<bool> {
    let trigger = pod.proxy.as_mut().unwrap().trigger.take().unwrap();
    tokio::spawn(trigger.drain(2 * PATIENCE))
}

async fn has_ended(pod: &mut Pod, stopped: tokio::task::JoinHandle<bool>) {
    assert!(within(stopped).await.unwrap());
    within(&mut pod.proxy.as_mut().unwrap().task).await.unwrap().unwrap();
}

async fn answers(mut client: Client) {
    while client.next_head().await.is_some() {
        client.send(OK).await;
    }
}

#[tokio::test]
async fn an_idle_proxy_ends_at_once() {
    let world = World::new().await;
    let mut pod = Pod::meshed(&world, 1, "client").await;
    let stopped = stop(&mut pod);
    has_ended(&mut pod, stopped).await;
}

#[tokio::test]
async fn idle_inbound_connections_are_closed() {
    for mode in Mode::ALL {
        let mut path = Path::new(mode).await;
        let app = path.serve(answers).await;
        let mut tied = Pod::plain(&path.world, 3).connect(app).await;
        tied.send(GET).await;
        tied.expect(OK).await;
        let mut io = path.client.connect(app).await;
        io.send(GET).await;
        io.expect(OK).await;

        let stopped = stop(&mut path.server);
        assert!(tied.rest().await.unwrap().is_empty());
        has_ended(&mut path.server, stopped).await;
    }
}

#[tokio::test]
async fn a_request_under_way_is_finished_and_said_to_be_the_last() {
    for mode in Mode::ALL {
        let mut path = Path::new(mode).await;
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let (release, released) = oneshot::channel::<()>();
        let released = std::sync::Mutex::new(Some(released));
        let app = serve(&path.server, move |mut client| {
            let (arrived, released) = (arrived.clone(), released.lock().unwrap().take().unwrap());
            async move {
                client.head().await;
                arrived.send(()).unwrap();
                released.await.unwrap();
                client.send(OK).await;
                drop(client.rest().await);
            }
        })
        .await;
        let mut io = Pod::plain(&path.world, 3).connect(app).await;
        io.send(GET).await;
        within(arrivals.recv()).await.unwrap();
        let stopped = stop(&mut path.server);
        path.server
            .until_metric("tcp_open_connections", &[("direction", "inbound"), ("peer", "src")], 1.0)
            .await;
        release.send(()).unwrap();
        let head = io.head().await;
        assert!(head.starts_with("HTTP/1.1 200 OK\r\n"), "{head}");
        io.expect("ok").await;
        assert!(io.rest().await.unwrap().is_empty());
        has_ended(&mut path.server, stopped).await;
    }
}

#[tokio::test]
async fn http2_is_told_to_go_away_and_its_streams_finish() {
    const STREAMS: usize = 50;
    const SIZE: usize = 16 << 10;
    for mode in Mode::ALL {
        let mut path = Path::new(mode).await;
        let (arrived, mut arrivals) = mpsc::unbounded_channel();
        let (release, released) = tokio::sync::watch::channel(false);
        let app = path
            .serve(move |client| {
                let (arrived, released) = (arrived.clone(), released.clone());
                async move {
                    let mut connection = h2::server::handshake(client.io).await.unwrap();
                    while let Some(Ok((_, mut respond))) = connection.accept().await {
                        arrived.send(()).unwrap();
                        let mut released = released.clone();
                        tokio::spawn(async move {
                            released.wait_for(|released| *released).await.unwrap();
                            let mut stream = respond.send_response(Response::new(()), false).unwrap();
                            stream.send_data(Bytes::from(vec![1; SIZE]), true).unwrap();
                        });
                    }
                }
            })
            .await;
        let client = path.client.connect(app).await;
        let (mut sender, connection) = within(h2::client::handshake(client.io)).await.unwrap();
        let connection = tokio::spawn(connection);
        let mut responses = Vec::new();
        for _ in 0..STREAMS {
            sender = within(sender.ready()).await.unwrap();
            responses
                .push(sender.send_request(Request::get("http://web/").body(()).unwrap(), true).unwrap().0);
            within(arrivals.recv()).await.unwrap();
        }
        let (server, client) = (stop(&mut path.server), stop(&mut path.client));
        within(std::future::poll_fn(|cx| match sender.poll_ready(cx) {
            // GOAWAY came: no new stream.
            std::task::Poll::Ready(Err(_)) => std::task::Poll::Ready(()),
            _ => {
                cx.waker().wake_by_ref();
                std::task::Poll::Pending
            }
        }))
        .await;
        release.send(true).unwrap();
        // All at once: they share the connection's window.
        futures::future::join_all(responses.into_iter().map(async |response| {
            let mut body = within(response).await.unwrap().into_body();
            let mut size = 0;
            while let Some(data) = within(body.data()).await {
                let data = data.unwrap();
                size += data.len();
                body.flow_control().release_capacity(data.len()).unwrap();
            }
            assert_eq!(size, SIZE);
        }))
        .await;
        drop(sender);
        within(connection).await.unwrap().unwrap();
        has_ended(&mut path.server, server).await;
        has_ended(&mut path.client, client).await;
    }
}

#[tokio::test]
async fn streams_are_waited_for() {
    for mode in Mode::ALL {
        let mut path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.expect("\x01one").await;
                client.send("two").await;
                client.expect("three").await;
                client.send("four").await;
                drop(client.rest().await);
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("\x01one").await;
        io.expect("two").await;
        let (server, client) = (stop(&mut path.server), stop(&mut path.client));
        for pod in [&path.server, &path.client] {
            pod.until_metric("tcp_open_connections", &[("peer", "src")], 1.0).await;
        }
        assert!(!server.is_finished() && !client.is_finished());
        io.send("three").await;
        io.expect("four").await;
        drop(io);
        has_ended(&mut path.server, server).await;
        has_ended(&mut path.client, client).await;
    }
}

#[tokio::test]
async fn outbound_serves_the_application_until_its_connections_are_gone() {
    let mut path = Path::new(Mode::Tls).await;
    let app = path.serve(answers).await;
    let mut io = path.client.connect(app).await;
    io.send(GET).await;
    io.expect(OK).await;
    let stopped = stop(&mut path.client);
    // As long as one is open, even an idle one, new ones are served; each is told not to expect another response.
    within(async {
        loop {
            let mut other = path.client.connect(app).await;
            other.send(GET).await;
            let head = other.head().await;
            other.expect("ok").await;
            if head.contains("connection: close\r\n") {
                return assert!(other.rest().await.unwrap().is_empty());
            }
        }
    })
    .await;
    io.send(GET).await;
    assert!(io.head().await.contains("connection: close\r\n"));
    io.expect("ok").await;
    assert!(io.rest().await.unwrap().is_empty());
    drop(io);
    has_ended(&mut path.client, stopped).await;
}

#[tokio::test]
async fn for_a_grace_new_connections_are_accepted_as_before_and_each_answer_is_the_last_of_its_own() {
    let world = World::new().await;
    let mut pod =
        Pod::with(&world, 2, |config| config.timeouts.drain_grace = Duration::from_secs(3600)).await;
    let app = serve(&pod, answers).await;
    let client = Pod::plain(&world, 3);
    let mut kept = client.connect(app).await;
    kept.send(GET).await;
    kept.expect(OK).await;
    let _stopped = stop(&mut pod);
    // How long the signal takes is nobody's promise; until then answers are as before.
    loop {
        let mut new = client.connect(app).await;
        new.send(GET).await;
        if new.head().await.contains("connection: close\r\n") {
            new.expect("ok").await;
            break assert!(new.rest().await.unwrap().is_empty());
        }
        new.expect("ok").await;
    }
    // What is idle stays until it is used.
    kept.send(GET).await;
    assert!(kept.head().await.contains("connection: close\r\n"));
    kept.expect("ok").await;
    assert!(kept.rest().await.unwrap().is_empty());
}

#[tokio::test]
async fn what_is_still_open_at_the_deadline_is_cut_off() {
    let world = World::new().await;
    let mut pod =
        Pod::with(&world, 2, |config| config.timeouts.drain_deadline = Duration::from_millis(100)).await;
    let app = serve(&pod, |mut client| async move {
        client.expect("\x01").await;
        client.send("\x02").await;
        drop(client.rest().await);
    })
    .await;
    let mut io = Pod::plain(&world, 3).connect(app).await;
    io.send("\x01").await;
    io.expect("\x02").await;
    let stopped = stop(&mut pod);
    has_ended(&mut pod, stopped).await;
    drop(io.rest().await);
}
