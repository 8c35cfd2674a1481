//! Manifests of the shapes that people write: each is injected, checked against an oracle that knows nothing of text,
//! injected again, changed to other flags, and taken back to its original bytes.

#![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

mod support;

use conduit_cli::{
    inject::{document, stream},
    input::Input,
    yaml::emit,
};
use conduit_identity::{ControlPlane, Files, Identity};
use conduit_k8s::owned;
use conduit_runtime::env::Env;
use serde_json::{Map, Value};
use support::{bare_manifests, inject, manifests, options, uninject, values};

/// Flags that differ in what they add.
const FLAGS: [&[&str]; 4] = [
    &["--tls=optional"],
    &["--tls=disabled", "-v", "9.9"],
    &["--tls=optional", "--native-sidecar", "--skip-outbound-ports", "25,3306"],
    &["--tls=optional", "-c", "mesh", "--trust-domain", "example.org", "-n", "shop"],
];

#[test]
fn at_least_fifty_shapes_are_tried() {
    assert!(manifests().len() >= 50);
}

#[test]
fn the_original_bytes_come_back() {
    for input in bare_manifests() {
        for flags in FLAGS {
            let injected = inject(&input.text, &options(flags)).text;
            assert_eq!(uninject(&injected), input.text, "{} {flags:?}\n{injected}", input.name);
        }
    }
}

#[test]
fn injecting_again_changes_nothing_and_other_flags_update() {
    for input in manifests() {
        for flags in FLAGS {
            let injected = inject(&input.text, &options(flags)).text;
            for other in FLAGS {
                let updated = inject(&injected, &options(other)).text;
                assert_eq!(
                    updated,
                    inject(&input.text, &options(other)).text,
                    "{} {flags:?} {other:?}",
                    input.name
                );
            }
        }
    }
}

#[test]
fn nothing_but_the_additions_differs() {
    for input in bare_manifests() {
        for flags in FLAGS {
            let injected = inject(&input.text, &options(flags)).text;
            let bare: Vec<Value> = values(&injected).into_iter().map(without_additions).collect();
            let original: Vec<Value> = values(&input.text).into_iter().map(without_voids).collect();
            let [bare, original] =
                [bare, original].map(|all| all.into_iter().map(without_ports_probed).collect::<Vec<_>>());
            assert_eq!(bare, original, "{} {flags:?}\n{injected}", input.name);
        }
    }
}

/// As it comes back from a cluster, or from an editor: the same objects in another text.
#[test]
fn what_was_written_differently_since_is_still_taken_out() {
    for input in bare_manifests() {
        for flags in FLAGS {
            let injected = values(&inject(&input.text, &options(flags)).text);
            let original: Vec<Value> = values(&input.text).into_iter().map(without_voids).collect();
            let rewritten: [String; 2] = [
                injected.iter().map(|value| format!("---\n{}", emit::document(value))).collect(),
                injected.iter().map(|value| format!("---\n{value:#}\n")).collect(),
            ];
            for text in rewritten {
                let bare: Vec<Value> = values(&uninject(&text)).into_iter().map(without_voids).collect();
                assert_eq!(bare, original, "{} {flags:?}\n{text}", input.name);
            }
        }
    }
}

#[test]
fn what_a_user_changed_since_stays() {
    for name in ["01-", "23-", "29-", "32-", "11-"] {
        let input = manifests().into_iter().find(|input| input.name.starts_with(name)).expect("it is there");
        let injected = inject(&input.text, &options(FLAGS[0])).text;
        for (old, new) in [("web:1", "web:2"), ("web:v3", "web:v4"), ("app: web", "app: shop")] {
            let changed = uninject(&injected.replace(old, new));
            let expected: Vec<Value> =
                values(&input.text.replace(old, new)).into_iter().map(without_voids).collect();
            let changed: Vec<Value> = values(&changed).into_iter().map(without_voids).collect();
            assert_eq!(changed, expected, "{name} {old}");
        }
    }
}

#[test]
fn text_is_only_added_to_unless_it_says_otherwise() {
    for input in bare_manifests() {
        let output = inject(&input.text, &options(FLAGS[0]));
        let anew = output.report.iter().any(|line| line.contains("written anew"));
        let replaced = output.text.contains("conduit.io/replaced");
        if !anew && !replaced {
            assert!(is_subsequence(&input.text, &output.text), "{}\n{}", input.name, output.text);
        }
    }
}

