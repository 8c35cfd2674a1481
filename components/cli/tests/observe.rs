//! The commands that ask observe, as a user runs them: stdout, stderr and exit code against scripted answers.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::{
    net::{Ipv4Addr, SocketAddr},
    process::{Command, Output},
};

use bytes::Bytes;
use conduit_net::{Net, TokioNetwork};
use futures::{SinkExt, StreamExt};
use http::{Request, Response, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn, upgrade::Upgraded};
use hyper_util::rt::TokioIo;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio_tungstenite::{
    WebSocketStream,
    tungstenite::{Message, handshake::derive_accept_key, protocol::Role},
};

const ROWS: &str = r#"{"version":1,"window_ms":60000,"covered_ms":60000,"rows":[
    {"kind":"deployment","namespace":"emojivoto","name":"web","meshed":1,"running":2,"success":0.917,"rps":2.04,
     "latency_ms":{"p50":1.2,"p95":7.5,"p99":18.9},"tls":0.5}],
    "unscraped":[{"namespace":"emojivoto","pod":"web-2","reason":"no answer","since_ms":null}]}"#;
const NO_ROWS: &str = r#"{"version":1,"window_ms":60000,"covered_ms":60000,"rows":[]}"#;
const EVENT: &str = r#"{"id":"0:1","namespace":"emojivoto","pod":"web-1","direction":"inbound","source":"10.0.0.1:1",
    "source_labels":{},"destination":"10.0.0.2:80","destination_labels":{},"tls":"true","event":"response",
    "status":200,"latency_ns":1500000000}"#;
const LINE: &str =
    "rsp id=0:1 proxy=in  src=10.0.0.1:1 dst=10.0.0.2:80 tls=true :status=200 latency=1500000µs\n";

/// Answers every connection with `answer`, whatever is asked, and tells what was.
async fn serve(net: &Net, answer: String) -> (SocketAddr, tokio::sync::mpsc::UnboundedReceiver<String>) {
    let mut listener = net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let (addr, (told, asked)) = (listener.local_addr(), tokio::sync::mpsc::unbounded_channel());
    tokio::spawn(async move {
        loop {
            let mut io = listener.accept().await.unwrap().io;
            let mut head = vec![0; 4096];
            let n = io.read(&mut head).await.unwrap();
            let first = String::from_utf8_lossy(&head[..n]).lines().next().unwrap_or_default().to_owned();
            drop(told.send(first));
            drop(io.write_all(answer.as_bytes()).await);
            drop(io.shutdown().await);
        }
    });
    (addr, asked)
}

