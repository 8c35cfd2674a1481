use conduit_runtime::Seed;
use proptest::prelude::*;
use rand::Rng;

use super::*;

fn loads(count: usize, now: Instant) -> Vec<Arc<Load>> {
    (0..count).map(|_| Arc::new(Load::new(now))).collect()
}

fn pick_of(loads: &[Arc<Load>], now: Instant, draw: u64) -> Picked {
    pick(loads, |load| load.as_ref(), now, draw)
}

fn shares(loads: &[Arc<Load>], now: Instant, draws: usize) -> Vec<usize> {
    let mut rng = Seed::fixed(1).rng();
    let mut shares = vec![0; loads.len()];
    for _ in 0..draws {
        match pick_of(loads, now, rng.next_u64()) {
            Picked::Available(index) => shares[index] += 1,
            other => panic!("{other:?}"),
        }
    }
    shares
}

#[test]
fn nothing_is_picked_from_nothing() {
    assert_eq!(pick_of(&[], Instant::now(), 7), Picked::Nothing);
}

#[test]
fn equal_endpoints_get_equal_shares() {
    let now = Instant::now();
    for share in shares(&loads(5, now), now, 50_000) {
        assert!((9_500..10_500).contains(&share), "{share}");
    }
}

#[test]
fn a_slow_endpoint_keeps_only_the_requests_for_which_it_was_drawn_twice() {
    let start = Instant::now();
    let loads = loads(4, start);
    let later = start + Duration::from_millis(400);
    loads[0].start(start).answered(later);
    let shares = shares(&loads, later, 10_000);
    // Two different ones are always drawn, so that the slowest never wins.
    assert_eq!(shares[0], 0);
}

#[test]
fn requests_under_way_move_new_ones_elsewhere() {
    let now = Instant::now();
    let loads = loads(2, now);
    let under_way = loads[0].start(now);
    assert_eq!(shares(&loads, now, 1_000), [0, 1_000]);
    drop(under_way);
    assert!(shares(&loads, now, 1_000)[0] > 400);
}

#[test]
fn worse_news_counts_at_once_and_fades_with_time() {
    let start = Instant::now();
    let load = Arc::new(Load::new(start));
    let at = start + Duration::from_secs(2);
    load.start(start).answered(at);
    assert_eq!(load.cost(at), 2e6);
    let after_one_decay = load.cost(at + DECAY);
    assert!((after_one_decay / 2e6 - 0.3679).abs() < 1e-3, "{after_one_decay}");
    assert_eq!(load.cost(at + 1000 * DECAY), CHEAPEST_US);
}

#[test]
fn better_news_is_weighed_by_the_time_since_the_last() {
    let start = Instant::now();
    let load = Arc::new(Load::new(start));
    let at = start + Duration::from_secs(1);
    load.start(start).answered(at);
    let later = at + DECAY;
    load.start(later).answered(later);
    let expected = 1e6 * (-1.0_f32).exp();
    assert!((load.cost(later) / expected - 1.0).abs() < 1e-2);
}

#[test]
fn an_endpoint_that_fails_at_once_does_not_look_fast() {
    let now = Instant::now();
    let loads = loads(2, now);
    loads[0].start(now).failed(now);
    assert_eq!(shares(&loads, now, 100), [0, 100]);
}

#[test]
fn a_dropped_request_says_nothing_about_the_endpoint() {
    let now = Instant::now();
    let load = Arc::new(Load::new(now));
    let before = load.cost(now);
    drop(load.start(now));
    assert_eq!(load.cost(now), before);
}

#[test]
fn backoff_doubles_to_its_cap_and_ends_with_a_connection() {
    let mut now = Instant::now();
    let load = Load::new(now);
    for step_ms in [100, 200, 400, 800, 1_600, 3_200, 6_400, 10_000, 10_000] {
        load.connect_failed(now, Duration::ZERO, u64::MAX);
        let until = load.available_at();
        let waited = (until - now).as_millis();
        assert!((step_ms - 1..=step_ms).contains(&waited), "{waited} for {step_ms}");
        assert!(!load.is_available(until - Duration::from_millis(1)));
        assert!(load.is_available(until));
        now = until;
    }
    load.connect_failed(now, Duration::ZERO, 0);
    load.connected();
    assert!(load.is_available(now));
    load.connect_failed(now, Duration::ZERO, 0);
    assert_eq!((load.available_at() - now).as_millis(), 50);
}

