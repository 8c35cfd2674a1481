//! What every object has, whatever its kind: type, place, name, identity and version, and what of them a caller may say.

use rand::{Rng, rngs::StdRng};
use serde_json::Value;

use crate::{
    failure::{Cause, Failure},
    object::{Key, Object, meta_mut, take, text},
    resources::Resource,
    write::WriteOptions,
};

/// How long a suffix `generateName` gets, and from what: no vowels, so that it spells nothing, no look-alikes.
const SUFFIX_LENGTH: usize = 5;
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// What of `generateName` is kept, so that with the suffix it is at most one label.
const GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;

/// Refuses an object of another type, and puts the type in front of the other fields.
pub(crate) fn check_type(resource: &Resource, value: &mut Value) -> Result<(), Failure> {
    if !value.is_object() {
        return Err(Failure::bad_request("the object provided is not a JSON object"));
    }
    let (kind, api_version) = (text(value, "/kind"), text(value, "/apiVersion"));
    if !kind.is_empty() && kind != resource.kind {
        return Err(Failure::bad_request(format!(
            "{kind} in version \"{}\" cannot be handled as a {}: converting ({kind}) to ({}): unknown conversion",
            resource.version, resource.kind, resource.kind
        )));
    }
    let expected = resource.api_version();
    if !api_version.is_empty() && api_version != expected {
        return Err(Failure::bad_request(format!(
            "the API version in the data ({api_version}) does not match the expected API version ({expected})"
        )));
    }
    let mut whole = serde_json::Map::new();
    whole.insert("apiVersion".to_owned(), expected.into());
    whole.insert("kind".to_owned(), resource.kind.into());
    if let Value::Object(fields) = value.take() {
        whole.extend(fields.into_iter().filter(|(name, _)| name != "kind" && name != "apiVersion"));
    }
    *value = Value::Object(whole);
    Ok(())
}

/// The name in the body and in the path are one.
pub(crate) fn check_name(key: &Key, value: &Value) -> Result<(), Failure> {
    let (name, wanted) = (text(value, "/metadata/name"), key.name());
    if name == wanted {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({wanted})"
    )))
}

/// A patch must not give the object another identity.
pub(crate) fn check_unmoved(
    resource: &Resource,
    key: &Key,
    old: &Object,
    value: &Value,
) -> Result<(), Failure> {
    let namespace = text(value, "/metadata/namespace");
    if resource.namespaced && namespace != key.namespace() {
        return Err(Failure::bad_request(format!(
            "the namespace of the object ({namespace}) does not match the namespace on the request ({})",
            key.namespace()
        )));
    }
    let uid = text(value, "/metadata/uid");
    if uid.is_empty() || uid == old.uid() {
        return Ok(());
    }
    let cause = Cause::invalid("metadata.uid", uid, "field is immutable");
    Err(Failure::invalid(resource, key.name(), &[cause]))
}

/// Refuses an object of another namespace, and writes the one of the path into it.
pub(crate) fn place_in(value: &mut Value, resource: &Resource, namespace: &str) -> Result<(), Failure> {
    let meta = meta_mut(value);
    let given = meta.get("namespace").and_then(Value::as_str).unwrap_or_default();
    if !given.is_empty() && given != namespace {
        return Err(Failure::bad_request(
            "the namespace of the provided object does not match the namespace sent on the request",
        ));
    }
    if resource.namespaced {
        meta.insert("namespace".to_owned(), namespace.into());
    } else {
        take(meta, "namespace");
    }
    Ok(())
}

/// A version or uid that the caller names is a precondition.
pub(crate) fn check_version(
    resource: &Resource,
    key: &Key,
    old: &Object,
    value: &Value,
) -> Result<(), Failure> {
    let uid = text(value, "/metadata/uid");
    if !uid.is_empty() && uid != old.uid() {
        let why = format!(
            "StorageError: invalid object, Code: 4, Key: /registry/{}/{}, ResourceVersion: 0, AdditionalErrorMsg: \
             Precondition failed: UID in precondition: {uid}, UID in object meta: {}",
            resource.plural,
            key.as_str(),
            old.uid()
        );
        return Err(Failure::conflict(resource, key.name(), &why));
    }
    let version = text(value, "/metadata/resourceVersion");
    if !version.is_empty() && version != "0" && version != text(&old.value, "/metadata/resourceVersion") {
        return Err(Failure::modified(resource, key.name()));
    }
    Ok(())
}

