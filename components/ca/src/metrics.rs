//! What the authority tells of itself.

use std::sync::atomic::AtomicU64;

use conduit_identity::UnixTime;
use conduit_runtime::metrics::Registry;
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge},
};

use crate::{
    due::Reason,
    reconcile::{Plan, Report},
    state::State,
};

/// The metrics of one authority. Cloning shares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {
    issued: Family<ReasonLabel, Counter>,
    errors: Family<OperationLabel, Counter>,
    bundles: Counter,
    root_not_before: Gauge<f64, AtomicU64>,
    root_not_after: Gauge<f64, AtomicU64>,
    issuer_not_before: Gauge<f64, AtomicU64>,
    issuer_not_after: Gauge<f64, AtomicU64>,
    leaf_min_not_after: Gauge<f64, AtomicU64>,
    roots: Gauge,
    workloads: Gauge,
    foreign: Gauge,
    mismatches: Gauge,
    clock_behind: Gauge,
    leading: Gauge,
}

/// What went wrong.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Operation {
    /// Reading the stored state.
    ReadRoot,
    /// Making keys and certificates.
    Sign,
    /// Writing the stored state.
    WriteRoot,
    /// Writing a trust bundle.
    WriteBundle,
    /// Writing a certificate.
    WriteLeaf,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabel {
    reason: &'static str,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, EncodeLabelSet)]
struct OperationLabel {
    operation: &'static str,
}

impl Operation {
    /// The value of a metric's label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::ReadRoot => "read_root",
            Self::Sign => "sign",
            Self::WriteRoot => "write_root",
            Self::WriteBundle => "write_bundle",
            Self::WriteLeaf => "write_leaf",
        }
    }
}

impl Metrics {
    pub(crate) fn register(&self, registry: &Registry) {
        let add = |name: &str, help: &str, metric: &Gauge| registry.register(name, help, metric.clone());
        let time = |name: &str, help: &str, metric: &Gauge<f64, AtomicU64>| {
            registry.register(name, help, metric.clone());
        };
        registry.register(
            "conduit_ca_certificates_issued",
            "Certificates issued, by reason",
            self.issued.clone(),
        );
        registry.register("conduit_ca_errors", "Failures, by operation", self.errors.clone());
        registry.register("conduit_ca_bundles_written", "Trust bundles written", self.bundles.clone());
        time(
            "conduit_ca_root_not_before_seconds",
            "When the newest root began, since 1970",
            &self.root_not_before,
        );
        time(
            "conduit_ca_issuer_not_before_seconds",
            "When the issuer began, since 1970",
            &self.issuer_not_before,
        );
        time(
            "conduit_ca_root_not_after_seconds",
            "When the newest root ends, since 1970",
            &self.root_not_after,
        );
        time(
            "conduit_ca_issuer_not_after_seconds",
            "When the issuer ends, since 1970",
            &self.issuer_not_after,
        );
        time(
            "conduit_ca_leaf_min_not_after_seconds",
            "When the first certificate of a running workload ends, since 1970; 0 without any",
            &self.leaf_min_not_after,
        );
        add("conduit_ca_roots", "Roots in the trust bundle", &self.roots);
        add("conduit_ca_workloads", "Workloads that are to have a certificate", &self.workloads);
        add(
            "conduit_ca_foreign_objects",
            "Objects of our names that are not ours and were left alone",
            &self.foreign,
        );
        add(
            "conduit_ca_owner_mismatches",
            "Pods that claim a workload they do not belong to",
            &self.mismatches,
        );
        add(
            "conduit_ca_clock_behind",
            "Whether this machine's clock is so far behind the API server's that nothing is issued",
            &self.clock_behind,
        );
        add("conduit_ca_leading", "Whether this replica is the one that issues", &self.leading);
    }

    pub(crate) fn issued(&self, reason: Reason) {
        self.issued.get_or_create(&ReasonLabel { reason: reason.label() }).inc();
    }

    pub(crate) fn failed(&self, operation: Operation) {
        self.errors.get_or_create(&OperationLabel { operation: operation.label() }).inc();
    }

    pub(crate) fn bundle_written(&self) {
        self.bundles.inc();
    }

    pub(crate) fn leading(&self, leading: bool) {
        self.leading.set(i64::from(leading));
    }

    pub(crate) fn seen(&self, plan: &Plan, state: Option<&State>, now: UnixTime) {
        let newest = state.and_then(|state| state.newest(now)).map(|root| &root.certificate);
        let issuer = state.and_then(|state| state.issuer.as_ref()).map(|issuer| &issuer.certificate);
        self.root_not_before.set(seconds(newest.map(|root| root.not_before)));
        self.root_not_after.set(seconds(newest.map(|root| root.not_after)));
        self.issuer_not_before.set(seconds(issuer.map(|issuer| issuer.not_before)));
        self.issuer_not_after.set(seconds(issuer.map(|issuer| issuer.not_after)));
        self.leaf_min_not_after.set(seconds(plan.first_leaf_ends));
        self.roots.set(count(state.map_or(0, |state| state.roots.len())));
        self.workloads.set(count(plan.workloads));
        let reports =
            |kind: fn(&Report) -> bool| count(plan.reports.iter().filter(|report| kind(report)).count());
        self.mismatches.set(reports(|report| matches!(report, Report::Mismatch(_))));
        self.clock_behind.set(reports(|report| matches!(report, Report::ClockBehind)));
        let foreign = |report: &Report| matches!(report, Report::ForeignSecret(_) | Report::ForeignBundle(_));
        self.foreign.set(reports(foreign));
    }
}

fn seconds(at: Option<UnixTime>) -> f64 {
    at.unwrap_or_default().0.as_secs_f64()
}

fn count(of: usize) -> i64 {
    i64::try_from(of).unwrap_or(i64::MAX)
}
