//! Some time after the last fault everything that can be TLS is TLS, and everything is answered.

use std::time::Duration;

use super::{Invariant, Limits, Violation, confidentiality::PROXY_PORTS, ends, named};
use crate::history::{Outcome, Run, Window, WireConnection, WireKind};

/// What is opened this close to the end of a stretch may not have come to anything yet.
const UNDER_WAY: Duration = Duration::from_secs(3);

/// Looks at the stretches of `run` that are settled and come after its last fault.
pub fn check(run: &Run, limits: &Limits) -> Vec<Violation> {
    let last_fault = run.last_fault_ended();
    let mut windows = run.settled(limits.settle);
    windows.retain(|window| window.from >= last_fault);
    if windows.is_empty() {
        let what =
            format!("nothing is proven: never settled after the last fault, which ended at {last_fault:?}");
        return vec![violation(run.ended, what)];
    }
    let within = |at: Duration| windows.iter().find(|window| window.contains(at));
    let connections =
        run.wire.iter().filter_map(|connection| unsettled(run, *within(connection.opened)?, connection));
    let operations = run.ops.asked.iter().filter_map(|(id, op)| {
        let whole = within(op.started)?.contains(op.started + op.deadline);
        let how = match &op.outcome {
            Outcome::Answered => return None,
            Outcome::Unfinished => "it never ended",
            Outcome::Wrong(why) | Outcome::Failed(why) => why.as_str(),
        };
        let what =
            format!("{id} ({} to {}) failed when all had settled: {how}", op.protocol.name(), op.service);
        whole.then(|| violation(op.ended.unwrap_or(op.started + op.deadline), what))
    });
    connections.chain(operations).collect()
}

fn violation(at: Duration, what: String) -> Violation {
    Violation { invariant: Invariant::Settling, at, what }
}

fn unsettled(run: &Run, window: Window, connection: &WireConnection) -> Option<Violation> {
    let (client, server) = ends(run, connection)?;
    if PROXY_PORTS.contains(&connection.server.port())
        || !run.can_be_mutual(client, server, connection.opened)
    {
        return None;
    }
    let under_way = connection.opened + UNDER_WAY > window.until;
    let is = match connection.kind {
        WireKind::Mesh | WireKind::AppTls => return None,
        WireKind::Plaintext if connection.is_misled_probe() => return None,
        WireKind::Silent | WireKind::Handshake if under_way => return None,
        WireKind::Silent => "carries nothing",
        WireKind::Handshake => "does not get beyond a handshake",
        WireKind::Plaintext => "is in plaintext",
    };
    Some(violation(connection.opened, format!("{} {is} when all had settled", named(run, connection))))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::testing::{assert_says, good, op, plain},
        history::{FaultRecord, Sidecar},
        testing::ms,
    };

    fn checked(run: &Run) -> Vec<Violation> {
        check(run, &Limits::default())
    }

    fn fault(from: u64, until: Option<u64>) -> FaultRecord {
        FaultRecord {
            kind: "cut".into(),
            from: ms(from),
            until: until.map(ms),
            fired: 1,
            hides_changes: false,
            slows: Duration::ZERO,
        }
    }

    #[test]
    fn a_run_that_settles_is_right() {
        let mut run = good();
        assert_eq!(checked(&run), []);
        run.faults.push(fault(1_000, Some(5_000)));
        assert_eq!(checked(&run), []);
    }

    #[test]
    fn connections_that_are_no_tls_are_found() {
        for (kind, expected) in [
            (WireKind::Plaintext, "is in plaintext when all had settled"),
            (WireKind::Handshake, "does not get beyond a handshake"),
            (WireKind::Silent, "carries nothing"),
        ] {
            let mut run = good();
            run.wire.push(WireConnection { kind, ..plain(2, 40_000) });
            assert_says(&checked(&run), expected);
        }
    }

    #[test]
    fn what_is_not_settled_under_way_or_cannot_be_tls_is_right() {
        let excuses: [fn(&mut Run); 4] = [
            |run| run.faults.push(fault(1_000, Some(30_000))),
            |run| run.pods[1].sidecar = Sidecar::Absent,
            |run| run.wire[1].kind = WireKind::AppTls,
            |run| (run.wire[1].kind, run.wire[1].opened) = (WireKind::Handshake, ms(117_001)),
        ];
        for (number, excuse) in excuses.into_iter().enumerate() {
            let mut run = good();
            run.wire.push(plain(2, 40_000));
            excuse(&mut run);
            assert_eq!(checked(&run), [], "excuse {number}");
        }
    }

    #[test]
    fn operations_that_fail_are_found_when_settled_only() {
        for outcome in
            [Outcome::Unfinished, Outcome::Failed("reset".into()), Outcome::Wrong("doubled".into())]
        {
            let mut run = good();
            op(&mut run, 3).outcome = outcome;
            assert_says(&checked(&run), "op-1-0-3. (http1 to shop/api-svc) failed when all had settled");
            run.faults.push(fault(1_000, Some(13_011)));
            assert_eq!(checked(&run), []);
        }
    }

    #[test]
    fn a_run_that_never_settles_proves_nothing() {
        let mut run = good();
        run.faults.push(fault(40_000, None));
        assert_says(&checked(&run), "nothing is proven");
        run.faults[0] = fault(40_000, Some(101_000));
        assert_says(&checked(&run), "nothing is proven");
    }
}
