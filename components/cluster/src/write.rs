//! Changing objects: what create, update and delete mean beyond storing a value.
//!
//! Everything here runs under the store's lock and takes no time but the processor's, so that a request either happened
//! or did not.

use std::{collections::BTreeSet, sync::Arc};

use rand::{Rng, rngs::StdRng};
use serde_json::{Value, json};

use crate::{
    admit,
    failure::{Cause, Failure},
    gc,
    object::{Key, Object, items, meta_mut, take, text},
    ownership,
    patch::{self, PatchKind},
    resources::{Res, Resource, Served},
    store::Store,
    validate,
};

/// One change under way.
pub(crate) struct Writer<'a> {
    pub(crate) store: &'a mut Store,
    pub(crate) served: &'a Served,
    /// Names and uids.
    pub(crate) ids: &'a mut StdRng,
    /// Seconds since 1970.
    pub(crate) now: i64,
    /// Which Service addresses are handed out.
    pub(crate) addresses: &'a mut admit::Addresses,
    /// Owners (by uid) and namespaces whose dependents are being deleted by a caller further up.
    pub(crate) busy: BTreeSet<String>,
}

/// How a write is to be done, from the query.
#[derive(Debug, Clone, Default)]
pub(crate) struct WriteOptions {
    /// Who writes, for field ownership.
    pub(crate) manager: String,
    /// Check everything, store nothing.
    pub(crate) dry_run: bool,
    /// `status`, or empty.
    pub(crate) subresource: String,
    /// The value already says who owns what: it was applied.
    pub(crate) applied: bool,
}

impl WriteOptions {
    fn author<'a>(&'a self, now: &'a str) -> ownership::Author<'a> {
        ownership::Author { manager: &self.manager, subresource: &self.subresource, now }
    }
}

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

/// How long a suffix `generateName` gets, and from what: no vowels, so that it spells nothing, no look-alikes.
const SUFFIX_LENGTH: usize = 5;
const SUFFIX_LETTERS: &[u8] = b"bcdfghjklmnpqrstvwxz2456789";
/// What of `generateName` is kept, so that with the suffix it is at most one label.
const GENERATED_BASE: usize = 63 - SUFFIX_LENGTH;

