//! What every component of the control plane consists of.

use conduit_k8s::owned;
use serde_json::{Map, Value, json};

use super::Options;
use crate::{inject::container, mesh_options::Tls, version::VERSION};

/// The user that components run as: not root, and not the proxy's, whose traffic is told apart by it.
const UID: i64 = 2103;

/// A component: one Deployment of one container, and what it needs.
pub(super) struct Component {
    /// Its name, and that of everything that is its own.
    pub(super) name: &'static str,
    /// What its variables begin with.
    pub(super) prefix: &'static str,
    /// How many pods.
    pub(super) replicas: u16,
    /// Whether it proves who it is to those who connect.
    pub(super) serves_tls: bool,
    /// What it is told, without the prefix.
    pub(super) variables: Vec<(&'static str, Variable)>,
    /// What it serves to others; with none it has no Service.
    pub(super) ports: Vec<Port>,
    /// Where it serves probes and metrics.
    pub(super) admin: u16,
    /// CPU and memory that it asks for.
    pub(super) requests: (&'static str, &'static str),
    /// What it may do in the whole cluster.
    pub(super) cluster_rights: Vec<Right>,
    /// What it may do in its own namespace.
    pub(super) own_rights: Vec<Right>,
}

/// The value of an environment variable.
pub(super) enum Variable {
    /// This.
    Text(String),
    /// The name of the pod.
    PodName,
}

/// A port with its name.
pub(super) struct Port {
    pub(super) name: &'static str,
    pub(super) port: u16,
}

/// A rule of a role.
pub(super) struct Right {
    pub(super) group: &'static str,
    pub(super) resources: &'static [&'static str],
    /// The one object that is meant; all without.
    pub(super) names: Option<&'static str>,
    pub(super) verbs: &'static [&'static str],
}

