//! HTTP/1 arrives as it was sent, through two proxies, encrypted or not.

use std::sync::Arc;

use parking_lot::Mutex;

use crate::support::{
    Client, Pod,
    app::nobody,
    identity,
    path::{Mode, Path},
    serve,
};

/// Sends `request` to an application that answers with `response`, and returns what each of them received.
async fn exchange(path: &Path, request: &str, response: &'static str) -> (String, String) {
    let seen = Arc::new(Mutex::new(String::new()));
    let app = {
        let seen = seen.clone();
        path.serve(move |mut client| {
            let seen = seen.clone();
            async move {
                let head = client.head().await;
                let body = body_of(&head, &mut client).await;
                *seen.lock() = format!("{head}{body}");
                client.send(response).await;
                if !response.contains("ontent-") || response.starts_with("HTTP/1.0") {
                    client.finish().await;
                }
                drop(client.rest().await);
            }
        })
        .await
    };
    let mut io = path.client.connect(app).await;
    io.send(request).await;
    io.finish().await;
    let answer = io.rest().await.unwrap();
    path.assert_wires(app);
    let seen = seen.lock().clone();
    (seen, String::from_utf8(answer).unwrap())
}

async fn body_of(head: &str, client: &mut Client) -> String {
    let length = head
        .lines()
        .find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
    String::from_utf8(client.receive(length.unwrap_or(0)).await).unwrap()
}

#[tokio::test]
async fn requests_and_responses_arrive_unchanged() {
    let cases = [
        // Host, case and order of fields, absolute form, a host that differs from it.
        (
            "GET /a?b=%20c HTTP/1.1\r\nHost: Web:80\r\nX-CaSe: Kept\r\nx-case: twice\r\nAccept: */*\r\n\r\n",
            OK,
        ),
        ("GET http://foo.bar:81/x HTTP/1.1\r\nHost: bar.foo\r\n\r\n", OK),
        ("OPTIONS * HTTP/1.1\r\nHost: web\r\n\r\n", OK),
        ("GET / HTTP/1.0\r\nHost: web\r\n\r\n", "HTTP/1.0 200 OK\r\nX-Y: z\r\n\r\nto the end of the stream"),
        ("GET / HTTP/1.0\r\n\r\n", "HTTP/1.0 200 OK\r\n\r\n"),
        // Bodies of either framing, and a length of nothing.
        ("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n\r\nabc", OK),
        (
            "POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 0\r\n\r\n",
            "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
        ),
        ("GET / HTTP/1.1\r\nHost: web\r\n\r\n", CHUNKED),
        // Responses without a body, some of which say how long it would be.
        ("HEAD / HTTP/1.1\r\nHost: web\r\n\r\n", "HTTP/1.1 200 OK\r\nContent-Length: 55\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: web\r\n\r\n", "HTTP/1.1 304 Not Modified\r\nContent-Length: 55\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: web\r\n\r\n", "HTTP/1.1 204 No Content\r\nX-Content-: none\r\n\r\n"),
        ("GET / HTTP/1.1\r\nHost: web\r\n\r\n", "HTTP/1.1 418 Short And Stout\r\nContent-Length: 1\r\n\r\nt"),
    ];
    for mode in Mode::ALL {
        for (request, response) in cases {
            let path = Path::new(mode).await;
            let (seen, answer) = exchange(&path, request, response).await;
            assert_eq!(seen, request, "{mode:?}");
            assert_eq!(answer, response, "{mode:?}: {request}");
        }
    }
}

const OK: &str = "HTTP/1.1 200 OK\r\nX-CaSe: Kept\r\nContent-Length: 2\r\n\r\nok";
const CHUNKED: &str =
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nX-Content-: x\r\n\r\n3\r\nabc\r\n0\r\n\r\n";

