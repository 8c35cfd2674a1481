use std::time::Duration;

use conduit_identity::{Identity, Workload, WorkloadKind};

use super::*;
use crate::{
    inventory::Service,
    proxies::{Says, Since},
    samples::{Counted, Labels, Source},
    testing::pod,
};

const NOW: u64 = 1_800_000_000;

/// web calls emoji, in a mesh where all is well and nothing has happened yet.
struct World {
    inventory: Inventory,
    proxies: BTreeMap<PodName, Proxy>,
    latest: Samples,
    minute: Samples,
    control_plane: ControlPlane,
}

impl World {
    fn new() -> Self {
        let mut world = Self {
            inventory: Inventory { is_known: true, ..Inventory::default() },
            proxies: BTreeMap::new(),
            latest: Samples::default(),
            minute: Samples::default(),
            control_plane: ControlPlane::default(),
        };
        for component in [COMPONENT_CA, COMPONENT_DESTINATION] {
            let mut pod = pod("conduit", component, 1);
            pod.labels.insert(LABEL_COMPONENT.to_owned(), component.to_owned());
            world.inventory.pods.insert(pod.name.clone(), Arc::new(pod));
        }
        for name in ["web", "emoji"] {
            world.meshed(name, 1);
            let selector = BTreeMap::from([("app".to_owned(), name.to_owned())]);
            let service = Service { selector, ..Service::default() };
            world.inventory.services.insert(("shop".to_owned(), format!("{name}-svc")), service);
        }
        world
    }

    fn workload(name: &str) -> Workload {
        Workload { namespace: "shop".to_owned(), kind: WorkloadKind::Deployment, name: name.to_owned() }
    }

    /// A pod that has everything.
    fn meshed(&mut self, name: &str, number: u32) {
        let workload = Self::workload(name);
        let identity = Identity::of(&workload, &self.control_plane);
        let says = Says {
            tls: Some("true".to_owned()),
            fingerprint: Some("0123456789abcdef0123".to_owned()),
            identity: Some(identity.to_string()),
            not_before: Some(UnixTime::from_secs(NOW - 60)),
            not_after: Some(UnixTime::from_secs(NOW + 7_260)),
            failing: None,
            destination_up: Some(true),
            time: None,
        };
        let pod = Pod {
            identity: Some(identity),
            mounts: Some(workload.secret_name()),
            created: Some(UnixTime::from_secs(NOW - 3_600)),
            ..pod("shop", name, number)
        };
        self.says(&pod.name.name, says);
        self.inventory.pods.insert(pod.name.clone(), Arc::new(pod));
    }

    fn says(&mut self, pod: &str, says: Says) {
        let since = Some(Since { at: UnixTime::from_secs(NOW - 30), is_exact: true });
        let proxy = Proxy { says: Some(says), since, ..Proxy::default() };
        self.proxies.insert(PodName::new("shop", pod), proxy);
    }

    fn pod(&mut self, name: &str, change: impl FnOnce(&mut Pod)) {
        let pod = self.inventory.pods.values_mut().find(|pod| pod.name.name == name).unwrap();
        change(Arc::make_mut(pod));
    }

    fn change(&mut self, pod: &str, change: impl FnOnce(&mut Says)) {
        change(self.proxies.get_mut(&PodName::new("shop", pod)).unwrap().says.as_mut().unwrap());
    }

    /// The proxy has nothing to do TLS with.
    fn unusable(&mut self, pod: &str, reason: &str, failing: &str) {
        let says = Says {
            tls: Some(reason.to_owned()),
            failing: Some(failing.to_owned()),
            destination_up: Some(true),
            ..Says::default()
        };
        self.says(pod, says);
    }

    fn counted(&self, pod: &str, labels: &str, count: f64) -> Counted {
        let pod = &self.inventory.pods[&PodName::new("shop", pod)];
        let covered = Duration::from_secs(60);
        let source = Arc::new(Source { pod: pod.name.clone(), owners: pod.owners.clone(), covered });
        Counted {
            ago: Duration::ZERO,
            source,
            labels: Labels::collect(labels.split(' ').filter_map(|pair| pair.split_once('='))),
            count,
        }
    }

    /// web's proxy counted responses of emoji.
    fn saw(&mut self, tls: &str, count: f64) {
        let to = "direction=outbound authority=emoji-svc:80 dst_namespace=shop dst_service=emoji-svc \
                  dst_pod=emoji-1 dst_deployment=emoji tls=";
        let counted = self.counted("web-1", &format!("{to}{tls}"), count);
        self.latest.responses.push(counted.clone());
        self.minute.responses.push(counted);
    }

