//! The CA: whatever becomes of it, applications do not notice.

use super::{Scenario, Shows, s};
use crate::{
    fault::Fault,
    plan::{BEGIN, Plan, SETTLE},
};

pub(super) const ALL: &[Scenario] = &[
    Scenario {
        name: "ca-never",
        about: "there is no CA: everything is plaintext, and works",
        plan: |seed| Plan { ca_replicas: 0, until: BEGIN + SETTLE + s(10), ..Plan::quiet(seed) },
        shows: &[Shows::Plaintext(8, 60), Shows::Says("outbound no_config")],
    },
    Scenario {
        name: "ca-late",
        about: "the CA comes up after the pods: they turn to TLS without a restart",
        plan: |seed| {
            let plan = Plan { ca_replicas: 0, ..Plan::quiet(seed) };
            plan.fault(s(15), s(16), Fault::AnotherCa)
        },
        shows: &[Shows::Plaintext(8, 15), Shows::Tls(36, 60)],
    },
    Scenario {
        name: "ca-down",
        about: "the CA is away: certificates outlive it",
        plan: |seed| Plan::quiet(seed).fault(s(14), s(24), Fault::CaDown),
        shows: &[Shows::Tls(14, 60)],
    },
    Scenario {
        name: "ca-restarted",
        about: "the CA restarts, twice: nothing changes, and no certificate is issued again",
        plan: |seed| {
            let plan = Plan::quiet(seed).fault(s(14), s(15), Fault::CaDown);
            plan.fault(s(18), s(18), Fault::CaDown)
        },
        shows: &[Shows::Tls(14, 60)],
    },
    Scenario {
        name: "ca-partitioned",
        about: "the CA cannot reach the API, nor the API the CA: certificates outlive it",
        plan: |seed| Plan::quiet(seed).fault(s(14), s(26), Fault::CaCutOff),
        shows: &[Shows::Tls(14, 60)],
    },
    Scenario {
        name: "rollout-without-ca",
        about: "the CA is down while pods are replaced: the Secret of the workload is there, and so is TLS",
        plan: |seed| {
            let plan = Plan::quiet(seed).fault(s(13), s(30), Fault::CaDown);
            plan.fault(s(16), s(17), Fault::Rollout(0))
        },
        shows: &[Shows::Tls(30, 60)],
    },
    Scenario {
        name: "two-cas",
        about: "two CAs contend for the Lease, and both vanish for a while: one root, one certificate at a time",
        plan: |seed| {
            let plan = Plan { ca_replicas: 2, ..Plan::quiet(seed) };
            plan.fault(s(13), s(14), Fault::AnotherCa).fault(s(18), s(22), Fault::CaDown)
        },
        shows: &[Shows::Tls(14, 60)],
    },
    Scenario {
        name: "two-leaders",
        about: "a second CA believes that it leads, and never stops: nobody's certificate is worse for it",
        plan: |seed| Plan::quiet(seed).fault(s(13), s(14), Fault::RivalCa),
        shows: &[Shows::Tls(13, 60), Shows::Tapped(10)],
    },
    Scenario {
        name: "two-cas-cut-off",
        about: "the leading CA cannot renew its Lease while another one comes: they do not undo each other's work",
        plan: |seed| {
            let plan = Plan::quiet(seed).fault(s(13), s(35), Fault::CaCutOff);
            plan.fault(s(14), s(15), Fault::AnotherCa)
        },
        shows: &[Shows::Tls(13, 70)],
    },
];
