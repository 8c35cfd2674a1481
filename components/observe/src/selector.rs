//! Selecting by labels, in the language of kubectl's `-l`. Pure.

use std::{
    collections::{BTreeMap, BTreeSet},
    str::FromStr,
};

use crate::{
    inventory::{Inventory, Object, Pod},
    kind::Kind,
};

/// Conditions on labels, all of which must hold.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selector(Vec<Requirement>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Requirement {
    Exists(String),
    Absent(String),
    /// The label is there, and is one of these.
    In(String, BTreeSet<String>),
    /// The label is none of these, or is not there.
    NotIn(String, BTreeSet<String>),
}

/// Not a selector.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error(
    "{0:?} is no condition on labels; write app=web, app!=web, app, !app, app in (web,api) or app notin (web), several of \
     them with commas between"
)]
pub struct NotASelector(String);

impl Selector {
    /// Whether all conditions hold.
    pub fn matches(&self, labels: &BTreeMap<String, String>) -> bool {
        self.0.iter().all(|requirement| match requirement {
            Requirement::Exists(key) => labels.contains_key(key),
            Requirement::Absent(key) => !labels.contains_key(key),
            Requirement::In(key, values) => labels.get(key).is_some_and(|value| values.contains(value)),
            Requirement::NotIn(key, values) => labels.get(key).is_none_or(|value| !values.contains(value)),
        })
    }

    /// What has a running pod with such labels: its pods, what they belong to, and the Services that select them.
    pub(crate) fn objects(&self, inventory: &Inventory) -> BTreeSet<Object> {
        let chosen = |pod: &&Pod| pod.running && self.matches(&pod.labels);
        let mut objects = BTreeSet::new();
        for pod in inventory.pods.values().map(|pod| &**pod).filter(chosen) {
            let namespace = &pod.name.namespace;
            objects.extend(pod.owners.iter().map(|(kind, name)| Object::new(*kind, namespace, name)));
            let services = inventory.services_of(pod);
            objects.extend(services.map(|name| Object::new(Kind::Service, namespace, name)));
        }
        objects
    }
}

impl FromStr for Selector {
    type Err = NotASelector;

    fn from_str(text: &str) -> Result<Self, NotASelector> {
        conditions(text).map(requirement).collect::<Result<_, _>>().map(Self)
    }
}

/// The parts between commas that are in no parentheses.
fn conditions(text: &str) -> impl Iterator<Item = &str> {
    let mut is_inside = false;
    text.split(move |c| {
        is_inside = (is_inside || c == '(') && c != ')';
        c == ',' && !is_inside
    })
    .map(str::trim)
}

fn requirement(text: &str) -> Result<Requirement, NotASelector> {
    let wrong = || NotASelector(text.chars().take(64).collect());
    let key = |text: &str| is_key(text.trim()).then(|| text.trim().to_owned()).ok_or_else(wrong);
    let value = |text: &str| is_value(text.trim()).then(|| text.trim().to_owned()).ok_or_else(wrong);
    if let Some(rest) = text.strip_suffix(')') {
        let (head, list) = rest.split_once('(').ok_or_else(wrong)?;
        let values = list.split(',').map(value).collect::<Result<_, _>>()?;
        let (name, operator) = head.trim().rsplit_once(char::is_whitespace).ok_or_else(wrong)?;
        return match operator {
            "in" => Ok(Requirement::In(key(name)?, values)),
            "notin" => Ok(Requirement::NotIn(key(name)?, values)),
            _ => Err(wrong()),
        };
    }
    if let Some(rest) = text.strip_prefix('!') {
        return Ok(Requirement::Absent(key(rest)?));
    }
    if let Some((name, other)) = text.split_once("!=") {
        return Ok(Requirement::NotIn(key(name)?, [value(other)?].into()));
    }
    match text.split_once("==").or_else(|| text.split_once('=')) {
        Some((name, same)) => Ok(Requirement::In(key(name)?, [value(same)?].into())),
        None => Ok(Requirement::Exists(key(text)?)),
    }
}

/// The longest name of a label, and the longest value.
const MAX_NAME: usize = 63;
/// The longest prefix of a label's key, a DNS name.
const MAX_PREFIX: usize = 253;

fn is_key(key: &str) -> bool {
    let (prefix, name) = key.split_once('/').map_or((None, key), |(prefix, name)| (Some(prefix), name));
    let is_prefix = |prefix: &str| !prefix.is_empty() && prefix.len() <= MAX_PREFIX && is_word(prefix);
    !name.is_empty() && is_value(name) && prefix.is_none_or(is_prefix)
}

fn is_value(value: &str) -> bool {
    value.len() <= MAX_NAME && is_word(value)
}

fn is_word(text: &str) -> bool {
    text.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_' | b'.'))
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use proptest::prelude::*;

    use super::*;
    use crate::{inventory::Service, testing::pod};

    fn labels(text: &str) -> BTreeMap<String, String> {
        text.split_whitespace()
            .map(|pair| pair.split_once('=').unwrap())
            .map(|(name, value)| (name.to_owned(), value.to_owned()))
            .collect()
    }

    #[test]
    fn conditions_mean_what_they_mean_to_kubectl() {
        let cases = [
            ("app=web", "app=web", true),
            ("app==web", "app=api", false),
            ("app=web", "tier=front", false),
            ("app!=web", "app=api", true),
            ("app!=web", "tier=front", true),
            ("app", "app=anything", true),
            ("app", "tier=front", false),
            ("!app", "tier=front", true),
            ("!app", "app=web", false),
            ("app in (web, api)", "app=api", true),
            ("app in (web)", "tier=front", false),
            ("app notin (web,api)", "app=api", false),
            ("app notin (web)", "tier=front", true),
            ("app in (web,api),tier=front", "app=web tier=front", true),
            ("app in (web,api),tier=front", "app=web tier=back", false),
            ("example.com/app=web", "example.com/app=web", true),
            ("app=", "app=", true),
        ];
        for (selector, given, expected) in cases {
            let selector: Selector = selector.parse().unwrap();
            assert_eq!(selector.matches(&labels(given)), expected, "{selector:?} of {given}");
        }
    }

    #[test]
    fn what_is_no_condition_is_named() {
        for bad in [
            "",
            ",",
            "a=b,",
            "=web",
            "a b",
            "a in web",
            "a in (b",
            "a like (b)",
            "a=b=c",
            "/a",
            "a/b/c=d",
            "!",
        ] {
            let error = bad.parse::<Selector>().unwrap_err().to_string();
            assert!(error.contains("app=web"), "{bad}: {error}");
        }
    }

    #[test]
    fn an_object_is_selected_by_its_pods_labels() {
        let mut inventory = Inventory::default();
        for name in ["web", "api"] {
            let pod = pod("shop", name, 1);
            inventory.pods.insert(pod.name.clone(), Arc::new(pod));
            let selector = labels(&format!("app={name}"));
            let service = Service { selector, ..Service::default() };
            inventory.services.insert(("shop".to_owned(), format!("{name}-svc")), service);
        }
        let objects = "app in (web)".parse::<Selector>().unwrap().objects(&inventory);
        let names: Vec<String> =
            objects.iter().map(|object| format!("{}/{}", object.kind, object.name)).collect();
        assert_eq!(names, ["deployment/web", "pod/web-1", "service/web-svc"]);
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(text in "([a-z/ ,=!()]|in|notin|\\PC){0,24}") {
            drop(text.parse::<Selector>());
        }
    }
}
