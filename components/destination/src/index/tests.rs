use std::net::SocketAddr;

use conduit_k8s::{
    owner::Controller,
    slices::{Endpoint, PodRef, Port, Subset},
};
use serde_json::json;

use super::*;
use crate::{
    names::Query,
    observed::ServicePort,
    view::{Choice, View},
};

mod order;

const ZONE: &str = "cluster.local";

fn key(name: &str) -> ObjectKey {
    ObjectKey::new("shop", name)
}

fn index() -> Index {
    Index::new(Scope { control_plane: ControlPlane::default(), zone: ZONE.to_owned() })
}

fn service(cluster_ip: &str, ports: &[(&str, u16)]) -> Service {
    let port = |(name, port): &(&str, u16)| ServicePort { name: (*name).to_owned(), port: *port };
    Service {
        cluster_ips: cluster_ip.parse().into_iter().collect(),
        ports: ports.iter().map(port).collect(),
        is_headless: cluster_ip == "None",
        is_external: cluster_ip.is_empty(),
        is_ipv6: None,
        choice: Choice::default(),
    }
}

fn slice(service: &str, ports: &[(&str, u16)], endpoints: impl IntoIterator<Item = Endpoint>) -> Slice {
    let port = |(name, port): &(&str, u16)| Port { name: (*name).to_owned(), port: *port };
    let ports = ports.iter().map(port).collect();
    Slice {
        service: Some(key(service)),
        subsets: vec![Subset { ports, endpoints: endpoints.into_iter().collect() }],
    }
}

/// A ready endpoint at `ip`, made for `pod`; by hand when that is empty.
fn at(ip: &str, pod: &str) -> Endpoint {
    let named = PodRef { key: key(pod), uid: format!("uid of {pod}") };
    Endpoint {
        addresses: vec![ip.parse().unwrap()],
        ready: true,
        serving: true,
        terminating: false,
        hostname: None,
        pod: (!pod.is_empty()).then_some(named),
    }
}

/// A running pod of the Deployment "web", injected with TLS.
fn pod(name: &str, ip: &str) -> Pod {
    let pod = json!({
        "metadata": {
            "namespace": "shop", "name": name, "uid": format!("uid of {name}"),
            "creationTimestamp": "2026-01-01T00:00:00Z",
            "labels": {
                "conduit.io/control-plane-ns": "conduit", "conduit.io/proxy-deployment": "web",
                "pod-template-hash": "1",
            },
            "annotations": {"conduit.io/tls": "optional"},
            "ownerReferences": [{
                "apiVersion": "apps/v1", "kind": "ReplicaSet", "name": "web-1", "uid": "uid of web-1",
                "controller": true,
            }],
        },
        "spec": {"nodeName": "node-1", "containers": [{"name": "conduit-proxy"}]},
        "status": {"phase": "Running", "podIP": ip},
    });
    Pod::read(serde_json::from_value(pod).unwrap(), "conduit")
}

/// What the ReplicaSet "web-1" of the Deployment "web" says of itself.
fn web_1() -> Owned {
    let kind = Some(WorkloadKind::Deployment);
    Owned {
        uid: "uid of web-1".into(),
        controller: Some(Controller { kind, name: "web".into(), uid: "uid of web".into() }),
    }
}

const WEB: &str = "web.deployment.shop.conduit-managed.conduit.svc.cluster.local";

/// The Service "web" (10.96.0.1:80 to 8080) and its pods "web-a" at 10.1.0.1 and "web-b" at 10.1.0.2.
fn web() -> Index {
    let mut index = index();
    index.services(Event::Applied(key("web"), service("10.96.0.1", &[("http", 80)])));
    let endpoints = [at("10.1.0.1", "web-a"), at("10.1.0.2", "web-b")];
    index.slices(Event::Applied(key("web-x"), slice("web", &[("http", 8080)], endpoints)));
    index.replica_sets(Event::Applied(key("web-1"), web_1()));
    index.pods(Event::Applied(key("web-a"), pod("web-a", "10.1.0.1")));
    index.pods(Event::Applied(key("web-b"), pod("web-b", "10.1.0.2")));
    index
}

fn named(index: &Index, authority: &str) -> View {
    index.view(&Query::of_authority(authority, "shop", ZONE))
}

fn addressed(index: &Index, address: &str) -> View {
    index.view(&Query::of_address(address).unwrap())
}

