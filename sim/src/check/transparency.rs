//! What succeeds without Conduit succeeds with it, and soon.
//!
//! The run without Conduit has the same clients, deadlines and faults. An operation is compared when it had time to spare
//! there, and met nothing here or there that nobody can hide: a connection that a fault broke after bytes of an
//! application were on it or TLS was agreed on (simulated TCP never sends anything again), or a proxy that did not run.

use std::time::Duration;

use super::{Invariant, Limits, Violation};
use crate::history::{Op, OpId, Outcome, Protocol, Run, WireConnection, WireKind};

/// Round trips from a connection's first packet to an answer, at most.
const ROUND_TRIPS: u32 = 6;
/// How long after its proxy a pod's application may begin to listen: it is started after it.
const APPLICATION: Duration = Duration::from_millis(50);
/// The longest that servers of worlds which close idle connections let one idle.
const IDLE: Duration = Duration::from_millis(100);
/// Fewer delays than this say nothing about the 99th of a hundred.
const ENOUGH: usize = 20;

/// Compares `run` with `baseline`, the same without Conduit.
pub fn check(run: &Run, baseline: &Run, limits: &Limits) -> Vec<Violation> {
    compare(run, baseline, limits).0
}

/// [`check`], with how many operations were compared, and of how many.
pub fn compare(run: &Run, baseline: &Run, limits: &Limits) -> (Vec<Violation>, (u64, u64)) {
    let (here, there) = (Obstacles::of(run), Obstacles::of(baseline));
    let settled = run.settled(limits.settle);
    let ended = run.ended.min(baseline.ended);
    let (mut violations, mut asked, mut compared) = (Vec::new(), 0_u64, 0_u64);
    let mut delays = Vec::new();
    for (id, usual) in &baseline.ops.asked {
        // What the end of the run cuts off is nobody's fault.
        if usual.started + usual.deadline > ended {
            continue;
        }
        asked += 1;
        let Some(usually) = took(usual).filter(|took| *took + limits.spare <= usual.deadline) else {
            continue;
        };
        let Some(op) = run.ops.asked.get(id) else {
            violations.push(violation(usual.started, format!("{id} was asked without Conduit only")));
            continue;
        };
        if here.hinder(op) || there.hinder(usual) {
            continue;
        }
        compared += 1;
        match took(op) {
            None if crossed_a_close(run, *id, op) => {}
            None => violations
                .push(violation(op.ended.unwrap_or(op.started + op.deadline), failed(*id, op, usually))),
            Some(took)
                if took.saturating_sub(queued(run, *id, op))
                    > usually + limits.first_connection + slowed(run, op) + greeted(run, op, limits) =>
            {
                let what = format!("{} took {took:?}, and {usually:?} without Conduit", named(*id, op));
                violations.push(violation(op.started, what));
            }
            Some(took)
                if settled
                    .iter()
                    .any(|window| window.contains(op.started) && window.contains(op.started + took)) =>
            {
                delays.push((took.saturating_sub(usually), *id));
            }
            Some(_) => {}
        }
    }
    violations.extend(too_slow(delays, run.ended, limits));
    if asked == 0 || compared * 100 < asked * limits.compared_percent {
        let what = format!("nothing is proven: {compared} of {asked} operations could be compared");
        violations.push(violation(run.ended, what));
    }
    (violations, (compared, asked))
}

/// What slow links may add: a connection, a handshake of the mesh, one of the application and its question are so many
/// round trips.
fn slowed(run: &Run, op: &Op) -> Duration {
    let ended = op.ended.unwrap_or(op.started + op.deadline);
    let met = run
        .faults
        .iter()
        .filter(|fault| fault.from <= ended && fault.until.is_none_or(|until| op.started <= until));
    met.map(|fault| fault.slows * ROUND_TRIPS).sum()
}

/// What it may take beyond that until a server that speaks first is heard: it takes its time on a new connection, and its greeting
/// is held back where a handshake was swallowed.
fn greeted(run: &Run, op: &Op, limits: &Limits) -> Duration {
    if op.protocol != Protocol::ServerFirst {
        return Duration::ZERO;
    }
    let swallowed = |connection: &WireConnection| {
        connection.broken_by_fault == Some(connection.opened) && run.met(op, connection)
    };
    limits.greeting + if run.wire.iter().any(swallowed) { limits.held } else { Duration::ZERO }
}

