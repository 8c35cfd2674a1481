//! What Conduit said of itself: the counters of `/metrics`, the rows of `stat`, the events of `tap`.

use std::{collections::BTreeMap, net::IpAddr, time::Duration};

use super::OpId;

/// One look at a proxy's `/metrics`.
#[derive(Debug, Clone, PartialEq)]
pub struct Reading {
    /// When it was asked for and answered: simulated time stands still meanwhile, or nearly.
    pub at: Duration,
    /// The pod whose proxy it is.
    pub pod: IpAddr,
    /// When the proxy began to count: its process's start.
    pub since: Duration,
    /// What it counted.
    pub counters: Vec<Counter>,
}

/// One series.
#[derive(Debug, Clone, PartialEq)]
pub struct Counter {
    /// As in the text: `tcp_open_total`.
    pub name: String,
    /// As in the text, unescaped.
    pub labels: BTreeMap<String, String>,
    /// How many.
    pub value: u64,
}

impl Reading {
    /// The counters that checkers look at.
    const NAMES: [&str; 4] = ["tcp_open_total", "request_total", "tls_handshake_total", "tls_refused_total"];

    /// Reads the text of `/metrics`. What is no counter that a checker looks at is left out, and so is a line that makes no
    /// sense: the exposition format has tests of its own.
    pub fn parse(at: Duration, pod: IpAddr, since: Duration, text: &str) -> Self {
        Self { at, pod, since, counters: text.lines().filter_map(Counter::parse).collect() }
    }

    /// The sum of the counters called `name` that have all of `labels`.
    pub fn total(&self, name: &str, labels: &[(&str, &str)]) -> u64 {
        let has = |counter: &&Counter| labels.iter().all(|(key, value)| counter.label(key) == Some(value));
        self.counters
            .iter()
            .filter(|counter| counter.name == name)
            .filter(has)
            .map(|counter| counter.value)
            .sum()
    }
}

impl Counter {
    /// The value of one label.
    pub fn label(&self, key: &str) -> Option<&str> {
        self.labels.get(key).map(String::as_str)
    }

    fn parse(line: &str) -> Option<Self> {
        let name = *Reading::NAMES.iter().find(|name| line.starts_with(**name))?;
        let rest = &line[name.len()..];
        let (labels, value) = match rest.strip_prefix('{') {
            Some(rest) => labels(rest)?,
            None => (BTreeMap::new(), rest.strip_prefix(' ')?),
        };
        let value = value.split_whitespace().next()?.parse().ok()?;
        Some(Self { name: name.to_owned(), labels, value })
    }
}

/// Reads labels up to the closing brace; returns what follows, too.
fn labels(mut text: &str) -> Option<(BTreeMap<String, String>, &str)> {
    let mut labels = BTreeMap::new();
    loop {
        if let Some(rest) = text.strip_prefix('}') {
            return Some((labels, rest));
        }
        let (key, rest) = text.trim_start_matches(',').split_once("=\"")?;
        let mut value = String::new();
        let mut chars = rest.char_indices();
        let end = loop {
            match chars.next()? {
                (at, '"') => break at,
                (_, '\\') => match chars.next()?.1 {
                    'n' => value.push('\n'),
                    other => value.push(other),
                },
                (_, other) => value.push(other),
            }
        };
        labels.insert(key.to_owned(), value);
        text = &rest[end + 1..];
    }
}

/// One row of `stat` about a workload as its own proxies see it: without `--to` and `--from`.
#[derive(Debug, Clone, PartialEq)]
pub struct StatRow {
    /// When it was answered.
    pub at: Duration,
    /// How far back it looks.
    pub window: Duration,
    /// `deployment` and the like.
    pub kind: String,
    /// `namespace/name` of the workload.
    pub name: String,
    /// What went over mutual TLS of all that crossed between pods, from 0 to 1; none without traffic.
    pub tls: Option<f64>,
    /// Successful responses over all, from 0 to 1; none without traffic.
    pub success: Option<f64>,
}

/// What `tap` told of one request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TapEvent {
    /// When it was told.
    pub at: Duration,
    /// The operation named in the request's path.
    pub op: OpId,
    /// The `tls` label.
    pub tls: String,
}

impl TapEvent {
    /// Reads server-sent events that were read until `at`. What tells of no beginning of a request that names an operation is
    /// left out, and so is what was cut off.
    pub fn all(at: Duration, text: &str) -> Vec<Self> {
        let data = text.lines().filter_map(|line| line.strip_prefix("data:"));
        let events = data.filter_map(|data| serde_json::from_str::<serde_json::Value>(data).ok());
        let read = |event: serde_json::Value| {
            let op = OpId::find(event["path"].as_str()?.as_bytes())?;
            Some(Self { at, op, tls: event["tls"].as_str()?.to_owned() })
        };
        events.filter_map(read).collect()
    }
}

#[cfg(test)]
mod tests {
    use std::net::Ipv4Addr;

    use super::*;

    const TEXT: &str = r#"# HELP tcp_open Connections that were opened.
# TYPE tcp_open counter
tcp_open_total{direction="outbound",peer="dst",dst_pod="a,\"}b\\",tls="true"} 3
tcp_open_total{direction="outbound",peer="dst",tls="no_identity"} 4
tcp_open_connections{direction="outbound",peer="dst",tls="no_identity"} 9
request_total{direction="inbound",tls="true"} nonsense
tls_refused_total 2
# EOF
"#;

    #[test]
    fn counters_are_read_with_escaped_labels_and_everything_else_is_left_out() {
        let reading = Reading::parse(Duration::ZERO, Ipv4Addr::LOCALHOST.into(), Duration::ZERO, TEXT);
        assert_eq!(reading.counters.len(), 3);
        assert_eq!(reading.counters[0].label("dst_pod"), Some("a,\"}b\\"));
        assert_eq!(reading.total("tcp_open_total", &[("direction", "outbound")]), 7);
        assert_eq!(reading.total("tcp_open_total", &[("direction", "outbound"), ("tls", "true")]), 3);
        assert_eq!(reading.total("tls_refused_total", &[]), 2);
    }

    #[test]
    fn labels_cut_off_anywhere_are_no_counter() {
        let line = TEXT.lines().nth(2).unwrap();
        for end in 0..line.len() - 2 {
            assert_eq!(Counter::parse(&line[..end]), None, "{}", &line[..end]);
        }
    }
}
