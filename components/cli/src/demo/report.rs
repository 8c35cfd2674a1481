//! What the demo says besides the table. Pure.

use std::collections::BTreeMap;

use conduit_emojivoto::Counted;
use conduit_observe::row::Stat;

/// How the application fared.
pub(super) fn application(counted: &Counted) -> String {
    let Counted { refused, failed, .. } = *counted;
    let sent = counted.sent();
    format!(
        "application: {sent} requests sent, {failed} failed ({refused} votes for the doughnut were refused, as they \
         always are)"
    )
}

/// Why some of the traffic was not TLS: a line for each reason, the most frequent first. None when all of it was.
pub(super) fn plaintext(stat: &Stat) -> Vec<String> {
    let mut reasons: BTreeMap<&str, f64> = BTreeMap::new();
    for (reason, responses) in stat.rows.iter().flat_map(|row| &row.plaintext) {
        *reasons.entry(reason).or_default() += responses;
    }
    let mut reasons: Vec<_> = reasons.into_iter().collect();
    reasons.sort_by(|(_, a), (_, b)| b.total_cmp(a));
    reasons
        .into_iter()
        .map(|(reason, responses)| format!("plaintext: {responses:.0} responses, {reason}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use conduit_observe::{kind::Kind, row::Row};

    use super::*;

    #[test]
    fn the_doughnut_is_told_apart_from_failures() {
        let counted = Counted { succeeded: 10, refused: 2, failed: 1 };
        assert_eq!(
            application(&counted),
            "application: 13 requests sent, 1 failed (2 votes for the doughnut were refused, as they always are)"
        );
    }

    #[test]
    fn reasons_are_summed_over_the_rows_and_ordered() {
        let row = |plaintext: &[(&str, f64)]| Row {
            kind: Kind::Authority,
            namespace: "emojivoto".to_owned(),
            name: "web-svc.emojivoto:80".to_owned(),
            meshed: None,
            running: None,
            success: None,
            rps: None,
            latency_ms: Default::default(),
            bytes: Default::default(),
            tls: None,
            counts: Default::default(),
            plaintext: plaintext.iter().map(|(reason, count)| ((*reason).to_owned(), *count)).collect(),
            peers: Default::default(),
        };
        let rows = vec![row(&[("no_identity", 2.0), ("no_config", 3.0)]), row(&[("no_identity", 4.0)])];
        let stat = Stat { version: 1, window_ms: 1, covered_ms: 1, rows, unscraped: Vec::new() };
        assert_eq!(
            plaintext(&stat),
            ["plaintext: 6 responses, no_identity", "plaintext: 3 responses, no_config"]
        );
    }
}
