//! Rows as people read them: the tables of `stat`, in the layout of v0.5.0. Pure; `conduit demo` prints the same.
//!
//! ```text
//! NAME                        MESHED   SUCCESS      RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99    TLS
//! emoji-svc.emojivoto:8080         -   100.00%   2.0rps           1ms           2ms           3ms   100%
//! ```

use std::{collections::BTreeMap, fmt::Write as _};

use conduit_observe::{kind::Kind, row::Row};

/// What a table shows besides the columns that every one has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// A first column with the namespace.
    pub namespaces: bool,
    /// Names with their type in front, and a table for each type.
    pub typed: bool,
    /// Columns with connections, probes, the reasons for plaintext, and who is at the other end.
    pub wide: bool,
    /// The line with the columns' names.
    pub headers: bool,
}

impl Default for Style {
    fn default() -> Self {
        Self { namespaces: false, typed: false, wide: false, headers: true }
    }
}

/// What stands for a number that there is nothing to compute from.
pub const NONE: &str = "-";
/// Between two columns.
const GAP: &str = "   ";

/// Lays `rows` out; they are shown in the order they come. Ends with a line end unless it is empty.
pub fn stat(rows: &[Row], style: Style) -> String {
    let lines: Vec<Line> = rows.iter().map(|row| Line::of(row, style)).collect();
    let tables: Vec<&[Line]> = match style.typed {
        true => lines.chunk_by(|a, b| a.kind == b.kind).collect(),
        false if lines.is_empty() => Vec::new(),
        false => vec![&lines],
    };
    // The tables of several types share the widths of their first columns, so that the eye finds the numbers.
    let first: Vec<usize> = (0..columns(style).iter().filter(|column| column.is_name).count())
        .map(|column| lines.iter().map(|line| width(&line.cells[column])).max().unwrap_or_default())
        .collect();
    let tables = tables.into_iter().map(|lines| table(lines, &first, style));
    tables.collect::<Vec<_>>().join("\n")
}

struct Column {
    title: &'static str,
    /// Names come first and are as wide as in every other table of the output.
    is_name: bool,
    is_left: bool,
}

fn columns(style: Style) -> Vec<Column> {
    let name = |title| Column { title, is_name: true, is_left: true };
    let number = |title| Column { title, is_name: false, is_left: false };
    let text = |title| Column { title, is_name: false, is_left: true };
    let mut columns = Vec::new();
    if style.namespaces {
        columns.push(name("NAMESPACE"));
    }
    columns.push(name("NAME"));
    let numbers = ["MESHED", "SUCCESS", "RPS", "LATENCY_P50", "LATENCY_P95", "LATENCY_P99", "TLS"];
    columns.extend(numbers.map(number));
    if style.wide {
        columns.extend(["TLS_CONN", "RECEIVED", "SENT", "PROBES"].map(number));
        columns.extend(["PLAINTEXT", "PEERS"].map(text));
    }
    columns
}

struct Line {
    kind: Kind,
    cells: Vec<String>,
}

impl Line {
    fn of(row: &Row, style: Style) -> Self {
        let mut cells = Vec::with_capacity(11);
        if style.namespaces {
            cells.push(row.namespace.clone());
        }
        cells.push(match style.typed {
            true => format!("{}/{}", row.kind.short(), row.name),
            false => row.name.clone(),
        });
        cells.push(match (row.meshed, row.running) {
            (Some(meshed), Some(running)) => format!("{meshed}/{running}"),
            _ => NONE.to_owned(),
        });
        cells.push(or_none(row.success, |share| format!("{:.2}%", honest(share * 100.0, 0.01))));
        cells.push(or_none(row.rps, |rps| format!("{rps:.1}rps")));
        let latency = row.latency_ms;
        cells.extend(
            [latency.p50, latency.p95, latency.p99].map(|ms| or_none(ms, |ms| format!("{}ms", ms.round()))),
        );
        cells.push(or_none(row.tls, |share| format!("{:.0}%", honest(share * 100.0, 1.0))));
        if style.wide {
            let counts = row.counts;
            let connections = (counts.connections > 0.0).then_some(counts.connections);
            cells.push(or_none(connections, |all| format!("{:.0}/{all:.0}", counts.tls_connections)));
            cells.extend(
                [row.bytes.received_per_s, row.bytes.sent_per_s].map(|rate| or_none(rate, per_second)),
            );
            cells.push(or_none((counts.probes > 0.0).then_some(counts.probes), |probes| {
                format!("{probes:.0}")
            }));
            cells.push(listed(reasons(&row.plaintext)));
            cells.push(listed(row.peers.iter().map(|peer| short_identity(peer).to_owned()).collect()));
        }
        Self { kind: row.kind, cells }
    }
}

