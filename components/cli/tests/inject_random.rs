//! Manifests in random styles. Bytes chosen by proptest decide every layout question, so that a failure shrinks to a
//! plain manifest with the one odd thing in it.

#![allow(clippy::expect_used, reason = "a failed expectation is a failed test")]

mod support;

use conduit_cli::{
    inject::{document, stream},
    input::Input,
    yaml::{split, value},
};
use proptest::prelude::*;
use serde_json::Value;
use support::{bare_manifests, inject, options, uninject, values};

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, failure_persistence: None, ..ProptestConfig::default() })]

    #[test]
    fn random_manifests_survive(choices in proptest::collection::vec(any::<u8>(), 0..300)) {
        let text = Writer::new(choices).stream();
        // What the generator must never do.
        for document in split::split(&text) {
            prop_assert!(value::parse(document.text).is_ok(), "{:?}\n{}", value::parse(document.text), text);
        }
        let flags = options(&["--tls=optional"]);
        let output = inject(&text, &flags);
        prop_assert_eq!(&uninject(&output.text), &text, "not restored from\n{}", &output.text);
        prop_assert_eq!(&inject(&output.text, &flags).text, &output.text, "not idempotent");
        let others = options(&["-v", "2", "--native-sidecar"]);
        let other = inject(&text, &others).text;
        prop_assert_eq!(inject(&output.text, &others).text, other, "not updated");
        let anew = output.report.iter().any(|line| line.contains("written anew"));
        // A block scalar that ends the file without a newline is the one shape here that cannot be added to.
        let may_be_anew = !text.ends_with('\n') && (text.contains("|-") || text.contains(">-"));
        prop_assert!(!anew || may_be_anew, "written anew:\n{}\n{}", output.report.join("\n"), text);
        check_values(&text, &output.text)?;
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 300, failure_persistence: None, ..ProptestConfig::default() })]

    /// Manifests that people write, damaged: what is still well-formed is still injected and restored.
    #[test]
    fn damaged_manifests_survive(
        which in any::<prop::sample::Index>(),
        cuts in proptest::collection::vec((any::<prop::sample::Index>(), 0..12usize, "[ \\-:#{}\\[\\]&*!|>'\"%\n\t\ra-c~,?]{0,3}"), 1..4),
    ) {
        let manifests = bare_manifests();
        let mut text = which.get(&manifests).text.clone();
        for (at, length, new) in cuts {
            let ends: Vec<usize> = text.char_indices().map(|(at, _)| at).chain([text.len()]).collect();
            let start = at.index(ends.len());
            let end = (start + length).min(ends.len() - 1);
            text.replace_range(ends[start]..ends[end], &new);
        }
        let input = Input { name: "damaged".into(), text: text.clone() };
        let options = options(&["--tls=optional"]);
        if let Ok(output) = stream::transform(&[input], |text| document::inject(text, &options)) {
            prop_assert_eq!(&uninject(&output.text), &text, "not restored from\n{}", &output.text);
            prop_assert_eq!(&inject(&output.text, &options).text, &output.text, "not idempotent");
        }
    }
}

/// The pod templates differ by the additions: the same labels and more, the same containers behind the proxy.
fn check_values(before: &str, after: &str) -> Result<(), TestCaseError> {
    let (before, after) = (values(before), values(after));
    prop_assert_eq!(before.len(), after.len());
    for (before, after) in before.iter().zip(&after) {
        if before.is_null() || before["kind"] == "ConfigMap" {
            prop_assert_eq!(before, after);
            continue;
        }
        let old = before.pointer("/spec/template").expect("it has a template");
        let new = after.pointer("/spec/template").expect("it has a template still");
        let part = |value: &Value, at: &str| value.pointer(at).cloned().unwrap_or_default();
        for map in ["/metadata/labels", "/metadata/annotations"] {
            for (key, value) in part(old, map).as_object().into_iter().flatten() {
                prop_assert_eq!(part(new, map).get(key).cloned(), Some(value.clone()));
            }
        }
        let list = |value: &Value, at: &str| part(value, at).as_array().cloned().unwrap_or_default();
        let containers = list(new, "/spec/containers");
        prop_assert_eq!(&containers[0]["name"], "conduit-proxy");
        let expected: Vec<Value> = list(old, "/spec/containers").into_iter().map(probed).collect();
        prop_assert_eq!(&containers[1..], expected);
        let init = list(new, "/spec/initContainers");
        prop_assert_eq!(&init[init.len() - 1]["name"], "conduit-init");
        prop_assert_eq!(&init[..init.len() - 1], list(old, "/spec/initContainers"));
        prop_assert_eq!(&list(new, "/spec/volumes")[1..], list(old, "/spec/volumes"));
    }
    Ok(())
}

/// The container with its probe as the proxy answers it.
fn probed(mut container: Value) -> Value {
    if let Some(probe) = container.get_mut("livenessProbe").and_then(Value::as_object_mut) {
        let asked = serde_json::json!({"path": "/probe/tcp/80/1", "port": 4191});
        if probe.remove("tcpSocket").is_some() {
            probe.insert("httpGet".to_owned(), asked);
        }
    }
    container
}

