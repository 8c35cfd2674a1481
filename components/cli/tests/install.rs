//! What `conduit install` prints: golden, and judged by those who will read it.

#![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

use std::collections::BTreeSet;

use clap::Parser;
use conduit_cli::{
    args::{Cli, Command},
    install::{Options, manifest},
    yaml::{split, value},
};
use conduit_identity::Identity;
use conduit_runtime::env::Env;
use serde_json::Value;

const FULL: [&str; 23] = [
    "--tls=optional",
    "-c",
    "mesh",
    "-v",
    "1.2.3",
    "--registry",
    "r.io/m",
    "--image-pull-policy",
    "Always",
    "--trust-domain",
    "example.org",
    "--cluster-domain",
    "k8s.example",
    "--api-port",
    "9000",
    "--controller-replicas",
    "2",
    "--web-replicas",
    "3",
    "--prometheus-replicas",
    "1",
    "--prometheus-url",
    "http://prometheus.mesh:9090",
];

fn options(flags: &[&str]) -> Options {
    let args = ["conduit", "install"].iter().chain(flags);
    let cli = Cli::try_parse_from(args).expect("the flags are sound");
    let Command::Install(args) = cli.command else { panic!("not install") };
    args.options(&cli.global)
}

fn objects(flags: &[&str]) -> Vec<Value> {
    manifest::sections(&options(flags)).into_iter().flat_map(|(_, objects)| objects).collect()
}

fn text<'v>(value: &'v Value, pointer: &str) -> &'v str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

fn deployment(objects: &[Value], name: &str) -> Value {
    let is_it =
        |object: &&Value| text(object, "/kind") == "Deployment" && text(object, "/metadata/name") == name;
    objects.iter().find(is_it).cloned().unwrap_or_else(|| panic!("no deployment {name}"))
}

/// The environment of a Deployment's container as a process would see it.
fn environment(deployment: &Value) -> Vec<(String, String)> {
    let variables = deployment.pointer("/spec/template/spec/containers/0/env").and_then(Value::as_array);
    let value = |variable: &Value| match variable.get("value") {
        Some(value) => value.as_str().expect("a string").to_owned(),
        None => text(variable, "/valueFrom/fieldRef/fieldPath").to_owned(),
    };
    let variables = variables.expect("it has variables").iter();
    variables.map(|variable| (text(variable, "/name").to_owned(), value(variable))).collect()
}

#[test]
fn the_default_control_plane_is_golden() {
    insta::assert_snapshot!(manifest::render(&options(&[])));
}

#[test]
fn the_control_plane_with_every_flag_is_golden() {
    insta::assert_snapshot!(manifest::render(&options(&FULL)));
}

#[test]
fn what_is_printed_means_the_objects_and_is_the_same_every_time() {
    for flags in [&[][..], &FULL[..]] {
        let printed = manifest::render(&options(flags));
        assert_eq!(printed, manifest::render(&options(flags)));
        let read: Vec<Value> = split::split(&printed)
            .iter()
            .map(|document| value::parse(document.text).expect("well-formed"))
            .collect();
        assert_eq!(read, objects(flags));
    }
}

#[test]
fn the_authority_reads_what_it_is_told() {
    let mut env = Env::from_pairs(environment(&deployment(&objects(&FULL), "ca")));
    let config = conduit_ca::Config::from_env(&mut env);
    env.finish().expect("every value is usable");
    assert_eq!(
        (config.control_plane.namespace.as_str(), config.control_plane.trust_domain.as_str()),
        ("mesh", "example.org")
    );
    assert_eq!((config.holder.as_str(), config.admin.port()), ("metadata.name", 9997));
}

#[test]
fn destination_reads_what_it_is_told() {
    let mut env = Env::from_pairs(environment(&deployment(&objects(&FULL), "destination")));
    let config = conduit_destination::Config::from_env(&mut env);
    env.finish().expect("every value is usable");
    assert_eq!(
        (config.control_plane.namespace.as_str(), config.control_plane.trust_domain.as_str()),
        ("mesh", "example.org")
    );
    assert_eq!((config.listener.port(), config.admin.port()), (9000, 9996));
    assert_eq!((config.zone.as_str(), config.log.as_deref()), ("k8s.example", Some("info")));
    assert!(config.files.is_some());
}

