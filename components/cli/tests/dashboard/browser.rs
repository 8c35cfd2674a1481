//! Chromium, driven by chromedriver as W3C WebDriver says: JSON over HTTP. The few commands that are needed are fewer lines than
//! the second versions of libraries that a client for it would bring.

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Stdio},
    time::Duration,
};

use http::{Method, Request, StatusCode, header};
use http_body_util::{BodyExt, Full};
use hyper::client::conn::http1;
use hyper_util::rt::TokioIo;
use serde_json::{Value, json};
use tokio::time::{Instant, sleep, timeout};

/// How long anything that the page does by itself may take, on a busy machine.
const DEADLINE: Duration = Duration::from_secs(90);

/// A process that ends with its value.
pub(crate) struct Process(pub(crate) Child);

impl Drop for Process {
    fn drop(&mut self) {
        // It may have ended by itself.
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

/// A browser with one window.
pub(crate) struct Browser {
    port: u16,
    session: String,
    _driver: Process,
}

impl Browser {
    /// None where there is no browser, which is told; an error if it is required.
    pub(crate) async fn start() -> Option<Self> {
        let mut command = Command::new("chromedriver");
        command.arg("--port=0").stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::null());
        let mut child = match command.spawn() {
            Ok(child) => child,
            Err(error) => {
                let required = std::env::var_os("CONDUIT_BROWSER").is_some_and(|value| value == "required");
                assert!(!required, "chromedriver cannot be started: {error}");
                eprintln!("SKIPPED: there is no chromedriver ({error})");
                return None;
            }
        };
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        let driver = Process(child);
        let port = lines.find_map(|line| {
            line.unwrap()
                .rsplit_once("on port ")?
                .1
                .trim_end_matches('.')
                .parse()
                .ok()
                .filter(|port| *port > 0)
        });
        let mut browser = Self { port: port.unwrap(), session: String::new(), _driver: driver };
        let arguments =
            ["--headless=new", "--no-sandbox", "--disable-dev-shm-usage", "--window-size=1300,1150"];
        let wanted =
            json!({"goog:chromeOptions": {"args": arguments}, "goog:loggingPrefs": {"browser": "ALL"}});
        let session =
            browser.ask(Method::POST, "session", json!({"capabilities": {"alwaysMatch": wanted}})).await;
        browser.session = session["sessionId"].as_str().unwrap().to_owned();
        Some(browser)
    }

    pub(crate) async fn go_to(&self, url: &str) {
        self.command("url", json!({"url": url})).await;
    }

    /// What `script` returns, run in the page.
    pub(crate) async fn evaluate(&self, script: &str) -> Value {
        self.command("execute/sync", json!({"script": script, "args": []})).await
    }

    /// What `script` gives to the last of its arguments, a function.
    pub(crate) async fn evaluate_later(&self, script: &str) -> Value {
        self.command("execute/async", json!({"script": script, "args": []})).await
    }

    /// Clicks where the first element is that `selector` selects, as a person does.
    pub(crate) async fn click(&self, selector: &str) {
        let found = self.command("element", json!({"using": "css selector", "value": selector})).await;
        let id = found.as_object().unwrap().values().next().unwrap().as_str().unwrap().to_owned();
        self.command(&format!("element/{id}/click"), json!({})).await;
    }

    /// Waits until `script` returns true; the page changes by itself.
    pub(crate) async fn until(&self, script: &str) {
        let deadline = Instant::now() + DEADLINE;
        while self.evaluate(script).await != Value::Bool(true) {
            let page = self.evaluate("return document.body.innerText").await;
            assert!(Instant::now() < deadline, "never: {script}\n{page}");
            sleep(Duration::from_millis(100)).await;
        }
    }

    /// What went wrong in the page since this was last asked, as its console says.
    pub(crate) async fn complaints(&self) -> Vec<Value> {
        let entries = self.command("se/log", json!({"type": "browser"})).await;
        entries.as_array().unwrap().iter().filter(|entry| entry["level"] == "SEVERE").cloned().collect()
    }

    /// The window's picture, as PNG in base64.
    pub(crate) async fn picture(&self) -> String {
        self.ask(Method::GET, &self.path("screenshot"), Value::Null).await.as_str().unwrap().to_owned()
    }

    async fn command(&self, name: &str, parameters: Value) -> Value {
        self.ask(Method::POST, &self.path(name), parameters).await
    }

    fn path(&self, command: &str) -> String {
        format!("session/{}/{command}", self.session)
    }

    async fn ask(&self, method: Method, path: &str, parameters: Value) -> Value {
        timeout(DEADLINE, self.exchange(method, path, parameters)).await.unwrap()
    }

    async fn exchange(&self, method: Method, path: &str, parameters: Value) -> Value {
        let net = conduit_net::TokioNetwork::shared();
        let io = net.connect(([127, 0, 0, 1], self.port).into()).await.unwrap();
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await.unwrap();
        tokio::spawn(connection);
        let body = if method == Method::GET { String::new() } else { parameters.to_string() };
        let request = Request::builder()
            .method(method)
            .uri(format!("/{path}"))
            .header(header::HOST, format!("127.0.0.1:{}", self.port))
            .header(header::CONTENT_TYPE, "application/json")
            .body(Full::<bytes::Bytes>::from(body))
            .unwrap();
        let response = sender.send_request(request).await.unwrap();
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        let answer: Value = serde_json::from_slice(&body).unwrap();
        assert_eq!(status, StatusCode::OK, "{path} {parameters}: {answer}");
        answer["value"].clone()
    }
}