#[tokio::test]
async fn no_method_gains_a_framing_field() {
    let path = Path::new(Mode::Tls).await;
    for method in ["GET", "POST", "PUT", "DELETE", "PATCH"] {
        let request = format!("{method} / HTTP/1.1\r\nHost: web\r\n\r\n");
        let (seen, answer) = exchange(&path, &request, OK).await;
        assert_eq!(seen, request);
        assert_eq!(answer, OK);
    }
}

#[tokio::test]
async fn what_the_connection_field_names_stays_behind_on_both_ways() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let (seen, answer) = exchange(
            &path,
            "GET / HTTP/1.1\r\nHost: web\r\nConnection: X-Foo\r\nX-Foo: 1\r\nX-Bar: 2\r\n\r\n",
            "HTTP/1.1 200 OK\r\nConnection: X-Baz\r\nX-Baz: 1\r\nContent-Length: 0\r\n\r\n",
        )
        .await;
        assert_eq!(seen, "GET / HTTP/1.1\r\nHost: web\r\nX-Bar: 2\r\n\r\n");
        assert_eq!(answer, "HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n");
    }
}

#[tokio::test]
async fn of_a_length_and_a_coding_the_coding_counts_and_passes_on() {
    const CODED: &str = "Transfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n";
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                let head = client.head().await.to_ascii_lowercase();
                assert!(!head.contains("content-length"), "{head}");
                client.expect("3\r\nabc\r\n0\r\n\r\n").await;
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: 3\r\n{CODED}")).await;
                drop(client.rest().await);
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send(format!("POST / HTTP/1.1\r\nHost: web\r\nContent-Length: 3\r\n{CODED}")).await;
        let head = io.head().await.to_ascii_lowercase();
        assert!(head.contains("transfer-encoding: chunked") && !head.contains("content-length"), "{head}");
        io.expect("3\r\nabc\r\n0\r\n\r\n").await;
    }
}

#[tokio::test]
async fn trailers_arrive_when_the_client_takes_them() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let response = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\nX-Content-: x\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
        let (_, answer) =
            exchange(&path, "GET / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\n\r\n", response).await;
        assert_eq!(answer.to_ascii_lowercase(), response.to_ascii_lowercase());
    }
}

#[tokio::test]
async fn a_connection_serves_the_next_request_after_trailers() {
    const RESPONSE: &str = "HTTP/1.1 200 OK\r\nTrailer: X-Sum\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\nX-Sum: 7\r\n\r\n";
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                while client.next_head().await.is_some() {
                    client.send(RESPONSE).await;
                }
            })
            .await;
        let mut io = path.client.connect(app).await;
        for _ in 0..3 {
            io.send("GET / HTTP/1.1\r\nHost: web\r\nTE: trailers\r\n\r\n").await;
            io.head().await;
            assert!(io.receive(23).await.ends_with(b": 7\r\n\r\n"));
        }
        assert_eq!(path.world.wires(app).len(), 1, "{mode:?}");
    }
}

#[tokio::test]
async fn a_client_that_expects_100_continue_gets_it_and_its_body_arrives() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                assert!(client.head().await.contains("Expect: 100-continue\r\n"));
                client.send("HTTP/1.1 100 Continue\r\n\r\n").await;
                client.expect("body").await;
                client.send(OK).await;
                drop(client.rest().await);
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n").await;
        assert_eq!(io.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
        io.send("body").await;
        io.expect(OK).await;
    }
}

const EXPECTS: &str = "PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n";

#[tokio::test]
async fn nobody_but_the_server_asks_for_a_body_that_waits_for_it() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let (ask, may_ask) = tokio::sync::watch::channel(false);
        let app = path
            .serve(move |mut client| {
                let mut may_ask = may_ask.clone();
                async move {
                    client.head().await;
                    drop(may_ask.wait_for(|may| *may).await);
                    client.send("HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n").await;
                    client.expect("body").await;
                    client.send(OK).await;
                    drop(client.rest().await);
                }
            })
            .await;
        for pod in [&path.client, &Pod::plain(&path.world, 3)] {
            ask.send(false).unwrap();
            let mut io = pod.connect(app).await;
            io.send(EXPECTS).await;
            assert!(io.is_silent(std::time::Duration::from_millis(200)).await, "{mode:?}: told by a proxy");
            ask.send(true).unwrap();
            assert_eq!(io.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
            io.send("body").await;
            io.expect(OK).await;
        }
    }
}

