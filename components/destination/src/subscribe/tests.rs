use std::time::Duration;

use conduit_identity::ControlPlane;
use conduit_k8s::{
    slices::{Endpoint, Port, Slice, Subset},
    watch::Event,
};
use tokio::time::timeout;

use super::*;
use crate::{
    index::Scope,
    observed::{Service, ServicePort},
    view::Choice,
};

fn topics(max: usize) -> Topics {
    let scope = Scope { control_plane: ControlPlane::default(), zone: "cluster.local".to_owned() };
    Topics::new(Index::new(scope), max)
}

fn web() -> Query {
    Query::of_authority("web", "shop", "cluster.local")
}

fn serve(topics: &Topics, choice: Choice) {
    let service = Service {
        cluster_ips: Vec::new(),
        ports: vec![ServicePort { name: String::new(), port: 80 }],
        is_headless: false,
        is_external: false,
        is_ipv6: None,
        choice,
    };
    topics.change(|index| index.services(Event::Applied(ObjectKey::new("shop", "web"), service)));
}

/// Endpoints 10.1.0.n for each of `numbers`.
fn endpoints(topics: &Topics, numbers: impl IntoIterator<Item = u8>) {
    let endpoint = |n: u8| Endpoint {
        addresses: vec![IpAddr::from([10, 1, 0, n])],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        pod: None,
    };
    let slice = Slice {
        service: Some(ObjectKey::new("shop", "web")),
        subsets: vec![Subset {
            ports: vec![Port { name: String::new(), port: 80 }],
            endpoints: numbers.into_iter().map(endpoint).collect(),
        }],
    };
    topics.change(|index| index.slices(Event::Applied(ObjectKey::new("shop", "web-x"), slice)));
}

async fn next(subscription: &mut Subscription) -> Step {
    word(subscription).await.step.expect("a step")
}

async fn word(subscription: &mut Subscription) -> Word {
    timeout(Duration::from_secs(60), subscription.next()).await.expect("a word")
}

async fn nothing_comes(subscription: &mut Subscription) {
    let waited = timeout(Duration::from_secs(60), subscription.next()).await;
    assert!(waited.is_err(), "{waited:?}");
}

/// How many endpoints a step tells of, and how many it takes away.
fn counts(step: &Step) -> (&'static str, usize, usize) {
    match step {
        Step::Snapshot(known) => ("snapshot", known.endpoints.len(), 0),
        Step::Diff { upsert, remove } => ("diff", upsert.len(), remove.len()),
        Step::Unknown => ("unknown", 0, 0),
    }
}

fn publishing(topics: &Topics) {
    let topics = topics.clone();
    tokio::spawn(async move { topics.publish().await });
}

#[tokio::test(start_paused = true)]
async fn nothing_is_told_before_the_index_is_filled() {
    let topics = topics(9);
    publishing(&topics);
    let mut early = topics.subscribe(web(), None).unwrap();
    serve(&topics, Choice::default());
    nothing_comes(&mut early).await;
    endpoints(&topics, [1]);
    topics.open();
    assert_eq!(counts(&next(&mut early).await), ("snapshot", 1, 0));
    let mut late = topics.subscribe(web(), None).unwrap();
    assert_eq!(counts(&next(&mut late).await), ("snapshot", 1, 0));
    let mut other = topics.subscribe(Query::default(), None).unwrap();
    assert_eq!(counts(&next(&mut other).await), ("unknown", 0, 0));
}

#[tokio::test(start_paused = true)]
async fn a_change_is_told_to_those_it_concerns() {
    let topics = topics(9);
    topics.open();
    publishing(&topics);
    let mut web = topics.subscribe(web(), None).unwrap();
    let mut other = topics.subscribe(Query::of_authority("db", "shop", "cluster.local"), None).unwrap();
    assert_eq!(counts(&next(&mut web).await).0, "unknown");
    assert_eq!(counts(&next(&mut other).await).0, "unknown");
    serve(&topics, Choice::default());
    assert_eq!(counts(&next(&mut web).await), ("snapshot", 0, 0));
    endpoints(&topics, [1, 2, 3]);
    assert_eq!(counts(&next(&mut web).await), ("diff", 3, 0));
    endpoints(&topics, [2, 3, 4]);
    assert_eq!(counts(&next(&mut web).await), ("diff", 1, 1));
    topics.change(|index| index.services(Event::Deleted(ObjectKey::new("shop", "web"))));
    assert_eq!(counts(&next(&mut web).await).0, "unknown");
    nothing_comes(&mut other).await;
}

