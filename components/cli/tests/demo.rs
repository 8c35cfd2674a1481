//! `conduit demo` as a newcomer runs it. Each test has a mesh of its own; they run side by side.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(target_os = "linux")]

use std::{
    collections::BTreeMap,
    path::Path,
    process::{Child, Command, Output, Stdio},
    time::Duration,
};

use serde_json::Value;
use tokio::time::Instant;

/// Long enough for the shortest window that observe answers, and for a CA that starts late.
const DURATION: &str = "6s";
const DURATION_OF_CA_LATE: &str = "16s";
const DEADLINE: Duration = Duration::from_secs(60);

fn conduit(home: &Path) -> Command {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conduit"));
    command.env("XDG_RUNTIME_DIR", home).env("TMPDIR", home).stdin(Stdio::null());
    command.stdout(Stdio::piped()).stderr(Stdio::piped());
    command
}

/// What a demo ended with.
struct Demo {
    /// The TLS share of each authority; none without traffic.
    tls: BTreeMap<String, Option<f64>>,
    /// The reasons for plaintext, over all authorities.
    reasons: Vec<String>,
    success: BTreeMap<String, f64>,
}

fn demo(duration: &str, flags: &[&str]) -> Demo {
    let home = tempfile::tempdir().unwrap();
    let output =
        conduit(home.path()).args(["demo", "-o", "json", "--duration", duration]).args(flags).output();
    let Output { status, stdout, stderr } = output.unwrap();
    let stderr = String::from_utf8(stderr).unwrap();
    assert!(status.success(), "the application was harmed: {stderr}");
    assert!(stderr.contains(" 0 failed ("), "{stderr}");
    let left: Vec<_> =
        std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name()).collect();
    assert!(left.iter().all(|name| name == "conduit"), "left behind: {left:?}");
    assert!(!home.path().join("conduit/demo.json").exists());

    let stat: Value = serde_json::from_slice(&stdout).unwrap();
    let mut demo = Demo { tls: BTreeMap::new(), reasons: Vec::new(), success: BTreeMap::new() };
    for row in stat["rows"].as_array().unwrap() {
        let name = row["name"].as_str().unwrap().to_owned();
        demo.tls.insert(name.clone(), row["tls"].as_f64());
        demo.success.insert(name, row["success"].as_f64().unwrap());
        demo.reasons
            .extend(row["plaintext"].as_object().into_iter().flat_map(|reasons| reasons.keys().cloned()));
    }
    demo.reasons.sort();
    demo.reasons.dedup();
    demo
}

const EMOJI: &str = "emoji-svc.emojivoto:8080";
const STATUS: &str = "emoji-svc.emojivoto:8888";
const VOTING: &str = "voting-svc.emojivoto:8080";
const WEB: &str = "web-svc.emojivoto:80";

impl Demo {
    fn is_all_tls(&self, authority: &str) -> bool {
        // On a busy machine the first requests may come before the certificates.
        self.tls[authority].is_some_and(|share| share > 0.5)
    }

    fn is_all_plaintext(&self, authority: &str) -> bool {
        self.tls[authority] == Some(0.0)
    }
}

#[test]
fn everything_is_encrypted_and_only_the_doughnut_fails() {
    let demo = demo(DURATION, &[]);
    for authority in [EMOJI, STATUS, VOTING, WEB] {
        assert!(demo.is_all_tls(authority), "{authority}: {:?} {:?}", demo.tls, demo.reasons);
    }
    assert_eq!((demo.success[EMOJI], demo.success[STATUS]), (1.0, 1.0));
    assert!((0.7..0.95).contains(&demo.success[VOTING]), "{}", demo.success[VOTING]);
    assert!((0.8..0.98).contains(&demo.success[WEB]), "{}", demo.success[WEB]);
}

#[test]
fn without_a_ca_everything_works_in_plaintext() {
    let demo = demo(DURATION, &["--fault", "ca-down"]);
    assert!(
        [EMOJI, STATUS, VOTING, WEB].iter().all(|authority| demo.is_all_plaintext(authority)),
        "{:?}",
        demo.tls
    );
    assert_eq!(demo.reasons, ["no_config"]);
}

#[test]
fn a_late_ca_brings_encryption_without_a_restart() {
    let demo = demo(DURATION_OF_CA_LATE, &["--fault", "ca-late"]);
    for authority in [EMOJI, STATUS, VOTING, WEB] {
        let share = demo.tls[authority].unwrap();
        assert!(share > 0.0 && share < 1.0, "{authority}: {share}");
    }
    assert!(demo.reasons.iter().any(|reason| reason == "no_config"), "{:?}", demo.reasons);
}

#[test]
fn expired_certificates_are_as_none_but_for_the_reason() {
    let demo = demo(DURATION, &["--fault", "expired"]);
    assert!(
        [EMOJI, STATUS, VOTING, WEB].iter().all(|authority| demo.is_all_plaintext(authority)),
        "{:?}",
        demo.tls
    );
    assert_eq!(demo.reasons, ["expired"]);
}

