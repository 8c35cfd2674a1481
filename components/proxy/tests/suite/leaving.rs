//! HTTP/1 clients that end or break their connection while a request is under way: the server hears what it would hear
//! without a proxy, and decides.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::support::{
    Client, Pod,
    path::{Mode, Path},
    within,
};

const GET: &str = "GET / HTTP/1.1\r\nHost: web\r\n\r\n";
const POST: &str = "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\n\r\nbody";
const CHUNKED: &str =
    "POST / HTTP/1.1\r\nHost: web\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nbody\r\n0\r\n\r\n";
const OK: &str = "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok";

#[tokio::test]
async fn an_end_behind_the_request_reaches_the_server_and_its_response_the_client() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                // It answers only when it has heard the end.
                client.head().await;
                let body = client.rest().await.unwrap();
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n", body.len())).await;
                client.send(body).await;
            })
            .await;
        let stranger = Pod::plain(&path.world, 3);
        for pod in [&path.client, &stranger] {
            for request in [GET, "GET / HTTP/1.0\r\nHost: web\r\n\r\n", POST, CHUNKED] {
                let mut io = pod.connect(app).await;
                io.send(request).await;
                io.finish().await;
                io.head().await;
                let (_, body) = request.split_once("\r\n\r\n").unwrap();
                assert_eq!(io.rest().await.unwrap(), body.as_bytes(), "{mode:?}");
            }
        }
        path.assert_wires(app);
    }
}

#[tokio::test]
async fn a_client_that_leaves_a_hanging_request_is_gone_at_the_server_at_once() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let (told, mut hears) = mpsc::unbounded_channel();
        let app = path
            .serve(move |mut client| {
                let told = told.clone();
                async move {
                    let head = client.head().await;
                    told.send("asked").unwrap();
                    if head.starts_with("GET /half ") {
                        client.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                    }
                    told.send(match client.rest().await {
                        Ok(_) => "ended",
                        Err(_) => "broken",
                    })
                    .unwrap();
                }
            })
            .await;
        let stranger = Pod::plain(&path.world, 3);
        for (pod, ask) in
            [(&path.client, "/"), (&stranger, "/"), (&path.client, "/half"), (&stranger, "/half")]
        {
            for breaks in [false, true] {
                let mut io = pod.connect(app).await;
                io.send(format!("GET {ask} HTTP/1.1\r\nHost: web\r\n\r\n")).await;
                assert_eq!(within(hears.recv()).await, Some("asked"));
                if ask == "/half" {
                    io.head().await;
                    io.expect("half").await;
                }
                match breaks {
                    true => io.io.reset(),
                    false => drop(io),
                }
                let expected = if breaks { "broken" } else { "ended" };
                assert_eq!(within(hears.recv()).await, Some(expected), "{mode:?} {ask}");
            }
        }
        for pod in [&path.client, &path.server] {
            pod.until_metric("tcp_open_connections", &[], 0.0).await;
        }
    }
}

#[tokio::test]
async fn a_client_that_leaves_in_the_middle_of_its_body_is_gone_at_the_server() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let (told, mut hears) = mpsc::unbounded_channel();
        let app = path
            .serve(move |mut client| {
                let told = told.clone();
                async move {
                    client.head().await;
                    client.expect("half").await;
                    told.send(()).unwrap();
                    drop(client.rest().await);
                    told.send(()).unwrap();
                }
            })
            .await;
        for breaks in [false, true] {
            let mut io = path.client.connect(app).await;
            io.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 10\r\n\r\nhalf").await;
            within(hears.recv()).await.unwrap();
            match breaks {
                true => io.io.reset(),
                false => io.finish().await,
            }
            within(hears.recv()).await.unwrap();
        }
    }
}

#[tokio::test]
async fn a_slow_reader_that_ended_gets_all_of_a_long_response() {
    const SIZE: usize = 8 << 20;
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.head().await;
                client.receive(SIZE).await;
                assert!(client.rest().await.unwrap().is_empty());
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
                client.send(vec![b'x'; SIZE]).await;
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send(format!("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: {SIZE}\r\n\r\n")).await;
        io.send(vec![b'y'; SIZE]).await;
        io.finish().await;
        io.head().await;
        for _ in 0..SIZE / 1024 {
            io.receive(1024).await;
            tokio::task::yield_now().await;
        }
        assert!(io.rest().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn a_connection_whose_client_ended_is_not_used_again() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path.serve(answering).await;
        for _ in 0..3 {
            let mut io = path.client.connect(app).await;
            io.send(GET).await;
            io.finish().await;
            assert_eq!(io.rest().await.unwrap(), OK.as_bytes());
        }
        assert_eq!(path.world.wires(app).len(), 3);
    }
}

#[tokio::test]
async fn an_end_behind_several_requests_waits_for_the_last() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path.serve(answering).await;
        let mut io = path.client.connect(app).await;
        io.send(GET.repeat(10)).await;
        io.finish().await;
        assert_eq!(io.rest().await.unwrap(), OK.repeat(10).as_bytes());
        assert_eq!(path.world.wires(app).len(), 1);
    }
}

#[tokio::test]
async fn a_response_that_overtakes_its_request_leaves_nothing_hanging() {
    let path = Path::new(Mode::Tls).await;
    let asked = Arc::new(Mutex::new(0));
    let app = {
        let asked = asked.clone();
        path.serve(move |mut client| {
            *asked.lock() += 1;
            async move {
                client.head().await;
                client.send("HTTP/1.1 413 Too Large\r\nConnection: close\r\nContent-Length: 0\r\n\r\n").await;
                client.finish().await;
                drop(client.rest().await);
            }
        })
        .await
    };
    for _ in 0..3 {
        let mut io = path.client.connect(app).await;
        io.send("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 1000000\r\n\r\nbeginning").await;
        assert!(io.head().await.starts_with("HTTP/1.1 413 "));
        drop(io);
    }
    for pod in [&path.client, &path.server] {
        pod.until_metric("tcp_open_connections", &[], 0.0).await;
    }
    assert_eq!(*asked.lock(), 3);
}

/// Answers each request.
async fn answering(mut client: Client) {
    while client.next_head().await.is_some() {
        client.send(OK).await;
    }
}
