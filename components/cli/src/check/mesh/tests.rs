use std::collections::BTreeMap;

use super::*;
use crate::check::{catalogue, report};

const NOW: u64 = 1_800_000_000;
const DAY: f64 = 86_400.0;

/// A control plane in which all is well.
fn state() -> ControlPlaneState {
    let pod = |component: &str| ComponentPod {
        component: component.to_owned(),
        pod: format!("{component}-1"),
        status: "Running".to_owned(),
        ready: true,
        clock_ahead_ms: Some(0),
        metrics: BTreeMap::new(),
        failure: None,
    };
    let mut pods = vec![pod("ca"), pod("destination"), pod("observe")];
    let now = NOW as f64;
    pods[0].metrics = [
        ("conduit_ca_leading", 1.0),
        ("conduit_ca_root_not_before_seconds", now - 10.0 * DAY),
        ("conduit_ca_root_not_after_seconds", now + 3_640.0 * DAY),
        ("conduit_ca_issuer_not_before_seconds", now - 10.0 * DAY),
        ("conduit_ca_issuer_not_after_seconds", now + 355.0 * DAY),
        ("conduit_ca_leaf_min_not_after_seconds", now + 0.7 * DAY),
    ]
    .map(|(name, value)| (name.to_owned(), value))
    .into();
    ControlPlaneState {
        version: 1,
        namespace: "conduit".to_owned(),
        trust_domain: "svc.cluster.local".to_owned(),
        now_ms: NOW * 1_000,
        pods,
    }
}

fn proxy() -> ProxyItem {
    let at = |seconds: u64| Some(Timestamp::from_second(seconds as i64).unwrap().to_string());
    ProxyItem {
        namespace: "shop".to_owned(),
        pod: "web-1".to_owned(),
        workload: "deploy/web".to_owned(),
        ready: true,
        tls_injected: true,
        proxy_version: Some("1.0.0".to_owned()),
        tls: Some("true".to_owned()),
        not_before: at(NOW - 3_600),
        not_after: at(NOW + 26 * 3_600),
        destination_up: Some(true),
        clock_ahead_ms: Some(3),
        ..ProxyItem::default()
    }
}

/// What did not pass, as `grade id: detail`.
fn failing(outcomes: &[Outcome]) -> Vec<String> {
    let failing = outcomes.iter().filter(|outcome| outcome.grade != Grade::Success);
    failing
        .map(|Outcome { check, grade, detail, .. }| {
            format!("{grade:?} {}: {}", check.id, detail.as_deref().unwrap_or_default())
        })
        .collect()
}

#[test]
fn a_healthy_mesh_passes_everything() {
    let mut outcomes = control_plane(&state(), 0);
    outcomes.extend(versions("1.0.0", Some("1.0.0"), Some("1.0.0")));
    outcomes.extend(proxies(&[proxy()], "1.0.0", UnixTime::from_secs(NOW)));
    assert_eq!(failing(&outcomes), Vec::<String>::new());
    assert!(outcomes.len() > 20);
    assert_eq!(report::worst(&outcomes), Grade::Success);
}

type Break = fn(&mut ControlPlaneState);
type BreakWith = Box<dyn Fn(&mut ControlPlaneState)>;
type BreakProxy = fn(&mut ProxyItem);

#[test]
fn each_fault_of_the_control_plane_is_found_by_its_own_check() {
    let set = |metric: &'static str, value: f64| (metric.to_owned(), value);
    let metric = |name: &'static str, value: f64| {
        move |state: &mut ControlPlaneState| state.pods[0].metrics.extend([set(name, value)])
    };
    let (now, root) = (NOW as f64, "conduit_ca_root_not_after_seconds");
    let cases: Vec<(BreakWith, &str, &str)> = vec![
        (Box::new((|state| state.pods[1].ready = false) as Break), "Error destination-ready", "not ready"),
        (
            Box::new((|state| state.pods[1].failure = Some("refused".to_owned())) as Break),
            "Error destination-ready",
            "destination-1 does not answer: refused",
        ),
        (Box::new((|state| drop(state.pods.pop())) as Break), "Error observe-ready", "no pod of observe"),
        (Box::new(metric("conduit_ca_leading", 0.0)), "Error ca-leader", "no ca leads"),
        (Box::new(metric(root, now - 1.0)), "Error root", "the root expired at"),
        (Box::new(metric(root, now + 2.0 * DAY)), "Warning root", "with 17 % of its life left"),
        (Box::new(metric(root, 0.0)), "Error root", "the ca has no root"),
        (
            Box::new(metric("conduit_ca_issuer_not_after_seconds", now + 60.0)),
            "Warning issuer",
            "in 60 s, with 0 %",
        ),
        (Box::new(metric("conduit_ca_leaf_min_not_after_seconds", now - 60.0)), "Error leaves", "expired at"),
        (Box::new(metric("conduit_ca_clock_behind", 1.0)), "Error ca-clock", "clock of ca-1"),
        (Box::new(metric("conduit_ca_foreign_objects", 2.0)), "Warning foreign-objects", "2 Secrets"),
        (Box::new(metric("conduit_ca_owner_mismatches", 1.0)), "Warning owner-mismatches", "1 pods"),
        (
            Box::new((|state| state.pods[0].clock_ahead_ms = Some(-90_000)) as Break),
            "Warning clocks",
            "the clock of ca-1 is 90 s behind this machine's",
        ),
        (
            Box::new((|state| state.pods[1].clock_ahead_ms = Some(7_200_000)) as Break),
            "Error clocks",
            "the clock of destination-1 is 2 h ahead of this machine's",
        ),
    ];
    for (breaks, id, detail) in cases {
        let mut state = state();
        breaks(&mut state);
        let found = failing(&control_plane(&state, 0));
        let [found] = &found[..] else { panic!("not one of {id}: {found:?}") };
        assert!(found.starts_with(&format!("{id}: ")) && found.contains(detail), "{found}");
    }
}

