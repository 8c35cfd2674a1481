//! Where requests go, as the destination service tells it, and where they go when it tells nothing.

use std::{net::SocketAddr, time::Duration};

use conduit_identity::Identity;
use conduit_proxy::{Config, Destination};

use crate::support::{
    Pod, Wire, World,
    app::nobody,
    authority::component,
    eventually, identity,
    script::{Asked, Script, endpoint},
    web::{Browser, Form, web},
};

/// A meshed pod with credentials whose destination service is `script`.
async fn client(world: &World, script: &Script) -> Pod {
    client_with(world, script, |_| {}).await
}

async fn client_with(world: &World, script: &Script, adjust: impl FnOnce(&mut Config)) -> Pod {
    let pod = Pod::with(world, 1, |config| {
        config.destination = Some(asks(script.addr, None));
        if let Some(own) = &mut config.tls.own {
            own.identity = identity("client");
        }
        adjust(config);
    })
    .await;
    world.authority.issue(&identity("client")).write(pod.proxy().files.path());
    pod.until_tls_is("true").await;
    pod
}

fn asks(addr: SocketAddr, identity: Option<Identity>) -> Destination {
    Destination { host: addr.ip().to_string(), port: addr.port(), identity }
}

/// A ClusterIP that leads to `pod` in plain Kubernetes.
fn service(world: &World, pod: SocketAddr) -> SocketAddr {
    world.service("127.200.0.1:80", pod)
}

const SERVICE: &[(&str, &str)] = &[("service", "web")];

async fn answered(script: &mut Script, endpoints: &[(SocketAddr, Option<&Identity>)]) -> Asked {
    let asked = script.asked().await;
    tell(&asked, endpoints);
    asked
}

fn tell(asked: &Asked, endpoints: &[(SocketAddr, Option<&Identity>)]) {
    asked.snapshot(
        SERVICE,
        endpoints.iter().map(|(addr, identity)| endpoint(*addr, *identity, &[])).collect(),
    );
}

fn as_told(addr: SocketAddr) -> conduit_proto::destination::Endpoint {
    endpoint(addr, None, &[])
}

/// Asks on new connections until `name` answers.
async fn until_answered_by(client: &Pod, to: SocketAddr, name: &str) {
    eventually(async || {
        Browser::open(client, to, Form::Http1, "web").await.get("/").await == (200, name.into())
    })
    .await;
}

#[tokio::test]
async fn a_service_is_asked_for_once_for_all_protocols_and_its_endpoints_are_used() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (web_pod, other) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let to = service(&world, web(&other, "kube-proxy's choice").await);
    let endpoint = web(&web_pod, "endpoint").await;
    let told = tokio::spawn(async move {
        let asked = answered(&mut script, &[(endpoint, None)]).await;
        (script, asked)
    });
    for form in Form::ALL {
        let mut browser = Browser::open(&client, to, form, "web.shop.svc.cluster.local").await;
        for _ in 0..3 {
            assert_eq!(browser.get("/").await, (200, "endpoint".into()), "{form:?}");
        }
    }
    let (mut script, asked) = told.await.unwrap();
    assert_eq!(asked.target, "127.200.0.1:80");
    assert!(script.was_asked_no_more());
}

#[tokio::test]
async fn a_request_sent_to_the_proxy_itself_goes_by_its_authority() {
    for form in Form::ALL {
        let (world, mut script) = (World::new().await, Script::start().await);
        let web_pod = Pod::plain(&world, 2);
        let client = client(&world, &script).await;
        let endpoint = web(&web_pod, "endpoint").await;
        let told = tokio::spawn(async move { (answered(&mut script, &[(endpoint, None)]).await, script) });
        let mut browser = Browser::open(&client, client.proxy().bound.outbound, form, "Web:8080").await;
        assert_eq!(browser.get("/").await, (200, "endpoint".into()), "{form:?}");
        let (asked, _script) = told.await.unwrap();
        assert_eq!(asked.target, "web.shop.svc:8080");
    }
}

