//! What breaks TLS in a real mesh, and whether `why` names it.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::{sync::Arc, time::Duration};

use conduit_identity::{Clock, SystemClock};
use conduit_mesh::{Addresses, Behind, Deployment, Mesh, Service, Sidecar};
use conduit_net::{Accepted, Net, TokioNetwork};
use conduit_observe::why::{Link, Verdict, Why};
use conduit_runtime::{Seed, drain, serve};
use parking_lot::Mutex;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(60);
const TWO_DAYS: Duration = Duration::from_secs(48 * 60 * 60);

/// Says hello to one request.
async fn hello(mut accepted: Accepted) {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        match accepted.io.read_u8().await {
            Ok(octet) => head.push(octet),
            Err(_) => return,
        }
    }
    let answer = b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\nconnection: close\r\n\r\nhello";
    drop(accepted.io.write_all(answer).await);
    drop(accepted.io.shutdown().await);
}

fn server(name: &str, sidecar: Sidecar) -> Deployment {
    Deployment::new("shop", name, |net: Net, drain: drain::Watch| async move {
        let listener = net.bind("0.0.0.0:8080".parse().unwrap()).await?;
        serve::accept_loop(listener, 64, drain, hello).await;
        Ok(())
    })
    .port("http", 8080)
    .sidecar(sidecar)
}

