//! The destination service and the Kubernetes API: what is not known is not needed.

use conduit_mesh::Sidecar;

use super::{Scenario, Shows, s};
use crate::{
    fault::{Fault, Pod, Workload},
    history::Protocol,
    plan::{Client, Plan, Server},
    workload::Style,
};

/// A server of three pods, one of another that is not meshed, and a client of both.
fn several(seed: u64) -> Plan {
    let mut plan = Plan::quiet(seed);
    plan.servers[0].replicas = 3;
    plan.servers.push(Server::new("bank", "plain", &[Protocol::Http2]).sidecar(Sidecar::Absent));
    let client = Client::new("shop", "client").asks(0, Protocol::Http1, Style::Kept);
    plan.clients[0] = client.asks(1, Protocol::Http2, Style::Fresh);
    plan
}

const CUT: Fault = Fault::WatchesCut { is_compacted: false };

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "destination-down",
        about: "the destination service dies: what proxies know stays in use",
        plan: |seed| Plan::quiet(seed).fault(s(14), s(26), Fault::DestinationDown),
        shows: &[Shows::Tls(14, 60)],
    },
    Scenario {
        name: "destination-unknown",
        about: "a client's proxy starts while there is no destination service: it dials what the application dialled",
        plan: |seed| {
            let plan = Plan::quiet(seed).fault(s(14), s(26), Fault::DestinationDown);
            plan.fault(s(16), s(17), Fault::ProxyRestart { pod: Pod::Client(0), is_graceful: false })
        },
        shows: &[Shows::Plaintext(18, 26), Shows::Says("outbound no_discovery"), Shows::SettlesInTls],
    },
    Scenario {
        name: "destination-slow",
        about: "the destination service answers late: at most 200 ms are waited for it",
        plan: |seed| {
            let slow = Fault::DestinationSlow(s(2));
            let plan = Plan::quiet(seed).fault(s(13), s(26), slow);
            plan.fault(s(16), s(17), Fault::ProxyRestart { pod: Pod::Client(0), is_graceful: false })
        },
        shows: &[Shows::Says("outbound no_discovery"), Shows::SettlesInTls],
    },
    Scenario {
        name: "destination-flapping",
        about: "the destination service dies again and again",
        plan: |seed| {
            let flaps = [14, 16, 18, 20, 22].into_iter();
            flaps.fold(several(seed), |plan, at| plan.fault(s(at), s(at + 1), Fault::DestinationDown))
        },
        shows: &[Shows::Says("outbound true")],
    },
    Scenario {
        name: "destination-with-another-view",
        about: "all pods of a server are replaced while there is no destination service; the next one says so",
        plan: |seed| {
            let plan = Plan::quiet(seed).fault(s(13), s(30), Fault::DestinationDown);
            plan.fault(s(15), s(16), Fault::Rollout(0))
        },
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "server-replaced-unseen",
        about: "while there is no destination service a server's only pod is replaced, and nobody gets its address: one request \
                waits for it a second, the next ones follow Kubernetes at once",
        plan: |seed| {
            let mut plan = Plan::quiet(seed).fault(s(13), s(30), Fault::DestinationDown);
            plan.servers[0] = Server::new("shop", "server", &[Protocol::Http1, Protocol::Http2]);
            let client = Client::new("shop", "client").asks(0, Protocol::Http1, Style::Fresh);
            plan.clients[0] = client.asks(0, Protocol::Http2, Style::Kept);
            plan.fault(s(15), s(16), Fault::Rollout(0))
        },
        shows: &[Shows::Plaintext(22, 29), Shows::Says("outbound no_discovery"), Shows::SettlesInTls],
    },
    Scenario {
        name: "chosen-pod-replaced-unseen",
        about: "while there is no destination service a pod is replaced whose clients chose it themselves and keep their \
                connections to it: nothing fails",
        plan: |seed| {
            let protocols = [Protocol::Http1, Protocol::Http2, Protocol::Grpc];
            let mut plan = Plan::quiet(seed).fault(s(13), s(30), Fault::DestinationDown);
            plan.servers[0] =
                Server { is_headless: true, ..Server::new("shop", "server", &protocols).replicas(2) };
            plan.clients[0] =
                protocols.into_iter().fold(Client::new("shop", "client"), |client, protocol| {
                    client.asks(0, protocol, Style::Kept)
                });
            plan.fault(s(15), s(16), Fault::Rollout(0))
        },
        shows: &[Shows::Says("outbound no_discovery"), Shows::Says("outbound true")],
    },
    Scenario {
        name: "server-replaced-behind-its-back",
        about: "the destination service is cut off from the API server, silently, and a server's only pod is replaced: it says \
                that it does not follow the cluster, and requests follow Kubernetes",
        plan: |seed| {
            let mut plan = Plan::quiet(seed).fault(s(13), s(36), Fault::DestinationCutOff);
            plan.servers[0] = Server::new("shop", "server", &[Protocol::Http1, Protocol::Http2]);
            let client = Client::new("shop", "client").asks(0, Protocol::Http1, Style::Fresh);
            plan.clients[0] = client.asks(0, Protocol::Http2, Style::Kept);
            plan.fault(s(22), s(23), Fault::Rollout(0))
        },
        shows: &[
            Shows::Tls(13, 21),
            Shows::Plaintext(29, 35),
            Shows::Says("outbound no_discovery"),
            Shows::SettlesInTls,
        ],
    },
    Scenario {
        name: "address-given-away-behind-its-back",
        about: "the destination service is cut off from the API server, and the address of a pod without a proxy goes to another \
                server's: no request goes there",
        plan: |seed| {
            let plan = several(seed).fault(s(13), s(44), Fault::DestinationCutOff);
            plan.fault(s(22), s(23), Fault::Rollout(1)).fault(s(24), s(25), Fault::Rollout(0))
        },
        shows: &[Shows::Says("outbound no_discovery"), Shows::Says("outbound true")],
    },
    Scenario {
        name: "destination-wrong",
        about: "the destination service tells names of another trust domain: they are nobody's, and traffic is plaintext",
        plan: |seed| Plan::quiet(seed).fault(s(14), s(26), Fault::DestinationWrong),
        shows: &[Shows::Plaintext(16, 26), Shows::Says("outbound no_identity"), Shows::SettlesInTls],
    },
    Scenario {
        name: "destination-forgets",
        about: "the destination service restarts with a view in which pods are missing",
        plan: |seed| several(seed).fault(s(14), s(22), Fault::DestinationForgets { events: 3 }),
        shows: &[Shows::Says("outbound true")],
    },
    Scenario {
        name: "cut-off-from-control",
        about: "a client's pod reaches nothing of the control plane: what it knows and holds stays in use",
        plan: |seed| several(seed).fault(s(14), s(26), Fault::CutOff(Pod::Client(0))),
        shows: &[Shows::Says("outbound true")],
    },
    Scenario {
        name: "api-gone",
        about: "watches are told that they have missed something, lists are old, and pods are replaced meanwhile",
        plan: |seed| {
            let plan = several(seed).fault(s(13), s(24), Fault::StaleLists { events: 12 });
            plan.fault(s(15), s(24), Fault::ApiFails { code: 410, times: 20 }).fault(
                s(17),
                s(18),
                Fault::Rollout(0),
            )
        },
        shows: &[Shows::Says("outbound true")],
    },
    Scenario {
        name: "watches-cut",
        about: "every watch breaks, again and again, and a server's only pod is replaced after the last time: it is heard of at \
                once",
        plan: |seed| {
            let cuts = (0..14).map(|number| s(13 + 3 * number));
            let plan = cuts.fold(Plan::quiet(seed), |plan, at| plan.fault(at, at, CUT));
            plan.fault(s(53), s(54), Fault::Rollout(0))
        },
        shows: &[Shows::Tls(13, 80)],
    },
    Scenario {
        name: "watches-cut-and-history-forgotten",
        about: "the API server forgets what was, and every watch breaks: who follows lists again, and misses nothing",
        plan: |seed| {
            let forgets = Fault::WatchesCut { is_compacted: true };
            let plan = Plan::quiet(seed).fault(s(14), s(14), forgets.clone());
            plan.fault(s(18), s(18), forgets).fault(s(20), s(21), Fault::Rollout(0))
        },
        shows: &[Shows::Tls(13, 50)],
    },
    Scenario {
        name: "api-down",
        about: "the API refuses every connection, and then answers nothing",
        plan: |seed| {
            let plan = several(seed).fault(s(13), s(18), Fault::ApiDown { is_silent: false });
            plan.fault(s(20), s(26), Fault::ApiDown { is_silent: true })
        },
        shows: &[Shows::Says("outbound true")],
    },
    Scenario {
        name: "api-flapping",
        about: "the API is away for a second, again and again; after the last time a Secret is deleted, and a proxy starts soon \
                after: there is another one by then",
        plan: |seed| {
            let outages = (0..11).map(|number| s(13 + 4 * number));
            let plan = outages.fold(Plan::quiet(seed), |plan, at| {
                plan.fault(at, at + s(1), Fault::ApiDown { is_silent: false })
            });
            let client = Fault::SecretDeleted(Workload::Client(0));
            let restart = Fault::ProxyRestart { pod: Pod::Client(0), is_graceful: true };
            plan.fault(s(55), s(55), client).fault(s(57), s(57), restart)
        },
        shows: &[Shows::Tls(13, 80)],
    },
    Scenario {
        name: "rollout-with-addresses-used-again",
        about: "every pod of two servers is replaced, and gets an address that another one had just before",
        plan: |seed| {
            let plan = several(seed).fault(s(14), s(15), Fault::Rollout(0));
            plan.fault(s(16), s(17), Fault::Rollout(1)).fault(s(18), s(19), Fault::Rollout(0))
        },
        shows: &[Shows::Says("outbound true"), Shows::Says("outbound no_identity")],
    },
];
