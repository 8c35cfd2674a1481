//! Bytes that are no HTTP.

use std::time::Duration;

use crate::support::{
    Pod,
    app::nobody,
    path::{Mode, Path},
    within,
};

#[tokio::test]
async fn bytes_pass_both_ways_and_ends_pass_too() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.expect("\x01hello").await;
                client.send("\x02answer").await;
                assert_eq!(client.rest().await.unwrap(), b"more");
                client.send("after the end of the other direction").await;
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("\x01hello").await;
        io.expect("\x02answer").await;
        io.send("more").await;
        io.finish().await;
        assert_eq!(io.rest().await.unwrap(), b"after the end of the other direction");
        path.assert_wires(app);
        let expected = if mode == Mode::Tls { "true" } else { "disabled" };
        path.server
            .until_metric(
                "tcp_close_total",
                &[("direction", "inbound"), ("peer", "src"), ("tls", expected)],
                1.0,
            )
            .await;
        path.client
            .until_metric(
                "tcp_close_total",
                &[("direction", "outbound"), ("peer", "dst"), ("tls", expected)],
                1.0,
            )
            .await;
    }
}

#[tokio::test]
async fn a_server_that_speaks_first_is_heard_without_configuration_and_encrypted() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.send("220 greetings\r\n").await;
                client.expect("EHLO\r\n").await;
                client.send("250 ok\r\n").await;
                drop(client.rest().await);
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.expect("220 greetings\r\n").await;
        io.send("EHLO\r\n").await;
        io.expect("250 ok\r\n").await;
        path.assert_wires(app);
        assert_eq!(path.world.wires(app).iter().any(|wire| wire.shows("greetings")), mode == Mode::Plain);
    }
}

#[tokio::test]
async fn a_reset_of_either_end_reaches_the_other() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                client.expect("\x01").await;
                client.send("\x02").await;
                client.expect("\x03").await;
                client.io.reset();
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("\x01").await;
        io.expect("\x02").await;
        io.send("\x03").await;
        io.is_reset().await;

        let (told, hears) = tokio::sync::oneshot::channel();
        let told = std::sync::Mutex::new(Some(told));
        let app = path
            .serve(move |mut client| {
                let told = told.lock().unwrap().take().unwrap();
                async move {
                    client.expect("\x01").await;
                    client.send("\x02").await;
                    client.is_reset().await;
                    told.send(()).unwrap();
                }
            })
            .await;
        let mut io = path.client.connect(app).await;
        io.send("\x01").await;
        io.expect("\x02").await;
        io.io.reset();
        within(hears).await.unwrap();
    }
}

#[tokio::test]
async fn a_port_without_a_listener_is_reset_for_talkers_and_for_the_silent() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = nobody(&path.server).await;
        path.tell(app);
        let mut talker = path.client.connect(app).await;
        talker.send("\x01").await;
        talker.is_reset().await;
        let mut silent = path.client.connect(app).await;
        silent.is_reset().await;
    }
}

#[tokio::test]
async fn much_data_passes_both_ways_at_once() {
    const SIZE: usize = 4 << 20;
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|client| async move {
                let (mut read, mut write) = tokio::io::split(client.io);
                tokio::io::copy(&mut read, &mut write).await.unwrap();
                tokio::io::AsyncWriteExt::shutdown(&mut write).await.unwrap();
            })
            .await;
        let sent: Vec<u8> = (0..SIZE).map(|at| (at * 31) as u8).collect();
        let (mut read, mut write) = tokio::io::split(path.client.connect(app).await.io);
        let echo = async {
            let mut received = Vec::new();
            tokio::io::AsyncReadExt::read_to_end(&mut read, &mut received).await.unwrap();
            received
        };
        let send = async {
            tokio::io::AsyncWriteExt::write_all(&mut write, &sent).await.unwrap();
            tokio::io::AsyncWriteExt::shutdown(&mut write).await.unwrap();
        };
        let (received, ()) = within(async { tokio::join!(echo, send) }).await;
        assert!(received == sent);
    }
}

#[tokio::test]
async fn a_silent_client_of_a_silent_server_stays_connected() {
    let path = Path::new(Mode::Tls).await;
    let app = path
        .serve(|mut client| async move {
            client.expect("late").await;
            client.send("ok").await;
            drop(client.rest().await);
        })
        .await;
    let mut io = path.client.connect(app).await;
    assert!(io.is_silent(Duration::from_millis(200)).await);
    io.send("late").await;
    io.expect("ok").await;
}

#[tokio::test]
async fn http_after_a_silence_is_still_http() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                while client.next_head().await.is_some() {
                    client.send("HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok").await;
                }
            })
            .await;
        let mut io = path.client.connect(app).await;
        assert!(io.is_silent(Duration::from_millis(150)).await);
        io.send("GET / HTTP/1.1\r\nHost: web\r\n\r\n").await;
        io.head().await;
        io.expect("ok").await;
        path.client.until_metric("response_total", &[("direction", "outbound")], 1.0).await;
        path.server.until_metric("response_total", &[("direction", "inbound")], 1.0).await;
        assert_eq!(path.world.wires(app).len(), 1, "the connection dialled ahead is used");
    }
}

#[tokio::test]
async fn a_connection_to_the_proxy_itself_is_refused_and_not_looped() {
    let path = Path::new(Mode::Plain).await;
    let stranger = Pod::plain(&path.world, 3);
    let bound = path.client.proxy().bound;
    for listener in [bound.inbound, bound.outbound] {
        let mut io = stranger.connect(listener).await;
        io.is_reset().await;
    }
}

#[tokio::test]
async fn a_client_that_ends_without_a_word_hears_the_server_out() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path
            .serve(|mut client| async move {
                assert!(client.rest().await.unwrap().is_empty());
                client.send("220 greetings, and ").await;
                client.send("goodbye\r\n").await;
            })
            .await;
        let stranger = Pod::plain(&path.world, 3);
        // Before the server is dialled, and after.
        for pause in [Duration::ZERO, Duration::from_millis(60)] {
            for pod in [&path.client, &stranger] {
                let mut io = pod.connect(app).await;
                assert!(pause.is_zero() || io.is_silent(pause).await);
                io.finish().await;
                assert_eq!(io.rest().await.unwrap(), b"220 greetings, and goodbye\r\n", "{mode:?} {pause:?}");
            }
        }
        path.assert_wires(app);
    }
}

#[tokio::test]
async fn a_client_that_ends_without_a_word_ends_with_a_server_that_has_none() {
    for mode in Mode::ALL {
        let path = Path::new(mode).await;
        let app = path.serve(|mut client| async move { drop(client.rest().await) }).await;
        let mut io = path.client.connect(app).await;
        io.finish().await;
        assert!(io.rest().await.unwrap().is_empty());
        for pod in [&path.client, &path.server] {
            pod.until_metric("tcp_open_connections", &[], 0.0).await;
        }
    }
}
