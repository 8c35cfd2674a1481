//! Sets of fields, in the form and the meaning of `fieldsV1`: a tree whose nodes are fields (`f:name`), list items told
//! apart by key (`k:{"name":"app"}`) and members of sets (`v:"a"`).

use std::collections::BTreeMap;

use serde_json::{Map, Value};

use crate::schema::{ListKind, is_atomic_map, key_default, list_kind};

/// A set of fields.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(crate) struct FieldSet {
    /// Whether the node itself is in the set, and not only something below it.
    member: bool,
    below: BTreeMap<String, FieldSet>,
}

/// What a change did to fields.
#[derive(Debug, Default)]
pub(crate) struct Difference {
    /// New, or of another value.
    pub(crate) changed: FieldSet,
    pub(crate) removed: FieldSet,
}

/// Written by the server alone, or the same in every version of the object: nobody owns these.
const UNOWNED: [&str; 12] = [
    "f:name",
    "f:namespace",
    "f:creationTimestamp",
    "f:deletionTimestamp",
    "f:deletionGracePeriodSeconds",
    "f:selfLink",
    "f:uid",
    "f:clusterName",
    "f:generation",
    "f:managedFields",
    "f:resourceVersion",
    "f:generateName",
];

impl FieldSet {
    /// Every field of an object.
    pub(crate) fn of(object: &Value) -> Self {
        let mut set = of_value(object, &mut Vec::new());
        set.forget_unowned();
        set
    }

    pub(crate) fn is_empty(&self) -> bool {
        !self.member && self.below.is_empty()
    }

    pub(crate) fn parse(json: &Value) -> Self {
        let fields = json.as_object().into_iter().flatten();
        let below: BTreeMap<_, _> = fields
            .filter(|(name, _)| *name != ".")
            .map(|(name, below)| (name.clone(), Self::parse(below)))
            .collect();
        Self { member: below.is_empty() || json.get(".").is_some(), below }
    }

    pub(crate) fn to_json(&self) -> Value {
        let mut fields = Map::new();
        if self.member && !self.below.is_empty() {
            fields.insert(".".to_owned(), Value::Object(Map::new()));
        }
        fields.extend(self.below.iter().map(|(name, below)| (name.clone(), below.to_json())));
        Value::Object(fields)
    }

    pub(crate) fn union(&mut self, other: &Self) {
        self.member |= other.member;
        for (name, below) in &other.below {
            self.below.entry(name.clone()).or_default().union(below);
        }
    }

    /// Takes out what is in `other`.
    pub(crate) fn subtract(&mut self, other: &Self) {
        self.member &= !other.member;
        for (name, below) in &other.below {
            if let Some(mine) = self.below.get_mut(name) {
                mine.subtract(below);
                if mine.is_empty() {
                    self.below.remove(name);
                }
            }
        }
    }

    pub(crate) fn intersection(&self, other: &Self) -> Self {
        let mut both = Self { member: self.member && other.member, below: BTreeMap::new() };
        for (name, below) in &self.below {
            let Some(theirs) = other.below.get(name) else { continue };
            let common = below.intersection(theirs);
            if !common.is_empty() {
                both.below.insert(name.clone(), common);
            }
        }
        both
    }

    /// The set below one field of the object, and the rest without it.
    pub(crate) fn only(mut self, field: &str) -> Self {
        self.below.retain(|name, _| name == field);
        self
    }

    pub(crate) fn without(mut self, field: &str) -> Self {
        self.below.remove(field);
        self
    }

    /// Its members as paths for people: `.spec.containers[name="app"].image`.
    pub(crate) fn paths(&self) -> Vec<String> {
        let mut paths = Vec::new();
        self.collect_paths(String::new(), &mut paths);
        paths
    }