/// How long an operation waited for the one before it, on slow links: what each takes longer there adds up where a client asks
/// more often than it is answered.
fn queued(run: &Run, id: OpId, op: &Op) -> Duration {
    let before = id.number.checked_sub(1).and_then(|number| run.ops.asked.get(&OpId { number, ..id }));
    let until = before.and_then(|before| before.ended).filter(|_| !slowed(run, op).is_zero());
    until.map_or(Duration::ZERO, |until| until.saturating_sub(op.started))
}

/// Whether a kept connection of `op` ended under it while links were slow, or at once after the operation before: a server that
/// closes an idle connection and a client that uses it again miss each other for as long as a link takes, with and without a
/// proxy between them. At their usual pace, operations are further apart than servers let connections idle.
fn crossed_a_close(run: &Run, id: OpId, op: &Op) -> bool {
    let slow = slowed(run, op);
    let ended = op.ended.unwrap_or(op.started + op.deadline);
    let closed = |connection: &WireConnection| {
        let within = |closed| op.started <= closed && closed <= ended + slow;
        // Who waits for first words that come late may take a new one for idle.
        let may_idle = connection.opened < op.started || connection.is_late;
        may_idle && connection.closed.is_some_and(within) && run.met(op, connection)
    };
    let before = id.number.checked_sub(1).and_then(|number| run.ops.asked.get(&OpId { number, ..id }));
    let is_at_once = before.and_then(|before| before.ended).is_some_and(|before| op.started <= before + IDLE);
    (!slow.is_zero() || is_at_once) && run.wire.iter().any(closed)
}

fn violation(at: Duration, what: String) -> Violation {
    Violation { invariant: Invariant::Transparency, at, what }
}

/// How long an operation took that was answered.
fn took(op: &Op) -> Option<Duration> {
    let ended = op.ended.filter(|_| op.outcome == Outcome::Answered)?;
    Some(ended.saturating_sub(op.started))
}

fn named(id: OpId, op: &Op) -> String {
    format!("{id} ({} from {} to {})", op.protocol.name(), op.client, op.service)
}

fn failed(id: OpId, op: &Op, usually: Duration) -> String {
    let how = match &op.outcome {
        Outcome::Unfinished => "never ended",
        Outcome::Wrong(why) | Outcome::Failed(why) => why.as_str(),
        Outcome::Answered => "was answered at no time",
    };
    format!("{} failed: {how}; without Conduit it was answered within {usually:?}", named(id, op))
}

fn too_slow(mut delays: Vec<(Duration, OpId)>, at: Duration, limits: &Limits) -> Option<Violation> {
    if delays.len() < ENOUGH {
        return None;
    }
    delays.sort_unstable();
    let rank = (delays.len() * 99).div_ceil(100);
    let (delay, id) = delays.get(rank - 1).filter(|(delay, _)| *delay > limits.settled_p99)?;
    let allowed = limits.settled_p99;
    let what = format!(
        "when settled, 1 in 100 takes {delay:?} longer than without Conduit (such as {id}), allowed is {allowed:?}"
    );
    Some(violation(at, what))
}

/// What nobody can hide from an application.
struct Obstacles<'a> {
    run: &'a Run,
    broken: Vec<&'a WireConnection>,
}

impl<'a> Obstacles<'a> {
    fn of(run: &'a Run) -> Self {
        let lost_bytes = |connection: &&WireConnection| {
            // Whatever crosses is the application's where no handshake of the mesh does, and may be silence.
            let is_the_applications = matches!(connection.kind, WireKind::AppTls | WireKind::Silent);
            // No proxy says in the clear what it began to say over TLS.
            let told = connection.first_application_byte.or(connection.agreed);
            let first = told.or(is_the_applications.then_some(connection.opened));
            let broken = connection.broken_by_fault;
            // One that was broken from the beginning swallowed everything.
            let swallows = broken == Some(connection.opened);
            broken.is_some_and(|broken| first.is_some_and(|first| first <= broken || swallows))
        };
        Self { run, broken: run.wire.iter().filter(lost_bytes).collect() }
    }

    fn hinder(&self, op: &Op) -> bool {
        let is_broken = |connection: &WireConnection| {
            self.run.met(op, connection) && connection.whole_since.is_none_or(|since| op.started <= since)
        };
        self.broken.iter().any(|connection| is_broken(connection)) || self.misses_a_proxy(op)
    }

