//! The patches that change what is there: JSON patch, JSON merge patch and strategic merge patch.

use serde_json::{Map, Value};

use crate::{
    failure::Failure,
    object::{fields_mut, take},
    schema::{ListKind, list_kind},
};

/// How a patch is written, from its content type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum PatchKind {
    /// RFC 6902.
    Json,
    /// RFC 7386.
    Merge,
    /// Kubernetes' own: lists of named things merge by name.
    Strategic,
    /// Server-side apply.
    Apply,
}

impl PatchKind {
    pub(crate) fn of(content_type: &str) -> Result<Self, Failure> {
        match content_type.split(';').next().unwrap_or_default().trim() {
            "application/json-patch+json" => Ok(Self::Json),
            "application/merge-patch+json" => Ok(Self::Merge),
            "application/strategic-merge-patch+json" => Ok(Self::Strategic),
            "application/apply-patch+yaml" => Ok(Self::Apply),
            _ => Err(Failure::unsupported_media(
                "application/json-patch+json, application/merge-patch+json, application/strategic-merge-patch+json, application/apply-patch+yaml",
            )),
        }
    }
}

/// Operations a JSON patch may have, as the real server limits them.
const OPERATIONS_LIMIT: usize = 10_000;
/// How deep a patch may nest before we refuse it rather than recurse further.
const DEPTH_LIMIT: usize = 128;

/// Applies a patch to an object.
pub(crate) fn apply(kind: PatchKind, object: &mut Value, patch: Value) -> Result<(), Failure> {
    match kind {
        PatchKind::Json => json(object, patch),
        PatchKind::Merge | PatchKind::Apply => {
            json_patch::merge(object, &patch);
            Ok(())
        }
        PatchKind::Strategic => match patch {
            Value::Object(patch) => strategic(object, patch, &mut Vec::new()),
            _ => Err(Failure::bad_request("a strategic merge patch is a JSON object")),
        },
    }
}

fn json(object: &mut Value, patch: Value) -> Result<(), Failure> {
    let patch: json_patch::Patch = serde_json::from_value(patch).map_err(|_| Failure::unprocessable())?;
    if patch.0.len() > OPERATIONS_LIMIT {
        return Err(Failure::bad_request(format!(
            "a JSON patch may have at most {OPERATIONS_LIMIT} operations"
        )));
    }
    json_patch::patch(object, &patch).map_err(|error| {
        tracing::debug!(%error, "a JSON patch does not fit the object");
        Failure::unprocessable()
    })
}

fn strategic(target: &mut Value, patch: Map<String, Value>, path: &mut Vec<&str>) -> Result<(), Failure> {
    if path.len() > DEPTH_LIMIT {
        return Err(Failure::bad_request("the patch is nested too deeply"));
    }
    match patch.get("$patch").and_then(Value::as_str) {
        Some("replace") => {
            let fields = patch.into_iter().filter(|(name, _)| name != "$patch");
            *target = Value::Object(fields.collect());
            return Ok(());
        }
        Some("delete") => {
            *target = Value::Object(Map::new());
            return Ok(());
        }
        _ => {}
    }
    retain_keys(target, &patch);
    for (name, value) in patch {
        if let Some(list) = name.strip_prefix("$deleteFromPrimitiveList/") {
            delete_from_list(target, list, &value);
        } else if !name.starts_with('$') {
            field(target, name, value, path)?;
        }
    }
    Ok(())
}

fn field(target: &mut Value, name: String, value: Value, path: &mut Vec<&str>) -> Result<(), Failure> {
    let fields = fields_mut(target);
    let mut deeper: Vec<&str> = path.iter().copied().chain([name.as_str()]).collect();
    match value {
        Value::Null => drop(take(fields, &name)),
        Value::Object(patch) => {
            let slot = fields.entry(name.clone()).or_insert(Value::Null);
            if !slot.is_object() {
                *slot = Value::Object(Map::new());
            }
            strategic(slot, patch, &mut deeper)?;
        }
        Value::Array(patch) => {
            let slot = fields.entry(name.clone()).or_insert(Value::Array(Vec::new()));
            if !slot.is_array() {
                *slot = Value::Array(Vec::new());
            }
            list(slot, patch, &mut deeper)?;
        }
        scalar => drop(fields.insert(name, scalar)),
    }
    Ok(())
}

fn list(target: &mut Value, patch: Vec<Value>, path: &mut Vec<&str>) -> Result<(), Failure> {
    let Value::Array(items) = target else { return Ok(()) };
    let before = items.clone();
    let key = match list_kind(path) {
        ListKind::Atomic => {
            *items = patch;
            return Ok(());
        }
        ListKind::Set => None,
        ListKind::Map(keys) => keys.first().copied(),
    };
    if patch.iter().any(|item| item["$patch"] == "replace") {
        items.clear();
    }
    let mut patched = Vec::new();
    for item in patch {
        if item["$patch"] == "replace" {
            continue;
        }
        match key {
            None => patched.push(item),
            Some(key) => patched.extend(merge_item(items, item, key, path)?),
        }
    }
    let same = |a: &Value, b: &Value| match key {
        Some(key) => a.get(key) == b.get(key),
        None => a == b,
    };
    items.retain(|item| !patched.iter().any(|new| same(new, item)));
    *items = interleave(std::mem::take(items), patched, |item| before.iter().position(|old| same(old, item)));
    Ok(())
}