#[test]
fn observe_reads_what_it_is_told() {
    let mut env = Env::from_pairs(environment(&deployment(&objects(&FULL), "observe")));
    let config = conduit_observe::Config::from_env(&mut env);
    env.finish().expect("every value is usable");
    assert_eq!(
        (config.control_plane.namespace.as_str(), config.control_plane.trust_domain.as_str()),
        ("mesh", "example.org")
    );
    assert_eq!((config.listener.port(), config.admin.port()), (8085, 9995));
    assert!(config.files.is_some() && config.log.as_deref() == Some("info"));
}

/// A variable that a component does not read would change nothing, whatever it says.
#[test]
fn every_variable_is_one_that_its_component_reads() {
    type Read = fn(&mut Env) -> String;
    let components: [(&str, Read); 3] = [
        ("ca", |env| format!("{:?}", conduit_ca::Config::from_env(env))),
        ("destination", |env| format!("{:?}", conduit_destination::Config::from_env(env))),
        ("observe", |env| format!("{:?}", conduit_observe::Config::from_env(env))),
    ];
    for (name, read) in components {
        let environment = environment(&deployment(&objects(&FULL), name));
        let read = |environment: &[(String, String)]| {
            let mut env = Env::from_pairs(environment.to_vec());
            format!("{} {}", read(&mut env), env.finish().is_ok())
        };
        let shipped = read(&environment);
        // The authority reads its log filter before everything else, not into its configuration.
        let indices = (0..environment.len()).filter(|index| environment[*index].0 != "CONDUIT_CA_LOG");
        for index in indices {
            let mut other = environment.clone();
            other[index].1.push_str("-other");
            assert_ne!(read(&other), shipped, "{name} does not read {}", other[index].0);
        }
    }
}

#[test]
fn without_tls_there_is_no_authority_and_nobody_has_credentials() {
    let objects = objects(&["--tls=disabled"]);
    assert!(!objects.iter().any(|object| text(object, "/metadata/name") == "ca"));
    for name in ["destination", "observe"] {
        let deployment = deployment(&objects, name);
        assert_eq!(deployment.pointer("/spec/template/spec/volumes"), None);
        assert!(!environment(&deployment).iter().any(|(name, _)| name.contains("TLS")));
    }
}

#[test]
fn those_who_serve_tls_ask_the_authority_for_it() {
    let options = options(&FULL);
    let objects = objects(&FULL);
    for (name, tls) in [("ca", "disabled"), ("destination", "optional"), ("observe", "optional")] {
        let deployment = deployment(&objects, name);
        let template = deployment.pointer("/spec/template/metadata").expect("metadata");
        assert_eq!(text(template, "/labels/conduit.io~1control-plane-component"), name);
        assert_eq!(text(template, "/labels/conduit.io~1control-plane-ns"), "mesh");
        assert_eq!(text(template, "/annotations/conduit.io~1tls"), tls);
        let secret = text(&deployment, "/spec/template/spec/volumes/0/projected/sources/0/secret/name");
        let workload = options.control_plane.component(name);
        assert_eq!(secret, if tls == "optional" { workload.secret_name() } else { String::new() });
        assert!(Identity::of(&workload, &options.control_plane).as_str().starts_with(name));
    }
}

#[test]
fn two_control_planes_share_no_object() {
    let names = |namespace: &str| -> BTreeSet<String> {
        let key = |object: &Value| {
            let part = |pointer| text(object, pointer);
            format!("{} {}/{}", part("/kind"), part("/metadata/namespace"), part("/metadata/name"))
        };
        objects(&["--tls=optional", "--prometheus-replicas=1", "-c", namespace]).iter().map(key).collect()
    };
    assert_eq!(names("one").intersection(&names("two")).count(), 0);
}

#[test]
fn disruption_is_bounded_where_there_is_more_than_one_replica() {
    let budgets = |flags: &[&str]| {
        let objects = objects(flags);
        objects.iter().filter(|object| text(object, "/kind") == "PodDisruptionBudget").count()
    };
    assert_eq!((budgets(&["--tls=optional"]), budgets(&FULL)), (0, 3));
}