#[tokio::test]
async fn the_hosts_name_does_not_lead_a_request_away_from_its_destination() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let web_pod = Pod::plain(&world, 2);
    let client = client(&world, &script).await;
    let to = web(&web_pod, "chosen").await;
    let told = tokio::spawn(async move { (answered(&mut script, &[(to, None)]).await, script) });
    let mut browser = Browser::open(&client, to, Form::Http1, "voting.shop").await;
    assert_eq!(browser.get("/").await, (200, "chosen".into()));
    let (asked, mut script) = told.await.unwrap();
    assert_eq!(asked.target, to.to_string());
    assert!(script.was_asked_no_more());
}

#[tokio::test]
async fn a_stream_that_ends_is_opened_again_and_its_first_word_counts() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (old, new) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let (old, new) = (web(&old, "old").await, web(&new, "new").await);
    let to = service(&world, old);
    let told = tokio::spawn(async move { (answered(&mut script, &[(old, None)]).await, script) });
    until_answered_by(&client, to, "old").await;
    let (asked, mut script) = told.await.unwrap();
    asked.end();
    let _asked = answered(&mut script, &[(new, None)]).await;
    until_answered_by(&client, to, "new").await;
}

#[tokio::test]
async fn a_service_that_never_answers_costs_a_request_its_wait_and_nothing_else() {
    let (world, script) = (World::new().await, Script::start().await);
    let web_pod = Pod::plain(&world, 2);
    let client =
        client_with(&world, &script, |config| config.timeouts.discovery = Duration::from_millis(50)).await;
    let to = service(&world, web(&web_pod, "original").await);
    for form in Form::ALL {
        assert_eq!(Browser::open(&client, to, form, "web").await.get("/").await, (200, "original".into()));
    }
    client.until_metric("response_total", &[("tls", "no_discovery"), ("direction", "outbound")], 3.0).await;
}

#[tokio::test]
async fn without_any_destination_service_requests_go_where_they_were_going() {
    let (world, script) = (World::new().await, Script::start().await);
    let web_pod = Pod::plain(&world, 2);
    let client = client(&world, &script).await;
    let addr = script.stop().await;
    let to = service(&world, web(&web_pod, "original").await);
    for form in Form::ALL {
        assert_eq!(Browser::open(&client, to, form, "web").await.get("/").await, (200, "original".into()));
    }
    let note = client.admin("/ready").await;
    assert!(note.contains("destination: not reachable"), "{note}");
    // And it is used as soon as it is back.
    let mut script = Script::start_at(addr, None).await;
    let _asked = answered(&mut script, &[(to, None)]).await;
    client.until_metric("destination_up", &[], 1.0).await;
}

#[tokio::test]
async fn endpoints_outlive_the_service_and_give_way_to_the_original_destination_when_they_are_gone() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (endpoint_pod, other) = (Pod::meshed(&world, 2, "web").await, Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let (endpoint, original) = (web(&endpoint_pod, "endpoint").await, web(&other, "original").await);
    let to = service(&world, original);
    // Nobody listens there any more, which Kubernetes knows and the proxy does not.
    let (stale, gone) = (world.service("127.200.0.2:80", original), nobody(&endpoint_pod).await);
    let told = tokio::spawn(async move {
        let first = answered(&mut script, &[(endpoint, Some(&identity("web")))]).await;
        let second = answered(&mut script, &[(gone, None)]).await;
        (script, first, second)
    });
    until_answered_by(&client, to, "endpoint").await;
    // What it comes to is not the question here: Kubernetes and the destination service may disagree for a moment.
    drop(Browser::open(&client, stale, Form::Http1, "web").await.try_get("/").await);
    let (script, ..) = told.await.unwrap();
    script.stop().await;
    client.until_metric("destination_up", &[], 0.0).await;
    assert_eq!(Browser::open(&client, to, Form::Http1, "web").await.get("/").await, (200, "endpoint".into()));
    until_answered_by(&client, stale, "original").await;
}

#[tokio::test]
async fn without_the_service_an_endpoint_that_proves_nothing_is_left_to_kubernetes() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (new_owner, moved) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let endpoint = web(&new_owner, "somebody else").await;
    let to = service(&world, web(&moved, "the service").await);
    let told = tokio::spawn(async move { (answered(&mut script, &[(endpoint, None)]).await, script) });
    until_answered_by(&client, to, "somebody else").await;
    let (_asked, script) = told.await.unwrap();
    script.stop().await;
    client.until_metric("destination_up", &[], 0.0).await;
    for form in Form::ALL {
        let mut browser = Browser::open(&client, to, form, "web").await;
        assert_eq!(browser.get("/").await, (200, "the service".into()), "{form:?}");
    }
}

