//! What each proxy says of itself, as it was last read: whether it can do TLS, and if not, why.

use conduit_identity::UnixTime;

/// The metrics in which a proxy tells of its credentials and of the destination service.
pub(crate) const METRICS: [&str; 7] = [
    "tls_usable",
    "tls_certificate_info",
    "tls_certificate_not_before_seconds",
    "tls_certificate_not_after_seconds",
    "tls_config_failing",
    "destination_up",
    "process_time_seconds",
];

/// What a proxy says of itself. What it does not say is none: an older version, or it holds nothing.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Says {
    /// The `tls` label that it goes by at this moment: `true` when it can do TLS, else the reason why not.
    pub tls: Option<String>,
    /// The SHA-256 of the certificate it holds, usable or not.
    pub fingerprint: Option<String>,
    /// Whom that certificate proves it to be.
    pub identity: Option<String>,
    /// When that begins to be valid.
    pub not_before: Option<UnixTime>,
    /// When it stops being valid.
    pub not_after: Option<UnixTime>,
    /// What is wrong with the files, in the words of `tls_config_reload`: status, path, errno.
    pub failing: Option<String>,
    /// Whether the destination service was reached at the last attempt.
    pub destination_up: Option<bool>,
    /// What time it was for it.
    pub time: Option<UnixTime>,
}

impl Says {
    /// Takes in one line of its metrics, one of [`METRICS`].
    pub(crate) fn note<'a>(&mut self, name: &str, value: f64, label: impl Fn(&str) -> Option<&'a str>) {
        let text = |name| label(name).map(|value: &str| value.chars().take(MAX_VALUE).collect::<String>());
        let moment = || Some(UnixTime::from_secs(exactly(value)?.as_secs()));
        match name {
            "tls_usable" => self.tls = text("tls"),
            "tls_certificate_info" => {
                (self.fingerprint, self.identity) = (text("fingerprint"), text("identity"))
            }
            "tls_certificate_not_before_seconds" => self.not_before = moment(),
            "tls_certificate_not_after_seconds" => self.not_after = moment(),
            "tls_config_failing" => {
                let parts: Vec<String> = ["status", "path", "errno"].into_iter().filter_map(text).collect();
                self.failing = Some(parts.join(" "));
            }
            "process_time_seconds" => self.time = exactly(value),
            "destination_up" => self.destination_up = Some(value > 0.0),
            _ => {}
        }
    }

    /// Whether it can do TLS at this moment; none when it does not say.
    pub fn can_do_tls(&self) -> Option<bool> {
        self.tls.as_deref().map(|tls| tls == "true")
    }
}

/// A moment told in seconds since 1970.
fn exactly(seconds: f64) -> Option<UnixTime> {
    std::time::Duration::try_from_secs_f64(seconds).ok().map(UnixTime)
}

/// How far `time` is ahead of `now`, in milliseconds; negative when it is behind.
pub(crate) fn ahead_ms(time: UnixTime, now: UnixTime) -> i64 {
    let ms = |duration: std::time::Duration| i64::try_from(duration.as_millis()).unwrap_or(i64::MAX);
    ms(time.since(now)) - ms(now.since(time))
}

/// Octets kept of what a proxy says: an identity has 253 at most, a path in a pod is shorter.
const MAX_VALUE: usize = 256;

/// A proxy, as far as it has been read.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Proxy {
    /// What it said last; none when it never could be read.
    pub says: Option<Says>,
    /// Since when its `tls` is what it is.
    pub since: Option<Since>,
    /// Why the last reading failed, if it did.
    pub failure: Option<String>,
    /// How far its clock was ahead of ours at the last reading, in milliseconds, give or take what the reading took.
    pub clock_ahead_ms: Option<i64>,
}

/// A moment since which something is so.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Since {
    /// When it was first seen to be so.
    pub at: UnixTime,
    /// Whether it was seen to begin; otherwise it was so when we first looked, and may have been for longer.
    pub is_exact: bool,
}

impl Proxy {
    /// Takes in what a reading at `now` says.
    pub(crate) fn take(&mut self, says: Says, now: UnixTime) {
        let before = self.says.as_ref().map(|before| &before.tls);
        if before != Some(&says.tls) {
            self.since = Some(Since { at: now, is_exact: before.is_some() });
        }
        self.clock_ahead_ms = says.time.map(|time| ahead_ms(time, now));
        (self.says, self.failure) = (Some(says), None);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn saying(tls: &str) -> Says {
        Says { tls: Some(tls.to_owned()), ..Says::default() }
    }

    #[test]
    fn since_is_exact_only_when_the_change_was_seen() {
        let at = UnixTime::from_secs;
        let mut proxy = Proxy::default();
        proxy.take(saying("no_config"), at(10));
        proxy.take(saying("no_config"), at(12));
        assert_eq!(proxy.since, Some(Since { at: at(10), is_exact: false }));
        proxy.take(saying("true"), at(14));
        proxy.take(Says { fingerprint: Some("a".to_owned()), ..saying("true") }, at(16));
        assert_eq!(proxy.since, Some(Since { at: at(14), is_exact: true }));
    }

    #[test]
    fn a_wrong_clock_is_told_from_ours() {
        let at = UnixTime::from_secs;
        let mut proxy = Proxy::default();
        for (time, ahead) in [(Some(at(160)), Some(60_000)), (Some(at(99)), Some(-1_000)), (None, None)] {
            proxy.take(Says { time, ..saying("true") }, at(100));
            assert_eq!(proxy.clock_ahead_ms, ahead);
        }
    }

    #[test]
    fn lines_are_taken_by_name_and_what_is_too_long_is_cut() {
        let long = "x".repeat(1_000);
        let mut says = Says::default();
        says.note("tls_usable", 0.0, |name| (name == "tls").then_some("expired"));
        says.note("tls_certificate_not_after_seconds", 1_700_000_000.5, |_| None);
        says.note("tls_certificate_not_before_seconds", -1.0, |_| None);
        says.note("tls_certificate_info", 1.0, |_| Some(&long));
        let failing = |name: &str| match name {
            "status" => Some("io_error"),
            "path" => Some("/tls/tls.crt"),
            _ => None,
        };
        says.note("tls_config_failing", 1.0, failing);
        says.note("destination_up", 0.0, |_| None);
        assert_eq!((says.can_do_tls(), says.tls.as_deref()), (Some(false), Some("expired")));
        assert_eq!(says.not_after, Some(UnixTime::from_secs(1_700_000_000)));
        assert_eq!((says.not_before, says.destination_up), (None, Some(false)));
        assert_eq!(says.failing.as_deref(), Some("io_error /tls/tls.crt"));
        assert_eq!(says.fingerprint.map(|text| text.len()), Some(MAX_VALUE));
    }
}
