//! Days, on wall clocks that run 600 times as fast as everything else: 6 s of a run are an hour.
//!
//! Timers do not run faster: a proxy that reads its files every second, and a CA that looks every 10 s, are slow here.

use std::time::Duration;

use conduit_ca::Lifetimes;

use super::{Scenario, Shows, s};
use crate::{
    fault::{Fault, Workload},
    history::Protocol,
    plan::{Client, Plan, Server},
    workload::Style,
};

/// Wall-clock seconds for each simulated one.
const SPEED: u32 = 600;
const HOUR: u64 = 3_600 / SPEED as u64;
/// When stories begin; 80 minutes have passed by then.
const BEGIN: u64 = 8;

/// A client that asks once a second, for so many hours.
fn hours(seed: u64, hours: u64) -> Plan {
    let mut plan = Plan { wall_speed: SPEED, until: s(BEGIN + hours * HOUR), ..Plan::quiet(seed) };
    plan.clients[0].asks[0].period = s(1);
    plan.tick = Duration::from_millis(2);
    plan
}

/// A root lives for a day, a leaf for half of one.
fn short_lived_root() -> Lifetimes {
    let hours = |hours: u32| Duration::from_secs(3_600) * hours;
    Lifetimes {
        root: hours(24),
        leaf: hours(12),
        renew_left: hours(6),
        renew_jitter: hours(1) / 4,
        ..Lifetimes::default()
    }
}

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "renewal-40h",
        about: "40 hours: certificates of 26 h are renewed with 14 h left, again and again, and nobody notices",
        plan: |seed| hours(seed, 40),
        shows: &[Shows::Tls(28, 248), Shows::Certificates(4)],
    },
    Scenario {
        name: "root-rotation",
        about: "a root of 24 h is replaced before it ends: both are trusted in between, and no handshake fails",
        plan: |seed| Plan { lifetimes: short_lived_root(), ..hours(seed, 36) },
        shows: &[
            Shows::Tls(28, 224),
            Shows::Roots(2),
            Shows::RootsTogether,
            Shows::Certificates(5),
            Shows::NothingFails,
        ],
    },
    Scenario {
        name: "secrets-issued-while-the-root-changes",
        about: "Secrets are deleted one by one and made again, all the while that a root is replaced: each is from a root that \
                everybody trusts by then",
        plan: |seed| {
            let mut plan = Plan { lifetimes: short_lived_root(), ..hours(seed, 24) };
            let names: Vec<String> = (0..14).map(|number| format!("server-{number}")).collect();
            plan.servers = names.iter().map(|name| Server::new("shop", name, &[Protocol::Http1])).collect();
            let client = Client::new("shop", "client");
            let asked = (0..names.len())
                .fold(client, |client, server| client.asks(server, Protocol::Http1, Style::Fresh));
            plan.clients = vec![asked];
            plan.clients[0].asks.iter_mut().for_each(|asks| asks.period = s(1));
            (0..names.len()).fold(plan, |plan, server| {
                let at = Duration::from_millis(99_500 + 500 * server as u64);
                plan.fault(at, at, Fault::SecretDeleted(Workload::Server(server)))
            })
        },
        shows: &[Shows::Tls(28, 132), Shows::RootsTogether, Shows::NothingFails],
    },
    Scenario {
        name: "ca-down-11h",
        about: "the CA is down for 11 hours: all stays TLS",
        plan: |seed| hours(seed, 24).fault(s(20), s(20 + 11 * HOUR), Fault::CaDown),
        shows: &[Shows::Tls(28, 152), Shows::Certificates(2)],
    },
    Scenario {
        name: "ca-down-30h",
        about: "the CA is down for 30 hours: certificates expire, all goes on in plaintext, and is TLS again after",
        plan: |seed| hours(seed, 40).fault(s(20), s(20 + 30 * HOUR), Fault::CaDown),
        shows: &[
            Shows::Tls(28, 150),
            Shows::Plaintext(172, 200),
            Shows::Says("outbound expired"),
            Shows::Tls(220, 248),
        ],
    },
];
