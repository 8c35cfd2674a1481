//! Who is at the other end: nothing that a peer is or does keeps an application from it.

use conduit_mesh::Sidecar;

use super::{Scenario, Shows, s};
use crate::{
    fault::{Fault, Pod, Shown},
    history::Protocol,
    plan::{Client, Plan, Server},
    workload::Style,
};

const PEER: Pod = Pod::Server(0, 0);

/// For 12 s handshakes with the server come to nothing.
fn handshakes(seed: u64, after_bytes: u64, are_reset: bool) -> Plan {
    let fault = Fault::Handshakes { to: PEER, after_bytes, are_reset, times: u32::MAX };
    Plan::quiet(seed).fault(s(14), s(26), fault)
}

/// A server and another one, whose pod gets the address of the first one's, which refuses everybody for a moment: of several
/// clients some did not ask just then, and go on asking there.
fn taken_over(seed: u64, by: Sidecar) -> Plan {
    let mut plan = Plan::quiet(seed);
    plan.servers[0].replicas = 2;
    plan.servers.push(Server::new("bank", "other", &[Protocol::Http1]).sidecar(by));
    let client = |number| {
        let client = Client::new("shop", &format!("client-{number}"));
        client.asks(0, Protocol::Http1, Style::Fresh).asks(1, Protocol::Http1, Style::Fresh)
    };
    plan.clients = (0..4).map(client).collect();
    plan.fault(s(14), s(24), Fault::Takeover { from: 0, to: 1 })
}

/// The same, for clients whose connections prove nothing: of one, because its proxy has no TLS, and of the other, because it
/// brings its own.
fn taken_over_unproven(seed: u64) -> Plan {
    let mut plan = taken_over(seed, Sidecar::Tls);
    for server in &mut plan.servers {
        server.protocols.push(Protocol::AppTls);
    }
    plan.clients[0] = plan.clients[0].clone().asks(0, Protocol::AppTls, Style::Fresh);
    let plain = Client::new("shop", "plain").sidecar(Sidecar::Plaintext);
    plan.clients.push(plain.asks(0, Protocol::Http1, Style::Fresh));
    plan
}

/// For some seconds somebody else has the place of one of the server's pods.
fn impostor(seed: u64, shows: Shown) -> Plan {
    let mut plan = Plan::quiet(seed);
    plan.servers[0].replicas = 2;
    plan.fault(s(14), s(19), Fault::Impostor { of: 0, shows })
}

const REFUSED: [Shows; 2] = [Shows::Says("outbound handshake_failed"), Shows::SettlesInTls];

