//! Holds `REASONS.md` to the values that the `tls` label can have.

use std::collections::BTreeSet;

use conduit_identity::{HandshakeFailure, Unusable};

use super::{PeerId, TlsStatus, Why};

const DOCUMENT: &str = include_str!("../../REASONS.md");

/// Every reason. One that is new does not compile until it has a place here.
fn every() -> Vec<Why> {
    let failed = Why::HandshakeFailed(HandshakeFailure::Refused);
    let next = |why: &Why| match why {
        Why::Disabled => Some(Why::NoConfig),
        Why::NoConfig => Some(Why::BadCredentials),
        Why::BadCredentials => Some(Why::Expired),
        Why::Expired => Some(Why::ClockSkew),
        Why::ClockSkew => Some(Why::NoDiscovery),
        Why::NoDiscovery => Some(Why::NoIdentity),
        Why::NoIdentity => Some(failed),
        Why::HandshakeFailed(_) => Some(Why::NoProxyTls),
        Why::NoProxyTls => Some(Why::AppTls),
        Why::AppTls => Some(Why::InternalTraffic),
        Why::InternalTraffic => Some(Why::Loopback),
        Why::Loopback => Some(Why::KubeletProbe),
        Why::KubeletProbe => None,
    };
    std::iter::successors(Some(Why::Disabled), next).collect()
}

fn every_label() -> Vec<&'static str> {
    let peer = || PeerId::Unauthenticated;
    let mutual = TlsStatus::Mutual { client: peer(), server: peer() };
    let plain = every().into_iter().map(|why| TlsStatus::Plain(why).label());
    [mutual.label()].into_iter().chain(plain).collect()
}

/// The sections: what stands in backquotes in each one's title, and its text.
fn sections() -> Vec<(&'static str, &'static str)> {
    let sections = DOCUMENT.split("\n## ").skip(1).filter_map(|section| section.split_once('\n'));
    sections.map(|(title, text)| (title.trim_matches('`'), text)).collect()
}

#[test]
fn every_value_of_the_tls_label_is_explained_and_no_other() {
    let titles: Vec<_> = sections().into_iter().map(|(title, _)| title).collect();
    assert_eq!(titles, every_label());
    for reason in Unusable::ALL {
        assert!(titles.contains(&reason.label()), "{reason:?}");
    }
}

#[test]
fn every_explanation_has_a_cause_and_a_remedy() {
    for (title, text) in sections() {
        for part in ["**Cause.** ", "**Remedy.** "] {
            let said = text.split_once(part).map(|(_, said)| said.trim_start());
            assert!(said.is_some_and(|said| !said.is_empty() && !said.starts_with('*')), "{title}: {part}");
        }
    }
}

#[test]
fn every_way_a_handshake_fails_is_in_the_table() {
    let (_, text) =
        sections().into_iter().find(|(title, _)| *title == "handshake_failed").expect("it is there");
    let rows = text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |"));
    let listed: BTreeSet<_> = rows.map(|(name, _)| name).filter(|name| *name != "tls_reason").collect();
    assert_eq!(listed, HandshakeFailure::ALL.map(HandshakeFailure::label).into());
    for (name, rest) in text.lines().filter_map(|line| line.strip_prefix("| `")?.split_once("` |")) {
        let cells = rest.split('|').filter(|cell| !cell.trim().is_empty()).count();
        assert_eq!(cells, 2, "{name}");
    }
}
