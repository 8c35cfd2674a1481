//! Changing objects: what create, update and delete mean beyond storing a value.
//!
//! Everything here runs under the store's lock and takes no time but the processor's, so that a request either happened
//! or did not.

use std::{collections::BTreeSet, sync::Arc};

use rand::rngs::StdRng;
use serde_json::{Value, json};

use crate::{
    addresses::Addresses,
    admit,
    delete::{is_deleting, is_released},
    failure::{Cause, Failure},
    gc,
    meta::{
        check_name, check_type, check_unmoved, check_version, generate_name, keep_identity, normalise,
        place_in, same_content, timestamp, uid, unchanged,
    },
    object::{Key, Object, meta_mut, take, text},
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
    pub(crate) addresses: &'a mut Addresses,
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
        generate_name(self.ids, &mut value);
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
        if resource.generation && !same_content(&old.value, &value) {
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
