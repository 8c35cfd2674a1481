//! `conduit upgrade` against an API server with a control plane, or with something like one.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::{process::Command, sync::Arc, time::Duration};

use clap::Parser;
use conduit_cli::{
    args::{Cli, Command as Commands},
    install::{Options, manifest},
};
use conduit_cluster::{Cluster, Config};
use conduit_k8s::owned;
use conduit_net::TokioNetwork;
use conduit_runtime::{Seed, drain};
use http::Request;
use serde_json::{Value, json};

const NAMESPACE: &str = "mesh";

fn options(flags: &[&str]) -> Options {
    let cli = Cli::try_parse_from(["conduit", "install", "-c", NAMESPACE].iter().chain(flags)).unwrap();
    let Commands::Install(args) = cli.command else { panic!("not install") };
    args.options(&cli.global)
}

/// Everything that install makes of `kind`.
fn installed(flags: &[&str], kind: &str) -> Vec<Value> {
    let objects = manifest::sections(&options(flags)).into_iter().flat_map(|(_, objects)| objects);
    objects.filter(|object| object["kind"] == kind).collect()
}

/// The address of an API server with these objects. It ends with the test's process.
fn serve(objects: Vec<Value>) -> String {
    let (told, address) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let cluster =
                Cluster::new(Config::new(Arc::new(|| Duration::from_secs(1_800_000_000)), Seed::fixed(1)));
            let (_trigger, watch) = drain::channel();
            let any = "127.0.0.1:0".parse().unwrap();
            let serving = cluster.serve(&TokioNetwork::shared(), any, watch).await.unwrap();
            let namespace = json!({"kind": "Namespace", "metadata": {"name": NAMESPACE}});
            for object in [namespace].into_iter().chain(objects) {
                let at = match object["kind"].as_str().unwrap() {
                    "Namespace" => "/api/v1/namespaces".to_owned(),
                    "ConfigMap" => format!("/api/v1/namespaces/{NAMESPACE}/configmaps"),
                    "Deployment" => format!("/apis/apps/v1/namespaces/{NAMESPACE}/deployments"),
                    other => panic!("no {other} is needed"),
                };
                let request = Request::post(at).header("content-type", "application/json");
                let request = request.body(object.to_string().into_bytes()).unwrap();
                cluster.client().request::<Value>(request).await.unwrap();
            }
            told.send(format!("http://{}", serving.addr)).unwrap();
            serving.server.await;
        });
    });
    address.recv().unwrap()
}

struct Outcome {
    code: Option<i32>,
    stdout: String,
    stderr: String,
}

/// What `conduit upgrade` says of the cluster at `url`, which is called URL in it.
fn upgrade(url: &str, args: &[&str]) -> Outcome {
    let home = tempfile::tempdir().unwrap();
    let config = json!({
        "current-context": "here",
        "contexts": [{"name": "here", "context": {"cluster": "c", "user": "u"}}],
        "clusters": [{"name": "c", "cluster": {"server": url}}],
        "users": [{"name": "u", "user": {}}],
    });
    let path = home.path().join("config");
    std::fs::write(&path, config.to_string()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_conduit"))
        .args(["upgrade", "-c", NAMESPACE])
        .args(args)
        .env_clear()
        .env("HOME", home.path())
        .env("KUBECONFIG", &path)
        .output()
        .unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap().replace(url, "URL");
    Outcome { code: output.status.code(), stdout: text(output.stdout), stderr: text(output.stderr) }
}

/// The record of an installation with `key` set to `value`, or without it.
fn record(key: &str, value: Option<&str>) -> Value {
    let mut record = installed(&["--tls=optional"], "ConfigMap").remove(0);
    match value {
        Some(value) => record["data"][key] = value.into(),
        None => drop(record["data"].as_object_mut().unwrap().shift_remove(key)),
    }
    record
}

#[test]
fn what_was_chosen_at_install_is_chosen_again_by_this_version() {
    let chosen = ["--tls=optional", "--ha", "--registry", "r.io/m", "--kube-version", "1.30"];
    let url = serve(installed(&[&chosen[..], &["-v", "0.0.1"]].concat(), "ConfigMap"));
    let Outcome { code, stdout, stderr } = upgrade(&url, &[]);
    assert_eq!((code, stdout), (Some(0), manifest::render(&options(&chosen))), "{stderr}");
    let version = env!("CARGO_PKG_VERSION");
    let said = "--tls=optional --registry=r.io/m --ha=true --kube-version=1.30";
    assert_eq!(stderr, format!("from {version} to {version}; it was installed with {said}\n"));
}

#[test]
fn help_shows_no_defaults_where_what_is_there_stays() {
    let help = |command: &str| {
        let output = Command::new(env!("CARGO_BIN_EXE_conduit")).args([command, "--help"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    let defaults = |help: &str| help.lines().filter(|line| line.contains("[default: ")).count();
    let (install, upgrade) = (help("install"), help("upgrade"));
    assert!(upgrade.contains("--tls"), "{upgrade}");
    // Those of the global flags are left.
    assert!(defaults(&install) > defaults(&upgrade) + 3, "{upgrade}");
}

#[test]
fn what_is_given_is_chosen_and_recorded_instead() {
    let url = serve(installed(&["--tls=optional", "--ha", "--api-port", "9000"], "ConfigMap"));
    let Outcome { code, stdout, stderr } =
        upgrade(&url, &["--ha=false", "--api-port", "8086", "-v", "1.2.3"]);
    assert_eq!(
        (code, &stdout),
        (Some(0), &manifest::render(&options(&["--tls=optional", "-v", "1.2.3"]))),
        "{stderr}"
    );
    let again = serve(installed(&["--tls=optional"], "ConfigMap"));
    assert_eq!(upgrade(&again, &["-v", "1.2.3"]).stdout, stdout);
}

#[test]
fn the_root_of_trust_is_neither_printed_nor_replaced() {
    let url = serve(installed(&["--tls=optional"], "ConfigMap"));
    let Outcome { stdout, .. } = upgrade(&url, &[]);
    assert!(stdout.contains("kind: Deployment"));
    assert!(!stdout.contains("kind: Secret") && !stdout.contains(owned::ROOT_SECRET));
}

#[test]
fn why_nothing_is_printed_is_told_with_what_to_do() {
    let cases = [
        ("nothing there", vec![]),
        ("no record", installed(&[], "Deployment")),
        ("newer", vec![record("version", Some("99.0.0"))]),
        ("no version", vec![record("version", None)]),
        ("odd version", vec![record("version", Some("newest"))]),
        ("no flags", vec![record("flags", None)]),
        ("unknown flag", vec![record("flags", Some("--tls=optional\n--colour=blue\n"))]),
        ("bad value", vec![record("flags", Some("--tls=maybe\n"))]),
    ];
    let told: Vec<String> = cases
        .into_iter()
        .map(|(what, objects)| {
            let Outcome { code, stdout, stderr } = upgrade(&serve(objects), &[]);
            assert_eq!((code, stdout.as_str()), (Some(1), ""), "{what}");
            format!("{what}\n  {stderr}")
        })
        .collect();
    insta::assert_snapshot!(told.join(""));
}
