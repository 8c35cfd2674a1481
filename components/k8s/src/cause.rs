//! Why the API server was of no use, in one line, and told once: whoever follows or writes thousands of objects meets
//! the same failure thousands of times.

use std::{error::Error as StdError, fmt, sync::Arc, time::Duration};

use kube::core::Status;
use parking_lot::Mutex;
use tokio::time::Instant;

/// How long a failure that goes on is not told again.
const REMIND: Duration = Duration::from_secs(5 * 60);
/// A failure that was not met for so long is a new one. Longer than any of our retries waits.
const FORGET: Duration = Duration::from_secs(2 * 60);
/// Causes that are told apart at a time: the memory is bounded whatever an API server comes up with.
const CAUSES: usize = 32;
/// What is kept of a message: a proxy in front of an API server may answer with a page of HTML.
const MAX_TEXT: usize = 400;

/// What the log filter of a component begins with. kube warns of each connection that an API server's restart breaks, and
/// shows whole answers that it cannot read; both are told by us, once.
const QUIET: &str = "kube_client=error";

/// The log filter of a component that talks to the API server: `wanted`, or `info` without; kube's own warnings only when
/// they are asked for by name.
pub fn log_filter(wanted: Option<&str>) -> String {
    format!("{QUIET},{}", wanted.unwrap_or("info"))
}

/// Why something failed. Displays as one line.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Cause {
    kind: String,
    text: String,
    is_everybodys: bool,
}

impl Cause {
    /// The cause `text`. Two are the same when they differ in nothing but digits: durations, moments and ports differ from
    /// one attempt to the next.
    pub fn new(text: impl fmt::Display) -> Self {
        let text = one_line(&text.to_string());
        let kind = text.chars().filter(|char| !char.is_ascii_digit()).collect();
        Self { kind, text, is_everybodys: false }
    }

    /// The cause `text`, which whoever asks this API server meets.
    pub fn no_server(text: impl fmt::Display) -> Self {
        Self { is_everybodys: true, ..Self::new(format_args!("no API server: {text}")) }
    }

    /// What the API server declined with.
    pub fn declined(status: &Status) -> Self {
        let Status { code, reason, message, .. } = status;
        let text = one_line(&format!("the API server declines: {code} {reason}: {message}"));
        Self { kind: format!("{code} {reason}"), text, is_everybodys: false }
    }

    /// `what`, unless whoever asks this API server meets the cause.
    pub fn only_of<'a>(&self, what: &'a str) -> Option<&'a str> {
        (!self.is_everybodys).then_some(what)
    }
}

impl From<&kube::Error> for Cause {
    fn from(error: &kube::Error) -> Self {
        match error {
            kube::Error::Api(status) => Self::declined(status),
            kube::Error::HyperError(error) => Self::no_server(root(error)),
            kube::Error::Service(error) => Self::no_server(root(error.as_ref())),
            other => Self::new(other),
        }
    }
}

