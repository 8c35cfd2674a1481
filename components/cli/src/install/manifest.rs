//! Every object of the control plane, in the order of its making.

use conduit_k8s::owned;
use serde_json::{Value, json};

use super::{
    Options,
    component::{Component, Port, Right, Variable, follow},
    prometheus, record,
};
use crate::{mesh_options::Tls, version::VERSION, yaml::emit};

/// The manifests as text.
pub fn render(options: &Options) -> String {
    let sections = sections(options);
    let document = |(title, object): (&str, &Value)| format!("---\n{title}{}", emit::document(object));
    let documents = sections.iter().flat_map(|(title, objects)| {
        let title = format!("### {title} ###\n");
        let objects = objects.iter().enumerate();
        objects
            .map(move |(index, object)| document((if index == 0 { &title } else { "" }, object)))
            .collect::<Vec<_>>()
    });
    documents.collect()
}

/// The manifests as objects, in named sections.
pub fn sections(options: &Options) -> Vec<(&'static str, Vec<Value>)> {
    let tls = options.flags.mesh.tls == Tls::Optional;
    let mut sections = vec![("Namespace", vec![namespace(options), record::object(options)])];
    if tls {
        sections.push(("Certificate authority", ca(options).objects(options)));
    }
    sections.push(("Destination service", destination(options).objects(options)));
    sections.push(("API", observe(options).objects(options)));
    if options.flags.prometheus_replicas > 0 {
        sections.push(("Prometheus", prometheus::objects(options)));
    }
    sections
}

/// The namespace admits what Pod Security calls restricted, and nothing else: every component passes it.
fn namespace(options: &Options) -> Value {
    json!({
        "apiVersion": "v1",
        "kind": "Namespace",
        "metadata": {
            "name": options.control_plane.namespace,
            "labels": {
                owned::LABEL_CONTROL_PLANE_NS: options.control_plane.namespace,
                "pod-security.kubernetes.io/enforce": "restricted",
            },
            "annotations": {owned::ANNOTATION_CREATED_BY: format!("conduit/cli {VERSION}")},
        },
    })
}

fn ca(options: &Options) -> Component {
    let bundle = Some(owned::BUNDLE_CONFIGMAP);
    let lease = Some(owned::CA_LEASE);
    Component {
        name: owned::COMPONENT_CA,
        prefix: "CONDUIT_CA",
        replicas: options.flags.controller_replicas,
        // It serves no peer, so it needs no certificate.
        serves_tls: false,
        variables: vec![
            ("CONTROL_PLANE_NAMESPACE", Variable::Text(options.control_plane.namespace.clone())),
            ("TRUST_DOMAIN", Variable::Text(options.control_plane.trust_domain.clone())),
            ("POD_NAME", Variable::PodName),
            ("ADMIN_ADDR", Variable::Text(listener(owned::PORT_CA_ADMIN))),
            ("LOG", Variable::Text(options.flags.controller_log_level.clone())),
        ],
        ports: vec![],
        admin: owned::PORT_CA_ADMIN,
        requests: ("10m", "32Mi"),
        cluster_rights: vec![
            Right { group: "", resources: &["pods"], names: None, verbs: &["list", "watch"] },
            Right { group: "apps", resources: &["replicasets"], names: None, verbs: &["list", "watch"] },
            Right { group: "batch", resources: &["jobs"], names: None, verbs: &["list", "watch"] },
            // Secrets have their workloads' names, so they cannot be named here.
            Right {
                group: "",
                resources: &["secrets"],
                names: None,
                verbs: &["get", "list", "watch", "create", "update"],
            },
            Right {
                group: "",
                resources: &["configmaps"],
                names: bundle,
                verbs: &["get", "list", "watch", "update"],
            },
            // What does not exist yet has no name to restrict to.
            Right { group: "", resources: &["configmaps"], names: None, verbs: &["create"] },
        ],
        own_rights: vec![
            Right {
                group: "coordination.k8s.io",
                resources: &["leases"],
                names: lease,
                verbs: &["get", "update"],
            },
            Right { group: "coordination.k8s.io", resources: &["leases"], names: None, verbs: &["create"] },
        ],
    }
}

fn destination(options: &Options) -> Component {
    let port = options.flags.mesh.api_port;
    let zone = ("DNS_ZONE", Variable::Text(options.flags.mesh.cluster_domain.clone()));
    let mut variables = serving(options, port, owned::PORT_DESTINATION_ADMIN);
    variables.push(zone);
    Component {
        name: owned::COMPONENT_DESTINATION,
        prefix: "CONDUIT_DESTINATION",
        replicas: options.flags.controller_replicas,
        serves_tls: true,
        variables,
        ports: vec![Port { name: "grpc", port }],
        admin: owned::PORT_DESTINATION_ADMIN,
        requests: ("50m", "64Mi"),
        cluster_rights: vec![
            follow("", &["endpoints", "pods", "services"]),
            follow("apps", &["replicasets"]),
            follow("batch", &["jobs"]),
            follow("discovery.k8s.io", &["endpointslices"]),
        ],
        own_rights: vec![],
    }
}

fn observe(options: &Options) -> Component {
    let mut variables = serving(options, owned::PORT_OBSERVE, owned::PORT_OBSERVE_ADMIN);
    let prometheus = options.flags.prometheus_url.iter();
    variables.extend(prometheus.map(|url| ("PROMETHEUS_URL", Variable::Text(url.to_string()))));
    Component {
        name: owned::COMPONENT_OBSERVE,
        prefix: "CONDUIT_OBSERVE",
        replicas: options.flags.web_replicas,
        serves_tls: true,
        variables,
        ports: vec![Port { name: "http", port: owned::PORT_OBSERVE }],
        admin: owned::PORT_OBSERVE_ADMIN,
        requests: ("50m", "96Mi"),
        cluster_rights: vec![
            follow("", &["namespaces", "pods", "replicationcontrollers", "services"]),
            follow("apps", &["daemonsets", "deployments", "replicasets", "statefulsets"]),
            follow("batch", &["cronjobs", "jobs"]),
            // Who taps, and whether they may.
            Right {
                group: "authentication.k8s.io",
                resources: &["tokenreviews"],
                names: None,
                verbs: &["create"],
            },
            Right {
                group: "authorization.k8s.io",
                resources: &["subjectaccessreviews"],
                names: None,
                verbs: &["create"],
            },
        ],
        own_rights: vec![],
    }
}

/// The variables of a component that serves others.
fn serving(options: &Options, port: u16, admin: u16) -> Vec<(&'static str, Variable)> {
    let mut variables = vec![
        ("LISTENER", Variable::Text(listener(port))),
        ("ADMIN_LISTENER", Variable::Text(listener(admin))),
        ("CONTROL_NAMESPACE", Variable::Text(options.control_plane.namespace.clone())),
        ("TRUST_DOMAIN", Variable::Text(options.control_plane.trust_domain.clone())),
        ("LOG", Variable::Text(options.flags.controller_log_level.clone())),
    ];
    if options.flags.mesh.tls == Tls::Optional {
        variables.push(("TLS_DIRECTORY", Variable::Text(owned::IDENTITY_MOUNT.to_owned())));
    }
    variables
}

fn listener(port: u16) -> String {
    format!("tcp://0.0.0.0:{port}")
}