const FALLS_BACK: [Shows; 3] =
    [Shows::Plaintext(16, 26), Shows::Says("outbound handshake_failed"), Shows::SettlesInTls];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "peer-unmeshed",
        about: "the server has no proxy",
        plan: |seed| {
            let mut plan = Plan { until: s(50), ..Plan::quiet(seed) };
            plan.servers[0].sidecar = Sidecar::Absent;
            plan
        },
        shows: &[Shows::Plaintext(8, 50), Shows::Says("outbound no_identity")],
    },
    Scenario {
        name: "client-unmeshed",
        about: "the client has no proxy",
        plan: |seed| {
            let mut plan = Plan { until: s(50), ..Plan::quiet(seed) };
            plan.clients[0].sidecar = Sidecar::Absent;
            plan
        },
        shows: &[Shows::Plaintext(8, 50), Shows::Says("inbound no_proxy_tls")],
    },
    Scenario {
        name: "peer-without-tls",
        about: "the server has a proxy, injected without TLS",
        plan: |seed| {
            let mut plan = Plan { until: s(50), ..Plan::quiet(seed) };
            plan.servers[0].sidecar = Sidecar::Plaintext;
            plan
        },
        shows: &[
            Shows::Plaintext(8, 50),
            Shows::Says("outbound no_identity"),
            Shows::Says("inbound disabled"),
        ],
    },
    Scenario {
        name: "address-to-unmeshed",
        about: "a pod's address goes to one without a proxy while nobody can say so",
        plan: |seed| taken_over(seed, Sidecar::Absent),
        shows: &[Shows::Says("outbound handshake_failed")],
    },
    Scenario {
        name: "address-to-another",
        about: "a pod's address goes to one of another identity while nobody can say so",
        plan: |seed| taken_over(seed, Sidecar::Tls),
        shows: &[Shows::Says("outbound handshake_failed"), Shows::SettlesInTls],
    },
    Scenario {
        name: "address-to-another-unproven",
        about: "the same for clients that would not notice: one without TLS, and one that brings its own",
        plan: taken_over_unproven,
        shows: &[Shows::Says("outbound disabled"), Shows::Says("outbound app_tls")],
    },
    Scenario {
        name: "peer-silent",
        about: "the server's proxy never answers a ClientHello: plaintext after one deadline, TLS when it answers again",
        plan: |seed| handshakes(seed, 0, false),
        shows: &FALLS_BACK,
    },
    Scenario {
        name: "peer-resets",
        about: "handshakes are reset behind the ClientHello",
        plan: |seed| handshakes(seed, 1_000, true),
        shows: &FALLS_BACK,
    },
    Scenario {
        name: "peer-stalls",
        about: "handshakes stall in the middle of the server's answer",
        plan: |seed| handshakes(seed, 2_500, false),
        shows: &FALLS_BACK,
    },
    Scenario {
        name: "impostor-of-another-name",
        about: "somebody at a pod's address has a good certificate of another name: not a byte over TLS",
        plan: |seed| impostor(seed, Shown::AnotherName),
        shows: &REFUSED,
    },
    Scenario {
        name: "impostor-past",
        about: "somebody at a pod's address has the right certificate, but a past one: not a byte over TLS",
        plan: |seed| impostor(seed, Shown::Expired),
        shows: &REFUSED,
    },
    Scenario {
        name: "impostor-untrusted",
        about: "somebody at a pod's address has a certificate from a root that nobody trusts: not a byte over TLS",
        plan: |seed| impostor(seed, Shown::Untrusted),
        shows: &REFUSED,
    },
    Scenario {
        name: "stranger-untrusted",
        about: "somebody who is no pod calls over TLS, with a certificate from a root that nobody trusts: it is nobody to the \
                called",
        plan: |seed| Plan::quiet(seed).fault(s(14), s(15), Fault::Stranger { to: 0, is_past: false }),
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "stranger-past",
        about: "the same with a certificate of the mesh that is past",
        plan: |seed| Plan::quiet(seed).fault(s(14), s(15), Fault::Stranger { to: 0, is_past: true }),
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "connections-reset",
        about: "connections are reset after some bytes, whatever they carry: a fault of the network, not of TLS",
        plan: |seed| {
            Plan::quiet(seed).fault(
                s(14),
                s(20),
                Fault::Reset { to: PEER, after_bytes: 600, are_answers: false, times: 6 },
            )
        },
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "answers-lost",
        about: "connections are reset while their servers answer: what was asked has arrived, and is not asked again",
        plan: |seed| {
            let protocols = [Protocol::Http1, Protocol::Http2, Protocol::Grpc];
            let mut plan = Plan::quiet(seed);
            plan.servers = vec![Server::new("shop", "server", &protocols)];
            plan.clients =
                vec![protocols.into_iter().fold(Client::new("shop", "client"), |client, protocol| {
                    client.asks(0, protocol, Style::Fresh).asks(0, protocol, Style::Kept)
                })];
            // A handshake has 2,300 bytes of a server.
            plan.fault(
                s(14),
                s(20),
                Fault::Reset { to: PEER, after_bytes: 2_500, are_answers: true, times: 60 },
            )
        },
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "black-hole",
        about: "connections are accepted and nothing is ever heard of them: as bad without Conduit, and no worse with it",
        plan: |seed| {
            let mut plan = Plan::quiet(seed);
            plan.servers[0].replicas = 2;
            plan.fault(s(14), s(18), Fault::BlackHole { to: PEER, times: 4 })
        },
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "partition",
        about: "nothing passes between two pods for a while: what is under way waits, and is not sent twice",
        plan: |seed| {
            let fault = Fault::Partition { a: Pod::Client(0), b: PEER, is_one_way: true };
            Plan::quiet(seed).fault(s(14), s(16), fault)
        },
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "partition-of-a-first-connection",
        about: "a proxy has dialled for everybody while nothing passes: nobody waits for long once something does",
        plan: |seed| {
            let mut plan = Plan::quiet(seed);
            plan.servers = vec![Server::new("shop", "server", &[Protocol::Http2])];
            plan.clients = vec![Client::new("shop", "client").asks(0, Protocol::Http2, Style::Fresh)];
            let cut = Fault::Partition { a: Pod::Client(0), b: PEER, is_one_way: false };
            let restart = Fault::ProxyRestart { pod: Pod::Client(0), is_graceful: false };
            // The kernel sends a SYN of the beginning again at about 15, 17 and 21 s.
            plan.fault(s(14), s(18), cut).fault(s(14) + s(1) / 5, s(15), restart)
        },
        shows: &[Shows::SettlesInTls],
    },
];
