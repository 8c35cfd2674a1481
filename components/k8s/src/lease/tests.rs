use std::{convert::Infallible, sync::atomic::AtomicBool, sync::atomic::Ordering};

use conduit_identity::{ManualClock, UnixTime};
use http::{Method, Request, Response};
use http_body_util::BodyExt;
use kube::client::Body;
use parking_lot::Mutex;

use super::*;
use crate::logged::{self, Log};

/// An API server that has one Lease, with versions; it can be down for one of its clients.
#[derive(Clone, Default)]
struct Server {
    lease: Arc<Mutex<Option<Lease>>>,
    /// Its answers to who writes come a second late.
    is_slow: Arc<AtomicBool>,
}

impl Server {
    fn client(&self, up: &Arc<AtomicBool>) -> Client {
        let (server, up) = (self.clone(), Arc::clone(up));
        let service = tower::service_fn(move |request: Request<Body>| {
            let (server, up) = (server.clone(), Arc::clone(&up));
            async move {
                if !up.load(Ordering::SeqCst) {
                    std::future::pending::<()>().await;
                }
                let (head, body) = request.into_parts();
                let body = body.collect().await.unwrap().to_bytes();
                let answer = server.answer(&head.method, &body);
                if head.method != Method::GET && server.is_slow.load(Ordering::SeqCst) {
                    sleep(Duration::from_secs(1)).await;
                }
                Ok::<_, Infallible>(answer)
            }
        });
        Client::new(service, "conduit")
    }

    fn answer(&self, method: &Method, body: &[u8]) -> Response<Body> {
        let mut lease = self.lease.lock();
        let version = |lease: &Lease| lease.metadata.resource_version.clone().unwrap_or_default();
        if method == Method::GET {
            return match &*lease {
                Some(lease) => respond(200, &serde_json::to_vec(lease).unwrap()),
                None => status(404),
            };
        }
        let mut written: Lease = serde_json::from_slice(body).unwrap();
        let current = lease.as_ref().map(version);
        let expected = (method == Method::PUT).then(|| version(&written));
        if current != expected {
            return status(409);
        }
        let next = current.map_or(1, |version| version.parse::<u64>().unwrap() + 1);
        written.metadata.resource_version = Some(next.to_string());
        *lease = Some(written.clone());
        respond(200, &serde_json::to_vec(&written).unwrap())
    }

    fn holder(&self) -> String {
        let lease = self.lease.lock();
        lease.as_ref().and_then(|lease| lease.spec.clone()?.holder_identity).unwrap_or_default()
    }
}

fn respond(code: u16, body: &[u8]) -> Response<Body> {
    Response::builder().status(code).body(Body::from(body.to_vec())).unwrap()
}

fn status(code: u16) -> Response<Body> {
    let reason = if code == 404 { "NotFound" } else { "Conflict" };
    let body = serde_json::json!({
        "kind": "Status", "status": "Failure", "code": code, "reason": reason, "message": "no",
    });
    respond(code, body.to_string().as_bytes())
}

struct Candidate {
    leadership: Leadership,
    up: Arc<AtomicBool>,
    drain: Option<drain::Trigger>,
}

impl Candidate {
    fn start(server: &Server, name: &str, clock_s: u64) -> Self {
        logged::listen();
        let up = Arc::new(AtomicBool::new(true));
        let clock: Arc<dyn Clock> = Arc::new(ManualClock::at(UnixTime::from_secs(clock_s)));
        let seed = Seed::fixed(clock_s);
        let client = server.client(&up);
        let (campaign, leadership) =
            Campaign::new(client, "conduit", "conduit-ca", name, clock, Timing::default(), &seed);
        let (trigger, watch) = drain::channel();
        tokio::spawn(campaign.run(watch));
        Self { leadership, up, drain: Some(trigger) }
    }

    async fn gained(&self) {
        timeout(Duration::from_secs(3600), self.leadership.gained()).await.expect("leads within an hour");
    }

    async fn lost(&self) {
        timeout(Duration::from_secs(3600), self.leadership.lost()).await.expect("steps down within an hour");
    }

    async fn stop(&mut self) {
        assert!(self.drain.take().unwrap().drain(Duration::from_secs(5)).await);
    }
}