#[test]
fn reports_say_what_was_done_and_why_not() {
    let report: Vec<String> = manifests()
        .iter()
        .map(|input| {
            format!("{}\n  {}", input.name, inject(&input.text, &options(FLAGS[0])).report.join("\n  "))
        })
        .collect();
    insta::assert_snapshot!(report.join("\n"));
}

#[test]
fn injected_manifests_look_like_their_surroundings() {
    let shown = ["01-", "02-", "03-", "04-", "10-", "13-", "16-", "23-", "29-", "32-", "46-", "47-", "54-"];
    for input in manifests().iter().filter(|input| shown.iter().any(|prefix| input.name.starts_with(prefix)))
    {
        insta::assert_snapshot!(input.name.as_str(), inject(&input.text, &options(FLAGS[0])).text);
    }
}

#[test]
fn every_flag_reaches_the_manifest() {
    let flags = [
        "--tls=optional",
        "-c",
        "mesh",
        "--trust-domain",
        "example.org",
        "--cluster-domain",
        "k8s.example.net",
        "-v",
        "1.2.3",
        "--registry",
        "r.io/m",
        "--image-pull-policy",
        "Always",
        "--proxy-uid",
        "77",
        "--proxy-log-level",
        "debug",
        "--proxy-bind-timeout",
        "5s",
        "--api-port",
        "1",
        "--control-port",
        "2",
        "--metrics-port",
        "3",
        "--inbound-port",
        "4",
        "--outbound-port",
        "5",
        "--skip-inbound-ports",
        "25,26",
        "--skip-outbound-ports",
        "3306",
        "--proxy-cpu-request",
        "1",
        "--proxy-memory-request",
        "1Gi",
        "--native-sidecar",
    ];
    let input = manifests().into_iter().find(|input| input.name.starts_with("01-")).expect("it is there");
    insta::assert_snapshot!(inject(&input.text, &options(&flags)).text);
}

/// The environment that an injected proxy sees in the pod's namespace `shop`.
fn environment(injected: &str) -> Vec<(String, String)> {
    let text = |value: &Value, pointer: &str| {
        value.pointer(pointer).and_then(Value::as_str).unwrap_or_default().to_owned()
    };
    let pod = values(injected).remove(0);
    let variables = pod
        .pointer("/spec/template/spec/containers/0/env")
        .and_then(Value::as_array)
        .expect("variables")
        .clone();
    let value = |variable: &Value| match variable.get("value") {
        Some(_) => text(variable, "/value"),
        None => "shop".to_owned(),
    };
    variables.iter().map(|variable| (text(variable, "/name"), value(variable))).collect()
}

#[test]
fn the_proxy_reads_what_it_is_told() {
    let input = manifests().into_iter().find(|input| input.name.starts_with("01-")).expect("it is there");
    let flags = [
        "--tls=optional",
        "-c",
        "mesh",
        "--trust-domain",
        "example.org",
        "--cluster-domain",
        "k8s.example.net",
        "--api-port",
        "9000",
        "--control-port",
        "2000",
    ];
    let mut env = Env::from_pairs(environment(&inject(&input.text, &options(&flags)).text));
    let config = conduit_proxy::Config::from_env(&mut env);
    env.finish().expect("every value is usable");
    assert_eq!(config.tls.problem, None);
    let own = config.tls.own.expect("TLS");
    assert_eq!(own.identity.as_str(), "web.deployment.shop.conduit-managed.mesh.example.org");
    assert_eq!(own.files, Files::in_directory(owned::IDENTITY_MOUNT.as_ref()));
    assert_eq!((config.pod_namespace.as_str(), config.listen.tap.port()), ("shop", 2000));
    assert!(!config.listen.admin.ip().is_loopback() && config.listen.outbound.ip().is_loopback());
    let destination = config.destination.expect("it is told");
    assert_eq!((destination.host.as_str(), destination.port), ("destination.mesh.svc.k8s.example.net", 9000));
    let control_plane = ControlPlane { namespace: "mesh".into(), trust_domain: "example.org".into() };
    assert_eq!(
        destination.identity,
        Some(Identity::of(&control_plane.component("destination"), &control_plane))
    );
}

