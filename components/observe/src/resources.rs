//! What runs in the cluster, followed by watches and published as [`Inventory`] snapshots.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use conduit_identity::{ControlPlane, Identity, UnixTime, WorkloadKind};
use conduit_k8s::{
    cache::{Cache, without_managed_fields},
    cause::News,
    injected_tls, is_meshed,
    owned::{
        ANNOTATION_PROXY_VERSION, IDENTITY_VOLUME, PORT_ADMIN, PORT_NAME_METRICS, PORT_TAP, PROXY_CONTAINER,
    },
    owner::{Controller, OwnerSnapshots, owner},
    watch::{Follow, Object as Followed, Source, Timing},
};
use conduit_runtime::{Seed, env};
use futures::future::{BoxFuture, FutureExt, join_all, select_all};
use k8s_openapi::api::{
    apps::v1::{DaemonSet, Deployment, ReplicaSet, StatefulSet},
    batch::v1::Job,
    core::v1::{
        Container, Namespace, Pod as KubePod, PodStatus, ReplicationController, Service as KubeService,
    },
};
use kube::{Client, Resource};
use tokio::sync::watch;

use crate::{
    inventory::{Inventory, Object, Pod, Service},
    kind::Kind,
    samples::PodName,
};

/// How long changes are gathered before a new snapshot is made of them: a rollout is hundreds of changes.
const GATHER: Duration = Duration::from_millis(200);

/// How long the first snapshot waits for what is not pods.
const OWNERS_PATIENCE: Duration = Duration::from_secs(3);

/// The objects followed. Their specs are not kept where only names matter.
#[derive(Clone)]
struct Caches {
    pods: Cache<KubePod>,
    replica_sets: Cache<ReplicaSet>,
    jobs: Cache<Job>,
    services: Cache<KubeService>,
    deployments: Cache<Deployment>,
    stateful_sets: Cache<StatefulSet>,
    daemon_sets: Cache<DaemonSet>,
    controllers: Cache<ReplicationController>,
    namespaces: Cache<Namespace>,
}

/// Follows the cluster for ever and publishes a snapshot after each change. The first one comes when pods are known;
/// what is not known by then (a resource that this process may not list) is empty until it is. Drop it to stop.
pub(crate) async fn follow(
    client: Client,
    timing: Timing,
    seed: Seed,
    control_plane: ControlPlane,
    published: watch::Sender<Arc<Inventory>>,
    synced: impl FnOnce() + Send,
) {
    let (caches, fill) = Caches::new(&client, &timing, &seed);
    let publish = async {
        let mut changes = caches.changes();
        caches.pods.synced().await;
        // The others are a moment behind at most; owners that are not yet known would give rows the wrong names.
        drop(tokio::time::timeout(OWNERS_PATIENCE, caches.synced()).await);
        published.send_replace(Arc::new(caches.inventory(&control_plane)));
        synced();
        loop {
            select_all(changes.iter_mut().map(|changes| changes.changed().boxed())).await.0.ok();
            tokio::time::sleep(GATHER).await;
            changes.iter_mut().for_each(|changes| drop(changes.borrow_and_update()));
            published.send_replace(Arc::new(caches.inventory(&control_plane)));
        }
    };
    tokio::select! {
        _ = join_all(fill) => {}
        () = publish => {}
    }
}

impl Caches {
    fn new(client: &Client, timing: &Timing, seed: &Seed) -> (Self, Vec<BoxFuture<'static, ()>>) {
        let mut fill = Vec::new();
        let mut from = Follower { client, timing, seed, news: News::default(), fill: &mut fill };
        let caches = Self {
            pods: from.cache(trim_pod),
            replica_sets: from.cache(|set: &mut ReplicaSet| set.spec = None),
            jobs: from.cache(|job: &mut Job| job.spec = None),
            services: from.cache(|_: &mut KubeService| {}),
            deployments: from.cache(|deployment: &mut Deployment| deployment.spec = None),
            stateful_sets: from.cache(|set: &mut StatefulSet| set.spec = None),
            daemon_sets: from.cache(|set: &mut DaemonSet| set.spec = None),
            controllers: from.cache(|controller: &mut ReplicationController| controller.spec = None),
            namespaces: from.cache(|_: &mut Namespace| {}),
        };
        (caches, fill)
    }

    async fn synced(&self) {
        tokio::join!(
            self.replica_sets.synced(),
            self.jobs.synced(),
            self.services.synced(),
            self.deployments.synced(),
            self.stateful_sets.synced(),
            self.daemon_sets.synced(),
            self.controllers.synced(),
            self.namespaces.synced(),
        );
    }

