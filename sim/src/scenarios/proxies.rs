//! Sidecars that come and go: what is under way is finished, and nothing is asked twice.

use super::{Scenario, Shows, s};
use crate::{
    fault::{Fault, Pod},
    history::Protocol,
    plan::{Client, Plan, Server},
    workload::Style,
};

/// Two pods of a server under load of every kind.
fn busy(seed: u64) -> Plan {
    let protocols = [Protocol::Http1, Protocol::Http2, Protocol::Opaque, Protocol::ServerFirst];
    let client = protocols.into_iter().fold(Client::new("shop", "client"), |client, protocol| {
        client.asks(0, protocol, Style::Fresh).asks(0, protocol, Style::Kept)
    });
    let mut plan = Plan { until: s(70), ..Plan::quiet(seed) };
    plan.servers = vec![Server::new("shop", "server", &protocols).replicas(2)];
    plan.clients = vec![client];
    for asks in &mut plan.clients[0].asks {
        asks.lengths = 0..=20_000;
        asks.period = s(1) * 2 / 5;
    }
    plan
}

fn restarted(seed: u64, pod: Pod, is_graceful: bool) -> Plan {
    busy(seed).fault(s(14), s(15), Fault::ProxyRestart { pod, is_graceful })
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "server-proxy-drains",
        about: "a server's proxy shuts down under load, and another one starts",
        plan: |seed| restarted(seed, Pod::Server(0, 0), true),
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "client-proxy-drains",
        about: "a client's proxy shuts down under load, and another one starts",
        plan: |seed| restarted(seed, Pod::Client(0), true),
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "server-proxy-killed",
        about: "a server's proxy is killed under load, and another one starts",
        plan: |seed| restarted(seed, Pod::Server(0, 0), false),
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "client-proxy-killed",
        about: "a client's proxy is killed under load, and another one starts",
        plan: |seed| restarted(seed, Pod::Client(0), false),
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "host-dies",
        about: "a server's host dies under load, and boots again",
        plan: |seed| busy(seed).fault(s(14), s(20), Fault::Crash(Pod::Server(0, 0))),
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "rollout-under-load",
        about: "every pod of a server under load is replaced",
        plan: |seed| busy(seed).fault(s(14), s(15), Fault::Rollout(0)),
        shows: &[Shows::SettlesInTls],
    },
];
