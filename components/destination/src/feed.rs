//! Fills the index: follows the resources that answers depend on.

use std::{sync::Arc, time::Duration};

use conduit_k8s::{
    cause::News,
    owner::Owned,
    slices,
    watch::{Follow, Health, Object, Source, Timing},
};
use conduit_runtime::Seed;
use k8s_openapi::api::{apps::v1::ReplicaSet, batch::v1::Job, core::v1};
use kube::Client;
use tokio::time::Instant;

use crate::{
    observed::{Pod, Service},
    subscribe::Topics,
};

/// How long the owners of pods are waited for once everything else is known. Without them some pods have no identity
/// yet, which a later step mends; without the rest there is nothing true to say.
const OWNERS_WAIT: Duration = Duration::from_secs(5);

/// How the following of each resource goes.
#[derive(Debug, Clone, Default)]
pub(crate) struct Feeds {
    pub(crate) services: Health,
    pub(crate) slices: Health,
    pub(crate) pods: Health,
    pub(crate) replica_sets: Health,
    pub(crate) jobs: Health,
}

impl Feeds {
    /// Each with its resource's name.
    pub(crate) fn all(&self) -> [(&'static str, &Health); 5] {
        [
            ("services", &self.services),
            ("endpoint_slices", &self.slices),
            ("pods", &self.pods),
            ("replica_sets", &self.replica_sets),
            ("jobs", &self.jobs),
        ]
    }

    /// Since when something fails that endpoints are told from.
    pub(crate) fn failing_since(&self) -> Option<Instant> {
        self.needed().into_iter().filter_map(Health::failing_since).min()
    }

    /// Whether all that endpoints are told from has been followed, and not only listed.
    pub(crate) fn are_followed(&self) -> bool {
        self.needed().into_iter().all(Health::is_followed)
    }

    /// Waits for that.
    pub(crate) async fn followed(&self) {
        futures::future::join_all(self.needed().map(Health::followed)).await;
    }

    fn needed(&self) -> [&Health; 3] {
        [&self.services, &self.slices, &self.pods]
    }

    /// Waits until enough is known to answer.
    pub(crate) async fn synced(&self) {
        tokio::join!(self.services.synced(), self.slices.synced(), self.pods.synced());
        let owners = async { tokio::join!(self.replica_sets.synced(), self.jobs.synced()) };
        if tokio::time::timeout(OWNERS_WAIT, owners).await.is_err() {
            tracing::warn!("the owners of pods are not known yet; some pods have no identity until they are");
        }
    }
}

/// Follows everything into the index of `topics`, for ever. Dropping it stops the following.
pub(crate) async fn follow(client: Client, timing: Timing, seed: Seed, topics: Topics, feeds: Feeds) {
    let seed = seed.fork("feed");
    let namespace: Arc<str> = topics.control_plane_ns().into();
    let news = News::default();
    let services =
        each::<v1::Service>(&client, &timing, &seed, &news, feeds.services).run(Service::read, |event| {
            topics.change(|index| index.services(event));
        });
    let slices =
        slices::follow(client.clone(), timing.clone(), seed.clone(), feeds.slices, news.clone(), |event| {
            topics.change(|index| index.slices(event));
        });
    let pods = each::<v1::Pod>(&client, &timing, &seed, &news, feeds.pods)
        .run(move |pod| Pod::read(pod, &namespace), |event| topics.change(|index| index.pods(event)));
    let owned = |replica_set: ReplicaSet| Owned::of(&replica_set.metadata);
    let replica_sets = each(&client, &timing, &seed, &news, feeds.replica_sets).run(owned, |event| {
        topics.change(|index| index.replica_sets(event));
    });
    let owned = |job: Job| Owned::of(&job.metadata);
    let jobs = each(&client, &timing, &seed, &news, feeds.jobs).run(owned, |event| {
        topics.change(|index| index.jobs(event));
    });
    tokio::join!(services, slices, pods, replica_sets, jobs);
}

fn each<K: Object + kube::Resource<DynamicType = ()>>(
    client: &Client,
    timing: &Timing,
    seed: &Seed,
    news: &News,
    health: Health,
) -> Follow<K> {
    Follow::new(Source::all(client.clone()), timing.clone(), seed).reporting_to(health).telling(news.clone())
}