    fn changes(&self) -> [watch::Receiver<u64>; 9] {
        [
            self.pods.changes(),
            self.replica_sets.changes(),
            self.jobs.changes(),
            self.services.changes(),
            self.deployments.changes(),
            self.stateful_sets.changes(),
            self.daemon_sets.changes(),
            self.controllers.changes(),
            self.namespaces.changes(),
        ]
    }

    fn inventory(&self, control_plane: &ControlPlane) -> Inventory {
        let owners =
            OwnerSnapshots { replica_sets: self.replica_sets.snapshot(), jobs: self.jobs.snapshot() };
        let pods = self.pods.snapshot();
        let pods = pods.values().map(|object| Arc::new(pod(object, &owners, control_plane)));
        let pods = pods.map(|pod| (pod.name.clone(), pod)).collect();
        let mut inventory = Inventory { is_known: true, pods, ..Inventory::default() };
        let named = [
            names(Kind::Deployment, &self.deployments),
            names(Kind::StatefulSet, &self.stateful_sets),
            names(Kind::DaemonSet, &self.daemon_sets),
            names(Kind::Job, &self.jobs),
            cron_jobs(&self.jobs),
            names(Kind::ReplicationController, &self.controllers),
        ];
        inventory.objects.extend(named.into_iter().flatten());
        let namespaces = self.namespaces.snapshot();
        inventory
            .objects
            .extend(namespaces.keys().map(|key| Object::new(Kind::Namespace, &key.name, &key.name)));
        let services = self.services.snapshot();
        inventory.services = services
            .iter()
            .map(|(key, object)| ((key.namespace.clone(), key.name.clone()), service(object)))
            .collect();
        inventory
    }
}

/// Makes caches that are all filled by one future.
struct Follower<'a> {
    client: &'a Client,
    timing: &'a Timing,
    seed: &'a Seed,
    news: News,
    fill: &'a mut Vec<BoxFuture<'static, ()>>,
}

impl Follower<'_> {
    fn cache<K>(&mut self, trim: impl Fn(&mut K) + Send + Sync + 'static) -> Cache<K>
    where
        K: Followed
            + Sync
            + Resource<DynamicType = ()>
            + k8s_openapi::Metadata<Ty = k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta>,
    {
        let follow = Follow::new(Source::<K>::all(self.client.clone()), self.timing.clone(), self.seed)
            .telling(self.news.clone());
        let (cache, fill) = Cache::new(follow, move |object: &mut K| {
            without_managed_fields(object);
            trim(object);
        });
        self.fill.push(fill.boxed());
        cache
    }
}

/// Of a pod's spec and status, what [`pod`] reads.
fn trim_pod(pod: &mut KubePod) {
    if let Some(spec) = &mut pod.spec {
        for container in spec.containers.iter_mut().chain(spec.init_containers.iter_mut().flatten()) {
            let is_proxy = container.name == PROXY_CONTAINER;
            let ports = container.ports.take().filter(|_| is_proxy);
            let env = container.env.take().filter(|_| is_proxy);
            *container =
                Container { name: std::mem::take(&mut container.name), ports, env, ..Container::default() };
        }
        let identity =
            spec.volumes.take().into_iter().flatten().filter(|volume| volume.name == IDENTITY_VOLUME);
        spec.volumes = Some(identity.collect());
        spec.affinity = None;
        spec.tolerations = None;
    }
    if let Some(status) = &mut pod.status {
        status.conditions.iter_mut().for_each(|conditions| conditions.retain(|one| one.type_ == READY));
        status.container_statuses = None;
        status.init_container_statuses = None;
    }
}

fn names<K: Followed + Sync>(kind: Kind, cache: &Cache<K>) -> Vec<Object> {
    cache.snapshot().keys().map(|key| Object::new(kind, &key.namespace, &key.name)).collect()
}

/// The CronJobs that have run: those that own a Job. They are not followed themselves, because a cluster before 1.21
/// serves them under another version, and one that never ran has no pods.
fn cron_jobs(jobs: &Cache<Job>) -> Vec<Object> {
    let jobs = jobs.snapshot();
    let owners = jobs.iter().filter_map(|(key, job)| match Controller::of(&job.metadata)? {
        Controller { kind: Some(WorkloadKind::CronJob), name, .. } => {
            Some(Object::new(Kind::CronJob, &key.namespace, name))
        }
        _ => None,
    });
    owners.collect()
}

