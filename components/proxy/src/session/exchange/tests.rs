use bytes::Bytes;
use conduit_net::PeerAddr;
use conduit_proto::tap::{Event, event};
use conduit_runtime::metrics::Registry;
use http::Request;

use super::*;
use crate::{
    metrics::Metrics,
    session::{Failure, PeerId, Sessions},
    tap::{Condition, Tap},
};

struct World {
    registry: Registry,
    tap: Tap,
    sessions: Sessions,
}

fn world() -> World {
    let registry = Registry::default();
    let metrics = Metrics::register(&registry, Duration::from_secs(600));
    let tap = Tap::new(100, metrics.tap.clone());
    World { registry, tap: tap.clone(), sessions: Sessions::new(metrics, tap) }
}

impl World {
    fn session(&self, direction: Direction) -> Session {
        self.sessions.accepted(direction, PeerAddr("10.0.0.1:5000".parse().unwrap()), addr())
    }

    fn series(&self, family: &str) -> Vec<String> {
        self.registry.encode().lines().filter(|line| line.starts_with(family)).map(str::to_owned).collect()
    }
}

fn addr() -> SocketAddr {
    "10.0.0.2:80".parse().unwrap()
}

fn head(user_agent: &str) -> request::Parts {
    let request = Request::get("/vote?secret=1").header("host", "web").header("user-agent", user_agent);
    request.body(()).unwrap().into_parts().0
}

fn mutual() -> TlsStatus {
    let id = |name: &str| PeerId::Verified(conduit_identity::Identity::parse(name).unwrap());
    TlsStatus::Mutual { client: id("client.example"), server: id("server.example") }
}

fn labels() -> Labels {
    [("pod".to_owned(), "web-1".to_owned())].into_iter().collect()
}

const INTERNAL: TlsStatus = TlsStatus::Plain(Why::InternalTraffic);
const NO_PROXY_TLS: TlsStatus = TlsStatus::Plain(Why::NoProxyTls);
const LOOPBACK: TlsStatus = TlsStatus::Plain(Why::Loopback);

