//! What is said when there is no cluster to ask: one line, with the thing, the value and the remedy.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use std::{
    io::{Read, Write},
    net::TcpListener,
    path::PathBuf,
    process::Command,
};

use rcgen::{CertificateParams, KeyPair};
use time::OffsetDateTime;

/// A directory for kubeconfigs, which is also the home of who asks.
struct Home(tempfile::TempDir);

impl Home {
    fn new() -> Self {
        Self(tempfile::tempdir().unwrap())
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    fn write(&self, name: &str, text: &str) -> String {
        std::fs::write(self.path(name), text).unwrap();
        self.path(name).display().to_string()
    }

    /// Writes a kubeconfig for the API server at `server`.
    fn kubeconfig(&self, server: &str, user: &str) -> String {
        self.write(
            "config",
            &format!(
                "current-context: here\n\
                 contexts: [{{name: here, context: {{cluster: c, user: u}}}}]\n\
                 clusters: [{{name: c, cluster: {{server: '{server}'}}}}]\n\
                 users: [{{name: u, user: {{{user}}}}}]\n"
            ),
        )
    }

    /// The error of `conduit stat deploy` with these arguments, paths without this directory.
    #[track_caller]
    fn error(&self, args: &[&str]) -> String {
        self.error_of(&["stat", "deploy"], args)
    }

    /// The same of another command.
    #[track_caller]
    fn error_of(&self, command: &[&str], args: &[&str]) -> String {
        let output = Command::new(env!("CARGO_BIN_EXE_conduit"))
            .args(command)
            .args(args)
            .env_clear()
            .env("HOME", self.0.path())
            .env("XDG_RUNTIME_DIR", self.0.path())
            .output()
            .unwrap();
        assert_eq!((output.status.code(), output.stdout.as_slice()), (Some(1), &b""[..]), "{args:?}");
        let text = String::from_utf8(output.stderr).unwrap();
        text.replace(&format!("{}/", self.0.path().display()), "")
    }
}

/// Answers every request with `status`.
fn api_server(status: &'static str, body: &'static str) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap());
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let mut request = [0; 4096];
            let _ = stream.read(&mut request);
            let length = body.len();
            let answer = format!(
                "HTTP/1.1 {status}\r\ncontent-type: application/json\r\nconnection: close\r\n\
                 content-length: {length}\r\n\r\n{body}"
            );
            let _ = stream.write_all(answer.as_bytes());
        }
    });
    url
}

const FORBIDDEN: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
    "message":"no","reason":"Forbidden","code":403}"#;

const UNAUTHORIZED: &str = r#"{"kind":"Status","apiVersion":"v1","metadata":{},"status":"Failure",
    "message":"Unauthorized","reason":"Unauthorized","code":401}"#;

#[test]
fn a_kubeconfig_that_is_not_there_is_named_with_what_else_to_do() {
    let home = Home::new();
    let expected = "error: there is no kubeconfig at .kube/config; set KUBECONFIG to one, use --kubeconfig or --api-addr, or start `conduit demo`\n";
    assert_eq!(home.error(&[]), expected);
    let missing = home.path("x").display().to_string();
    let expected = "error: there is no kubeconfig at x; set KUBECONFIG to one, use --kubeconfig or --api-addr, or start `conduit demo`\n";
    assert_eq!(home.error(&["--kubeconfig", &missing]), expected);
}

#[test]
fn a_kubeconfig_that_is_malformed_is_named_with_the_place() {
    let home = Home::new();
    let malformed = home.write("bad", "a: [");
    let expected = "error: the kubeconfig bad is malformed: line 1 column 4: unclosed bracket '['; \
                    mend it until `kubectl config view` shows it\n";
    assert_eq!(home.error(&["--kubeconfig", &malformed]), expected);
}

#[test]
fn an_unknown_context_is_named_with_the_known_ones() {
    let home = Home::new();
    let config = home.kubeconfig("http://127.0.0.1:1", "");
    let expected = "error: the kubeconfig config has no context \"there\"; it has \"here\"\n";
    assert_eq!(home.error(&["--kubeconfig", &config, "--context", "there"]), expected);
}

#[test]
fn an_api_server_that_is_not_reached_is_named_once() {
    let home = Home::new();
    let closed = TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
    let config = home.kubeconfig(&format!("https://{closed}"), "");
    let expected = format!(
        "error: no API server answers at https://{closed}/, which the context \"here\" of the kubeconfig config names: \
         Connection refused (os error 111); name another cluster by --kubeconfig or --context, or start `conduit demo`\n"
    );
    assert_eq!(home.error(&["--kubeconfig", &config]), expected);
}

