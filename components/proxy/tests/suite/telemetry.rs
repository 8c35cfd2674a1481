//! What the metrics say, held against what happened on the wire.

use std::{net::SocketAddr, time::Duration};

use conduit_proxy::Destination;
use http::HeaderValue;

use crate::support::{
    Pod, World,
    app::nobody,
    eventually, identity,
    script::{Asked, Script, endpoint},
    serve,
    web::{Browser, Form, web},
};

const INBOUND: (&str, &str) = ("direction", "inbound");
const OUTBOUND: (&str, &str) = ("direction", "outbound");

/// Two meshed pods, and the application of the second.
struct Two {
    world: World,
    client: Pod,
    web: Pod,
    to: SocketAddr,
}

impl Two {
    /// Both without TLS.
    async fn plain() -> Self {
        let world = World::new().await;
        let (client, web_pod) = (Pod::without_tls(&world, 1).await, Pod::without_tls(&world, 2).await);
        let to = web(&web_pod, "web").await;
        world.destination.tell(to, &[(to, None)]);
        Self { world, client, web: web_pod, to }
    }

    /// Both with credentials, and known to have them.
    async fn mutual() -> Self {
        let world = World::new().await;
        let client = Pod::meshed(&world, 1, "client").await;
        let web_pod = Pod::meshed(&world, 2, "web").await;
        let to = web(&web_pod, "web").await;
        world.destination.tell(to, &[(to, Some(&identity("web")))]);
        Self { world, client, web: web_pod, to }
    }

    async fn browser(&self, form: Form) -> Browser {
        Browser::open(&self.client, self.to, form, "web.shop").await
    }

    fn is_encrypted(&self) -> bool {
        self.world.wires(self.to).iter().all(|wire| wire.is_tls())
    }
}

/// The series of a family, without the values of what differs between runs.
async fn series(pod: &Pod, family: &str) -> Vec<String> {
    let metrics = pod.admin("/metrics").await;
    metrics.lines().filter(|line| line.starts_with(&format!("{family}{{"))).map(str::to_owned).collect()
}