#[tokio::test]
async fn an_answer_without_the_body_arrives_alone_and_ends_the_connections() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                let head = client.head().await;
                let status = head.split(['/', ' ']).nth(2).unwrap();
                client.send(format!("HTTP/1.1 {status} No\r\nContent-Length: 2\r\n\r\nno")).await;
                // Some servers leave at once.
                if status != "413" {
                    assert!(client.rest().await.unwrap().is_empty(), "no body was sent");
                }
            })
            .await;
        for pod in [&path.client, &Pod::plain(&path.world, 3)] {
            for status in ["417", "401", "413"] {
                let mut io = pod.connect(app).await;
                io.send(EXPECTS.replace("PUT /", &format!("PUT /{status}"))).await;
                let answer = String::from_utf8(io.rest().await.unwrap()).unwrap();
                let expected = format!("HTTP/1.1 {status} No\r\n");
                assert!(
                    answer.starts_with(&expected) && answer.ends_with("\r\n\r\nno"),
                    "{mode:?}: {answer}"
                );
            }
        }
        for pod in [&path.client, &path.server] {
            pod.until_metric("tcp_open_connections", &[], 0.0).await;
        }
    }
}

#[tokio::test]
async fn a_body_is_asked_for_when_the_server_only_waits_for_it() {
    let path = Path::new(Mode::Tls).await;
    let app = path
        .serve(|mut client| async move {
            client.head().await;
            client.expect("body").await;
            client.send(OK).await;
            drop(client.rest().await);
        })
        .await;
    let mut io = path.client.connect(app).await;
    io.send(EXPECTS).await;
    assert_eq!(io.head().await, "HTTP/1.1 100 Continue\r\n\r\n");
    io.send("body").await;
    io.expect(OK).await;
}

#[tokio::test]
async fn a_thousand_headers_and_a_mebibyte_of_them_arrive() {
    let path = Path::new(Mode::Tls).await;
    let fields: String = (0..1_000).map(|n| format!("X-{n}: {}\r\n", "v".repeat(1_060))).collect();
    assert!(fields.len() > 1 << 20);
    let request = format!("GET / HTTP/1.1\r\nHost: web\r\n{fields}\r\n");
    let (seen, answer) = exchange(&path, &request, OK).await;
    assert_eq!(seen.len(), request.len());
    assert_eq!(answer, OK);
}

#[tokio::test]
async fn a_first_request_that_is_no_http_reaches_the_application_as_it_is() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let odd = "GET /a b HTTP/1.1\r\n\r\n";
        let app = path
            .serve(move |mut client| async move {
                client.expect(odd).await;
                client.send("the application's own error").await;
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send(odd).await;
        assert_eq!(io.rest().await.unwrap(), b"the application's own error");
    }
}

#[tokio::test]
async fn a_later_malformed_request_gets_the_prescribed_error_and_is_counted() {
    let path = Path::new(Mode::Tls).await;
    let app = path
        .serve(|mut client| async move {
            while client.next_head().await.is_some() {
                client.send(OK).await;
            }
        })
        .await;
    let mut io = path.client.connect(app).await;
    io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
    io.expect(OK).await;
    io.send("GET / HTTP/1.1\r\nno colon\r\n\r\n").await;
    assert!(io.head().await.starts_with("HTTP/1.1 400 "));
    path.client.until_metric("malformed_input_total", &[("source", "http")], 1.0).await;
}

#[tokio::test]
async fn a_connection_to_a_port_without_a_listener_is_reset() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = nobody(&path.server).await;
        path.tell(app);
        let mut io = path.client.connect(app).await;
        io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        io.is_reset().await;
    }
}

