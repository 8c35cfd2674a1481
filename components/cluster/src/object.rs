//! A stored object and its key.

use std::{fmt, sync::OnceLock};

use bytes::Bytes;
use serde::{Serialize, Serializer, ser::SerializeMap};
use serde_json::{Map, Value};

/// Where an object lives among those of its kind. Ordered as etcd orders its keys, which is the order of a list: the
/// separator sorts below every letter but above `-`.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) struct Key(String);

impl Key {
    /// The key of `name` in `namespace`; cluster-scoped objects have an empty one.
    pub(crate) fn new(namespace: &str, name: &str) -> Self {
        Self(if namespace.is_empty() { name.to_owned() } else { format!("{namespace}/{name}") })
    }

    /// Below every key of `namespace` and above those of all that sort before it.
    pub(crate) fn prefix(namespace: &str) -> Self {
        Self(if namespace.is_empty() { String::new() } else { format!("{namespace}/") })
    }

    pub(crate) fn from_start(start: &str) -> Self {
        Self(start.to_owned())
    }

    pub(crate) fn as_str(&self) -> &str {
        &self.0
    }

    pub(crate) fn namespace(&self) -> &str {
        self.0.split_once('/').map_or("", |(namespace, _)| namespace)
    }

    pub(crate) fn name(&self) -> &str {
        self.0.split_once('/').map_or(&self.0, |(_, name)| name)
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// One version of an object. Immutable; its JSON is made once, whoever asks for it.
#[derive(Debug)]
pub(crate) struct Object {
    pub(crate) value: Value,
    pub(crate) revision: u64,
    json: OnceLock<Bytes>,
}

impl Object {
    pub(crate) fn new(mut value: Value, revision: u64) -> Self {
        meta_mut(&mut value).insert("resourceVersion".to_owned(), Value::String(revision.to_string()));
        Self { value, revision, json: OnceLock::new() }
    }

    pub(crate) fn key(&self) -> Key {
        Key::new(text(&self.value, "/metadata/namespace"), text(&self.value, "/metadata/name"))
    }

    pub(crate) fn uid(&self) -> &str {
        text(&self.value, "/metadata/uid")
    }

    /// The object without `kind` and `apiVersion`, as lists show it.
    pub(crate) fn item(&self) -> &Bytes {
        self.json.get_or_init(|| json_bytes(&Untyped(&self.value)))
    }

    /// The object as it is sent alone.
    pub(crate) fn json(&self) -> Bytes {
        let (kind, api_version) = (text(&self.value, "/kind"), text(&self.value, "/apiVersion"));
        let item = self.item();
        let mut whole = Vec::with_capacity(item.len() + kind.len() + api_version.len() + 32);
        whole.extend_from_slice(b"{\"kind\":\"");
        whole.extend_from_slice(kind.as_bytes());
        whole.extend_from_slice(b"\",\"apiVersion\":\"");
        whole.extend_from_slice(api_version.as_bytes());
        whole.extend_from_slice(b"\",");
        whole.extend_from_slice(&item[1..]);
        whole.into()
    }
}

/// Serialised JSON; a [`Value`] has only string keys and finite numbers, so it always has a serialised form.
pub(crate) fn json_bytes(value: &impl Serialize) -> Bytes {
    serde_json::to_vec(value).unwrap_or_default().into()
}

struct Untyped<'a>(&'a Value);

impl Serialize for Untyped<'_> {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let fields = self.0.as_object().into_iter().flatten();
        let mut map = serializer.serialize_map(None)?;
        for (name, value) in fields.filter(|(name, _)| *name != "kind" && *name != "apiVersion") {
            map.serialize_entry(name, value)?;
        }
        map.end()
    }
}

/// The string at a JSON pointer, empty when there is none: Kubernetes does not tell the two apart either.
pub(crate) fn text<'a>(value: &'a Value, pointer: &str) -> &'a str {
    value.pointer(pointer).and_then(Value::as_str).unwrap_or_default()
}

/// The array at a JSON pointer, empty when there is none.
pub(crate) fn items<'a>(value: &'a Value, pointer: &str) -> &'a [Value] {
    value.pointer(pointer).and_then(Value::as_array).map_or(&[], Vec::as_slice)
}

/// The entries of the object at a JSON pointer, none when there is none.
pub(crate) fn entries<'a>(value: &'a Value, pointer: &str) -> impl Iterator<Item = (&'a String, &'a Value)> {
    value.pointer(pointer).and_then(Value::as_object).into_iter().flatten()
}

/// The object's fields; whatever else it was becomes an object.
pub(crate) fn fields_mut(value: &mut Value) -> &mut Map<String, Value> {
    if !value.is_object() {
        *value = Value::Object(Map::new());
    }
    match value {
        Value::Object(fields) => fields,
        _ => unreachable!("it was just made an object"),
    }
}

/// The field `name` of an object as an object.
pub(crate) fn child_mut<'a>(value: &'a mut Value, name: &str) -> &'a mut Map<String, Value> {
    fields_mut(fields_mut(value).entry(name.to_owned()).or_insert(Value::Null))
}

pub(crate) fn meta_mut(value: &mut Value) -> &mut Map<String, Value> {
    child_mut(value, "metadata")
}

/// Removes a field and keeps the order of the others, which swapping would not.
pub(crate) fn take(fields: &mut Map<String, Value>, name: &str) -> Option<Value> {
    fields.shift_remove(name)
}
