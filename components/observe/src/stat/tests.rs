use std::{sync::Arc, time::Duration};

use super::*;
use crate::{
    inventory::{Pod, Service},
    quantile::Bound,
    samples::PodName,
    testing::pod,
};

const WINDOW: Duration = Duration::from_secs(60);

/// A cluster of one namespace in which every deployment has pods `<deployment>-1`, `-2` and so on.
#[derive(Default)]
struct World {
    inventory: Inventory,
    samples: Samples,
}

impl World {
    fn shop() -> Self {
        let mut world = Self::default();
        for (deployment, meshed) in [("bot", 1), ("web", 2), ("emoji", 1), ("legacy", 0)] {
            world.deployment("shop", deployment, meshed, 2);
            world.service("shop", deployment);
        }
        world
    }

    fn deployment(&mut self, namespace: &str, name: &str, meshed: u32, running: u32) {
        self.inventory.objects.insert(Object::new(Kind::Deployment, namespace, name));
        self.inventory.objects.insert(Object::new(Kind::Namespace, namespace, namespace));
        for i in 1..=running {
            if i <= meshed {
                self.samples.sources.insert(PodName::new(namespace, format!("{name}-{i}")));
            }
            let pod = Pod { meshed: i <= meshed, ..pod(namespace, name, i) };
            self.inventory.pods.insert(pod.name.clone(), Arc::new(pod));
        }
    }

    fn service(&mut self, namespace: &str, name: &str) {
        let selector = BTreeMap::from([("app".to_owned(), name.to_owned())]);
        let service = Service { selector, ..Service::default() };
        self.inventory.services.insert((namespace.to_owned(), name.to_owned()), service);
    }

    fn source(&self, pod: &str) -> Arc<Source> {
        let (namespace, name) = pod.split_once('/').unwrap();
        let pod = &self.inventory.pods[&PodName::new(namespace, name)];
        Arc::new(Source { pod: pod.name.clone(), owners: pod.owners.clone(), covered: WINDOW })
    }

    /// Notes responses that `pod` counted, labels as `name=value`.
    fn saw(&mut self, pod: &str, count: f64, labels: &str) {
        let counted = Counted { source: self.source(pod), labels: read(labels), count, ago: Duration::ZERO };
        self.samples.responses.push(counted);
    }

    fn connected(&mut self, pod: &str, count: f64, labels: &str) {
        let counted = Counted { source: self.source(pod), labels: read(labels), count, ago: Duration::ZERO };
        self.samples.connections.push(counted);
    }

    /// Notes bytes that `pod` received and sent.
    fn moved(&mut self, pod: &str, (received, sent): (f64, f64), labels: &str) {
        let counted =
            |count| Counted { source: self.source(pod), labels: read(labels), count, ago: Duration::ZERO };
        let (received, sent) = (counted(received), counted(sent));
        self.samples.received.push(received);
        self.samples.sent.push(sent);
    }

    fn took(&mut self, pod: &str, buckets: &[(f64, f64)], labels: &str) {
        let buckets = buckets.iter().map(|(upper, count)| (Bound::new(*upper).unwrap(), *count)).collect();
        self.samples.latencies.push(Measured { source: self.source(pod), labels: read(labels), buckets });
    }

    fn rows(&self, query: &Query) -> Vec<Row> {
        rows(query, &self.samples, &self.inventory)
    }

    /// Rows as `kind namespace/name meshed/running success rps p50 tls`.
    fn table(&self, query: &Query) -> String {
        let number = |value: Option<f64>| value.map_or("-".to_owned(), |value| format!("{value:.2}"));
        let pods = |row: &Row| match (row.meshed, row.running) {
            (Some(meshed), Some(running)) => format!("{meshed}/{running}"),
            _ => "-".to_owned(),
        };
        let line = |row: &Row| {
            let numbers = [row.success, row.rps, row.latency_ms.p50, row.tls].map(number).join(" ");
            format!("{} {}/{} {} {numbers}", row.kind, row.namespace, row.name, pods(row))
        };
        self.rows(query).iter().map(line).collect::<Vec<_>>().join("\n")
    }
}

