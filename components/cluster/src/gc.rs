//! What deletions lead to: finalizers of the garbage collector, dependents without owners, contents of namespaces.
//!
//! A real cluster does this in controllers, moments later. Here it happens within the request that causes it, which is
//! one of the orders a real cluster could show, and the same one every time. Dependents whose owner never existed are
//! collected by [`sweep`] only.

use serde_json::Value;

use crate::{
    delete::{DeleteOptions, Propagation, is_deleting},
    object::{Key, Object, items, meta_mut, take, text},
    resources::Res,
    store::owner_uids,
    write::Writer,
};

/// Carries a deletion forward as far as it can go now.
pub(crate) fn advance(writer: &mut Writer<'_>, resource: Res, key: &Key) {
    let Some(object) = writer.store.get(resource, key).cloned() else { return };
    if !is_deleting(&object.value) {
        return;
    }
    if resource.kind == "Namespace" {
        return advance_namespace(writer, key.name());
    }
    // Each dependent's removal comes back here; the loop below sees to the rest, a recursion would be as deep as there
    // are dependents.
    if !writer.busy.insert(object.uid().to_owned()) {
        return;
    }
    release(writer, resource, key, &object);
    writer.busy.remove(object.uid());
}

/// Does what the collector's finalizers on a deleted object stand for, and takes them off.
fn release(writer: &mut Writer<'_>, resource: Res, key: &Key, object: &Object) {
    let finalizers = items(&object.value, "/metadata/finalizers");
    if finalizers.iter().any(|known| known == "orphan") {
        for (resource, key) in writer.store.dependents(object.uid()) {
            drop_owner(writer, resource, &key, object.uid());
        }
        drop_finalizer(writer, resource, key, "orphan");
    } else if finalizers.iter().any(|known| known == "foregroundDeletion") {
        for (resource, key) in writer.store.dependents(object.uid()) {
            collect(writer, resource, &key, Propagation::Foreground);
        }
        if !is_blocked(writer, object.uid()) {
            drop_finalizer(writer, resource, key, "foregroundDeletion");
        }
    }
}

/// Deletes what a removed object alone owned, and lets its own owners go if they waited for it.
pub(crate) fn after_removal(writer: &mut Writer<'_>, last: &Object) {
    for (resource, key) in writer.store.dependents(last.uid()) {
        collect(writer, resource, &key, Propagation::Background);
    }
    for owner in owner_uids(&last.value) {
        if let Some((resource, key)) = writer.store.by_uid(owner).cloned() {
            advance(writer, resource, &key);
        }
    }
}

/// Deletes everything in a namespace that is being deleted, and the namespace once it is empty.
pub(crate) fn advance_namespace(writer: &mut Writer<'_>, name: &str) {
    let Some(namespaces) = writer.served.kind("", "Namespace") else { return };
    let key = Key::new("", name);
    match writer.store.get(namespaces, &key) {
        Some(namespace) if is_deleting(&namespace.value) => {}
        _ => return,
    }
    if !writer.busy.insert(name.to_owned()) {
        return;
    }
    let remaining = empty(writer, name);
    writer.busy.remove(name);
    if remaining {
        return;
    }
    let Some(namespace) = writer.store.get(namespaces, &key) else { return };
    if items(&namespace.value, "/metadata/finalizers").is_empty() {
        writer.finish(namespaces, &key);
    }
}

/// Deletes what is in a namespace. True when something stays, for its finalizers.
fn empty(writer: &mut Writer<'_>, name: &str) -> bool {
    let served = writer.served;
    let mut remaining = false;
    for resource in served.iter().filter(|resource| resource.namespaced) {
        for object in writer.store.list(resource, name) {
            if !is_deleting(&object.value) {
                let options = DeleteOptions {
                    propagation: Some(Propagation::Background),
                    grace_seconds: Some(0),
                    ..Default::default()
                };
                // It was there a moment ago, under the same lock; if a cascade took it meanwhile, all the better.
                drop(writer.delete(resource, &object.key(), &options));
            }
        }
        remaining |= !writer.store.list(resource, name).is_empty();
    }
    remaining
}

/// Deletes every object whose owners are all gone, including those that never were. What a real cluster's collector
/// does within seconds of their creation.
pub(crate) fn sweep(writer: &mut Writer<'_>) -> usize {
    let missing: Vec<String> =
        writer.store.owners().filter(|uid| writer.store.by_uid(uid).is_none()).cloned().collect();
    let mut collected = 0;
    for uid in missing {
        for (resource, key) in writer.store.dependents(&uid) {
            collected += usize::from(collect(writer, resource, &key, Propagation::Background));
        }
    }
    collected
}

/// Deletes a dependent unless another of its owners lives, in which case it only forgets the dead ones. True when it
/// was deleted.
fn collect(writer: &mut Writer<'_>, resource: Res, key: &Key, propagation: Propagation) -> bool {
    let Some(object) = writer.store.get(resource, key).cloned() else { return false };
    let lives = |writer: &Writer<'_>, uid: &str| {
        writer.store.by_uid(uid).and_then(|(resource, key)| writer.store.get(*resource, key)).is_some_and(
            |owner| {
                let leaving =
                    items(&owner.value, "/metadata/finalizers").iter().any(|f| f == "foregroundDeletion");
                !(is_deleting(&owner.value) && leaving)
            },
        )
    };
    let (living, dead): (Vec<&str>, Vec<&str>) =
        owner_uids(&object.value).partition(|uid| lives(writer, uid));
    if !living.is_empty() {
        for uid in dead {
            drop_owner(writer, resource, key, uid);
        }
        return false;
    }
    if is_deleting(&object.value) {
        return false;
    }
    let options = DeleteOptions { propagation: Some(propagation), ..Default::default() };
    writer.delete(resource, key, &options).is_ok()
}

/// Whether a dependent that says so still stands in the way of its owner's removal.
fn is_blocked(writer: &Writer<'_>, owner: &str) -> bool {
    writer.store.dependents(owner).iter().filter_map(|(resource, key)| writer.store.get(*resource, key)).any(
        |dependent| {
            items(&dependent.value, "/metadata/ownerReferences").iter().any(|reference| {
                text(reference, "/uid") == owner && reference["blockOwnerDeletion"] == Value::Bool(true)
            })
        },
    )
}

fn drop_owner(writer: &mut Writer<'_>, resource: Res, key: &Key, uid: &str) {
    let Some(object) = writer.store.get(resource, key) else { return };
    let mut value = object.value.clone();
    let meta = meta_mut(&mut value);
    if let Some(Value::Array(mut owners)) = take(meta, "ownerReferences") {
        owners.retain(|owner| text(owner, "/uid") != uid);
        if !owners.is_empty() {
            meta.insert("ownerReferences".to_owned(), owners.into());
        }
    }
    writer.store.put(resource, key.clone(), value);
}

/// Takes a finalizer off and removes the object if it was the last thing that kept it.
fn drop_finalizer(writer: &mut Writer<'_>, resource: Res, key: &Key, finalizer: &str) {
    let Some(object) = writer.store.get(resource, key) else { return };
    let mut value = object.value.clone();
    let meta = meta_mut(&mut value);
    let mut left = 0;
    if let Some(Value::Array(mut finalizers)) = take(meta, "finalizers") {
        finalizers.retain(|known| known != finalizer);
        left = finalizers.len();
        if left > 0 {
            meta.insert("finalizers".to_owned(), finalizers.into());
        }
    }
    let grace = value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0);
    if left == 0 && grace == 0 {
        writer.finish(resource, key);
    } else {
        writer.store.put(resource, key.clone(), value);
    }
}