/// What there is to know of a pod.
fn pod(object: &KubePod, owners: &OwnerSnapshots, control_plane: &ControlPlane) -> Pod {
    let meta = &object.metadata;
    let text = |value: &Option<String>| value.clone().unwrap_or_default();
    let status = object.status.as_ref();
    let phase = status.and_then(|status| status.phase.as_deref()).unwrap_or("Pending");
    let is_leaving = meta.deletion_timestamp.is_some();
    let meshed = is_meshed(object, &control_plane.namespace);
    let owner = owner(meta, owners);
    let identity = owner.confirmed().filter(|_| meshed && injected_tls(object));
    let proxy = proxy(object);
    Pod {
        name: PodName::new(text(&meta.namespace), text(&meta.name)),
        uid: text(&meta.uid),
        owners: kinds(object, owner.actual()),
        labels: meta.labels.clone().unwrap_or_default(),
        ready: !is_leaving && is_ready(status),
        running: !is_leaving && matches!(phase, "Pending" | "Running"),
        status: if is_leaving { "Terminating".to_owned() } else { phase.to_owned() },
        meshed,
        tls: meshed && injected_tls(object),
        ip: status.and_then(|status| status.pod_ip.as_deref()).and_then(|ip| ip.parse().ok()),
        metrics_port: port(proxy, "CONDUIT_PROXY_METRICS_LISTENER", Some(PORT_NAME_METRICS), PORT_ADMIN),
        tap_port: port(proxy, "CONDUIT_PROXY_CONTROL_LISTENER", None, PORT_TAP),
        identity: identity.map(|workload| Identity::of(workload, control_plane)),
        created: meta
            .creation_timestamp
            .as_ref()
            .and_then(|at| Some(UnixTime::from_secs(u64::try_from(at.0.as_second()).ok()?))),
        mounts: mounted_secret(object),
        proxy_version: annotation(object, ANNOTATION_PROXY_VERSION).filter(|_| meshed),
    }
}

/// Every object that the pod's traffic counts for: itself, its workload, and the Job between it and a CronJob.
fn kinds(object: &KubePod, workload: &conduit_identity::Workload) -> BTreeMap<Kind, String> {
    let mut kinds = BTreeMap::from([(Kind::Pod, object.metadata.name.clone().unwrap_or_default())]);
    if let Some(Controller { kind: Some(WorkloadKind::Job), name, .. }) = Controller::of(&object.metadata) {
        kinds.insert(Kind::Job, name);
    }
    if let Some(kind) = kind(workload.kind) {
        kinds.insert(kind, workload.name.clone());
    }
    kinds
}

/// The kind of row for a kind of workload; there is none for a ReplicaSet that no Deployment owns.
fn kind(kind: WorkloadKind) -> Option<Kind> {
    Some(match kind {
        WorkloadKind::Deployment => Kind::Deployment,
        WorkloadKind::StatefulSet => Kind::StatefulSet,
        WorkloadKind::DaemonSet => Kind::DaemonSet,
        WorkloadKind::Job => Kind::Job,
        WorkloadKind::CronJob => Kind::CronJob,
        WorkloadKind::ReplicationController => Kind::ReplicationController,
        WorkloadKind::Pod => Kind::Pod,
        WorkloadKind::ReplicaSet => return None,
    })
}

/// The condition of a pod that Services go by.
const READY: &str = "Ready";

fn is_ready(status: Option<&PodStatus>) -> bool {
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten().any(|one| one.type_ == READY && one.status == "True")
}

fn annotation(object: &KubePod, name: &str) -> Option<String> {
    object.metadata.annotations.as_ref()?.get(name).cloned()
}

/// The Secret in the volume that only the proxy mounts.
fn mounted_secret(object: &KubePod) -> Option<String> {
    let volumes = object.spec.as_ref()?.volumes.as_ref()?;
    let identity = volumes.iter().find(|volume| volume.name == IDENTITY_VOLUME)?;
    let sources = identity.projected.as_ref()?.sources.as_ref()?;
    sources.iter().find_map(|source| source.secret.as_ref()).map(|secret| secret.name.clone())
}

fn proxy(object: &KubePod) -> Option<&Container> {
    let spec = object.spec.as_ref()?;
    let init = spec.init_containers.iter().flatten();
    spec.containers.iter().chain(init).find(|container| container.name == PROXY_CONTAINER)
}

/// A port of the proxy: as its environment sets it, else as its container names it, else the one it has by default.
fn port(proxy: Option<&Container>, variable: &str, name: Option<&str>, default: u16) -> u16 {
    let Some(proxy) = proxy else { return default };
    let set =
        proxy.env.iter().flatten().find(|env| env.name == variable).and_then(|env| env.value.as_deref());
    let listener = set.and_then(|value| env::listen(value).ok()).map(|addr| addr.port());
    let named = proxy.ports.iter().flatten().find(|port| name.is_some() && port.name.as_deref() == name);
    let named = named.and_then(|port| u16::try_from(port.container_port).ok());
    listener.or(named).filter(|port| *port != 0).unwrap_or(default)
}

