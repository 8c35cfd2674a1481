//! The program itself: exit codes, what goes to stdout and what to stderr.

#![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::{
    io::Write,
    process::{Command, Output, Stdio},
};

fn conduit(args: &[&str], stdin: &str) -> Output {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conduit"));
    // Whatever cluster or demo this machine has is not asked.
    command.args(args).env_clear().env("KUBECONFIG", "/nonexistent").env("HOME", "/nonexistent");
    command.env("XDG_RUNTIME_DIR", "/nonexistent");
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut child = command.spawn().expect("it starts");
    // A program that does not read its stdin closes it.
    let _ = child.stdin.take().expect("a pipe").write_all(stdin.as_bytes());
    child.wait_with_output().expect("it ends")
}

#[track_caller]
fn outcome(args: &[&str], stdin: &str) -> (Option<i32>, String, String) {
    let Output { status, stdout, stderr } = conduit(args, stdin);
    let text = |bytes| String::from_utf8(bytes).expect("text");
    (status.code(), text(stdout), text(stderr))
}

const POD: &str =
    "apiVersion: v1\nkind: Pod\nmetadata:\n  name: p\nspec:\n  containers:\n  - name: c\n    image: i\n";

#[test]
fn manifests_go_to_stdout_and_reports_to_stderr() {
    let (code, injected, report) = outcome(&["inject", "--tls=optional", "-"], POD);
    assert_eq!((code, report.as_str()), (Some(0), "pod \"p\" injected\n"));
    assert!(injected.contains("name: conduit-proxy"));
    let (code, restored, report) = outcome(&["uninject", "-"], &injected);
    assert_eq!((code, restored.as_str(), report.as_str()), (Some(0), POD, "pod \"p\" uninjected\n"));
}

#[test]
fn a_malformed_document_anywhere_leaves_stdout_empty() {
    let stream = format!("{POD}---\na: 1\na: 2\n");
    for command in ["inject", "uninject"] {
        let (code, stdout, stderr) = outcome(&[command, "-"], &stream);
        assert_eq!((code, stdout.as_str()), (Some(1), ""));
        assert_eq!(stderr, "error: <stdin>: document 2, line 11: duplicate mapping key: a\n");
    }
}

#[test]
fn what_is_not_about_kubernetes_is_passed_on_with_a_note() {
    for text in ["", "a: 1\n", "just text\n", "- a\n"] {
        let note = "note: there is no Kubernetes object in it\n".to_owned();
        assert_eq!(outcome(&["inject", "-"], text), (Some(0), text.to_owned(), note), "{text:?}");
    }
}

#[test]
fn usage_errors_end_with_code_1_and_name_flag_and_value() {
    let cases: [(&[&str], &str); 23] = [
        (&[], "Usage"),
        (&["inject"], "<FILE>"),
        (&["install", "app.yml"], "'app.yml'"),
        (&["version", "x"], "'x'"),
        (&["reinstall"], "'reinstall'"),
        (&["install", "--tls=on"], "'on' for '--tls"),
        (&["install", "-c", "A"], "'A' for '--conduit-namespace"),
        (&["inject", "-", "--metrics-port", "4190"], "--control-port and --metrics-port are both 4190"),
        (&["completion", "tcsh"], "'tcsh'"),
        (&["install", "--prometheus-image", ""], "not an image"),
        (&["install", "--controller-replicas", "0"], "use 1 to 100"),
        (&["install", "--kube-version", "1.19"], "needs Kubernetes 1.20 or later"),
        (&["install", "--kube-version", "newest"], "use one such as 1.30"),
        (&["install", "--prometheus-replicas", "many"], "use 0 to 100"),
        (&["install", "--prometheus-url", "prometheus:9090"], "such as http://prometheus.monitoring:9090"),
        (&["stat", "po", "-l", "a b"], "write app=web"),
        (&["inject", "-", "--skip-inbound-ports", "80,x"], "use a number from 1 to 65535"),
        (&["stat", "deploy", "-t", "1x"], "'1x' for '--time-window"),
        (&["tap", "deploy", "--max-rps", "-1"], "'-1' for '--max-rps"),
        (&["demo", "--rps", "-1"], "'-1' for '--rps"),
        (&["stat", "widgets"], "\"widgets\" is not a type of resource"),
        (&["stat", "deploy", "--to", "deploy/"], "'deploy/' for '--to"),
        (&["stat", "deploy", "--api-addr", "https://127.0.0.1:1"], "the API speaks plain HTTP"),
    ];
    for (args, expected) in cases {
        let (code, stdout, stderr) = outcome(args, "");
        assert_eq!((code, stdout.as_str()), (Some(1), ""), "{args:?}");
        assert!(stderr.contains(expected), "{args:?}: {stderr}");
    }
}

