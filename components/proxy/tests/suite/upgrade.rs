//! Connections that stop being HTTP.

use crate::support::path::{Mode, Path};

#[tokio::test]
async fn an_upgraded_connection_carries_bytes_both_ways_and_ends() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                let head = client.head().await;
                assert!(head.contains("Upgrade: chatproto\r\n") && head.contains("Connection: Upgrade\r\n"), "{head}");
                // The first bytes of the other protocol come in the same packet.
                client.send("HTTP/1.1 101 Switching Protocols\r\nUpgrade: chatproto\r\nConnection: Upgrade\r\n\r\n[welcome]").await;
                client.expect("[hello]").await;
                client.send("[answer]").await;
                assert_eq!(client.rest().await.unwrap(), b"[bye]");
                client.send("[closing]").await;
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("GET /chat HTTP/1.1\r\nHost: web\r\nUpgrade: chatproto\r\nConnection: Upgrade\r\n\r\n").await;
        let head = io.head().await;
        assert!(head.starts_with("HTTP/1.1 101 Switching Protocols\r\n"), "{head}");
        assert!(
            head.contains("Upgrade: chatproto\r\n") && head.contains("Connection: Upgrade\r\n"),
            "{head}"
        );
        io.expect("[welcome]").await;
        io.send("[hello]").await;
        io.expect("[answer]").await;
        io.send("[bye]").await;
        io.finish().await;
        assert_eq!(io.rest().await.unwrap(), b"[closing]");
        path.assert_wires(app);
        assert_eq!(path.world.wires(app)[0].shows("answer"), mode == Mode::Plain);
    }
}

#[tokio::test]
async fn an_upgrade_that_is_refused_leaves_http() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                while client.next_head().await.is_some() {
                    client.send("HTTP/1.1 400 Bad Request\r\nContent-Length: 2\r\n\r\nno").await;
                }
            })
            .await;
        let mut io = path.client.connect(app).await;
        for _ in 0..2 {
            io.send("GET /chat HTTP/1.1\r\nHost: web\r\nUpgrade: chatproto\r\nConnection: Upgrade\r\n\r\n")
                .await;
            assert!(io.head().await.starts_with("HTTP/1.1 400 "));
            io.expect("no").await;
        }
    }
}

#[tokio::test]
async fn an_upgrade_to_h2c_is_not_offered_to_the_server() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                let head = client.head().await.to_ascii_lowercase();
                assert!(!head.contains("upgrade") && !head.contains("http2-settings"), "{head}");
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                drop(client.rest().await);
            })
            .await;
        let mut io = path.client.connect(app).await;
        let offer =
            "Upgrade: h2c\r\nConnection: Upgrade, HTTP2-Settings\r\nHTTP2-Settings: AAMAAABkAAQAAP__\r\n";
        io.send(format!("GET / HTTP/1.1\r\nHost: web\r\n{offer}\r\n")).await;
        assert!(io.head().await.starts_with("HTTP/1.1 200 OK"));
    }
}

#[tokio::test]
async fn connect_makes_a_tunnel() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                assert_eq!(client.head().await, "CONNECT transparency.test:5432 HTTP/1.1\r\n\r\n");
                client.send("HTTP/1.1 200 OK\r\n\r\n").await;
                client.expect("\x01\x02\x03").await;
                client.send("\x04\x05").await;
                drop(client.rest().await);
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("CONNECT transparency.test:5432 HTTP/1.1\r\n\r\n").await;
        assert_eq!(io.head().await, "HTTP/1.1 200 OK\r\n\r\n");
        io.send("\x01\x02\x03").await;
        io.expect("\x04\x05").await;
        path.assert_wires(app);
    }
}

#[tokio::test]
async fn later_requests_for_senseless_targets_are_bad_requests() {
    for bad in [
        "CONNECT / HTTP/1.1\r\n\r\n",
        "CONNECT http://transparency.test/ HTTP/1.1\r\n\r\n",
        "CONNECT transparency.test:80 HTTP/1.0\r\n\r\n",
        "GET transparency.test:80 HTTP/1.1\r\nHost: web\r\n\r\n",
    ] {
        let path = Path::new(Mode::Tls).await;
        let app = path
            .serve(|mut client| async move {
                assert_eq!(client.head().await, "GET / HTTP/1.1\r\nHost: web\r\n\r\n");
                client.send("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n").await;
                assert!(client.rest().await.unwrap().is_empty(), "nothing senseless arrives");
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        io.head().await;
        io.send(bad).await;
        let answer = io.head().await;
        assert!(
            answer.starts_with("HTTP/1.1 400 ") || answer.starts_with("HTTP/1.0 400 "),
            "{bad}: {answer}"
        );
    }
}
