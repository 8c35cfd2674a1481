//! What we wrote, as long as the watch has not told us so: without it the next look would issue everything again.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conduit_k8s::{
    cache::Snapshot,
    watch::{Object, ObjectKey},
};
use tokio::time::Instant;

/// How long a write is believed in without being seen. A watch is milliseconds behind; this long only when it is broken,
/// or when the object was deleted again before it was seen.
const BELIEF: Duration = Duration::from_secs(5);

/// Objects as we wrote them.
#[derive(Debug)]
pub(crate) struct Overlay<K>(BTreeMap<ObjectKey, Written<K>>);

#[derive(Debug)]
struct Written<K> {
    /// The version our write replaced; none for an object we made.
    before: Option<String>,
    object: Arc<K>,
    at: Instant,
}

impl<K> Default for Overlay<K> {
    fn default() -> Self {
        Self(BTreeMap::new())
    }
}

impl<K: Object> Overlay<K> {
    /// Notes that `object` was written on top of the version `before`.
    pub(crate) fn note(&mut self, before: Option<String>, object: K) {
        let key = ObjectKey::of(object.meta());
        self.0.insert(key, Written { before, object: Arc::new(object), at: Instant::now() });
    }

    /// `snapshot` with what it does not show yet. An entry is done with when the cache has moved away from the version
    /// our write replaced: to ours, or past it.
    pub(crate) fn over(&mut self, mut snapshot: Snapshot<K>) -> Snapshot<K> {
        self.0.retain(|key, written| {
            let seen = snapshot.get(key).and_then(|object| object.meta().resource_version.clone());
            seen == written.before && written.at.elapsed() < BELIEF
        });
        if !self.0.is_empty() {
            let shown = Arc::make_mut(&mut snapshot);
            shown.extend(self.0.iter().map(|(key, written)| (key.clone(), Arc::clone(&written.object))));
        }
        snapshot
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::api::core::v1::ConfigMap;

    use super::*;

    fn map(version: &str) -> ConfigMap {
        let mut map = ConfigMap::default();
        map.metadata.name = Some("a".into());
        map.metadata.resource_version = Some(version.into());
        map
    }

    fn cached(version: Option<&str>) -> Snapshot<ConfigMap> {
        Arc::new(
            version.map(|version| (ObjectKey::new("", "a"), Arc::new(map(version)))).into_iter().collect(),
        )
    }

    fn shown(snapshot: &Snapshot<ConfigMap>) -> Option<String> {
        snapshot.values().next()?.metadata.resource_version.clone()
    }

    #[tokio::test(start_paused = true)]
    async fn a_write_is_shown_until_the_cache_moves() {
        let mut overlay = Overlay::default();
        overlay.note(Some("1".into()), map("2"));
        assert_eq!(shown(&overlay.over(cached(Some("1")))).as_deref(), Some("2"));
        assert_eq!(shown(&overlay.over(cached(Some("3")))).as_deref(), Some("3"));
        assert_eq!(shown(&overlay.over(cached(Some("1")))).as_deref(), Some("1"), "it is done with");
    }

    #[tokio::test(start_paused = true)]
    async fn what_is_never_seen_is_not_believed_in_for_ever() {
        let mut overlay = Overlay::default();
        overlay.note(None, map("2"));
        assert_eq!(shown(&overlay.over(cached(None))).as_deref(), Some("2"));
        tokio::time::advance(BELIEF).await;
        assert_eq!(shown(&overlay.over(cached(None))), None);
    }
}