fn service(object: &KubeService) -> Service {
    let Some(spec) = &object.spec else { return Service::default() };
    let ips = spec.cluster_ips.iter().flatten().chain(&spec.cluster_ip);
    Service {
        selector: spec.selector.clone().unwrap_or_default(),
        cluster_ips: ips.filter_map(|ip| ip.parse().ok()).collect(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn job(name: &str, owner: Option<&str>) -> Job {
        let reference = |owner: &str| json!({ "apiVersion": "batch/v1", "kind": "CronJob", "name": owner, "uid": "c", "controller": true });
        let owners: Vec<_> = owner.into_iter().map(reference).collect();
        let metadata = json!({ "namespace": "shop", "name": name, "uid": name, "ownerReferences": owners });
        serde_json::from_value(json!({ "metadata": metadata })).unwrap()
    }

    fn meshed(mut pod: serde_json::Value) -> KubePod {
        pod["metadata"]["labels"] = json!({ "conduit.io/control-plane-ns": "conduit" });
        pod["metadata"]["annotations"] = json!({ "conduit.io/tls": "optional" });
        serde_json::from_value(pod).unwrap()
    }

    #[test]
    fn a_cron_job_is_known_by_the_jobs_it_owns() {
        let jobs = Cache::fixed([
            job("nightly-1", Some("nightly")),
            job("nightly-2", Some("nightly")),
            job("once", None),
        ]);
        let found: std::collections::BTreeSet<_> = cron_jobs(&jobs).into_iter().collect();
        assert_eq!(found, [Object::new(Kind::CronJob, "shop", "nightly")].into());
    }

    #[test]
    fn the_pod_of_a_cron_job_counts_for_its_job_too() {
        let owner = json!({ "apiVersion": "batch/v1", "kind": "Job", "name": "nightly-1", "uid": "nightly-1",
            "controller": true });
        let object = meshed(json!({
            "metadata": { "namespace": "shop", "name": "nightly-1-x", "uid": "p", "ownerReferences": [owner] },
            "spec": { "containers": [{ "name": "app" }, { "name": "conduit-proxy",
                "ports": [{ "name": "conduit-metrics", "containerPort": 5191 }],
                "env": [{ "name": "CONDUIT_PROXY_CONTROL_LISTENER", "value": "tcp://0.0.0.0:5190" }] }] },
            "status": { "phase": "Running", "podIP": "fd00::7" },
        }));
        let jobs = Cache::fixed([job("nightly-1", Some("nightly"))]);
        let owners = OwnerSnapshots { replica_sets: Arc::default(), jobs: jobs.snapshot() };
        let pod = pod(&object, &owners, &ControlPlane::default());
        let expected = [
            (Kind::Pod, "nightly-1-x".to_owned()),
            (Kind::Job, "nightly-1".to_owned()),
            (Kind::CronJob, "nightly".to_owned()),
        ];
        assert_eq!(pod.owners, expected.into());
        assert_eq!((pod.metrics_port, pod.tap_port), (5191, 5190));
        assert!(pod.meshed && pod.tls && pod.running);
        let identity = pod.identity.unwrap();
        assert!(identity.as_str().starts_with("nightly.cronjob.shop."), "{identity}");
    }

    #[test]
    fn what_is_trimmed_is_not_missed() {
        let object = meshed(json!({
            "metadata": { "namespace": "shop", "name": "web", "uid": "p", "deletionTimestamp": "2026-01-01T00:00:00Z",
                "creationTimestamp": "1970-01-01T00:00:07Z" },
            "spec": { "volumes": [{ "name": "data" }, { "name": "conduit-identity",
                "projected": { "sources": [{ "secret": { "name": "web-pod-tls" } }] } }], "containers": [{ "name": "conduit-proxy", "image": "x",
                "env": [{ "name": "CONDUIT_PROXY_METRICS_LISTENER", "value": "tcp://0.0.0.0:5191" }] }] },
            "status": { "phase": "Running", "podIP": "10.0.0.7", "conditions": [
                { "type": "PodScheduled", "status": "True" }, { "type": "Ready", "status": "True" }] },
        }));
        let owners = OwnerSnapshots { replica_sets: Arc::default(), jobs: Arc::default() };
        let read = |object: &KubePod| pod(object, &owners, &ControlPlane::default());
        let mut trimmed = object.clone();
        trim_pod(&mut trimmed);
        assert_eq!(read(&trimmed), read(&object));
        assert_eq!(read(&object).mounts.as_deref(), Some("web-pod-tls"));
        assert_eq!(read(&object).created, Some(UnixTime::from_secs(7)));
        assert_eq!((read(&object).status.as_str(), read(&object).running), ("Terminating", false));
    }
}
