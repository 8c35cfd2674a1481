//! The answer of `why`, as JSON carries it: written by the API, read by the CLI and the browser.

use std::{collections::BTreeMap, fmt};

use conduit_identity::UnixTime;
use k8s_openapi::jiff::Timestamp;
use serde::{Deserialize, Serialize};

/// Whether traffic is encrypted, and why it is so.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Why {
    /// Of this schema; grows only when a reader has to change.
    pub version: u32,
    /// In a word.
    pub verdict: Verdict,
    /// In a sentence.
    pub summary: String,
    /// Who sends, as `deploy/web`.
    pub from: String,
    /// Its namespace.
    pub from_namespace: String,
    /// Who receives; null when the question was about `from` alone.
    pub to: Option<String>,
    /// Its namespace.
    pub to_namespace: Option<String>,
    /// What TLS depends on, each on those before it: the first broken one is what to repair.
    pub links: Vec<Link>,
    /// What the proxies counted.
    pub seen: Seen,
}

impl Why {
    /// The link to repair.
    pub fn first_broken(&self) -> Option<&Link> {
        self.links.iter().find(|link| link.state == State::Broken)
    }
}

/// Whether traffic is encrypted.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Verdict {
    /// All that was seen.
    Encrypted,
    /// Some that was seen is not, or none could be.
    Plaintext,
    /// Nothing was seen, and nothing is known to be broken.
    Unknown,
}

/// One thing that TLS depends on.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Link {
    /// Which.
    pub step: Step,
    /// At which end; null for what both have in common.
    pub end: Option<End>,
    /// Whether it holds.
    pub state: State,
    /// What is the case, in words.
    pub detail: String,
    /// The `tls` label that it leads to, when it is broken.
    pub reason: Option<String>,
    /// Since when it is broken, in RFC 3339; null when that is not known.
    pub since: Option<String>,
    /// False when it was so already when it was first looked at: it may have been for longer.
    pub since_is_exact: bool,
    /// The command that repairs it, or shows more where only a person can tell.
    pub fix: Option<String>,
}

/// What TLS depends on, in order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Step {
    /// The control plane runs.
    Installed,
    /// Every pod has a proxy, with TLS.
    Injected,
    /// The CA has made a certificate, and it is the right one.
    Issued,
    /// The proxy's container has it among its files.
    Mounted,
    /// The proxy uses it.
    Loaded,
    /// The client's proxy is told whom to expect.
    Advertised,
    /// Both proxies did TLS.
    Negotiated,
}

impl Step {
    /// As in JSON.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Installed => "installed",
            Self::Injected => "injected",
            Self::Issued => "issued",
            Self::Mounted => "mounted",
            Self::Loaded => "loaded",
            Self::Advertised => "advertised",
            Self::Negotiated => "negotiated",
        }
    }
}

/// One of the two.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum End {
    /// Who sends.
    From,
    /// Who receives.
    To,
}

/// Whether a link holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum State {
    /// It does.
    Ok,
    /// It does not.
    Broken,
    /// Nobody here can tell.
    Unknown,
}

impl Link {
    pub(super) fn new(step: Step, state: State, detail: String) -> Self {
        Self { step, end: None, state, detail, reason: None, since: None, since_is_exact: false, fix: None }
    }

    pub(super) fn fixed_by(self, command: String) -> Self {
        Self { fix: Some(command), ..self }
    }

    pub(super) fn because(self, reason: &str) -> Self {
        Self { reason: Some(reason.to_owned()), ..self }
    }

    pub(super) fn since(self, at: Option<UnixTime>, is_exact: bool) -> Self {
        Self { since: at.and_then(moment), since_is_exact: is_exact && at.is_some(), ..self }
    }

    /// Which link it is, in words.
    pub fn name(&self) -> String {
        match self.end {
            None => self.step.as_str().to_owned(),
            Some(End::From) => format!("{} (sender)", self.step.as_str()),
            Some(End::To) => format!("{} (receiver)", self.step.as_str()),
        }
    }

    /// Whether nothing can be encrypted while it is broken. What the destination service once said stays in use.
    pub(super) fn is_doubtless(&self) -> bool {
        self.state == State::Broken && self.end.is_some()
    }
}

/// What the proxies counted between the two ends.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct Seen {
    /// How far back was looked, in milliseconds.
    pub window_ms: u64,
    /// Whether these are connections: of what is no HTTP.
    pub connections: bool,
    /// Over mutual TLS between proxies.
    pub encrypted: f64,
    /// Over TLS of the application's own.
    pub app_tls: f64,
    /// In plaintext, by reason: the `tls` label, and for `handshake_failed` what went wrong, in parentheses.
    pub plaintext: BTreeMap<String, f64>,
}

impl Seen {
    /// Everything that crossed between pods.
    pub fn total(&self) -> f64 {
        self.encrypted + self.app_tls + self.plaintext.values().sum::<f64>()
    }

    /// The most frequent reason for plaintext.
    pub fn top_reason(&self) -> Option<&str> {
        self.plaintext.iter().max_by(|a, b| a.1.total_cmp(b.1)).map(|(reason, _)| reason.as_str())
    }
}

/// `118 of 120 responses of the last 10 s over mutual TLS`.
impl fmt::Display for Seen {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let seconds = self.window_ms / 1_000;
        let total = self.total();
        if total == 0.0 {
            return write!(f, "no traffic in the last {seconds} s");
        }
        let what = if self.connections { "connections" } else { "responses" };
        write!(f, "{:.0} of {total:.0} {what} of the last {seconds} s over mutual TLS", self.encrypted)?;
        if self.app_tls > 0.0 {
            write!(f, ", {:.0} over the application's own TLS", self.app_tls)?;
        }
        Ok(())
    }
}

/// In RFC 3339; none beyond its years.
pub(crate) fn moment(at: UnixTime) -> Option<String> {
    Some(Timestamp::from_second(i64::try_from(at.as_secs()).ok()?).ok()?.to_string())
}
