//! A pod's proxy: configured by the variables that inject writes, exactly as the binary is.

use std::{path::Path, time::Duration};

use conduit_identity::{ControlPlane, Identity};
use conduit_k8s::owned;

use crate::deployment::{Deployment, Sidecar};

/// How often the proxy looks for new credentials here: a demonstration is short.
const TLS_POLL: &str = "1s";

/// The environment of the sidecar of a pod of `deployment` whose credentials are in the directory `identity`, and which
/// goes on accepting for `grace` when it is told to stop.
pub(crate) fn environment(
    deployment: &Deployment,
    control_plane: &ControlPlane,
    grace: Duration,
    identity: &Path,
) -> Vec<(&'static str, String)> {
    let destination = control_plane.component(owned::COMPONENT_DESTINATION);
    let host = format!("{}.{}.svc.cluster.local", destination.name, destination.namespace);
    let mut variables = vec![
        ("CONDUIT_PROXY_POD_NAMESPACE", deployment.namespace.clone()),
        ("CONDUIT_PROXY_CONTROLLER_NAMESPACE", control_plane.namespace.clone()),
        ("CONDUIT_PROXY_TRUST_DOMAIN", control_plane.trust_domain.clone()),
        ("CONDUIT_PROXY_CONTROL_URL", format!("tcp://{host}:{}", owned::PORT_DESTINATION)),
        ("CONDUIT_PROXY_TLS_CONTROLLER_IDENTITY", Identity::of(&destination, control_plane).to_string()),
        ("CONDUIT_PROXY_PUBLIC_LISTENER", format!("tcp://0.0.0.0:{}", owned::PORT_INBOUND)),
        ("CONDUIT_PROXY_PRIVATE_LISTENER", format!("tcp://127.0.0.1:{}", owned::PORT_OUTBOUND)),
        ("CONDUIT_PROXY_CONTROL_LISTENER", format!("tcp://0.0.0.0:{}", owned::PORT_TAP)),
        ("CONDUIT_PROXY_METRICS_LISTENER", format!("tcp://0.0.0.0:{}", owned::PORT_ADMIN)),
        ("CONDUIT_PROXY_DRAIN_GRACE", format!("{}ms", grace.as_millis())),
    ];
    if deployment.sidecar == Sidecar::Tls {
        let file = |name: &str| identity.join(name).to_string_lossy().into_owned();
        variables.extend([
            ("CONDUIT_PROXY_TLS_TRUST_ANCHORS", file(owned::BUNDLE_KEY)),
            ("CONDUIT_PROXY_TLS_CERT", file(owned::SECRET_CERT_KEY)),
            ("CONDUIT_PROXY_TLS_PRIVATE_KEY", file(owned::SECRET_PRIVATE_KEY)),
            (
                "CONDUIT_PROXY_TLS_POD_IDENTITY",
                Identity::of(&deployment.workload(), control_plane).to_string(),
            ),
            ("CONDUIT_PROXY_TLS_POLL_INTERVAL", TLS_POLL.to_owned()),
        ]);
    }
    variables
}
