use std::sync::Arc;

use super::*;
use crate::{
    inventory::Service,
    samples::{Labels, Source},
    testing::pod,
};

/// Deployments of one pod each in the namespace `shop`.
struct World {
    inventory: Inventory,
    now: Samples,
    before: Samples,
}

const WINDOW: Duration = Duration::from_secs(60);

impl World {
    fn of(meshed: &[&str], unmeshed: &[&str]) -> Self {
        let mut world =
            Self { inventory: Inventory::default(), now: Samples::default(), before: Samples::default() };
        for name in meshed.iter().chain(unmeshed) {
            let pod = Pod { meshed: meshed.contains(name), ..pod("shop", name, 1) };
            if pod.meshed {
                world.now.sources.insert(pod.name.clone());
            }
            world.inventory.pods.insert(pod.name.clone(), Arc::new(pod));
            let selector = BTreeMap::from([("app".to_owned(), (*name).to_owned())]);
            let service = Service { selector, ..Service::default() };
            world.inventory.services.insert(("shop".to_owned(), (*name).to_owned()), service);
        }
        world
    }

    fn counted(&self, name: &str, count: f64, ago_s: u64, labels: &str) -> Counted {
        let pod = &self.inventory.pods[&PodName::new("shop", format!("{name}-1"))];
        let source = Source { pod: pod.name.clone(), owners: pod.owners.clone(), covered: WINDOW };
        let labels = Labels::collect(labels.split_whitespace().map(|pair| pair.split_once('=').unwrap()));
        Counted { source: Arc::new(source), labels, count, ago: Duration::from_secs(ago_s) }
    }

    /// Responses that were counted within the window.
    fn saw(&mut self, name: &str, count: f64, labels: &str) {
        let counted = self.counted(name, count, 1, labels);
        self.now.responses.push(counted.clone());
        self.before.responses.push(counted);
    }

    /// Responses that were counted before it.
    fn saw_before(&mut self, name: &str, ago_s: u64, labels: &str) {
        let counted = self.counted(name, 1.0, ago_s, labels);
        self.before.responses.push(counted);
    }

    fn connected(&mut self, name: &str, count: f64, labels: &str) {
        let counted = self.counted(name, count, 1, labels);
        self.now.connections.push(counted.clone());
        self.before.connections.push(counted);
    }

    fn edges(&self, grain: Grain) -> Vec<Edge> {
        let control_plane = ControlPlane::default();
        let (now, before, inventory) = (&self.now, &self.before, &self.inventory);
        edges(&Seen { now, before, inventory, control_plane: &control_plane, grain })
    }

    /// Edges as `client -> server share plaintext told_by`.
    fn table(&self) -> Vec<String> {
        let end = |end: &End| match (end.kind, end.name.as_str()) {
            (None, "") => "?".to_owned(),
            (None, name) => name.to_owned(),
            (Some(kind), name) => format!("{kind}/{name}"),
        };
        let line = |edge: &Edge| {
            let Edge { client, server, tls, plaintext, told_by, .. } = edge;
            format!("{} -> {} {tls:.2} {plaintext:?} {told_by:?}", end(client), end(server))
        };
        self.edges(Grain::Workloads).iter().map(line).collect()
    }
}

fn identity(name: &str) -> String {
    format!("{name}.deployment.shop.conduit-managed.conduit.svc.cluster.local")
}

fn out(server: &str, tls: &str) -> String {
    format!("direction=outbound dst_namespace=shop dst_deployment={server} dst_pod={server}-1 tls={tls}")
}

#[test]
fn what_both_ends_tell_is_one_edge_with_both_identities() {
    let mut world = World::of(&["web", "api"], &[]);
    let names = format!("client_id={} server_id={}", identity("web"), identity("api"));
    world.saw("web", 30.0, &format!("{} {names}", out("api", "true")));
    world.saw("api", 30.0, &format!("direction=inbound tls=true {names}"));
    assert_eq!(world.table(), ["deployment/web -> deployment/api 1.00 {} {Client, Server}"]);
    let edge = &world.edges(Grain::Workloads)[0];
    assert_eq!(edge.client.identity.as_ref(), Some(&identity("web")));
    assert_eq!(edge.server.identity.as_ref(), Some(&identity("api")));
    assert_eq!((edge.rps, edge.since_ms), (Some(0.5), None));
}

#[test]
fn an_unmeshed_server_is_named_with_the_reason() {
    let mut world = World::of(&["web"], &["legacy"]);
    world.saw("web", 6.0, &out("legacy", "no_identity"));
    let expected = "deployment/web -> deployment/legacy 0.00 {\"no_identity\": 6.0} {Client}";
    assert_eq!(world.table(), [expected]);
    let edge = &world.edges(Grain::Workloads)[0];
    assert!(edge.client.meshed && !edge.server.meshed);
    assert_eq!((&edge.client.identity, &edge.server.identity), (&None, &None));
}

