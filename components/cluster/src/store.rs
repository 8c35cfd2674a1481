//! The versioned store: objects by kind and key, one revision counter for all, and for each kind a bounded history from
//! which watches are served and past lists are rebuilt. It knows owner references only as an index.
//!
//! Invariants: revisions only grow; every change is one event; a kind's events are in revision order; what the history
//! has forgotten is answered with [`TooOld`], never with a gap.

use std::{
    collections::{BTreeMap, BTreeSet, VecDeque},
    ops::Bound,
    sync::Arc,
};

use serde_json::Value;
use tokio::sync::watch;

use crate::{
    object::{Key, Object, items, text},
    resources::Res,
};

/// The whole state of a cluster.
#[derive(Debug)]
pub(crate) struct Store {
    revision: u64,
    history: usize,
    /// Of nothing up to this revision there is history, whatever the kind.
    compacted: u64,
    tables: BTreeMap<Res, Table>,
    /// Where each living object is, by uid.
    uids: BTreeMap<String, (Res, Key)>,
    /// Who names this uid as an owner, whether or not the owner lives.
    dependents: BTreeMap<String, BTreeSet<(Res, Key)>>,
}

#[derive(Debug)]
struct Table {
    objects: BTreeMap<Key, Arc<Object>>,
    events: VecDeque<Event>,
    /// The revision of the newest event that was dropped from `events`.
    forgotten: u64,
    changed: watch::Sender<u64>,
}

impl Default for Table {
    fn default() -> Self {
        Self {
            objects: BTreeMap::new(),
            events: VecDeque::new(),
            forgotten: 0,
            changed: watch::Sender::new(0),
        }
    }
}

/// One change of one object.
#[derive(Debug, Clone)]
pub(crate) struct Event {
    pub(crate) revision: u64,
    pub(crate) key: Key,
    /// The object before; none when it was created.
    pub(crate) before: Option<Arc<Object>>,
    /// The object after; when it was removed, its last state with the revision of the removal.
    pub(crate) after: Arc<Object>,
    pub(crate) removed: bool,
}

/// The history no longer reaches back to the revision asked for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct TooOld {
    /// The oldest revision that can still be served.
    pub(crate) oldest: u64,
}

impl Store {
    /// An empty store that remembers the last `history` events of each kind.
    pub(crate) fn new(history: usize) -> Self {
        Self {
            // Zero means "any version" to clients.
            revision: 1,
            history,
            compacted: 0,
            tables: BTreeMap::new(),
            uids: BTreeMap::new(),
            dependents: BTreeMap::new(),
        }
    }

    pub(crate) fn revision(&self) -> u64 {
        self.revision
    }

    pub(crate) fn get(&self, resource: Res, key: &Key) -> Option<&Arc<Object>> {
        self.tables.get(&resource)?.objects.get(key)
    }

    pub(crate) fn by_uid(&self, uid: &str) -> Option<&(Res, Key)> {
        self.uids.get(uid)
    }

    /// Everything that names `uid` as its owner, in order.
    pub(crate) fn dependents(&self, uid: &str) -> Vec<(Res, Key)> {
        self.dependents.get(uid).into_iter().flatten().cloned().collect()
    }

    /// Uids that are named as owner by some object, in order.
    pub(crate) fn owners(&self) -> impl Iterator<Item = &String> {
        self.dependents.keys()
    }

    /// The objects of one namespace, or of all when it is empty, in key order.
    pub(crate) fn list(&self, resource: Res, namespace: &str) -> Vec<Arc<Object>> {
        let Some(table) = self.tables.get(&resource) else { return Vec::new() };
        range(&table.objects, namespace).map(|(_, object)| object.clone()).collect()
    }

    /// What [`Store::list`] was at a past revision, rebuilt by undoing the events since.
    pub(crate) fn list_at(
        &self,
        resource: Res,
        namespace: &str,
        at: u64,
    ) -> Result<Vec<Arc<Object>>, TooOld> {
        self.reaches(resource, at)?;
        let Some(table) = self.tables.get(&resource) else { return Ok(Vec::new()) };
        let prefix = Key::prefix(namespace);
        let mut objects: BTreeMap<_, _> = range(&table.objects, namespace).collect();
        for event in table.events.iter().rev().take_while(|event| event.revision > at) {
            if !event.key.as_str().starts_with(prefix.as_str()) {
                continue;
            }
            match &event.before {
                Some(before) => objects.insert(&event.key, before),
                None => objects.remove(&event.key),
            };
        }
        Ok(objects.into_values().cloned().collect())
    }