#[tokio::test(start_paused = true)]
async fn a_slow_reader_gets_the_latest_state_and_not_the_way_there() {
    let topics = topics(9);
    serve(&topics, Choice::default());
    topics.open();
    publishing(&topics);
    let mut slow = topics.subscribe(web(), None).unwrap();
    let mut quick = topics.subscribe(web(), None).unwrap();
    let mut has = View::Unknown.after(&next(&mut slow).await);
    next(&mut quick).await;
    for n in 1..100 {
        endpoints(&topics, 0..n);
        next(&mut quick).await;
    }
    endpoints(&topics, [7]);
    next(&mut quick).await;
    has = has.after(&next(&mut slow).await);
    nothing_comes(&mut slow).await;
    let View::Known(known) = has else { panic!("web is known") };
    let addresses: Vec<String> = known.endpoints.keys().map(ToString::to_string).collect();
    assert_eq!(addresses, ["10.1.0.7:80"]);
}

#[tokio::test(start_paused = true)]
async fn there_and_back_again_is_nothing_to_tell() {
    let topics = topics(9);
    serve(&topics, Choice::default());
    endpoints(&topics, [1]);
    topics.open();
    publishing(&topics);
    let mut slow = topics.subscribe(web(), None).unwrap();
    let mut quick = topics.subscribe(web(), None).unwrap();
    next(&mut slow).await;
    next(&mut quick).await;
    for numbers in [vec![1, 2], vec![1]] {
        endpoints(&topics, numbers);
        next(&mut quick).await;
    }
    nothing_comes(&mut slow).await;
}

#[tokio::test(start_paused = true)]
async fn each_client_of_a_service_with_affinity_is_told_of_its_own_endpoint() {
    let topics = topics(99);
    serve(&topics, Choice { by_client: true, on_node: false });
    endpoints(&topics, 0..10);
    topics.open();
    publishing(&topics);
    let mut chosen = BTreeSet::new();
    let mut clients = Vec::new();
    for n in 0..50 {
        let mut client = topics.subscribe(web(), Some(IpAddr::from([10, 2, 0, n]))).unwrap();
        let Step::Snapshot(known) = next(&mut client).await else { panic!("a snapshot first") };
        assert_eq!(known.endpoints.len(), 1);
        chosen.extend(known.endpoints.keys().copied());
        clients.push(client);
    }
    assert!(chosen.len() > 5, "{chosen:?}");
    // Without affinity everybody is told of the rest.
    serve(&topics, Choice::default());
    for client in &mut clients {
        assert_eq!(counts(&next(client).await), ("diff", 9, 0));
    }
    endpoints(&topics, 0..11);
    assert_eq!(counts(&next(&mut clients[0]).await), ("diff", 1, 0));
}

#[tokio::test(start_paused = true)]
async fn who_leaves_is_forgotten_and_makes_room() {
    let topics = topics(2);
    topics.open();
    let first = topics.subscribe(web(), None).unwrap();
    let second = topics.subscribe(web(), None).unwrap();
    assert_eq!((topics.subscriptions(), topics.topics()), (2, 1));
    assert!(matches!(topics.subscribe(web(), None), Err(Full)));
    drop(first);
    assert_eq!((topics.subscriptions(), topics.topics()), (1, 1));
    drop(second);
    assert_eq!((topics.subscriptions(), topics.topics()), (0, 0));
    assert!(topics.subscribe(Query::default(), None).is_ok());
}

#[tokio::test(start_paused = true)]
async fn everybody_is_told_when_the_cluster_is_no_longer_followed() {
    let topics = topics(8);
    publishing(&topics);
    serve(&topics, Choice::default());
    endpoints(&topics, 0..3);
    let mut early = topics.subscribe(web(), None).unwrap();
    topics.set_stale(true);
    nothing_comes(&mut early).await;

    topics.open();
    let first = word(&mut early).await;
    assert!(first.is_stale && matches!(first.step, Some(Step::Snapshot(_))), "{first:?}");
    topics.set_stale(false);
    topics.set_stale(true);
    nothing_comes(&mut early).await;
    topics.set_stale(false);
    assert_eq!(word(&mut early).await, Word { step: None, is_stale: false });
    endpoints(&topics, 0..4);
    let last = word(&mut early).await;
    assert!(!last.is_stale && counts(&last.step.unwrap()) == ("diff", 1, 0));
}