    fn collect_paths(&self, here: String, paths: &mut Vec<String>) {
        for (name, below) in &self.below {
            let next = match name.split_once(':') {
                Some(("f", field)) => format!("{here}.{field}"),
                Some(("k", key)) => format!("{here}[{}]", readable_key(key)),
                Some((_, value)) => format!("{here}[={value}]"),
                None => here.clone(),
            };
            below.collect_paths(next, paths);
        }
        if self.member {
            paths.push(here);
        }
    }

    fn forget_unowned(&mut self) {
        self.below.remove("f:kind");
        self.below.remove("f:apiVersion");
        if let Some(meta) = self.below.get_mut("f:metadata") {
            UNOWNED.iter().for_each(|name| drop(meta.below.remove(*name)));
            if meta.below.is_empty() {
                self.below.remove("f:metadata");
            }
        }
    }

    fn leaf() -> Self {
        Self { member: true, below: BTreeMap::new() }
    }

    fn insert(&mut self, name: String, below: Self) {
        if !below.is_empty() {
            self.below.insert(name, below);
        }
    }
}

/// Compares two versions of an object.
pub(crate) fn compare(before: &Value, after: &Value) -> Difference {
    let mut difference = compare_values(Some(before), Some(after), &mut Vec::new());
    difference.changed.forget_unowned();
    difference.removed.forget_unowned();
    difference
}

/// Lays what a manager applies over what is there.
pub(crate) fn merge(live: &mut Value, applied: &Value) {
    merge_values(live, applied, &mut Vec::new());
}

/// Takes fields out of an object, and containers that this leaves empty.
pub(crate) fn remove(object: &mut Value, set: &FieldSet) {
    remove_values(object, set, &mut Vec::new());
}

fn of_value<'a>(value: &'a Value, path: &mut Vec<&'a str>) -> FieldSet {
    let mut set = FieldSet::default();
    match value {
        Value::Object(fields) if !is_atomic_map(path) => {
            for (name, value) in fields {
                path.push(name);
                set.insert(format!("f:{name}"), of_value(value, path));
                path.pop();
            }
        }
        Value::Array(items) => match list_kind(path) {
            ListKind::Map(keys) => {
                for item in items {
                    let mut below = of_value(item, path);
                    below.member = true;
                    set.insert(item_name(item, keys), below);
                }
            }
            ListKind::Set => {
                for item in items {
                    set.insert(format!("v:{item}"), FieldSet::leaf());
                }
            }
            ListKind::Atomic => {}
        },
        _ => {}
    }
    if set.is_empty() { FieldSet::leaf() } else { set }
}

fn compare_values<'a>(
    before: Option<&'a Value>,
    after: Option<&'a Value>,
    path: &mut Vec<&'a str>,
) -> Difference {
    let mut difference = Difference::default();
    let (before, after) = match (before, after) {
        (None, None) => return difference,
        (Some(before), None) => {
            difference.removed = of_value(before, path);
            return difference;
        }
        (None, Some(after)) => {
            difference.changed = of_value(after, path);
            return difference;
        }
        (Some(before), Some(after)) if before == after => return difference,
        (Some(before), Some(after)) => (before, after),
    };
    match (before, after) {
        (Value::Object(old), Value::Object(new)) if !is_atomic_map(path) => {
            let added = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(added) {
                path.push(name);
                difference.add(format!("f:{name}"), compare_values(old.get(name), new.get(name), path));
                path.pop();
            }
        }
        (Value::Array(old), Value::Array(new)) => compare_lists(old, new, path, &mut difference),
        _ => difference.changed = FieldSet::leaf(),
    }
    difference
}

