//! Which kinds exist, and how each differs from the others: a table, in the order discovery lists it.

use std::{cmp::Ordering, fmt, ops::Deref};

use k8s_openapi::api::{
    apps::v1 as apps, batch::v1 as batch, coordination::v1 as coordination, core::v1 as core,
    discovery::v1 as discovery, policy::v1 as policy, rbac::v1 as rbac,
};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::SliceVersion;

/// One kind as the API serves it.
#[derive(Debug)]
pub(crate) struct Resource {
    /// The API group, empty for the core one.
    pub(crate) group: &'static str,
    /// The version within the group.
    pub(crate) version: &'static str,
    /// `Pod`
    pub(crate) kind: &'static str,
    /// `pods`
    pub(crate) plural: &'static str,
    /// What kubectl also calls it.
    pub(crate) short: &'static [&'static str],
    /// Whether objects live in namespaces.
    pub(crate) namespaced: bool,
    /// Whether status is written through a subresource of its own.
    pub(crate) status: bool,
    /// Whether `metadata.generation` counts the changes of the spec.
    pub(crate) generation: bool,
    /// Whether PUT makes an object that does not exist.
    pub(crate) create_on_update: bool,
    /// Whether PUT must name the resource version it replaces.
    pub(crate) versioned_update: bool,
    /// What a name must look like.
    pub(crate) name: NameRule,
    /// What becomes of dependents when the caller does not say: the two oldest kinds leave them.
    pub(crate) orphans: bool,
    /// Drops unknown fields and refuses wrong types, as decoding into the Go types does.
    typed: fn(Value) -> Result<Value, serde_json::Error>,
}

impl Resource {
    /// `v1`, `apps/v1`
    pub(crate) fn api_version(&self) -> String {
        if self.group.is_empty() {
            self.version.to_owned()
        } else {
            format!("{}/{}", self.group, self.version)
        }
    }

    /// `pods`, `deployments.apps`: how error messages name it.
    pub(crate) fn qualified(&self) -> String {
        if self.group.is_empty() { self.plural.to_owned() } else { format!("{}.{}", self.plural, self.group) }
    }

    /// Whether a deletion is answered with the object rather than with a `Status`.
    pub(crate) fn returns_deleted(&self) -> bool {
        matches!(self.kind, "Pod" | "ServiceAccount" | "Service")
    }

    pub(crate) fn normalise(&self, value: Value) -> Result<Value, serde_json::Error> {
        (self.typed)(value)
    }
}

/// What the name of an object may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum NameRule {
    /// Dotted, up to 253 octets.
    Subdomain,
    /// One label, up to 63.
    Label,
    /// One label that begins with a letter: it becomes part of environment variables.
    ServiceLabel,
    /// Anything that is one path segment: RBAC names have colons.
    Segment,
}

/// A row of the table: copied, compared and ordered by group and plural.
#[derive(Clone, Copy)]
pub(crate) struct Res(&'static Resource);

impl Deref for Res {
    type Target = Resource;

    fn deref(&self) -> &Resource {
        self.0
    }
}

impl fmt::Debug for Res {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.qualified())
    }
}

impl PartialEq for Res {
    fn eq(&self, other: &Self) -> bool {
        self.cmp(other) == Ordering::Equal
    }
}

impl Eq for Res {}

impl PartialOrd for Res {
    fn partial_cmp(&self, other: &Self) -> Option<Ordering> {
        Some(self.cmp(other))
    }
}

impl Ord for Res {
    fn cmp(&self, other: &Self) -> Ordering {
        (self.group, self.plural).cmp(&(other.group, other.plural))
    }
}

/// The kinds one cluster serves.
#[derive(Debug, Clone)]
pub(crate) struct Served(SliceVersion);

impl Served {
    pub(crate) fn new(slices: SliceVersion) -> Self {
        Self(slices)
    }

    pub(crate) fn iter(&self) -> impl Iterator<Item = Res> + '_ {
        TABLE.iter().filter(|row| row.kind != "EndpointSlice" || row.version == self.0.as_str()).map(Res)
    }

    /// The row a request path names.
    pub(crate) fn find(&self, group: &str, version: &str, plural: &str) -> Option<Res> {
        self.iter().find(|row| row.plural == plural && row.group == group && row.version == version)
    }

    /// The row of a kind the code of this crate itself writes.
    pub(crate) fn kind(&self, group: &str, kind: &str) -> Option<Res> {
        self.iter().find(|row| row.kind == kind && row.group == group)
    }
}

fn typed<T: DeserializeOwned + Serialize>(value: Value) -> Result<Value, serde_json::Error> {
    serde_json::to_value(serde_json::from_value::<T>(value)?)
}

const BASE: Resource = Resource {
    group: "",
    version: "v1",
    kind: "",
    plural: "",
    short: &[],
    namespaced: true,
    status: false,
    generation: false,
    create_on_update: false,
    versioned_update: false,
    name: NameRule::Subdomain,
    orphans: false,
    typed: Ok,
};