#[tokio::test]
async fn a_response_that_breaks_off_does_not_look_whole() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.head().await;
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhalf").await;
                client.io.reset();
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("GET / HTTP/1.0\r\nHost: web\r\n\r\n").await;
        io.is_reset().await;
    }
}

#[tokio::test]
async fn an_application_that_closes_an_idle_connection_closes_the_clients_to_its_proxy() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = serve(&path.server, |mut client| async move {
            client.head().await;
            client.send(OK).await;
        })
        .await;
        // A client without a proxy of its own, so that its connection is the one that is tied.
        let stranger = Pod::plain(&path.world, 3);
        let mut io = stranger.connect(app).await;
        io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        io.head().await;
        io.expect("ok").await;
        assert!(io.rest().await.unwrap().is_empty());
    }
}

#[tokio::test]
async fn keep_alive_uses_one_connection_per_host_and_a_new_one_without_a_host() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let connections = Arc::new(Mutex::new(Vec::new()));
        let app = {
            let connections = connections.clone();
            path.serve(move |mut client| {
                let connections = connections.clone();
                async move {
                    let number = connections.lock().len();
                    connections.lock().push(0);
                    while client.next_head().await.is_some() {
                        connections.lock()[number] += 1;
                        client.send(OK).await;
                    }
                }
            })
            .await
        };
        let mut io = path.client.connect(app).await;
        for host in ["Host: a\r\n", "Host: a\r\n", "Host: b\r\n", "Host: a\r\n", "", ""] {
            io.send(format!("GET / HTTP/1.1\r\n{host}\r\n")).await;
            io.expect(OK).await;
        }
        assert_eq!(*connections.lock(), [3, 1, 1, 1], "{mode:?}");
    }
}

#[tokio::test]
async fn bodies_stream_with_backpressure_and_whole() {
    const SIZE: usize = 8 << 20;
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.head().await;
                let body = client.receive(SIZE).await;
                assert!(body.iter().enumerate().all(|(at, byte)| *byte == at as u8));
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {SIZE}\r\n\r\n")).await;
                client.send(&body).await;
                drop(client.rest().await);
            })
            .await;
        let body: Vec<u8> = (0..SIZE).map(|at| at as u8).collect();
        let mut io = path.client.connect(app).await;
        io.send(format!("PUT / HTTP/1.1\r\nHost: web\r\nContent-Length: {SIZE}\r\n\r\n")).await;
        io.send(&body).await;
        io.head().await;
        assert!(io.receive(SIZE).await == body);
    }
}

#[tokio::test]
async fn pipelined_requests_are_answered_in_order() {
    let path = Path::new(Mode::Tls).await;
    let app = path
        .serve(|mut client| async move {
            while let Some(head) = client.next_head().await {
                let name = head.split(' ').nth(1).unwrap().to_owned();
                client.send(format!("HTTP/1.1 200 OK\r\nContent-Length: {}\r\n\r\n{name}", name.len())).await;
            }
        })
        .await;
    let mut io = path.client.connect(app).await;
    let requests: String = (0..20).map(|n| format!("GET /{n:02} HTTP/1.1\r\nHost: web\r\n\r\n")).collect();
    io.send(requests).await;
    for n in 0..20 {
        io.head().await;
        io.expect(format!("/{n:02}")).await;
    }
}

#[tokio::test]
async fn a_request_is_not_lost_when_the_server_closes_between_two() {
    let path = Path::new(Mode::Tls).await;
    let app = path
        .serve(|mut client| async move {
            if client.next_head().await.is_some() {
                client.send("HTTP/1.1 200 OK\r\nConnection: close\r\nContent-Length: 2\r\n\r\nok").await;
            }
        })
        .await;
    let service = path.world.service("10.96.0.1:80", app);
    path.world.destination.tell(service, &[(app, Some(&identity("web")))]);
    let mut io = path.client.connect(service).await;
    for _ in 0..50 {
        io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        assert_eq!(io.head().await, "HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\n");
        io.expect("ok").await;
    }
}