/// A variable that the proxy does not read would change nothing, whatever it says.
#[test]
fn every_variable_is_one_that_the_proxy_reads() {
    let input = manifests().into_iter().find(|input| input.name.starts_with("01-")).expect("it is there");
    let environment = environment(&inject(&input.text, &options(&["--tls=optional"])).text);
    let read = |environment: &[(String, String)]| {
        let mut env = Env::from_pairs(environment.to_vec());
        let config = conduit_proxy::Config::from_env(&mut env);
        format!("{config:?} {:?}", env.finish().is_ok())
    };
    let shipped = read(&environment);
    // The log filter is read before everything else, not into the configuration.
    let indices = (0..environment.len()).filter(|index| environment[*index].0 != "CONDUIT_PROXY_LOG");
    for index in indices {
        let mut other = environment.clone();
        other[index].1.push_str("-other");
        assert_ne!(read(&other), shipped, "{}", other[index].0);
    }
}

/// A Job would not complete otherwise, and no other proxy must be there to be told.
#[test]
fn only_proxies_of_pods_that_come_to_an_end_ask_for_it() {
    let asks = |policy: &str, flags: &[&str]| {
        let spec = CONTAINERS.replace("spec:\n", &format!("spec:\n{policy}"));
        inject(&pod(&spec), &options(flags)).text.contains("CONDUIT_PROXY_END_WITH_POD")
    };
    for (policy, ends) in [("", false), ("Always", false), ("OnFailure", true), ("Never", true)] {
        let policy = if policy.is_empty() { String::new() } else { format!("  restartPolicy: {policy}\n") };
        assert_eq!(asks(&policy, &[]), ends, "{policy}");
        assert!(!asks(&policy, &["--native-sidecar"]), "Kubernetes ends it");
    }
    let injected =
        inject(&pod(&CONTAINERS.replace("spec:\n", "spec:\n  restartPolicy: Never\n")), &options(&[]));
    let variables = values(&injected.text).remove(0)["spec"]["containers"][0]["env"].clone();
    let variables = variables.as_array().expect("variables").iter();
    let pairs = variables.map(|variable| {
        let field = variable.pointer("/valueFrom/fieldRef/fieldPath");
        let value = variable.get("value").or(field).and_then(Value::as_str);
        (variable["name"].as_str().unwrap_or_default().to_owned(), value.unwrap_or_default().to_owned())
    });
    let mut env = Env::from_pairs(pairs);
    assert_eq!(conduit_proxy::Config::from_env(&mut env).end_with_pod.as_deref(), Some("metadata.uid"));
}

#[test]
fn a_proxy_without_tls_is_told_nothing_of_it() {
    let input = manifests().into_iter().find(|input| input.name.starts_with("01-")).expect("it is there");
    let environment = environment(&inject(&input.text, &options(&[])).text);
    assert!(!environment.iter().any(|(name, _)| name.contains("TLS")));
    let mut env = Env::from_pairs(environment);
    assert_eq!(conduit_proxy::Config::from_env(&mut env).tls, conduit_proxy::Tls::default());
}

#[test]
fn malformed_documents_are_told_with_file_number_and_line() {
    let input = |name: &str, text: &str| Input { name: name.into(), text: text.into() };
    let inputs = [
        input("good.yml", "a: 1\n---\nb: 2\n"),
        input(
            "bad.yml",
            "# head\n---\na: 1\n---\n# x\n---\nkind: Pod\nmetadata:\n  name: x\n name: y\n---\na: 1\na: 2\n",
        ),
        input("chart.yml", "apiVersion: v1\nkind: {{ .Values.kind }}\n"),
        input("bad.json", "{\"a\": 1,\n \"b\": }\n"),
    ];
    let error = stream::transform(&inputs, document::uninject).expect_err("malformed");
    insta::assert_snapshot!(error);
}

