//! What applications speak: all of it works, all of it is encrypted, and none of it needs configuration.

use super::{Scenario, Shows, s};
use crate::{
    fault::{Fault, Pod},
    history::Protocol,
    plan::{Client, Plan, Server},
    workload::Style,
};

/// A client that speaks one protocol to a server, on new connections and on a kept one.
fn speaking(seed: u64, protocol: Protocol) -> Plan {
    let client = Client::new("shop", "client").asks(0, protocol, Style::Fresh);
    Plan {
        servers: vec![Server::new("shop", "server", &[protocol])],
        clients: vec![client.asks(0, protocol, Style::Kept)],
        until: s(50),
        ..Plan::quiet(seed)
    }
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "every-protocol",
        about: "seven protocols, on new connections and on kept ones",
        plan: |seed| {
            let protocols = Protocol::ALL.into_iter();
            let client = protocols.fold(Client::new("shop", "client"), |client, protocol| {
                client.asks(0, protocol, Style::Fresh).asks(0, protocol, Style::Kept)
            });
            Plan {
                servers: vec![Server::new("shop", "server", &Protocol::ALL)],
                clients: vec![client],
                until: s(45),
                ..Plan::quiet(seed)
            }
        },
        shows: &[Shows::Tls(28, 45)],
    },
    Scenario {
        name: "server-first-late-hello",
        about: "a healthy client's ClientHello is late: the server's greeting must not go out in plaintext meanwhile",
        plan: |seed| {
            let fault = Fault::LateHello { to: Pod::Server(0, 0), by: s(1) / 2, times: 10 };
            speaking(seed, Protocol::ServerFirst).fault(s(30), s(34), fault)
        },
        shows: &[Shows::Tls(28, 60)],
    },
    Scenario {
        name: "server-first-slow-greeting",
        about: "a server takes a while to greet, and its client is silent until it does",
        plan: |seed| {
            let mut plan = speaking(seed, Protocol::ServerFirst);
            plan.servers[0].greeting_delay = s(1);
            plan.clients[0].asks.iter_mut().for_each(|asks| asks.period = s(2));
            plan
        },
        shows: &[Shows::Tls(28, 50)],
    },
    Scenario {
        name: "app-tls",
        about: "the application's own TLS travels inside of the mesh's, untouched, and as it is where there is none",
        plan: |seed| {
            let mut plan = speaking(seed, Protocol::AppTls);
            let unmeshed = Client::new("shop", "outside").sidecar(conduit_mesh::Sidecar::Absent);
            plan.clients.push(unmeshed.asks(0, Protocol::AppTls, Style::Fresh));
            plan
        },
        shows: &[Shows::Says("outbound true"), Shows::Says("inbound app_tls")],
    },
    Scenario {
        name: "websocket-over-a-rollout",
        about: "WebSockets live through a rollout of their server as they would without Conduit",
        plan: |seed| {
            let mut plan = speaking(seed, Protocol::WebSocket);
            plan.servers[0].replicas = 2;
            plan.fault(s(14), s(15), Fault::Rollout(0))
        },
        shows: &[Shows::SettlesInTls],
    },
];
