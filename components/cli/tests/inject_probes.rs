//! The `tcpSocket` probes of applications: which ones the proxy is asked instead, and how they come back. That they come
//! back to the byte is tested over every manifest beside this.

#![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

mod support;

use std::collections::BTreeSet;

use conduit_cli::yaml::emit;
use conduit_proxy::probe::TcpProbe;
use conduit_runtime::env::Env;
use serde_json::{Value, json};
use support::{bare_manifests, inject, options, uninject, values};

fn manifest(prefix: &str) -> String {
    bare_manifests().into_iter().find(|input| input.name.starts_with(prefix)).expect("it is there").text
}

/// A pod with one container that has this probe.
fn pod(probe: &Value) -> String {
    let container = json!({
        "name": "web", "ports": [{"name": "http", "containerPort": 8080}], "readinessProbe": probe,
    });
    json!({"apiVersion": "v1", "kind": "Pod", "metadata": {"name": "web"}, "spec": {"containers": [container]}})
        .to_string()
}

/// The probe after injection.
fn injected(probe: &Value, flags: &[&str]) -> Value {
    let injected = values(&inject(&pod(probe), &options(flags)).text).remove(0);
    let containers = injected["spec"]["containers"].as_array().expect("containers").clone();
    let web = containers.iter().find(|container| container["name"] == "web").expect("it stays");
    web["readinessProbe"].clone()
}

#[test]
fn the_proxy_is_asked_for_what_the_redirect_takes_and_nothing_else() {
    let asked = |port: u64, seconds: u64| json!({"httpGet": {"path": format!("/probe/tcp/{port}/{seconds}"), "port": 4191}});
    for (probe, expected) in [
        (json!({"tcpSocket": {"port": 80}}), asked(80, 1)),
        (json!({"tcpSocket": {"port": "http"}}), asked(8080, 1)),
        (json!({"tcpSocket": {"port": "80", "host": ""}}), asked(80, 1)),
    ] {
        assert_eq!(injected(&probe, &[]), expected);
        assert_eq!(injected(&probe, &["--native-sidecar", "--tls=optional"]), expected);
    }
    let slow = json!({"timeoutSeconds": 9, "tcpSocket": {"port": 80}, "periodSeconds": 30});
    assert_eq!(
        injected(&slow, &["--metrics-port", "5000"]),
        json!({"timeoutSeconds": 9, "httpGet": {"path": "/probe/tcp/80/9", "port": 5000}, "periodSeconds": 30})
    );
    for stays in [
        json!({"tcpSocket": {"port": 25}}),
        json!({"tcpSocket": {"port": 4191}}),
        json!({"tcpSocket": {"port": "unknown"}}),
        json!({"tcpSocket": {"port": 0}}),
        json!({"tcpSocket": {"port": 70_000}}),
        json!({"tcpSocket": {"port": 80, "host": "10.0.0.1"}}),
        json!({"tcpSocket": {}}),
        json!({"tcpSocket": null}),
        json!({"httpGet": {"port": 80}}),
        json!({"grpc": {"port": 80}}),
        json!({"exec": {"command": ["true"]}}),
        json!([]),
    ] {
        assert_eq!(injected(&stays, &["--skip-inbound-ports", "25"]), stays);
    }
}

#[test]
fn the_proxy_is_told_of_every_probe_that_it_will_be_asked() {
    let injected = values(&inject(&manifest("67-"), &options(&["--tls=optional"])).text).remove(0);
    let containers =
        injected["spec"]["template"]["spec"]["containers"].as_array().expect("containers").clone();
    let asked: BTreeSet<TcpProbe> = containers[1..]
        .iter()
        .flat_map(|container| {
            ["livenessProbe", "readinessProbe", "startupProbe"].map(|kind| container[kind].clone())
        })
        .filter_map(|probe| TcpProbe::of_path(probe.pointer("/httpGet/path")?.as_str()?))
        .collect();
    let probe = |port, timeout_s| TcpProbe { port, timeout_s };
    assert_eq!(asked, BTreeSet::from([probe(5432, 1), probe(5432, 3), probe(9187, 1)]));
    let variables = containers[0]["env"].as_array().expect("variables").iter().map(|variable| {
        (variable["name"].as_str().unwrap_or_default(), variable["value"].as_str().unwrap_or("shop"))
    });
    let mut env = Env::from_pairs(variables);
    assert_eq!(conduit_proxy::Config::from_env(&mut env).tcp_probes, asked);
    env.finish().expect("every value is usable");
}

#[test]
fn probes_look_like_their_surroundings() {
    for name in ["67-", "68-", "69-"] {
        let text = inject(&manifest(name), &options(&["--tls=optional"])).text;
        insta::assert_snapshot!(name.trim_end_matches('-'), text);
    }
}

/// As it comes back from a cluster, or from an editor: the probes mean again what they meant.
#[test]
fn probes_come_back_from_another_text() {
    for name in ["67-", "68-", "69-", "70-"] {
        let original = manifest(name);
        let injected = values(&inject(&original, &options(&["--tls=optional"])).text).remove(0);
        for text in [emit::document(&injected), format!("{injected:#}\n"), injected.to_string()] {
            let back = values(&uninject(&text)).remove(0);
            for at in ["/spec/template/spec/containers", "/spec/containers"] {
                assert_eq!(back.pointer(at), values(&original)[0].pointer(at), "{name} {text}");
            }
        }
    }
}

#[test]
fn a_probe_whose_record_was_lost_comes_back_by_its_port() {
    let injected = inject(&pod(&json!({"tcpSocket": {"port": "http"}})), &options(&[])).text;
    let mut value = values(&injected).remove(0);
    let annotations = value["metadata"]["annotations"].as_object_mut().expect("annotations");
    assert!(annotations.shift_remove("conduit.io/replaced").is_some());
    let back = values(&uninject(&value.to_string())).remove(0);
    assert_eq!(back["spec"]["containers"][0]["readinessProbe"], json!({"tcpSocket": {"port": 8080}}));
}

#[test]
fn a_probe_that_the_user_changed_since_is_the_users() {
    let injected = inject(&pod(&json!({"tcpSocket": {"port": 80}})), &options(&[])).text;
    let mut value = values(&injected).remove(0);
    let own = json!({"httpGet": {"path": "/health", "port": 80}});
    value["spec"]["containers"][1]["readinessProbe"] = own.clone();
    let back = values(&uninject(&value.to_string())).remove(0);
    assert_eq!(back["spec"]["containers"][0]["readinessProbe"], own);
}

#[test]
fn init_containers_whose_probes_tell_nothing_are_told() {
    let report = inject(&manifest("67-"), &options(&[])).report;
    let told = "succeed whatever these do, since the proxy accepts: \"helper\"";
    assert!(report.iter().any(|line| line.contains(told)), "{report:?}");
}