#[tokio::test(start_paused = true)]
async fn outbound_requests_are_labelled_by_the_connection_that_carried_them() {
    let world = world();
    let session = world.session(Direction::Outbound);
    let mut exchange = session.request(&head("x"), &INTERNAL);
    assert!(world.series("request_total").is_empty(), "its way is not known yet");
    exchange.dispatched(addr(), &labels(), &mutual());
    let identities = r#"tls="true",client_id="client.example",server_id="server.example""#;
    let expected =
        format!(r#"request_total{{authority="web",direction="outbound",dst_pod="web-1",{identities}}} 1"#);
    assert_eq!(world.series("request_total"), [expected.as_str()]);
    tokio::time::advance(Duration::from_millis(40)).await;
    exchange.responded(StatusCode::OK, &HeaderMap::new());
    tokio::time::advance(Duration::from_millis(5)).await;
    exchange.data(10);
    tokio::time::advance(Duration::from_secs(3)).await;
    exchange.end(End::Complete);
    let responses = world.series("response_total");
    assert_eq!(responses.len(), 1);
    assert!(responses[0].contains(r#"classification="success",status_code="200"} 1"#), "{responses:?}");
    assert!(world.series("response_latency_ms_sum")[0].ends_with(" 45.0"));
    drop(exchange);
    assert_eq!(world.series("response_total"), responses, "it ended once");
}

#[tokio::test(start_paused = true)]
async fn inbound_requests_are_labelled_by_the_connection_they_came_on_from_their_beginning() {
    let world = world();
    let mut exchange = world.session(Direction::Inbound).request(&head("x"), &mutual());
    let series = world.series("request_total");
    assert!(series[0].contains(r#"tls="true",client_id="client.example""#), "{series:?}");
    exchange.dispatched(addr(), &Labels::default(), &LOOPBACK);
    exchange.responded(StatusCode::BAD_GATEWAY, &HeaderMap::new());
    exchange.end(End::Complete);
    assert_eq!(world.series("request_total"), series);
    let responses = world.series("response_total");
    assert!(responses[0].contains(r#"tls="true""#) && responses[0].contains(r#"failure",status_code="502""#));
}

#[tokio::test(start_paused = true)]
async fn requests_that_fail_before_a_response_are_counted() {
    let world = world();
    let session = world.session(Direction::Outbound);
    session.request(&head("x"), &INTERNAL).end(End::Failed(Failure::Refused));
    drop(session.request(&head("x"), &INTERNAL));
    let expected = |failure: &str| {
        let route = r#"authority="web",direction="outbound",tls="internal_traffic""#;
        format!(r#"response_total{{{route},classification="failure",failure="{failure}"}} 1"#)
    };
    assert_eq!(world.series("response_total"), [expected("canceled"), expected("refused")]);
    assert!(world.series("request_total")[0].ends_with(" 2"));
}

#[tokio::test(start_paused = true)]
async fn a_request_that_reached_nobody_names_whom_it_was_meant_for() {
    let world = world();
    let mut exchange = world.session(Direction::Outbound).request(&head("x"), &INTERNAL);
    exchange.aimed(addr(), &labels());
    exchange.end(End::Failed(Failure::Refused));
    let responses = world.series("response_total");
    assert!(responses[0].contains(r#"dst_pod="web-1",tls="internal_traffic""#), "{responses:?}");
}

#[tokio::test(start_paused = true)]
async fn a_replayed_request_began_once_and_ends_where_it_was_answered() {
    let world = world();
    let mut exchange = world.session(Direction::Outbound).request(&head("x"), &INTERNAL);
    exchange.dispatched(addr(), &labels(), &mutual());
    exchange.dispatched(addr(), &labels(), &TlsStatus::Plain(Why::NoIdentity));
    exchange.responded(StatusCode::OK, &HeaderMap::new());
    exchange.end(End::Complete);
    let requests = world.series("request_total");
    assert_eq!(requests.iter().filter(|line| line.ends_with(" 1")).count(), 1, "{requests:?}");
    assert!(world.series("response_total")[0].contains(r#"tls="no_identity""#));
}

#[tokio::test(start_paused = true)]
async fn grpc_statuses_classify_calls_and_a_client_that_leaves_a_stream_is_no_failure() {
    let world = world();
    let call = |status: Option<&'static str>, end: End| {
        let mut exchange = world.session(Direction::Inbound).request(&head("x"), &NO_PROXY_TLS);
        exchange.responded(StatusCode::OK, &HeaderMap::new());
        exchange.data(1);
        if let Some(status) = status {
            exchange.trailers(&HeaderMap::from_iter([(
                GRPC_STATUS.parse().unwrap(),
                HeaderValue::from_static(status),
            )]));
        }
        exchange.end(end);
    };
    call(Some("0"), End::Complete);
    call(Some("14"), End::Complete);
    call(Some("99"), End::Complete);
    call(None, End::Canceled);
    call(None, End::Reset(h2::Reason::INTERNAL_ERROR));
    let found: Vec<String> = world
        .series("response_total")
        .iter()
        .map(|line| line.split_once("classification=").unwrap().1.to_owned())
        .collect();
    assert_eq!(
        found,
        [
            r#""failure",status_code="200",failure="reset"} 1"#,
            r#""failure",status_code="200",grpc_status_code="14"} 1"#,
            r#""failure",status_code="200",grpc_status_code="other"} 1"#,
            r#""success",status_code="200"} 1"#,
            r#""success",status_code="200",grpc_status_code="0"} 1"#,
        ]
    );
}

#[tokio::test(start_paused = true)]
async fn probes_are_told_apart_unless_they_come_from_the_mesh() {
    let world = world();
    for source in [NO_PROXY_TLS, mutual()] {
        world.session(Direction::Inbound).request(&head("kube-probe/1.33"), &source).end(End::Complete);
    }
    world.session(Direction::Outbound).request(&head("kube-probe/1.33"), &INTERNAL).end(End::Complete);
    let tls = |line: &String| line.split_once("tls=\"").unwrap().1.split_once('"').unwrap().0.to_owned();
    let labels: Vec<_> = world.series("request_total").iter().map(tls).collect();
    assert_eq!(labels, ["kubelet_probe", "true", "internal_traffic"]);
}

fn anything() -> Condition {
    Condition::All(Vec::new())
}

fn kind(event: &Event) -> &'static str {
    match event.event {
        Some(event::Event::RequestInit(_)) => "request",
        Some(event::Event::ResponseInit(_)) => "response",
        Some(event::Event::ResponseEnd(_)) => "end",
        None => "nothing",
    }
}

#[tokio::test(start_paused = true)]
async fn a_tap_is_told_of_a_request_from_its_dispatch_to_its_end() {
    let world = world();
    let mut events = world.tap.open(1, anything()).unwrap();
    let mut exchange = world.session(Direction::Outbound).request(&head("x"), &INTERNAL);
    exchange.dispatched(addr(), &labels(), &mutual());
    assert!(!world.tap.is_active(), "one request was wanted");
    tokio::time::advance(Duration::from_millis(3)).await;
    exchange.responded(StatusCode::OK, &HeaderMap::new());
    tokio::time::advance(Duration::from_millis(4)).await;
    exchange.data(Bytes::from_static(b"hello").len());
    exchange.end(End::Complete);

    let init = events.next().await.unwrap();
    assert_eq!((init.source.as_str(), init.destination.as_str()), ("10.0.0.1:5000", "10.0.0.2:80"));
    assert_eq!((init.direction(), init.tls.as_str()), (event::Direction::Outbound, "true"));
    assert_eq!(init.source_labels["tls"], "internal_traffic");
    assert_eq!(init.destination_labels["server_id"], "server.example");
    assert_eq!(init.destination_labels["pod"], "web-1");
    let Some(event::Event::RequestInit(request)) = &init.event else { panic!("{init:?}") };
    assert_eq!((request.authority.as_str(), request.path.as_str()), ("web", "/vote"), "no query");
    let response = events.next().await.unwrap();
    assert_eq!((kind(&response), response.id), ("response", init.id));
    let Some(event::Event::ResponseEnd(end)) = events.next().await.unwrap().event else { panic!("no end") };
    assert_eq!((end.since_request_init_ns, end.since_response_init_ns), (7_000_000, 4_000_000));
    assert_eq!((end.response_bytes, end.eos), (5, None));
    assert!(events.next().await.is_none(), "the last request has ended");
}

#[tokio::test(start_paused = true)]
async fn a_tap_hears_of_a_request_that_went_nowhere() {
    let world = world();
    let mut events = world.tap.open(2, anything()).unwrap();
    world.session(Direction::Outbound).request(&head("x"), &INTERNAL).end(End::Failed(Failure::Refused));
    assert_eq!(kind(&events.next().await.unwrap()), "request");
    let Some(event::Event::ResponseEnd(end)) = events.next().await.unwrap().event else { panic!("no end") };
    assert_eq!(end.eos, Some(event::response_end::Eos::ResetErrorCode(h2::Reason::INTERNAL_ERROR.into())));
}