fn read(labels: &str) -> Labels {
    Labels::collect(labels.split_whitespace().map(|pair| pair.split_once('=').unwrap()))
}

fn ask(kind: Kind) -> Query {
    Query {
        kinds: vec![kind],
        namespace: Some("shop".to_owned()),
        name: None,
        selector: None,
        to: None,
        from: None,
        window: WINDOW,
    }
}

fn select(kind: Kind, name: &str) -> Option<Selection> {
    Some(Selection { kind, namespace: Some("shop".to_owned()), name: Some(name.to_owned()) })
}

const IN_OK: &str = "direction=inbound classification=success";
const IN_BAD: &str = "direction=inbound classification=failure";
const OUT_OK: &str = "direction=outbound classification=success";

#[test]
fn every_object_has_a_row_and_numbers_are_none_without_traffic() {
    insta::assert_snapshot!(World::shop().table(&ask(Kind::Deployment)), @r"
    deployment shop/bot 1/2 - - - -
    deployment shop/emoji 1/2 - - - -
    deployment shop/legacy 0/2 - - - -
    deployment shop/web 2/2 - - - -
    ");
}

#[test]
fn a_server_counts_what_its_own_proxies_saw_arrive() {
    let mut world = World::shop();
    world.saw("shop/web-1", 90.0, &format!("{IN_OK} tls=true"));
    world.saw("shop/web-2", 10.0, &format!("{IN_BAD} tls=no_proxy_tls"));
    world.saw("shop/web-1", 20.0, &format!("{IN_OK} tls=no_proxy_tls"));
    // What the clients say of the same requests is another view, not more traffic.
    world.saw("shop/bot-1", 120.0, &format!("{OUT_OK} tls=true dst_namespace=shop dst_deployment=web"));
    world.took("shop/web-1", &[(1.0, 60.0), (2.0, 60.0)], "direction=inbound tls=true");
    insta::assert_snapshot!(world.table(&Query { name: Some("web".into()), ..ask(Kind::Deployment) }), @"deployment shop/web 2/2 0.92 2.00 1.00 0.75");
    insta::assert_snapshot!(world.table(&ask(Kind::Pod)), @r"
    pod shop/bot-1 1/1 - - - -
    pod shop/bot-2 0/1 - - - -
    pod shop/emoji-1 1/1 - - - -
    pod shop/emoji-2 0/1 - - - -
    pod shop/legacy-1 0/1 - - - -
    pod shop/legacy-2 0/1 - - - -
    pod shop/web-1 1/1 1.00 1.83 1.00 0.82
    pod shop/web-2 1/1 0.00 0.17 - 0.00
    ");
    insta::assert_snapshot!(world.table(&ask(Kind::Namespace)), @"namespace shop/shop 4/8 0.92 2.00 1.00 0.75");
}

#[test]
fn probes_count_for_nothing_and_what_stays_in_a_pod_has_no_part_in_the_tls_share() {
    let mut world = World::shop();
    let web = Query { name: Some("web".into()), ..ask(Kind::Deployment) };
    world.saw("shop/web-1", 60.0, &format!("{IN_BAD} tls=kubelet_probe"));
    world.took("shop/web-1", &[(1.0, 60.0)], "direction=inbound tls=kubelet_probe");
    world.connected("shop/web-1", 60.0, "direction=inbound peer=src tls=kubelet_probe");
    insta::assert_snapshot!(world.table(&web), @"deployment shop/web 2/2 - - - -");
    assert_eq!(world.rows(&web)[0].counts.probes, 60.0);

    world.saw("shop/web-1", 60.0, &format!("{IN_OK} tls=loopback"));
    insta::assert_snapshot!(world.table(&web), @"deployment shop/web 2/2 1.00 1.00 - -");

    world.saw("shop/web-1", 60.0, &format!("{IN_OK} tls=true"));
    insta::assert_snapshot!(world.table(&web), @"deployment shop/web 2/2 1.00 2.00 - 1.00");
}

#[test]
fn connections_stand_in_for_responses_of_opaque_traffic_only() {
    let mut world = World::shop();
    let emoji = Query { name: Some("emoji".into()), ..ask(Kind::Deployment) };
    world.connected("shop/emoji-1", 3.0, "direction=inbound peer=src tls=true");
    world.connected("shop/emoji-1", 1.0, "direction=inbound peer=src tls=no_proxy_tls");
    world.connected("shop/emoji-1", 9.0, "direction=inbound peer=dst tls=loopback");
    world.connected("shop/emoji-1", 9.0, "direction=outbound peer=dst tls=true");
    insta::assert_snapshot!(world.table(&emoji), @"deployment shop/emoji 1/2 - - - 0.75");
    assert_eq!(world.rows(&emoji)[0].plaintext, BTreeMap::from([("no_proxy_tls".to_owned(), 1.0)]));

    world.saw("shop/emoji-1", 10.0, &format!("{IN_OK} tls=true"));
    insta::assert_snapshot!(world.table(&emoji), @"deployment shop/emoji 1/2 1.00 0.17 - 1.00");
}

#[test]
fn to_and_from_ask_the_clients_proxies() {
    let mut world = World::shop();
    let emoji =
        "dst_namespace=shop dst_deployment=emoji dst_pod=emoji-1 dst_service=emoji authority=emoji:80";
    let web = "dst_namespace=shop dst_deployment=web dst_pod=web-1 dst_service=web authority=web:80";
    world.saw("shop/web-1", 60.0, &format!("{OUT_OK} tls=true {emoji}"));
    world.saw("shop/bot-1", 30.0, &format!("{OUT_OK} tls=no_identity {web}"));
    world.saw("shop/bot-1", 6.0, &format!("{OUT_OK} tls=true {emoji}"));
    world.saw("shop/emoji-1", 66.0, &format!("{IN_OK} tls=true authority=emoji:80"));

    let to = Query { to: select(Kind::Deployment, "emoji"), ..ask(Kind::Deployment) };
    insta::assert_snapshot!(world.table(&to), @r"
    deployment shop/bot 1/2 1.00 0.10 - 1.00
    deployment shop/web 2/2 1.00 1.00 - 1.00
    ");
    let from = Query { from: select(Kind::Deployment, "bot"), ..ask(Kind::Deployment) };
    insta::assert_snapshot!(world.table(&from), @r"
    deployment shop/emoji 1/2 1.00 0.10 - 1.00
    deployment shop/web 2/2 1.00 0.50 - 0.00
    ");
    let both = Query { to: select(Kind::Service, "emoji"), ..from.clone() };
    insta::assert_snapshot!(world.table(&both), @"deployment shop/emoji 1/2 1.00 0.10 - 1.00");
    let pods = Query { kinds: vec![Kind::Pod], ..from.clone() };
    insta::assert_snapshot!(world.table(&pods), @r"
    pod shop/emoji-1 1/1 1.00 0.10 - 1.00
    pod shop/web-1 1/1 1.00 0.50 - 0.00
    ");
    let authorities = Query { kinds: vec![Kind::Authority], ..from };
    insta::assert_snapshot!(world.table(&authorities), @r"
    authority shop/emoji.shop:80 - 1.00 0.10 - 1.00
    authority shop/web.shop:80 - 1.00 0.50 - 0.00
    ");
}

#[test]
fn a_pod_whose_destination_labels_name_no_owner_is_looked_up() {
    let mut world = World::shop();
    world.saw("shop/bot-1", 30.0, &format!("{OUT_OK} tls=no_identity dst_namespace=shop dst_pod=legacy-1"));
    let query = Query { from: select(Kind::Deployment, "bot"), ..ask(Kind::Deployment) };
    insta::assert_snapshot!(world.table(&query), @"deployment shop/legacy 0/2 1.00 0.50 - 0.00");
}

#[test]
fn an_authority_counts_each_request_once_from_the_server_if_it_can() {
    let mut world = World::shop();
    // Both ends of the same requests: the server's word counts.
    world.saw("shop/emoji-1", 60.0, &format!("{IN_OK} tls=true authority=emoji.shop:8080"));
    let emoji = "dst_namespace=shop dst_service=emoji authority=emoji:8080";
    world.saw("shop/web-1", 60.0, &format!("{OUT_OK} tls=true dst_pod=emoji-1 {emoji}"));
    // The other pod of that service has no proxy: the client's word.
    world.saw("shop/web-1", 30.0, &format!("{OUT_OK} tls=no_identity dst_pod=emoji-2 {emoji}"));
    // A destination without any proxy.
    world.saw(
        "shop/web-1",
        6.0,
        &format!("{OUT_OK} tls=no_identity dst_namespace=shop dst_pod=legacy-1 authority=legacy"),
    );
    // The same before discovery has answered: nobody behind that name is read.
    world.saw("shop/web-1", 6.0, &format!("{OUT_OK} tls=no_discovery authority=legacy"));
    // Before discovery has answered, to a service with a proxy: its proxy may have counted it.
    world.saw("shop/web-1", 6.0, &format!("{OUT_OK} tls=no_discovery authority=emoji:8080"));
    // Outside of the cluster.
    world.saw("shop/web-1", 6.0, &format!("{OUT_OK} tls=no_identity authority=example.com"));
    insta::assert_snapshot!(world.table(&ask(Kind::Authority)), @r"
    authority shop/emoji.shop:8080 - 1.00 1.50 - 0.67
    authority shop/example.com:80 - 1.00 0.10 - 0.00
    authority shop/legacy.shop:80 - 1.00 0.20 - 0.00
    ");
    insta::assert_snapshot!(world.table(&ask(Kind::Service)), @r"
    service shop/bot 1/2 - - - -
    service shop/emoji 1/2 1.00 1.50 - 0.67
    service shop/legacy 0/2 1.00 0.20 - 0.00
    service shop/web 2/2 - - - -
    ");
}

#[test]
fn an_authority_is_selected_by_any_of_its_spellings() {
    let mut world = World::shop();
    world.saw("shop/emoji-1", 60.0, &format!("{IN_OK} tls=true authority=emoji.shop:80"));
    for name in ["emoji.shop:80", "emoji.shop", "emoji.shop.svc.cluster.local", "emoji", "EMOJI:80"] {
        let query = Query { name: Some(name.to_owned()), ..ask(Kind::Authority) };
        assert_eq!(world.rows(&query).len(), 1, "{name}");
    }
    let query = Query { name: Some("emoji:8080".to_owned()), ..ask(Kind::Authority) };
    assert_eq!(world.rows(&query), []);
}

#[test]
fn only_the_namespace_asked_for_has_rows() {
    let mut world = World::shop();
    world.deployment("bank", "web", 1, 1);
    world.saw("bank/web-1", 60.0, &format!("{IN_OK} tls=true"));
    let bank = Query { namespace: Some("bank".into()), ..ask(Kind::Deployment) };
    insta::assert_snapshot!(world.table(&bank), @"deployment bank/web 1/1 1.00 1.00 - 1.00");
    let all = Query { namespace: None, ..ask(Kind::Deployment) };
    assert_eq!(world.rows(&all).len(), 5);
}

#[test]
fn plaintext_is_told_by_reason_and_tls_by_identity() {
    let mut world = World::shop();
    world.saw("shop/web-1", 1.0, &format!("{IN_OK} tls=true client_id=bot.id"));
    world.saw("shop/web-1", 2.0, &format!("{IN_OK} tls=no_proxy_tls"));
    world.saw("shop/web-1", 3.0, &format!("{IN_OK} tls=handshake_failed tls_reason=timeout"));
    let row = world.rows(&Query { name: Some("web".into()), ..ask(Kind::Deployment) }).remove(0);
    assert_eq!(row.peers, BTreeSet::from(["bot.id".to_owned()]));
    let plaintext = [("handshake_failed (timeout)".to_owned(), 3.0), ("no_proxy_tls".to_owned(), 2.0)];
    assert_eq!(row.plaintext, BTreeMap::from(plaintext));
}

#[test]
fn all_shows_every_kind_in_order() {
    let world = World::shop();
    let rows = world.rows(&Query { kinds: Kind::IN_ALL.to_vec(), ..ask(Kind::Pod) });
    let mut kinds: Vec<Kind> = rows.iter().map(|row| row.kind).collect();
    kinds.dedup();
    assert_eq!(kinds, [Kind::Deployment, Kind::Pod, Kind::Service]);
}

#[test]
fn a_selector_leaves_what_has_a_pod_with_such_labels() {
    let mut world = World::shop();
    world.saw("shop/web-1", 60.0, "direction=inbound tls=true classification=success authority=web.shop");
    let names = |selector: &str| {
        let selector = Some(selector.parse().unwrap());
        let rows = world.rows(&Query { kinds: Kind::IN_ALL.to_vec(), selector, ..ask(Kind::Pod) });
        rows.iter().map(|row| format!("{}/{}", row.kind.short(), row.name)).collect::<Vec<_>>().join(" ")
    };
    assert_eq!(names("app=web"), "deploy/web po/web-1 po/web-2 svc/web");
    assert_eq!(
        names("app in (bot,emoji),!tier"),
        "deploy/bot deploy/emoji po/bot-1 po/bot-2 po/emoji-1 po/emoji-2 svc/bot svc/emoji"
    );
    assert_eq!(names("app=nobody"), "");
}

#[test]
fn bytes_are_those_that_the_row_itself_received_and_sent() {
    let mut world = World::shop();
    let (inside, outside) = ("direction=inbound tls=true peer=src", "direction=outbound tls=true peer=dst");
    let to_emoji = format!("{outside} dst_namespace=shop dst_deployment=emoji dst_pod=emoji-1");
    for (pod, labels) in [("shop/emoji-1", inside), ("shop/web-1", &to_emoji)] {
        world.connected(pod, 1.0, labels);
    }
    world.moved("shop/emoji-1", (600.0, 6_000.0), inside);
    world.moved("shop/web-1", (6_000.0, 600.0), &to_emoji);
    // Neither what goes between the proxy and its application, nor the kubelet's probes.
    world.moved("shop/emoji-1", (7.0, 7.0), "direction=inbound tls=internal_traffic peer=dst");
    world.moved("shop/emoji-1", (7.0, 7.0), "direction=inbound tls=kubelet_probe peer=src");
    let bytes = |query: &Query| {
        let rows = world.rows(query);
        let row = rows.iter().find(|row| row.bytes != Bytes::default()).unwrap();
        (row.name.clone(), row.bytes.received_per_s.unwrap(), row.bytes.sent_per_s.unwrap())
    };
    let emoji = ("emoji".to_owned(), 10.0, 100.0);
    assert_eq!(bytes(&ask(Kind::Deployment)), emoji);
    let from = Query { from: select(Kind::Deployment, "web"), ..ask(Kind::Deployment) };
    assert_eq!(bytes(&from), emoji);
    let to = Query { to: select(Kind::Deployment, "emoji"), ..ask(Kind::Deployment) };
    assert_eq!(bytes(&to), ("web".to_owned(), 100.0, 10.0));
}