/// Reasons with their counts, the most frequent first.
pub fn reasons(plaintext: &BTreeMap<String, f64>) -> Vec<String> {
    let mut reasons: Vec<_> = plaintext.iter().collect();
    reasons.sort_by(|a, b| b.1.total_cmp(a.1).then_with(|| a.0.cmp(b.0)));
    reasons.into_iter().map(|(reason, count)| format!("{}={count:.0}", reason.replace(' ', ""))).collect()
}

/// An identity without the part that all of one mesh share.
pub fn short_identity(identity: &str) -> &str {
    identity.split_once(".conduit-managed.").map_or(identity, |(workload, _)| workload)
}

/// All of them in one cell.
pub fn listed(items: Vec<String>) -> String {
    if items.is_empty() { NONE.to_owned() } else { items.join(",") }
}

fn or_none(value: Option<f64>, show: impl Fn(f64) -> String) -> String {
    value.map_or_else(|| NONE.to_owned(), show)
}

/// Bytes a second, in powers of a thousand.
fn per_second(bytes: f64) -> String {
    let units = [(1e9, "GB"), (1e6, "MB"), (1e3, "kB")];
    let unit = units.into_iter().find(|(size, _)| bytes >= *size);
    unit.map_or_else(|| format!("{bytes:.0}B/s"), |(size, name)| format!("{:.1}{name}/s", bytes / size))
}

/// A percentage that rounds to 0 only if it is 0, and to 100 only if it is 100: whether all of the traffic is
/// encrypted must not depend on rounding. `step` is the smallest one that is shown.
pub fn honest(percent: f64, step: f64) -> f64 {
    if percent > 0.0 && percent < 100.0 { percent.clamp(step, 100.0 - step) } else { percent }
}

fn table(lines: &[Line], first: &[usize], style: Style) -> String {
    let columns = columns(style);
    let widths: Vec<usize> = (0..columns.len())
        .map(|at| {
            let title = if style.headers { columns[at].title.len() } else { 0 };
            let cells = lines.iter().map(|line| width(&line.cells[at])).max().unwrap_or_default();
            title.max(cells).max(first.get(at).copied().unwrap_or_default())
        })
        .collect();
    let mut text = String::new();
    if style.headers {
        let titles: Vec<&str> = columns.iter().map(|column| column.title).collect();
        write_line(&mut text, &titles, &columns, &widths);
    }
    for line in lines {
        let cells: Vec<&str> = line.cells.iter().map(String::as_str).collect();
        write_line(&mut text, &cells, &columns, &widths);
    }
    text
}

fn write_line(text: &mut String, cells: &[&str], columns: &[Column], widths: &[usize]) {
    let mut line = String::new();
    for (at, ((cell, column), width)) in cells.iter().zip(columns).zip(widths).enumerate() {
        let gap = if at == 0 { "" } else { GAP };
        // Writing to a String cannot fail.
        let _ = match column.is_left {
            true => write!(line, "{gap}{cell:<width$}"),
            false => write!(line, "{gap}{cell:>width$}"),
        };
    }
    text.push_str(line.trim_end());
    text.push('\n');
}

/// Text in columns, each as wide as its widest cell, below their titles if there are any.
pub fn plain(titles: Option<&[&str]>, rows: impl IntoIterator<Item = Vec<String>>) -> String {
    let titles = titles.map(|titles| titles.iter().map(|title| (*title).to_owned()).collect());
    let lines: Vec<Vec<String>> = titles.into_iter().chain(rows).collect();
    let columns = lines.iter().map(Vec::len).max().unwrap_or_default();
    let widest = |at| lines.iter().filter_map(|line| line.get(at)).map(|cell: &String| width(cell)).max();
    let widths: Vec<usize> = (0..columns).map(|at| widest(at).unwrap_or_default()).collect();
    let pad = |line: &Vec<String>| {
        let cells = line.iter().zip(&widths).map(|(cell, width)| format!("{cell:<width$}"));
        cells.collect::<Vec<_>>().join(GAP).trim_end().to_owned() + "\n"
    };
    lines.iter().map(pad).collect()
}

/// How wide a cell is; names in Kubernetes are ASCII, authorities are what somebody sent.
fn width(cell: &str) -> usize {
    cell.chars().count()
}

#[cfg(test)]
mod tests {
    use conduit_observe::row::{Bytes, Counts, Latency};

    use super::*;

