//! What a pod gets: labels and annotations, the proxy, the container that redirects the pod's traffic to it, and the
//! volume with the proxy's credentials.

use conduit_identity::{Workload, WorkloadKind};
use conduit_k8s::owned;
use serde_json::{Value, json};

use super::{
    graft::Graft,
    prune::{Pattern, Prune},
    workload::Resource,
};
use crate::{inject::Options, mesh_options::Tls, version::VERSION};

/// Annotation that keeps what inject had to replace rather than add to, for `uninject`.
pub const ANNOTATION_REPLACED: &str = "conduit.io/replaced";

/// Stands in the identity for what only the pod knows; the proxy fills it in.
const POD_NAMESPACE: &str = "$CONDUIT_PROXY_POD_NAMESPACE";

/// Volumes of v0.5.0.
const OLD_VOLUMES: [&str; 2] = ["conduit-trust-anchors", "conduit-secrets"];
const VOLUMES: [&str; 3] = [owned::IDENTITY_VOLUME, OLD_VOLUMES[0], OLD_VOLUMES[1]];

/// The addition to the pod template of a resource.
pub struct Addition {
    /// What is added.
    pub graft: Graft,
    /// Why it is not what the flags ask for.
    pub warning: Option<String>,
}

/// What to add to the pod template of `resource`, of this kind.
pub fn addition(resource: &Resource, kind: WorkloadKind, options: &Options) -> Addition {
    let owner = Owner::of(resource, kind, options);
    let warning = (options.flags.mesh.tls == Tls::Optional).then(|| owner.as_ref().err().cloned()).flatten();
    let owner = owner.ok();
    let tls = owner.as_ref().filter(|_| options.flags.mesh.tls == Tls::Optional);
    let (init, proxy) = (init_container(options), proxy_container(options, tls));
    let (containers, init_containers) = if options.flags.native_sidecar {
        (vec![], vec![init, native(proxy)])
    } else {
        (vec![proxy], vec![init])
    };
    let mut spec =
        vec![("initContainers".to_owned(), Graft::Splice { first: vec![], last: init_containers })];
    if !containers.is_empty() {
        spec.push(("containers".to_owned(), Graft::Splice { first: containers, last: vec![] }));
    }
    if let Some(owner) = tls {
        let volumes = Graft::Splice { first: vec![volume(&owner.workload)], last: vec![] };
        spec.push(("volumes".to_owned(), volumes));
    }
    let metadata = vec![
        ("annotations".to_owned(), annotations(owner.as_ref(), tls.is_some(), options)),
        ("labels".to_owned(), labels(owner.as_ref(), options)),
    ];
    let graft = Graft::Merge(vec![
        ("metadata".to_owned(), Graft::Merge(metadata)),
        ("spec".to_owned(), Graft::Merge(spec)),
    ]);
    Addition { graft, warning }
}

/// The same addition with a record of what it replaces.
pub fn with_record(graft: Graft, replaced: &[(String, String)]) -> Graft {
    let record: serde_json::Map<_, _> =
        replaced.iter().map(|(at, text)| (at.clone(), Value::from(text.as_str()))).collect();
    let note =
        ("annotations".to_owned(), set(vec![(ANNOTATION_REPLACED, Value::Object(record).to_string())]));
    merged(graft, "metadata", note)
}

fn merged(graft: Graft, part: &str, note: (String, Graft)) -> Graft {
    let Graft::Merge(mut parts) = graft else { return graft };
    for (key, value) in &mut parts {
        if let (true, Graft::Merge(entries)) = (key == part, &mut *value) {
            for (key, value) in entries {
                if let (true, Graft::Merge(old), Graft::Merge(new)) = (*key == note.0, value, &note.1) {
                    old.extend(new.clone());
                }
            }
        }
    }
    Graft::Merge(parts)
}

