//! An ordered copy of the objects of one resource, kept current by [`Follow`].

use std::{collections::BTreeMap, sync::Arc};

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::watch::{Event, Follow, Health, Object, ObjectKey};

/// Every object at one moment, by namespace and name.
pub type Snapshot<K> = Arc<BTreeMap<ObjectKey, Arc<K>>>;

/// The objects of one resource. Cloning shares.
#[derive(Debug)]
pub struct Cache<K> {
    objects: Arc<Mutex<Snapshot<K>>>,
    version: Arc<watch::Sender<u64>>,
    health: Health,
}

impl<K> Clone for Cache<K> {
    fn clone(&self) -> Self {
        Self {
            objects: Arc::clone(&self.objects),
            version: Arc::clone(&self.version),
            health: self.health.clone(),
        }
    }
}

impl<K: Object + Sync> Cache<K> {
    /// A cache of what `follow` sees, and the future that fills it; the caller runs that future, and the cache stays
    /// as it is once it is dropped. `trim` takes out what nobody reads, because each object is kept.
    pub fn new(
        follow: Follow<K>,
        trim: impl Fn(&mut K) + Send + Sync + 'static,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let cache = Self {
            objects: Arc::default(),
            version: Arc::new(watch::Sender::new(0)),
            health: follow.health(),
        };
        let filled = cache.clone();
        let convert = move |mut object: K| {
            trim(&mut object);
            Arc::new(object)
        };
        (cache, async move { follow.run(convert, move |event| filled.take(event)).await })
    }

    /// A cache that holds `objects` for ever: what a test of a pure function over caches needs.
    pub fn fixed(objects: impl IntoIterator<Item = K>) -> Self {
        let objects = objects.into_iter().map(|object| (ObjectKey::of(object.meta()), Arc::new(object)));
        let health = Health::default();
        health.listed();
        Self {
            objects: Arc::new(Mutex::new(Arc::new(objects.collect()))),
            version: Arc::new(watch::Sender::new(1)),
            health,
        }
    }

    fn take(&self, event: Event<Arc<K>>) {
        {
            let mut objects = self.objects.lock();
            match event {
                Event::Listed(all) => *objects = Arc::new(all),
                // Copies the map, not the objects, and only while somebody holds a snapshot.
                Event::Applied(key, object) => drop(Arc::make_mut(&mut objects).insert(key, object)),
                Event::Deleted(key) => drop(Arc::make_mut(&mut objects).remove(&key)),
            }
        }
        self.version.send_modify(|version| *version += 1);
    }

    /// Everything, as it is now. Empty until [`Cache::synced`].
    pub fn snapshot(&self) -> Snapshot<K> {
        Arc::clone(&self.objects.lock())
    }

    /// One object, as it is now.
    pub fn get(&self, key: &ObjectKey) -> Option<Arc<K>> {
        self.objects.lock().get(key).map(Arc::clone)
    }

    /// Tells of changes: any number of them are one notification to a receiver that has not looked.
    pub fn changes(&self) -> watch::Receiver<u64> {
        self.version.subscribe()
    }

    /// Waits until everything has been seen once. Cancel safe; the caller owns the deadline.
    pub async fn synced(&self) {
        self.health.synced().await;
    }

    /// How the following goes.
    pub fn health(&self) -> &Health {
        &self.health
    }
}

/// Takes out what no component reads and what makes up much of an object: who set which field.
pub fn without_managed_fields<
    K: k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
>(
    object: &mut K,
) {
    object.metadata_mut().managed_fields = None;
}