#[test]
fn files_are_set_apart_when_there_are_several() {
    let input = |text: &str| Input { name: "x".into(), text: text.into() };
    let inputs = [input("{\"a\": 1}"), input(""), input("b: 1"), input("---\nc: 1\n")];
    let output = stream::transform(&inputs, document::uninject).expect("well-formed").text;
    assert_eq!(output, "---\n{\"a\": 1}\n---\nb: 1\n---\nc: 1\n");
}

#[test]
fn files_that_are_joined_mean_what_they_meant() {
    let input = |text: &str| Input { name: "x".into(), text: text.into() };
    let joined = |texts: &[&str]| {
        let inputs: Vec<_> = texts.iter().map(|text| input(text)).collect();
        stream::transform(&inputs, document::uninject).expect("well-formed").text
    };
    let files = [
        "\u{feff}a: 1\n",
        "\u{feff}---\nb: 1\n",
        "# first\n%YAML 1.2\n---\nc: 1",
        "d: |\n  x | y > z",
        "e:\n- > # folded\n  x\n  y",
        "f: |+2\n    x",
        "g: 1\n",
    ];
    let text = joined(&files);
    let meant = |text: &str| values(text).into_iter().filter(|value| !value.is_null()).collect::<Vec<_>>();
    let wanted: Vec<Value> = files.iter().flat_map(|file| meant(file)).collect();
    assert_eq!(meant(&text), wanted, "{text}");
    assert!(!text.contains('\u{feff}'));
    // Alone, a file stays as it is.
    assert!(files.iter().all(|file| joined(&[file]) == *file));
    assert_eq!(joined(&["%YAML 1.2\n---\na: 1\n", "b: 1\n"]), "%YAML 1.2\n---\na: 1\n---\nb: 1\n");
}

fn pod(text: &str) -> String {
    format!("apiVersion: v1\nkind: Pod\nmetadata:\n  name: web\n{text}")
}

const CONTAINERS: &str = "spec:\n  containers:\n  - name: web\n    image: web:1\n";

#[test]
fn what_becomes_unfit_for_the_mesh_leaves_it() {
    let injected = inject(&pod(CONTAINERS), &options(FLAGS[0])).text;
    let changes = [
        ("spec:\n", "spec:\n  hostNetwork: true\n", "hostNetwork"),
        ("  name: web\n", "  name: web\n  # out\n", ""),
        (
            "  annotations:\n",
            "  annotations:\n    conduit.io/inject: disabled\n",
            "conduit.io/inject is disabled",
        ),
        ("spec:\n", "spec:\n  os: {name: windows}\n", "Windows"),
    ];
    for (old, new, reason) in changes {
        let changed = injected.replacen(old, new, 1);
        let output = inject(&changed, &options(FLAGS[0]));
        match reason {
            "" => {
                assert_eq!((output.text, output.report), (changed, vec!["pod \"web\" unchanged".to_owned()]))
            }
            reason => {
                assert!(output.report[0].starts_with("pod \"web\" uninjected: "), "{:?}", output.report);
                assert!(output.report[0].contains(reason), "{:?}", output.report);
                assert_eq!(output.text, uninject(&changed));
                assert!(!output.text.contains("conduit-proxy"), "{}", output.text);
            }
        }
    }
}

#[test]
fn one_of_several_can_leave_the_mesh() {
    let two = format!("{}---\n{}", pod(CONTAINERS), pod(CONTAINERS).replace("web", "db"));
    let list = "apiVersion: v1\nkind: List\nitems:\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: a, annotations: {x: y}}\n  \
                spec: {containers: [{name: a}]}\n- apiVersion: v1\n  kind: Pod\n  metadata: {name: b}\n  spec: {containers: [{name: b}]}\n";
    for (text, old, new) in [
        (two.as_str(), "  annotations:\n", "  annotations:\n    conduit.io/inject: disabled\n"),
        (list, "x: y", "x: y, conduit.io/inject: disabled"),
    ] {
        let injected = inject(text, &options(FLAGS[0])).text;
        let changed = injected.replacen(old, new, 1);
        assert_ne!(injected, changed);
        let output = inject(&changed, &options(FLAGS[0]));
        assert!(output.report[0].contains("uninjected"), "{:?}", output.report);
        assert!(output.report[1].ends_with("unchanged"), "{:?}", output.report);
        assert_eq!(output.text.matches("conduit/proxy:").count(), 1, "{}", output.text);
    }
}

