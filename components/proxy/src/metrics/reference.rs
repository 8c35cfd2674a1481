//! Holds `METRICS.md` to the metrics that a proxy serves.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    path::PathBuf,
    time::Duration,
};

use conduit_identity::{HandshakeFailure, ReadError, ReloadResult};
use conduit_runtime::metrics::Registry;
use http::StatusCode;

use super::{Class, Labels, Metrics};
use crate::{
    session::{Direction, PeerId, Side, TlsStatus, Why},
    testing::{Authority, NOW, identity, store},
};

const DOCUMENT: &str = include_str!("../../METRICS.md");
const SOURCES: [&str; 5] = [
    include_str!("../metrics.rs"),
    include_str!("control.rs"),
    include_str!("process.rs"),
    include_str!("requests.rs"),
    include_str!("tls.rs"),
];

/// The text of a proxy to which everything has happened that is counted.
fn everything() -> String {
    let registry = Registry::default();
    let metrics = Metrics::register(&registry, Duration::from_secs(600));
    let (me, peer) = (identity("web"), identity("emoji"));
    let store = store(&me);
    store.load(&Authority::new().issue(&me)).unwrap();
    metrics.show_credentials(&registry, &store);
    metrics.show_process(&registry, NOW);
    registry.register_time(|| NOW.0);

    let dst = [("pod", "emoji-1")].map(|(key, value)| (key.to_owned(), value.to_owned()));
    let dst: Labels = dst.into_iter().collect();
    let mutual = TlsStatus::Mutual { client: PeerId::Verified(me), server: PeerId::Verified(peer) };
    let failed = TlsStatus::Plain(Why::HandshakeFailed(HandshakeFailure::Timeout));
    for tls in [&mutual, &failed] {
        let route = metrics.route(Direction::Outbound, b"emoji:80", &dst, tls);
        route.request();
        route.response(Class::complete(StatusCode::OK, Some(0)), Duration::ZERO);
        route.response(Class::failed(None, "reset"), Duration::ZERO);
        let transport = metrics.transport(Direction::Outbound, Side::Destination, &dst, tls);
        transport.open();
        transport.close(false, Duration::ZERO);
    }
    metrics.discovery.link(Some(mutual));
    metrics.tls.handshake(Direction::Outbound, Ok(()), Duration::ZERO);
    metrics.tls.handshake(Direction::Outbound, Err(HandshakeFailure::Timeout), Duration::ZERO);
    let source = io::Error::from(io::ErrorKind::NotFound);
    metrics.tls.reload(&ReloadResult::Unreadable(ReadError { path: PathBuf::from("/tls/tls.crt"), source }));
    registry.encode()
}

/// One family, as the text has it.
#[derive(Default)]
struct Family {
    help: String,
    kind: String,
    labels: BTreeSet<String>,
}

fn families(text: &str) -> BTreeMap<String, Family> {
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut last = String::new();
    for line in text.lines() {
        let words: Vec<&str> = line.splitn(4, ' ').collect();
        match words[..] {
            ["#", "HELP", name, help] => {
                last = name.to_owned();
                families.entry(last.clone()).or_default().help = help.to_owned();
            }
            ["#", "TYPE", name, kind] => families.entry(name.to_owned()).or_default().kind = kind.to_owned(),
            ["#", ..] => {}
            _ => families.entry(last.clone()).or_default().labels.extend(labels(line)),
        }
    }
    families
}

/// The names of a line's labels; those of a destination under one name, and a bucket's bound left out.
fn labels(line: &str) -> BTreeSet<String> {
    let labels =
        line.split_once('{').and_then(|(_, rest)| rest.rsplit_once('}')).map_or("", |(labels, _)| labels);
    let names = labels.split("\",").filter_map(|label| label.split_once('=')).map(|(name, _)| name);
    let shown = names.filter(|name| *name != "le");
    shown.map(|name| if name.starts_with("dst_") { "dst_*" } else { name }.to_owned()).collect()
}

fn table() -> String {
    let mut table = "| metric | type | labels | what it is |\n|---|---|---|---|\n".to_owned();
    for (name, Family { help, kind, labels }) in families(&everything()) {
        let suffix = if kind == "counter" { "_total" } else { "" };
        let labels: Vec<String> = labels.iter().map(|label| format!("`{label}`")).collect();
        let help = help.replace('|', "\\|");
        table += &format!("| `{name}{suffix}` | {kind} | {} | {help} |\n", labels.join(" "));
    }
    table
}

#[cfg(target_os = "linux")]
#[test]
fn the_reference_is_what_a_proxy_serves() {
    let table = table();
    assert!(DOCUMENT.contains(&table), "put this into METRICS.md, instead of the table there:\n{table}");
    assert_eq!(DOCUMENT.matches("\n| `").count(), table.matches("\n| `").count(), "it has rows of no metric");
}

/// What is registered and never happens above would be missing from the table.
#[test]
fn nothing_that_is_registered_is_left_out() {
    let known = families(&everything());
    for source in SOURCES {
        let product = source.split("#[cfg(test)]").next().unwrap_or_default();
        for call in product.split("register(").skip(1) {
            let Some(rest) = call.trim_start().strip_prefix('"') else { continue };
            let name = rest.split('"').next().unwrap_or_default();
            assert!(known.contains_key(name), "{name} is not shown: let it happen in everything()");
        }
    }
}