#[test]
fn clients_in_the_clear_are_one_nameless_end() {
    let mut world = World::of(&["api"], &["legacy"]);
    world.saw("api", 6.0, "direction=inbound tls=no_proxy_tls");
    assert_eq!(world.table(), ["? -> deployment/api 0.00 {\"no_proxy_tls\": 6.0} {Server}"]);
}

#[test]
fn what_meshed_clients_sent_in_the_clear_is_not_told_twice() {
    let mut world = World::of(&["web", "api"], &[]);
    world.saw("web", 30.0, &out("api", "expired"));
    // Read a moment later.
    world.saw("api", 32.0, "direction=inbound tls=no_proxy_tls");
    let expected = "deployment/web -> deployment/api 0.00 {\"expired\": 30.0} {Client}";
    assert_eq!(world.table(), [expected]);
    // Somebody else sends as much again.
    world.saw("api", 28.0, "direction=inbound tls=no_proxy_tls");
    let table = world.table();
    assert_eq!(table.len(), 2, "{table:?}");
    assert_eq!(table[0], "? -> deployment/api 0.00 {\"no_proxy_tls\": 30.0} {Server}");
}

#[test]
fn a_client_whose_proxy_cannot_be_read_is_known_by_its_identity() {
    let mut world = World::of(&["web", "api"], &[]);
    world.now.sources.remove(&PodName::new("shop", "web-1"));
    let names = format!("client_id={} server_id={}", identity("web"), identity("api"));
    world.saw("api", 30.0, &format!("direction=inbound tls=true {names}"));
    assert_eq!(world.table(), ["deployment/web -> deployment/api 1.00 {} {Server}"]);
    // One that was read and said nothing of it, because it was read a moment before, will say so.
    world.now.sources.insert(PodName::new("shop", "web-1"));
    assert_eq!(world.table(), [""; 0]);
}

#[test]
fn opaque_connections_make_an_edge_and_probes_and_loopback_none() {
    let mut world = World::of(&["web", "db"], &[]);
    world.connected("web", 3.0, &format!("{} peer=dst", out("db", "true")));
    world.connected("web", 9.0, "direction=outbound peer=src tls=internal_traffic");
    world.connected("db", 9.0, "direction=inbound peer=src tls=kubelet_probe");
    assert_eq!(world.table(), ["deployment/web -> deployment/db 1.00 {} {Client}"]);
    let edge = &world.edges(Grain::Workloads)[0];
    assert_eq!((edge.rps, edge.connections), (None, 3.0));
}

#[test]
fn servers_outside_the_cluster_are_what_they_were_called() {
    let mut world = World::of(&["web"], &[]);
    world.saw("web", 1.0, "direction=outbound authority=example.com:80 tls=no_identity");
    world.connected("web", 1.0, "direction=outbound peer=dst tls=no_identity");
    let table = world.table();
    assert!(table.iter().any(|line| line.starts_with("deployment/web -> example.com ")), "{table:?}");
    assert!(table.iter().any(|line| line.contains("outside the mesh")), "{table:?}");
}

#[test]
fn a_service_stands_for_the_only_workload_behind_it() {
    let mut world = World::of(&["web"], &["legacy"]);
    world.saw("web", 1.0, "direction=outbound authority=legacy.shop:80 tls=no_discovery");
    assert!(world.table()[0].starts_with("deployment/web -> deployment/legacy "), "{:?}", world.table());
}

#[test]
fn since_when_is_since_the_last_sign_of_anything_else() {
    let mut world = World::of(&["web", "api"], &[]);
    world.saw("web", 30.0, &out("api", "true"));
    world.saw_before("web", 120, &out("api", "no_config"));
    assert_eq!(world.edges(Grain::Workloads)[0].since_ms, Some(120_000));
    world.saw("web", 30.0, &out("api", "expired"));
    let edge = &world.edges(Grain::Workloads)[0];
    assert_eq!((edge.tls, edge.since_ms), (0.5, None), "it is both");
}

#[test]
fn pods_are_told_apart_where_that_is_asked() {
    let mut world = World::of(&["web", "api"], &[]);
    world.saw("web", 30.0, &out("api", "true"));
    world.saw("api", 30.0, &format!("direction=inbound tls=true client_id={}", identity("web")));
    let edges = world.edges(Grain::Pods);
    assert_eq!(edges.len(), 1, "{edges:?}");
    assert_eq!((edges[0].client.name.as_str(), edges[0].server.name.as_str()), ("web-1", "api-1"));
}
