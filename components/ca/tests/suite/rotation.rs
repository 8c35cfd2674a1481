//! Years of roots and issuers, and what happens when they are lost or everything has expired.

use std::{collections::BTreeMap, time::Duration};

use conduit_ca::{Lifetimes, bundle, reconcile::Report};
use conduit_identity::{Fingerprint, UnixTime};
use conduit_k8s::{owned::BUNDLE_CONFIGMAP, watch::ObjectKey};

use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;

use crate::world::{HOUR, NOW, World};

const DAY: Duration = Duration::from_secs(24 * 3600);

/// When each root was first in every bundle, and what must hold at every moment.
#[derive(Default)]
struct Auditor {
    everywhere_since: BTreeMap<Fingerprint, UnixTime>,
    serving: Option<Fingerprint>,
}

impl Auditor {
    fn audit(&mut self, world: &World) {
        let (state, now) = (world.state().unwrap(), world.now());
        let credentials = world.credentials("web").expect("the workload always has what its peers trust");
        let issuer = state.issuer.as_ref().unwrap();
        assert!(credentials.not_after() <= issuer.certificate.not_after, "a leaf outlives its issuer");
        let root = state.root(issuer.root).expect("the root in use is kept");
        assert!(issuer.certificate.not_after <= root.certificate.not_after, "an issuer outlives its root");
        if self.serving.is_some_and(|serving| serving != issuer.root) {
            let since = self.everywhere_since[&issuer.root];
            assert!(now >= since + HOUR, "used at {now}, in every bundle since {since}");
        }
        self.serving = Some(issuer.root);
        for root in &state.roots {
            if bundle::holds(&world.bundle("shop"), &root.certificate) {
                self.everywhere_since.entry(root.certificate.fingerprint).or_insert(now);
            }
        }
    }
}

#[test]
fn roots_and_issuers_follow_each_other_without_a_gap() {
    let lifetimes = Lifetimes { root: 60 * DAY, issuer: 20 * DAY, ..Lifetimes::default() };
    let mut world = World::with(lifetimes);
    world.deploy(&["web"]);
    let (mut auditor, mut timeline) = (Auditor::default(), Vec::new());
    for hour in 0..(80 * 24) {
        let writes = world.settle();
        let told = writes.iter().filter(|write| !write.starts_with("leaf") && !write.contains("shop"));
        timeline.extend(told.map(|write| format!("day {:>2} {:>2}:00  {write}", hour / 24, hour % 24)));
        auditor.audit(&world);
        world.clock.advance(HOUR);
    }
    insta::assert_snapshot!(timeline.join("\n"));
}

#[test]
fn a_lost_secret_is_restored_by_whoever_remembers_it() {
    let mut world = World::settled(&["web"]);
    let before = world.state().unwrap();
    world.secrets.remove(&conduit_ca::objects::root_key(&world.control_plane));
    assert_eq!(world.settle(), ["root: restore"]);
    assert_eq!(world.state().unwrap(), before);
}

