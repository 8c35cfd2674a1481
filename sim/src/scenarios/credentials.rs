//! Secrets, bundles and clocks: whatever is wrong with them, traffic goes on in plaintext with the reason, and comes back.
//!
//! A proxy never throws away credentials that work. So what is damaged shows only in a process that starts with it: the
//! damage is followed by a rollout, or by a restart of the proxy.

use super::{Scenario, Shows, s};
use crate::{
    fault::{Damage, Fault, Pod, Workload},
    plan::Plan,
};

const SERVER: Workload = Workload::Server(0);
const CLIENT: Workload = Workload::Client(0);
const HOUR_MS: i64 = 3_600_000;

/// The client's credentials are damaged for 16 s, and its proxy restarts meanwhile.
fn damaged(seed: u64, damage: Damage) -> Plan {
    let plan = Plan::quiet(seed).fault(s(14), s(30), Fault::Secret { of: CLIENT, damage });
    let restart = Fault::ProxyRestart { pod: Pod::Client(0), is_graceful: false };
    plan.fault(s(18), s(19), restart)
}

/// In plaintext while it is damaged, in TLS at most 20 s after.
const COMES_BACK: [Shows; 2] = [Shows::Plaintext(20, 30), Shows::SettlesInTls];

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "secret-missing",
        about: "a Secret is deleted while the CA is down, and a proxy starts without it",
        plan: |seed| damaged(seed, Damage::Removed),
        shows: &[COMES_BACK[0], COMES_BACK[1], Shows::Says("outbound no_config")],
    },
    Scenario {
        name: "secret-deleted",
        about: "a Secret is deleted before the CA's eyes, and the pod is replaced: the new one finds another Secret",
        plan: |seed| {
            let plan = Plan::quiet(seed).fault(s(13), s(14), Fault::SecretDeleted(SERVER));
            plan.fault(s(15), s(16), Fault::Rollout(0))
        },
        shows: &[Shows::SettlesInTls],
    },
    Scenario {
        name: "secret-malformed",
        about: "a certificate is cut off in the middle, and a proxy starts with it",
        plan: |seed| damaged(seed, Damage::Truncated),
        shows: &[COMES_BACK[0], COMES_BACK[1], Shows::Says("outbound bad_credentials")],
    },
    Scenario {
        name: "key-mismatch",
        about: "the key beside a certificate is another workload's",
        plan: |seed| damaged(seed, Damage::KeyMismatch),
        shows: &[COMES_BACK[0], COMES_BACK[1], Shows::Says("outbound bad_credentials")],
    },
    Scenario {
        name: "wrong-name",
        about: "certificate and key are another workload's",
        plan: |seed| damaged(seed, Damage::Swapped),
        shows: &[COMES_BACK[0], COMES_BACK[1], Shows::Says("outbound bad_credentials")],
    },
    Scenario {
        name: "wrong-root",
        about: "a certificate is from a root that nobody trusts",
        plan: |seed| damaged(seed, Damage::WrongRoot),
        shows: &[COMES_BACK[0], COMES_BACK[1], Shows::Says("outbound bad_credentials")],
    },
    Scenario {
        name: "certificate-past",
        about: "a certificate is past, and a proxy starts with it",
        plan: |seed| damaged(seed, Damage::Expired),
        shows: &[COMES_BACK[0], COMES_BACK[1], Shows::Says("outbound expired")],
    },
    Scenario {
        name: "certificate-of-tomorrow",
        about: "a certificate begins tomorrow, and a proxy starts with it",
        plan: |seed| damaged(seed, Damage::NotYetValid),
        shows: &[COMES_BACK[0], COMES_BACK[1], Shows::Says("outbound clock_skew")],
    },
    Scenario {
        name: "bundle-old",
        about: "the trust bundle of a namespace holds a root of which nothing is, and a proxy starts with it",
        plan: |seed| {
            let plan = Plan::quiet(seed).fault(s(14), s(30), Fault::OldBundle(CLIENT));
            let restart = Fault::ProxyRestart { pod: Pod::Client(0), is_graceful: false };
            plan.fault(s(18), s(19), restart)
        },
        shows: &[COMES_BACK[0], COMES_BACK[1], Shows::Says("outbound bad_credentials")],
    },
    Scenario {
        name: "renewed-under-handshakes",
        about: "a server's certificate is replaced again and again while handshakes with it are under way",
        plan: |seed| Plan::quiet(seed).fault(s(14), s(20), Fault::Renewals(SERVER)),
        shows: &[
            Shows::Tls(14, 60),
            Shows::Certificates(1),
            Shows::RenewedUnderHandshakes,
            Shows::NothingFails,
        ],
    },
    Scenario {
        name: "secret-lost-by-the-file",
        about: "a Secret is deleted while the CA is down: who has loaded it goes on with it",
        plan: |seed| {
            let damage = Damage::Removed;
            Plan::quiet(seed).fault(s(14), s(26), Fault::Secret { of: SERVER, damage })
        },
        shows: &[Shows::Tls(14, 60)],
    },
    Scenario {
        name: "bundle-missing",
        about: "the trust bundle of a namespace is deleted while the CA is down, and a proxy starts without it",
        plan: |seed| {
            let plan = Plan::quiet(seed).fault(s(14), s(30), Fault::NoBundle(CLIENT));
            let restart = Fault::ProxyRestart { pod: Pod::Client(0), is_graceful: false };
            plan.fault(s(18), s(19), restart)
        },
        shows: &[COMES_BACK[0], COMES_BACK[1]],
    },
    Scenario {
        name: "expired",
        about: "a client's clock jumps 30 h ahead: its certificate is past, by its own clock",
        plan: |seed| {
            Plan::quiet(seed).fault(s(14), s(26), Fault::ClockJump { of: CLIENT, by_ms: 30 * HOUR_MS })
        },
        shows: &[Shows::Plaintext(15, 26), Shows::Says("outbound expired"), Shows::SettlesInTls],
    },
    Scenario {
        name: "not-yet-valid",
        about: "a client's clock jumps 30 h back: its certificate begins later, by its own clock",
        plan: |seed| {
            Plan::quiet(seed).fault(s(14), s(26), Fault::ClockJump { of: CLIENT, by_ms: -30 * HOUR_MS })
        },
        shows: &[Shows::Plaintext(15, 26), Shows::Says("outbound clock_skew"), Shows::SettlesInTls],
    },
    Scenario {
        name: "server-expired",
        about: "a server's clock jumps 30 h ahead: it refuses handshakes, and its clients fall back at once",
        plan: |seed| {
            Plan::quiet(seed).fault(s(14), s(26), Fault::ClockJump { of: SERVER, by_ms: 30 * HOUR_MS })
        },
        shows: &[Shows::Plaintext(15, 26), Shows::Says("outbound handshake_failed"), Shows::SettlesInTls],
    },
    Scenario {
        name: "clock-skew",
        about: "two clocks are wrong by 50 minutes, one ahead and one behind: what certificates allow for",
        plan: |seed| {
            let mut plan = Plan { until: s(50), ..Plan::quiet(seed) };
            plan.servers[0].clock_error_ms = HOUR_MS * 5 / 6;
            plan.clients[0].clock_error_ms = -HOUR_MS * 5 / 6;
            plan
        },
        shows: &[Shows::Tls(28, 50)],
    },
];