#[test]
fn connections_that_failed_together_are_one_failure() {
    let now = Instant::now();
    let load = Load::new(now);
    for _ in 0..100 {
        load.connect_failed(now, Duration::ZERO, u64::MAX);
    }
    assert!(load.is_available(now + BACKOFF_MIN));
}

#[test]
fn what_was_waited_for_in_vain_is_left_alone_for_longer_than_that() {
    let now = Instant::now();
    let load = Load::new(now);
    load.connect_failed(now, Duration::from_secs(1), 0);
    assert_eq!(load.available_at() - now, Duration::from_secs(4));
    let now = load.available_at();
    load.connect_failed(now, Duration::from_secs(1), u64::MAX);
    assert_eq!((load.available_at() - now).as_millis().div_ceil(1_000), 8);
    let now = load.available_at();
    load.connect_failed(now, Duration::from_secs(60), u64::MAX);
    assert_eq!((load.available_at() - now).as_millis().div_ceil(1_000), 10);
}

#[test]
fn one_request_tries_whether_an_endpoint_is_back_and_the_others_do_not() {
    let now = Instant::now();
    let load = Load::new(now);
    load.on_trial(now, Duration::from_secs(1));
    assert!(load.is_available(now), "nothing was wrong with it");
    load.connect_failed(now, Duration::ZERO, u64::MAX);
    let due = load.available_at();
    load.on_trial(now, Duration::from_secs(1));
    assert_eq!(load.available_at(), due, "not before its time");

    load.on_trial(due, Duration::from_secs(1));
    assert!(!load.is_available(due));
    // Who began may have left without a word.
    assert!(load.is_available(due + Duration::from_secs(1)));
    // It failed at once: that counts, although nobody was to try before the second had passed.
    load.connect_failed(due, Duration::ZERO, u64::MAX);
    assert_eq!((load.available_at() - due).as_millis().div_ceil(100), 2);
    load.on_trial(load.available_at(), Duration::from_secs(1));
    load.connected();
    assert!(load.is_available(due));
}

#[test]
fn when_all_fail_the_first_to_be_available_again_is_named() {
    let now = Instant::now();
    let loads = loads(3, now);
    loads[0].connect_failed(now, Duration::ZERO, u64::MAX);
    loads[1].connect_failed(now, Duration::ZERO, 0);
    loads[2].connect_failed(now, Duration::ZERO, u64::MAX);
    assert_eq!(pick_of(&loads, now, 3), Picked::AllFailing(1));
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn an_unavailable_endpoint_is_never_picked_while_another_is_available(
        failing in prop::collection::vec(any::<bool>(), 1..20),
        draw in any::<u64>(),
    ) {
        let now = Instant::now();
        let loads = loads(failing.len(), now);
        for (load, _) in loads.iter().zip(&failing).filter(|(_, failing)| **failing) {
            load.connect_failed(now, Duration::ZERO, draw);
        }
        match pick_of(&loads, now, draw) {
            Picked::Available(index) => prop_assert!(!failing[index]),
            Picked::AllFailing(_) => prop_assert!(failing.iter().all(|failing| *failing)),
            Picked::Nothing => prop_assert!(false, "there are endpoints"),
        }
    }

    #[test]
    fn the_two_drawn_are_different_and_exist(len in 2..1_000_usize, draw in any::<u64>()) {
        let (first, second) = two_of(len, draw).unwrap();
        prop_assert!(first != second && first < len && second < len);
    }

    #[test]
    fn costs_are_finite_whatever_was_observed(
        responses in prop::collection::vec((any::<u32>(), any::<u32>()), 0..20),
    ) {
        let start = Instant::now();
        let load = Arc::new(Load::new(start));
        for (begin_ms, took_ms) in responses {
            let begin = start + Duration::from_millis(begin_ms.into());
            load.start(begin).answered(begin + Duration::from_millis(took_ms.into()));
            let cost = load.cost(begin);
            prop_assert!(cost.is_finite() && cost >= CHEAPEST_US);
        }
    }
}