/// A value to be written, with the freedom that YAML leaves.
#[derive(Clone)]
enum Shape {
    Text(&'static str),
    Empty,
    EmptyList,
    Null,
    /// The labels' alias.
    Alias,
    Map(Vec<(&'static str, Shape)>),
    List(Vec<Shape>),
}

use Shape::{Alias, Empty, EmptyList, List, Map, Null, Text};

/// Writes manifests as the choices say; when they run out, plainly.
struct Writer {
    choices: std::vec::IntoIter<u8>,
    newline: &'static str,
    step: usize,
    dash: usize,
    out: String,
}

impl Writer {
    fn new(choices: Vec<u8>) -> Self {
        Self { choices: choices.into_iter(), newline: "\n", step: 2, dash: 0, out: String::new() }
    }

    fn stream(mut self) -> String {
        self.newline = self.pick(&["\n", "\n", "\r\n"]);
        for index in 0..self.pick(&[1, 2, 3]) {
            if index > 0 || self.rarely() {
                let separator = self.pick(&["---", "--- # next", "---  "]);
                self.line(separator);
            }
            self.step = self.pick(&[2, 4, 3, 1]);
            self.dash = self.pick(&[0, 1]) * self.step;
            let manifest = self.manifest();
            self.noise(0);
            if self.rarely() {
                let text = self.flow(&Map(manifest), 1);
                self.line(&text);
            } else {
                self.entries(&manifest, 0, false);
            }
            self.noise(0);
        }
        if self.rarely() {
            let length = self.out.trim_end().len();
            self.out.truncate(length);
        }
        self.out
    }

    // What is written.

    fn manifest(&mut self) -> Vec<(&'static str, Shape)> {
        let kind = self.pick(&["Deployment", "StatefulSet", "Job", "ConfigMap"]);
        let mut template = vec![("spec", self.spec())];
        if let Some(metadata) = self.metadata() {
            template.push(("metadata", metadata));
        }
        let mut spec = vec![("replicas", Text("1")), ("template", Map(self.shuffled(template)))];
        // The anchor is on these labels; an alias must come later.
        spec.insert(0, ("selector", Map(vec![("matchLabels", Map(vec![("app", Text("web"))]))])));
        vec![
            ("apiVersion", Text("v1")),
            ("kind", Text(kind)),
            ("metadata", Map(vec![("name", Text("web")), ("uid", Null)])),
            ("spec", Map(spec)),
        ]
    }

    fn metadata(&mut self) -> Option<Shape> {
        let map = Map(vec![("app", Text("web")), ("tier", Text("some words"))]);
        let labels = self.pick(&[Some(map.clone()), None, Some(Null), Some(Empty), Some(Alias)]);
        let annotations = self.pick(&[None, Some(map), Some(Null), Some(Empty)]);
        let mut entries = vec![("creationTimestamp", Null)];
        entries.extend(labels.map(|labels| ("labels", labels)));
        entries.extend(annotations.map(|annotations| ("annotations", annotations)));
        let entries = Map(self.shuffled(entries));
        self.pick(&[Some(entries), None, Some(Null), Some(Empty)])
    }

    fn spec(&mut self) -> Shape {
        let init = |name| {
            vec![
                ("name", Text(name)),
                ("args", List(vec![Text("-a"), Text("some words")])),
                ("image", Text("x:1")),
            ]
        };
        let tcp = ("tcpSocket", Map(vec![("port", Text("80"))]));
        let probe = Map(self.shuffled(vec![tcp, ("periodSeconds", Text("1"))]));
        let probe = self.pick(&[None, Some(probe)]);
        let mut container = |name| {
            let mut entries = init(name);
            entries.extend(probe.clone().map(|probe| ("livenessProbe", probe)));
            Map(self.shuffled(entries))
        };
        let one = List(vec![container("one")]);
        let two = List(vec![container("two"), container("three"), Map(vec![("name", Text("four"))])]);
        let volume = List(vec![Map(vec![("emptyDir", Empty), ("name", Text("data"))])]);
        let mut entries =
            vec![("containers", self.pick(&[one.clone(), two.clone()])), ("restartPolicy", Text("Always"))];
        let init = self.pick(&[None, Some(one), Some(Null), Some(EmptyList), Some(two)]);
        let volumes = self.pick(&[None, Some(volume), Some(Null), Some(EmptyList)]);
        entries.extend(init.map(|init| ("initContainers", init)));
        entries.extend(volumes.map(|volumes| ("volumes", volumes)));
        Map(self.shuffled(entries))
    }

    fn shuffled(&mut self, mut entries: Vec<(&'static str, Shape)>) -> Vec<(&'static str, Shape)> {
        for index in 1..entries.len() {
            let other = self.number(index + 1);
            entries.swap(index, other);
        }
        entries
    }

    // How.

    fn number(&mut self, of: usize) -> usize {
        usize::from(self.choices.next().unwrap_or(0)) % of
    }

    fn pick<T: Clone>(&mut self, from: &[T]) -> T {
        from[self.number(from.len())].clone()
    }

    fn rarely(&mut self) -> bool {
        self.choices.next().unwrap_or(0) > 220
    }

    fn line(&mut self, text: &str) {
        self.out.push_str(text);
        self.out.push_str(self.newline);
    }

    fn noise(&mut self, indent: usize) {
        if self.rarely() {
            let line = self.pick(&["", "# a comment", " ", "# - name: x", "#"]);
            let indent = if line.starts_with('#') { indent } else { 0 };
            self.line(&format!("{:indent$}{line}", ""));
        }
    }

    fn comment(&mut self) -> &'static str {
        if self.rarely() { self.pick(&[" # a comment", "  # {a: 'b'}", "  "]) } else { "" }
    }

    fn entries(&mut self, entries: &[(&'static str, Shape)], indent: usize, mut is_first: bool) {
        for (key, value) in entries {
            if !is_first {
                self.noise(indent);
            }
            is_first = false;
            self.entry(key, value, indent);
        }
    }

    fn entry(&mut self, key: &str, value: &Shape, indent: usize) {
        let quote = if self.rarely() { self.pick(&["'", "\""]) } else { "" };
        let space = if self.rarely() { " " } else { "" };
        let head = format!("{:indent$}{quote}{key}{quote}{space}:", "");
        let comment = self.comment();
        let inner = indent + self.step;
        match value {
            Map(entries) if !self.rarely() => {
                let anchor = if key == "matchLabels" { " &labels" } else { "" };
                self.line(&format!("{head}{anchor}{comment}"));
                self.entries(entries, inner, false);
            }
            List(items) if !self.rarely() => {
                self.line(&format!("{head}{comment}"));
                self.items(items, indent + self.dash);
            }
            Text(text) => self.text(&head, text, inner, comment),
            value => {
                let anchor = if key == "matchLabels" { "&labels " } else { "" };
                let text = self.flow(value, inner);
                let below = !text.is_empty() && anchor.is_empty() && self.rarely();
                let gap = if below { format!("{}{:inner$}", self.newline, "") } else { " ".to_owned() };
                let gap = if text.is_empty() { String::new() } else { gap };
                self.line(&format!("{head}{gap}{anchor}{text}{comment}"));
            }
        }
    }

    fn text(&mut self, head: &str, text: &str, inner: usize, comment: &str) {
        let style = if self.rarely() { self.pick(&["'", "\"", "|-", ">-"]) } else { "" };
        match style {
            "|-" | ">-" => {
                self.line(&format!("{head} {style}{comment}"));
                self.line(&format!("{:inner$}{text}", ""));
            }
            quote => self.line(&format!("{head} {quote}{text}{quote}{comment}")),
        }
    }

    fn items(&mut self, items: &[Shape], indent: usize) {
        for item in items {
            self.noise(indent);
            match item {
                Map(entries) if !self.rarely() => {
                    let gap = self.pick(&[1, 1, 1, 3]);
                    let (start, inner) = (self.out.len(), indent + 1 + gap);
                    if self.rarely() {
                        let comment = self.comment();
                        self.line(&format!("{:indent$}-{comment}", ""));
                        self.entries(entries, inner, false);
                    } else {
                        self.entries(entries, inner, true);
                        self.out.replace_range(start..start + inner, &format!("{:indent$}-{:gap$}", "", ""));
                    }
                }
                Text(text) => {
                    let comment = self.comment();
                    self.line(&format!("{:indent$}- {text}{comment}", ""));
                }
                other => {
                    let text = self.flow(other, indent + 2);
                    self.line(&format!("{:indent$}- {text}", ""));
                }
            }
        }
    }

    fn flow(&mut self, value: &Shape, indent: usize) -> String {
        let gap = match self.number(4) {
            0 | 1 => String::new(),
            2 => " ".to_owned(),
            _ => format!("{}{:indent$}", self.newline, ""),
        };
        let between = if gap.is_empty() { " " } else { gap.as_str() };
        let members: Vec<String> = match value {
            Text(text) => return format!("\"{text}\""),
            Empty => return self.pick(&["{}", "{ }"]).to_owned(),
            EmptyList => return self.pick(&["[]", "[ ]"]).to_owned(),
            Null => return self.pick(&["null", "~", "NULL"]).to_owned(),
            Alias => return "*labels".to_owned(),
            Map(entries) => entries
                .iter()
                .map(|(key, value)| {
                    let anchor = if *key == "matchLabels" { "&labels " } else { "" };
                    let key = if self.rarely() { (*key).to_owned() } else { format!("\"{key}\"") };
                    format!("{key}: {anchor}{}", self.flow(value, indent + 2))
                })
                .collect(),
            List(items) => items.iter().map(|item| self.flow(item, indent + 2)).collect(),
        };
        let trailing = if self.rarely() { "," } else { "" };
        let members = members.join(&format!(",{between}"));
        let (open, close) = if matches!(value, Map(_)) { ("{", "}") } else { ("[", "]") };
        format!("{open}{gap}{members}{trailing}{gap}{close}")
    }
}
