//! Who is at the other end: nothing that a peer is or does keeps an application from it.

use conduit_mesh::Sidecar;

use super::{Scenario, Shows, s};
use crate::{
    fault::{Fault, Pod},
    history::Protocol,
    plan::{Plan, Server},
    workload::Style,
};

const PEER: Pod = Pod::Server(0, 0);

/// For 12 s handshakes with the server come to nothing.
fn handshakes(seed: u64, after_bytes: u64, are_reset: bool) -> Plan {
    let fault = Fault::Handshakes { to: PEER, after_bytes, are_reset, times: u32::MAX };
    Plan::quiet(seed).fault(s(14), s(26), fault)
}

/// A server and another one, whose pod gets the address of the first one's.
fn taken_over(seed: u64, by: Sidecar) -> Plan {
    let mut plan = Plan::quiet(seed);
    plan.servers[0].replicas = 2;
    plan.servers.push(Server::new("bank", "other", &[Protocol::Http1]).sidecar(by));
    plan.clients[0] = plan.clients[0].clone().asks(1, Protocol::Http1, Style::Fresh);
    plan.fault(s(14), s(24), Fault::Takeover { from: 0, to: 1 })
}

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
        shows: &[],
    },
    Scenario {
        name: "address-to-another",
        about: "a pod's address goes to one of another identity while nobody can say so",
        plan: |seed| taken_over(seed, Sidecar::Tls),
        shows: &[Shows::SettlesInTls],
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
        name: "connections-reset",
        about: "connections are reset after some bytes, whatever they carry: a fault of the network, not of TLS",
        plan: |seed| {
            Plan::quiet(seed).fault(s(14), s(20), Fault::Reset { to: PEER, after_bytes: 600, times: 6 })
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
];
