//! Between two pods that both hold valid credentials nothing is in the clear, once settled.
//!
//! A connection from before may live on as it is: opaque streams are never cut. HTTP is not such a stream: a request that
//! begins when all is settled must not travel on what is left from worse times.

use std::time::Duration;

use super::{Invariant, Limits, Violation, ends, named};
use crate::history::{OpId, Protocol, Run, Window, WireConnection, WireKind};

/// The ports of the proxies themselves: tap, and metrics and probes, which are not the application's.
pub(super) const PROXY_PORTS: [u16; 2] = [4190, 4191];

/// Looks at every settled stretch of `run`.
pub fn check(run: &Run, limits: &Limits) -> Vec<Violation> {
    let windows = run.settled(limits.settle);
    run.wire.iter().flat_map(|connection| exposed(run, &windows, connection)).collect()
}

fn exposed(run: &Run, windows: &[Window], connection: &WireConnection) -> Vec<Violation> {
    let closed = connection.closed.unwrap_or(run.ended);
    let judged = windows.iter().filter(|window| {
        window.from <= closed
            && connection.opened <= window.until
            && could_be_encrypted(run, connection, **window)
    });
    judged
        .flat_map(|window| {
            opened_plain(run, *window, connection).into_iter().chain(shown(run, *window, connection))
        })
        .collect()
}

/// Whether the pods at both ends could do TLS all the time: nothing changes within a window, so its ends tell.
fn could_be_encrypted(run: &Run, connection: &WireConnection, window: Window) -> bool {
    !PROXY_PORTS.contains(&connection.server.port())
        && ends(run, connection).is_some_and(|(client, server)| {
            let there = |at| client.is_alive(at) && server.is_alive(at);
            // A pod that ends with the window is gone at its last moment.
            let last = window.until.saturating_sub(Duration::from_millis(1));
            [window.from, last].into_iter().all(|at| there(at) && run.can_be_mutual(client, server, at))
        })
}

fn opened_plain(run: &Run, window: Window, connection: &WireConnection) -> Option<Violation> {
    let is_plain = connection.kind == WireKind::Plaintext && !connection.is_misled_probe();
    let opened = is_plain && window.contains(connection.opened);
    opened.then(|| {
        let at = connection.first_application_byte.unwrap_or(connection.opened);
        violation(
            at,
            format!("{} is in plaintext, though both hold valid credentials", named(run, connection)),
        )
    })
}

fn shown(run: &Run, window: Window, connection: &WireConnection) -> Vec<Violation> {
    let may_show = |id: OpId| {
        let old = connection.opened < window.from;
        old && run.ops.asked.get(&id).is_some_and(|op| {
            let is_http = matches!(op.protocol, Protocol::Http1 | Protocol::Http2 | Protocol::Grpc);
            !is_http || !window.contains(op.started)
        })
    };
    let seen = connection.markers.iter().filter(|(_, at)| window.contains(*at));
    seen.filter(|(id, _)| !may_show(*id))
        .map(|(id, at)| {
            let connection = named(run, connection);
            violation(
                *at,
                format!("{id} crossed in the clear on {connection}, though both hold valid credentials"),
            )
        })
        .collect()
}

fn violation(at: Duration, what: String) -> Violation {
    Violation { invariant: Invariant::Confidentiality, at, what }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::testing::{assert_says, good, id, mesh, op, plain},
        history::Sidecar,
        testing::ms,
    };

    fn checked(run: &Run) -> Vec<Violation> {
        check(run, &Limits::default())
    }

    fn with(connection: WireConnection) -> Run {
        let mut run = good();
        run.wire.push(connection);
        run
    }

    #[test]
    fn encrypted_connections_are_right_and_so_is_the_applications_own_tls() {
        assert_eq!(checked(&good()), []);
        assert_eq!(checked(&with(WireConnection { kind: WireKind::AppTls, ..plain(2, 30_000) })), []);
    }

    #[test]
    fn plaintext_opened_when_settled_is_found() {
        assert_says(
            &checked(&with(plain(2, 30_000))),
            "connection 2 from web-1 to api-1:8080 is in plaintext",
        );
    }

    #[test]
    fn a_marker_in_the_clear_is_found_on_whatever_claims_to_be_encrypted() {
        for kind in [WireKind::Mesh, WireKind::AppTls, WireKind::Handshake] {
            let run = with(WireConnection { kind, markers: vec![(id(3), ms(33_015))], ..mesh(2, 30_000) });
            assert_says(&checked(&run), "op-1-0-3. crossed in the clear on connection 2");
        }
    }

    #[test]
    fn a_stream_from_before_may_go_on_and_a_request_may_not() {
        let old = WireConnection { markers: vec![(id(3), ms(33_015))], ..plain(2, 10_000) };
        let mut run = with(old);
        assert_says(&checked(&run), "op-1-0-3. crossed in the clear");
        op(&mut run, 3).protocol = Protocol::Opaque;
        assert_eq!(checked(&run), []);
        // A stream that was opened since may not.
        run.wire[1].opened = ms(30_000);
        run.wire[1].kind = WireKind::Mesh;
        assert_says(&checked(&run), "op-1-0-3. crossed in the clear");
        run.wire[1].opened = ms(10_000);
        op(&mut run, 3).protocol = Protocol::Grpc;
        op(&mut run, 3).started = ms(19_999);
        assert_eq!(checked(&run), []);
    }

    #[test]
    fn who_cannot_do_tls_or_is_not_settled_may_speak_plaintext() {
        let excuses: [fn(&mut Run); 7] = [
            |run| run.pods[0].sidecar = Sidecar::Absent,
            |run| run.pods[1].sidecar = Sidecar::Plaintext,
            |run| run.pods[1].credentials.clear(),
            |run| run.pods[0].credentials[0].root = "another".into(),
            |run| run.pods[0].skew.push((ms(0), 1_000_000_000)),
            |run| run.changes.push(ms(29_000)),
            |run| run.wire[1].server.set_port(4_191),
        ];
        for (number, excuse) in excuses.into_iter().enumerate() {
            let mut run = with(plain(2, 30_000));
            excuse(&mut run);
            assert_eq!(checked(&run), [], "excuse {number}");
        }
    }

    #[test]
    fn a_probe_that_finds_somebody_else_is_right_unless_it_shows_anything() {
        let mut probe = WireConnection { sni: Some("somebody".into()), ..plain(2, 30_000) };
        probe.markers.clear();
        assert_eq!(checked(&with(probe.clone())), []);
        probe.markers.push((id(3), ms(30_001)));
        assert_says(&checked(&with(probe)), "though both hold valid credentials");
    }

    #[test]
    fn a_window_that_ends_with_a_pod_is_judged() {
        let mut run = with(plain(2, 30_000));
        run.pods[1].until = Some(ms(60_000));
        assert!(!checked(&run).is_empty());
    }
}