impl fmt::Display for Cause {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

/// The innermost error: kube's and hyper's say that something failed, the one at the bottom what.
pub fn root<'a>(error: &'a (dyn StdError + 'static)) -> &'a (dyn StdError + 'static) {
    let mut cause = error;
    while let Some(deeper) = cause.source() {
        cause = deeper;
    }
    cause
}

/// `text` without its line ends, and not longer than a log wants it.
pub(crate) fn one_line(text: &str) -> String {
    let mut line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if let Some((end, _)) = line.char_indices().nth(MAX_TEXT) {
        line.truncate(end);
        line.push_str("...");
    }
    line
}

/// Decides which failures are worth telling: a new cause at once, one that goes on every few minutes. Cloning shares, so
/// that of many that ask one API server in vain only one tells.
#[derive(Debug, Clone, Default)]
pub struct News(Arc<Mutex<Vec<Met>>>);

#[derive(Debug)]
struct Met {
    /// Whose failure; nobody's in particular when the API server is away.
    what: Option<String>,
    kind: String,
    told: Instant,
    last: Instant,
    /// Nothing was told of its end yet.
    goes_on: bool,
}

impl News {
    /// Notes that `what` failed. Whether to tell it.
    pub fn failed(&self, what: &str, cause: &Cause) -> bool {
        let (now, what) = (Instant::now(), cause.only_of(what));
        let mut all = self.0.lock();
        all.retain(|met| now - met.last < FORGET);
        if let Some(met) = all.iter_mut().find(|met| met.kind == cause.kind && met.what.as_deref() == what) {
            met.last = now;
            if now - met.told < REMIND {
                return false;
            }
            (met.told, met.goes_on) = (now, true);
        } else {
            if all.len() == CAUSES {
                all.remove(0);
            }
            let (what, kind) = (what.map(str::to_owned), cause.kind.clone());
            all.push(Met { what, kind, told: now, last: now, goes_on: true });
        }
        true
    }

    /// Notes that `what` works. Whether to tell that: a failure of it was told before, and no success since.
    pub fn succeeded(&self, what: &str) -> bool {
        let mut was_told = false;
        let mut all = self.0.lock();
        for met in all.iter_mut().filter(|met| met.what.as_deref().is_none_or(|met| met == what)) {
            was_told |= std::mem::take(&mut met.goes_on);
        }
        was_told
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn forbidden(message: &str) -> Cause {
        let status =
            Status { code: 403, reason: "Forbidden".into(), message: message.into(), ..Status::default() };
        Cause::declined(&status)
    }

    #[test]
    fn a_cause_is_one_line_of_bounded_length() {
        let page = format!("<html>\n  <body>\r\n{}</body>", "denied ".repeat(200));
        let text = forbidden(&page).to_string();
        assert!(text.starts_with("the API server declines: 403 Forbidden: <html> <body> denied"), "{text}");
        assert!(!text.contains('\n') && text.chars().count() <= MAX_TEXT + 3, "{text}");
    }

    #[test]
    fn kubes_errors_are_told_by_what_lies_at_their_bottom() {
        let refused = std::io::Error::from(std::io::ErrorKind::ConnectionRefused);
        let error = kube::Error::Service(Box::new(std::io::Error::other(refused)));
        assert_eq!(Cause::from(&error).to_string(), "no API server: connection refused");
        let error = kube::Error::Api(Box::new(Status { code: 500, ..Status::default() }));
        assert_eq!(Cause::from(&error).to_string(), "the API server declines: 500 :");
    }

    #[tokio::test(start_paused = true)]
    async fn a_failure_that_goes_on_is_told_every_few_minutes() {
        let news = News::default();
        let mut told = Vec::new();
        for second in 0..3600 {
            if news.failed("pods", &Cause::new(format_args!("no answer within {second} s"))) {
                told.push(second);
            }
            tokio::time::advance(Duration::from_secs(1)).await;
        }
        assert_eq!(told, (0..12).map(|nth| nth * 300).collect::<Vec<_>>());
    }

    #[tokio::test(start_paused = true)]
    async fn another_cause_is_told_at_once_and_one_that_returns_is_not() {
        let news = News::default();
        let (a, b) = (forbidden("no"), Cause::new("no answer"));
        let told: Vec<bool> = [&a, &a, &b, &a, &b].map(|cause| news.failed("pods", cause)).into();
        assert_eq!(told, [true, false, true, false, false]);
        assert!(news.failed("jobs", &a), "of another resource it is another");
        tokio::time::advance(FORGET).await;
        assert!(news.failed("pods", &a), "after a while it is a new failure");
    }

    #[tokio::test]
    async fn that_the_api_server_is_away_and_back_is_told_once_by_all_who_ask_it() {
        let news = News::default();
        let told = |what: &str| news.clone().failed(what, &Cause::no_server("refused"));
        assert_eq!(["pods", "jobs", "secrets"].map(told), [true, false, false]);
        assert_eq!(["pods", "jobs", "secrets"].map(|what| news.succeeded(what)), [true, false, false]);
    }

    #[tokio::test]
    async fn a_recovery_is_told_once_and_only_of_what_was_told() {
        let news = News::default();
        assert!(!news.succeeded("pods"));
        assert!(news.failed("pods", &forbidden("no")));
        assert!(!news.succeeded("jobs"), "that jobs can be followed says nothing of pods");
        assert!(news.succeeded("pods"));
        let flapped = news.failed("pods", &forbidden("no")) || news.succeeded("pods");
        assert!(!flapped, "flapping is told as little as failing");
    }

    #[tokio::test]
    async fn what_is_remembered_is_bounded() {
        let news = News::default();
        let causes = ('a'..='z').chain('A'..='Z').map(Cause::new).collect::<Vec<_>>();
        assert!(causes.iter().all(|cause| news.failed("pods", cause)));
        assert_eq!(news.0.lock().len(), CAUSES);
    }

    #[test]
    fn a_components_filter_leaves_kubes_warnings_out_unless_they_are_asked_for() {
        assert_eq!(log_filter(None), "kube_client=error,info");
        assert_eq!(log_filter(Some("debug,kube_client=debug")), "kube_client=error,debug,kube_client=debug");
    }
}