#[test]
fn lost_roots_are_trusted_until_their_last_leaf_has_expired() {
    let mut world = World::settled(&["web"]);
    let old = world.state().unwrap().newest(NOW).unwrap().certificate.clone();
    world.secrets.remove(&conduit_ca::objects::root_key(&world.control_plane));
    world.restart();
    world.deploy(&["late"]);
    insta::assert_snapshot!(world.settle().join("\n"), @r"
    root: create, adopting 1
    bundle: conduit/conduit-ca-bundle, 2 roots
    bundle: shop/conduit-ca-bundle, 2 roots
    root: published
    ");
    assert!(world.credentials("web").is_ok(), "nobody's trust is taken away");
    world.clock.advance(HOUR / 2);
    assert_eq!(world.settle(), [""; 0], "the new root is not used before it is everywhere");
    world.clock.advance(HOUR / 2);
    insta::assert_snapshot!(world.settle().join("\n"), @r"
    root: new issuer
    leaf: shop/late-deployment-tls-conduit-io, missing
    ");
    assert!(world.credentials("web").is_ok() && world.credentials("late").is_ok());
    world.clock.advance(28 * HOUR);
    world.settle();
    assert!(!bundle::holds(&world.bundle("shop"), &old));
    assert!(world.credentials("web").is_ok());
}

#[test]
fn lost_roots_with_nobody_under_them_are_replaced_at_once() {
    let mut world = World::settled(&["web"]);
    world.secrets.clear();
    world.restart();
    let written = world.settle();
    assert!(written.contains(&"leaf: shop/web-deployment-tls-conduit-io, missing".to_owned()), "{written:?}");
}

#[test]
fn roots_of_another_namespaces_bundle_are_never_adopted() {
    let mut world = World::settled(&["web"]);
    let key = ObjectKey::new("conduit", BUNDLE_CONFIGMAP);
    world.bundles.remove(&key);
    world.secrets.remove(&conduit_ca::objects::root_key(&world.control_plane));
    world.restart();
    assert_eq!(world.settle()[0], "root: create, adopting 0");
}

#[test]
fn everything_is_repaired_when_everything_has_expired() {
    let mut world = World::settled(&["web"]);
    world.clock.advance(3660 * DAY);
    world.restart();
    let written = world.settle();
    assert!(world.credentials("web").is_ok(), "{written:?}");
    assert_eq!(world.bundle("shop").matches("BEGIN").count(), 2);
    world.clock.advance(30 * HOUR);
    world.settle();
    assert_eq!(world.bundle("shop").matches("BEGIN").count(), 1, "what nobody needs is forgotten");
    assert!(world.credentials("web").is_ok());
}

#[test]
fn an_authority_that_was_away_renews_what_expired() {
    let mut world = World::settled(&["web"]);
    world.clock.advance(13 * HOUR);
    assert!(world.credentials("web").is_ok(), "twelve hours away harm nobody");
    world.clock.advance(20 * HOUR);
    assert!(world.credentials("web").is_err());
    assert_eq!(world.settle(), ["leaf: shop/web-deployment-tls-conduit-io, expired"]);
    assert!(world.credentials("web").is_ok());
}

#[test]
fn a_clock_that_was_far_ahead_does_no_lasting_harm() {
    let mut world = World::settled(&["web"]);
    world.clock.advance(15 * 365 * DAY);
    world.settle();
    world.clock.set(NOW + HOUR);
    assert_eq!(
        world.settle()[..2],
        ["root: new issuer", "leaf: shop/web-deployment-tls-conduit-io, not_yet_valid"]
    );
    assert!(world.credentials("web").is_ok());
    world.clock.advance(28 * HOUR);
    world.settle();
    assert_eq!(world.bundle("shop").matches("BEGIN").count(), 1, "the roots of the future are forgotten");
    assert!(world.credentials("web").is_ok());
}

#[test]
fn an_issuer_that_a_clock_ahead_made_is_replaced_under_its_own_root() {
    let mut world = World::settled(&["web"]);
    world.clock.advance(300 * DAY);
    let ahead = world.settle();
    assert!(ahead.contains(&"root: new issuer".to_owned()), "{ahead:?}");
    let root = world.state().unwrap().issuer.unwrap().root;
    world.clock.set(NOW + HOUR);
    world.deploy(&["late"]);
    insta::assert_snapshot!(world.settle().join("\n"), @r"
    root: new issuer
    leaf: shop/late-deployment-tls-conduit-io, missing
    leaf: shop/web-deployment-tls-conduit-io, not_yet_valid
    ");
    assert_eq!(world.state().unwrap().issuer.unwrap().root, root);
    assert!(world.credentials("web").is_ok() && world.credentials("late").is_ok());
    assert_eq!(world.settle(), [""; 0]);
}

#[test]
fn nothing_is_issued_by_an_issuer_that_is_not_valid() {
    // All of its certificates are of the future, so it is this clock that is behind.
    let mut world = World::settled(&["web"]);
    world.clock.set(NOW - 48 * HOUR);
    world.deploy(&["late"]);
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(world.reports(), [Report::ClockBehind]);
    world.clock.set(NOW);
    assert_eq!(world.settle(), ["leaf: shop/late-deployment-tls-conduit-io, missing"]);

    // Nor by one that is past, while new roots are made.
    let mut world = World::settled(&["web"]);
    world.clock.advance(3660 * DAY);
    world.deploy(&["late"]);
    let written = world.settle();
    let late = |write: &&String| write.contains("shop/late");
    assert_eq!(written.iter().filter(late).count(), 1, "{written:#?}");
    assert!(world.credentials("web").is_ok() && world.credentials("late").is_ok());
}

#[test]
fn a_clock_behind_the_api_servers_issues_nothing() {
    let mut world = World::settled(&["web"]);
    world.clock.advance(30 * DAY);
    world.settle();
    let at =
        k8s_openapi::jiff::Timestamp::from_second(i64::try_from(world.now().as_secs()).unwrap()).unwrap();
    world.pods[0].metadata.creation_timestamp = Some(Time(at));
    let held = world.secret("web").clone();
    world.clock.set(NOW + 28 * DAY);
    assert_eq!(world.settle(), [""; 0], "good certificates are not replaced by expired ones");
    assert_eq!(world.reports(), [Report::ClockBehind]);
    world.clock.set(NOW + 30 * DAY);
    assert_eq!(world.settle(), [""; 0]);
    assert_eq!(*world.secret("web"), held);
}

#[test]
fn a_leaf_at_the_end_of_its_issuer_is_not_renewed_for_ever() {
    // Never replaced, so that leaves come to the issuer's end.
    let lifetimes =
        Lifetimes { renew_percent: 1000, issuer: 40 * HOUR, root: 40 * HOUR, ..Lifetimes::default() };
    let mut world = World::with(lifetimes);
    world.deploy(&["web"]);
    let mut renewals = 0;
    for _ in 0..(39 * 60) {
        renewals += world.settle().iter().filter(|write| write.starts_with("leaf")).count();
        world.clock.advance(HOUR / 60);
    }
    assert!(renewals <= 4, "{renewals}");
    assert_eq!(world.credentials("web").unwrap().not_after(), NOW + 40 * HOUR);
}