/// The right to follow these resources everywhere.
pub(super) fn follow(group: &'static str, resources: &'static [&'static str]) -> Right {
    Right { group, resources, names: None, verbs: &["list", "watch"] }
}

impl Component {
    /// Its objects, in the order of their making.
    pub(super) fn objects(&self, options: &Options) -> Vec<Value> {
        let rights = [("ClusterRole", &self.cluster_rights), ("Role", &self.own_rights)];
        let rights = rights.into_iter().filter(|(_, rights)| !rights.is_empty());
        let mut objects = vec![self.object(options, "v1", "ServiceAccount", json!({}))];
        objects.extend(rights.flat_map(|(kind, rights)| self.role(options, kind, rights)));
        if !self.ports.is_empty() {
            objects.push(self.service(options));
        }
        objects.push(self.deployment(options));
        if self.replicas > 1 {
            objects.push(self.disruption_budget(options));
        }
        objects
    }

    /// An object of its name and labels; what is not namespaced has the namespace in its name, so that two control planes
    /// share nothing.
    fn object(&self, options: &Options, version: &str, kind: &str, body: Value) -> Value {
        let mut metadata = json!({
            "name": self.name_of(options, kind),
            "namespace": options.control_plane.namespace,
            "labels": labels(self.name, options),
            "annotations": {owned::ANNOTATION_CREATED_BY: format!("conduit/cli {VERSION}")},
        });
        if let (true, Value::Object(metadata)) = (kind.starts_with("Cluster"), &mut metadata) {
            metadata.shift_remove("namespace");
        }
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        if let (Value::Object(object), Value::Object(body)) = (&mut object, body) {
            object.extend(body);
        }
        object
    }

    fn name_of(&self, options: &Options, kind: &str) -> String {
        match kind.starts_with("Cluster") {
            true => format!("conduit-{}-{}", options.control_plane.namespace, self.name),
            false => self.name.to_owned(),
        }
    }

    /// A role and its binding.
    fn role(&self, options: &Options, kind: &str, rights: &[Right]) -> [Value; 2] {
        const RBAC: &str = "rbac.authorization.k8s.io";
        let version = format!("{RBAC}/v1");
        let rules: Vec<Value> = rights.iter().map(Right::rule).collect();
        let account = json!({
            "kind": "ServiceAccount",
            "name": self.name,
            "namespace": options.control_plane.namespace,
        });
        let reference = json!({"apiGroup": RBAC, "kind": kind, "name": self.name_of(options, kind)});
        let binding = json!({"roleRef": reference, "subjects": [account]});
        [
            self.object(options, &version, kind, json!({"rules": rules})),
            self.object(options, &version, &format!("{kind}Binding"), binding),
        ]
    }

    fn service(&self, options: &Options) -> Value {
        let port = |Port { name, port }: &Port| json!({"name": name, "port": port, "targetPort": name});
        let ports: Vec<Value> = self.ports.iter().map(port).collect();
        self.object(options, "v1", "Service", json!({"spec": {"selector": self.selector(), "ports": ports}}))
    }

    fn disruption_budget(&self, options: &Options) -> Value {
        let spec = json!({"maxUnavailable": 1, "selector": {"matchLabels": self.selector()}});
        self.object(
            options,
            options.flags.kube_version.policy(),
            "PodDisruptionBudget",
            json!({"spec": spec}),
        )
    }

    fn selector(&self) -> Value {
        json!({owned::LABEL_COMPONENT: self.name})
    }

    fn deployment(&self, options: &Options) -> Value {
        let tls = if self.has_identity(options) { Tls::Optional } else { Tls::Disabled };
        let template = json!({
            "metadata": {
                "labels": labels(self.name, options),
                "annotations": {
                    owned::ANNOTATION_CREATED_BY: format!("conduit/cli {VERSION}"),
                    owned::ANNOTATION_TLS: tls.as_str(),
                },
            },
            "spec": self.pod(options),
        });
        let spec = json!({
            "replicas": self.replicas,
            "selector": {"matchLabels": self.selector()},
            "template": template,
        });
        self.object(options, "apps/v1", "Deployment", json!({"spec": spec}))
    }

    fn has_identity(&self, options: &Options) -> bool {
        self.serves_tls && options.flags.mesh.tls == Tls::Optional
    }

    fn pod(&self, options: &Options) -> Value {
        let mut pod = Map::from_iter([
            ("serviceAccountName".to_owned(), self.name.into()),
            ("enableServiceLinks".to_owned(), false.into()),
            ("nodeSelector".to_owned(), json!({"kubernetes.io/os": "linux"})),
            ("securityContext".to_owned(), pod_security(UID)),
            ("containers".to_owned(), json!([self.container(options)])),
        ]);
        if self.has_identity(options) {
            let workload = options.control_plane.component(self.name);
            pod.insert("volumes".to_owned(), json!([container::volume(&workload)]));
        }
        if self.replicas > 1 {
            pod.insert(
                "topologySpreadConstraints".to_owned(),
                json!([{
                    "maxSkew": 1,
                    "topologyKey": "kubernetes.io/hostname",
                    "whenUnsatisfiable": "ScheduleAnyway",
                    "labelSelector": {"matchLabels": self.selector()},
                }]),
            );
        }
        Value::Object(pod)
    }

    fn container(&self, options: &Options) -> Value {
        let mesh = &options.flags.mesh;
        let probe = |path: &str| json!({"httpGet": {"path": path, "port": "admin-http"}});
        let port = |name: &str, port: u16| json!({"name": name, "containerPort": port});
        let mut ports: Vec<Value> = self.ports.iter().map(|it| port(it.name, it.port)).collect();
        ports.push(port("admin-http", self.admin));
        let mut container = json!({
            "name": self.name,
            "image": mesh.image(&format!("conduit/{}", self.name)),
            "imagePullPolicy": mesh.image_pull_policy.to_string(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "env": self.environment(),
            "ports": ports,
            "livenessProbe": probe("/live"),
            // Kubernetes would look every ten seconds, and the mesh would wait that long for a component that has started.
            "readinessProbe": {"httpGet": probe("/ready")["httpGet"], "periodSeconds": 1},
            "resources": {"requests": {"cpu": self.requests.0, "memory": self.requests.1}},
            "securityContext": container_security(),
        });
        if self.has_identity(options) {
            container["volumeMounts"] = json!([{"name": owned::IDENTITY_VOLUME, "mountPath": owned::IDENTITY_MOUNT, "readOnly": true}]);
        }
        container
    }

    fn environment(&self) -> Vec<Value> {
        let variable = |(name, value): &(&str, Variable)| {
            let name = format!("{}_{name}", self.prefix);
            match value {
                Variable::Text(text) => json!({"name": name, "value": text}),
                Variable::PodName => {
                    json!({"name": name, "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}})
                }
            }
        };
        self.variables.iter().map(variable).collect()
    }
}

impl Right {
    fn rule(&self) -> Value {
        let mut rule = json!({"apiGroups": [self.group], "resources": self.resources});
        if let Some(name) = self.names {
            rule["resourceNames"] = json!([name]);
        }
        rule["verbs"] = json!(self.verbs);
        rule
    }
}

/// Labels by which everything of a control plane is found, and everything of a component.
pub(super) fn labels(component: &str, options: &Options) -> Value {
    json!({
        owned::LABEL_COMPONENT: component,
        owned::LABEL_CONTROL_PLANE_NS: options.control_plane.namespace,
    })
}

/// What Pod Security calls restricted, of a pod.
pub(super) fn pod_security(uid: i64) -> Value {
    json!({"runAsNonRoot": true, "runAsUser": uid, "runAsGroup": uid, "seccompProfile": {"type": "RuntimeDefault"}})
}

/// What Pod Security calls restricted, of a container; and nothing can be written.
pub(super) fn container_security() -> Value {
    json!({
        "allowPrivilegeEscalation": false,
        "readOnlyRootFilesystem": true,
        "capabilities": {"drop": ["ALL"]},
    })
}
