//! What Prometheus is asked. Pure.

use std::{fmt::Write as _, time::Duration};

use crate::{kind::Kind, proxies::METRICS, samples::Labels};

/// The job that scrapes the proxies.
const JOB: &str = r#"{job="conduit-proxy"}"#;
/// How often it is looked when a series last grew.
const AGE_STEP: Duration = Duration::from_secs(15);
/// How long before the window a process may have begun for all it counted to be of the window.
const BIRTH_GAP: Duration = Duration::from_secs(10);

pub(super) const RESPONSES: &str = "response_total";
pub(super) const LATENCIES: &str = "response_latency_ms_bucket";
pub(super) const CLOSES: &str = "tcp_close_total";
pub(super) const RECEIVED: &str = "tcp_read_bytes_total";
pub(super) const SENT: &str = "tcp_write_bytes_total";

/// A question that is answered with one number for each set of labels.
#[derive(Debug, Clone, Copy)]
pub(super) enum Question {
    /// The pods that were already read when the window began.
    Known,
    /// When proxies' processes began, in seconds since 1970, where they tell.
    Births,
    /// By how much a counter grew.
    Increase(&'static str),
    /// How many connections are open.
    Open,
    /// How many seconds ago a counter last grew.
    Age(&'static str),
}

impl Question {
    /// The question about the last `window`.
    pub(super) fn text(self, window: Duration) -> String {
        let seconds = window.as_secs();
        match self {
            Self::Known => format!("up{JOB} offset {seconds}s == 1"),
            Self::Births => format!("process_start_time_seconds{JOB}"),
            // An empty bucket says where the next one begins.
            Self::Increase(LATENCIES) => {
                format!("sum by ({}) ({})", kept(LATENCIES), increase(LATENCIES, seconds))
            }
            Self::Increase(metric) => {
                format!("sum by ({}) ({}) > 0", kept(metric), increase(metric, seconds))
            }
            Self::Open => format!("sum by ({}) (tcp_open_connections{JOB}) > 0", kept("")),
            Self::Age(metric) => age(metric, seconds),
        }
    }
}

/// Every attempt at reading a proxy in the window.
pub(super) fn scrapes(window: Duration) -> String {
    format!("up{JOB}[{}s]", window.as_secs())
}

/// Whether the last attempt at reading each proxy succeeded.
pub(super) const UP: &str = r#"up{job="conduit-proxy"}"#;

/// What proxies say of themselves.
pub(super) fn sayings() -> String {
    format!(r#"{{__name__=~"{}",job="conduit-proxy"}}"#, METRICS.join("|"))
}

/// By how much each series grew in the last `seconds`: in full from its last value before, if there was one and it began
/// anew nowhere between; in full from zero, if its pod was read before or began since.
fn increase(metric: &str, seconds: u64) -> String {
    let series = format!("{metric}{JOB}");
    let born = seconds + BIRTH_GAP.as_secs();
    let followed =
        format!("(up{JOB} offset {seconds}s == 1 or process_start_time_seconds{JOB} >= time() - {born})");
    let is_new = format!("unless {series} offset {seconds}s");
    [
        format!(
            "((last_over_time({series}[{seconds}s]) - {series} offset {seconds}s) and resets({series}[{seconds}s]) == 0)"
        ),
        format!("((increase({series}[{seconds}s]) and {series} offset {seconds}s) and resets({series}[{seconds}s]) > 0)"),
        format!("((last_over_time({series}[{seconds}s]) {is_new}) and on (namespace, pod) {followed})"),
        format!("((increase({series}[{seconds}s]) {is_new}) unless on (namespace, pod) {followed})"),
    ]
    .join(" or ")
}

fn age(metric: &str, seconds: u64) -> String {
    let series = format!("{metric}{JOB}");
    let step = AGE_STEP.as_secs();
    let grew = format!("(({series} > {series} offset {step}s) or ({series} unless {series} offset {step}s))");
    let kept = kept(metric);
    format!("min by ({kept}) (time() - max_over_time(timestamp({grew})[{seconds}s:{step}s]))")
}

/// The labels that are kept: who counted, and what rows need of what it said.
fn kept(metric: &str) -> String {
    let is_histogram = metric == LATENCIES;
    // As in the embedded window: a histogram takes 26 times the room.
    let is_left_out =
        |label: &str| is_histogram && matches!(label, "classification" | "client_id" | "server_id");
    let mut text = "namespace,pod".to_owned();
    let owners = OWNERS.iter().map(|kind| kind.metric_label());
    let labels = Labels::KEPT.into_iter().filter(|label| !is_left_out(label));
    for label in owners.chain(labels).chain(is_histogram.then_some("le")) {
        // Writing to a String cannot fail.
        let _ = write!(text, ",{label}");
    }
    text
}

/// What a pod may belong to, which the scrape configuration makes labels of.
pub(super) const OWNERS: [Kind; 6] = [
    Kind::Deployment,
    Kind::StatefulSet,
    Kind::DaemonSet,
    Kind::Job,
    Kind::CronJob,
    Kind::ReplicationController,
];

#[cfg(test)]
mod tests {
    use super::*;

    const WINDOW: Duration = Duration::from_secs(60);

    #[test]
    fn increases_are_not_extrapolated_where_the_past_is_known() {
        let text = Question::Increase(RESPONSES).text(WINDOW);
        let series = r#"response_total{job="conduit-proxy"}"#;
        assert!(text.contains(&format!("(last_over_time({series}[60s]) - {series} offset 60s)")), "{text}");
        assert!(text.starts_with("sum by (namespace,pod,deployment,"), "{text}");
    }

    #[test]
    fn parentheses_are_balanced() {
        let questions = [
            Question::Known,
            Question::Births,
            Question::Open,
            Question::Increase(LATENCIES),
            Question::Age(CLOSES),
        ];
        for text in questions.map(|question| question.text(WINDOW)) {
            assert_eq!(text.matches('(').count(), text.matches(')').count(), "{text}");
        }
    }

    #[test]
    fn buckets_keep_their_bound_and_lose_who_asked() {
        let text = Question::Increase(LATENCIES).text(WINDOW);
        let (labels, _) = text.split_once(") (").unwrap();
        assert!(labels.ends_with(",le") && !labels.contains("client_id"), "{labels}");
    }
}
