use conduit_proto::destination::{Diff, Endpoint as Sent, Snapshot, Unknown, Update, update};
use proptest::prelude::*;

use super::*;

const IDENTITY: &str = "web.deployment.emojivoto.conduit-managed.conduit.svc.cluster.local";
const FOREIGN: &str = "web.deployment.emojivoto.conduit-managed.other.svc.cluster.local";

fn builder() -> Builder {
    Builder::new(ControlPlane { namespace: "conduit".into(), trust_domain: "svc.cluster.local".into() })
}

fn endpoint(address: &str, identity: &str) -> Sent {
    Sent { address: address.into(), identity: identity.into(), labels: BTreeMap::new() }
}

fn snapshot(endpoints: Vec<Sent>) -> Update {
    let labels = BTreeMap::from([("service".into(), "web".into())]);
    let snapshot = Snapshot { service: "web.emojivoto.svc.cluster.local:80".into(), labels, endpoints };
    Update { update: Some(update::Update::Snapshot(snapshot)), stale: false }
}

fn diff(upsert: Vec<Sent>, remove: &[&str]) -> Update {
    let remove = remove.iter().map(|address| (*address).to_owned()).collect();
    Update { update: Some(update::Update::Diff(Diff { upsert, remove })), stale: false }
}

fn unknown() -> Update {
    Update { update: Some(update::Update::Unknown(Unknown {})), stale: false }
}

fn known(builder: &Builder) -> Arc<Endpoints> {
    match builder.resolution() {
        Resolution::Known(endpoints) => endpoints,
        Resolution::Pending | Resolution::Unknown => Arc::default(),
    }
}

fn addresses(builder: &Builder) -> Vec<String> {
    known(builder).list.iter().map(|endpoint| endpoint.addr.to_string()).collect()
}

#[test]
fn nothing_is_known_before_the_first_message_and_unknown_is_an_answer() {
    let mut builder = builder();
    assert!(matches!(builder.resolution(), Resolution::Pending));
    builder.apply(unknown(), Instant::now());
    assert!(matches!(builder.resolution(), Resolution::Unknown));
    builder.apply(snapshot(vec![]), Instant::now());
    assert!(matches!(builder.resolution(), Resolution::Known(endpoints) if endpoints.list.is_empty()));
}

#[test]
fn diffs_amend_the_snapshot_in_the_order_of_addresses() {
    let (mut builder, now) = (builder(), Instant::now());
    builder.apply(snapshot(vec![endpoint("10.0.0.2:80", ""), endpoint("10.0.0.1:80", "")]), now);
    assert_eq!(addresses(&builder), ["10.0.0.1:80", "10.0.0.2:80"]);
    builder.apply(diff(vec![endpoint("10.0.0.3:80", IDENTITY)], &["10.0.0.1:80", "10.9.9.9:80"]), now);
    assert_eq!(addresses(&builder), ["10.0.0.2:80", "10.0.0.3:80"]);
    let found = known(&builder).at("10.0.0.3:80".parse().unwrap()).cloned().unwrap();
    assert_eq!(found.identity.as_ref().unwrap().as_str(), IDENTITY);
}

#[test]
fn an_unchanged_endpoint_is_the_same_object_and_a_changed_one_keeps_its_load() {
    let (mut builder, now) = (builder(), Instant::now());
    builder.apply(snapshot(vec![endpoint("10.0.0.1:80", ""), endpoint("10.0.0.2:80", "")]), now);
    let before = known(&builder);
    builder.apply(diff(vec![endpoint("10.0.0.1:80", ""), endpoint("10.0.0.2:80", IDENTITY)], &[]), now);
    let after = known(&builder);
    assert!(Arc::ptr_eq(&before.list[0], &after.list[0]));
    assert!(!Arc::ptr_eq(&before.list[1], &after.list[1]));
    assert!(Arc::ptr_eq(&before.list[1].load, &after.list[1].load));
}