#[tokio::test]
async fn what_a_service_that_does_not_follow_the_cluster_says_is_doubted_until_it_does() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (new_owner, moved) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let endpoint = web(&new_owner, "somebody else").await;
    let to = service(&world, web(&moved, "the service").await);
    let told = tokio::spawn(async move { (answered(&mut script, &[(endpoint, None)]).await, script) });
    until_answered_by(&client, to, "somebody else").await;
    let (asked, _script) = told.await.unwrap();
    asked.stale(true);
    until_answered_by(&client, to, "the service").await;
    asked.stale(false);
    until_answered_by(&client, to, "somebody else").await;
}

#[tokio::test]
async fn many_stale_endpoints_are_no_reason_to_fail_either() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (dead, other) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let to = service(&world, web(&other, "original").await);
    let mut endpoints = Vec::new();
    for _ in 0..5 {
        endpoints.push((nobody(&dead).await, None));
    }
    let told = tokio::spawn(async move { (answered(&mut script, &endpoints).await, script) });
    drop(Browser::open(&client, to, Form::Http1, "web").await.try_get("/").await);
    let (_asked, script) = told.await.unwrap();
    script.stop().await;
    client.until_metric("destination_up", &[], 0.0).await;
    for form in Form::ALL {
        let mut browser = Browser::open(&client, to, form, "web").await;
        assert_eq!(browser.get("/").await, (200, "original".into()), "{form:?}");
    }
}

#[tokio::test]
async fn an_address_that_was_given_to_another_pod_meanwhile_gets_nothing_meant_for_the_old_one() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (new_owner, moved) = (Pod::meshed(&world, 2, "somebody-else").await, Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let endpoint = web(&new_owner, "somebody else").await;
    let to = service(&world, web(&moved, "the service").await);
    let told =
        tokio::spawn(
            async move { (answered(&mut script, &[(endpoint, Some(&identity("web")))]).await, script) },
        );
    drop(Browser::open(&client, to, Form::Http1, "web").await.try_get("/").await);
    let (_asked, script) = told.await.unwrap();
    script.stop().await;
    client.until_metric("destination_up", &[], 0.0).await;
    for form in Form::ALL {
        let mut browser = Browser::open(&client, to, form, "web").await;
        assert_eq!(browser.get("/").await, (200, "the service".into()), "{form:?}");
    }
}

#[tokio::test]
async fn a_service_restarted_without_its_view_takes_nothing_away_from_peers_that_prove_themselves() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (web_pod, other) = (Pod::meshed(&world, 2, "web").await, Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let endpoint = web(&web_pod, "endpoint").await;
    let to = service(&world, web(&other, "original").await);
    let told =
        tokio::spawn(
            async move { (answered(&mut script, &[(endpoint, Some(&identity("web")))]).await, script) },
        );
    until_answered_by(&client, to, "endpoint").await;
    let (_asked, script) = told.await.unwrap();
    let addr = script.stop().await;
    let mut script = Script::start_at(addr, None).await;
    let asked = script.asked().await;
    asked.unknown();
    asked.snapshot(SERVICE, Vec::new());
    client.until_metric("destination_up", &[], 1.0).await;
    for _ in 0..5 {
        assert_eq!(
            Browser::open(&client, to, Form::Http1, "web").await.get("/").await,
            (200, "endpoint".into())
        );
    }
    client.until_metric("response_total", &[("tls", "true"), ("direction", "outbound")], 6.0).await;
    assert!(world.wires(endpoint).iter().all(Wire::is_tls));
}

#[tokio::test]
async fn a_service_without_endpoints_is_the_original_destinations_business() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let (web_pod, other) = (Pod::plain(&world, 2), Pod::plain(&world, 3));
    let client = client(&world, &script).await;
    let endpoint = web(&web_pod, "endpoint").await;
    let to = service(&world, web(&other, "original").await);
    let told = tokio::spawn(async move { (answered(&mut script, &[]).await, script) });
    until_answered_by(&client, to, "original").await;
    let (asked, _script) = told.await.unwrap();
    asked.diff(vec![as_told(endpoint)], &[]);
    until_answered_by(&client, to, "endpoint").await;
    asked.diff(Vec::new(), &[endpoint]);
    until_answered_by(&client, to, "original").await;
}