async fn get(net: &Net, host: &str, port: u16, path: &str) -> String {
    let asked = async {
        let ip = net.resolve(host).await.unwrap().addrs[0];
        let mut io = net.connect((ip, port).into()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: {host}:{port}\r\nconnection: close\r\n\r\n");
        io.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        io.read_to_string(&mut answer).await.unwrap();
        answer
    };
    tokio::time::timeout(DEADLINE, asked).await.unwrap()
}

/// A mesh of one client that calls servers, each of which is broken in its own way.
struct Shop {
    mesh: Mesh,
    net: Net,
}

impl Shop {
    /// `mesh` with a control plane; the API's clock may be another than everybody's, and so may the CA's.
    async fn open(
        api: Option<Arc<dyn Clock>>,
        ca: bool,
        destination: bool,
        servers: Vec<Deployment>,
    ) -> Self {
        let addresses = Addresses::of_this_machine().await;
        let mut builder = Mesh::builder(addresses, Seed::from_os().unwrap()).pull(Duration::ZERO);
        let clock = api.clone().unwrap_or_else(|| Arc::new(SystemClock));
        if let Some(api) = api {
            builder = builder.api_clock(api);
        }
        let mut mesh = builder.start().await.unwrap();
        mesh.namespace("shop").await.unwrap();
        if servers.iter().any(|server| server.workload().name == "foreign") {
            mesh.foreign_certificate(&server("foreign", Sidecar::Tls).workload()).await.unwrap();
        }
        if ca {
            mesh.start_ca(clock).await.unwrap();
        }
        if destination {
            mesh.start_destination().await.unwrap();
        }
        mesh.start_observe().await.unwrap();
        for server in &servers {
            let name = server.workload().name;
            mesh.service(&Service::new("shop", &name).port("http", 80, 8080)).await.unwrap();
        }
        let place: Arc<Mutex<Option<Net>>> = Arc::default();
        let given = place.clone();
        let client = Deployment::new("shop", "client", move |net: Net, drain: drain::Watch| {
            *given.lock() = Some(net);
            async move {
                drain.signaled().await;
                Ok(())
            }
        });
        let mut deployments = servers;
        deployments.push(client.sidecar(Sidecar::Tls));
        mesh.deploy(&deployments).await.unwrap();
        let net = place.lock().clone().unwrap();
        Self { mesh, net }
    }

    /// None while observe has not seen both of them yet.
    async fn why(&self, from: &str, to: &str) -> Option<Why> {
        let observe = self.mesh.observe_addr().unwrap();
        let path = format!("/api/v1/why?namespace=shop&from=deploy/{from}&to=deploy/{to}");
        let answer = get(&TokioNetwork::shared(), &observe.ip().to_string(), observe.port(), &path).await;
        let (head, body) = answer.split_once("\r\n\r\n").unwrap();
        let is_seen = !["HTTP/1.1 404", "HTTP/1.1 503"].iter().any(|status| head.starts_with(status));
        is_seen.then(|| serde_json::from_str(body).unwrap_or_else(|error| panic!("{error}: {answer}")))
    }

    /// Calls `server` until why says `verdict` of it, traffic having been seen, for the link of this name.
    async fn until(&self, server: &str, verdict: Verdict, broken: Option<&str>) -> Why {
        let mut last = None;
        let told = async {
            loop {
                assert!(get(&self.net, &format!("{server}.shop"), 80, "/").await.ends_with("hello"));
                let why = self.why("client", server).await;
                let is_told = |why: &Why| {
                    let found = why.first_broken().map(Link::name);
                    why.verdict == verdict && found.as_deref() == broken && why.seen.total() > 0.0
                };
                if let Some(why) = why {
                    if is_told(&why) {
                        return why;
                    }
                    last = Some(why);
                }
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        };
        let told = tokio::time::timeout(DEADLINE, told).await;
        told.unwrap_or_else(|_| panic!("{server} is not {verdict:?} for {broken:?}: {last:#?}"))
    }

    async fn close(self) {
        self.mesh.stop(Duration::from_secs(1)).await;
    }
}

#[tokio::test]
async fn each_receiver_is_told_by_its_own_broken_link() {
    let servers = vec![
        server("whole", Sidecar::Tls),
        server("bare", Sidecar::Absent),
        server("plain", Sidecar::Plaintext),
        server("unmounted", Sidecar::Tls).without_certificate(),
        server("foreign", Sidecar::Tls),
    ];
    let shop = Shop::open(None, true, true, servers).await;
    shop.until("whole", Verdict::Encrypted, None).await;
    for (server, broken, reason) in [
        ("bare", "injected (receiver)", "no_identity"),
        ("plain", "injected (receiver)", "disabled"),
        ("unmounted", "mounted (receiver)", "no_config"),
        ("foreign", "issued (receiver)", "bad_credentials"),
    ] {
        let why = shop.until(server, Verdict::Plaintext, Some(broken)).await;
        let link = why.first_broken().unwrap();
        assert_eq!(link.reason.as_deref(), Some(reason), "{why:#?}");
        assert!(link.since.is_some() && link.fix.is_some(), "{why:#?}");
        assert_eq!(why.seen.encrypted, 0.0, "{why:#?}");
    }
    // What has no proxy sends plaintext, whether anybody has seen it or not.
    let why = shop.why("bare", "whole").await.unwrap();
    assert_eq!(why.verdict, Verdict::Plaintext);
    assert_eq!(why.first_broken().map(Link::name).as_deref(), Some("injected (sender)"));
    shop.close().await;
}

#[tokio::test]
async fn without_a_ca_it_is_the_ca_until_it_comes() {
    let mut shop = Shop::open(None, false, true, vec![server("whole", Sidecar::Tls)]).await;
    let why = shop.until("whole", Verdict::Plaintext, Some("installed")).await;
    assert!(
        why.summary.contains("no ca runs that could make the Secret client-deployment"),
        "{}",
        why.summary
    );
    shop.mesh.start_ca(Arc::new(SystemClock)).await.unwrap();
    shop.until("whole", Verdict::Encrypted, None).await;
    shop.close().await;
}

#[tokio::test]
async fn expired_certificates_are_told_at_the_sender_first() {
    let behind: Arc<dyn Clock> = Arc::new(Behind::new(Arc::new(SystemClock), TWO_DAYS));
    let shop = Shop::open(Some(behind), true, true, vec![server("whole", Sidecar::Tls)]).await;
    let why = shop.until("whole", Verdict::Plaintext, Some("issued (sender)")).await;
    assert_eq!(why.first_broken().unwrap().reason.as_deref(), Some("expired"), "{why:#?}");
    shop.close().await;
}

#[tokio::test]
async fn without_a_destination_service_nobody_is_advertised() {
    let shop = Shop::open(None, true, false, vec![server("whole", Sidecar::Tls)]).await;
    let why = shop.until("whole", Verdict::Plaintext, Some("installed")).await;
    assert!(why.first_broken().unwrap().detail.contains("destination"), "{why:#?}");
    // The client's own certificate may still be on its way.
    let reasons = ["no_discovery", "no_config"];
    assert!(why.seen.plaintext.keys().all(|reason| reasons.contains(&reason.as_str())), "{why:#?}");
    shop.close().await;
}
