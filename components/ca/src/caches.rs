//! What the authority watches, trimmed to what it reads.

use std::time::Duration;

use conduit_k8s::{
    cache::{Cache, without_managed_fields},
    cause::News,
    owned::{BUNDLE_CONFIGMAP, LABEL_COMPONENT, LABEL_CONTROL_PLANE_NS},
    owner::OwnerSnapshots,
    watch::{Follow, Object, Source, Timing},
};
use conduit_runtime::Seed;
use futures::{FutureExt, future::BoxFuture, future::join_all, future::select_all};
use k8s_openapi::{
    Metadata,
    api::{
        apps::v1::ReplicaSet,
        batch::v1::Job,
        core::v1::{ConfigMap, Container, Pod, PodSpec, PodStatus, Secret},
    },
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};
use kube::Client;
use tokio::sync::watch;

use crate::objects::selector;

/// The cluster, as far as it concerns the authority.
#[derive(Debug, Clone)]
pub(crate) struct Caches {
    pub(crate) pods: Cache<Pod>,
    pub(crate) components: Cache<Pod>,
    pub(crate) secrets: Cache<Secret>,
    pub(crate) bundles: Cache<ConfigMap>,
    replica_sets: Cache<ReplicaSet>,
    jobs: Cache<Job>,
}

/// Tells of changes of any cache.
pub(crate) struct Changes(Vec<watch::Receiver<u64>>);

impl Caches {
    /// The caches, and the future that fills them; the caller runs it.
    pub(crate) fn new(
        client: &Client,
        control_plane_ns: &str,
        timing: &Timing,
        seed: &Seed,
        news: &News,
    ) -> (Self, BoxFuture<'static, ()>) {
        let mut filling = Vec::new();
        let meshed =
            Source::all(client.clone()).labels(format!("{LABEL_CONTROL_PLANE_NS}={control_plane_ns}"));
        let own = Source::namespaced(client.clone(), control_plane_ns).labels(LABEL_COMPONENT);
        let ours = Source::all(client.clone()).labels(selector(control_plane_ns));
        let bundles = Source::all(client.clone()).fields(format!("metadata.name={BUNDLE_CONFIGMAP}"));
        let mut follow = Following { timing, seed, news, filling: &mut filling };
        let caches = Self {
            pods: follow.add("meshed pods", meshed, trim_pod),
            components: follow.add("own pods", own, trim_pod),
            secrets: follow.add("secrets", ours, without_managed_fields),
            bundles: follow.add("bundles", bundles, without_managed_fields),
            replica_sets: follow.add(
                "replica sets",
                Source::all(client.clone()),
                |object: &mut ReplicaSet| {
                    trim_metadata(object);
                    (object.spec, object.status) = (None, None);
                },
            ),
            jobs: follow.add("jobs", Source::all(client.clone()), |object: &mut Job| {
                trim_metadata(object);
                (object.spec, object.status) = (None, None);
            }),
        };
        (caches, join_all(filling).map(drop).boxed())
    }

    pub(crate) fn owners(&self) -> OwnerSnapshots {
        OwnerSnapshots { replica_sets: self.replica_sets.snapshot(), jobs: self.jobs.snapshot() }
    }

    /// Waits until everything has been seen once. Cancel safe.
    pub(crate) async fn synced(&self) {
        self.pods.synced().await;
        self.components.synced().await;
        self.secrets.synced().await;
        self.bundles.synced().await;
        self.replica_sets.synced().await;
        self.jobs.synced().await;
    }

    pub(crate) fn changes(&self) -> Changes {
        Changes(vec![
            self.pods.changes(),
            self.components.changes(),
            self.secrets.changes(),
            self.bundles.changes(),
            self.replica_sets.changes(),
            self.jobs.changes(),
        ])
    }
}

impl Changes {
    /// Waits for a change that was not noted yet, at most for `deadline`. Cancel safe.
    pub(crate) async fn next(&mut self, deadline: Duration) {
        let any = select_all(self.0.iter_mut().map(|changes| changes.changed().boxed()));
        // A cache that is gone is never filled again: what remains is the deadline.
        if let Ok((Err(_), ..)) = tokio::time::timeout(deadline, any).await {
            tokio::time::sleep(deadline).await;
        }
    }

    /// Notes everything that has happened up to now.
    pub(crate) fn note(&mut self) {
        self.0.iter_mut().for_each(watch::Receiver::mark_unchanged);
    }
}

struct Following<'a> {
    timing: &'a Timing,
    seed: &'a Seed,
    news: &'a News,
    filling: &'a mut Vec<BoxFuture<'static, ()>>,
}

impl Following<'_> {
    fn add<K: Object + Sync>(
        &mut self,
        purpose: &str,
        source: Source<K>,
        trim: impl Fn(&mut K) + Send + Sync + 'static,
    ) -> Cache<K> {
        let follow = Follow::new(source, self.timing.clone(), &self.seed.fork(purpose));
        let follow = follow.telling(self.news.clone());
        let (cache, filling) = Cache::new(follow, trim);
        self.filling.push(filling.boxed());
        cache
    }
}

/// Keeps who a pod is, its phase, and the names of its containers.
fn trim_pod(pod: &mut Pod) {
    without_managed_fields(pod);
    let named = |containers: Vec<Container>| {
        let name = |container: Container| Container { name: container.name, ..Container::default() };
        containers.into_iter().map(name).collect()
    };
    pod.spec = pod.spec.take().map(|spec| PodSpec {
        containers: named(spec.containers),
        init_containers: spec.init_containers.map(named),
        ..PodSpec::default()
    });
    pod.status = pod.status.take().map(|status| PodStatus { phase: status.phase, ..PodStatus::default() });
}

/// Keeps who an object is and who owns it.
fn trim_metadata<K: Metadata<Ty = ObjectMeta>>(object: &mut K) {
    let meta = object.metadata_mut();
    *meta = ObjectMeta {
        namespace: meta.namespace.take(),
        name: meta.name.take(),
        uid: meta.uid.take(),
        resource_version: meta.resource_version.take(),
        owner_references: meta.owner_references.take(),
        ..ObjectMeta::default()
    };
}
