//! Against the cluster that `KUBECONFIG` names, with its own controllers and its own garbage collector. Run by name, as a
//! user who may do everything: `cargo nextest run -p conduit-ca --run-ignored only`.

use std::time::Duration;

use conduit_identity::{ControlPlane, ManualClock};
use conduit_k8s::owned::BUNDLE_CONFIGMAP;
use conduit_net::TokioNetwork;
use conduit_runtime::Seed;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Namespace, Secret},
};
use kube::{
    Api, Client,
    api::{DeleteParams, ListParams, PostParams},
};
use rand::Rng;
use serde_json::json;
use tokio::time::{sleep, timeout};

use crate::{running::Running, world::NOW};

const SOON: Duration = Duration::from_secs(60);

/// As `conduit inject --tls=optional` leaves a Deployment; no scheduler takes its pods.
fn deployment(name: &str, control_plane_ns: &str) -> Deployment {
    let container = |name: &str| json!({"name": name, "image": "example/image:1"});
    let labels = json!({"app": name, "conduit.io/control-plane-ns": control_plane_ns});
    let annotations = json!({"conduit.io/tls": "optional", "conduit.io/owner": format!("deployment/{name}")});
    let template = json!({
        "metadata": {"labels": labels, "annotations": annotations},
        "spec": {"schedulerName": "nobody", "containers": [container("conduit-proxy"), container("app")]},
    });
    let spec = json!({"selector": {"matchLabels": {"app": name}}, "template": template});
    serde_json::from_value(json!({"metadata": {"name": name}, "spec": spec})).unwrap()
}

async fn until<T, F: Future<Output = Option<T>>>(what: &str, look: impl Fn() -> F) -> T {
    let seen = async {
        loop {
            match look().await {
                Some(seen) => return seen,
                None => sleep(Duration::from_millis(50)).await,
            }
        }
    };
    timeout(SOON, seen).await.unwrap_or_else(|_| panic!("never: {what}"))
}

async fn start(client: &Client, namespace: &str, holder: &str) -> Running {
    Running::start_in(client.clone(), ManualClock::at(NOW), 1, |config| {
        config.control_plane = ControlPlane { namespace: namespace.to_owned(), ..ControlPlane::default() };
        config.lease = Some(conduit_k8s::lease::Timing::default());
        config.holder = holder.to_owned();
    })
    .await
}

/// Names and versions of everything that the authority writes.
async fn written(client: &Client, namespace: &str) -> Vec<(Option<String>, Option<String>)> {
    let (secrets, maps): (Api<Secret>, Api<ConfigMap>) =
        (Api::namespaced(client.clone(), namespace), Api::namespaced(client.clone(), namespace));
    let all = ListParams::default();
    let secrets = secrets.list(&all).await.unwrap().items.into_iter().map(|secret| secret.metadata);
    let maps = maps.list(&all).await.unwrap().items.into_iter().map(|map| map.metadata);
    secrets.chain(maps).map(|meta| (meta.name, meta.resource_version)).collect()
}

#[tokio::test]
#[ignore = "needs a cluster"]
async fn a_real_clusters_workloads_are_served_and_what_they_leave_is_collected() {
    let client = conduit_k8s::client::infer(TokioNetwork::shared()).await.unwrap();
    let name = format!("conduit-ca-{:08x}", Seed::from_os().unwrap().rng().next_u32());
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let namespace = serde_json::from_value(json!({"metadata": {"name": name}})).unwrap();
    let (post, delete) = (PostParams::default(), DeleteParams::default());
    namespaces.create(&post, &namespace).await.unwrap();
    let secrets: Api<Secret> = Api::namespaced(client.clone(), &name);
    let bundles: Api<ConfigMap> = Api::namespaced(client.clone(), &name);
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), &name);

    let mut theirs = Secret::default();
    theirs.metadata.name = Some("taken-deployment-tls-conduit-io".to_owned());
    let theirs = secrets.create(&post, &theirs).await.unwrap();
    let web = deployments.create(&post, &deployment("web", &name)).await.unwrap();
    deployments.create(&post, &deployment("taken", &name)).await.unwrap();
    let running = start(&client, &name, "ca-1").await;

    let secret_name = "web-deployment-tls-conduit-io";
    let present = async || secrets.get_opt(secret_name).await.unwrap();
    let first = until("a Secret", present).await;
    assert_eq!(first.metadata.owner_references.unwrap()[0].uid, web.metadata.uid.unwrap());
    until("a bundle", async || bundles.get_opt(BUNDLE_CONFIGMAP).await.unwrap()).await;
    secrets.delete(secret_name, &delete).await.unwrap();
    let second = until("another Secret", present).await;
    assert_ne!(first.metadata.uid, second.metadata.uid);
    running.tells("conduit_ca_foreign_objects 1\n").await;
    assert_eq!(secrets.get("taken-deployment-tls-conduit-io").await.unwrap(), theirs);

    // A second replica finds the Lease given up, and everything as it should be.
    running.stop().await;
    let before = written(&client, &name).await;
    let running = start(&client, &name, "ca-2").await;
    running.tells("conduit_ca_leading 1").await;
    running.tells("conduit_ca_workloads 2").await;
    sleep(Duration::from_secs(3)).await;
    assert_eq!(written(&client, &name).await, before);

    deployments.delete("web", &delete).await.unwrap();
    until("the Secret is collected", async || present().await.is_none().then_some(())).await;
    running.tells("conduit_ca_workloads 1").await;
    sleep(Duration::from_secs(2)).await;
    assert!(present().await.is_none(), "what has no pods is not made again");
    let metrics = running.get("/metrics").await;
    assert!(!metrics.contains("conduit_ca_errors_total{"), "{metrics}");
    running.stop().await;
    namespaces.delete(&name, &delete).await.unwrap();
}