/// <https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted>
#[test]
fn every_pod_passes_pod_security_restricted() {
    for object in objects(&FULL).iter().filter(|object| text(object, "/kind") == "Deployment") {
        let pod = object.pointer("/spec/template/spec").expect("a pod");
        let at = |pointer: &str| pod.pointer(pointer).cloned().unwrap_or_default();
        for field in ["/hostNetwork", "/hostPID", "/hostIPC", "/initContainers"] {
            assert_eq!(at(field), Value::Null);
        }
        assert_eq!(at("/securityContext/runAsNonRoot"), true);
        assert_ne!(at("/securityContext/runAsUser"), 0);
        assert_eq!(at("/securityContext/seccompProfile/type"), "RuntimeDefault");
        for container in at("/containers").as_array().expect("containers") {
            let security = &container["securityContext"];
            assert_eq!(security["allowPrivilegeEscalation"], false);
            assert_eq!(security["readOnlyRootFilesystem"], true);
            assert_eq!(security["capabilities"], serde_json::json!({"drop": ["ALL"]}));
            assert!(container.pointer("/resources/requests/cpu").is_some());
            assert!(container.get("livenessProbe").is_some() && container.get("readinessProbe").is_some());
        }
        let allowed = ["configMap", "emptyDir", "projected"];
        for volume in at("/volumes").as_array().into_iter().flatten() {
            assert!(allowed.iter().any(|kind| volume.get(kind).is_some()), "{volume}");
        }
    }
}

#[test]
fn nobody_may_more_than_is_written_here() {
    let mut rights = Vec::new();
    for object in objects(&FULL).iter().filter(|object| text(object, "/kind").ends_with("Role")) {
        for rule in object["rules"].as_array().expect("rules") {
            let list = |field: &str| {
                let values = rule.get(field).and_then(Value::as_array).into_iter().flatten();
                values.filter_map(Value::as_str).collect::<Vec<_>>().join(",")
            };
            let names = list("resourceNames");
            let names = if names.is_empty() { String::new() } else { format!(" named {names}") };
            rights.push(format!(
                "{} {}: {}/{}{names}: {}",
                text(object, "/kind"),
                text(object, "/metadata/name"),
                list("apiGroups"),
                list("resources"),
                list("verbs")
            ));
        }
    }
    insta::assert_snapshot!(rights.join("\n"));
}

#[test]
fn high_availability_is_several_of_everything_unless_said_otherwise() {
    let replicas = |flags: &[&str]| {
        let objects = objects(flags);
        ["ca", "destination", "observe"]
            .map(|name| deployment(&objects, name).pointer("/spec/replicas").and_then(Value::as_u64))
    };
    assert_eq!(replicas(&["--tls=optional"]), [Some(1), Some(1), Some(1)]);
    assert_eq!(replicas(&["--tls=optional", "--ha"]), [Some(3), Some(3), Some(2)]);
    assert_eq!(replicas(&["--tls=optional", "--ha", "--web-replicas=4"]), [Some(3), Some(3), Some(4)]);
}

#[test]
fn disruption_budgets_are_of_the_version_that_the_cluster_has() {
    for (flags, expected) in [
        (&["--ha"][..], "policy/v1"),
        (&["--ha", "--kube-version=v1.30.4-gke.100"], "policy/v1"),
        (&["--ha", "--kube-version=1.20", "--prometheus-replicas=2"], "policy/v1beta1"),
    ] {
        let objects = objects(flags);
        let budgets: BTreeSet<_> = objects
            .iter()
            .filter(|object| text(object, "/kind") == "PodDisruptionBudget")
            .map(|object| text(object, "/apiVersion"))
            .collect();
        assert_eq!(budgets, [expected].into(), "{flags:?}");
    }
}

#[test]
fn several_of_anything_have_a_disruption_budget() {
    let budgets = |flags: &[&str]| {
        let objects = objects(flags);
        let budgets = objects.iter().filter(|object| text(object, "/kind") == "PodDisruptionBudget");
        budgets.map(|budget| text(budget, "/metadata/name").to_owned()).collect::<Vec<_>>()
    };
    let several =
        ["--tls=optional", "--controller-replicas=2", "--web-replicas=2", "--prometheus-replicas=2"];
    assert_eq!(budgets(&several), ["ca", "destination", "observe", "prometheus"]);
    assert_eq!(budgets(&["--prometheus-replicas=1"]), [""; 0]);
}
