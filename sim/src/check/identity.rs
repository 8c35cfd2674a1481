//! Nobody is taken for somebody else.
//!
//! - No byte of an application goes over TLS to a pod that could not prove the name it was asked for, by what the client
//!   trusted, on the client's clock, when the connection was opened.
//! - No proxy says that it saw an identity which no pod at the other end of its connections validly held.
//!
//! A proxy keeps working credentials when its files break, so what a pod ever held counts, not only what its files hold.

use std::{collections::BTreeSet, time::Duration};

use super::{Invariant, Violation, ends, named};
use crate::history::{Counter, PodLife, Reading, Run, WireConnection, WireKind};

/// How long a handshake takes at most, and with it the moment at which a certificate is judged.
const HANDSHAKE: Duration = Duration::from_millis(1_500);
/// Labels that stand for no identity.
const NOBODY: [&str; 2] = ["unauthenticated", "other"];

/// Looks at every connection, and at every identity in a reading.
pub fn check(run: &Run) -> Vec<Violation> {
    let mut violations: Vec<_> = run.wire.iter().filter_map(|connection| deceived(run, connection)).collect();
    // A counter says the same again until the end, and what was proven once stays so.
    let mut judged = BTreeSet::new();
    for reading in &run.readings {
        let Some(pod) = run.pod(reading.pod, reading.at) else { continue };
        for counter in reading.counters.iter().filter(|counter| counter.value > 0) {
            for (label, identity) in identities(counter) {
                let is_inbound = counter.label("direction") == Some("inbound");
                let first = judged.insert((reading.pod, pod.from, is_inbound, label, identity));
                if first && !is_right(run, pod, reading, is_inbound, (label, identity)) {
                    let what = format!(
                        "{} shows {label} {identity:?}, which no peer of its connections held",
                        pod.name
                    );
                    violations.push(Violation { invariant: Invariant::Identity, at: reading.at, what });
                }
            }
        }
    }
    violations
}

fn deceived(run: &Run, connection: &WireConnection) -> Option<Violation> {
    let first = connection.first_application_byte.filter(|_| connection.kind == WireKind::Mesh)?;
    let asked = connection.sni.as_deref().unwrap_or_default();
    let at = connection.opened;
    let proven = match ends(run, connection) {
        // Whoever is no pod holds nothing. A client that is none has no proxy, hence no trust to betray.
        None => run.pod(connection.server.ip(), at).is_none().then_some(false)?,
        Some((client, server)) => proves(run, client, server, asked, at),
    };
    (!proven).then(|| {
        let what = format!(
            "{} carries application data, but its server cannot prove {asked:?}",
            named(run, connection)
        );
        Violation { invariant: Invariant::Identity, at: first, what }
    })
}

/// Whether `server` could prove to `judge` that it is `identity`, in a handshake that began at `at`.
fn proves(run: &Run, judge: &PodLife, server: &PodLife, identity: &str, at: Duration) -> bool {
    // It is judged at some moment of the handshake.
    let moments = [at, at + HANDSHAKE];
    server.credentials.iter().any(|held| {
        held.identity == identity
            && held.matches_key
            && held.from <= at + HANDSHAKE
            && moments.iter().any(|at| run.is_valid_at(held, judge, *at))
            && moments.iter().any(|at| run.may_trust(judge, &held.root, *at))
    })
}

fn identities(counter: &Counter) -> impl Iterator<Item = (&'static str, &str)> {
    let labels =
        ["client_id", "server_id"].into_iter().filter_map(|label| Some((label, counter.label(label)?)));
    labels.filter(|(_, identity)| !NOBODY.contains(identity))
}

fn is_right(
    run: &Run,
    pod: &PodLife,
    reading: &Reading,
    is_inbound: bool,
    (label, identity): (&str, &str),
) -> bool {
    let is_its_own = (label == "client_id") != is_inbound;
    if is_its_own {
        return pod.identity.as_deref() == Some(identity);
    }
    was_proven(run, pod, reading, is_inbound, identity)
}

fn was_proven(run: &Run, pod: &PodLife, reading: &Reading, is_inbound: bool, identity: &str) -> bool {
    let may_be_it = |connection: &&WireConnection| {
        matches!(connection.kind, WireKind::Mesh | WireKind::Handshake) && connection.opened <= reading.at
    };
    run.wire.iter().filter(may_be_it).any(|connection| {
        let Some((client, server)) = ends(run, connection) else { return false };
        let (own, peer) = if is_inbound { (server, client) } else { (client, server) };
        std::ptr::eq(own, pod) && proves(run, own, peer, identity, connection.opened)
    })
}