impl Writer<'_> {
    /// Creates an object.
    pub(crate) fn create(
        &mut self,
        resource: Res,
        namespace: &str,
        mut value: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Failure> {
        check_type(&resource, &mut value)?;
        place_in(&mut value, &resource, namespace)?;
        if !text(&value, "/metadata/resourceVersion").is_empty() {
            return Err(Failure::unclassified("resourceVersion should not be set on objects to be created"));
        }
        self.name(&mut value);
        let name = text(&value, "/metadata/name").to_owned();
        self.check_namespace(resource, namespace, &name)?;
        self.stamp_new(&mut value, &resource, options);
        admit::create(&resource, &mut value)?;
        let mut value = normalise(&resource, value)?;
        let key = Key::new(namespace, &name);
        if resource.kind == "Service" {
            self.addresses.assign(&resource, &mut value, None, self.store)?;
        }
        validate::create(&resource, &value)?;
        if self.store.get(resource, &key).is_some() {
            return Err(Failure::already_exists(&resource, &name));
        }
        if !options.applied {
            ownership::updated(None, &mut value, options.author(&self.timestamp()));
        }
        if options.dry_run {
            return Ok(Arc::new(Object::new(value, self.store.revision())));
        }
        let object = self.store.put(resource, key, value);
        self.created(resource, &object);
        Ok(object)
    }

    /// Replaces an object, or its status. True when it made one instead.
    pub(crate) fn update(
        &mut self,
        resource: Res,
        key: &Key,
        mut value: Value,
        options: &WriteOptions,
    ) -> Result<(Arc<Object>, bool), Failure> {
        check_type(&resource, &mut value)?;
        place_in(&mut value, &resource, key.namespace())?;
        check_name(key, &value)?;
        let Some(old) = self.store.get(resource, key).cloned() else {
            if !resource.create_on_update || !options.subresource.is_empty() {
                return Err(Failure::not_found(&resource, key.name()));
            }
            take(meta_mut(&mut value), "resourceVersion");
            return self.create(resource, key.namespace(), value, options).map(|object| (object, true));
        };
        let version = text(&value, "/metadata/resourceVersion");
        if version.is_empty() && resource.versioned_update {
            let cause = Cause::invalid("metadata.resourceVersion", 0, "must be specified for an update");
            return Err(Failure::invalid(&resource, key.name(), &[cause]));
        }
        self.replace(resource, key, &old, value, options).map(|object| (object, false))
    }

    /// Stores `value` in the place of `old`, after everything an update checks.
    pub(crate) fn replace(
        &mut self,
        resource: Res,
        key: &Key,
        old: &Arc<Object>,
        mut value: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Failure> {
        check_version(&resource, key, old, &value)?;
        keep_identity(&old.value, &mut value, options);
        admit::update(&resource, &options.subresource, &old.value, &mut value)?;
        let mut value = normalise(&resource, value)?;
        if resource.kind == "Service" {
            self.addresses.assign(&resource, &mut value, Some(&old.value), self.store)?;
        }
        validate::update(&resource, &old.value, &value)?;
        if resource.generation && value.get("spec") != old.value.get("spec") {
            let generation =
                old.value.pointer("/metadata/generation").and_then(Value::as_u64).unwrap_or(0) + 1;
            meta_mut(&mut value).insert("generation".to_owned(), generation.into());
        }
        let same_owners =
            !options.applied || old.value["metadata"]["managedFields"] == value["metadata"]["managedFields"];
        if same_owners && unchanged(&old.value, &value) {
            return Ok(old.clone());
        }
        if !options.applied {
            ownership::updated(Some(&old.value), &mut value, options.author(&self.timestamp()));
        }
        if options.dry_run {
            return Ok(Arc::new(Object::new(value, old.revision)));
        }
        let object = self.store.put(resource, key.clone(), value);
        // The last finalizer of a deleted object was what kept it.
        if is_released(&object.value) {
            return Ok(self.finish(resource, key).unwrap_or(object));
        }
        if is_deleting(&object.value) {
            gc::advance(self, resource, key);
        }
        Ok(object)
    }

    /// Changes what is there.
    pub(crate) fn patch(
        &mut self,
        resource: Res,
        key: &Key,
        kind: PatchKind,
        patch: Value,
        options: &WriteOptions,
    ) -> Result<Arc<Object>, Failure> {
        let Some(old) = self.store.get(resource, key).cloned() else {
            return Err(Failure::not_found(&resource, key.name()));
        };
        let mut value = old.value.clone();
        // Only a version that the patch itself names is a precondition.
        take(meta_mut(&mut value), "resourceVersion");
        patch::apply(kind, &mut value, patch)?;
        check_name(key, &value)?;
        check_unmoved(&resource, key, &old, &value)?;
        self.replace(resource, key, &old, value, options)
    }

    /// Server-side apply: makes the object have what `applied` says, and nothing that this manager said earlier and no
    /// longer says. True when the object was made.
    pub(crate) fn apply(
        &mut self,
        resource: Res,
        key: &Key,
        mut applied: Value,
        force: bool,
        options: &WriteOptions,
    ) -> Result<(Arc<Object>, bool), Failure> {
        check_type(&resource, &mut applied)?;
        place_in(&mut applied, &resource, key.namespace())?;
        check_name(key, &applied)?;
        let (now, options) = (self.timestamp(), WriteOptions { applied: true, ..options.clone() });
        let Some(old) = self.store.get(resource, key).cloned() else {
            if !options.subresource.is_empty() {
                return Err(Failure::not_found(&resource, key.name()));
            }
            if !text(&applied, "/metadata/uid").is_empty() {
                let uid = text(&applied, "/metadata/uid");
                let why = format!(
                    "uid mismatch: the provided object specified uid {uid}, and no existing object was found"
                );
                return Err(Failure::conflict(&resource, key.name(), &why));
            }
            let value = ownership::applied(&Value::Null, applied, options.author(&now), force)?;
            return self.create(resource, key.namespace(), value, &options).map(|object| (object, true));
        };
        check_unmoved(&resource, key, &old, &applied)?;
        check_version(&resource, key, &old, &applied)?;
        let mut value = ownership::applied(&old.value, applied, options.author(&now), force)?;
        take(meta_mut(&mut value), "resourceVersion");
        self.replace(resource, key, &old, value, &options).map(|object| (object, false))
    }

    /// Gives a pod its node, as the scheduler does.
    pub(crate) fn bind(
        &mut self,
        resource: Res,
        key: &Key,
        pod: &Arc<Object>,
        node: &str,
        options: &WriteOptions,
    ) -> Result<(), Failure> {
        let already = text(&pod.value, "/spec/nodeName");
        if !already.is_empty() {
            let why = format!("pod {} is already assigned to node {already:?}", key.name());
            return Err(Failure::conflict(&resource, key.name(), &why));
        }
        let mut bound = pod.value.clone();
        bound["spec"]["nodeName"] = node.into();
        self.replace(resource, key, pod, bound, options)?;
        Ok(())
    }

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

    pub(crate) fn timestamp(&self) -> String {
        timestamp(self.now)
    }

    /// What controllers of a real cluster do when such an object appears.
    fn created(&mut self, resource: Res, object: &Object) {
        if resource.kind == "Namespace"
            && let Some(accounts) = self.served.kind("", "ServiceAccount")
        {
            let name = text(&object.value, "/metadata/name").to_owned();
            let account = json!({ "metadata": { "name": "default" } });
            // It cannot fail: the namespace was empty a moment ago.
            drop(self.create(accounts, &name, account, &WriteOptions::default()));
        }
    }

    fn name(&mut self, value: &mut Value) {
        let meta = meta_mut(value);
        let has_name = meta.get("name").and_then(Value::as_str).is_some_and(|name| !name.is_empty());
        let base = meta.get("generateName").and_then(Value::as_str).unwrap_or_default();
        if has_name || base.is_empty() {
            return;
        }
        let mut name: String = base.chars().take(GENERATED_BASE).collect();
        for _ in 0..SUFFIX_LENGTH {
            let letter = SUFFIX_LETTERS[self.ids.next_u32() as usize % SUFFIX_LETTERS.len()];
            name.push(char::from(letter));
        }
        meta.insert("name".to_owned(), name.into());
    }

    fn check_namespace(&self, resource: Res, namespace: &str, name: &str) -> Result<(), Failure> {
        if namespace.is_empty() {
            return Ok(());
        }
        let Some(namespaces) = self.served.kind("", "Namespace") else { return Ok(()) };
        match self.store.get(namespaces, &Key::new("", namespace)) {
            None => Err(Failure::not_found(&namespaces, namespace)),
            Some(found) if is_deleting(&found.value) => {
                Err(Failure::namespace_terminating(&resource, name, namespace))
            }
            Some(_) => Ok(()),
        }
    }

    fn stamp_new(&mut self, value: &mut Value, resource: &Resource, options: &WriteOptions) {
        let (uid, now) = (uid(self.ids), self.timestamp());
        let meta = meta_mut(value);
        for server_owned in ["selfLink", "deletionTimestamp", "deletionGracePeriodSeconds", "generation"] {
            take(meta, server_owned);
        }
        if !options.applied {
            take(meta, "managedFields");
        }
        meta.insert("uid".to_owned(), uid.into());
        meta.insert("creationTimestamp".to_owned(), now.into());
        if resource.generation {
            meta.insert("generation".to_owned(), 1.into());
        }
    }
}

/// Whether somebody asked for the object's deletion.
pub(crate) fn is_deleting(value: &Value) -> bool {
    !text(value, "/metadata/deletionTimestamp").is_empty()
}

/// Whether nothing keeps a deleted object any more.
fn is_released(value: &Value) -> bool {
    let grace = value.pointer("/metadata/deletionGracePeriodSeconds").and_then(Value::as_u64).unwrap_or(0);
    is_deleting(value)
        && grace == 0
        && items(value, "/metadata/finalizers").is_empty()
        && items(value, "/spec/finalizers").is_empty()
}

fn check_type(resource: &Resource, value: &mut Value) -> Result<(), Failure> {
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

fn check_name(key: &Key, value: &Value) -> Result<(), Failure> {
    let (name, wanted) = (text(value, "/metadata/name"), key.name());
    if name == wanted {
        return Ok(());
    }
    Err(Failure::bad_request(format!(
        "the name of the object ({name}) does not match the name on the URL ({wanted})"
    )))
}

/// A patch must not give the object another identity.
fn check_unmoved(resource: &Resource, key: &Key, old: &Object, value: &Value) -> Result<(), Failure> {
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

fn place_in(value: &mut Value, resource: &Resource, namespace: &str) -> Result<(), Failure> {
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

fn check_version(resource: &Resource, key: &Key, old: &Object, value: &Value) -> Result<(), Failure> {
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
fn keep_identity(old: &Value, value: &mut Value, options: &WriteOptions) {
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

/// Whether an update changes nothing a reader could see. Ownership alone is no reason for a new version.
fn unchanged(old: &Value, new: &Value) -> bool {
    let fields = |value: &Value| -> Vec<(String, Value)> {
        let mut fields = value.as_object().cloned().unwrap_or_default();
        if let Some(meta) = fields.get_mut("metadata").and_then(Value::as_object_mut) {
            for name in ["managedFields", "resourceVersion"] {
                take(meta, name);
            }
        }
        let mut fields: Vec<_> = fields.into_iter().collect();
        fields.sort_by(|a, b| a.0.cmp(&b.0));
        fields
    };
    fields(old) == fields(new)
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

fn normalise(resource: &Resource, value: Value) -> Result<Value, Failure> {
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