#[test]
fn a_credentials_plugin_that_is_missing_is_named() {
    let home = Home::new();
    let plugin = "exec: {apiVersion: client.authentication.k8s.io/v1, command: no-such-plugin, interactiveMode: Never}";
    let config = home.kubeconfig("http://127.0.0.1:1", plugin);
    let expected = "error: the context \"here\" of the kubeconfig config gets its credentials from \"no-such-plugin\", \
                    which cannot be started: No such file or directory (os error 2); install it\n";
    assert_eq!(home.error(&["--kubeconfig", &config]), expected);
}

#[test]
fn who_may_not_look_for_what_to_uninstall_is_told_what_is_missing() {
    let home = Home::new();
    let config = home.kubeconfig(&api_server("403 Forbidden", FORBIDDEN), "");
    let expected = "error: the user of the context \"here\" of the kubeconfig config may not list the cluster role \
                    bindings; ask for that right\n";
    assert_eq!(home.error_of(&["uninstall"], &["--kubeconfig", &config]), expected);
}

#[test]
fn an_expired_client_certificate_is_why_nobody_knows_us() {
    let home = Home::new();
    let key = KeyPair::generate().unwrap();
    let mut params = CertificateParams::default();
    let at = |seconds| OffsetDateTime::from_unix_timestamp(seconds).unwrap();
    (params.not_before, params.not_after) = (at(1_600_000_000), at(1_600_086_400));
    home.write("crt", &params.self_signed(&key).unwrap().pem());
    home.write("key", &key.serialize_pem());
    let url = api_server("401 Unauthorized", UNAUTHORIZED);
    let config = home.kubeconfig(&url, "client-certificate: crt, client-key: key");
    let expected = "error: the context \"here\" of the kubeconfig config cannot be used: its client certificate expired \
                    at 2020-09-14T12:26:40Z; renew it\n";
    assert_eq!(home.error(&["--kubeconfig", &config]), expected);
}

#[test]
fn what_the_api_server_declines_with_is_one_line() {
    let home = Home::new();
    let url = api_server("401 Unauthorized", UNAUTHORIZED);
    let config = home.kubeconfig(&url, "token: wrong");
    let expected = format!(
        "error: the API server {url} does not know the user of the context \"here\" of the kubeconfig config; renew its \
         credentials\n"
    );
    assert_eq!(home.error(&["--kubeconfig", &config]), expected);

    let url =
        api_server("403 Forbidden", r#"{"kind":"Status","code":403,"reason":"Forbidden","message":"no"}"#);
    let config = home.kubeconfig(&url, "token: weak");
    let expected = "error: the user of the context \"here\" of the kubeconfig config may not list the pods of the \
                    namespace \"conduit\"; ask for that right, and for create on pods/portforward\n";
    assert_eq!(home.error(&["--kubeconfig", &config]), expected);

    let url = api_server("502 Bad Gateway", "<html>\n<body>\n no </body></html>");
    let config = home.kubeconfig(&url, "");
    let told = home.error(&["--kubeconfig", &config]);
    let expected = format!("error: cannot list the pods of the namespace \"conduit\" at {url}: ");
    assert!(told.starts_with(&expected) && told.contains("502") && told.lines().count() == 1, "{told}");
}

#[test]
fn a_control_plane_that_does_not_run_is_told_from_one_that_is_not_ready() {
    let home = Home::new();
    let url = api_server("200 OK", r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[]}"#);
    let config = home.kubeconfig(&url, "");
    let told = home.error(&["--kubeconfig", &config]);
    assert!(
        told.contains("does not run in the namespace \"conduit\"") && told.contains("`conduit install"),
        "{told}"
    );

    let pod =
        r#"{"kind":"PodList","apiVersion":"v1","metadata":{},"items":[{"metadata":{"name":"observe-1"}}]}"#;
    let url = api_server("200 OK", pod);
    let config = home.kubeconfig(&url, "");
    let told = home.error(&["--kubeconfig", &config]);
    assert!(told.ends_with("find out why with `kubectl -n conduit describe pod observe-1`\n"), "{told}");
}

#[test]
fn a_demo_goes_before_the_current_context_and_says_so() {
    let home = Home::new();
    let kubeconfig = home.kubeconfig("http://127.0.0.1:1", "");
    let demo = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = demo.local_addr().unwrap();
    std::fs::create_dir(home.path("conduit")).unwrap();
    home.write("conduit/demo.json", &format!("{{\"api_addr\": \"{address}\", \"pid\": 7, \"started\": 1}}"));
    // It accepts, and answers nothing.
    std::thread::spawn(move || demo.incoming().for_each(drop));
    let note = "note: asking the demo that runs here as process 7, not the context \"here\"";
    assert!(std::fs::create_dir(home.path(".kube")).is_ok());
    assert!(!home.error(&[]).contains("note: asking"));
    std::fs::copy(&kubeconfig, home.path(".kube/config")).unwrap();
    let told = home.error(&[]);
    assert!(told.starts_with(note), "{told}");
    assert!(!home.error(&["--kubeconfig", &kubeconfig]).contains("note: asking"));
}
