//! The names Conduit owns in a cluster. Whoever writes one of them into an object, or reads it back, takes it from
//! here, so that installer, injector, control plane and tests cannot disagree.

use conduit_identity::{Workload, WorkloadKind};

/// Label of a meshed pod: the namespace of the control plane it belongs to.
pub const LABEL_CONTROL_PLANE_NS: &str = "conduit.io/control-plane-ns";
/// Label of everything that belongs to a control plane: the component, "ca" or "destination".
pub const LABEL_COMPONENT: &str = "conduit.io/control-plane-component";
/// Label of the objects the CA makes; what does not carry it is never touched.
pub const LABEL_MANAGED_BY: &str = "app.kubernetes.io/managed-by";
/// The value of [`LABEL_MANAGED_BY`].
pub const MANAGED_BY: &str = "conduit";

/// Annotation: who made an object, `conduit/cli 0.6.0`.
pub const ANNOTATION_CREATED_BY: &str = "conduit.io/created-by";
/// Annotation of a meshed pod: the version of its proxy.
pub const ANNOTATION_PROXY_VERSION: &str = "conduit.io/proxy-version";
/// Annotation of a meshed pod: [`TLS_OPTIONAL`] or [`TLS_DISABLED`]; absent means disabled.
pub const ANNOTATION_TLS: &str = "conduit.io/tls";
/// Annotation of a meshed pod: the workload it was injected for, `<kind>/<name>` as [`owner_annotation`] writes it, in
/// full even where the label holds the hash form.
pub const ANNOTATION_OWNER: &str = "conduit.io/owner";

/// Value of [`ANNOTATION_TLS`]: TLS where both ends can, plaintext otherwise.
pub const TLS_OPTIONAL: &str = "optional";
/// Value of [`ANNOTATION_TLS`]: no TLS.
pub const TLS_DISABLED: &str = "disabled";

/// The sidecar's container.
pub const PROXY_CONTAINER: &str = "conduit-proxy";
/// The init container that redirects the pod's traffic.
pub const INIT_CONTAINER: &str = "conduit-init";
/// The user the proxy runs as; its own connections are not redirected.
pub const PROXY_UID: i64 = 2102;
/// Name of the proxy container's inbound port.
pub const PORT_NAME_PROXY: &str = "conduit-proxy";
/// Name of the proxy container's metrics port.
pub const PORT_NAME_METRICS: &str = "conduit-metrics";

/// Port on which the proxy takes what others send to the pod.
pub const PORT_INBOUND: u16 = 4143;
/// Port on which the proxy takes what the pod sends, on loopback.
pub const PORT_OUTBOUND: u16 = 4140;
/// Port on which the proxy answers tap.
pub const PORT_TAP: u16 = 4190;
/// Port on which the proxy serves metrics and probes.
pub const PORT_ADMIN: u16 = 4191;

/// Port of the destination service (the `proxy-api` port of v0.5.0).
pub const PORT_DESTINATION: u16 = 8086;
/// Port of the HTTP API.
pub const PORT_OBSERVE: u16 = 8085;
/// Admin port of destination.
pub const PORT_DESTINATION_ADMIN: u16 = 9996;
/// Admin port of observe.
pub const PORT_OBSERVE_ADMIN: u16 = 9995;
/// Admin port of the CA.
pub const PORT_CA_ADMIN: u16 = 9997;

/// Name of the CA's Deployment, and its component.
pub const COMPONENT_CA: &str = "ca";
/// Name of destination's Deployment and Service, and its component.
pub const COMPONENT_DESTINATION: &str = "destination";
/// Name of observe's Deployment and Service, and its component.
pub const COMPONENT_OBSERVE: &str = "observe";

/// The namespace of the control plane unless told otherwise.
pub const DEFAULT_CONTROL_PLANE_NS: &str = "conduit";

/// ConfigMap with the trust anchors, in each meshed namespace.
pub const BUNDLE_CONFIGMAP: &str = "conduit-ca-bundle";
/// Key of the trust anchors in [`BUNDLE_CONFIGMAP`], PEM.
pub const BUNDLE_KEY: &str = "trust-anchors.pem";
/// Type of a workload's certificate Secret.
pub const SECRET_TYPE: &str = "kubernetes.io/tls";
/// Key of the certificate chain in a certificate Secret, PEM, the leaf first.
pub const SECRET_CERT_KEY: &str = "tls.crt";
/// Key of the private key in a certificate Secret, PEM.
pub const SECRET_PRIVATE_KEY: &str = "tls.key";
/// Key of the trust anchors in a certificate Secret, for readers other than the proxy.
pub const SECRET_CA_KEY: &str = "ca.crt";
/// Secret of the control-plane namespace that holds the roots and issuers.
pub const ROOT_SECRET: &str = "conduit-ca-root";
/// ConfigMap of the control-plane namespace with the options that it was installed with.
pub const INSTALL_CONFIGMAP: &str = "conduit-install";
/// Lease by which the CA's replicas elect a leader.
pub const CA_LEASE: &str = "conduit-ca";

/// The projected volume with certificate, key and trust anchors.
pub const IDENTITY_VOLUME: &str = "conduit-identity";
/// Where [`IDENTITY_VOLUME`] is mounted in the proxy's container.
pub const IDENTITY_MOUNT: &str = "/var/run/conduit/identity";

/// Who we are in server-side apply and in `managedFields`.
pub const FIELD_MANAGER: &str = "conduit";

/// The value of [`ANNOTATION_OWNER`]: `deployment/web`.
pub fn owner_annotation(workload: &Workload) -> String {
    format!("{}/{}", workload.kind.as_str(), workload.name)
}

/// Reads a value of [`ANNOTATION_OWNER`] of a pod in `namespace`; none when it is not of that form.
pub fn parse_owner_annotation(value: &str, namespace: &str) -> Option<Workload> {
    let (kind, name) = value.split_once('/')?;
    let kind = WorkloadKind::parse(kind)?;
    let named = !name.is_empty() && !name.contains('/');
    named.then(|| Workload { namespace: namespace.to_owned(), kind, name: name.to_owned() })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn owner_annotations_are_read_back_as_written() {
        for kind in WorkloadKind::ALL {
            let workload = Workload { namespace: "shop".into(), kind, name: "web.v1".into() };
            assert_eq!(parse_owner_annotation(&owner_annotation(&workload), "shop"), Some(workload));
        }
    }

    #[test]
    fn other_owner_annotations_are_not_read() {
        for value in ["", "web", "deployment/", "Deployment/web", "deployment/web/x", "widget/web"] {
            assert_eq!(parse_owner_annotation(value, "shop"), None, "{value}");
        }
    }
}