#[test]
fn a_replica_that_is_down_beside_one_that_works_is_a_warning() {
    let mut state = state();
    let second = ComponentPod { pod: "ca-2".to_owned(), ready: false, ..state.pods[0].clone() };
    state.pods.push(second);
    let found = failing(&control_plane(&state, 0));
    assert!(found[0].starts_with("Warning ca-ready: ca-2 is Running and not ready"), "{found:?}");
}

#[test]
fn this_machine_s_own_clock_is_compared() {
    let found = failing(&control_plane(&state(), -2_000_000));
    assert!(found[0].contains("the clock of observe is 33 min behind this machine's"), "{found:?}");
}

#[test]
fn each_fault_of_a_proxy_is_found_by_its_own_check() {
    let cases: [(BreakProxy, &str); 9] = [
        (|p| p.ready = false, "Warning proxy-ready: shop/web-1 is not ready"),
        (
            |p| p.failure = Some("refused".to_owned()),
            "Error proxy-readable: shop/web-1 cannot be read: refused",
        ),
        (|p| (p.tls_injected, p.tls) = (false, Some("disabled".to_owned())), "Warning proxy-injected-tls"),
        (
            |p| p.tls = Some("no_config".to_owned()),
            "Error proxy-tls: shop/web-1 has no usable certificate: no_config",
        ),
        (
            |p| p.failing = Some("io_error".to_owned()),
            "Warning proxy-files: shop/web-1 goes on with an older",
        ),
        (
            |p| p.not_after = Some(Timestamp::from_second(NOW as i64 + 1_200).unwrap().to_string()),
            "Warning proxy-leaves: shop/web-1 holds a certificate with 25 % of its life left",
        ),
        (|p| p.destination_up = Some(false), "Warning proxy-destination: shop/web-1 does not reach it"),
        (
            |p| p.clock_ahead_ms = Some(100_000),
            "Warning proxy-clocks: the clock of shop/web-1 is 100 s ahead",
        ),
        (
            |p| p.proxy_version = Some("0.9.0".to_owned()),
            "Warning proxy-version: shop/web-1 has version 0.9.0",
        ),
    ];
    for (breaks, expected) in cases {
        let mut broken = proxy();
        breaks(&mut broken);
        let found = failing(&proxies(&[proxy(), broken], "1.0.0", UnixTime::from_secs(NOW)));
        let [found] = &found[..] else { panic!("not one of {expected}: {found:?}") };
        assert!(found.starts_with(expected), "{found}");
    }
}

#[test]
fn versions_that_differ_are_told() {
    let found = failing(&versions("1.0.0", Some("1.1.0"), Some("0.9.0")));
    assert_eq!(
        found,
        [
            "Error version-cli: this program is 1.0.0, expected is 1.1.0",
            "Warning version-control-plane: this program is 1.0.0, the control plane is 0.9.0"
        ]
    );
    assert!(versions("1.0.0", None, None).is_empty());
}

#[test]
fn of_many_a_few_are_named() {
    let all: Vec<String> = (1..=8).map(|n| n.to_string()).collect();
    assert_eq!(named(&all), "1\n2\n3\n4\n5\nand 3 more");
    assert_eq!(named(&all[..5]), "1\n2\n3\n4\n5");
}

#[test]
fn the_table_and_the_json_tell_what_to_do_and_where_it_is_explained() {
    let outcomes = [
        Outcome::ok(catalogue::API),
        Outcome::not(catalogue::CA_READY, Grade::Warning, "a\nb", "do this"),
        Outcome::not(catalogue::ROOT, Grade::Error, "it is past", "do that"),
    ];
    insta::assert_snapshot!(report::table(&outcomes), @r"
    control-plane
    -------------
    √ can query the Conduit API
    ‼ the ca is ready and answers
        a
        b
        do this
        see docs/CHECKS.md#ca-ready

    certificates
    ------------
    × the newest root certificate is valid for long enough
        it is past
        do that
        see docs/CHECKS.md#root

    Status check results are ×
    ");
    assert!(report::short(&outcomes).starts_with("‼ the ca is ready"));
    let json: serde_json::Value = serde_json::from_str(&report::json(&outcomes).unwrap()).unwrap();
    assert_eq!(
        (json["success"].as_bool(), json["categories"][1]["categoryName"].as_str()),
        (Some(false), Some("certificates"))
    );
    let check = &json["categories"][0]["checks"][1];
    assert_eq!((check["id"].as_str(), check["result"].as_str()), (Some("ca-ready"), Some("warning")));
    assert_eq!(
        (check["error"].as_str(), check["docs"].as_str()),
        (Some("a\nb"), Some("docs/CHECKS.md#ca-ready"))
    );
    assert!(json["categories"][0]["checks"][0].get("error").is_none());
}

/// Scripts and links name them.
#[test]
fn every_check_is_explained_under_its_id_and_nothing_else_is() {
    let text = include_str!("../../../CHECKS.md");
    let headings: Vec<&str> = text.lines().filter_map(|line| line.strip_prefix("### ")).collect();
    let ids: Vec<&str> = catalogue::ALL.iter().map(|check| check.id).collect();
    assert_eq!(headings, ids, "docs/CHECKS.md has a heading for each check, in their order");
    let unique: std::collections::BTreeSet<&str> = ids.iter().copied().collect();
    assert_eq!(unique.len(), ids.len());
    for check in catalogue::ALL {
        assert!(text.contains(check.description), "{} is not described as {:?}", check.id, check.description);
    }
}
