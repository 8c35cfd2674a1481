use std::{
    net::Ipv4Addr,
    sync::atomic::{AtomicU32, Ordering::Relaxed},
    time::Duration,
};

use conduit_observe::Config;
use hyper::StatusCode;

use crate::support::{Injected, World};

/// A port on which nobody listens.
async fn nobody(world: &World) -> std::net::SocketAddr {
    world.net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap().local_addr()
}

/// A bot that calls web, which is encrypted, and legacy, which has no proxy.
async fn shop() -> World {
    let world = World::new().await;
    let nobody = nobody(&world).await;
    let (count, sent) = (AtomicU32::new(10), AtomicU32::new(100));
    let web = world
        .metrics(move || {
            let count = count.fetch_add(1, Relaxed);
            format!(
                "response_total{{authority=\"web.shop:80\",direction=\"inbound\",tls=\"true\",\
                 client_id=\"bot\",classification=\"success\"}} {count}\n\
                 response_latency_ms_bucket{{authority=\"web.shop:80\",direction=\"inbound\",tls=\"true\",\
                 classification=\"success\",le=\"2.0\"}} {count}\n"
            )
        })
        .await;
    let bot = world
        .metrics(move || {
            let count = sent.fetch_add(1, Relaxed);
            let line = |authority: &str, tls: &str, deployment: &str, pod: &str| {
                format!(
                    "response_total{{authority=\"{authority}\",direction=\"outbound\",tls=\"{tls}\",\
                     dst_namespace=\"shop\",dst_service=\"{deployment}\",dst_pod=\"{pod}\",\
                     classification=\"success\"}} {count}\n"
                )
            };
            line("web:80", "true", "web", "web-5d8b7c9f4-bbbbb")
                + &line("legacy", "no_identity", "legacy", "legacy-5d8b7c9f4-bbbbb")
        })
        .await;
    world.deploy("web", Injected::WithTls, web, nobody).await;
    world.deploy("bot", Injected::WithTls, bot, nobody).await;
    world.deploy("legacy", Injected::Not, nobody, nobody).await;
    world
}

fn row<'a>(answer: &'a serde_json::Value, name: &str) -> &'a serde_json::Value {
    let rows = answer["rows"].as_array().unwrap();
    rows.iter().find(|row| row["name"] == name).unwrap_or(&serde_json::Value::Null)
}

#[tokio::test]
async fn stat_is_computed_from_what_the_pods_serve() {
    let observe = shop().await.start(None).await;
    let path = "/api/v1/stat?type=deploy&namespace=shop";
    let answer = observe.until(path, |answer| row(answer, "web")["tls"] == 1.0).await;
    assert_eq!((answer["version"].as_u64(), answer["window_ms"].as_u64()), (Some(1), Some(60_000)));
    let web = row(&answer, "web");
    assert_eq!((&web["kind"], &web["meshed"], &web["running"]), (&"deployment".into(), &1.into(), &1.into()));
    assert_eq!(web["success"], 1.0);
    assert_eq!(web["latency_ms"]["p50"], 1.0);
    assert_eq!(web["peers"][0], "bot");
    let legacy = row(&answer, "legacy");
    assert_eq!((&legacy["meshed"], &legacy["tls"]), (&0.into(), &serde_json::Value::Null));
}

#[tokio::test]
async fn an_authority_without_a_proxy_behind_it_is_counted_by_its_clients() {
    let observe = shop().await.start(None).await;
    let path = "/api/v1/stat?type=au&namespace=shop";
    let answer = observe
        .until(path, |answer| {
            row(answer, "web.shop:80")["tls"] == 1.0 && row(answer, "legacy.shop:80")["tls"] == 0.0
        })
        .await;
    assert_eq!(row(&answer, "legacy.shop:80")["plaintext"].as_object().unwrap().len(), 1);
    assert_eq!(row(&answer, "web.shop:80")["meshed"], serde_json::Value::Null);
    assert_eq!(answer["rows"].as_array().unwrap().len(), 2);
}

#[tokio::test]
async fn a_pod_that_cannot_be_read_is_told_of_beside_the_rows() {
    let world = World::new().await;
    let nobody = nobody(&world).await;
    world.deploy("web", Injected::WithTls, nobody, nobody).await;
    let observe = world.start(None).await;
    let missing = |answer: &serde_json::Value| answer["unscraped"][0]["pod"] == "web-5d8b7c9f4-bbbbb";
    let answer = observe.until("/api/v1/stat?type=po&namespace=shop", missing).await;
    assert!(answer["unscraped"][0]["reason"].as_str().unwrap().contains("cannot be reached"), "{answer}");
    let (_, elsewhere) = observe.get("/api/v1/stat?type=po&namespace=default").await;
    assert_eq!(elsewhere["unscraped"], serde_json::Value::Null);
}