    fn misses_a_proxy(&self, op: &Op) -> bool {
        let ended = op.ended.unwrap_or(op.started + op.deadline);
        self.run.pods.iter().any(|pod| {
            pod.outages.iter().any(|(from, until)| *from <= ended && op.started <= *until + APPLICATION)
                && (pod.ip == op.client || self.run.is_behind(op, pod.ip))
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::testing::{assert_says, baseline, good, id, op, plain},
        history::FaultRecord,
        testing::ms,
    };

    fn slow() -> FaultRecord {
        let (from, until) = (ms(30_000), Some(ms(40_000)));
        FaultRecord { kind: "Slow".into(), from, until, fired: 1, hides_changes: false, slows: ms(100) }
    }

    fn checked(run: &Run, baseline: &Run) -> Vec<Violation> {
        check(run, baseline, &Limits::default())
    }

    #[test]
    fn a_run_that_fares_as_without_conduit_is_right() {
        assert_eq!(checked(&good(), &baseline()), []);
    }

    #[test]
    fn an_operation_that_fails_is_found_however_it_does() {
        for outcome in [Outcome::Unfinished, Outcome::Wrong("lost".into()), Outcome::Failed("reset".into())] {
            let mut run = good();
            op(&mut run, 3).outcome = outcome;
            assert_says(
                &checked(&run, &baseline()),
                "op-1-0-3. (http1 from 10.0.0.1 to shop/api-svc) failed",
            );
        }
        let mut run = good();
        run.ops.asked.remove(&id(3));
        assert_says(&checked(&run, &baseline()), "op-1-0-3. was asked without Conduit only");
    }

    #[test]
    fn an_operation_that_fails_without_conduit_or_barely_succeeds_may_fail() {
        let (mut run, mut without) = (good(), baseline());
        op(&mut run, 3).outcome = Outcome::Failed("refused".into());
        op(&mut without, 3).outcome = Outcome::Failed("refused".into());
        op(&mut run, 4).outcome = Outcome::Failed("timeout".into());
        let barely = op(&mut without, 4);
        barely.ended = Some(barely.started + ms(3_001));
        assert_eq!(checked(&run, &without), []);
        let early = op(&mut without, 4);
        early.ended = Some(early.started + ms(3_000));
        assert_says(&checked(&run, &without), "op-1-0-4.");
    }

    #[test]
    fn an_operation_that_is_late_is_found() {
        let mut run = good();
        let late = op(&mut run, 3);
        late.ended = Some(late.started + ms(1_520));
        assert_eq!(
            checked(&run, &baseline()).len(),
            1,
            "it is within 1.5 s, and the 99th of a hundred when settled"
        );
        run.changes.push(ms(33_000));
        assert_eq!(checked(&run, &baseline()), []);
        let late = op(&mut run, 3);
        late.ended = Some(late.started + ms(1_521));
        assert_says(&checked(&run, &baseline()), "took 1.521s, and 20ms without Conduit");
    }

    #[test]
    fn a_server_that_speaks_first_may_take_its_time_and_be_held_back_after_a_swallowed_handshake() {
        let late = |by: u64| {
            let mut run = good();
            run.changes.push(ms(33_000));
            let late = op(&mut run, 3);
            late.protocol = Protocol::ServerFirst;
            late.ended = Some(late.started + ms(20 + by));
            run
        };
        assert_eq!(checked(&late(1_900), &baseline()), []);
        let mut run = late(2_900);
        assert_says(&checked(&run, &baseline()), "op-1-0-3.");
        let mut swallowed = plain(9, 33_005);
        swallowed.server.set_port(Protocol::ServerFirst.port());
        (swallowed.kind, swallowed.first_application_byte) = (WireKind::Handshake, None);
        swallowed.broken_by_fault = Some(ms(33_005));
        run.wire.push(swallowed);
        assert_eq!(checked(&run, &baseline()), []);
    }

    #[test]
    fn being_slow_when_all_is_well_is_found() {
        let mut run = good();
        for number in 0..30 {
            let slow = op(&mut run, number);
            slow.ended = Some(slow.started + ms(280));
        }
        assert_says(&checked(&run, &baseline()), "1 in 100 takes 260ms longer");
    }

    #[test]
    fn a_connection_broken_after_application_bytes_excuses_those_that_met_it() {
        let mut run = good();
        op(&mut run, 3).outcome = Outcome::Failed("reset".into());
        let broken = WireConnection {
            broken_by_fault: Some(ms(33_015)),
            closed: Some(ms(33_015)),
            ..plain(9, 33_000)
        };
        run.wire.push(broken);
        assert_eq!(checked(&run, &baseline()), []);

        for kind in [WireKind::AppTls, WireKind::Silent] {
            let broken = run.wire.last_mut().unwrap();
            (broken.kind, broken.first_application_byte) = (kind, None);
            assert_eq!(checked(&run, &baseline()), [], "{kind:?}");
        }
        let broken = run.wire.last_mut().unwrap();
        (broken.kind, broken.agreed) = (WireKind::Handshake, Some(ms(33_015)));
        assert_eq!(checked(&run, &baseline()), [], "the client has said its last word of the handshake");
        let broken = run.wire.last_mut().unwrap();
        broken.agreed = Some(ms(33_016));
        assert_says(&checked(&run, &baseline()), "op-1-0-3.");
        let broken = run.wire.last_mut().unwrap();
        (broken.kind, broken.agreed) = (WireKind::Plaintext, None);
        broken.first_application_byte = Some(ms(33_005));

        let spoil: [fn(&mut WireConnection); 7] = [
            |broken| broken.whole_since = Some(ms(32_999)),
            |broken| broken.first_application_byte = None,
            |broken| broken.first_application_byte = Some(ms(33_016)),
            |broken| broken.broken_by_fault = None,
            |broken| broken.closed = Some(ms(33_009)),
            |broken| broken.server.set_port(9_000),
            |broken| broken.client.set_ip([10, 0, 0, 9].into()),
        ];
        for (number, spoil) in spoil.into_iter().enumerate() {
            let mut run = run.clone();
            spoil(run.wire.last_mut().unwrap());
            assert!(!checked(&run, &baseline()).is_empty(), "excuse {number}");
        }
    }

    #[test]
    fn a_kept_connection_that_ends_under_an_operation_excuses_it_on_slow_links_or_at_once_after_another() {
        let mut run = good();
        op(&mut run, 3).outcome = Outcome::Failed("end of file".into());
        run.wire.push(WireConnection { closed: Some(ms(33_025)), ..plain(9, 32_000) });
        assert_says(&checked(&run, &baseline()), "op-1-0-3.");
        run.faults.push(slow());
        assert_eq!(checked(&run, &baseline()), []);
        run.wire.last_mut().unwrap().opened = ms(33_010);
        assert_says(&checked(&run, &baseline()), "op-1-0-3.");
        run.wire.last_mut().unwrap().opened = ms(32_000);
        run.faults.clear();
        assert_says(&checked(&run, &baseline()), "op-1-0-3.");
        op(&mut run, 2).ended = Some(ms(32_910));
        run.changes.push(ms(33_000));
        assert_eq!(checked(&run, &baseline()), [], "it follows the one before at once");
    }

    #[test]
    fn a_queue_in_front_of_an_operation_excuses_it_on_slow_links_only() {
        let mut run = good();
        run.changes.push(ms(33_000));
        let before = op(&mut run, 3);
        before.ended = Some(before.started + ms(1_500));
        let until = before.ended.unwrap();
        let late = op(&mut run, 4);
        late.ended = Some(until + ms(1_500));
        assert_says(&checked(&run, &baseline()), "op-1-0-4.");
        run.faults.push(slow());
        assert_eq!(checked(&run, &baseline()), []);
        op(&mut run, 4).ended = Some(until + ms(3_000));
        assert_says(&checked(&run, &baseline()), "op-1-0-4.");
    }

    #[test]
    fn a_proxy_that_does_not_run_excuses_but_only_then() {
        let mut run = good();
        op(&mut run, 3).outcome = Outcome::Failed("refused".into());
        run.pods[1].outages.push((ms(33_000), ms(33_500)));
        assert_eq!(checked(&run, &baseline()), []);
        run.pods[1].outages[0] = (ms(33_100), ms(33_500));
        assert_says(&checked(&run, &baseline()), "op-1-0-3.");
        run.pods[1].outages[0] = (ms(32_500), ms(32_960));
        assert_eq!(checked(&run, &baseline()), [], "its application is about to start");
        run.pods[1].outages[0] = (ms(32_500), ms(32_959));
        assert_says(&checked(&run, &baseline()), "op-1-0-3.");
    }

    #[test]
    fn a_run_in_which_too_little_is_compared_proves_nothing() {
        let mut run = good();
        run.pods[0].outages.push((ms(0), ms(45_500)));
        assert_says(&checked(&run, &baseline()), "nothing is proven: 14 of 30");
        assert_says(&checked(&Run::default(), &Run::default()), "nothing is proven: 0 of 0");
    }
}