fn json(status: &str, body: &str) -> String {
    format!("HTTP/1.1 {status}\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

/// An answer of server-sent events; chunked, so that a stream that is cut short can be told from one that has ended.
fn events(body: &str, whole: bool) -> String {
    let body = body.replace("EVENT", &EVENT.replace('\n', ""));
    let end = if whole { "0\r\n\r\n" } else { "" };
    format!("HTTP/1.1 200 OK\r\ntransfer-encoding: chunked\r\n\r\n{:x}\r\n{body}\r\n{end}", body.len())
}

/// Runs the command line with nothing in its environment that would lead it elsewhere.
async fn conduit(arguments: Vec<String>) -> Output {
    let run = move || {
        let nowhere = tempfile::tempdir().unwrap();
        Command::new(env!("CARGO_BIN_EXE_conduit"))
            .args(arguments)
            .env_clear()
            .env("XDG_RUNTIME_DIR", nowhere.path())
            .env("HOME", nowhere.path())
            .output()
            .unwrap()
    };
    tokio::task::spawn_blocking(run).await.unwrap()
}

async fn at(addr: SocketAddr, line: &str) -> (Option<i32>, String, String) {
    let arguments = line.split(' ').map(str::to_owned).chain(["--api-addr".to_owned(), addr.to_string()]);
    told(conduit(arguments.collect()).await)
}

fn told(output: Output) -> (Option<i32>, String, String) {
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (output.status.code(), text(output.stdout), text(output.stderr))
}

#[tokio::test]
async fn stat_prints_rows_and_tells_what_they_lack() {
    let net = TokioNetwork::shared();
    let (addr, mut asked) = serve(&net, json("200 OK", ROWS)).await;
    let (code, stdout, stderr) = at(addr, "stat deploy -n emojivoto --from deploy/vote-bot").await;
    insta::assert_snapshot!(stdout, @r"
    NAME   MESHED   SUCCESS      RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99   TLS
    web       1/2    91.70%   2.0rps           1ms           8ms          19ms   50%
    ");
    assert_eq!(stderr, "warning: the numbers lack 1 pod(s): emojivoto/web-2: no answer\n");
    assert_eq!(code, Some(0));
    let expected =
        "GET /api/v1/stat?type=deploy&window=1m&namespace=emojivoto&from=deploy%2Fvote-bot HTTP/1.1";
    assert_eq!(asked.recv().await.unwrap(), expected);
}

#[tokio::test]
async fn stat_without_rows_says_so_and_is_no_failure() {
    let (addr, _) = serve(&TokioNetwork::shared(), json("200 OK", NO_ROWS)).await;
    let note = "no traffic found in the namespace default; -n names another, -A looks everywhere\n";
    assert_eq!(at(addr, "stat au").await, (Some(0), String::new(), note.to_owned()));
}

#[tokio::test]
async fn what_the_api_declines_is_told_in_its_words() {
    let problem = r#"{"status":404,"title":"not found","detail":"there is no deployment nope","parameter":"name",
        "value":"nope"}"#;
    let (addr, _) = serve(&TokioNetwork::shared(), json("404 Not Found", problem)).await;
    for line in ["stat deploy/nope", "tap deploy/nope"] {
        let expected = "error: there is no deployment nope\n".to_owned();
        assert_eq!(at(addr, line).await, (Some(1), String::new(), expected), "{line}");
    }
}

#[tokio::test]
async fn an_api_that_is_not_there_or_makes_no_sense_is_an_error() {
    let net = TokioNetwork::shared();
    let nobody = net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap().local_addr();
    let (stranger, _) = serve(&net, json("200 OK", "[]")).await;
    for (addr, reason) in [(nobody, "cannot reach"), (stranger, "not what this version of conduit expects")] {
        let (code, stdout, stderr) = at(addr, "get pods").await;
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert!(stderr.contains(reason), "{stderr}");
    }
}

#[tokio::test]
async fn without_any_control_plane_the_ways_to_name_one_are_told() {
    let (code, _, stderr) = told(conduit(vec!["stat".into(), "po".into()]).await);
    assert_eq!(code, Some(1));
    for way in ["KUBECONFIG", "--kubeconfig", "--api-addr", "conduit demo"] {
        assert!(stderr.contains(way), "{way} is not in {stderr}");
    }
}

#[tokio::test]
async fn tap_prints_events_and_warnings_until_there_are_enough() {
    let body = "data: EVENT\n\nevent: error\ndata: {\"namespace\":\"a\",\"pod\":\"b\",\"error\":\"c\"}\n\n: x\n\n\
                data: EVENT\n\ndata: EVENT\n\n";
    let (addr, mut asked) = serve(&TokioNetwork::shared(), events(body, false)).await;
    let (code, stdout, _) = at(addr, "tap ns/emojivoto -A --path /a b c").await;
    assert_eq!((code, stdout.as_str()), (Some(1), ""), "a third argument was taken");
    assert!(asked.try_recv().is_err());

    let (code, stdout, stderr) = at(addr, "tap ns/emojivoto -A --max-events 2").await;
    assert_eq!((code, stdout), (Some(0), LINE.repeat(2)));
    assert_eq!(stderr, "warning: a/b is not tapped: c\n");
}

#[tokio::test]
async fn a_tap_that_is_lost_is_a_failure_however_it_is_lost() {
    let net = TokioNetwork::shared();
    let cases = [
        (events("data: EVENT\n\n", false), "broke off"),
        (events("data: EVENT\n\n", true), "without a reason"),
        (
            events("data: EVENT\n\nevent: end\ndata: {\"reason\":\"shutting down\"}\n\n", true),
            "shutting down",
        ),
        (events("data: EVENT\n\ndata: nonsense\n\n", true), "cannot read"),
    ];
    for (answer, reason) in cases {
        let (addr, _) = serve(&net, answer).await;
        let (code, stdout, stderr) = at(addr, "tap po").await;
        assert_eq!((code, stdout.as_str()), (Some(1), LINE), "{reason}");
        assert!(stderr.starts_with("error: ") && stderr.contains(reason), "{stderr}");
    }
}

/// An API server with one observe pod, whose port it forwards to `observe`.
async fn api_server(net: &Net, observe: SocketAddr) -> SocketAddr {
    let mut listener = net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
    let (addr, net) = (listener.local_addr(), net.clone());
    tokio::spawn(async move {
        loop {
            let io = TokioIo::new(listener.accept().await.unwrap().io);
            let net = net.clone();
            let service = service_fn(move |request| {
                let answer = answer(net.clone(), observe, request);
                async move { Ok::<_, std::convert::Infallible>(answer) }
            });
            let connection = hyper::server::conn::http1::Builder::new().serve_connection(io, service);
            tokio::spawn(connection.with_upgrades());
        }
    });
    addr
}

fn answer(net: Net, observe: SocketAddr, mut request: Request<Incoming>) -> Response<Full<Bytes>> {
    let path = request.uri().path_and_query().unwrap().as_str().to_owned();
    if path.starts_with("/api/v1/namespaces/mesh/pods?") {
        assert!(path.contains("conduit.io%2Fcontrol-plane-component%3Dobserve"), "{path}");
        let pod = |name: &str, ready: &str| {
            format!(
                r#"{{"metadata":{{"name":"{name}"}},"status":{{"conditions":[{{"type":"Ready","status":"{ready}"}}]}}}}"#
            )
        };
        let items = [pod("observe-0", "False"), pod("observe-1", "True")].join(",");
        let list = format!(r#"{{"kind":"PodList","apiVersion":"v1","metadata":{{}},"items":[{items}]}}"#);
        return Response::new(Full::new(list.into()));
    }
    assert!(path.starts_with("/api/v1/namespaces/mesh/pods/observe-1/portforward?"), "{path}");
    let key = derive_accept_key(request.headers()[header::SEC_WEBSOCKET_KEY].as_bytes());
    tokio::spawn(async move {
        let upgraded = hyper::upgrade::on(&mut request).await.unwrap();
        forward(net, observe, upgraded).await;
    });
    Response::builder()
        .status(101)
        .header(header::CONNECTION, "Upgrade")
        .header(header::UPGRADE, "websocket")
        .header(header::SEC_WEBSOCKET_ACCEPT, key)
        .header(header::SEC_WEBSOCKET_PROTOCOL, "v4.channel.k8s.io")
        .body(Full::default())
        .unwrap()
}

/// What a kubelet does: channel 0 carries the port's bytes, channel 1 its errors; each begins with the port's number.
async fn forward(net: Net, observe: SocketAddr, upgraded: Upgraded) {
    let socket = WebSocketStream::from_raw_socket(TokioIo::new(upgraded), Role::Server, None).await;
    let (mut to_client, mut from_client) = socket.split();
    let port = 8085_u16.to_le_bytes();
    for channel in [0, 1] {
        to_client.send(Message::binary(vec![channel, port[0], port[1]])).await.unwrap();
    }
    let (mut from_pod, mut to_pod) = tokio::io::split(net.connect(observe).await.unwrap());
    let back = async {
        let mut bytes = vec![0; 1024];
        while let Ok(n @ 1..) = from_pod.read(&mut bytes[1..]).await {
            bytes[0] = 0;
            to_client.send(Message::binary(bytes[..=n].to_vec())).await.unwrap();
        }
        drop(to_client.close().await);
    };
    let there = async {
        while let Some(Ok(message)) = from_client.next().await {
            if let Message::Binary(bytes) = message
                && bytes.first() == Some(&0)
            {
                to_pod.write_all(&bytes[1..]).await.unwrap();
            }
        }
    };
    tokio::join!(back, there);
}

#[tokio::test]
async fn a_cluster_is_asked_through_the_port_forward_of_its_api_server() {
    let net = TokioNetwork::shared();
    let (observe, mut asked) = serve(&net, json("200 OK", ROWS)).await;
    let api = api_server(&net, observe).await;
    let directory = tempfile::tempdir().unwrap();
    let kubeconfig = directory.path().join("config");
    let text = format!(
        "apiVersion: v1\nkind: Config\ncurrent-context: here\n\
         clusters: [{{name: here, cluster: {{server: 'http://{api}'}}}}]\n\
         contexts: [{{name: here, context: {{cluster: here, user: me, namespace: emojivoto}}}}]\n\
         users: [{{name: me, user: {{}}}}]\n"
    );
    std::fs::write(&kubeconfig, text).unwrap();
    let path = kubeconfig.to_string_lossy().into_owned();
    let line = ["stat", "deploy", "--no-headers", "-c", "mesh", "--kubeconfig", &path];
    let (code, stdout, stderr) = told(conduit(line.map(str::to_owned).to_vec()).await);
    assert_eq!((code, stderr.lines().count()), (Some(0), 1), "{stderr}");
    assert_eq!(stdout, "web   1/2   91.70%   2.0rps   1ms   8ms   19ms   50%\n");
    // The namespace is the context's.
    let expected = "GET /api/v1/stat?type=deploy&window=1m&namespace=emojivoto HTTP/1.1";
    assert_eq!(asked.recv().await.unwrap(), expected);

    let line = ["stat", "deploy", "-c", "mesh", "--kubeconfig", &path, "--context", "elsewhere"];
    let (code, _, stderr) = told(conduit(line.map(str::to_owned).to_vec()).await);
    assert_eq!(code, Some(1));
    assert!(stderr.contains("elsewhere"), "{stderr}");
}
