//! What a store takes, what it refuses, and what it answers as time passes.

use crate::support::{Authority, HOUR, NOW, identity, store, with_anchors};
use conduit_identity::{LoadError, Pem, Store, Unusable};
use proptest::prelude::*;

#[test]
fn nothing_is_there_before_the_files_are() {
    let (store, _) = store("web");
    assert_eq!(store.current().unwrap_err(), Unusable::NoConfig);
    assert_eq!(store.identity(), Some(&identity("web")));
}

#[test]
fn a_disabled_store_takes_nothing() {
    let store = Store::disabled();
    let error = store.load(&Authority::new("conduit").good("web")).unwrap_err();
    assert!(matches!(error, LoadError::Disabled));
    assert_eq!(store.current().unwrap_err(), Unusable::Disabled);
    assert_eq!(store.identity(), None);
}

#[test]
fn each_fault_has_its_class() {
    let (ours, theirs) = (Authority::new("conduit"), Authority::new("other"));
    let good = ours.good("web");
    let web = identity("web");
    let cases = [
        (
            "a wrong root",
            with_anchors(&good, theirs.root()),
            "invalid_end_entity_cert",
            Unusable::BadCredentials,
        ),
        (
            "no root",
            with_anchors(&good, b"nonsense".into()),
            "invalid_trust_anchors",
            Unusable::BadCredentials,
        ),
        ("a wrong name", ours.good("emoji"), "invalid_end_entity_cert", Unusable::BadCredentials),
        (
            "two names",
            ours.leaf().named(web.as_str()).named("other.example").issue(),
            "invalid_end_entity_cert",
            Unusable::BadCredentials,
        ),
        (
            "a wildcard",
            ours.leaf().named("*.deployment.shop.conduit-managed.conduit.svc.cluster.local").issue(),
            "invalid_end_entity_cert",
            Unusable::BadCredentials,
        ),
        (
            "no use as a server",
            ours.leaf().named(web.as_str()).only_for_clients().issue(),
            "invalid_end_entity_cert",
            Unusable::BadCredentials,
        ),
        (
            "another's key",
            Pem {
                chain: good.chain.clone(),
                key: ours.good("web").key.clone(),
                anchors: good.anchors.clone(),
            },
            "invalid_private_key",
            Unusable::BadCredentials,
        ),
        (
            "no key",
            Pem { chain: good.chain.clone(), key: Vec::new(), anchors: good.anchors.clone() },
            "invalid_private_key",
            Unusable::BadCredentials,
        ),
        (
            "no certificate",
            Pem { chain: Vec::new(), key: good.key.clone(), anchors: good.anchors.clone() },
            "invalid_end_entity_cert",
            Unusable::BadCredentials,
        ),
        (
            "the past",
            ours.leaf().named(web.as_str()).valid(NOW - 2 * HOUR, NOW - HOUR).issue(),
            "invalid_end_entity_cert",
            Unusable::Expired,
        ),
        (
            "the future",
            ours.leaf().named(web.as_str()).valid(NOW + HOUR, NOW + 2 * HOUR).issue(),
            "invalid_end_entity_cert",
            Unusable::ClockSkew,
        ),
        (
            "the past of another root",
            with_anchors(
                &ours.leaf().named(web.as_str()).valid(NOW - 2 * HOUR, NOW - HOUR).issue(),
                theirs.root(),
            ),
            "invalid_end_entity_cert",
            Unusable::BadCredentials,
        ),
    ];
    for (fault, pem, status, unusable) in cases {
        let (store, _) = store("web");
        let error = store.load(&pem).expect_err(fault);
        assert_eq!(error.status(), status, "{fault}: {error}");
        assert_eq!(store.current().expect_err(fault), unusable, "{fault}");

        store.load(&good).unwrap();
        store.load(&pem).expect_err(fault);
        assert!(store.current().is_ok(), "{fault} took working credentials away");
    }
}

#[test]
fn what_is_held_is_judged_at_each_question() {
    let (store, clock) = store("web");
    store.load(&Authority::new("conduit").good("web")).unwrap();
    assert!(store.current().is_ok());
    clock.set(NOW + 26 * HOUR);
    assert!(store.current().is_ok(), "the last moment is a valid one");
    clock.set(NOW + 27 * HOUR);
    assert_eq!(store.current().unwrap_err(), Unusable::Expired);
    clock.set(NOW - 2 * HOUR);
    assert_eq!(store.current().unwrap_err(), Unusable::ClockSkew);
    clock.set(NOW);
    assert!(store.current().is_ok());
}

#[test]
fn rotation_replaces_the_whole_and_is_told() {
    let root = Authority::new("conduit");
    let (store, _) = store("web");
    let mut version = store.subscribe();
    store.load(&root.good("web")).unwrap();
    assert!(version.has_changed().unwrap());
    version.mark_unchanged();
    let before = store.current().unwrap();
    store.load(&root.good("web")).unwrap();
    assert!(version.has_changed().unwrap());
    let after = store.current().unwrap();
    assert_ne!(before.credentials.fingerprint(), after.credentials.fingerprint());
    assert_eq!(before.credentials.identity(), after.credentials.identity());
}

#[test]
fn a_bundle_with_both_roots_trusts_both_during_a_rotation() {
    let (old, new) = (Authority::new("old"), Authority::new("new"));
    let both = [old.root(), new.root()].concat();
    let (store, _) = store("web");
    store.load(&with_anchors(&old.good("web"), both.clone())).unwrap();
    store.load(&with_anchors(&new.good("web"), both)).unwrap();
    assert_eq!(store.current().unwrap().credentials.trust().len(), 2);
}

#[test]
fn roots_that_are_not_understood_do_not_take_the_others_away() {
    let root = Authority::new("conduit");
    let odd = b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----\n".to_vec();
    let (store, _) = store("web");
    store.load(&with_anchors(&root.good("web"), [odd, root.root()].concat())).unwrap();
    assert_eq!(store.current().unwrap().credentials.trust().skipped(), 1);
}

#[test]
fn keys_are_never_shown() {
    let root = Authority::new("conduit");
    let pem = root.good("web");
    let (store, _) = store("web");
    store.load(&pem).unwrap();
    let shown = format!("{pem:?} {store:?} {:?}", store.current().unwrap());
    let key = String::from_utf8(pem.key.clone()).unwrap();
    let secret = key.lines().nth(1).unwrap();
    assert!(!shown.contains(secret) && !shown.contains(&format!("{:?}", &pem.key[..8])), "{shown}");
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, cases: 64, ..ProptestConfig::default() })]

    #[test]
    fn damaged_files_are_an_error_and_never_a_panic(which in 0..3_usize, at: prop::sample::Index, bits in 1..=255_u8) {
        let mut pem = Authority::new("conduit").good("web");
        let file = [&mut pem.chain, &mut pem.key, &mut pem.anchors].into_iter().nth(which).unwrap();
        let at = at.index(file.len());
        file[at] ^= bits;
        let (store, _) = store("web");
        // Damage to a line end or to what surrounds the certificates may be harmless.
        let _ = store.load(&pem);
    }

    #[test]
    fn any_bytes_are_an_error(chain: Vec<u8>, key: Vec<u8>, anchors: Vec<u8>) {
        let (store, _) = store("web");
        let pem = Pem { chain, key, anchors };
        prop_assert!(store.load(&pem).is_err());
    }
}