/// Everything that any release of Conduit added to pod templates.
pub fn removal() -> Prune {
    let keys =
        |keys: &[&'static str]| keys.iter().map(|key| (Pattern::Key(key), Prune::Whole)).collect::<Vec<_>>();
    let annotations = keys(&[
        owned::ANNOTATION_CREATED_BY,
        owned::ANNOTATION_PROXY_VERSION,
        owned::ANNOTATION_TLS,
        owned::ANNOTATION_OWNER,
        ANNOTATION_REPLACED,
    ]);
    let mut labels = keys(&[owned::LABEL_CONTROL_PLANE_NS]);
    labels.push((Pattern::Prefix("conduit.io/proxy-"), Prune::Whole));
    let containers = &[owned::PROXY_CONTAINER, owned::INIT_CONTAINER];
    Prune::Entries(vec![
        (
            Pattern::Key("metadata"),
            Prune::Entries(vec![
                (Pattern::Key("annotations"), Prune::Entries(annotations)),
                (Pattern::Key("labels"), Prune::Entries(labels)),
            ]),
        ),
        (
            Pattern::Key("spec"),
            Prune::Entries(vec![
                (Pattern::Key("initContainers"), Prune::Named(containers)),
                (Pattern::Key("containers"), Prune::Named(containers)),
                (Pattern::Key("volumes"), Prune::Named(&VOLUMES)),
            ]),
        ),
    ])
}

/// The workload that owns the pods, as far as the manifest tells it.
struct Owner {
    workload: Workload,
}

impl Owner {
    /// # Errors
    /// Why it cannot be known before the object is in the cluster.
    fn of(resource: &Resource, kind: WorkloadKind, options: &Options) -> Result<Self, String> {
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
    fn identity(&self, options: &Options) -> String {
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

fn set(pairs: Vec<(&str, String)>) -> Graft {
    Graft::Merge(pairs.into_iter().map(|(key, value)| (key.to_owned(), Graft::Set(value.into()))).collect())
}

fn annotations(owner: Option<&Owner>, tls: bool, options: &Options) -> Graft {
    let tls = if tls { Tls::Optional } else { Tls::Disabled };
    let mut pairs = vec![(owned::ANNOTATION_CREATED_BY, format!("conduit/cli {VERSION}"))];
    if let Some(owner) = owner {
        pairs.push((owned::ANNOTATION_OWNER, owned::owner_annotation(&owner.workload)));
    }
    pairs.push((owned::ANNOTATION_PROXY_VERSION, options.flags.mesh.conduit_version.clone()));
    pairs.push((owned::ANNOTATION_TLS, tls.as_str().to_owned()));
    set(pairs)
}

fn labels(owner: Option<&Owner>, options: &Options) -> Graft {
    let mut pairs = vec![(owned::LABEL_CONTROL_PLANE_NS, options.control_plane.namespace.clone())];
    if let Some(Owner { workload }) = owner
        && let Some(label) = workload.kind.proxy_label()
    {
        pairs.push((label, workload.label_value()));
    }
    set(pairs)
}

fn proxy_container(options: &Options, tls: Option<&Owner>) -> Value {
    let flags = &options.flags;
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": flags.metrics_port}});
    let mut container = json!({
        "name": owned::PROXY_CONTAINER,
        "image": flags.mesh.image(&flags.proxy_image),
        "imagePullPolicy": flags.mesh.image_pull_policy.to_string(),
        "terminationMessagePolicy": "FallbackToLogsOnError",
        "env": environment(options, tls),
        "ports": [
            {"name": owned::PORT_NAME_PROXY, "containerPort": options.flags.inbound_port},
            {"name": owned::PORT_NAME_METRICS, "containerPort": flags.metrics_port},
        ],
        // The application's container is not started before the proxy accepts.
        "lifecycle": {"postStart": {"exec": {"command": ["conduit-proxy", "wait-ready"]}}},
        "livenessProbe": probe("/live"),
        "readinessProbe": probe("/ready"),
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
fn native(mut proxy: Value) -> Value {
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

fn environment(options: &Options, tls: Option<&Owner>) -> Value {
    let flags = &options.flags;
    let namespace = &options.control_plane.namespace;
    let mut pairs = vec![
        ("LOG", flags.proxy_log_level.clone()),
        ("BIND_TIMEOUT", flags.proxy_bind_timeout.clone()),
        (
            "CONTROL_URL",
            format!(
                "tcp://{}.{namespace}.svc.cluster.local:{}",
                owned::COMPONENT_DESTINATION,
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
            (
                "TLS_CONTROLLER_IDENTITY",
                conduit_identity::Identity::of(&destination, control_plane).to_string(),
            ),
        ]);
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

fn init_container(options: &Options) -> Value {
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