const CORE: Resource = Resource { ..BASE };
const APPS: Resource = Resource { group: "apps", status: true, generation: true, ..BASE };
const BATCH: Resource = Resource { group: "batch", status: true, generation: true, ..BASE };
const RBAC: Resource =
    Resource { group: "rbac.authorization.k8s.io", name: NameRule::Segment, create_on_update: true, ..BASE };

static TABLE: &[Resource] = &[
    Resource {
        kind: "ConfigMap",
        plural: "configmaps",
        short: &["cm"],
        typed: typed::<core::ConfigMap>,
        ..CORE
    },
    Resource {
        kind: "Endpoints",
        plural: "endpoints",
        short: &["ep"],
        create_on_update: true,
        typed: typed::<core::Endpoints>,
        ..CORE
    },
    Resource {
        kind: "Event",
        plural: "events",
        short: &["ev"],
        create_on_update: true,
        typed: typed::<core::Event>,
        ..CORE
    },
    Resource {
        kind: "Namespace",
        plural: "namespaces",
        short: &["ns"],
        namespaced: false,
        status: true,
        name: NameRule::Label,
        typed: typed::<core::Namespace>,
        ..CORE
    },
    Resource {
        kind: "Node",
        plural: "nodes",
        short: &["no"],
        namespaced: false,
        status: true,
        typed: typed::<core::Node>,
        ..CORE
    },
    Resource { kind: "Pod", plural: "pods", short: &["po"], status: true, typed: typed::<core::Pod>, ..CORE },
    Resource {
        kind: "ReplicationController",
        plural: "replicationcontrollers",
        short: &["rc"],
        status: true,
        generation: true,
        orphans: true,
        typed: typed::<core::ReplicationController>,
        ..CORE
    },
    Resource { kind: "Secret", plural: "secrets", typed: typed::<core::Secret>, ..CORE },
    Resource {
        kind: "ServiceAccount",
        plural: "serviceaccounts",
        short: &["sa"],
        typed: typed::<core::ServiceAccount>,
        ..CORE
    },
    Resource {
        kind: "Service",
        plural: "services",
        short: &["svc"],
        status: true,
        create_on_update: true,
        name: NameRule::ServiceLabel,
        typed: typed::<core::Service>,
        ..CORE
    },
    Resource {
        kind: "DaemonSet",
        plural: "daemonsets",
        short: &["ds"],
        typed: typed::<apps::DaemonSet>,
        ..APPS
    },
    Resource {
        kind: "Deployment",
        plural: "deployments",
        short: &["deploy"],
        typed: typed::<apps::Deployment>,
        ..APPS
    },
    Resource {
        kind: "ReplicaSet",
        plural: "replicasets",
        short: &["rs"],
        typed: typed::<apps::ReplicaSet>,
        ..APPS
    },
    Resource {
        kind: "StatefulSet",
        plural: "statefulsets",
        short: &["sts"],
        typed: typed::<apps::StatefulSet>,
        ..APPS
    },
    Resource { kind: "CronJob", plural: "cronjobs", short: &["cj"], typed: typed::<batch::CronJob>, ..BATCH },
    Resource { kind: "Job", plural: "jobs", orphans: true, typed: typed::<batch::Job>, ..BATCH },
    Resource {
        group: "coordination.k8s.io",
        kind: "Lease",
        plural: "leases",
        create_on_update: true,
        versioned_update: true,
        typed: typed::<coordination::Lease>,
        ..BASE
    },
    Resource {
        group: "discovery.k8s.io",
        kind: "EndpointSlice",
        plural: "endpointslices",
        generation: true,
        typed: typed::<discovery::EndpointSlice>,
        ..BASE
    },
    // The old version is not among the Go types we have; what it is given it keeps.
    Resource {
        group: "discovery.k8s.io",
        version: "v1beta1",
        kind: "EndpointSlice",
        plural: "endpointslices",
        generation: true,
        ..BASE
    },
    Resource {
        group: "policy",
        kind: "PodDisruptionBudget",
        plural: "poddisruptionbudgets",
        short: &["pdb"],
        status: true,
        generation: true,
        versioned_update: true,
        typed: typed::<policy::PodDisruptionBudget>,
        ..BASE
    },
    Resource {
        kind: "ClusterRoleBinding",
        plural: "clusterrolebindings",
        namespaced: false,
        typed: typed::<rbac::ClusterRoleBinding>,
        ..RBAC
    },
    Resource {
        kind: "ClusterRole",
        plural: "clusterroles",
        namespaced: false,
        typed: typed::<rbac::ClusterRole>,
        ..RBAC
    },
    Resource { kind: "RoleBinding", plural: "rolebindings", typed: typed::<rbac::RoleBinding>, ..RBAC },
    Resource { kind: "Role", plural: "roles", typed: typed::<rbac::Role>, ..RBAC },
];