/// What only the server writes stays as it is.
pub(crate) fn keep_identity(old: &Value, value: &mut Value, options: &WriteOptions) {
    let meta = meta_mut(value);
    for name in [
        "uid",
        "creationTimestamp",
        "deletionTimestamp",
        "deletionGracePeriodSeconds",
        "generation",
        "resourceVersion",
        "generateName",
    ] {
        match old["metadata"].get(name) {
            Some(kept) => drop(meta.insert(name.to_owned(), kept.clone())),
            None => drop(take(meta, name)),
        }
    }
    if !options.applied {
        match old["metadata"].get("managedFields") {
            Some(kept) => drop(meta.insert("managedFields".to_owned(), kept.clone())),
            None => drop(take(meta, "managedFields")),
        }
    }
}

/// Whether two versions of an object ask for the same: all but their metadata and status.
pub(crate) fn same_content(old: &Value, new: &Value) -> bool {
    same_fields(old, new, &["metadata", "status"])
}

/// Whether an update changes nothing a reader could see. Ownership alone is no reason for a new version.
pub(crate) fn unchanged(old: &Value, new: &Value) -> bool {
    same_fields(old, new, &["metadata"])
        && same_fields(&old["metadata"], &new["metadata"], &["managedFields", "resourceVersion"])
}

fn same_fields(old: &Value, new: &Value, except: &[&str]) -> bool {
    let covered = |by: &Value, fields: &Value| {
        let fields = fields.as_object().into_iter().flatten();
        fields
            .filter(|(name, _)| !except.contains(&name.as_str()))
            .all(|(name, value)| by.get(name) == Some(value))
    };
    covered(new, old) && covered(old, new)
}

/// Decodes and encodes as the Go types do: unknown fields go, wrong types are refused, empty metadata is left out.
pub(crate) fn normalise(resource: &Resource, value: Value) -> Result<Value, Failure> {
    let mut value = resource.normalise(value).map_err(|error| {
        let (kind, version) = (resource.kind, resource.version);
        Failure::bad_request(format!("{kind} in version {version:?} cannot be handled as a {kind}: {error}"))
    })?;
    let meta = meta_mut(&mut value);
    for name in ["annotations", "labels", "finalizers", "ownerReferences"] {
        let empty = match meta.get(name) {
            Some(Value::Object(fields)) => fields.is_empty(),
            Some(Value::Array(items)) => items.is_empty(),
            Some(other) => other.is_null(),
            None => false,
        };
        if empty {
            take(meta, name);
        }
    }
    Ok(value)
}

/// A random uid of the shape every other uid has.
pub(crate) fn uid(ids: &mut StdRng) -> String {
    let mut bytes = [0; 16];
    ids.fill_bytes(&mut bytes);
    bytes[6] = bytes[6] & 0x0f | 0x40;
    bytes[8] = bytes[8] & 0x3f | 0x80;
    let hex: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("{}-{}-{}-{}-{}", &hex[..8], &hex[8..12], &hex[12..16], &hex[16..20], &hex[20..])
}

/// Seconds since 1970 as Kubernetes writes times.
pub(crate) fn timestamp(seconds: i64) -> String {
    k8s_openapi::jiff::Timestamp::from_second(seconds)
        .unwrap_or(k8s_openapi::jiff::Timestamp::UNIX_EPOCH)
        .to_string()
}

/// Draws a name for an object that has only the beginning of one.
pub(crate) fn generate_name(ids: &mut StdRng, value: &mut Value) {
    let meta = meta_mut(value);
    let has_name = meta.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
    let base = meta.get("generateName").and_then(Value::as_str).unwrap_or_default();
    if has_name || base.is_empty() {
        return;
    }
    let mut name: String = base.chars().take(GENERATED_BASE).collect();
    for _ in 0..SUFFIX_LENGTH {
        let letter = SUFFIX_LETTERS[ids.next_u32() as usize % SUFFIX_LETTERS.len()];
        name.push(char::from(letter));
    }
    meta.insert("name".to_owned(), name.into());
}