#[test]
fn what_the_user_named_like_ours_is_neither_taken_away_nor_doubled() {
    for spec in [
        "spec:\n  containers:\n  - name: conduit-proxy\n    image: mine\n",
        "spec:\n  initContainers:\n  - name: conduit-init\n    image: mine\n  containers:\n  - name: web\n",
        "spec:\n  containers:\n  - name: web\n  volumes:\n  - name: conduit-identity\n    emptyDir: {}\n",
    ] {
        let text = pod(spec);
        let output = inject(&text, &options(FLAGS[0]));
        assert!(
            output.report[0].ends_with("that inject did not add: give it another name"),
            "{:?}",
            output.report
        );
        assert_eq!((output.text.as_str(), uninject(&text).as_str()), (text.as_str(), text.as_str()));
    }
    // A name that only an older release used.
    let text =
        pod("spec:\n  containers:\n  - name: web\n  volumes:\n  - name: conduit-secrets\n    emptyDir: {}\n");
    assert_eq!(uninject(&inject(&text, &options(FLAGS[0])).text), text);
}

#[test]
fn kubectl_means_the_users_container() {
    let annotation = "kubectl.kubernetes.io/default-container";
    let meant = |text: &str| {
        let pod = values(text).remove(0);
        pod["metadata"]["annotations"][annotation].as_str().map(str::to_owned)
    };
    let injected = inject(&pod(CONTAINERS), &options(FLAGS[0])).text;
    assert_eq!(meant(&injected).as_deref(), Some("web"));
    assert_eq!(uninject(&injected), pod(CONTAINERS));
    // The proxy of a native sidecar is not among the containers.
    assert_eq!(meant(&inject(&injected, &options(FLAGS[2])).text), None);
    // What the user says stays, said before or since.
    let own = pod(&format!("  annotations:\n    {annotation}: web\n{CONTAINERS}"));
    assert_eq!(uninject(&inject(&own, &options(FLAGS[0])).text), own);
    let since = injected.replace(&format!("{annotation}: web"), &format!("{annotation}: other"));
    assert_eq!(meant(&uninject(&since)).as_deref(), Some("other"));
    assert_eq!(meant(&inject(&since, &options(FLAGS[1])).text).as_deref(), Some("other"));
}

#[test]
fn wishes_that_mean_nothing_are_told() {
    let report = |wish: &str| {
        let text = pod(&format!("  annotations:\n    conduit.io/inject: {wish}\n{CONTAINERS}"));
        inject(&text, &options(FLAGS[0])).report
    };
    assert_eq!(report("enabled"), ["pod \"web\" injected"]);
    for wish in ["Disabled", "false", "\"no\""] {
        let report = report(wish);
        assert_eq!(report.len(), 2, "{report:?}");
        assert!(report[1].contains("which means nothing"), "{report:?}");
    }
}

#[test]
fn windows_pods_are_left_out() {
    for spec in ["os: {name: windows}", "nodeSelector: {kubernetes.io/os: windows}"] {
        let output = inject(&pod(&format!("{CONTAINERS}  {spec}\n")), &options(FLAGS[0]));
        assert_eq!(
            output.report,
            ["pod \"web\" skipped: its pods run on Windows, for which there is no proxy"]
        );
    }
    let linux = inject(
        &pod(&format!("{CONTAINERS}  nodeSelector: {{kubernetes.io/os: linux}}\n")),
        &options(FLAGS[0]),
    );
    assert_eq!(linux.report, ["pod \"web\" injected"]);
}

#[test]
fn another_order_of_keys_is_no_change() {
    fn sorted(value: &Value) -> Value {
        match value {
            Value::Object(map) => {
                let map: std::collections::BTreeMap<_, _> =
                    map.iter().map(|(key, value)| (key.clone(), sorted(value))).collect();
                map.into_iter().collect()
            }
            Value::Array(items) => items.iter().map(sorted).collect(),
            other => other.clone(),
        }
    }
    let injected = inject(&pod(CONTAINERS), &options(FLAGS[0])).text;
    let text = emit::document(&sorted(&values(&injected).remove(0)));
    let output = inject(&text, &options(FLAGS[0]));
    assert_eq!((output.text.as_str(), output.report[0].as_str()), (text.as_str(), "pod \"web\" unchanged"));
}