#[tokio::test(start_paused = true)]
async fn who_ends_while_it_takes_the_lease_gives_it_up() {
    let server = Server::default();
    server.is_slow.store(true, Ordering::SeqCst);
    let mut first = Candidate::start(&server, "first", 1_000_000);
    while server.holder() != "first" {
        sleep(Duration::from_millis(10)).await;
    }
    assert!(!first.leadership.is_leading(), "it does not know yet");
    first.stop().await;
    assert_eq!(server.holder(), "");
}

#[tokio::test(start_paused = true)]
async fn one_leads_and_keeps_leading_whatever_the_clocks_say() {
    let server = Server::default();
    let first = Candidate::start(&server, "first", 1_000_000);
    first.gained().await;
    // A day ahead of the first: its record looks long expired to a clock that is compared.
    let second = Candidate::start(&server, "second", 1_086_400);
    for _ in 0..100 {
        sleep(Duration::from_secs(1)).await;
        assert!(first.leadership.is_leading() && !second.leadership.is_leading());
    }
    assert_eq!(server.holder(), "first");
}

#[tokio::test(start_paused = true)]
async fn a_leader_that_cannot_renew_steps_down_before_another_takes_over() {
    let server = Server::default();
    let first = Candidate::start(&server, "first", 5);
    first.gained().await;
    let second = Candidate::start(&server, "second", 6);
    sleep(Duration::from_secs(20)).await;

    first.up.store(false, Ordering::SeqCst);
    let cut = Instant::now();
    first.lost().await;
    assert!(cut.elapsed() <= Timing::default().claim, "{:?}", cut.elapsed());
    assert!(!second.leadership.is_leading());
    second.gained().await;
    assert!(cut.elapsed() <= Duration::from_secs(20), "{:?}", cut.elapsed());

    first.up.store(true, Ordering::SeqCst);
    sleep(Duration::from_secs(60)).await;
    assert!(second.leadership.is_leading() && !first.leadership.is_leading());
    let transitions = server.lease.lock().as_ref().and_then(|lease| lease.spec.clone()?.lease_transitions);
    assert_eq!(transitions, Some(2));
}

#[tokio::test(start_paused = true)]
async fn a_drain_hands_leadership_over_at_once() {
    let server = Server::default();
    let mut first = Candidate::start(&server, "first", 5);
    first.gained().await;
    let second = Candidate::start(&server, "second", 6);
    sleep(Duration::from_secs(10)).await;

    first.stop().await;
    assert!(!first.leadership.is_leading());
    assert_eq!(server.holder(), "");
    let released = Instant::now();
    second.gained().await;
    assert!(released.elapsed() <= Timing::default().retry, "{:?}", released.elapsed());
}

#[tokio::test(start_paused = true)]
async fn work_is_dropped_when_leadership_is_lost() {
    let server = Server::default();
    let first = Candidate::start(&server, "first", 5);
    let nothing = std::future::pending::<()>();
    assert_eq!(first.leadership.within(async {}).await, Err(NotLeading), "before it leads");
    first.gained().await;
    assert_eq!(first.leadership.within(async { 7 }).await, Ok(7));
    first.up.store(false, Ordering::SeqCst);
    assert_eq!(first.leadership.within(nothing).await, Err(NotLeading));
}

#[tokio::test(start_paused = true)]
async fn a_process_that_returns_under_its_name_leads_at_once() {
    let server = Server::default();
    let first = Candidate::start(&server, "ca-0", 5);
    first.gained().await;
    first.up.store(false, Ordering::SeqCst);
    let started = Instant::now();
    let again = Candidate::start(&server, "ca-0", 6);
    again.gained().await;
    assert!(started.elapsed() <= Timing::default().retry);
}

#[tokio::test(start_paused = true)]
async fn a_lease_that_cannot_be_renewed_is_told_once_and_when_it_can_again() {
    let (log, _guard) = Log::start();
    let server = Server::default();
    let first = Candidate::start(&server, "first", 5);
    first.gained().await;
    first.up.store(false, Ordering::SeqCst);
    sleep(Duration::from_secs(120)).await;
    first.up.store(true, Ordering::SeqCst);
    first.gained().await;
    let told: Vec<String> =
        log.lines().iter().map(|line| line.split_once(": ").unwrap().1.to_owned()).collect();
    let expected = [
        r#"leading lease="conduit-ca" holder="first""#,
        r#"cannot renew or take the lease lease="conduit-ca" cause=no API server: no answer within 10s leading=false"#,
        r#"leading lease="conduit-ca" holder="first""#,
        r#"the lease can be read and written again lease="conduit-ca""#,
    ];
    assert_eq!(told, expected);
}
