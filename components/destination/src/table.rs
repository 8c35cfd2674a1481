//! Maps of what was observed, that say what changed.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use conduit_k8s::watch::{Event, ObjectKey};

/// The objects of one resource.
#[derive(Debug)]
pub(crate) struct Table<T> {
    objects: BTreeMap<ObjectKey, Arc<T>>,
}

/// An object that is no longer what it was.
#[derive(Debug)]
pub(crate) struct Change<T> {
    pub(crate) key: ObjectKey,
    pub(crate) before: Option<Arc<T>>,
    pub(crate) after: Option<Arc<T>>,
}

impl<T> Default for Table<T> {
    fn default() -> Self {
        Self { objects: BTreeMap::new() }
    }
}

impl<T: PartialEq> Table<T> {
    /// Takes `event` in. What is equal to what was known is no change: most of what happens to a pod is its kubelet
    /// saying that nothing happened.
    pub(crate) fn apply(&mut self, event: Event<T>) -> Vec<Change<T>> {
        match event {
            Event::Applied(key, object) => self.set(key, object).into_iter().collect(),
            Event::Deleted(key) => self.remove(key).into_iter().collect(),
            Event::Listed(all) => {
                let gone: Vec<_> =
                    self.objects.keys().filter(|key| !all.contains_key(key)).cloned().collect();
                let mut changes: Vec<_> = gone.into_iter().filter_map(|key| self.remove(key)).collect();
                changes.extend(all.into_iter().filter_map(|(key, object)| self.set(key, object)));
                changes
            }
        }
    }

    fn set(&mut self, key: ObjectKey, object: T) -> Option<Change<T>> {
        if self.objects.get(&key).is_some_and(|known| **known == object) {
            return None;
        }
        let object = Arc::new(object);
        let before = self.objects.insert(key.clone(), Arc::clone(&object));
        Some(Change { key, before, after: Some(object) })
    }

    fn remove(&mut self, key: ObjectKey) -> Option<Change<T>> {
        let before = self.objects.remove(&key)?;
        Some(Change { key, before: Some(before), after: None })
    }

    pub(crate) fn get(&self, key: &ObjectKey) -> Option<&Arc<T>> {
        self.objects.get(key)
    }

    pub(crate) fn len(&self) -> usize {
        self.objects.len()
    }
}

/// Several values under one key, ordered.
#[derive(Debug)]
pub(crate) struct Multi<K, V>(BTreeMap<K, BTreeSet<V>>);

impl<K, V> Default for Multi<K, V> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Ord + Clone, V: Ord + Clone> Multi<K, V> {
    pub(crate) fn insert(&mut self, key: &K, value: &V) {
        self.0.entry(key.clone()).or_default().insert(value.clone());
    }

    pub(crate) fn remove(&mut self, key: &K, value: &V) {
        if let Some(values) = self.0.get_mut(key) {
            values.remove(value);
            if values.is_empty() {
                self.0.remove(key);
            }
        }
    }

    pub(crate) fn get(&self, key: &K) -> impl Iterator<Item = &V> + use<'_, K, V> {
        self.0.get(key).into_iter().flatten()
    }

    /// Replaces what `value` is found under.
    pub(crate) fn move_value<'a>(
        &mut self,
        value: &V,
        before: impl IntoIterator<Item = &'a K>,
        after: impl IntoIterator<Item = &'a K>,
    ) where
        K: 'a,
    {
        before.into_iter().for_each(|key| self.remove(key, value));
        after.into_iter().for_each(|key| self.insert(key, value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(name: &str) -> ObjectKey {
        ObjectKey::new("shop", name)
    }

    fn told(changes: Vec<Change<u8>>) -> Vec<(String, Option<u8>, Option<u8>)> {
        let told = |change: Change<u8>| {
            (change.key.name, change.before.as_deref().copied(), change.after.as_deref().copied())
        };
        changes.into_iter().map(told).collect()
    }

    #[test]
    fn only_what_differs_is_a_change() {
        let mut table = Table::default();
        let all = |pairs: &[(&str, u8)]| {
            Event::Listed(pairs.iter().map(|(name, value)| (key(name), *value)).collect())
        };
        table.apply(all(&[("a", 1), ("b", 2), ("c", 3)]));
        let changes = told(table.apply(all(&[("b", 2), ("c", 4), ("d", 5)])));
        assert_eq!(
            changes,
            [
                ("a".to_owned(), Some(1), None),
                ("c".to_owned(), Some(3), Some(4)),
                ("d".to_owned(), None, Some(5))
            ]
        );
        assert!(table.apply(Event::Applied(key("b"), 2)).is_empty());
        assert!(table.apply(Event::Deleted(key("nobody"))).is_empty());
        assert_eq!(told(table.apply(Event::Deleted(key("b")))), [("b".to_owned(), Some(2), None)]);
    }

    #[test]
    fn a_value_moves_from_key_to_key() {
        let mut multi = Multi::default();
        multi.move_value(&"pod", &[], &[1, 2]);
        multi.move_value(&"pod", &[1, 2], &[2, 3]);
        let found: Vec<usize> = [1, 2, 3].map(|key| multi.get(&key).count()).into();
        assert_eq!(found, [0, 1, 1]);
        multi.move_value(&"pod", &[2, 3], &[]);
        assert_eq!(multi.get(&2).count(), 0);
    }
}
