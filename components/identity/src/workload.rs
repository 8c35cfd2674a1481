//! What Conduit gives names to: a workload is the object that owns a pod, and all pods of one workload share one
//! identity, one certificate and one Secret.
//!
//! # Short owners
//!
//! An owner is written literally wherever it fits. It takes the *hash form* `conduit-hash-<32 hex digits>`, the first
//! 16 octets of the SHA-256 of `kind/namespace/name`, when it is over 63 octets long (it could not be a label value, and
//! the API server would refuse the whole workload), when it is no DNS name, or when it looks like a hash form itself, so
//! that nobody can name a workload to be taken for another. The Secret's name, the label's value and the identity
//! all use this same form; the owner in full is kept in the pod's `conduit.io/owner` annotation.

use std::fmt;

use sha2::{Digest, Sha256};

use crate::name;

/// The longest value a Kubernetes label takes, and the longest label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;
pub(crate) const HASH_PREFIX: &str = "conduit-hash-";
const HASH_OCTETS: usize = 16;

/// The Kubernetes kinds that Conduit injects.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[allow(missing_docs, reason = "they are Kubernetes' own names")]
pub enum WorkloadKind {
    Deployment,
    ReplicaSet,
    ReplicationController,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    Pod,
}

impl WorkloadKind {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Deployment,
        Self::ReplicaSet,
        Self::ReplicationController,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::Pod,
    ];

    /// As in identities and Secret names: the Kubernetes kind in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::ReplicaSet => "replicaset",
            Self::ReplicationController => "replicationcontroller",
            Self::StatefulSet => "statefulset",
            Self::DaemonSet => "daemonset",
            Self::Job => "job",
            Self::CronJob => "cronjob",
            Self::Pod => "pod",
        }
    }

    /// As in the `kind` of an object or of an owner reference.
    pub const fn kubernetes(self) -> &'static str {
        match self {
            Self::Deployment => "Deployment",
            Self::ReplicaSet => "ReplicaSet",
            Self::ReplicationController => "ReplicationController",
            Self::StatefulSet => "StatefulSet",
            Self::DaemonSet => "DaemonSet",
            Self::Job => "Job",
            Self::CronJob => "CronJob",
            Self::Pod => "Pod",
        }
    }

    /// The pod label that names the owner; a bare pod has none, it is its own owner.
    pub const fn proxy_label(self) -> Option<&'static str> {
        match self {
            Self::Deployment => Some("conduit.io/proxy-deployment"),
            Self::ReplicaSet => Some("conduit.io/proxy-replica-set"),
            Self::ReplicationController => Some("conduit.io/proxy-replication-controller"),
            Self::StatefulSet => Some("conduit.io/proxy-stateful-set"),
            Self::DaemonSet => Some("conduit.io/proxy-daemon-set"),
            Self::Job => Some("conduit.io/proxy-job"),
            Self::CronJob => Some("conduit.io/proxy-cron-job"),
            Self::Pod => None,
        }
    }

    /// The label of the proxies' metrics that names the owner. `job` is Prometheus' own, hence `k8s_job`.
    pub const fn metric_label(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::ReplicaSet => "replica_set",
            Self::ReplicationController => "replication_controller",
            Self::StatefulSet => "stateful_set",
            Self::DaemonSet => "daemon_set",
            Self::Job => "k8s_job",
            Self::CronJob => "cron_job",
            Self::Pod => "pod",
        }
    }

    /// The kind an object or an owner reference calls `kind`; none for a kind that is not injected.
    pub fn from_kubernetes(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.kubernetes() == kind)
    }

    /// The kind an identity calls `kind`.
    pub fn parse(kind: &str) -> Option<Self> {
        Self::ALL.into_iter().find(|known| known.as_str() == kind)
    }
}

impl fmt::Display for WorkloadKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// The owner of pods.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Workload {
    /// Its namespace.
    pub namespace: String,
    /// Its kind.
    pub kind: WorkloadKind,
    /// Its name, whole, whatever its length.
    pub name: String,
}

impl Workload {
    /// The name of the Secret that holds its certificate and key: `<owner>-<kind>-tls-conduit-io`.
    ///
    /// Distinct workloads of one namespace have distinct Secrets: no kind contains a hyphen.
    pub fn secret_name(&self) -> String {
        format!("{}-{}-tls-conduit-io", self.short_owner(), self.kind)
    }

    /// The value of its pods' [`WorkloadKind::proxy_label`]; never over 63 octets.
    pub fn label_value(&self) -> String {
        self.short_owner()
    }

    /// Its SPIFFE identity, `spiffe://<trust domain>/ns/<namespace>/<kind>/<owner>`: the URI name of its certificates.
    pub fn spiffe(&self, control_plane: &ControlPlane) -> String {
        // A path segment may be longer than a label; "." and ".." would be taken for steps.
        let octet = |octet: u8| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.');
        let literal = self.name.bytes().all(octet) && !self.name.starts_with('.') && !self.name.is_empty();
        let owner = if literal { self.name.clone() } else { self.hash_form() };
        format!("spiffe://{}/ns/{}/{}/{owner}", control_plane.trust_domain, self.namespace, self.kind)
    }

    pub(crate) fn short_owner(&self) -> String {
        let literal = self.name.len() <= LABEL_MAX && name::is_dotted_labels(&self.name);
        if literal && !self.name.starts_with(HASH_PREFIX) { self.name.clone() } else { self.hash_form() }
    }

    pub(crate) fn hash_form(&self) -> String {
        hash_form(&self.to_string())
    }
}

/// `kind/namespace/name`.
impl fmt::Display for Workload {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}/{}", self.kind, self.namespace, self.name)
    }
}

/// Which control plane: several may share a cluster, and only one's identities are ever trusted by a proxy.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct ControlPlane {
    /// The namespace it runs in.
    pub namespace: String,
    /// What its identities end in.
    pub trust_domain: String,
}

impl ControlPlane {
    /// The workload of one of its own parts, for example `destination`.
    pub fn component(&self, name: &str) -> Workload {
        Workload { namespace: self.namespace.clone(), kind: WorkloadKind::Deployment, name: name.to_owned() }
    }
}

impl Default for ControlPlane {
    fn default() -> Self {
        Self { namespace: "conduit".to_owned(), trust_domain: "svc.cluster.local".to_owned() }
    }
}

pub(crate) fn hash_form(of: &str) -> String {
    let digest = Sha256::digest(of.as_bytes());
    digest.iter().take(HASH_OCTETS).fold(HASH_PREFIX.to_owned(), |form, octet| format!("{form}{octet:02x}"))
}
