//! What is shipped for Prometheus, judged by Prometheus' own tool.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::{path::Path, process::Command};

use clap::Parser;
use conduit_cli::{
    args::{Cli, Command as Subcommand},
    install::manifest,
};
use conduit_observe::sources::prometheus::{ALERTS, RULES};

/// Runs the tool in `folder`. A machine without it is told that nothing was tested; `CONDUIT_PROMETHEUS=required` makes
/// that a failure.
fn promtool(folder: &Path, arguments: &[&str]) {
    let output = match Command::new("promtool").args(arguments).current_dir(folder).output() {
        Ok(output) => output,
        Err(error) => {
            let required = std::env::var_os("CONDUIT_PROMETHEUS").is_some_and(|value| value == "required");
            assert!(!required, "promtool cannot be run: {error}");
            eprintln!(
                "SKIPPED: promtool cannot be run ({error}); install Debian's package prometheus to test with it"
            );
            return;
        }
    };
    let text =
        [output.stdout, output.stderr].map(|text| String::from_utf8_lossy(&text).into_owned()).concat();
    assert!(output.status.success(), "promtool {arguments:?}: {text}");
}

/// What the bundled Prometheus finds in its folder.
fn configuration() -> Vec<(String, String)> {
    let args = ["conduit", "install", "--prometheus-replicas=1"];
    let cli = Cli::try_parse_from(args).unwrap();
    let Subcommand::Install(args) = cli.command else { panic!("not install") };
    let objects = manifest::sections(&args.options(&cli.global)).into_iter().flat_map(|(_, objects)| objects);
    let is_it = |object: &serde_json::Value| object["metadata"]["name"] == "prometheus-config";
    let object = objects.into_iter().find(is_it).expect("a ConfigMap");
    let files = object["data"].as_object().unwrap().iter();
    files.map(|(name, text)| (name.clone(), without_kubernetes(text.as_str().unwrap()))).collect()
}

/// Debian builds Prometheus without what finds pods through the API server; everything else can be judged by it.
fn without_kubernetes(text: &str) -> String {
    let is_discovery = |line: &&str| {
        let discovery = ["kubernetes_sd_configs:", "- role: pod", "namespaces:", "names: ["];
        discovery.iter().any(|known| line.trim_start().starts_with(known))
    };
    text.lines().filter(|line| !is_discovery(line)).map(|line| format!("{line}\n")).collect()
}

#[test]
fn the_bundled_configuration_and_its_rules_are_sound() {
    let folder = tempfile::tempdir().unwrap();
    for (name, text) in configuration() {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    promtool(folder.path(), &["check", "config", "--lint=all", "--lint-fatal", "prometheus.yml"]);
}

#[test]
fn alerts_fire_when_they_must_and_rules_add_up() {
    let folder = tempfile::tempdir().unwrap();
    let files = [("rules.yml", RULES), ("alerts.yml", ALERTS), ("test.yml", include_str!("alerts_test.yml"))];
    for (name, text) in files {
        std::fs::write(folder.path().join(name), text).unwrap();
    }
    promtool(folder.path(), &["test", "rules", "test.yml"]);
}
