//! `conduit identity`, `check` and `diagnostics` against a demo, as whoever looks for a fault runs them.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(target_os = "linux")]

use std::{
    io::Read as _,
    path::{Path, PathBuf},
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

const DEADLINE: Duration = Duration::from_secs(60);

/// A demo, killed at the end, and the directory that its commands find it by.
struct Demo {
    home: tempfile::TempDir,
    process: Child,
}

impl Drop for Demo {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
    }
}

type Told = (Option<i32>, String, String);

fn conduit(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conduit"));
    command.env("XDG_RUNTIME_DIR", home).env("TMPDIR", home).current_dir(home).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

impl Demo {
    fn start(flags: &[&str]) -> Self {
        let home = tempfile::tempdir().unwrap();
        let process = conduit(home.path()).args(["demo", "--duration", "10m"]).args(flags).spawn().unwrap();
        Self { home, process }
    }

    fn run(&self, line: &str) -> Told {
        let output = conduit(self.home.path()).args(line.split(' ')).output().unwrap();
        let text = |bytes| String::from_utf8(bytes).unwrap();
        (output.status.code(), text(output.stdout), text(output.stderr))
    }

    /// Asks again until the answer holds.
    fn until(&self, line: &str, mut holds: impl FnMut(&Told) -> bool) -> Told {
        let end = Instant::now() + DEADLINE;
        loop {
            let told = self.run(line);
            if holds(&told) {
                return told;
            }
            assert!(Instant::now() < end, "{line}: {told:?}");
            std::thread::sleep(Duration::from_millis(100));
        }
    }

    /// The octets of every private key that a pod was given.
    fn keys(&self) -> Vec<String> {
        let mut keys = Vec::new();
        let mut places: Vec<PathBuf> = vec![self.home.path().to_owned()];
        while let Some(place) = places.pop() {
            for entry in std::fs::read_dir(place).unwrap() {
                let path = entry.unwrap().path();
                if path.is_dir() {
                    places.push(path);
                } else if path.ends_with("tls.key") {
                    keys.push(std::fs::read_to_string(path).unwrap());
                }
            }
        }
        keys
    }
}

/// The ids of what did not pass, as `id result`.
fn failing(report: &Value) -> Vec<String> {
    let categories = report["categories"].as_array().into_iter().flatten();
    let checks = categories.flat_map(|category| category["checks"].as_array().unwrap());
    let failing = checks.filter(|check| check["result"] != "success");
    failing
        .map(|check| format!("{} {}", check["id"].as_str().unwrap(), check["result"].as_str().unwrap()))
        .collect()
}

#[test]
fn a_healthy_mesh_passes_serves_trusted_certificates_and_gives_no_key_away() {
    let demo = Demo::start(&[]);
    let (code, _, stderr) =
        demo.until("check --proxy --wait 30s", |told| told.1.ends_with("\nStatus check results are √\n"));
    assert_eq!(code, Some(0));
    assert!(!stderr.contains("waiting"), "a spinner where there is no terminal: {stderr}");

    let served = demo.until("identity deploy/voting -n emojivoto -o json", |told| told.0 == Some(0)).1;
    let served: Value = serde_json::from_str(&served).unwrap();
    let pod = &served["pods"][0];
    assert_eq!(
        (pod["trusted"].as_bool(), pod["name_matches"].as_bool()),
        (Some(true), Some(true)),
        "{served}"
    );
    assert_eq!(pod["chain"][0]["dns_names"][0], pod["expected"], "{served}");
    let metrics = demo.run("diagnostics proxy-metrics deploy/voting -n emojivoto").1;
    let fingerprint = pod["chain"][0]["fingerprint"].as_str().unwrap();
    assert!(metrics.contains(fingerprint), "what is loaded is what is served\n{metrics}");

    let (code, rows, _) = demo.run("diagnostics endpoints voting-svc.emojivoto:8080 -n default");
    assert!(code == Some(0) && rows.contains("voting.deployment.emojivoto.conduit-managed"), "{rows}");
    let (code, rows, stderr) = demo.run("diagnostics endpoints nothing.emojivoto:80");
    assert!(code == Some(1) && rows.is_empty() && stderr.contains("knows nothing of nothing"), "{stderr}");

    let (code, file, stderr) = demo.run("diagnostics bundle");
    assert_eq!((code, file.as_str()), (Some(0), "conduit-bundle.tar.gz\n"), "{stderr}");
    let archive = std::fs::File::open(demo.home.path().join("conduit-bundle.tar.gz")).unwrap();
    let mut text = String::new();
    flate2::read::GzDecoder::new(archive).read_to_string(&mut text).unwrap();
    for part in ["version.json", "proxies.json", "edges.json", "metrics/emojivoto/voting-"] {
        assert!(text.contains(&format!("conduit-bundle/{part}")), "{part} is missing");
    }
    let keys = demo.keys();
    assert!(keys.len() >= 4, "the demo has keys");
    let secret_lines = keys.iter().flat_map(|key| key.lines()).filter(|line| !line.starts_with("-----"));
    assert!(!secret_lines.into_iter().any(|line| text.contains(line)) && !text.contains("PRIVATE KEY"));
    let (code, _, stderr) = demo.run("diagnostics bundle");
    assert!(code == Some(1) && stderr.contains("name another file by -o"), "{stderr}");
}

#[test]
fn a_certificate_that_nobody_trusts_is_found_by_check_and_not_served() {
    let demo = Demo::start(&["--fault", "wrong-root"]);
    demo.until("check --proxy -o json", |told| {
        let report: Value = serde_json::from_str(&told.1).unwrap_or_default();
        told.0 == Some(2) && failing(&report) == ["foreign-objects warning", "proxy-tls error"]
    });
    let short = demo.run("check --proxy -o short").1;
    assert!(short.contains("emojivoto/voting-") && short.contains("bad_credentials"), "{short}");
    let (code, served, _) = demo.run("identity deploy/voting -n emojivoto");
    assert!(code == Some(1) && served.contains("no certificate that it can use"), "{served}");
    // The control plane itself is well, but for the Secret that is not its own.
    assert_eq!(demo.run("check -o short").0, Some(0));
    assert_eq!(demo.run("check -o short --fail-on warning").0, Some(2));
}

#[test]
fn a_ca_that_is_missing_is_found() {
    let demo = Demo::start(&["--fault", "ca-down"]);
    demo.until("check --proxy -o json", |told| {
        let failing = failing(&serde_json::from_str(&told.1).unwrap_or_default());
        told.0 == Some(2) && failing == ["ca-ready error", "proxy-tls error"]
    });
}

#[test]
fn what_cannot_be_asked_is_refused_in_words() {
    let demo = Demo::start(&[]);
    demo.until("get pods -n emojivoto", |told| told.1.contains("vote-bot"));
    for (line, expected) in [
        ("identity nope -n emojivoto", "there is no pod nope in the namespace emojivoto"),
        ("identity ns/emojivoto", "name a pod, or TYPE/NAME"),
        ("identity widget/x", "widget"),
        ("diagnostics proxy-metrics nope -n emojivoto", "there is no pod nope in the namespace emojivoto"),
        ("diagnostics proxy-metrics deploy/nope -n emojivoto", "deploy/nope has no pod with a proxy"),
        ("diagnostics endpoints", "<AUTHORITY>"),
        ("check --pre --proxy", "cannot be used with"),
        ("check -n emojivoto", "--proxy"),
        ("check --wait soon", "expected a whole number and a unit"),
        ("check -o yaml", "[possible values: table, short, json]"),
        ("check --api-addr 127.0.0.1:1 -o short", ""),
    ] {
        let (code, stdout, stderr) = demo.run(line);
        let expected_code = if expected.is_empty() { 2 } else { 1 };
        assert_eq!(code, Some(expected_code), "{line}: {stdout} {stderr}");
        assert!(stderr.contains(expected), "{line}: {stderr}");
    }
}