#[test]
fn tls_is_in_the_help_of_install_and_inject() {
    for command in ["install", "inject"] {
        let (code, help, _) = outcome(&[command, "--help"], "");
        assert_eq!(code, Some(0));
        assert!(help.contains("--tls <MODE>") && help.contains("[default: disabled]"), "{help}");
    }
}

#[test]
fn flags_that_proxies_once_needed_at_install_are_taken_with_a_note() {
    let (code, stdout, stderr) = outcome(&["install", "--proxy-uid", "7"], "");
    assert_eq!((code, stdout), (Some(0), outcome(&["install"], "").1));
    assert_eq!(
        stderr,
        "note: --proxy-uid changes nothing here: the control plane has no proxies; give it to inject\n"
    );
}

#[test]
fn the_version_is_told_without_a_control_plane() {
    let (code, stdout, stderr) = outcome(&["version", "--client", "--short"], "");
    assert_eq!((code, stdout.trim(), stderr.as_str()), (Some(0), env!("CARGO_PKG_VERSION"), ""));
    for flag in ["-V", "--version"] {
        let line = format!("conduit {}\n", env!("CARGO_PKG_VERSION"));
        assert_eq!(outcome(&[flag], ""), (Some(0), line, String::new()));
    }
    let (code, stdout, stderr) = outcome(&["version"], "");
    let expected = format!("Client version: {}\nServer version: unavailable\n", env!("CARGO_PKG_VERSION"));
    assert_eq!((code, stdout), (Some(0), expected));
    assert!(stderr.starts_with("note: "), "{stderr}");
}

#[test]
fn a_reader_that_has_seen_enough_is_no_error() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_conduit"));
    let mut child = command
        .args(["install", "--tls=optional"])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("it starts");
    drop(child.stdout.take());
    let output = child.wait_with_output().expect("it ends");
    assert_eq!((output.status.code(), output.stderr.as_slice()), (Some(0), &b""[..]));
}

#[test]
fn files_and_directories_are_read_in_order() {
    let directory = tempfile::tempdir().expect("a directory");
    let at = |name: &str| directory.path().join(name).display().to_string();
    std::fs::write(at("b.yaml"), POD.replace("name: p", "name: second")).expect("a file");
    std::fs::write(at("a.json"), "{\"kind\": \"Service\", \"metadata\": {\"name\": \"first\"}}")
        .expect("a file");
    std::fs::write(at("notes.txt"), "not: [yaml").expect("a file");
    let (code, stdout, report) = outcome(&["inject", &directory.path().display().to_string()], "");
    assert_eq!(code, Some(0));
    assert_eq!(report, "service \"first\" skipped: not a workload\npod \"second\" injected\n");
    assert!(stdout.starts_with("---\n{\"kind\"") && stdout.contains("\n---\napiVersion: v1\n"));
    let (code, stdout, stderr) = outcome(&["inject", &at("missing.yaml")], "");
    assert_eq!((code, stdout.as_str()), (Some(1), ""));
    assert!(stderr.starts_with("error: cannot read ") && stderr.contains("missing.yaml"), "{stderr}");
}