#[test]
fn the_first_message_after_a_reconnect_replaces_what_was_known() {
    let (mut builder, now) = (builder(), Instant::now());
    builder.apply(snapshot(vec![endpoint("10.0.0.1:80", IDENTITY), endpoint("10.0.0.2:80", IDENTITY)]), now);
    builder.reconnected();
    assert_eq!(addresses(&builder), ["10.0.0.1:80", "10.0.0.2:80"], "until it answers");
    builder.apply(snapshot(vec![endpoint("10.0.0.2:80", IDENTITY)]), now);
    assert_eq!(addresses(&builder), ["10.0.0.2:80"]);
    builder.reconnected();
    builder.apply(diff(vec![endpoint("10.0.0.3:80", "")], &[]), now);
    assert_eq!(addresses(&builder), ["10.0.0.3:80"]);
}

#[test]
fn a_service_that_came_back_with_nothing_is_doubted_for_a_while() {
    for nothing in [snapshot(vec![]), unknown(), diff(vec![], &["10.0.0.1:80"])] {
        let (mut builder, now) = (builder(), Instant::now());
        builder.apply(snapshot(vec![endpoint("10.0.0.1:80", IDENTITY)]), now);
        builder.reconnected();
        builder.apply(nothing, now);
        assert_eq!(addresses(&builder), ["10.0.0.1:80"]);
        builder.apply(unknown(), now);
        let view = known(&builder);
        assert!(view.doubted && view.list.len() == 1);
        assert_eq!(builder.doubted_until(), Some(now + DOUBTED_FOR));
        builder.give_up();
        assert!(addresses(&builder).is_empty() && !known(&builder).doubted);
    }
}

#[test]
fn doubt_ends_with_the_first_endpoint_named() {
    let (mut builder, now) = (builder(), Instant::now());
    builder.apply(snapshot(vec![endpoint("10.0.0.1:80", IDENTITY)]), now);
    builder.reconnected();
    builder.apply(unknown(), now);
    builder.apply(diff(vec![endpoint("10.0.0.2:80", IDENTITY)], &[]), now);
    assert_eq!(addresses(&builder), ["10.0.0.2:80"]);
    assert!(!known(&builder).doubted);
    assert_eq!(builder.doubted_until(), None);
}

#[test]
fn endpoints_that_prove_nothing_are_not_kept_against_the_services_word() {
    let (mut builder, now) = (builder(), Instant::now());
    builder.apply(snapshot(vec![endpoint("10.0.0.1:80", ""), endpoint("10.0.0.2:80", IDENTITY)]), now);
    builder.reconnected();
    builder.apply(snapshot(vec![]), now);
    assert_eq!(addresses(&builder), ["10.0.0.2:80"]);
}

#[test]
fn within_one_stream_nothing_means_nothing() {
    let (mut builder, now) = (builder(), Instant::now());
    builder.apply(snapshot(vec![endpoint("10.0.0.1:80", IDENTITY)]), now);
    builder.apply(snapshot(vec![]), now);
    assert!(addresses(&builder).is_empty());
}

#[test]
fn identities_of_other_control_planes_and_senseless_ones_are_none() {
    let (mut builder, now) = (builder(), Instant::now());
    let sent =
        vec![endpoint("10.0.0.1:80", FOREIGN), endpoint("10.0.0.2:80", "no name!"), endpoint("here", "")];
    assert_eq!(builder.apply(snapshot(sent), now), Malformed(2));
    assert_eq!(addresses(&builder), ["10.0.0.1:80", "10.0.0.2:80"]);
    assert!(known(&builder).list.iter().all(|endpoint| endpoint.identity.is_none()));
    assert_eq!(builder.apply(Update { update: None, stale: false }, now), Malformed(1));
}

#[test]
fn endpoints_are_doubted_while_the_service_does_not_follow_the_cluster() {
    let (mut builder, now) = (builder(), Instant::now());
    builder.apply(snapshot(vec![endpoint("10.0.0.1:80", IDENTITY)]), now);
    let standing = |stale| Update { update: None, stale };
    assert_eq!(builder.apply(standing(true), now), Malformed(0));
    assert!(known(&builder).doubted);
    let still = Update { stale: true, ..diff(vec![endpoint("10.0.0.2:80", "")], &[]) };
    assert_eq!(builder.apply(still, now), Malformed(0));
    assert!(known(&builder).doubted && addresses(&builder) == ["10.0.0.1:80", "10.0.0.2:80"]);
    assert_eq!(builder.apply(standing(false), now), Malformed(0));
    assert!(!known(&builder).doubted);
}