#[tokio::test]
async fn requests_are_spread_over_the_endpoints_and_a_dead_one_is_left_out() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let pods = [2, 3, 4].map(|host| Pod::plain(&world, host));
    let client = client(&world, &script).await;
    let mut endpoints = Vec::new();
    for (pod, name) in pods.iter().zip(["a", "b", "c"]) {
        endpoints.push((web(pod, name).await, None));
    }
    endpoints.push((nobody(&pods[0]).await, None));
    let to = service(&world, endpoints[0].0);
    let told = tokio::spawn(async move { (answered(&mut script, &endpoints).await, script) });
    for form in [Form::Http1, Form::Http2] {
        let mut browser = Browser::open(&client, to, form, "web").await;
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..60 {
            let (status, name) = browser.get("/").await;
            assert_eq!(status, 200);
            seen.insert(name);
        }
        assert_eq!(seen.len(), 3, "{form:?} {seen:?}");
    }
    drop(told);
}

#[tokio::test]
async fn an_identity_of_another_control_plane_is_none() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let web_pod = Pod::meshed(&world, 2, "web").await;
    let client = client(&world, &script).await;
    let to = web(&web_pod, "web").await;
    let foreign = Identity::parse("web.deployment.shop.conduit-managed.other.svc.cluster.local").unwrap();
    let told = tokio::spawn(async move { (answered(&mut script, &[(to, Some(&foreign))]).await, script) });
    assert_eq!(Browser::open(&client, to, Form::Http1, "web").await.get("/").await, (200, "web".into()));
    client.until_metric("response_total", &[("tls", "no_identity"), ("direction", "outbound")], 1.0).await;
    web_pod.until_metric("response_total", &[("tls", "no_proxy_tls"), ("direction", "inbound")], 1.0).await;
    assert!(world.wires(to).iter().all(|wire| !wire.is_tls()));
    drop(told);
}

#[tokio::test]
async fn a_peer_that_gets_an_identity_is_encrypted_from_the_next_connection_on() {
    let (world, mut script) = (World::new().await, Script::start().await);
    let web_pod = Pod::meshed(&world, 2, "web").await;
    let client = client(&world, &script).await;
    let to = web(&web_pod, "web").await;
    let told = tokio::spawn(async move { (answered(&mut script, &[(to, None)]).await, script) });
    until_answered_by(&client, to, "web").await;
    let (asked, _script) = told.await.unwrap();
    asked.diff(vec![endpoint(to, Some(&identity("web")), &[])], &[]);
    eventually(async || {
        assert_eq!(Browser::open(&client, to, Form::Http2, "web").await.get("/").await, (200, "web".into()));
        client.metric("response_total", &[("tls", "true"), ("direction", "outbound")]).await >= 1.0
    })
    .await;
}

#[tokio::test]
async fn the_destination_service_is_asked_over_tls_and_must_prove_its_name() {
    for (proves, note) in [
        ("destination", "destination: connected over TLS"),
        ("observe", "destination: connected in plaintext: handshake_failed, wrong_name"),
    ] {
        let world = World::new().await;
        let served = world.authority.loaded(&component(proves), &world.clock);
        let mut script = Script::start_at(([127, 0, 0, 1], 0).into(), Some(served)).await;
        let web_pod = Pod::plain(&world, 2);
        let client = client_with(&world, &script, |config| {
            config.destination = Some(asks(script.addr, Some(component("destination"))));
            config.timeouts.discovery = Duration::from_millis(500);
        })
        .await;
        let to = service(&world, web(&web_pod, "web").await);
        let told = tokio::spawn(async move { (script.asked().await, script) });
        assert_eq!(Browser::open(&client, to, Form::Http1, "web").await.get("/").await, (200, "web".into()));
        eventually(async || client.admin("/ready").await.contains(note)).await;
        assert_eq!(
            told.is_finished(),
            proves == "destination",
            "who does not prove its name is told nothing"
        );
        told.abort();
    }
}
