//! Nothing arrives twice, in part, or where it was not meant to, a ClientHello for a proxy included; no answer is
//! another's.

use std::{collections::BTreeMap, time::Duration};

use super::{Invariant, Violation, ends, named};
use crate::history::{Arrival, Op, OpId, Outcome, Run, WireConnection, WireKind};

/// Looks at every arrival and every answer.
pub fn check(run: &Run) -> Vec<Violation> {
    let mut times: BTreeMap<OpId, u32> = BTreeMap::new();
    let mut violations = Vec::new();
    for arrival in &run.ops.arrived {
        let count = times.entry(arrival.op).or_default();
        *count += 1;
        let Some(op) = run.ops.asked.get(&arrival.op) else {
            violations.push(violation(arrival.at, format!("{} arrived, and nobody had asked", arrival.op)));
            continue;
        };
        let asked = run.ops.times_asked(arrival.op);
        if *count > asked {
            let what =
                format!("{} arrived {count} times, asked for {asked}, now at {}", arrival.op, arrival.server);
            violations.push(violation(arrival.at, what));
        }
        violations.extend(misled(run, op, arrival).map(|what| violation(arrival.at, what)));
        if !arrival.intact && !is_excused(run, op, arrival) {
            let what = format!("{} did not arrive whole at {}", arrival.op, arrival.server);
            violations.push(violation(arrival.at, what));
        }
    }
    let wrong = run.ops.asked.iter().filter_map(|(id, op)| match &op.outcome {
        Outcome::Wrong(why) => {
            Some(violation(op.ended.unwrap_or(op.started), format!("{id} was answered wrongly: {why}")))
        }
        _ => None,
    });
    violations.extend(wrong);
    violations.extend(run.wire.iter().filter_map(|connection| handed_over(run, connection)));
    violations
}

/// A ClientHello for a pod's proxy that its application was given: it answers in the clear.
fn handed_over(run: &Run, connection: &WireConnection) -> Option<Violation> {
    let (_, server) = ends(run, connection)?;
    let had_a_proxy =
        !server.outages.iter().any(|(from, until)| *from <= connection.opened && connection.opened <= *until);
    let is_its_own = server.identity.is_some() && server.identity == connection.sni;
    // A fault that holds a client's words back may make them look like anything.
    let handed = is_its_own && had_a_proxy && connection.kind == WireKind::Plaintext && !connection.is_late;
    handed.then(|| {
        let what = format!("{} is for the proxy, and was given to the application", named(run, connection));
        violation(connection.first_application_byte.unwrap_or(connection.opened), what)
    })
}

fn violation(at: Duration, what: String) -> Violation {
    Violation { invariant: Invariant::Once, at, what }
}

/// Whether an operation is where it was not meant to be.
fn misled(run: &Run, op: &Op, arrival: &Arrival) -> Option<String> {
    let Arrival { op: id, server, workload, protocol, at, .. } = arrival;
    let Some(behind) = run.services.get(&op.service) else {
        return Some(format!("{id} went to {}, of which nothing is known", op.service));
    };
    if !behind.contains(workload) {
        return Some(format!("{id} for {} arrived at {workload}", op.service));
    }
    if run.pod(*server, *at).is_none_or(|pod| pod.workload != *workload) {
        return Some(format!("{id} arrived at {server}, which was no pod of {workload} then"));
    }
    (*protocol != op.protocol)
        .then(|| format!("{id} left as {} and arrived as {}", op.protocol.name(), protocol.name()))
}

