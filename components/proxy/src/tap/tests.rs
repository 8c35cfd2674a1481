use conduit_net::PeerAddr;
use conduit_runtime::metrics::Registry;
use http::Request;

use super::*;
use crate::{
    metrics::Metrics,
    session::{Sessions, Why},
};

const PLAIN: TlsStatus = TlsStatus::Plain(Why::NoProxyTls);

fn tap(queue: usize) -> (Registry, Tap, Session) {
    let registry = Registry::default();
    let metrics = Metrics::register(&registry, Duration::from_secs(600));
    let tap = Tap::new(queue, metrics.tap.clone());
    let sessions = Sessions::new(metrics, tap.clone());
    let session = sessions.accepted(
        Direction::Inbound,
        PeerAddr("10.0.0.1:5000".parse().unwrap()),
        "10.0.0.2:80".parse().unwrap(),
    );
    (registry, tap, session)
}

fn ask(tap: &Tap, session: &Session, path: &str) -> Option<Tapped> {
    let (head, ()) = Request::get(path).body(()).unwrap().into_parts();
    let asked = Asked::of(&head, b"web");
    tap.ask(&asked, session, &PLAIN, "10.0.0.2:80".parse().unwrap(), &Labels::default(), &PLAIN)
}

fn path(prefix: &str) -> Condition {
    Condition::Path(matching::Text::Prefix(prefix.into()))
}

#[tokio::test]
async fn a_request_is_told_to_the_taps_that_want_it() {
    let (_registry, tap, session) = tap(10);
    let mut api = tap.open(5, path("/api")).unwrap();
    let mut all = tap.open(5, path("/")).unwrap();
    let tapped = ask(&tap, &session, "/api/vote").unwrap();
    assert_eq!(api.next().await, all.next().await);
    drop(tapped);
    assert!(ask(&tap, &session, "/other").is_some());
    assert!(all.next().await.is_some());
    assert!(api.events.try_recv().is_err());
}

#[tokio::test]
async fn a_tap_that_has_what_it_wanted_costs_nothing_more_and_ends_with_its_last_request() {
    let (_registry, tap, session) = tap(10);
    let mut events = tap.open(2, path("/")).unwrap();
    assert!(tap.is_active());
    let (first, second) = (ask(&tap, &session, "/1").unwrap(), ask(&tap, &session, "/2").unwrap());
    assert!(!tap.is_active());
    assert!(ask(&tap, &session, "/3").is_none());
    second.end(Duration::ZERO, None, 0, None);
    drop(second);
    for _ in 0..3 {
        assert!(events.next().await.is_some());
    }
    assert!(events.events.try_recv().is_err(), "the first request is still under way");
    drop(first);
    assert!(events.next().await.is_none());
}

#[tokio::test]
async fn a_reader_that_leaves_ends_its_tap() {
    let (_registry, tap, session) = tap(10);
    let events = tap.open(10, path("/")).unwrap();
    drop(events);
    assert!(!tap.is_active());
    assert!(ask(&tap, &session, "/").is_none());
}

#[tokio::test]
async fn a_slow_reader_loses_events_and_nobody_waits_for_it() {
    let (registry, tap, session) = tap(2);
    let _events = tap.open(10, path("/")).unwrap();
    for _ in 0..5 {
        drop(ask(&tap, &session, "/"));
    }
    assert!(registry.encode().contains("tap_events_lost_total 3\n"));
}

#[tokio::test]
async fn taps_are_bounded_and_a_place_is_free_again_when_one_ends() {
    let (registry, tap, _session) = tap(2);
    let mut taps: Vec<_> = (0..MAX_TAPS).map(|_| tap.open(1, path("/")).unwrap()).collect();
    assert_eq!(tap.open(1, path("/")).unwrap_err(), TooMany);
    taps.pop();
    assert!(tap.open(1, path("/")).is_ok());
    assert!(registry.encode().contains(&format!("tap_active {}\n", MAX_TAPS - 1)));
}