#[test]
fn a_record_of_yaml_in_a_json_document_is_given_back_as_json() {
    for annotations in
        ["  annotations: ~\n", "  annotations: {}\n", "  annotations: # none\n  labels: !!null\n"]
    {
        let text = pod(&format!("{annotations}{CONTAINERS}"));
        let injected = inject(&text, &options(FLAGS[0])).text;
        assert!(injected.contains("conduit.io/replaced"), "{injected}");
        let json = serde_json::to_string_pretty(&values(&injected).remove(0)).expect("JSON");
        let back = uninject(&json);
        let value: Value = serde_json::from_str(&back).unwrap_or_else(|error| panic!("{error}: {back}"));
        assert_eq!(without_voids(value), without_voids(values(&text).remove(0)));
    }
}

#[test]
fn a_list_of_a_whole_cluster_is_injected_in_place() {
    let item = pod(CONTAINERS).replace('\n', "\n  ");
    let filler = format!("{{\"x\": [{}0]}}", "0,".repeat(260_000));
    let text = format!("apiVersion: v1\nkind: List\nitems:\n- {item}\n- {filler}\n");
    let output = inject(&text, &options(FLAGS[0]));
    assert_eq!(output.report, ["pod \"web\" injected"]);
    assert_eq!(uninject(&output.text), text);
}

fn is_subsequence(part: &str, whole: &str) -> bool {
    let mut rest = whole.chars();
    part.chars().all(|wanted| rest.any(|c| c == wanted))
}

/// The value less everything that Conduit adds, wherever it is.
fn without_additions(value: Value) -> Value {
    fn strip(value: Value) -> Value {
        match value {
            Value::Object(map) => {
                let ours =
                    ["created-by", "proxy-version", "tls", "owner", "replaced", "added", "control-plane-ns"];
                let is_ours = |key: &str| {
                    key.strip_prefix("conduit.io/")
                        .is_some_and(|key| ours.contains(&key) || key.starts_with("proxy-"))
                };
                Value::Object(
                    map.into_iter()
                        .filter(|(key, _)| !is_ours(key))
                        .map(|(key, value)| (key, strip(value)))
                        .collect(),
                )
            }
            Value::Array(items) => {
                let names = ["conduit-proxy", "conduit-init", "conduit-identity"];
                let is_ours = |item: &Value| {
                    item.get("name").and_then(Value::as_str).is_some_and(|name| names.contains(&name))
                };
                Value::Array(items.into_iter().filter(|item| !is_ours(item)).map(strip).collect())
            }
            other => other,
        }
    }
    without_voids(strip(value))
}

/// The value less probes of ports, as the user writes them and as inject does.
fn without_ports_probed(value: Value) -> Value {
    let is_one = |key: &str, value: &Value| {
        let path = value.get("path").and_then(Value::as_str).unwrap_or_default();
        key == "tcpSocket" || (key == "httpGet" && path.starts_with("/probe/tcp/"))
    };
    match value {
        Value::Object(map) => {
            let others = map.into_iter().filter(|(key, value)| !is_one(key, value));
            Value::Object(others.map(|(key, value)| (key, without_ports_probed(value))).collect())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_ports_probed).collect()),
        other => other,
    }
}

/// The value less its nulls and empty collections, which may have been there or not, and less what the test itself puts
/// in the place of additions.
fn without_voids(value: Value) -> Value {
    let is_void = |value: &Value| match value {
        Value::Null => true,
        Value::Object(map) => map.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    };
    match value {
        Value::Object(map) => {
            let ours =
                ["conduit.io/tls", "conduit.io/control-plane-ns", "kubectl.kubernetes.io/default-container"];
            let entries = map.into_iter().filter(|(key, _)| !ours.contains(&key.as_str()));
            let entries = entries.map(|(key, value)| (key, without_voids(value)));
            Value::Object(entries.filter(|(_, value)| !is_void(value)).collect::<Map<_, _>>())
        }
        Value::Array(items) => Value::Array(items.into_iter().map(without_voids).collect()),
        other => other,
    }
}
