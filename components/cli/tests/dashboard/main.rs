//! The dashboard of a running demo, in a real browser: chromedriver and Chromium, which `.ci/run` installs. Without them
//! these tests say so and pass, unless `CONDUIT_BROWSER` is `required`. `CONDUIT_AXE` names axe-core's script, which then
//! looks at every page; `CONDUIT_SCREENSHOTS` names a directory for pictures of them.

#![allow(clippy::unwrap_used, reason = "a test")]
#![cfg(target_os = "linux")]

mod browser;

use std::{
    io::{BufRead, BufReader},
    path::Path,
    process::{Command, Stdio},
};

use serde_json::json;

use self::browser::{Browser, Process};

/// Where the API of a demo is that runs as long as the value.
fn demo(flags: &[&str]) -> (Process, tempfile::TempDir, String) {
    let home = tempfile::tempdir().unwrap();
    let mut command = Command::new(env!("CARGO_BIN_EXE_conduit"));
    command.env("XDG_RUNTIME_DIR", home.path()).env("TMPDIR", home.path()).stdin(Stdio::null());
    command.args(["demo", "--duration", "10m"]).args(flags).stdout(Stdio::null()).stderr(Stdio::piped());
    let mut child = command.spawn().unwrap();
    let stderr = child.stderr.take().unwrap();
    let process = Process(child);
    let mut lines = BufReader::new(stderr).lines();
    let url = lines
        .find_map(|line| Some(format!("http://{}/", line.unwrap().split_once("API is at ")?.1)))
        .unwrap();
    // It must never wait for somebody to read.
    std::thread::spawn(move || lines.for_each(drop));
    (process, home, url)
}

/// The page as it is: no error on its console, nothing that axe objects to; and its picture.
async fn inspect(browser: &Browser, name: &str) {
    let complaints = browser.complaints().await;
    // That a page is missing is what its test is about.
    assert!(complaints.is_empty() || name == "missing", "{name}: {complaints:?}");
    if let Some(axe) = std::env::var_os("CONDUIT_AXE") {
        browser.evaluate(&std::fs::read_to_string(axe).unwrap()).await;
        let script = "const done = arguments[arguments.length - 1]; \
                      axe.run().then(result => done(result.violations.map(v => `${v.id}: ${v.nodes[0].html}`)))";
        assert_eq!(browser.evaluate_later(script).await, json!([]), "{name}");
    }
    if let Some(directory) = std::env::var_os("CONDUIT_SCREENSHOTS") {
        std::fs::create_dir_all(&directory).unwrap();
        let picture = browser.picture().await;
        std::fs::write(Path::new(&directory).join(format!("{name}.png.base64")), picture).unwrap();
    }
}

/// Whether the link from `from` to `to` is drawn, with its lock in a state.
fn link(from: &str, to: &str, state: &str) -> String {
    format!("return !!document.querySelector('.graph .link.{state}[data-from=\"{from}\"][data-to=\"{to}\"]')")
}

#[tokio::test]
async fn the_graph_shows_who_is_encrypted_and_why_the_rest_is_not() {
    let Some(browser) = Browser::start().await else { return };
    let (_demo, _home, url) = demo(&["--unmeshed", "voting"]);
    browser.go_to(&url).await;
    browser.until(&link("vote-bot", "web", "locked")).await;
    browser.until(&link("web", "emoji", "locked")).await;
    browser.until(&link("web", "voting", "open")).await;
    inspect(&browser, "mesh").await;
    // A lock leads to its line in the table, which has the reason.
    browser.click(".graph .link.open .body").await;
    browser
        .until("return document.querySelector('tr:target')?.innerText.includes('no_identity') ?? false")
        .await;
    browser.go_to(&format!("{url}workloads/emojivoto/deployment/voting")).await;
    browser.until(&link("web", "voting", "open")).await;
    inspect(&browser, "workload").await;
}

#[tokio::test]
async fn an_edge_is_locked_as_soon_as_its_certificates_have_come() {
    let Some(browser) = Browser::start().await else { return };
    let (_demo, _home, url) = demo(&["--fault", "ca-late"]);
    browser.go_to(&url).await;
    // Without a reload: the page does that by itself.
    browser.evaluate("window.isSame = true").await;
    browser.until(&link("vote-bot", "web", "open")).await;
    browser.until(&link("vote-bot", "web", "mixed")).await;
    browser.until("return window.isSame && document.querySelector('#banners').innerText.includes('not all encrypted')").await;
    inspect(&browser, "mixed").await;
}

#[tokio::test]
async fn requests_are_shown_as_they_come() {
    let Some(browser) = Browser::start().await else { return };
    let (_demo, _home, url) = demo(&[]);
    browser.go_to(&url).await;
    browser.until(&link("vote-bot", "web", "locked")).await;
    browser.go_to(&format!("{url}namespaces/emojivoto")).await;
    inspect(&browser, "namespace").await;
    browser.click("#pods th a[href*=web]").await;
    browser
        .until("return document.querySelector('#facts').innerText.includes('web.deployment.emojivoto')")
        .await;
    browser.click("[data-tap] button").await;
    let shown = "return [...document.querySelectorAll('.tap tbody tr')].some(row => \
                 row.innerText.includes('/api/vote') && row.innerText.includes('encrypted') && / ms/.test(row.innerText))";
    browser.until(shown).await;
    inspect(&browser, "pod").await;
    browser.click("[data-tap] button").await;
    browser.until("return document.querySelector('[data-tap] button').innerText === 'Start'").await;
    browser.go_to(&format!("{url}control-plane")).await;
    browser.until("return document.querySelector('#pods').innerText.includes('observe')").await;
    inspect(&browser, "control-plane").await;
    browser.go_to(&format!("{url}pods/emojivoto/nobody")).await;
    browser.until("return document.querySelector('#trouble').innerText.includes('no pod nobody')").await;
    inspect(&browser, "missing").await;
}