/// Whether the rest could not come: its client had given up, or a fault had broken a connection under it.
fn is_excused(run: &Run, op: &Op, arrival: &Arrival) -> bool {
    let gave_up = op.outcome != Outcome::Answered && op.ended.is_none_or(|ended| ended <= arrival.at);
    gave_up
        || run.wire.iter().any(|connection| connection.broken_by_fault.is_some() && run.met(op, connection))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        check::testing::{A, assert_says, good, id, name, op, plain},
        history::{OpLog, Protocol},
        testing::ms,
    };

    #[test]
    fn what_arrives_once_and_whole_is_right() {
        assert_eq!(check(&good()), []);
    }

    #[test]
    fn what_arrives_twice_is_found_unless_it_was_asked_for_twice() {
        let mut run = good();
        run.ops.arrived.push(run.ops.arrived[3].clone());
        assert_says(&check(&run), "op-1-0-3. arrived 2 times, asked for 1");
        run.ops.begun.insert(id(3), 2);
        assert_eq!(check(&run), []);
        run.ops.arrived.push(run.ops.arrived[3].clone());
        assert_says(&check(&run), "op-1-0-3. arrived 3 times, asked for 2");
    }

    #[test]
    fn the_log_counts_how_often_a_client_begins() {
        let (log, op) = (OpLog::default(), op(&mut good(), 3).clone());
        assert_eq!(log.snapshot().times_asked(id(3)), 0);
        for times in 1..4 {
            log.begin(id(3), Op { started: ms(times), ..op.clone() });
            assert_eq!(u64::from(log.snapshot().times_asked(id(3))), times);
        }
        assert_eq!(log.snapshot().asked[&id(3)].started, ms(1));
    }

    #[test]
    fn what_arrives_in_part_is_found_unless_its_connection_broke_or_its_client_left() {
        let mut run = good();
        run.ops.arrived[3].intact = false;
        assert_says(&check(&run), "op-1-0-3. did not arrive whole");
        run.wire[0].broken_by_fault = Some(ms(33_012));
        assert_eq!(check(&run), []);
        run.wire[0].broken_by_fault = None;
        op(&mut run, 3).outcome = Outcome::Failed("timeout".into());
        assert_says(&check(&run), "did not arrive whole");
        op(&mut run, 3).ended = Some(run.ops.arrived[3].at);
        assert_eq!(check(&run), []);
    }

    #[test]
    fn what_arrives_at_a_wrong_place_is_found() {
        type Spoil = fn(&mut Run);
        let spoil: [(Spoil, &str); 6] = [
            (|run| run.ops.arrived[3].workload = "shop/db".into(), "arrived at shop/db"),
            (|run| run.ops.arrived[3].server = A, "no pod of shop/api"),
            (|run| run.ops.arrived[3].server = [10, 9, 9, 9].into(), "no pod of shop/api"),
            (|run| run.ops.arrived[3].protocol = Protocol::Grpc, "left as http1 and arrived as grpc"),
            (|run| op(run, 3).service = "shop/unknown".into(), "of which nothing is known"),
            (|run| run.ops.arrived[3].op = OpId { client: 9, ..id(3) }, "nobody had asked"),
        ];
        for (spoil, expected) in spoil {
            let mut run = good();
            spoil(&mut run);
            assert_says(&check(&run), expected);
        }
    }

    #[test]
    fn an_answer_that_is_wrong_is_found() {
        let mut run = good();
        op(&mut run, 3).outcome = Outcome::Wrong("doubled".into());
        assert_says(&check(&run), "op-1-0-3. was answered wrongly: doubled");
    }

    #[test]
    fn a_client_hello_that_the_application_answers_is_found() {
        let answered = WireConnection { sni: Some(name("api")), ..plain(2, 30_000) };
        let found = |connection: WireConnection, spoil: fn(&mut Run)| {
            let mut run = good();
            run.wire.push(connection);
            spoil(&mut run);
            check(&run)
        };
        assert_says(
            &found(answered.clone(), |_| {}),
            "connection 2 from web-1 to api-1:8080 is for the proxy",
        );
        assert_eq!(found(answered.clone(), |run| run.pods[1].outages.push((ms(29_000), ms(31_000)))), []);
        assert_eq!(found(answered.clone(), |run| run.wire[1].is_late = true), []);
        assert_eq!(found(WireConnection { sni: Some(name("another")), ..answered }, |_| {}), []);
    }
}