#[test]
fn a_certificate_from_another_root_takes_only_its_own_workload_out() {
    let demo = demo(DURATION, &["--fault", "wrong-root"]);
    assert!(demo.is_all_plaintext(VOTING), "{:?}", demo.tls);
    assert!(demo.is_all_tls(EMOJI) && demo.is_all_tls(WEB), "{:?}", demo.tls);
    assert!(demo.reasons.iter().any(|reason| reason == "bad_credentials"), "{:?}", demo.reasons);
}

#[test]
fn a_secret_that_never_arrives_takes_only_its_own_workload_out() {
    let demo = demo(DURATION, &["--fault", "no-secret"]);
    assert!(demo.is_all_plaintext(VOTING), "{:?}", demo.tls);
    assert!(demo.is_all_tls(EMOJI) && demo.is_all_tls(WEB), "{:?}", demo.tls);
}

#[test]
fn an_unmeshed_workload_is_called_in_plaintext_by_the_others() {
    let demo = demo(DURATION, &["--unmeshed", "voting"]);
    assert!(demo.is_all_plaintext(VOTING), "{:?}", demo.tls);
    assert!(demo.is_all_tls(EMOJI) && demo.is_all_tls(WEB), "{:?}", demo.tls);
    assert!(demo.reasons.iter().any(|reason| reason == "no_identity"), "{:?}", demo.reasons);
}

#[test]
fn disabled_is_what_a_mesh_without_tls_says() {
    let demo = demo(DURATION, &["--tls", "disabled"]);
    assert!(
        [EMOJI, STATUS, VOTING, WEB].iter().all(|authority| demo.is_all_plaintext(authority)),
        "{:?}",
        demo.tls
    );
    assert_eq!(demo.reasons, ["disabled"]);
}

/// A demo in the background, killed when the test fails.
struct Background(Child);

impl Drop for Background {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// Asks again until the answer holds.
fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let end = Instant::now() + DEADLINE;
    while !holds() {
        assert!(Instant::now() < end, "not within {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(100));
    }
}

#[test]
fn other_commands_find_the_demo_and_an_interrupt_ends_it_at_once() {
    let home = tempfile::tempdir().unwrap();
    let mut child = Background(conduit(home.path()).args(["demo", "--duration", "10m"]).spawn().unwrap());
    let stat = || {
        let output = conduit(home.path()).args(["stat", "deploy", "-n", "emojivoto"]).output().unwrap();
        String::from_utf8(output.stdout).unwrap()
    };
    until("a row of web with traffic", || {
        stat().lines().any(|line| line.starts_with("web") && line.contains("rps"))
    });

    let pid = child.0.id().to_string();
    // The shell's own: not every machine has the program.
    assert!(Command::new("sh").args(["-c", "kill -INT $0", &pid]).status().unwrap().success());
    let told = Instant::now();
    until("the end", || child.0.try_wait().unwrap().is_some());
    assert!(told.elapsed() < Duration::from_secs(1), "it took {:?}", told.elapsed());
    assert!(child.0.wait().unwrap().success());
    assert!(!home.path().join("conduit/demo.json").exists());
}

#[test]
fn a_second_demo_leaves_the_first_one_alone_and_a_hangup_leaves_nothing_behind() {
    let home = tempfile::tempdir().unwrap();
    let mut first = Background(conduit(home.path()).args(["demo", "--duration", "10m"]).spawn().unwrap());
    let file = home.path().join("conduit/demo.json");
    until("the first demo's file", || file.exists());
    let written = std::fs::read(&file).unwrap();
    let keys = |name: &std::ffi::OsStr| name.to_string_lossy().starts_with("conduit-mesh-");
    let names = || std::fs::read_dir(home.path()).unwrap().map(|entry| entry.unwrap().file_name());
    assert_eq!(names().filter(|name| keys(name)).count(), 1);

    let second = conduit(home.path()).args(["demo", "--duration", "5s"]).output().unwrap();
    let stderr = String::from_utf8(second.stderr).unwrap();
    let expected =
        format!("the demo that runs as process {}; for this one they need --api-addr", first.0.id());
    assert!(second.status.success() && stderr.contains(&expected), "{stderr}");
    assert_eq!(std::fs::read(&file).unwrap(), written);

    let pid = first.0.id().to_string();
    assert!(Command::new("kill").args(["-HUP", &pid]).status().unwrap().success());
    until("the end", || first.0.try_wait().unwrap().is_some());
    assert!(first.0.wait().unwrap().success());
    assert_eq!(names().collect::<Vec<_>>(), ["conduit"]);
    assert!(!file.exists());
}

#[test]
fn nonsense_is_refused_with_what_is_expected() {
    let home = tempfile::tempdir().unwrap();
    for (flags, expected) in [
        (["--unmeshed", "database"], "[possible values: emoji, voting, web, vote-bot]"),
        (["--rps", "0"], "expected a number above 0"),
        (["--duration", "20"], "expected a whole number and a unit"),
        (["--fault", "earthquake"], "ca-down, ca-late, expired, wrong-root, no-secret"),
    ] {
        let output = conduit(home.path()).arg("demo").args(flags).output().unwrap();
        let stderr = String::from_utf8(output.stderr).unwrap();
        assert_eq!(output.status.code(), Some(1), "{stderr}");
        assert!(stderr.contains(expected), "{stderr}");
    }
}
