//! Whose pods a manifest makes.

use conduit_identity::{Workload, WorkloadKind};

use super::{Options, workload::Resource};

/// Stands in the identity for what only the pod knows; the proxy fills it in.
const POD_NAMESPACE: &str = "$CONDUIT_PROXY_POD_NAMESPACE";

/// The workload that owns the pods, as far as the manifest tells it.
pub(super) struct Owner {
    /// The workload; without a namespace where that does not matter.
    pub(super) workload: Workload,
}

impl Owner {
    /// # Errors
    /// Why it cannot be known before the object is in the cluster.
    pub(super) fn of(resource: &Resource, kind: WorkloadKind, options: &Options) -> Result<Self, String> {
        if resource.is_generated {
            return Err(
                "without TLS: its name is generated, so its certificate cannot be mounted by name".to_owned()
            );
        }
        let namespace = resource.namespace.as_ref().or(options.flags.namespace.as_ref());
        let workload =
            |namespace: &str| Workload { namespace: namespace.to_owned(), kind, name: resource.name.clone() };
        // Only the short form of a name that does not fit depends on the namespace.
        let is_literal = workload("").label_value() == resource.name;
        match namespace {
            Some(namespace) => Ok(Self { workload: workload(namespace) }),
            None if is_literal => Ok(Self { workload: workload("") }),
            None => Err("without TLS: its name is too long for a label and its namespace is not known: \
                         set metadata.namespace or --namespace"
                .to_owned()),
        }
    }

    /// The identity, the pod's namespace left open.
    pub(super) fn identity(&self, options: &Options) -> String {
        let Workload { kind, .. } = self.workload;
        let control_plane = &options.control_plane;
        format!(
            "{}.{kind}.{POD_NAMESPACE}.conduit-managed.{}.{}",
            self.workload.label_value(),
            control_plane.namespace,
            control_plane.trust_domain
        )
    }
}