/// A view in short: "unknown", or each endpoint with the pod it is told to be and the identity it is told to have.
fn told(view: &View) -> Vec<String> {
    let View::Known(known) = view else { return vec!["unknown".to_owned()] };
    let told = |(address, endpoint): (&SocketAddr, &crate::view::Endpoint)| {
        let pod = endpoint.labels.get("pod").map(String::as_str);
        let identity = endpoint.identity.as_ref().map(Identity::as_str);
        format!("{address} {} {}", pod.unwrap_or("-"), identity.unwrap_or("-"))
    };
    known.endpoints.iter().map(told).collect()
}

fn addresses(view: &View) -> Vec<String> {
    told(view).into_iter().map(|told| told.split(' ').next().unwrap_or_default().to_owned()).collect()
}

#[test]
fn a_service_is_found_by_name_and_by_address_with_its_target_port() {
    let index = web();
    let expected = [format!("10.1.0.1:8080 web-a {WEB}"), format!("10.1.0.2:8080 web-b {WEB}")];
    for authority in ["web", "web:80", "WEB.shop", "web.shop.svc.cluster.local."] {
        assert_eq!(told(&named(&index, authority)), expected, "{authority}");
    }
    assert_eq!(told(&addressed(&index, "10.96.0.1:80")), expected);
    let View::Known(known) = named(&index, "web") else { panic!("web is known") };
    assert_eq!(known.service, "web.shop.svc.cluster.local:80");
    let labels = [("namespace", "shop"), ("service", "web")].map(|(k, v)| (k.to_owned(), v.to_owned()));
    assert_eq!(known.labels, Labels::from(labels));
    let endpoint = known.endpoints.values().next().unwrap();
    let expected = [
        ("conduit_io_control_plane_ns", "conduit"),
        ("deployment", "web"),
        ("namespace", "shop"),
        ("pod", "web-a"),
        ("pod_template_hash", "1"),
    ];
    assert_eq!(*endpoint.labels, Labels::from(expected.map(|(k, v)| (k.to_owned(), v.to_owned()))));
}

#[test]
fn what_kubernetes_does_not_serve_is_unknown() {
    let mut index = web();
    index.services(Event::Applied(key("db"), service("", &[("", 5432)])));
    for authority in ["web:81", "db:5432", "nobody", "www.example.com", "web.", ""] {
        assert_eq!(named(&index, authority), View::Unknown, "{authority}");
    }
    for address in ["10.96.0.1:81", "10.96.0.9:80", "192.0.2.1:443", "[fd00::1]:80"] {
        assert_eq!(addressed(&index, address), View::Unknown, "{address}");
    }
}

#[test]
fn a_service_that_nobody_answers_for_is_known_and_empty() {
    let mut index = index();
    index.services(Event::Applied(key("web"), service("10.96.0.1", &[("http", 80)])));
    assert_eq!(told(&named(&index, "web")), Vec::<String>::new());
}

#[test]
fn a_named_target_port_is_each_pods_own() {
    let mut index = web();
    let other = slice("web", &[("http", 9090), ("admin", 9091)], [at("10.1.0.3", "web-c")]);
    index.slices(Event::Applied(key("web-y"), other));
    assert_eq!(addresses(&named(&index, "web")), ["10.1.0.1:8080", "10.1.0.2:8080", "10.1.0.3:9090"]);
}

#[test]
fn a_pod_is_found_by_its_own_address_on_every_port_that_leads_to_its_proxy() {
    let mut index = web();
    assert_eq!(told(&addressed(&index, "10.1.0.1:8080")), [format!("10.1.0.1:8080 web-a {WEB}")]);
    assert_eq!(told(&addressed(&index, "10.1.0.1:4191")), ["10.1.0.1:4191 web-a -"]);
    let mut skipping = pod("web-a", "10.1.0.1");
    skipping.bypassing.insert(8080);
    index.pods(Event::Applied(key("web-a"), skipping));
    let expected = ["10.1.0.1:8080 web-a -".to_owned(), format!("10.1.0.2:8080 web-b {WEB}")];
    assert_eq!(told(&named(&index, "web")), expected);
    assert_eq!(told(&named(&index, "10-1-0-2.shop.pod:1")), [format!("10.1.0.2:1 web-b {WEB}")]);
}