    fn ask(&self, to: Option<(Kind, &str)>) -> Why {
        let question = Question {
            from: Object::new(Kind::Deployment, "shop", "web"),
            to: to.map(|(kind, name)| Object::new(kind, "shop", name)),
        };
        let facts = Facts {
            inventory: &self.inventory,
            proxies: &self.proxies,
            samples: [&self.latest, &self.minute],
            control_plane: &self.control_plane,
            now: UnixTime::from_secs(NOW),
        };
        answer(&question, &facts)
    }

    fn why(&self) -> Why {
        self.ask(Some((Kind::Deployment, "emoji")))
    }
}

fn shown(why: &Why) -> Vec<String> {
    let line = |link: &Link| format!("{:?} {}: {}", link.state, link.name(), link.detail);
    why.links.iter().map(line).collect()
}

#[test]
fn a_whole_chain_with_traffic_is_encrypted() {
    let mut world = World::new();
    world.saw("true", 12.0);
    let why = world.why();
    assert_eq!(why.verdict, Verdict::Encrypted);
    assert_eq!(
        why.summary,
        "deploy/web → deploy/emoji is encrypted: 12 of 12 responses of the last 10 s over mutual TLS"
    );
    insta::assert_snapshot!(shown(&why).join("\n"), @r"
    Ok installed: ca, destination and observe run in conduit
    Ok injected (sender): deploy/web: web-1 has a proxy with TLS
    Ok issued (sender): deploy/web: web-deployment-tls-conduit-io holds its certificate, valid until 2027-01-15T10:01:00Z
    Ok mounted (sender): deploy/web: web-1 mounts web-deployment-tls-conduit-io
    Ok loaded (sender): deploy/web: the proxy uses the certificate 0123456789abcdef, for another 2 h 1 min
    Ok injected (receiver): deploy/emoji: emoji-1 has a proxy with TLS
    Ok issued (receiver): deploy/emoji: emoji-deployment-tls-conduit-io holds its certificate, valid until 2027-01-15T10:01:00Z
    Ok mounted (receiver): deploy/emoji: emoji-1 mounts emoji-deployment-tls-conduit-io
    Ok loaded (receiver): deploy/emoji: the proxy uses the certificate 0123456789abcdef, for another 2 h 1 min
    Ok advertised: the proxies are told whom to expect
    Ok negotiated: 12 of 12 responses of the last 10 s over mutual TLS
    ");
}

#[test]
fn a_whole_chain_without_traffic_proves_nothing() {
    let why = World::new().why();
    assert_eq!((why.verdict, why.first_broken()), (Verdict::Unknown, None));
    assert_eq!(why.summary, "deploy/web → deploy/emoji: cannot tell: no traffic in the last 60 s");
}

type Break = fn(&mut World);

/// How each link is broken, and what is told of it: its name, the label, words of the detail, of the repair, and whether it
/// is known since when.
const BREAKS: [(&str, Break, &str, &str, &str, bool); 15] = [
    (
        "injected (sender)",
        |w| w.pod("web-1", |p| (p.meshed, p.tls, p.identity) = (false, false, None)),
        "no_proxy_tls",
        "web-1 has no proxy",
        "get deploy/web -o yaml | conduit inject -c conduit --tls=optional",
        true,
    ),
    (
        "injected (receiver)",
        |w| w.pod("emoji-1", |p| (p.meshed, p.tls, p.identity) = (false, false, None)),
        "no_identity",
        "emoji-1 has no proxy",
        "get deploy/emoji",
        true,
    ),
    (
        "injected (receiver)",
        |w| w.pod("emoji-1", |p| (p.tls, p.identity) = (false, None)),
        "disabled",
        "without TLS",
        "conduit inject",
        true,
    ),
    (
        "installed",
        |w| {
            w.pod("ca-1", |p| p.ready = false);
            w.unusable("web-1", "no_config", "io_error /id/tls.crt ENOENT");
        },
        "",
        "no ready pod of ca",
        "kubectl -n conduit get pods",
        false,
    ),
    (
        "issued (sender)",
        |w| w.unusable("web-1", "bad_credentials", "invalid_end_entity_cert"),
        "bad_credentials",
        "invalid_end_entity_cert",
        "delete secret web-deployment-tls-conduit-io",
        true,
    ),
    (
        "issued (receiver)",
        |w| w.unusable("emoji-1", "bad_credentials", "invalid_private_key"),
        "bad_credentials",
        "invalid_private_key",
        "delete secret emoji-deployment-tls-conduit-io",
        true,
    ),
    (
        "issued (receiver)",
        |w| {
            w.change("emoji-1", |s| {
                (s.tls, s.not_after) = (Some("expired".to_owned()), Some(UnixTime::from_secs(NOW - 10)));
            })
        },
        "expired",
        "expired at 2027-01-15T07:59:50Z",
        "logs deploy/ca",
        true,
    ),
    (
        "issued (sender)",
        |w| {
            w.change("web-1", |s| {
                (s.tls, s.not_before) = (Some("clock_skew".to_owned()), Some(UnixTime::from_secs(NOW + 10)));
            })
        },
        "clock_skew",
        "not valid before 2027-01-15T08:00:10Z",
        "-o wide",
        true,
    ),
    (
        "issued (receiver)",
        |w| w.change("emoji-1", |s| s.identity = Some("a.b".to_owned())),
        "handshake_failed",
        "the certificate is for a.b",
        "conduit inject",
        true,
    ),
    (
        "mounted (receiver)",
        |w| {
            w.unusable("emoji-1", "no_config", "io_error /id/tls.crt ENOENT");
            w.pod("emoji-1", |p| p.mounts = None);
        },
        "no_config",
        "has no Secret",
        "conduit inject",
        true,
    ),
    (
        "mounted (sender)",
        |w| {
            w.unusable("web-1", "no_config", "io_error /id/tls.crt ENOENT");
            w.pod("web-1", |p| p.mounts = Some("other".to_owned()));
        },
        "no_config",
        "mounts the Secret other",
        "conduit inject",
        true,
    ),
    (
        "loaded (receiver)",
        |w| w.unusable("emoji-1", "no_config", "io_error /id/tls.crt ENOENT"),
        "no_config",
        "finds no certificate (io_error /id/tls.crt ENOENT)",
        "get secret emoji-deployment",
        true,
    ),
    (
        "loaded (sender)",
        |w| w.unusable("web-1", "disabled", ""),
        "disabled",
        "TLS is off",
        "conduit inject",
        true,
    ),
    ("advertised", |w| w.saw("no_identity", 3.0), "no_identity", "names no identity", "get pods -l", false),
    (
        "negotiated",
        |w| w.saw("handshake_failed tls_reason=timeout", 3.0),
        "handshake_failed (timeout)",
        "3 handshake_failed (timeout)",
        "conduit check",
        false,
    ),
];

#[test]
fn each_broken_link_is_named_with_its_repair() {
    for (number, (name, breaks, reason, detail, fix, has_since)) in BREAKS.into_iter().enumerate() {
        let mut world = World::new();
        breaks(&mut world);
        let why = world.why();
        let link = why.first_broken().unwrap_or_else(|| panic!("{number} {name}: {why:#?}"));
        assert_eq!(
            (link.name().as_str(), link.reason.as_deref().unwrap_or_default()),
            (name, reason),
            "{number}"
        );
        assert!(link.detail.contains(detail), "{number} {name}: {}", link.detail);
        assert!(
            link.fix.as_deref().is_some_and(|told| told.contains(fix)),
            "{number} {name}: {:?}",
            link.fix
        );
        assert_eq!(link.since.is_some(), has_since, "{number} {name}");
        assert_eq!(why.verdict, Verdict::Plaintext, "{number} {name}: {}", why.summary);
    }
}

#[test]
fn a_destination_service_out_of_reach_may_still_be_in_use() {
    let mut world = World::new();
    world.change("web-1", |says| says.destination_up = Some(false));
    let why = world.why();
    let link = why.first_broken().unwrap();
    assert_eq!(
        (link.step, link.reason.as_deref(), why.verdict),
        (Step::Advertised, Some("no_discovery"), Verdict::Unknown)
    );
    world.saw("true", 1.0);
    assert_eq!((world.why().verdict, world.why().first_broken()), (Verdict::Encrypted, None));
}

#[test]
fn without_a_ca_it_is_the_certificate_that_is_missing() {
    let mut world = World::new();
    world.pod("ca-1", |pod| pod.ready = false);
    world.unusable("web-1", "no_config", "io_error /id/tls.crt ENOENT");
    let why = world.why();
    assert!(why.summary.contains("issued (sender): deploy/web: no ca runs"), "{}", why.summary);
    // What was issued before goes on.
    let mut world = World::new();
    world.pod("ca-1", |pod| pod.ready = false);
    world.saw("true", 1.0);
    let why = world.why();
    assert_eq!(
        (why.verdict, why.first_broken().map(|link| link.step)),
        (Verdict::Encrypted, Some(Step::Installed))
    );
}

#[test]
fn what_was_seen_counts_more_than_what_should_be() {
    let mut world = World::new();
    world.saw("true", 9.0);
    world.saw("no_config", 1.0);
    let why = world.why();
    assert_eq!(why.verdict, Verdict::Plaintext);
    assert!(why.summary.contains("encrypted in part: 9 of 10 responses"), "{}", why.summary);
}

#[test]
fn the_latest_counts_more_than_what_is_older() {
    let mut world = World::new();
    world.saw("no_config", 50.0);
    world.latest.responses.clear();
    assert_eq!((world.why().verdict, world.why().seen.window_ms), (Verdict::Plaintext, 60_000));
    world.saw("true", 1.0);
    assert_eq!((world.why().verdict, world.why().seen.window_ms), (Verdict::Encrypted, 10_000));
}

#[test]
fn a_sender_of_whose_pods_one_is_not_injected_is_not_encrypted() {
    let mut world = World::new();
    world.saw("true", 5.0);
    world.meshed("web", 2);
    world.pod("web-2", |pod| (pod.meshed, pod.tls, pod.identity) = (false, false, None));
    let why = world.why();
    assert_eq!(why.verdict, Verdict::Plaintext);
    assert!(why.summary.contains("1 of 2 pods of deploy/web: web-2 has no proxy"), "{}", why.summary);
}

#[test]
fn tls_of_the_application_is_encrypted_too() {
    let mut world = World::new();
    let labels =
        "direction=outbound peer=dst dst_namespace=shop dst_pod=emoji-1 dst_deployment=emoji tls=app_tls";
    world.minute.connections.push(world.counted("web-1", labels, 2.0));
    let why = world.why();
    assert_eq!((why.verdict, why.seen.connections), (Verdict::Encrypted, true));
    assert!(why.summary.contains("2 over the application's own TLS"), "{}", why.summary);
}

#[test]
fn requests_to_nobody_known_are_found_by_the_name_that_was_called() {
    let mut world = World::new();
    let labels = "direction=outbound authority=emoji-svc:80 tls=no_discovery";
    world.latest.responses.push(world.counted("web-1", labels, 4.0));
    for to in [(Kind::Deployment, "emoji"), (Kind::Pod, "emoji-1"), (Kind::Service, "emoji-svc")] {
        assert_eq!(world.ask(Some(to)).seen.plaintext, [("no_discovery".to_owned(), 4.0)].into(), "{to:?}");
    }
    assert_eq!(world.ask(Some((Kind::Deployment, "web"))).seen.total(), 0.0);
}

#[test]
fn alone_a_workload_is_asked_about_both_directions() {
    let mut world = World::new();
    world.saw("true", 4.0);
    let own = "direction=inbound tls=";
    for (tls, count) in [("no_proxy_tls", 2.0), ("kubelet_probe", 30.0), ("loopback", 30.0)] {
        let counted = world.counted("web-1", &format!("{own}{tls}"), count);
        world.latest.responses.push(counted);
    }
    let why = world.ask(None);
    assert_eq!((why.seen.encrypted, why.seen.total(), why.to.clone()), (4.0, 6.0, None));
    assert_eq!(why.first_broken().and_then(|link| link.reason.as_deref()), Some("no_proxy_tls"));
    assert!(why.links.iter().all(|link| link.end != Some(End::To)));
}

#[test]
fn what_cannot_be_asked_is_unknown_rather_than_broken() {
    let mut world = World::new();
    let failure = Some("10.0.0.7:4191 cannot be reached".to_owned());
    world.proxies.insert(PodName::new("shop", "emoji-1"), Proxy { failure, ..Proxy::default() });
    let why = world.why();
    assert_eq!((why.verdict, why.first_broken()), (Verdict::Unknown, None));
    assert!(
        shown(&why)
            .iter()
            .any(|line| line.contains("Unknown loaded (receiver)") && line.contains("cannot be reached"))
    );

    world.inventory.pods.retain(|name, _| name.name != "emoji-1");
    let why = world.why();
    assert_eq!(
        (why.verdict, why.summary.as_str()),
        (Verdict::Unknown, "deploy/web → deploy/emoji: cannot tell: deploy/emoji has no running pod")
    );
}

#[test]
fn the_json_is_what_the_api_documents() {
    let document: serde_json::Value = serde_json::from_str(crate::api::OPENAPI).unwrap();
    let names = |value: &serde_json::Value| {
        value.as_object().unwrap().keys().cloned().collect::<std::collections::BTreeSet<_>>()
    };
    let schemas = &document["components"]["schemas"];
    let why = serde_json::to_value(World::new().why()).unwrap();
    assert_eq!(names(&schemas["Why"]["properties"]), names(&why));
    assert_eq!(names(&schemas["Why"]["properties"]["seen"]["properties"]), names(&why["seen"]));
    assert_eq!(names(&schemas["Link"]["properties"]), names(&why["links"][0]));
    let steps: Vec<Step> =
        serde_json::from_value(schemas["Link"]["properties"]["step"]["enum"].clone()).unwrap();
    assert_eq!(
        steps.iter().map(|step| step.as_str()).collect::<Vec<_>>(),
        ["installed", "injected", "issued", "mounted", "loaded", "advertised", "negotiated"]
    );
}
