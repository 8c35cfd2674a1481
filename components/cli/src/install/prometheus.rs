//! A Prometheus that scrapes every proxy and the control plane, as v0.5.0 came with: for those who want to keep their
//! metrics and have none yet. Conduit itself does not need it.

use conduit_k8s::owned;
use conduit_observe::sources;
use serde_json::{Map, Value, json};

use super::{Options, component};
use crate::version::VERSION;

const NAME: &str = "prometheus";
const CONFIG: &str = "prometheus-config";
/// Dashboards for a Grafana that looks for them.
const GRAFANA: &str = "grafana-dashboards";
const PORT: u16 = 9090;
/// The user of Prometheus' own image, nobody.
const UID: i64 = 65534;

/// Its objects, in the order of their making.
pub(super) fn objects(options: &Options) -> Vec<Value> {
    let namespace = &options.control_plane.namespace;
    let cluster_name = format!("conduit-{namespace}-{NAME}");
    let rbac = "rbac.authorization.k8s.io";
    let object = |version: &str, kind: &str, name: &str, body: (&str, Value)| {
        let mut metadata = json!({
            "name": name,
            "labels": component::labels(NAME, options),
            "annotations": {owned::ANNOTATION_CREATED_BY: format!("conduit/cli {VERSION}")},
        });
        if !kind.starts_with("Cluster") {
            metadata["namespace"] = namespace.as_str().into();
        }
        let mut object = json!({"apiVersion": version, "kind": kind, "metadata": metadata});
        object[body.0] = body.1;
        object
    };
    let data = json!({
        "prometheus.yml": configuration(namespace),
        "rules.yml": sources::prometheus::RULES,
        "alerts.yml": sources::prometheus::ALERTS,
    });
    let account = json!({"kind": "ServiceAccount", "name": NAME, "namespace": namespace});
    let rules = json!([{"apiGroups": [""], "resources": ["pods"], "verbs": ["get", "list", "watch"]}]);
    let mut binding =
        object(&format!("{rbac}/v1"), "ClusterRoleBinding", &cluster_name, ("subjects", json!([account])));
    binding["roleRef"] = json!({"apiGroup": rbac, "kind": "ClusterRole", "name": cluster_name});
    let selector = json!({owned::LABEL_COMPONENT: NAME});
    let service = json!({
        "selector": selector,
        "ports": [{"name": "admin-http", "port": PORT, "targetPort": "admin-http"}],
    });
    let deployment = json!({
        "replicas": options.flags.prometheus_replicas,
        "selector": {"matchLabels": selector},
        "template": {
            "metadata": {"labels": component::labels(NAME, options)},
            "spec": pod(options),
        },
    });
    let dashboards: Map<String, Value> = sources::prometheus::DASHBOARDS
        .iter()
        .map(|(name, text)| ((*name).to_owned(), (*text).into()))
        .collect();
    let mut grafana = object("v1", "ConfigMap", GRAFANA, ("data", dashboards.into()));
    // What the sidecar of Grafana's Helm chart looks for.
    grafana["metadata"]["labels"]["grafana_dashboard"] = "1".into();
    let mut objects = vec![
        object("v1", "ServiceAccount", NAME, ("automountServiceAccountToken", true.into())),
        object(&format!("{rbac}/v1"), "ClusterRole", &cluster_name, ("rules", rules)),
        binding,
        object("v1", "ConfigMap", CONFIG, ("data", data)),
        grafana,
        object("v1", "Service", NAME, ("spec", service)),
        object("apps/v1", "Deployment", NAME, ("spec", deployment)),
    ];
    if options.flags.prometheus_replicas > 1 {
        let budget = ("spec", json!({"maxUnavailable": 1, "selector": {"matchLabels": selector}}));
        objects.push(object(options.flags.kube_version.policy(), "PodDisruptionBudget", NAME, budget));
    }
    objects
}

fn pod(options: &Options) -> Value {
    let probe = |path: &str| json!({"httpGet": {"path": path, "port": "admin-http"}});
    json!({
        "serviceAccountName": NAME,
        "enableServiceLinks": false,
        "nodeSelector": {"kubernetes.io/os": "linux"},
        "securityContext": component::pod_security(UID),
        "containers": [{
            "name": NAME,
            "image": options.flags.prometheus_image,
            "imagePullPolicy": options.flags.mesh.image_pull_policy.to_string(),
            "terminationMessagePolicy": "FallbackToLogsOnError",
            "args": [
                "--config.file=/etc/prometheus/prometheus.yml",
                "--storage.tsdb.path=/prometheus",
                "--storage.tsdb.retention.time=6h",
            ],
            "ports": [{"name": "admin-http", "containerPort": PORT}],
            "livenessProbe": probe("/-/healthy"),
            "readinessProbe": probe("/-/ready"),
            "resources": {"requests": {"cpu": "100m", "memory": "300Mi"}},
            "securityContext": component::container_security(),
            "volumeMounts": [
                {"name": "config", "mountPath": "/etc/prometheus", "readOnly": true},
                {"name": "data", "mountPath": "/prometheus"},
            ],
        }],
        "volumes": [
            {"name": "config", "configMap": {"name": CONFIG}},
            {"name": "data", "emptyDir": {}},
        ],
    })
}

/// The jobs and relabelling of v0.5.0: labels `conduit.io/proxy-x` of pods become labels `x` of series.
fn configuration(namespace: &str) -> String {
    let proxy = owned::PROXY_CONTAINER;
    let port = owned::PORT_NAME_METRICS;
    format!(
        r"global:
  scrape_interval: 10s
  scrape_timeout: 10s
  evaluation_interval: 10s
rule_files: [rules.yml, alerts.yml]
scrape_configs:
- job_name: prometheus
  static_configs:
  - targets: ['localhost:{PORT}']
- job_name: conduit-controller
  kubernetes_sd_configs:
  - role: pod
    namespaces:
      names: ['{namespace}']
  relabel_configs:
  - source_labels: [__meta_kubernetes_pod_label_conduit_io_control_plane_component, __meta_kubernetes_pod_container_port_name]
    action: keep
    regex: (.+);admin-http
  - source_labels: [__meta_kubernetes_pod_container_name]
    target_label: component
- job_name: conduit-proxy
  kubernetes_sd_configs:
  - role: pod
  relabel_configs:
  - source_labels:
    - __meta_kubernetes_pod_container_name
    - __meta_kubernetes_pod_container_port_name
    - __meta_kubernetes_pod_label_conduit_io_control_plane_ns
    action: keep
    regex: {proxy};{port};{namespace}
  - source_labels: [__meta_kubernetes_namespace]
    target_label: namespace
  - source_labels: [__meta_kubernetes_pod_name]
    target_label: pod
  - source_labels: [__meta_kubernetes_pod_label_conduit_io_proxy_job]
    target_label: k8s_job
  - action: labeldrop
    regex: __meta_kubernetes_pod_label_conduit_io_proxy_job
  - action: labelmap
    regex: __meta_kubernetes_pod_label_conduit_io_proxy_(.+)
"
    )
}