    fn idle(kind: Kind, name: &str) -> Row {
        let pods = (kind != Kind::Authority).then_some(1);
        Row {
            kind,
            namespace: "emojivoto".to_owned(),
            name: name.to_owned(),
            meshed: pods,
            running: pods,
            success: None,
            rps: None,
            latency_ms: Latency::default(),
            bytes: Bytes::default(),
            tls: None,
            counts: Counts::default(),
            plaintext: [].into(),
            peers: [].into(),
        }
    }

    fn busy(kind: Kind, name: &str) -> Row {
        Row {
            success: Some(1.0),
            rps: Some(2.04),
            latency_ms: Latency { p50: Some(0.5), p95: Some(2.4), p99: Some(1234.5) },
            tls: Some(1.0),
            ..idle(kind, name)
        }
    }

    #[test]
    fn authorities_are_laid_out_as_in_v0_5() {
        let rows = [
            busy(Kind::Authority, "emoji-svc.emojivoto:8080"),
            idle(Kind::Authority, "voting-svc.emojivoto:8080"),
        ];
        insta::assert_snapshot!(stat(&rows, Style::default()), @r"
        NAME                        MESHED   SUCCESS      RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99    TLS
        emoji-svc.emojivoto:8080         -   100.00%   2.0rps           1ms           2ms        1235ms   100%
        voting-svc.emojivoto:8080        -         -        -             -             -             -      -
        ");
    }

    #[test]
    fn several_types_share_the_width_of_their_names() {
        let rows = [
            busy(Kind::Deployment, "web"),
            idle(Kind::Pod, "web-5c8f9d-abcde"),
            idle(Kind::Authority, "web-svc.emojivoto:80"),
        ];
        let style = Style { typed: true, namespaces: true, ..Style::default() };
        insta::assert_snapshot!(stat(&rows, style), @r"
        NAMESPACE   NAME                      MESHED   SUCCESS      RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99    TLS
        emojivoto   deploy/web                   1/1   100.00%   2.0rps           1ms           2ms        1235ms   100%

        NAMESPACE   NAME                      MESHED   SUCCESS   RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99   TLS
        emojivoto   po/web-5c8f9d-abcde          1/1         -     -             -             -             -     -

        NAMESPACE   NAME                      MESHED   SUCCESS   RPS   LATENCY_P50   LATENCY_P95   LATENCY_P99   TLS
        emojivoto   au/web-svc.emojivoto:80        -         -     -             -             -             -     -
        ");
    }

    #[test]
    fn wide_tells_reasons_and_peers() {
        let row = Row {
            plaintext: [("no_proxy_tls".to_owned(), 7.0), ("handshake_failed (timeout)".to_owned(), 9.0)]
                .into(),
            peers: ["web.deployment.emojivoto.conduit-managed.conduit.svc.cluster.local".to_owned()].into(),
            bytes: Bytes { received_per_s: Some(2_345.0), sent_per_s: Some(0.0) },
            counts: Counts { probes: 12.0, connections: 4.0, tls_connections: 3.0, ..Counts::default() },
            ..busy(Kind::Deployment, "web")
        };
        let style = Style { wide: true, headers: false, ..Style::default() };
        insta::assert_snapshot!(stat(&[row, idle(Kind::Deployment, "bot")], style), @r"
        web   1/1   100.00%   2.0rps   1ms   2ms   1235ms   100%   3/4   2.3kB/s   0B/s   12   handshake_failed(timeout)=9,no_proxy_tls=7   web.deployment.emojivoto
        bot   1/1         -        -     -     -        -      -     -         -      -    -   -                                            -
        ");
    }

    #[test]
    fn nothing_is_no_table() {
        assert_eq!(stat(&[], Style::default()), "");
        assert_eq!(stat(&[], Style { typed: true, ..Style::default() }), "");
    }

    #[test]
    fn only_all_of_it_is_100_percent_and_only_nothing_is_0() {
        let shown = |tls: f64, success: f64| {
            let row = Row { tls: Some(tls), success: Some(success), ..busy(Kind::Pod, "a") };
            let cells = Line::of(&row, Style::default()).cells;
            (cells[2].clone(), cells[7].clone())
        };
        assert_eq!(shown(0.999, 0.99999), ("99.99%".into(), "99%".into()));
        assert_eq!(shown(0.0001, 0.000001), ("0.01%".into(), "1%".into()));
        assert_eq!(shown(0.0, 0.0), ("0.00%".into(), "0%".into()));
        assert_eq!(shown(1.0, 1.0), ("100.00%".into(), "100%".into()));
        assert_eq!(shown(0.854, 0.5), ("50.00%".into(), "85%".into()));
    }
}