#[test]
fn a_headless_service_translates_no_port_and_has_a_name_for_each_pod() {
    let mut index = index();
    index.services(Event::Applied(key("db"), service("None", &[("sql", 80)])));
    let named_pod = Endpoint { hostname: Some("db-0".into()), ..at("10.1.0.1", "db-0") };
    let endpoints = [named_pod, at("10.1.0.2", "db-1")];
    index.slices(Event::Applied(key("db-x"), slice("db", &[("sql", 5432)], endpoints)));
    for (authority, expected) in [
        ("db:5432", vec!["10.1.0.1:5432", "10.1.0.2:5432"]),
        ("db", vec!["10.1.0.1:80", "10.1.0.2:80"]),
        ("db-0.db:5432", vec!["10.1.0.1:5432"]),
        ("DB-0.db.shop.svc.cluster.local:5432", vec!["10.1.0.1:5432"]),
        ("10-1-0-2.db:5432", vec!["10.1.0.2:5432"]),
        // Its record is its hostname, not its address.
        ("10-1-0-1.db:5432", vec!["unknown"]),
        ("db-7.db:5432", vec!["unknown"]),
    ] {
        assert_eq!(addresses(&named(&index, authority)), expected, "{authority}");
    }
}

#[test]
fn the_first_name_that_exists_is_meant() {
    let mut index = index();
    let elsewhere = ObjectKey::new("db", "web");
    index.services(Event::Applied(elsewhere, service("10.96.0.7", &[("", 80)])));
    assert_eq!(told(&named(&index, "web.db")), Vec::<String>::new(), "the Service web in the namespace db");

    index.services(Event::Applied(key("db"), service("None", &[])));
    let named_pod = Endpoint { hostname: Some("web".into()), ..at("10.1.0.1", "db-0") };
    let dirty = index.slices(Event::Applied(key("db-x"), slice("db", &[], [named_pod])));
    assert!(dirty.services.contains(&key("db")));
    assert_eq!(addresses(&named(&index, "web.db")), ["10.1.0.1:80"], "the pod web of the Service db");
}

#[test]
fn endpoints_written_by_hand_have_the_pod_that_is_at_their_address_if_any() {
    let mut index = web();
    index.services(Event::Applied(key("legacy"), service("10.96.0.2", &[("", 80)])));
    let endpoints = [at("192.0.2.7", ""), at("10.1.0.1", "")];
    index.slices(Event::Applied(key("legacy-x"), slice("legacy", &[("", 3306)], endpoints)));
    let expected = [format!("10.1.0.1:3306 web-a {WEB}"), "192.0.2.7:3306 - -".to_owned()];
    assert_eq!(told(&named(&index, "legacy")), expected);
}

#[test]
fn new_connections_go_to_who_is_ready_or_else_to_who_still_serves() {
    let ready = |endpoint: Endpoint| endpoint;
    let unready = |endpoint| Endpoint { ready: false, serving: false, ..endpoint };
    let leaving = |endpoint| Endpoint { ready: false, terminating: true, ..endpoint };
    let (a, b) = (at("10.1.0.1", "web-a"), at("10.1.0.2", "web-b"));
    for (endpoints, expected) in [
        ([ready(a.clone()), unready(b.clone())], vec!["10.1.0.1:8080"]),
        ([ready(a.clone()), leaving(b.clone())], vec!["10.1.0.1:8080"]),
        ([unready(a.clone()), leaving(b.clone())], vec!["10.1.0.2:8080"]),
        ([unready(a.clone()), unready(b.clone())], vec![]),
    ] {
        let mut index = web();
        index.slices(Event::Applied(key("web-x"), slice("web", &[("http", 8080)], endpoints.clone())));
        assert_eq!(addresses(&named(&index, "web")), expected, "{endpoints:?}");
    }
}

#[test]
fn a_client_of_one_address_family_gets_endpoints_of_the_same() {
    let mut index = index();
    let mut dual = service("10.96.0.1", &[("", 80)]);
    dual.cluster_ips.push("fd00::96:1".parse().unwrap());
    dual.is_ipv6 = Some(false);
    index.services(Event::Applied(key("web"), dual));
    index.slices(Event::Applied(key("web-4"), slice("web", &[("", 80)], [at("10.1.0.1", "web-a")])));
    index.slices(Event::Applied(key("web-6"), slice("web", &[("", 80)], [at("fd00::1", "web-a")])));
    assert_eq!(addresses(&named(&index, "web")), ["10.1.0.1:80"]);
    assert_eq!(addresses(&addressed(&index, "[fd00::96:1]:80")), ["[fd00::1]:80"]);
}

/// What changes about a pod that has an identity.
type Alter = fn(&mut Pod);