#[cfg(test)]
mod tests {
    use conduit_identity::UnixTime;

    use super::*;
    use crate::{
        check::testing::{A, B, assert_says, good, name, pod, reading},
        history::{Held, Trusted},
        testing::ms,
    };

    const DECEIVED: &str = "carries application data, but its server cannot prove";

    #[test]
    fn peers_that_prove_what_they_are_asked_for_are_right() {
        assert_eq!(check(&good()), []);
    }

    #[test]
    fn a_server_that_cannot_prove_its_name_is_found() {
        let spoil: [fn(&mut Run); 8] = [
            |run| run.pods[1].credentials.clear(),
            |run| run.pods[1].credentials[0].identity = name("another"),
            |run| run.pods[1].credentials[0].matches_key = false,
            |run| run.pods[1].credentials[0].root = "root-2".into(),
            |run| run.pods[1].credentials[0].not_after = UnixTime::from_secs(1_800_000_029),
            |run| run.pods[1].credentials[0].not_before = UnixTime::from_secs(1_800_000_032),
            |run| run.pods[1].credentials[0].from = ms(31_501),
            |run| run.wire[0].sni = None,
        ];
        for spoil in spoil {
            let mut run = good();
            run.readings.clear();
            spoil(&mut run);
            assert_says(&check(&run), DECEIVED);
        }
    }

    #[test]
    fn the_clients_clock_and_trust_count() {
        let mut run = good();
        run.readings.clear();
        run.pods[0].skew.push((ms(0), 1_000_000_000));
        assert_says(&check(&run), DECEIVED);
        run.pods[0].skew[0].0 = ms(31_501);
        assert_eq!(check(&run), []);

        run.pods[0].trusted = vec![Trusted { root: "root-2".into(), from: ms(0), until: None }];
        assert_says(&check(&run), DECEIVED);
    }

    #[test]
    fn a_server_that_is_no_pod_proves_nothing() {
        let mut run = good();
        run.pods.remove(1);
        run.readings.clear();
        assert_says(&check(&run), DECEIVED);
    }

    #[test]
    fn credentials_are_still_held_when_their_files_are_gone() {
        let mut run = good();
        run.pods[1].credentials[0].until = Some(ms(10_000));
        assert_eq!(check(&run), []);
    }

    #[test]
    fn an_identity_in_a_reading_that_no_peer_held_is_found() {
        let shows = |pod, direction: &str, label: &str, identity: &str| {
            let mut run = good();
            let text =
                format!("request_total{{direction=\"{direction}\",tls=\"true\",{label}=\"{identity}\"}} 1\n");
            run.readings.push(reading(pod, 95_000, &text));
            run.readings.push(reading(pod, 96_000, &text));
            check(&run)
        };
        let stranger = name("stranger");
        for (pod, direction, label) in [
            (A, "outbound", "server_id"),
            (A, "outbound", "client_id"),
            (B, "inbound", "client_id"),
            (B, "inbound", "server_id"),
        ] {
            let violations = shows(pod, direction, label, &stranger);
            assert_says(&violations, &format!("shows {label} \"{stranger}\""));
            assert_eq!(violations.len(), 1, "it is told once");
        }
        assert_eq!(shows(B, "inbound", "client_id", "unauthenticated"), []);
        assert_eq!(shows(B, "inbound", "client_id", "other"), []);
        // A client of somebody else.
        let mut run = good();
        run.pods.push(pod([10, 0, 0, 3].into(), "db"));
        run.readings = vec![Reading { pod: [10, 0, 0, 3].into(), ..run.readings.remove(1) }];
        run.readings[0].counters.iter_mut().for_each(|counter| {
            counter.labels.remove("server_id");
        });
        assert_says(&check(&run), "db-1 shows client_id");
        // Somebody's own name, but nobody of that name called.
        assert_says(&shows(B, "inbound", "client_id", &name("api")), "shows client_id");
    }

    #[test]
    fn an_identity_is_not_a_clients_whose_certificate_had_expired() {
        let mut run = good();
        run.pods[0].credentials = vec![Held {
            not_after: UnixTime::from_secs(1_800_000_010),
            ..run.pods[0].credentials[0].clone()
        }];
        assert_says(&check(&run), "api-1 shows client_id");
    }
}