#[test]
fn endpoints_are_bounded() {
    let (mut builder, now) = (builder(), Instant::now());
    let sent = (0..6_000_u32).map(|n| endpoint(&format!("10.0.{}.{}:80", n >> 8, n & 255), "")).collect();
    assert_eq!(builder.apply(snapshot(sent), now), Malformed(1_000));
    assert_eq!(known(&builder).list.len(), MAX_ENDPOINTS);
}

#[test]
fn the_labels_of_service_and_pod_are_merged_and_the_pods_win() {
    let (mut builder, now) = (builder(), Instant::now());
    let mut sent = endpoint("10.0.0.1:80", "");
    sent.labels = BTreeMap::from([("pod".into(), "web-1".into()), ("deployment".into(), "web".into())]);
    builder.apply(snapshot(vec![sent]), now);
    let view = known(&builder);
    let labels: Vec<_> = view.list[0].labels.iter().collect();
    assert_eq!(labels, [("deployment", "web"), ("pod", "web-1"), ("service", "web")]);
    assert_eq!(view.labels.iter().collect::<Vec<_>>(), [("service", "web")]);
}

#[test]
fn the_version_is_of_the_pod_whatever_service_it_is_behind() {
    let (mut one, mut other, now) = (builder(), builder(), Instant::now());
    one.apply(snapshot(vec![endpoint("10.0.0.1:80", IDENTITY)]), now);
    other.apply(diff(vec![endpoint("10.0.0.1:80", IDENTITY)], &[]), now);
    let version = |builder: &Builder| known(builder).list[0].version;
    assert_eq!(version(&one), version(&other));
    one.apply(diff(vec![endpoint("10.0.0.1:80", "")], &[]), now);
    assert_ne!(version(&one), version(&other));
}

fn any_update() -> impl Strategy<Value = Option<Update>> {
    let address = (0..6_u8).prop_map(|n| format!("10.0.0.{n}:80"));
    let identity = prop_oneof![Just(String::new()), Just(IDENTITY.to_owned()), Just(FOREIGN.to_owned())];
    let sent = (address.clone(), identity).prop_map(|(address, identity)| endpoint(&address, &identity));
    let several = prop::collection::vec(sent, 0..5);
    prop_oneof![
        several.clone().prop_map(|sent| Some(snapshot(sent))),
        (several, prop::collection::vec(address, 0..4)).prop_map(|(upsert, remove)| {
            Some(Update { update: Some(update::Update::Diff(Diff { upsert, remove })), stale: false })
        }),
        Just(Some(unknown())),
        Just(None),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

    /// A reconnect (none) and messages in any order: what a stream said is what is known, except under doubt.
    #[test]
    fn a_view_is_what_its_stream_said(updates in prop::collection::vec(any_update(), 0..30)) {
        let (mut builder, now) = (builder(), Instant::now());
        let mut said = None::<BTreeMap<SocketAddr, bool>>;
        for update in updates {
            let Some(update) = update else {
                builder.reconnected();
                said = None;
                continue;
            };
            match update.update.clone().unwrap() {
                update::Update::Snapshot(snapshot) => said = Some(by_address(&snapshot.endpoints)),
                update::Update::Unknown(_) => said = Some(BTreeMap::new()),
                update::Update::Diff(diff) => {
                    let said = said.get_or_insert_default();
                    said.retain(|addr, _| !diff.remove.contains(&addr.to_string()));
                    said.extend(by_address(&diff.upsert));
                }
            }
            builder.apply(update, now);
            let view = known(&builder);
            if view.doubted {
                prop_assert!(said.as_ref().is_none_or(BTreeMap::is_empty));
                prop_assert!(view.list.iter().all(|endpoint| endpoint.identity.is_some()));
            } else {
                let known: BTreeMap<_, _> =
                    view.list.iter().map(|endpoint| (endpoint.addr, endpoint.identity.is_some())).collect();
                prop_assert_eq!(Some(known), said.clone());
            }
        }
    }
}

fn by_address(sent: &[Sent]) -> BTreeMap<SocketAddr, bool> {
    sent.iter().map(|sent| (sent.address.parse().unwrap(), sent.identity == IDENTITY)).collect()
}