/// Puts what the patch does not mention and what it does into one order: the patch's, where a kept item that was in
/// front of a patched one stays in front of it.
fn interleave(kept: Vec<Value>, patched: Vec<Value>, place: impl Fn(&Value) -> Option<usize>) -> Vec<Value> {
    let mut merged = Vec::with_capacity(kept.len() + patched.len());
    let mut kept = kept.into_iter().peekable();
    for item in patched {
        let here = place(&item);
        while kept.peek().is_some_and(|first| here.is_some() && place(first) < here) {
            merged.extend(kept.next());
        }
        merged.push(item);
    }
    merged.extend(kept);
    merged
}

/// Merges one item of a patch with the one of the same key and gives the result; none when it is a deletion.
fn merge_item(
    items: &mut Vec<Value>,
    item: Value,
    key: &str,
    path: &mut Vec<&str>,
) -> Result<Option<Value>, Failure> {
    let Value::Object(patch) = item else {
        return Err(Failure::bad_request(format!("an item of {} is not an object", path.join("."))));
    };
    let Some(wanted) = patch.get(key).cloned() else {
        return Err(Failure::bad_request(format!(
            "map: {} does not contain declared merge key: {key}",
            Value::Object(patch)
        )));
    };
    if patch.get("$patch").is_some_and(|directive| directive == "delete") {
        items.retain(|item| item.get(key) != Some(&wanted));
        return Ok(None);
    }
    let found = items.iter().find(|item| item.get(key) == Some(&wanted));
    let mut merged = found.cloned().unwrap_or_else(|| Value::Object(Map::new()));
    strategic(&mut merged, patch, path)?;
    Ok(Some(merged))
}

/// `$retainKeys` names the only fields that may stay: it is how a union changes its member.
fn retain_keys(target: &mut Value, patch: &Map<String, Value>) {
    let Some(Value::Array(keys)) = patch.get("$retainKeys") else { return };
    if let Value::Object(fields) = target {
        fields.retain(|name, _| keys.iter().any(|key| key == name));
    }
}

fn delete_from_list(target: &mut Value, list: &str, gone: &Value) {
    if let (Some(Value::Array(items)), Value::Array(gone)) = (target.get_mut(list), gone) {
        items.retain(|item| !gone.contains(item));
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn patched(mut object: Value, patch: Value) -> Value {
        apply(PatchKind::Strategic, &mut object, patch).unwrap();
        object
    }

    #[test]
    fn named_things_merge_by_name_and_new_ones_are_added() {
        let pod = json!({ "spec": { "containers": [
            { "name": "a", "image": "a:1", "env": [{ "name": "X", "value": "1" }] }, { "name": "b", "image": "b:1" },
        ] } });
        let patch = json!({ "spec": { "containers": [
            { "name": "a", "image": "a:2", "env": [{ "name": "Y", "value": "2" }] }, { "name": "c", "image": "c:1" },
        ] } });
        let expected = json!({ "spec": { "containers": [
            { "name": "a", "image": "a:2", "env": [{ "name": "Y", "value": "2" }, { "name": "X", "value": "1" }] },
            { "name": "c", "image": "c:1" },
            { "name": "b", "image": "b:1" },
        ] } });
        assert_eq!(patched(pod, patch), expected);
    }

    #[test]
    fn directives_delete_replace_and_retain() {
        let pod = || {
            json!({ "spec": {
                "containers": [{ "name": "a" }, { "name": "b" }],
                "volumes": [{ "name": "v", "emptyDir": {} }],
            }, "metadata": { "finalizers": ["x/1", "x/2"], "labels": { "a": "1", "b": "2" } } })
        };
        let spec = |patch: Value| patched(pod(), json!({ "spec": patch }))["spec"].clone();
        assert_eq!(
            spec(json!({ "containers": [{ "name": "a", "$patch": "delete" }] }))["containers"],
            json!([{ "name": "b" }])
        );
        assert_eq!(
            spec(json!({ "containers": [{ "name": "z" }, { "$patch": "replace" }] }))["containers"],
            json!([{ "name": "z" }])
        );
        let volume =
            json!({ "name": "v", "$retainKeys": ["name", "secret"], "secret": { "secretName": "s" } });
        assert_eq!(
            spec(json!({ "volumes": [volume] }))["volumes"],
            json!([{ "name": "v", "secret": { "secretName": "s" } }])
        );
        let metadata = patched(
            pod(),
            json!({ "metadata": { "$deleteFromPrimitiveList/finalizers": ["x/1"], "labels": { "a": null, "c": "3" } } }),
        )["metadata"]
            .clone();
        assert_eq!(metadata, json!({ "finalizers": ["x/2"], "labels": { "b": "2", "c": "3" } }));
    }

    #[test]
    fn an_item_without_its_key_is_refused() {
        let mut pod = json!({ "spec": { "containers": [] } });
        let patch = json!({ "spec": { "containers": [{ "image": "x" }] } });
        assert_eq!(apply(PatchKind::Strategic, &mut pod, patch).unwrap_err().code, 400);
    }
}