#[tokio::test]
async fn problems_name_the_parameter_its_value_and_the_remedy() {
    let observe = shop().await.start(None).await;
    observe.ready().await;
    let cases = [
        ("/api/v1/stat", 400, "type", "", "TYPE/NAME"),
        ("/api/v1/stat?type=widgets", 400, "type", "widgets", "deployments"),
        ("/api/v1/stat?type=po&window=1y", 400, "window", "1y", "1m30s"),
        ("/api/v1/stat?type=po&typo=1", 400, "parameter", "typo", "namespace"),
        ("/api/v1/stat?type=deploy/nope&namespace=shop", 404, "name", "nope", "shop"),
        ("/api/v1/stat?type=ns/nope", 404, "name", "nope", "nope"),
        ("/api/v1/tap?type=po&max_rps=-1", 400, "max_rps", "-1", "above 0"),
        ("/api/v1/pods?name=web", 400, "parameter", "name", "namespace"),
    ];
    for (path, status, parameter, value, remedy) in cases {
        let (found, problem) = observe.get(path).await;
        assert_eq!(found.as_u16(), status, "{path}: {problem}");
        assert_eq!((&problem["parameter"], &problem["value"]), (&parameter.into(), &value.into()), "{path}");
        assert!(problem["detail"].as_str().unwrap().contains(remedy), "{path}: {problem}");
    }
}

#[tokio::test]
async fn what_is_not_served_is_a_problem_too() {
    let observe = World::new().await.start(None).await;
    let response = observe.request(observe.bound.api, "POST", "/api/v1/stat").await;
    assert_eq!(response.status(), StatusCode::METHOD_NOT_ALLOWED);
    assert_eq!(response.headers()["content-type"], "application/problem+json");
    assert_eq!(observe.get("/api/v1/nothing").await.0, StatusCode::NOT_FOUND);
    let long = format!("/api/v1/stat?type={}", "x".repeat(600));
    assert_eq!(observe.get(&long).await.0, StatusCode::BAD_REQUEST);
}

#[tokio::test]
async fn pods_and_version_are_listed() {
    let observe = shop().await.start(None).await;
    observe.ready().await;
    let (_, pods) = observe.get("/api/v1/pods?namespace=shop").await;
    let names: Vec<_> =
        pods["pods"].as_array().unwrap().iter().map(|pod| pod["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["bot-5d8b7c9f4-bbbbb", "legacy-5d8b7c9f4-bbbbb", "web-5d8b7c9f4-bbbbb"]);
    let web = &pods["pods"][2];
    assert_eq!(
        (&web["owner"], &web["meshed"], &web["tls"]),
        (&"deployment/web".into(), &true.into(), &true.into())
    );
    let (_, version) = observe.get("/api/v1/version").await;
    assert_eq!(version["version"], env!("CARGO_PKG_VERSION"));
}

#[tokio::test]
async fn until_the_cluster_is_known_stat_says_so_and_readiness_waits() {
    let world = World::new().await;
    let deaf = conduit_k8s::client::plain(world.net.clone(), nobody(&world).await, "default").unwrap();
    let any = (Ipv4Addr::LOCALHOST, 0).into();
    let observe = world.start_with(Config { listener: any, admin: any, ..Config::default() }, deaf).await;
    let (status, problem) = observe.get("/api/v1/stat?type=po").await;
    assert_eq!((status, &problem["title"]), (StatusCode::SERVICE_UNAVAILABLE, &"not ready".into()));
    let ready = observe.request(observe.bound.admin, "GET", "/ready").await;
    assert_eq!(ready.status(), StatusCode::SERVICE_UNAVAILABLE);
    let live = observe.request(observe.bound.admin, "GET", "/live").await;
    assert_eq!(live.status(), StatusCode::OK);
}

#[tokio::test]
async fn a_drain_ends_it() {
    let observe = World::new().await.start(None).await;
    observe.ready().await;
    assert!(observe.trigger.drain(Duration::from_secs(10)).await);
    observe.running.await.unwrap().unwrap();
}
