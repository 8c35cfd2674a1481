//! Deleting objects: at once, or when their finalizers and their grace period let them go.

use std::sync::Arc;

use serde_json::Value;

use crate::{
    failure::Failure,
    gc,
    meta::timestamp,
    object::{Key, Object, items, meta_mut, take, text},
    resources::{Res, Resource},
    write::Writer,
};

/// How a deletion is to be done, from body and query.
#[derive(Debug, Clone, Default)]
pub(crate) struct DeleteOptions {
    pub(crate) propagation: Option<Propagation>,
    pub(crate) grace_seconds: Option<u64>,
    pub(crate) uid: Option<String>,
    pub(crate) resource_version: Option<String>,
    pub(crate) dry_run: bool,
}

/// What becomes of the objects that the deleted one owns.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Propagation {
    /// They are deleted after it.
    Background,
    /// It stays until they are deleted.
    Foreground,
    /// They stay and lose their reference to it.
    Orphan,
}

/// What a deletion did.
#[derive(Debug)]
pub(crate) enum Deleted {
    /// The object is gone; its last state.
    Gone(Arc<Object>),
    /// The object stays, with a deletion timestamp, until finalizers or its grace period let it go.
    Pending(Arc<Object>),
}

impl Writer<'_> {
    /// Deletes an object, now or as soon as its finalizers and its grace period let it.
    pub(crate) fn delete(
        &mut self,
        resource: Res,
        key: &Key,
        options: &DeleteOptions,
    ) -> Result<Deleted, Failure> {
        let Some(object) = self.store.get(resource, key).cloned() else {
            return Err(Failure::not_found(&resource, key.name()));
        };
        check_preconditions(&resource, key, &object, options)?;
        if options.dry_run {
            return Ok(Deleted::Gone(object));
        }
        let grace = grace_seconds(&resource, &object.value, options);
        let mut value = object.value.clone();
        let mut finalizers: Vec<Value> = items(&value, "/metadata/finalizers").to_vec();
        let wanted = match options.propagation {
            Some(Propagation::Foreground) => Some("foregroundDeletion"),
            Some(Propagation::Orphan) => Some("orphan"),
            Some(Propagation::Background) => None,
            None => resource.orphans.then_some("orphan"),
        };
        if options.propagation.is_some() || wanted.is_some() {
            finalizers.retain(|known| known != "foregroundDeletion" && known != "orphan");
            finalizers.extend(wanted.map(Value::from));
        }
        let namespace = resource.kind == "Namespace";
        if finalizers.is_empty() && grace == 0 && !namespace {
            let last = self.finish(resource, key).unwrap_or(object);
            return Ok(Deleted::Gone(if resource.kind == "Pod" { self.stopped(&last) } else { last }));
        }
        let meta = meta_mut(&mut value);
        let already = meta.get("deletionGracePeriodSeconds").and_then(Value::as_u64);
        if !meta.contains_key("deletionTimestamp") || already.is_some_and(|already| grace < already) {
            let until = self.now.saturating_add(i64::try_from(grace).unwrap_or(i64::MAX));
            meta.insert("deletionTimestamp".to_owned(), timestamp(until).into());
            if !namespace {
                meta.insert("deletionGracePeriodSeconds".to_owned(), grace.into());
            }
        }
        if finalizers.is_empty() {
            take(meta, "finalizers");
        } else {
            meta.insert("finalizers".to_owned(), finalizers.into());
        }
        if namespace {
            value["status"]["phase"] = "Terminating".into();
        }
        let pending =
            if value == object.value { object } else { self.store.put(resource, key.clone(), value) };
        gc::advance(self, resource, key);
        // The collector may have finished already; a client is told of the state in between, as it would be if the
        // collector took its time.
        Ok(Deleted::Pending(pending))
    }

    /// Removes an object for good, and then what it alone owned.
    pub(crate) fn finish(&mut self, resource: Res, key: &Key) -> Option<Arc<Object>> {
        let last = self.store.remove(resource, key)?;
        gc::after_removal(self, &last);
        if !key.namespace().is_empty() {
            gc::advance_namespace(self, key.namespace());
        }
        Some(last)
    }

    /// A pod that is gone says that it was given no time.
    fn stopped(&self, last: &Object) -> Arc<Object> {
        let mut value = last.value.clone();
        let now = self.timestamp();
        let meta = meta_mut(&mut value);
        meta.entry("deletionTimestamp").or_insert_with(|| now.into());
        meta.insert("deletionGracePeriodSeconds".to_owned(), 0.into());
        Arc::new(Object::new(value, last.revision))
    }
}

/// Whether somebody asked for the object's deletion.
pub(crate) fn is_deleting(value: &Value) -> bool {
    !text(value, "/metadata/deletionTimestamp").is_empty()
}

/// Whether nothing keeps a deleted object any more.
pub(crate) fn is_released(value: &Value) -> bool {
    let grace = value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0);
    is_deleting(value)
        && grace == 0
        && items(value, "/metadata/finalizers").is_empty()
        && items(value, "/spec/finalizers").is_empty()
}

fn check_preconditions(
    resource: &Resource,
    key: &Key,
    object: &Object,
    options: &DeleteOptions,
) -> Result<(), Failure> {
    let mismatch = |what: &str, asked: &str, is: &str, hint: &str| {
        let why = format!(
            "the {what} in the precondition ({asked}) does not match the {what} in record ({is}). {hint}"
        );
        Err(Failure::precondition(resource, key.name(), &why))
    };
    if let Some(uid) = &options.uid
        && uid != object.uid()
    {
        return mismatch("UID", uid, object.uid(), "The object might have been deleted and then recreated");
    }
    let version = object.revision.to_string();
    match &options.resource_version {
        Some(asked) if *asked != version => {
            mismatch("ResourceVersion", asked, &version, "The object might have been modified")
        }
        _ => Ok(()),
    }
}

/// How long the object may stay after the request: only pods on a node have something that must exit first.
fn grace_seconds(resource: &Resource, value: &Value, options: &DeleteOptions) -> u64 {
    if resource.kind != "Pod" {
        return 0;
    }
    let finished = matches!(text(value, "/status/phase"), "Succeeded" | "Failed");
    if text(value, "/spec/nodeName").is_empty() || finished {
        return 0;
    }
    let default = value.pointer("/spec/terminationGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(30);
    options.grace_seconds.unwrap_or(default)
}
