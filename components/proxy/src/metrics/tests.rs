use conduit_identity::Identity;
use http::StatusCode;

use super::*;
use crate::session::{PeerId, Why};

const RETAIN: Duration = Duration::from_secs(600);
const PLAIN: TlsStatus = TlsStatus::Plain(Why::NoProxyTls);

fn metrics() -> (Registry, Metrics) {
    let registry = Registry::default();
    let metrics = Metrics::register(&registry, RETAIN);
    (registry, metrics)
}

fn lines(registry: &Registry, family: &str) -> Vec<String> {
    registry.encode().lines().filter(|line| line.starts_with(family)).map(str::to_owned).collect()
}

#[tokio::test(start_paused = true)]
async fn series_carry_their_labels_in_the_documented_order() {
    let (registry, metrics) = metrics();
    let dst =
        [("pod", "web-1"), ("deployment", "web")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let identity = |name: &str| PeerId::Verified(Identity::parse(name).unwrap());
    let tls = TlsStatus::Mutual { client: identity("a.example"), server: identity("b.example") };
    let route = metrics.route(Direction::Outbound, b"Web:80", &dst.into_iter().collect(), &tls);
    route.request();
    route.response(Class::complete(StatusCode::OK, Some(0)), Duration::from_millis(7));
    route.response(Class::failed(None, "refused"), Duration::ZERO);
    let route = r#"authority="web:80",direction="outbound",dst_deployment="web",dst_pod="web-1",tls="true",client_id="a.example",server_id="b.example""#;
    let mut shown = lines(&registry, "re").join("\n").replace(route, "ROUTE");
    shown.retain(|c| c != '"');
    let shown: Vec<&str> = shown.lines().filter(|line| !line.contains("_bucket")).collect();
    insta::assert_snapshot!(shown.join("\n"), @r"
    request_total{ROUTE} 1
    response_total{ROUTE,classification=failure,failure=refused} 1
    response_total{ROUTE,classification=success,status_code=200,grpc_status_code=0} 1
    response_latency_ms_sum{ROUTE,classification=failure,failure=refused} 0.0
    response_latency_ms_count{ROUTE,classification=failure,failure=refused} 1
    response_latency_ms_sum{ROUTE,classification=success,status_code=200,grpc_status_code=0} 7.0
    response_latency_ms_count{ROUTE,classification=success,status_code=200,grpc_status_code=0} 1
    ");
    assert_eq!(lines(&registry, "response_latency_ms_bucket").len(), 52);
}

#[tokio::test(start_paused = true)]
async fn label_values_are_escaped() {
    let (registry, metrics) = metrics();
    metrics.route(Direction::Inbound, b"a\"b\\c\nd", &Labels::default(), &PLAIN).request();
    let series = lines(&registry, "request_total");
    assert_eq!(series, [r#"request_total{authority="a\"b\\c\nd",direction="inbound",tls="no_proxy_tls"} 1"#]);
}

#[tokio::test(start_paused = true)]
async fn authorities_that_clients_invent_end_as_other() {
    let (registry, metrics) = metrics();
    for n in 0..2 * MAX_AUTHORITIES {
        metrics
            .route(Direction::Inbound, format!("host{n}").as_bytes(), &Labels::default(), &PLAIN)
            .request();
    }
    metrics.route(Direction::Inbound, &[0xff], &Labels::default(), &PLAIN).request();
    metrics.route(Direction::Inbound, &[b'a'; MAX_AUTHORITY + 1], &Labels::default(), &PLAIN).request();
    let series = lines(&registry, "request_total");
    assert_eq!(series.len(), MAX_AUTHORITIES + 1);
    let other = format!(
        r#"request_total{{authority="other",direction="inbound",tls="no_proxy_tls"}} {}"#,
        MAX_AUTHORITIES + 2
    );
    assert!(series.contains(&other), "{other}");
}

#[tokio::test(start_paused = true)]
async fn idle_series_go_and_make_room_for_new_values() {
    let (registry, metrics) = metrics();
    for n in 0..MAX_AUTHORITIES {
        metrics
            .route(Direction::Inbound, format!("host{n}").as_bytes(), &Labels::default(), &PLAIN)
            .request();
    }
    registry.encode();
    tokio::time::advance(RETAIN).await;
    assert!(lines(&registry, "request_total").is_empty());
    metrics.route(Direction::Inbound, b"new", &Labels::default(), &PLAIN).request();
    assert_eq!(lines(&registry, "request_total").len(), 1);
    assert!(lines(&registry, "request_total")[0].contains("\"new\""));
}

#[tokio::test(start_paused = true)]
async fn the_gauge_of_a_connection_that_outlives_the_retention_comes_back_to_zero() {
    let (registry, metrics) = metrics();
    let open = || metrics.transport(Direction::Inbound, Side::Source, &Labels::default(), &PLAIN);
    let series = open();
    series.open();
    for _ in 0..5 {
        tokio::time::advance(RETAIN).await;
        registry.encode();
    }
    assert!(Arc::ptr_eq(&series, &open()));
    series.close(false, RETAIN);
    let gauge = lines(&registry, "tcp_open_connections{");
    assert_eq!(gauge, [r#"tcp_open_connections{direction="inbound",peer="src",tls="no_proxy_tls"} 0"#]);
    drop(series);
    tokio::time::advance(RETAIN).await;
    registry.encode();
    tokio::time::advance(RETAIN).await;
    assert!(lines(&registry, "tcp_open_connections{").is_empty());
}

#[tokio::test(start_paused = true)]
async fn bytes_are_counted_while_a_connection_is_open_and_its_end_by_its_kind() {
    let (registry, metrics) = metrics();
    let series = metrics.transport(Direction::Outbound, Side::Destination, &Labels::default(), &PLAIN);
    series.open();
    series.read(3);
    series.wrote(4);
    let labels = r#"{direction="outbound",peer="dst",tls="no_proxy_tls"}"#;
    assert_eq!(lines(&registry, "tcp_read_bytes_total"), [format!("tcp_read_bytes_total{labels} 3")]);
    assert_eq!(lines(&registry, "tcp_write_bytes_total"), [format!("tcp_write_bytes_total{labels} 4")]);
    assert!(lines(&registry, "tcp_close_total").is_empty());
    series.close(true, Duration::from_secs(1));
    let closed =
        r#"tcp_close_total{direction="outbound",peer="dst",tls="no_proxy_tls",classification="failure"} 1"#;
    assert_eq!(lines(&registry, "tcp_close_total"), [closed]);
    assert_eq!(lines(&registry, "tcp_connection_duration_ms_count").len(), 1);
}

#[tokio::test(start_paused = true)]
async fn the_destination_service_is_up_over_something_or_down() {
    let (registry, metrics) = metrics();
    assert!(lines(&registry, "destination_up").is_empty(), "nobody has tried");
    metrics.discovery.link(None);
    assert_eq!(lines(&registry, "destination_up"), ["destination_up 0"]);
    metrics.discovery.link(Some(TlsStatus::Plain(Why::NoConfig)));
    assert_eq!(lines(&registry, "destination_up"), [r#"destination_up{tls="no_config"} 1"#]);
}

#[tokio::test(start_paused = true)]
async fn senseless_input_and_released_greetings_are_counted_by_kind() {
    let (registry, metrics) = metrics();
    metrics.malformed(Malformed::Tap);
    metrics.greeting_released(true);
    assert!(
        lines(&registry, "malformed_input_total")
            .contains(&r#"malformed_input_total{source="tap"} 1"#.to_owned())
    );
    assert_eq!(
        lines(&registry, "greeting_released_total"),
        [
            r#"greeting_released_total{known_peer="false"} 0"#,
            r#"greeting_released_total{known_peer="true"} 1"#
        ]
    );
}
