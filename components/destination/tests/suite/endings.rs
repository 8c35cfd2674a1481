//! When an application has ended, as the proxies of Jobs are told.

use conduit_identity::ManualClock;
use conduit_proto::lifecycle::{AwaitEndRequest, lifecycle_client::LifecycleClient};
use conduit_runtime::grpc;
use k8s_openapi::api::core::v1::Pod;
use kube::api::{Patch, PatchParams, PostParams};
use serde_json::json;
use tokio::{task::JoinHandle, time::timeout};
use tonic::{Code, Status};

use crate::world::{Destination, NOW, SOON, World};

impl World {
    /// A pod of a proxy and a container; its uid.
    async fn pod(&self, name: &str, restart: &str) -> String {
        let containers = ["conduit-proxy", "work"].map(|name| json!({"name": name, "image": "x:1"}));
        let pod: Pod = serde_json::from_value(json!({
            "metadata": {"name": name}, "spec": {"restartPolicy": restart, "containers": containers},
        }))
        .unwrap();
        self.api::<Pod>().create(&PostParams::default(), &pod).await.unwrap().metadata.uid.unwrap()
    }

    /// Reports that the container has ended with this code, as a kubelet does.
    async fn end(&self, name: &str, code: i32) {
        let status = json!({
            "name": "work", "image": "x:1", "imageID": "", "ready": false, "restartCount": 0,
            "state": {"terminated": {"exitCode": code}},
        });
        let status = json!({"status": {"containerStatuses": [status]}});
        let api = self.api::<Pod>();
        api.patch_status(name, &PatchParams::default(), &Patch::Merge(status)).await.unwrap();
    }
}

/// A proxy that asks for the pod with this uid.
fn asking(destination: &Destination, uid: &str) -> JoinHandle<Result<(), Status>> {
    asking_over(destination.channel(), uid)
}

fn asking_over(channel: grpc::Channel, uid: &str) -> JoinHandle<Result<(), Status>> {
    let mut client = LifecycleClient::new(channel);
    let request = AwaitEndRequest { pod_uid: uid.to_owned() };
    tokio::spawn(async move { client.await_end(request).await.map(drop) })
}

async fn told(asking: JoinHandle<Result<(), Status>>) -> Result<(), Code> {
    timeout(SOON, asking).await.expect("an answer").unwrap().map_err(|status| status.code())
}

#[tokio::test]
async fn the_end_of_an_application_is_told_to_its_own_proxy_and_to_no_other() {
    let world = World::new().await;
    let uids = [
        world.pod("ends", "Never").await,
        world.pod("runs", "Never").await,
        world.pod("fails", "OnFailure").await,
        world.pod("web", "Always").await,
    ];
    let destination = world.destination().await;
    let [ends, others @ ..] = uids.each_ref().map(|uid| asking(&destination, uid));
    for (name, code) in [("fails", 1), ("web", 0), ("ends", 1)] {
        world.end(name, code).await;
    }
    assert_eq!(told(ends).await, Ok(()));
    // Everything before has been seen by now.
    assert!(others.iter().all(|other| !other.is_finished()));
    // One that asks late is told at once, also by another replica, which sees it for the first time.
    assert_eq!(told(asking(&destination, &uids[0])).await, Ok(()));
    let replica = world.destination_with(|_| {}, ManualClock::at(NOW)).await;
    assert_eq!(told(asking(&replica, &uids[0])).await, Ok(()));
    world.end("fails", 0).await;
    let [_, fails, _] = others;
    assert_eq!(told(fails).await, Ok(()));
}

#[tokio::test]
async fn a_replica_that_ends_sends_its_proxies_to_another() {
    let world = World::new().await;
    let uid = world.pod("runs", "Never").await;
    let destination = world.destination().await;
    let channel = destination.channel();
    let runs = asking_over(channel.clone(), &uid);
    // It is under way when another call over the same connection, made later, has been answered.
    assert_eq!(told(asking_over(channel, "")).await, Err(Code::InvalidArgument));
    assert!(!runs.is_finished());
    assert!(destination.drain().await);
    assert_eq!(told(runs).await, Err(Code::Unavailable));
}
