//! What runs and is mounted in an injected pod: the proxy, the container that redirects the pod's traffic to it, and the
//! volume with the proxy's credentials.

use std::collections::BTreeSet;

use conduit_identity::{Identity, Workload};
use conduit_k8s::owned;
use conduit_proxy::probe::TcpProbe;
use serde_json::{Value, json};

use super::{Options, owner::Owner};

/// The proxy; `tls` is whose identity it has, if it has one, and `probes` what the kubelet asks it about the application.
pub(super) fn proxy_container(options: &Options, tls: Option<&Owner>, probes: &BTreeSet<TcpProbe>) -> Value {
    let flags = &options.flags;
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": flags.metrics_port}});
    let mut container = json!({
        "name": owned::PROXY_CONTAINER,
        "image": flags.mesh.image(&flags.proxy_image),
        "imagePullPolicy": flags.mesh.image_pull_policy.to_string(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": environment(options, tls, probes),
        "ports": [
            {"name": owned::PORT_NAME_PROXY, "containerPort": options.flags.inbound_port},
            {"name": owned::PORT_NAME_METRICS, "containerPort": flags.metrics_port},
        ],
        // The application's container is not started before the proxy accepts.
        "lifecycle": {"postStart": {"exec": {"command": ["conduit-proxy", "wait-ready"]}}},
        "livenessProbe": probe("/live"),
        // Kubernetes would look every ten seconds: a pod would wait that long for its Service, at start and after a crash.
        "readinessProbe": {"httpGet": probe("/ready")["httpGet"], "periodSeconds": 1},
        "resources": {"requests": {"cpu": options.flags.proxy_cpu_request, "memory": options.flags.proxy_memory_request}},
        "securityContext": {
            "runAsUser": flags.proxy_uid,
            "runAsNonRoot": true,
            "allowPrivilegeEscalation": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    });
    if tls.is_some() {
        container["volumeMounts"] =
            json!([{"name": owned::IDENTITY_VOLUME, "mountPath": owned::IDENTITY_MOUNT, "readOnly": true}]);
    }
    container
}

/// The proxy as an init container that keeps running: Kubernetes starts it before the application, stops it after, and
/// does not wait for it at the end of a Job.
pub(super) fn native(mut proxy: Value) -> Value {
    proxy["restartPolicy"] = "Always".into();
    proxy["startupProbe"] = json!({
        "httpGet": proxy["readinessProbe"]["httpGet"],
        "periodSeconds": 1,
        "failureThreshold": 60,
    });
    if let Value::Object(container) = &mut proxy {
        container.shift_remove("lifecycle");
    }
    proxy
}

/// The proxy of a pod that comes to an end: it asks when everything else in its pod has ended, by the pod's uid.
pub(super) fn ending(mut proxy: Value) -> Value {
    if let Some(variables) = proxy.get_mut("env").and_then(Value::as_array_mut) {
        variables.push(json!({
            "name": "CONDUIT_PROXY_END_WITH_POD",
            "valueFrom": {"fieldRef": {"fieldPath": "metadata.uid"}},
        }));
    }
    proxy
}

fn environment(options: &Options, tls: Option<&Owner>, probes: &BTreeSet<TcpProbe>) -> Value {
    let flags = &options.flags;
    let namespace = &options.control_plane.namespace;
    let mut pairs = vec![
        ("LOG", flags.proxy_log_level.clone()),
        ("PUBLIC_CONNECT_TIMEOUT", flags.proxy_bind_timeout.clone()),
        (
            "CONTROL_URL",
            format!(
                "tcp://{}.{namespace}.svc.{}:{}",
                owned::COMPONENT_DESTINATION,
                flags.mesh.cluster_domain,
                flags.mesh.api_port
            ),
        ),
        ("CONTROL_LISTENER", format!("tcp://0.0.0.0:{}", flags.control_port)),
        ("METRICS_LISTENER", format!("tcp://0.0.0.0:{}", flags.metrics_port)),
        ("PRIVATE_LISTENER", format!("tcp://127.0.0.1:{}", options.flags.outbound_port)),
        ("PUBLIC_LISTENER", format!("tcp://0.0.0.0:{}", options.flags.inbound_port)),
    ];
    if let Some(owner) = tls {
        let control_plane = &options.control_plane;
        let destination = control_plane.component(owned::COMPONENT_DESTINATION);
        let file = |name: &str| format!("{}/{name}", owned::IDENTITY_MOUNT);
        pairs.extend([
            ("TLS_TRUST_ANCHORS", file(owned::BUNDLE_KEY)),
            ("TLS_CERT", file(owned::SECRET_CERT_KEY)),
            ("TLS_PRIVATE_KEY", file(owned::SECRET_PRIVATE_KEY)),
            ("TLS_POD_IDENTITY", owner.identity(options)),
            ("CONTROLLER_NAMESPACE", namespace.clone()),
            ("TRUST_DOMAIN", control_plane.trust_domain.clone()),
            ("TLS_CONTROLLER_IDENTITY", Identity::of(&destination, control_plane).to_string()),
        ]);
    }
    if !probes.is_empty() {
        let list = probes.iter().map(TcpProbe::to_string).collect::<Vec<_>>().join(",");
        pairs.push(("TCP_PROBES", list));
    }
    let variable =
        |(name, value): (&str, String)| json!({"name": format!("CONDUIT_PROXY_{name}"), "value": value});
    let mut variables: Vec<Value> = pairs.into_iter().map(variable).collect();
    let namespace = json!({
        "name": "CONDUIT_PROXY_POD_NAMESPACE",
        "valueFrom": {"fieldRef": {"fieldPath": "metadata.namespace"}},
    });
    variables.insert(7, namespace);
    Value::Array(variables)
}

/// The container that redirects the pod's traffic before anything else of the pod runs.
pub(super) fn init_container(options: &Options) -> Value {
    let flags = &options.flags;
    let list = |ports: &[u16]| ports.iter().map(u16::to_string).collect::<Vec<_>>().join(",");
    // Probes and tap must reach the proxy itself.
    let inbound =
        [options.flags.skip_inbound_ports.as_slice(), &[flags.control_port, flags.metrics_port]].concat();
    let mut args = vec![
        "--incoming-proxy-port".to_owned(),
        options.flags.inbound_port.to_string(),
        "--outgoing-proxy-port".to_owned(),
        options.flags.outbound_port.to_string(),
        "--proxy-uid".to_owned(),
        flags.proxy_uid.to_string(),
        "--inbound-ports-to-ignore".to_owned(),
        list(&inbound),
    ];
    if !options.flags.skip_outbound_ports.is_empty() {
        args.extend(["--outbound-ports-to-ignore".to_owned(), list(&options.flags.skip_outbound_ports)]);
    }
    json!({
        "name": owned::INIT_CONTAINER,
        "image": flags.mesh.image(&flags.init_image),
        "imagePullPolicy": flags.mesh.image_pull_policy.to_string(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "args": args,
        "resources": {"requests": {"cpu": "10m", "memory": "16Mi"}},
        "securityContext": {
            "runAsUser": 0,
            "runAsNonRoot": false,
            "allowPrivilegeEscalation": false,
            "privileged": false,
            "readOnlyRootFilesystem": true,
            "capabilities": {"add": ["NET_ADMIN", "NET_RAW"], "drop": ["ALL"]},
            "seccompProfile": {"type": "RuntimeDefault"},
        },
    })
}

/// Certificate, key and trust anchors as one volume, so that all change in one atomic swap. Neither source need exist
/// for the pod to start.
pub fn volume(workload: &Workload) -> Value {
    let items = |keys: &[&str]| keys.iter().map(|key| json!({"key": key, "path": key})).collect::<Vec<_>>();
    let secret = [owned::SECRET_CERT_KEY, owned::SECRET_PRIVATE_KEY, owned::SECRET_CA_KEY];
    json!({
        "name": owned::IDENTITY_VOLUME,
        "projected": {
            // 0444: the volume belongs to root, the proxy does not run as root, and only it mounts the volume.
            "defaultMode": 0o444,
            "sources": [
                {"secret": {"name": workload.secret_name(), "optional": true, "items": items(&secret)}},
                {"configMap": {"name": owned::BUNDLE_CONFIGMAP, "optional": true, "items": items(&[owned::BUNDLE_KEY])}},
            ],
        },
    })
}
