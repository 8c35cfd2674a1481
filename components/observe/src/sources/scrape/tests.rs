use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
};

use conduit_identity::SystemClock;
use conduit_net::TokioNetwork;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::*;
use crate::testing::pod;

/// A proxy's metrics port that answers each request with what `script` says for its number, from 0.
struct Script {
    addr: SocketAddr,
    asked: Arc<AtomicU32>,
}

impl Script {
    async fn serve(net: &Net, script: impl Fn(u32) -> String + Send + 'static) -> Self {
        let mut listener = net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let (addr, asked) = (listener.local_addr(), Arc::new(AtomicU32::new(0)));
        let counter = asked.clone();
        tokio::spawn(async move {
            loop {
                let mut io = listener.accept().await.unwrap().io;
                let answer = script(counter.fetch_add(1, Relaxed));
                let mut head = [0; 1024];
                let n = io.read(&mut head).await.unwrap();
                assert!(head[..n].starts_with(b"GET /metrics HTTP/1.1\r\n"));
                if answer == "silence" {
                    std::mem::forget(io);
                    continue;
                }
                io.write_all(answer.as_bytes()).await.unwrap();
                io.shutdown().await.unwrap();
            }
        });
        Self { addr, asked }
    }

    fn pod(&self, number: u32) -> Arc<Pod> {
        Arc::new(Pod {
            ip: Some(self.addr.ip()),
            metrics_port: self.addr.port(),
            ..pod("shop", "web", number)
        })
    }
}

fn ok(body: &str) -> String {
    format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
}

fn responses(count: u32) -> String {
    ok(&format!(
        "response_total{{direction=\"inbound\",tls=\"true\",classification=\"success\"}} {count}\n# EOF\n"
    ))
}

struct World {
    scraper: Scraper,
    inventory: watch::Sender<Arc<Inventory>>,
    failures: Failures,
}

impl World {
    fn new(net: Net, pods: &[Arc<Pod>]) -> Self {
        let pods = pods.iter().map(|pod| (pod.name.clone(), pod.clone())).collect();
        let (inventory, receiver) =
            watch::channel(Arc::new(Inventory { is_known: true, pods, ..Inventory::default() }));
        let limits = Limits { deadline: Duration::from_millis(200), ..Limits::default() };
        let scraper = Scraper {
            net,
            clock: Arc::new(SystemClock),
            inventory: receiver,
            shared: Shared::new(limits.max_series),
            limits,
            metrics: Metrics::default(),
        };
        Self { scraper, inventory, failures: Failures::default() }
    }

    async fn round(&mut self) {
        self.scraper.round(&mut self.failures).await;
    }

    fn samples(&self) -> crate::samples::Samples {
        self.scraper.shared.samples(Duration::from_secs(60))
    }

    fn reasons(&self) -> Vec<String> {
        self.samples().unscraped.into_iter().map(|pod| format!("{}: {}", pod.pod, pod.reason)).collect()
    }
}

#[tokio::test]
async fn two_readings_make_an_increase() {
    let net = TokioNetwork::shared();
    let script = Script::serve(&net, |n| responses(100 + n * 7)).await;
    let mut world = World::new(net, &[script.pod(1)]);
    world.round().await;
    assert!(world.samples().responses.is_empty());
    world.round().await;
    let [counted] = &world.samples().responses[..] else { panic!("one series") };
    assert_eq!((counted.count, counted.labels.get("tls")), (7.0, Some("true")));
    assert_eq!(world.reasons(), [""; 0]);
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_is_told_of_with_the_reason_and_the_others_are_read() {
    let net = TokioNetwork::shared();
    let good = Script::serve(&net, responses).await;
    type Answer = (&'static str, fn(u32) -> String);
    let answers: [Answer; 6] = [
        ("answered 503 Service Unavailable", |_| "HTTP/1.1 503 Service Unavailable\r\n\r\n".to_owned()),
        ("line 2 of the metrics", |_| ok("up 1\nresponse_total nonsense\n")),
        ("broke off", |_| "HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\nup 1\n".to_owned()),
        ("broke off", |_| "SSH-2.0-OpenSSH\r\n".to_owned()),
        ("the text ends within it", |_| ok("response_total 1")),
        ("did not answer within 200ms", |_| "silence".to_owned()),
    ];
    let mut pods = vec![good.pod(99)];
    for (number, (_, answer)) in answers.iter().enumerate() {
        pods.push(Script::serve(&net, *answer).await.pod(u32::try_from(number).unwrap()));
    }
    let gone = net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap().local_addr();
    pods.push(Script { addr: gone, asked: Arc::default() }.pod(6));

    let mut world = World::new(net, &pods);
    world.round().await;
    world.round().await;
    let reasons = world.reasons();
    let expected = answers.map(|(reason, _)| reason).into_iter().chain(["cannot be reached"]);
    assert_eq!(reasons.len(), 7, "{reasons:?}");
    for (reason, expected) in reasons.iter().zip(expected) {
        assert!(reason.contains(expected), "{reason:?} does not say {expected:?}");
    }
    assert_eq!(world.samples().responses.len(), 1);
}

#[tokio::test]
async fn too_long_an_answer_is_not_read_to_its_end() {
    let net = TokioNetwork::shared();
    let script = Script::serve(&net, |_| ok(&"# filler\n".repeat(1000))).await;
    let mut world = World::new(net, &[script.pod(1)]);
    world.scraper.limits.max_bytes = 1000;
    world.round().await;
    assert!(world.reasons()[0].contains("over 1000 octets"), "{:?}", world.reasons());
}

#[tokio::test]
async fn a_failing_pod_is_asked_less_and_less_often_and_heard_again_at_once() {
    let net = TokioNetwork::shared();
    let script =
        Script::serve(&net, |n| if n < 8 { "HTTP/1.1 500 x\r\n\r\n".to_owned() } else { responses(n) }).await;
    let mut world = World::new(net, &[script.pod(1)]);
    for _ in 0..40 {
        world.round().await;
    }
    // Rounds 1, 2, 3, 4, 6, 10, 18, 34.
    assert_eq!(script.asked.load(Relaxed), 8);
    for _ in 0..32 {
        world.round().await;
    }
    // The first success in round 50, and from then on every round.
    assert_eq!(script.asked.load(Relaxed), 8 + 23);
    assert_eq!(world.reasons(), [""; 0]);
}

#[tokio::test]
async fn pods_beyond_the_limit_are_told_of() {
    let net = TokioNetwork::shared();
    let script = Script::serve(&net, responses).await;
    let mut world = World::new(net, &[script.pod(1), script.pod(2)]);
    world.scraper.limits.max_pods = 1;
    world.round().await;
    assert_eq!(world.reasons(), ["web-2: over the limit of 1 pods"]);
}

#[tokio::test]
async fn pods_that_do_not_run_or_have_no_proxy_are_left_alone() {
    let net = TokioNetwork::shared();
    let script = Script::serve(&net, responses).await;
    let unmeshed = Arc::new(Pod { meshed: false, ..(*script.pod(1)).clone() });
    let done = Arc::new(Pod { running: false, ..(*script.pod(2)).clone() });
    let pending = Arc::new(Pod { ip: None, ..(*script.pod(3)).clone() });
    let mut world = World::new(net, &[unmeshed, done, pending]);
    world.round().await;
    assert_eq!((script.asked.load(Relaxed), world.reasons().len()), (0, 0));
    drop(world.inventory);
}
