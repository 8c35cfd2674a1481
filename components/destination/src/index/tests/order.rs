//! Objects come in any order, and every view that an event changes is among those it declares dirty.

use proptest::prelude::*;

use super::*;
use crate::names::Target;

/// Something that happens, in a cluster of two Services, two slices, three pods, three addresses and one ReplicaSet.
#[derive(Debug, Clone)]
enum Happening {
    Service(usize, Option<Service>),
    Slice(usize, Option<Slice>),
    Pod(usize, Option<Box<Pod>>),
    ReplicaSet(Option<Owned>),
}

const SERVICES: [&str; 2] = ["web", "db"];
const SLICES: [&str; 2] = ["x", "y"];
const PODS: [&str; 3] = ["p0", "p1", "p2"];
const ADDRESSES: [&str; 3] = ["10.1.0.1", "10.1.0.2", "10.1.0.3"];

fn a_service() -> impl Strategy<Value = Service> {
    let ip = prop_oneof![Just("10.96.0.1"), Just("10.96.0.2"), Just("None"), Just("")];
    ip.prop_map(|ip| service(ip, &[("http", 80)]))
}

fn an_endpoint() -> impl Strategy<Value = Endpoint> {
    let pod = prop_oneof![Just(""), Just(PODS[0]), Just(PODS[1]), Just(PODS[2])];
    (0..ADDRESSES.len(), pod, any::<bool>(), any::<bool>()).prop_map(|(ip, pod, ready, has_name)| Endpoint {
        ready,
        terminating: !ready,
        hostname: has_name.then(|| "p0".to_owned()),
        ..at(ADDRESSES[ip], pod)
    })
}

fn a_slice() -> impl Strategy<Value = Slice> {
    let endpoints = proptest::collection::vec(an_endpoint(), 0..4);
    (0..SERVICES.len(), endpoints)
        .prop_map(|(service, endpoints)| slice(SERVICES[service], &[("http", 8080)], endpoints))
}

fn a_pod(name: usize) -> impl Strategy<Value = Box<Pod>> {
    (0..ADDRESSES.len(), 0..8_u8, any::<bool>()).prop_map(move |(ip, alter, another_life)| {
        let mut pod = pod(PODS[name], ADDRESSES[ip]);
        match alter {
            0 => pod.has_tls = false,
            1 => pod.is_running = false,
            2 => (pod.is_running, pod.is_over) = (false, true),
            3 => pod.is_deleting = true,
            4 => pod.meta.owner_references = None,
            5 => pod.ips.clear(),
            _ => {}
        }
        if another_life {
            pod.uid.push_str(" again");
        }
        Box::new(pod)
    })
}

fn a_replica_set() -> impl Strategy<Value = Owned> {
    (any::<bool>(), any::<bool>()).prop_map(|(is_web, is_same)| {
        let mut owned = web_1();
        owned.controller = owned.controller.filter(|_| is_web);
        if !is_same {
            owned.uid.push_str(" again");
        }
        owned
    })
}

fn happening() -> impl Strategy<Value = Happening> {
    prop_oneof![
        2 => (0..2_usize, proptest::option::weighted(0.8, a_service()))
            .prop_map(|(name, service)| Happening::Service(name, service)),
        3 => (0..2_usize, proptest::option::weighted(0.8, a_slice()))
            .prop_map(|(name, slice)| Happening::Slice(name, slice)),
        4 => (0..3_usize)
            .prop_flat_map(|name| (Just(name), proptest::option::weighted(0.8, a_pod(name))))
            .prop_map(|(name, pod)| Happening::Pod(name, pod)),
        1 => proptest::option::weighted(0.8, a_replica_set()).prop_map(Happening::ReplicaSet),
    ]
}

fn event<T>(name: &str, object: Option<T>) -> Event<T> {
    match object {
        Some(object) => Event::Applied(key(name), object),
        None => Event::Deleted(key(name)),
    }
}

fn happen(index: &mut Index, happening: Happening) -> Dirty {
    match happening {
        Happening::Service(name, service) => index.services(event(SERVICES[name], service)),
        Happening::Slice(name, slice) => index.slices(event(SLICES[name], slice)),
        Happening::Pod(name, pod) => index.pods(event(PODS[name], pod.map(|pod| *pod))),
        Happening::ReplicaSet(owned) => index.replica_sets(event("web-1", owned)),
    }
}

fn queries() -> Vec<Query> {
    let authorities = ["web", "db", "p0.db", "10-1-0-2.db", "web:8080"];
    let addresses = ["10.96.0.1:80", "10.96.0.2:80", "10.1.0.1:8080", "10.1.0.2:80", "10.1.0.3:4191"];
    let named = authorities.map(|authority| Query::of_authority(authority, "shop", ZONE));
    named.into_iter().chain(addresses.into_iter().filter_map(Query::of_address)).collect()
}

fn concerns(dirty: &Dirty, query: &Query) -> bool {
    query.candidates.iter().any(|candidate| match candidate {
        Target::Service(key, _) | Target::Pod(key, ..) => dirty.services.contains(key),
        Target::Address(address) => dirty.addresses.contains(&address.ip()),
    })
}

proptest! {
    #[test]
    fn a_view_that_changes_was_declared_dirty(happenings in proptest::collection::vec(happening(), 1..60)) {
        let mut index = index();
        let queries = queries();
        let mut views: Vec<View> = queries.iter().map(|query| index.view(query)).collect();
        for happening in happenings {
            let dirty = happen(&mut index, happening.clone());
            for (query, before) in queries.iter().zip(&mut views) {
                let after = index.view(query);
                prop_assert!(after == *before || concerns(&dirty, query), "{query:?} after {happening:?}");
                *before = after;
            }
        }
    }

    #[test]
    fn what_is_told_depends_on_what_is_and_not_on_how_it_came_about(
        happenings in proptest::collection::vec(happening(), 1..60),
    ) {
        let (mut through, mut at_once) = (index(), index());
        let (mut services, mut slices, mut pods) = (BTreeMap::new(), BTreeMap::new(), BTreeMap::new());
        let mut replica_sets = BTreeMap::new();
        for happening in happenings {
            match happening.clone() {
                Happening::Service(name, service) => set(&mut services, SERVICES[name], service),
                Happening::Slice(name, slice) => set(&mut slices, SLICES[name], slice),
                Happening::Pod(name, pod) => set(&mut pods, PODS[name], pod.map(|pod| *pod)),
                Happening::ReplicaSet(owned) => set(&mut replica_sets, "web-1", owned),
            }
            happen(&mut through, happening);
        }
        // In the opposite order of dependence.
        at_once.replica_sets(Event::Listed(replica_sets));
        at_once.pods(Event::Listed(pods));
        at_once.slices(Event::Listed(slices));
        at_once.services(Event::Listed(services));
        for query in queries() {
            prop_assert_eq!(through.view(&query), at_once.view(&query), "{:?}", query);
        }
    }
}

fn set<T>(objects: &mut BTreeMap<ObjectKey, T>, name: &str, object: Option<T>) {
    match object {
        Some(object) => drop(objects.insert(key(name), object)),
        None => drop(objects.remove(&key(name))),
    }
}
