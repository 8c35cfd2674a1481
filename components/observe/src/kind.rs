//! What traffic can be summed up by: the kinds of Kubernetes objects, and the names clients call services by.

use std::{fmt, str::FromStr};

use serde::{Deserialize, Serialize};

/// A kind of row. The order of declaration is the order in which `all` shows its tables.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
#[allow(missing_docs, reason = "they are Kubernetes' own names")]
pub enum Kind {
    Deployment,
    StatefulSet,
    DaemonSet,
    Job,
    CronJob,
    ReplicationController,
    Pod,
    Service,
    /// What clients name in `Host` or `:authority`: no Kubernetes object.
    Authority,
    Namespace,
}

impl Kind {
    /// Every kind, in the order of declaration.
    pub const ALL: [Self; 10] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::ReplicationController,
        Self::Pod,
        Self::Service,
        Self::Authority,
        Self::Namespace,
    ];

    /// What `all` stands for: every kind but namespaces, which would repeat the same traffic once more in one line.
    pub const IN_ALL: [Self; 9] = [
        Self::Deployment,
        Self::StatefulSet,
        Self::DaemonSet,
        Self::Job,
        Self::CronJob,
        Self::ReplicationController,
        Self::Pod,
        Self::Service,
        Self::Authority,
    ];

    /// Every name it goes by: singular first, then plural, then short forms; the last one is what tables print.
    pub const fn names(self) -> &'static [&'static str] {
        match self {
            Self::Deployment => &["deployment", "deployments", "deploy"],
            Self::StatefulSet => &["statefulset", "statefulsets", "sts"],
            Self::DaemonSet => &["daemonset", "daemonsets", "ds"],
            Self::Job => &["job", "jobs"],
            Self::CronJob => &["cronjob", "cronjobs", "cj"],
            Self::ReplicationController => &["replicationcontroller", "replicationcontrollers", "rc"],
            Self::Pod => &["pod", "pods", "po"],
            Self::Service => &["service", "services", "svc"],
            Self::Authority => &["authority", "authorities", "au"],
            Self::Namespace => &["namespace", "namespaces", "ns"],
        }
    }

    /// As in JSON: singular, lower case.
    pub const fn as_str(self) -> &'static str {
        self.names()[0]
    }

    /// As in a table whose rows are of several kinds.
    pub const fn short(self) -> &'static str {
        match self {
            // `jobs` is plural, not short.
            Self::Job => "job",
            other => other.names()[other.names().len() - 1],
        }
    }

    /// The label of the proxies' metrics that names such an object; with `dst_` in front, the one of the destination.
    pub const fn metric_label(self) -> &'static str {
        match self {
            Self::Deployment => "deployment",
            Self::StatefulSet => "stateful_set",
            Self::DaemonSet => "daemon_set",
            // `job` is Prometheus' own.
            Self::Job => "k8s_job",
            Self::CronJob => "cron_job",
            Self::ReplicationController => "replication_controller",
            Self::Pod => "pod",
            Self::Service => "service",
            Self::Authority => "authority",
            Self::Namespace => "namespace",
        }
    }

    /// Whether objects of this kind own pods (or are pods), so that traffic can be attributed to them on either side.
    pub const fn is_workload(self) -> bool {
        !matches!(self, Self::Service | Self::Authority | Self::Namespace)
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl FromStr for Kind {
    type Err = UnknownKind;

    fn from_str(text: &str) -> Result<Self, UnknownKind> {
        let lower = text.to_ascii_lowercase();
        Self::ALL
            .into_iter()
            .find(|kind| kind.names().contains(&lower.as_str()))
            .ok_or_else(|| UnknownKind(text.chars().take(64).collect()))
    }
}

/// No such kind of resource.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is not a type of resource; use deployments, statefulsets, daemonsets, jobs, cronjobs, \
     replicationcontrollers, pods, services, authorities, namespaces or all"
)]
pub struct UnknownKind(pub String);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_name_is_read_back_and_belongs_to_one_kind() {
        for kind in Kind::ALL {
            for name in kind.names() {
                assert_eq!(name.parse(), Ok(kind), "{name}");
                assert_eq!(name.to_uppercase().parse(), Ok(kind), "{name}");
            }
            assert!(kind.names().contains(&kind.short()));
        }
    }

    #[test]
    fn an_unknown_type_is_refused_with_what_to_use_instead() {
        let error = "widgets".parse::<Kind>().unwrap_err().to_string();
        assert!(error.contains("\"widgets\"") && error.contains("deployments"), "{error}");
    }

    #[test]
    fn json_names_are_the_singular_ones() {
        for kind in Kind::ALL {
            assert_eq!(serde_json::to_string(&kind).unwrap(), format!("{:?}", kind.as_str()));
        }
    }
}
