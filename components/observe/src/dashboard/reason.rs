//! Why something crossed in the clear, in words.

use std::collections::BTreeMap;

use maud::{Markup, html};

/// Each reason with what it means, the most frequent first.
pub(super) fn list(plaintext: &BTreeMap<String, f64>) -> Markup {
    let mut reasons: Vec<_> = plaintext.iter().filter(|(_, count)| **count > 0.0).collect();
    reasons.sort_by(|(_, one), (_, other)| other.total_cmp(one));
    html! {
        @for (at, (reason, _)) in reasons.iter().enumerate() {
            @if at > 0 { "; " }
            (explained(reason)) " " code { (reason) }
        }
    }
}

/// The most frequent reason in words, if there is one.
pub(super) fn first(plaintext: &BTreeMap<String, f64>) -> Option<&'static str> {
    let most = plaintext.iter().filter(|(_, count)| **count > 0.0).max_by(|(_, a), (_, b)| a.total_cmp(b));
    most.map(|(reason, _)| explained(reason))
}

/// A `tls` label in words; what follows it in parentheses is left to the label itself.
fn explained(reason: &str) -> &'static str {
    match reason.split_once(" (").map_or(reason, |(label, _)| label) {
        "disabled" => "its proxy was injected without TLS",
        "no_config" => "its proxy has no certificate yet",
        "bad_credentials" => "its proxy's certificate cannot be used",
        "expired" => "its proxy's certificate has expired",
        "clock_skew" => "its proxy's certificate is not valid yet, or its clock is wrong",
        "no_discovery" => "the destination service has not answered its proxy, or was behind the cluster",
        "no_identity" => "the server has no identity: it has no proxy, or one without TLS",
        "handshake_failed" => "TLS with the server was tried and failed",
        "no_proxy_tls" => "the client sent no TLS: it has no proxy, or had to do without",
        "app_tls" => "the application encrypts by itself",
        _ => "it was not encrypted",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_went_wrong_with_a_handshake_does_not_hide_that_one_was_tried() {
        let plaintext =
            BTreeMap::from([("handshake_failed (timeout)".to_owned(), 2.0), ("expired".to_owned(), 1.0)]);
        assert_eq!(first(&plaintext), Some("TLS with the server was tried and failed"));
        let listed = list(&plaintext).into_string();
        assert!(listed.starts_with("TLS with the server") && listed.contains("(timeout)"), "{listed}");
    }
}