fn compare_lists<'a>(
    old: &'a [Value],
    new: &'a [Value],
    path: &mut Vec<&'a str>,
    difference: &mut Difference,
) {
    match list_kind(path) {
        ListKind::Atomic => difference.changed = FieldSet::leaf(),
        ListKind::Set => {
            for item in old.iter().filter(|item| !new.contains(item)) {
                difference.removed.insert(format!("v:{item}"), FieldSet::leaf());
            }
            for item in new.iter().filter(|item| !old.contains(item)) {
                difference.changed.insert(format!("v:{item}"), FieldSet::leaf());
            }
        }
        ListKind::Map(keys) => {
            let by_key = |items: &'a [Value]| -> BTreeMap<String, &'a Value> {
                items.iter().map(|item| (item_name(item, keys), item)).collect()
            };
            let (old, new) = (by_key(old), by_key(new));
            let added = new.keys().filter(|name| !old.contains_key(*name));
            for name in old.keys().chain(added) {
                let (was, is) = (old.get(name).copied(), new.get(name).copied());
                let mut below = compare_values(was, is, path);
                below.removed.member |= is.is_none();
                below.changed.member |= was.is_none();
                difference.add(name.clone(), below);
            }
        }
    }
}

impl Difference {
    fn add(&mut self, name: String, below: Self) {
        self.changed.insert(name.clone(), below.changed);
        self.removed.insert(name, below.removed);
    }
}

fn merge_values<'a>(live: &mut Value, applied: &'a Value, path: &mut Vec<&'a str>) {
    match (live, applied) {
        (Value::Object(live), Value::Object(applied)) if !is_atomic_map(path) => {
            for (name, value) in applied {
                path.push(name);
                match live.get_mut(name) {
                    Some(live) => merge_values(live, value, path),
                    None => drop(live.insert(name.clone(), value.clone())),
                }
                path.pop();
            }
        }
        (Value::Array(live), Value::Array(applied)) => match list_kind(path) {
            ListKind::Atomic => live.clone_from(applied),
            ListKind::Set => {
                for item in applied {
                    if !live.contains(item) {
                        live.push(item.clone());
                    }
                }
            }
            ListKind::Map(keys) => {
                for item in applied {
                    let name = item_name(item, keys);
                    match live.iter_mut().find(|live| item_name(live, keys) == name) {
                        Some(live) => merge_values(live, item, path),
                        None => live.push(item.clone()),
                    }
                }
            }
        },
        (live, applied) => *live = applied.clone(),
    }
}

fn remove_values(value: &mut Value, set: &FieldSet, path: &mut Vec<String>) {
    match value {
        Value::Object(fields) => {
            for (name, below) in &set.below {
                let Some(name) = name.strip_prefix("f:") else { continue };
                let Some(field) = fields.get_mut(name) else { continue };
                path.push(name.to_owned());
                if !below.below.is_empty() {
                    remove_values(field, below, path);
                }
                path.pop();
                if below.below.is_empty() || is_empty(field) {
                    fields.shift_remove(name);
                }
            }
        }
        Value::Array(items) => {
            let names: Vec<&str> = path.iter().map(String::as_str).collect();
            match list_kind(&names) {
                ListKind::Map(keys) => items.retain_mut(|item| match set.below.get(&item_name(item, keys)) {
                    Some(below) if below.member => false,
                    Some(below) => {
                        remove_values(item, below, path);
                        true
                    }
                    None => true,
                }),
                ListKind::Set => items.retain(|item| !set.below.contains_key(&format!("v:{item}"))),
                ListKind::Atomic => {}
            }
        }
        _ => {}
    }
}

fn is_empty(value: &Value) -> bool {
    match value {
        Value::Object(fields) => fields.is_empty(),
        Value::Array(items) => items.is_empty(),
        _ => false,
    }
}

/// The name of a list item by its key fields.
fn item_name(item: &Value, keys: &[&str]) -> String {
    let mut key = Map::new();
    for name in keys {
        let given = item.get(*name).filter(|value| !value.is_null()).cloned();
        if let Some(value) = given.or_else(|| key_default(name).map(Value::from)) {
            key.insert((*name).to_owned(), value);
        }
    }
    format!("k:{}", Value::Object(key))
}

fn readable_key(key: &str) -> String {
    let Ok(Value::Object(key)) = serde_json::from_str(key) else { return key.to_owned() };
    key.iter().map(|(name, value)| format!("{name}={value}")).collect::<Vec<_>>().join(",")
}
