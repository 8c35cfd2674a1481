//! Label and field selectors, in the query syntax of the API.

use serde_json::Value;

use crate::{failure::Failure, names, object::text, resources::Resource};

/// Which objects a list or a watch is about.
#[derive(Debug, Clone, Default)]
pub(crate) struct Selector {
    labels: Vec<LabelTerm>,
    fields: Vec<FieldTerm>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct LabelTerm {
    key: String,
    test: Test,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Test {
    In(Vec<String>),
    /// True of an absent label too.
    NotIn(Vec<String>),
    Exists,
    Absent,
    Above(i64),
    Below(i64),
}

#[derive(Debug, Clone)]
struct FieldTerm {
    pointer: String,
    value: String,
    equal: bool,
}

impl Selector {
    pub(crate) fn parse(resource: &Resource, labels: &str, fields: &str) -> Result<Self, Failure> {
        let labels = split(labels).map(|term| label_term(term.trim())).collect::<Result<_, _>>()?;
        let fields = fields
            .split(',')
            .filter(|term| !term.trim().is_empty())
            .map(|term| field_term(resource, term.trim()))
            .collect::<Result<_, _>>()?;
        Ok(Self { labels, fields })
    }

    /// The selector of equal labels, as a Service has it.
    pub(crate) fn equal_labels<'a>(labels: impl Iterator<Item = (&'a String, &'a Value)>) -> Self {
        let labels = labels
            .map(|(key, value)| LabelTerm {
                key: key.clone(),
                test: Test::In(vec![value.as_str().unwrap_or_default().to_owned()]),
            })
            .collect();
        Self { labels, fields: Vec::new() }
    }

    pub(crate) fn is_everything(&self) -> bool {
        self.labels.is_empty() && self.fields.is_empty()
    }

    pub(crate) fn matches(&self, object: &Value) -> bool {
        self.labels.iter().all(|term| {
            let label = object.pointer("/metadata/labels").and_then(|labels| labels.get(&term.key));
            term.test.holds(label.and_then(Value::as_str))
        }) && self.fields.iter().all(|term| (field(object, &term.pointer) == term.value) == term.equal)
    }
}

impl Test {
    fn holds(&self, label: Option<&str>) -> bool {
        let number = || label.and_then(|label| label.parse::<i64>().ok());
        match self {
            Self::In(values) => label.is_some_and(|label| values.iter().any(|value| value == label)),
            Self::NotIn(values) => label.is_none_or(|label| values.iter().all(|value| value != label)),
            Self::Exists => label.is_some(),
            Self::Absent => label.is_none(),
            Self::Above(bound) => number().is_some_and(|number| number > *bound),
            Self::Below(bound) => number().is_some_and(|number| number < *bound),
        }
    }
}

/// Splits at the commas that are not inside parentheses.
fn split(selector: &str) -> impl Iterator<Item = &str> {
    let mut depth = 0_i32;
    selector
        .split(move |c| {
            depth += i32::from(c == '(') - i32::from(c == ')');
            c == ',' && depth == 0
        })
        .filter(|term| !term.trim().is_empty())
}

fn label_term(term: &str) -> Result<LabelTerm, Failure> {
    let unparsable = || Failure::bad_request(format!("unable to parse requirement: {term:?}"));
    let (key, test) = if let Some(key) = term.strip_prefix('!') {
        (key, Test::Absent)
    } else if let Some((key, value)) = term.split_once("!=") {
        (key, Test::NotIn(vec![value.trim().to_owned()]))
    } else if let Some((key, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (key, Test::In(vec![value.trim().to_owned()]))
    } else if let Some((key, bound)) = term.split_once('>') {
        (key, Test::Above(bound.trim().parse().map_err(|_| unparsable())?))
    } else if let Some((key, bound)) = term.split_once('<') {
        (key, Test::Below(bound.trim().parse().map_err(|_| unparsable())?))
    } else if let Some((head, values)) = term.strip_suffix(')').and_then(|term| term.split_once('(')) {
        let values = values.split(',').map(|value| value.trim().to_owned()).collect();
        match head.trim().rsplit_once(char::is_whitespace) {
            Some((key, "in")) => (key, Test::In(values)),
            Some((key, "notin")) => (key, Test::NotIn(values)),
            _ => return Err(unparsable()),
        }
    } else {
        (term, Test::Exists)
    };
    let key = key.trim();
    if names::wrong_qualified_name(key).is_some() {
        return Err(unparsable());
    }
    if let Test::In(values) | Test::NotIn(values) = &test
        && let Some(why) = values.iter().find_map(|value| names::wrong_label_value(value))
    {
        let message = format!("unable to parse requirement: invalid label value: at key: {key:?}: {why}");
        return Err(Failure::bad_request(message));
    }
    Ok(LabelTerm { key: key.to_owned(), test })
}

fn field_term(resource: &Resource, term: &str) -> Result<FieldTerm, Failure> {
    let (path, value, equal) = if let Some((path, value)) = term.split_once("!=") {
        (path, value, false)
    } else if let Some((path, value)) = term.split_once("==").or_else(|| term.split_once('=')) {
        (path, value, true)
    } else {
        return Err(Failure::bad_request(format!("invalid selector: '{term}'; can't understand '{term}'")));
    };
    if !selectable(resource).contains(&path) && !matches!(path, "metadata.name" | "metadata.namespace") {
        return Err(Failure::bad_request(format!("field label not supported: {path}")));
    }
    let pointer = format!("/{}", path.replace('.', "/"));
    Ok(FieldTerm { pointer, value: value.to_owned(), equal })
}

/// What a field selector of a kind may name besides name and namespace.
fn selectable(resource: &Resource) -> &'static [&'static str] {
    match resource.kind {
        "Pod" => &[
            "spec.nodeName",
            "spec.restartPolicy",
            "spec.schedulerName",
            "spec.serviceAccountName",
            "spec.hostNetwork",
            "status.phase",
            "status.podIP",
            "status.nominatedNodeName",
        ],
        "Secret" => &["type"],
        "Namespace" => &["status.phase"],
        "Node" => &["spec.unschedulable"],
        "ReplicaSet" | "ReplicationController" => &["status.replicas"],
        "Job" => &["status.successful"],
        "Service" => &["spec.clusterIP", "spec.type"],
        "Event" => &[
            "involvedObject.kind",
            "involvedObject.namespace",
            "involvedObject.name",
            "involvedObject.uid",
            "involvedObject.apiVersion",
            "involvedObject.resourceVersion",
            "involvedObject.fieldPath",
            "reason",
            "reportingComponent",
            "source",
            "type",
        ],
        _ => &[],
    }
}

/// A field as selectors see it: always a string, absent booleans being false.
fn field(object: &Value, pointer: &str) -> String {
    match object.pointer(pointer) {
        Some(Value::String(value)) => value.clone(),
        Some(Value::Null) | None if pointer == "/spec/unschedulable" || pointer == "/spec/hostNetwork" => {
            "false".to_owned()
        }
        Some(Value::Null) | None => String::new(),
        Some(Value::Object(_)) if pointer == "/source" => text(object, "/source/component").to_owned(),
        Some(other) => other.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn pod() -> crate::resources::Res {
        crate::resources::Served::new(crate::SliceVersion::V1).kind("", "Pod").unwrap()
    }

    #[test]
    fn label_terms_select_as_kubernetes_documents() {
        let object = json!({ "metadata": { "labels": { "app": "web", "tier": "front", "n": "5" } } });
        for (selector, expected) in [
            ("", true),
            ("app=web", true),
            ("app==web,tier=front", true),
            ("app=web,tier=back", false),
            ("app!=api", true),
            ("missing!=x", true),
            ("app in (web, api),tier notin (back)", true),
            ("app in (api)", false),
            ("app", true),
            ("!app", false),
            ("!missing", true),
            ("missing", false),
            ("n>4,n<6", true),
            ("n>5", false),
        ] {
            let parsed = Selector::parse(&pod(), selector, "").unwrap();
            assert_eq!(parsed.matches(&object), expected, "{selector}");
        }
        for wrong in ["app in web", "=x", "a b", "n>x", "app near (x)"] {
            assert_eq!(Selector::parse(&pod(), wrong, "").unwrap_err().code, 400, "{wrong}");
        }
    }

    #[test]
    fn fields_that_a_kind_does_not_offer_are_refused() {
        let object =
            json!({ "metadata": { "name": "a", "namespace": "b" }, "status": { "phase": "Running" } });
        let matches =
            |fields: &str| Selector::parse(&pod(), "", fields).map(|parsed| parsed.matches(&object));
        assert!(matches("metadata.name=a,status.phase!=Failed").unwrap());
        assert!(matches("spec.nodeName=").unwrap());
        assert!(!matches("metadata.namespace=x").unwrap());
        assert_eq!(matches("spec.colour=red").unwrap_err().code, 400);
    }
}