#[tokio::test]
async fn requests_are_counted_on_both_sides_under_exactly_these_series() {
    for form in Form::ALL {
        let two = Two::plain().await;
        assert!(series(&two.client, "request_total").await.is_empty());
        two.browser(form).await.get("/").await;
        let pod = two.to.ip();
        assert_eq!(
            series(&two.client, "request_total").await,
            [format!(
                r#"request_total{{authority="web.shop",direction="outbound",dst_pod="{pod}",dst_service="web",tls="disabled"}} 1"#
            )],
            "{form:?}"
        );
        assert_eq!(
            series(&two.web, "request_total").await,
            [r#"request_total{authority="web.shop",direction="inbound",tls="disabled"} 1"#]
        );
    }
}

#[tokio::test]
async fn over_tls_both_sides_name_both_ends() {
    for form in Form::ALL {
        let two = Two::mutual().await;
        two.browser(form).await.get("/").await;
        assert!(two.is_encrypted());
        let (client, web) = (identity("client"), identity("web"));
        let tls = format!(r#"tls="true",client_id="{client}",server_id="{web}""#);
        let inbound = series(&two.web, "request_total").await;
        assert_eq!(
            inbound,
            [format!(r#"request_total{{authority="web.shop",direction="inbound",{tls}}} 1"#)]
        );
        let outbound = series(&two.client, "request_total").await;
        assert!(outbound.len() == 1 && outbound[0].contains(&tls), "{outbound:?}");
    }
}

#[tokio::test]
async fn a_request_under_way_is_counted_already_and_its_response_is_not() {
    let two = Two::plain().await;
    let mut browser = two.browser(Form::Http2).await;
    let hanging = tokio::spawn(async move { drop(browser.try_get("/hang").await) });
    for (pod, direction) in [(&two.client, OUTBOUND), (&two.web, INBOUND)] {
        pod.until_metric("request_total", &[direction], 1.0).await;
        assert!(series(pod, "response_total").await.is_empty());
    }
    hanging.abort();
    for (pod, direction) in [(&two.client, OUTBOUND), (&two.web, INBOUND)] {
        pod.until_metric("response_total", &[direction, ("failure", "canceled")], 1.0).await;
    }
}

#[tokio::test]
async fn responses_are_classified_by_grpc_status_and_then_by_http_status() {
    for two in [Two::plain().await, Two::mutual().await] {
        let mut browser = two.browser(Form::Http2).await;
        let table = [
            ("/status/200", "200", None, "success"),
            ("/status/304", "304", None, "success"),
            ("/status/400", "400", None, "success"),
            ("/status/418", "418", None, "success"),
            ("/status/500", "500", None, "failure"),
            ("/status/504", "504", None, "failure"),
            ("/grpc/0", "200", Some("0"), "success"),
            ("/grpc/14", "200", Some("14"), "failure"),
        ];
        for (path, status, grpc, classification) in table {
            browser.get(path).await;
            for (pod, direction) in [(&two.client, OUTBOUND), (&two.web, INBOUND)] {
                let labels = [direction, ("status_code", status), ("classification", classification)];
                let labels: Vec<_> =
                    labels.into_iter().chain(grpc.map(|code| ("grpc_status_code", code))).collect();
                pod.until_metric("response_total", &labels, 1.0).await;
            }
        }
    }
}

#[tokio::test]
async fn latencies_fall_into_their_buckets_cumulatively() {
    let two = Two::plain().await;
    let mut browser = two.browser(Form::Http1).await;
    browser.get("/delay/41").await;
    browser.get("/delay/110").await;
    for (pod, direction) in [(&two.client, OUTBOUND), (&two.web, INBOUND)] {
        pod.until_metric("response_latency_ms_count", &[direction], 2.0).await;
        let upto = async |bound| pod.metric("response_latency_ms_bucket", &[direction, ("le", bound)]).await;
        assert_eq!(upto("40.0").await, 0.0);
        assert!(upto("100.0").await <= 1.0);
        assert_eq!(upto("+Inf").await, 2.0);
        assert!(pod.metric("response_latency_ms_sum", &[direction]).await >= 151.0);
    }
}

#[tokio::test]
async fn a_request_that_gets_no_response_is_a_failure_that_counts() {
    let world = World::new().await;
    let (client, web_pod) = (Pod::without_tls(&world, 1).await, Pod::without_tls(&world, 2).await);
    let to = nobody(&web_pod).await;
    drop(Browser::open(&client, to, Form::Http2, "web").await.try_get("/").await);
    client.until_metric("response_total", &[OUTBOUND, ("classification", "failure")], 1.0).await;
    assert_eq!(client.metric("request_total", &[OUTBOUND]).await, 1.0);
}

/// A client whose destination service is scripted, and an unmeshed server that it is told of.
async fn scripted(world: &World) -> (Pod, SocketAddr, Script) {
    let script = Script::start().await;
    let client = Pod::with(world, 1, |config| {
        let (host, port) = (script.addr.ip().to_string(), script.addr.port());
        config.destination = Some(Destination { host, port, identity: None });
    })
    .await;
    let to = web(&Pod::plain(world, 2), "web").await;
    (client, to, script)
}

async fn first_answer(
    mut script: Script,
    labels: &[(&str, &str)],
    sent: (SocketAddr, &[(&str, &str)]),
) -> (Script, Asked) {
    let asked = script.asked().await;
    asked.snapshot(labels, vec![endpoint(sent.0, None, sent.1)]);
    (script, asked)
}

#[tokio::test]
async fn the_labels_of_service_and_pod_are_on_requests_and_connections_and_follow_their_changes() {
    let world = World::new().await;
    let (client, to, script) = scripted(&world).await;
    let mut browser = Browser::open(&client, to, Form::Http1, "web").await;
    let pod = [("pod", "web-1"), ("deployment", "web")];
    let (asked, answer) = tokio::join!(
        first_answer(script, &[("service", "web"), ("namespace", "shop")], (to, &pod)),
        browser.get("/")
    );
    assert_eq!(answer.0, 200);
    let labels = r#"dst_deployment="web",dst_namespace="shop",dst_pod="web-1",dst_service="web""#;
    for family in ["request_total", "response_total", "tcp_open_total"] {
        let shown = series(&client, family).await;
        assert_eq!(shown.iter().filter(|line| line.contains(labels)).count(), 1, "{shown:?}");
    }
    asked.1.diff(vec![endpoint(to, None, &[("pod", "web-1"), ("deployment", "web-next")])], &[]);
    while client.metric("request_total", &[OUTBOUND, ("dst_deployment", "web-next")]).await == 0.0 {
        browser.get("/").await;
    }
    assert!(
        client.metric("request_total", &[OUTBOUND, ("dst_deployment", "web")]).await >= 1.0,
        "the old series stays"
    );
}

#[tokio::test]
async fn connections_of_http_are_counted_at_both_ends_of_both_proxies() {
    for (two, tls) in [(Two::plain().await, "disabled"), (Two::mutual().await, "true")] {
        let browser = {
            let mut browser = two.browser(Form::Http1).await;
            browser.get("/").await;
            browser.get("/").await;
            browser
        };
        let ends = [
            (&two.client, OUTBOUND, "src", "internal_traffic"),
            (&two.client, OUTBOUND, "dst", tls),
            (&two.web, INBOUND, "src", tls),
            (&two.web, INBOUND, "dst", "loopback"),
        ];
        for (pod, direction, peer, tls) in ends {
            let labels = [direction, ("peer", peer), ("tls", tls)];
            pod.until_metric("tcp_open_total", &labels, 1.0).await;
            pod.until_metric("tcp_open_connections", &labels, 1.0).await;
            assert!(
                pod.metric("tcp_read_bytes_total", &labels).await > 0.0,
                "{peer} {direction:?}, while it is open"
            );
            assert!(
                pod.metric("tcp_write_bytes_total", &labels).await > 0.0,
                "{peer} {direction:?}, while it is open"
            );
            assert_eq!(pod.metric("tcp_close_total", &labels).await, 0.0);
        }
        drop(browser);
        for (pod, direction, peer, tls) in ends {
            let labels = [direction, ("peer", peer), ("tls", tls)];
            pod.until_metric("tcp_open_connections", &labels, 0.0).await;
            pod.until_metric("tcp_close_total", &labels, 1.0).await;
            pod.until_metric("tcp_connection_duration_ms_count", &labels, 1.0).await;
        }
    }
}

#[tokio::test]
async fn opaque_bytes_are_counted_exactly_and_while_they_pass() {
    for two in [Two::plain().await, Two::mutual().await] {
        let to = serve(&two.web, |mut server| async move {
            server.expect("\x01ping").await;
            server.send("pong!").await;
            drop(server.rest().await);
        })
        .await;
        two.world.destination.tell(to, &[(to, two.is_mutual().then_some(&identity("web")))]);
        let mut io = two.client.connect(to).await;
        io.send("\x01ping").await;
        io.expect("pong!").await;
        for (pod, direction) in [(&two.client, OUTBOUND), (&two.web, INBOUND)] {
            let (src, dst) = ([direction, ("peer", "src")], [direction, ("peer", "dst")]);
            pod.until_metric("tcp_read_bytes_total", &src, 5.0).await;
            pod.until_metric("tcp_write_bytes_total", &dst, 5.0).await;
            pod.until_metric("tcp_read_bytes_total", &dst, 5.0).await;
            pod.until_metric("tcp_write_bytes_total", &src, 5.0).await;
            pod.until_metric("tcp_open_connections", &src, 1.0).await;
        }
        drop(io);
        for (pod, direction) in [(&two.client, OUTBOUND), (&two.web, INBOUND)] {
            pod.until_metric("tcp_open_connections", &[direction, ("peer", "src")], 0.0).await;
            pod.until_metric("tcp_open_connections", &[direction, ("peer", "dst")], 0.0).await;
        }
    }
}

impl Two {
    fn is_mutual(&self) -> bool {
        self.client.proxy().files.path().join("tls.crt").exists()
    }
}

#[tokio::test]
async fn after_a_fallback_every_number_says_what_was_on_the_wire() {
    for form in Form::ALL {
        let two = Two::mutual().await;
        // The destination service is wrong about who answers there.
        two.world.destination.tell(two.to, &[(two.to, Some(&identity("somebody-else")))]);
        let (status, body) = two.browser(form).await.get("/").await;
        assert_eq!((status, body.as_str()), (200, "web"));
        let fell_back = [("tls", "handshake_failed")];
        let outbound = [&fell_back[..], &[OUTBOUND]].concat();
        two.client.until_metric("request_total", &outbound, 1.0).await;
        two.client.until_metric("response_total", &outbound, 1.0).await;
        two.client.until_metric("tcp_open_total", &[&outbound[..], &[("peer", "dst")]].concat(), 1.0).await;
        assert_eq!(two.client.metric("response_total", &[("tls", "true")]).await, 0.0);
        assert_eq!(two.client.metric("tls_fallback_total", &[]).await, 1.0);
        assert!(two.client.metric("tls_handshake_total", &[OUTBOUND, ("result", "success")]).await == 0.0);
        two.web.until_metric("response_total", &[INBOUND, ("tls", "no_proxy_tls")], 1.0).await;
        assert_eq!(two.web.metric("response_total", &[("tls", "true")]).await, 0.0);
    }
}

#[tokio::test]
async fn a_peer_without_credentials_refuses_and_both_say_so() {
    let world = World::new().await;
    let client = Pod::meshed(&world, 1, "client").await;
    let web_pod = Pod::without_credentials(&world, 2, "web").await;
    let to = web(&web_pod, "web").await;
    world.destination.tell(to, &[(to, Some(&identity("web")))]);
    assert_eq!(Browser::open(&client, to, Form::Http1, "web").await.get("/").await, (200, "web".into()));
    web_pod.until_metric("tls_refused_total", &[("reason", "no_config")], 1.0).await;
    web_pod.until_metric("response_total", &[INBOUND, ("tls", "no_config")], 1.0).await;
    let refused = [OUTBOUND, ("tls", "handshake_failed"), ("tls_reason", "refused")];
    client.until_metric("response_total", &refused, 1.0).await;
}

#[tokio::test]
async fn reloads_are_counted_by_class_and_the_certificates_end_is_shown() {
    let world = World::new().await;
    let pod = Pod::without_credentials(&world, 1, "web").await;
    pod.until_metric("tls_config_reload_total", &[("status", "io_error"), ("errno", "ENOENT")], 1.0).await;
    assert_eq!(pod.metric("tls_usable", &[("tls", "no_config")]).await, 0.0);
    assert!(series(&pod, "tls_certificate_not_after_seconds").await.is_empty());
    let directory = pod.proxy().files.path();
    world.authority.issue(&identity("web")).write(directory);
    pod.until_metric("tls_config_reload_total", &[("status", "reloaded")], 1.0).await;
    assert_eq!(pod.metric("tls_usable", &[("tls", "true")]).await, 1.0);
    let end = pod.metric("tls_certificate_not_after_seconds", &[]).await;
    assert_eq!(end, (crate::support::NOW + 26 * crate::support::HOUR).as_secs() as f64);
    world.authority.issue(&identity("somebody-else")).write(directory);
    eventually(async || {
        let classes = series(&pod, "tls_config_reload_total").await;
        classes.iter().any(|line| !line.contains("io_error") && !line.contains("reloaded"))
    })
    .await;
    assert_eq!(pod.metric("tls_usable", &[("tls", "true")]).await, 1.0, "what works is kept");
}

#[tokio::test]
async fn probes_of_the_kubelet_have_a_label_of_their_own() {
    let world = World::new().await;
    let web_pod = Pod::meshed(&world, 2, "web").await;
    let kubelet = Pod::plain(&world, 9);
    let to = web(&web_pod, "web").await;
    let mut probe = Browser::open(&kubelet, to, Form::Http1, "web").await;
    probe.headers.insert("user-agent", HeaderValue::from_static("kube-probe/1.33"));
    assert_eq!(probe.get("/").await.0, 200);
    web_pod.until_metric("response_total", &[INBOUND, ("tls", "kubelet_probe")], 1.0).await;
    assert_eq!(web_pod.metric("response_total", &[("tls", "no_proxy_tls")]).await, 0.0);
}

#[tokio::test]
async fn metrics_are_valid_open_metrics_whatever_peers_call_themselves() {
    let two = Two::plain().await;
    let outsider = Pod::plain(&two.world, 9);
    let mut io = outsider.connect(two.to).await;
    io.send("GET / HTTP/1.1\r\nhost: a\"b,c\\d\r\n\r\n").await;
    io.head().await;
    two.browser(Form::Http1).await.get("/").await;
    for pod in [&two.client, &two.web] {
        let metrics = pod.admin("/metrics").await;
        assert!(metrics.ends_with("# EOF\n"));
        for line in metrics.lines().filter(|line| !line.starts_with('#')) {
            assert_eq!(well_formed(line), Ok(()), "{line}");
        }
    }
}

/// Judges a sample line: a name, labels with escaped values, a number.
fn well_formed(line: &str) -> Result<(), &'static str> {
    let name_end = line.find(|c: char| !(c.is_ascii_alphanumeric() || c == '_')).ok_or("a name alone")?;
    let mut rest = &line[name_end..];
    if let Some(labels) = rest.strip_prefix('{') {
        rest = labels;
        while !rest.starts_with('}') {
            let (key, value) = rest.split_once("=\"").ok_or("a label without a value")?;
            let valid = |c: char| c.is_ascii_alphanumeric() || c == '_';
            if key.is_empty() || !key.chars().all(valid) {
                return Err("a label's name");
            }
            let mut escaped = false;
            let end = value.find(|c| {
                let ends = c == '"' && !escaped;
                escaped = c == '\\' && !escaped;
                ends
            });
            rest = &value[end.ok_or("a value without an end")? + 1..];
            rest = rest.strip_prefix(',').unwrap_or(rest);
        }
        rest = &rest[1..];
    }
    let number = rest.strip_prefix(' ').ok_or("no blank before the number")?;
    number.parse::<f64>().map(drop).map_err(|_| "no number")
}

#[tokio::test]
async fn idle_series_disappear_and_those_of_open_connections_stay() {
    let world = World::new().await;
    let web_pod =
        Pod::with(&world, 2, |config| config.timeouts.metrics_idle = Duration::from_millis(1)).await;
    let to = web(&web_pod, "web").await;
    let outsider = Pod::plain(&world, 9);
    let mut browser = Browser::open(&outsider, to, Form::Http1, "web").await;
    browser.get("/").await;
    for _ in 0..5 {
        assert_eq!(series(&web_pod, "tcp_open_connections").await.len(), 2);
    }
    drop(browser);
    for family in ["tcp_open_connections", "tcp_close_total", "response_total"] {
        eventually(async || series(&web_pod, family).await.is_empty()).await;
    }
}

#[tokio::test]
async fn only_a_process_of_its_own_shows_process_metrics() {
    let world = World::new().await;
    let shared = Pod::without_tls(&world, 1).await;
    let metrics = shared.admin("/metrics").await;
    for of_a_process in ["process_start_time_seconds", "process_cpu_seconds", "process_resident_memory"] {
        assert!(!metrics.contains(of_a_process), "{of_a_process}");
    }
    let own = Pod::with(&world, 2, |config| config.process_metrics = true).await;
    let metrics = own.admin("/metrics").await;
    for of_a_process in ["process_start_time_seconds", "process_cpu_seconds", "process_resident_memory"] {
        assert!(metrics.contains(of_a_process), "{of_a_process}");
    }
}
