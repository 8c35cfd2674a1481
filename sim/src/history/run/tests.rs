use super::*;
use crate::{
    check::testing::{A, good, pod},
    testing::ms,
};

fn windows(run: &Run) -> Vec<(u64, u64)> {
    let seconds = |at: Duration| at.as_secs();
    run.settled(ms(20_000)).iter().map(|window| (seconds(window.from), seconds(window.until))).collect()
}

#[test]
fn settled_is_what_lies_between_changes_less_the_time_to_follow_them() {
    let mut run = good();
    assert_eq!(windows(&run), [(20, 120)]);
    run.changes.push(ms(50_000));
    assert_eq!(windows(&run), [(20, 50), (70, 120)]);
    run.faults.push(FaultRecord {
        kind: "ca-down".into(),
        from: ms(60_000),
        until: Some(ms(65_000)),
        fired: 1,
        hides_changes: false,
        slows: Duration::ZERO,
    });
    assert_eq!(windows(&run), [(20, 50), (85, 120)]);
    run.faults.push(FaultRecord {
        kind: "cut".into(),
        from: ms(90_000),
        until: None,
        fired: 0,
        hides_changes: false,
        slows: Duration::ZERO,
    });
    assert_eq!(windows(&run), [(20, 50), (85, 90)]);
    assert_eq!(run.last_fault_ended(), ms(120_000));
}

#[test]
fn pods_files_and_clocks_that_change_disturb() {
    let changes: [fn(&mut PodLife); 6] = [
        |pod| pod.until = Some(ms(60_000)),
        |pod| pod.credentials[0].until = Some(ms(60_000)),
        |pod| pod.trusted[0].until = Some(ms(60_000)),
        |pod| pod.skew.push((ms(60_000), 5)),
        |pod| pod.outages.push((ms(60_000), ms(60_000))),
        |pod| pod.credentials[0].not_after = UnixTime::from_secs(1_800_000_060),
    ];
    for (number, change) in changes.into_iter().enumerate() {
        let mut run = good();
        change(&mut run.pods[0]);
        assert_eq!(windows(&run), [(20, 60), (80, 120)], "change {number}");
    }
}

#[test]
fn a_clock_that_is_ahead_or_faster_meets_an_expiry_sooner() {
    let mut run = good();
    run.pods[0].credentials[0].not_after = UnixTime::from_secs(1_800_000_100);
    run.pods[0].skew.push((Duration::ZERO, 40_000));
    // The other pod's clock is right, but judges the same certificate only when it is shown it.
    assert!(windows(&run).contains(&(20, 60)), "{:?}", windows(&run));
    run.pods[0].skew.clear();
    run.clock_speed = 2;
    assert_eq!(windows(&run), [(20, 50), (70, 120)]);
    assert!(run.is_valid_at(&run.pods[0].credentials[0], &run.pods[0], ms(50_000)));
    assert!(!run.is_valid_at(&run.pods[0].credentials[0], &run.pods[0], ms(50_001)));
}

#[test]
fn only_what_both_believe_is_mutual() {
    let run = good();
    let mutual = |run: &Run| run.can_be_mutual(&run.pods[0], &run.pods[1], ms(30_000));
    assert!(mutual(&run));
    let breaks: [fn(&mut PodLife); 8] = [
        |pod| pod.sidecar = Sidecar::Plaintext,
        |pod| pod.credentials[0].identity = "somebody.else".into(),
        |pod| pod.credentials[0].matches_key = false,
        |pod| pod.credentials[0].root = "another".into(),
        |pod| pod.credentials[0].not_after = UnixTime::from_secs(1_800_000_001),
        |pod| pod.credentials[0].not_before = UnixTime::from_secs(1_900_000_000),
        |pod| pod.credentials[0].until = Some(ms(10)),
        |pod| pod.skew.push((ms(10), 1_000_000_000)),
    ];
    for (number, change) in breaks.into_iter().enumerate() {
        for which in [0, 1] {
            let mut run = good();
            change(&mut run.pods[which]);
            assert!(!mutual(&run), "break {number} of pod {which}");
        }
    }
}

#[test]
fn a_root_that_left_is_trusted_until_usable_files_were_read() {
    let mut run = good();
    run.pods[0].trusted[0].until = Some(ms(50_000));
    let trusts = |run: &Run, at| run.may_trust(&run.pods[0], "root-1", ms(at));
    // Without another usable certificate the old ones, and their trust, are kept.
    assert!(trusts(&run, 110_000));
    run.pods[0].trusted.push(Trusted { root: "root-2".into(), from: ms(50_000), until: None });
    let renewed = Held { root: "root-2".into(), from: ms(60_000), ..run.pods[0].credentials[0].clone() };
    run.pods[0].credentials.push(renewed);
    assert!(trusts(&run, 79_999));
    assert!(!trusts(&run, 80_000));
    assert!(!run.may_trust(&run.pods[0], "root-3", ms(80_000)));
}

#[test]
fn an_address_belongs_to_the_pod_that_has_it_then() {
    let mut run = good();
    run.pods[0].until = Some(ms(50_000));
    run.pods.push(PodLife { from: ms(50_000), name: "reborn".into(), ..pod(A, "other") });
    assert_eq!(run.pod(A, ms(49_999)).unwrap().name, run.pods[0].name);
    assert_eq!(run.pod(A, ms(50_000)).unwrap().name, "reborn");
}