#[test]
fn an_identity_is_only_for_what_runs_with_tls_of_our_control_plane_for_its_own_workload() {
    let owned_by_nobody: Alter = |pod| pod.meta.owner_references = None;
    let claims_another: Alter = |pod| {
        let labels = pod.meta.labels.as_mut().unwrap();
        labels.insert("conduit.io/proxy-deployment".into(), "payments".into());
    };
    let cases: [(&str, Alter); 6] = [
        ("without TLS of ours", |pod| pod.has_tls = false),
        ("pending", |pod| pod.is_running = false),
        ("on the host network", |pod| pod.on_host_network = true),
        ("owned by nobody, claiming a Deployment", owned_by_nobody),
        ("claiming another Deployment", claims_another),
        ("of a ReplicaSet that was made anew", |pod| {
            pod.meta.owner_references.as_mut().unwrap()[0].uid = "another".into();
        }),
    ];
    for (what, alter) in cases {
        let mut index = web();
        let mut altered = pod("web-a", "10.1.0.1");
        alter(&mut altered);
        let dirty = index.pods(Event::Applied(key("web-a"), altered));
        assert!(dirty.services.contains(&key("web")), "{what}");
        let expected = ["10.1.0.1:8080 web-a -".to_owned(), format!("10.1.0.2:8080 web-b {WEB}")];
        assert_eq!(told(&named(&index, "web")), expected, "{what}");
    }
}

#[test]
fn a_pod_that_becomes_known_later_is_told_of_later() {
    let mut index = index();
    index.services(Event::Applied(key("web"), service("10.96.0.1", &[("http", 80)])));
    let endpoints = slice("web", &[("http", 8080)], [at("10.1.0.1", "web-a")]);
    index.slices(Event::Applied(key("web-x"), endpoints));
    assert_eq!(told(&named(&index, "web")), ["10.1.0.1:8080 - -"]);

    let dirty = index.pods(Event::Applied(key("web-a"), pod("web-a", "10.1.0.1")));
    assert_eq!(dirty.services, [key("web")].into());
    assert_eq!(dirty.addresses, ["10.1.0.1", "10.96.0.1"].map(|ip| ip.parse().unwrap()).into());
    assert_eq!(told(&named(&index, "web")), ["10.1.0.1:8080 web-a -"], "its owner is not known yet");

    let dirty = index.replica_sets(Event::Applied(key("web-1"), web_1()));
    assert_eq!(dirty.services, [key("web")].into());
    assert_eq!(told(&named(&index, "web")), [format!("10.1.0.1:8080 web-a {WEB}")]);
}

#[test]
fn an_address_that_another_pod_got_has_nothing_of_the_one_before() {
    let mut index = web();
    // web-a has ended, its endpoint not been seen to go; "other" runs at its address.
    let mut ended = pod("web-a", "10.1.0.1");
    (ended.is_running, ended.is_over) = (false, true);
    index.pods(Event::Applied(key("web-a"), ended));
    let mut other = pod("other", "10.1.0.1");
    other.has_tls = false;
    index.pods(Event::Applied(key("other"), other));
    assert_eq!(told(&named(&index, "web"))[0], "10.1.0.1:8080 - -");
    assert_eq!(told(&addressed(&index, "10.1.0.1:8080")), ["10.1.0.1:8080 other -"]);
}

#[test]
fn a_pod_made_anew_under_its_name_is_another() {
    let mut index = web();
    let mut anew = pod("web-a", "10.1.0.1");
    anew.uid = "another life".into();
    index.pods(Event::Applied(key("web-a"), anew));
    assert_eq!(told(&named(&index, "web"))[0], "10.1.0.1:8080 - -", "the endpoint is the former's");
}

#[test]
fn of_two_pods_that_claim_an_address_the_one_that_stays_has_it() {
    let mut index = web();
    let mut leaving = pod("web-a", "10.1.0.1");
    leaving.is_deleting = true;
    let mut older = pod("aaa", "10.1.0.1");
    older.created = None;
    index.pods(Event::Applied(key("aaa"), older));
    assert_eq!(told(&addressed(&index, "10.1.0.1:1"))[0], format!("10.1.0.1:1 web-a {WEB}"), "the younger");
    index.pods(Event::Applied(key("web-a"), leaving));
    assert_eq!(told(&addressed(&index, "10.1.0.1:1"))[0], format!("10.1.0.1:1 aaa {WEB}"), "who stays");
}