    /// The resource revision some events ago, for a fault that serves stale lists.
    pub(crate) fn revision_behind(&self, resource: Res, events: usize) -> u64 {
        let Some(table) = self.tables.get(&resource) else { return self.revision };
        match events {
            0 => self.revision,
            _ => {
                let first_undone = table.events.len().saturating_sub(events);
                let undone = table.events.get(first_undone).map_or(self.revision + 1, |event| event.revision);
                (undone - 1).max(self.oldest(resource))
            }
        }
    }

    /// Up to `max` events after `revision`, oldest first.
    pub(crate) fn events_after(
        &self,
        resource: Res,
        revision: u64,
        max: usize,
    ) -> Result<Vec<Event>, TooOld> {
        self.reaches(resource, revision)?;
        let Some(table) = self.tables.get(&resource) else { return Ok(Vec::new()) };
        let first = table.events.partition_point(|event| event.revision <= revision);
        Ok(table.events.range(first..).take(max).cloned().collect())
    }

    /// Becomes readable whenever an object of this kind changes.
    pub(crate) fn subscribe(&mut self, resource: Res) -> watch::Receiver<u64> {
        self.tables.entry(resource).or_default().changed.subscribe()
    }

    /// Stores a new version of an object.
    pub(crate) fn put(&mut self, resource: Res, key: Key, value: Value) -> Arc<Object> {
        self.revision += 1;
        let object = Arc::new(Object::new(value, self.revision));
        let before = self.tables.entry(resource).or_default().objects.insert(key.clone(), object.clone());
        if let Some(before) = &before {
            self.forget_owners(resource, &key, before);
        }
        self.uids.insert(object.uid().to_owned(), (resource, key.clone()));
        for owner in owner_uids(&object.value) {
            self.dependents.entry(owner.to_owned()).or_default().insert((resource, key.clone()));
        }
        self.record(
            resource,
            Event { revision: self.revision, key, before, after: object.clone(), removed: false },
        );
        object
    }

    /// Removes an object and gives its last state, which carries the revision of the removal.
    pub(crate) fn remove(&mut self, resource: Res, key: &Key) -> Option<Arc<Object>> {
        let before = self.tables.get_mut(&resource)?.objects.remove(key)?;
        self.revision += 1;
        let last = Arc::new(Object::new(before.value.clone(), self.revision));
        self.forget_owners(resource, key, &before);
        self.uids.remove(before.uid());
        let event = Event {
            revision: self.revision,
            key: key.clone(),
            before: Some(before),
            after: last.clone(),
            removed: true,
        };
        self.record(resource, event);
        Some(last)
    }

    /// Forgets all history, as etcd's compaction does: every watch that is behind and every continue token expires.
    pub(crate) fn compact(&mut self) {
        self.compacted = self.revision;
        for table in self.tables.values_mut() {
            table.events.clear();
            // Who waits for changes learns now that it is behind, if it is.
            table.changed.send_replace(self.revision);
        }
    }

    fn reaches(&self, resource: Res, revision: u64) -> Result<(), TooOld> {
        let oldest = self.oldest(resource);
        if revision < oldest { Err(TooOld { oldest }) } else { Ok(()) }
    }

    /// The oldest revision of a kind that can be shown.
    fn oldest(&self, resource: Res) -> u64 {
        self.tables.get(&resource).map_or(0, |table| table.forgotten).max(self.compacted)
    }

    fn record(&mut self, resource: Res, event: Event) {
        let table = self.tables.entry(resource).or_default();
        let revision = event.revision;
        table.events.push_back(event);
        while table.events.len() > self.history {
            table.forgotten = table.events.pop_front().map_or(table.forgotten, |event| event.revision);
        }
        table.changed.send_replace(revision);
    }

    fn forget_owners(&mut self, resource: Res, key: &Key, object: &Object) {
        for owner in owner_uids(&object.value) {
            let Some(dependents) = self.dependents.get_mut(owner) else { continue };
            dependents.remove(&(resource, key.clone()));
            if dependents.is_empty() {
                self.dependents.remove(owner);
            }
        }
    }
}

fn range<'a>(
    objects: &'a BTreeMap<Key, Arc<Object>>,
    namespace: &str,
) -> impl Iterator<Item = (&'a Key, &'a Arc<Object>)> {
    let prefix = Key::prefix(namespace);
    let lower = Bound::Included(prefix.clone());
    objects
        .range((lower, Bound::Unbounded))
        .take_while(move |(key, _)| key.as_str().starts_with(prefix.as_str()))
}

/// The uids an object names as its owners.
pub(crate) fn owner_uids(value: &Value) -> impl Iterator<Item = &str> {
    items(value, "/metadata/ownerReferences").iter().map(|owner| text(owner, "/uid"))
}
