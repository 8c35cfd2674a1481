//! How fast the in-memory API is: creates pods and Secrets through the in-process client, with a watcher on each, and
//! prints the rates. `cargo run --release -p conduit-cluster --example creates [pods]`

use std::{error::Error, sync::Arc, time::Duration};

use conduit_cluster::{Cluster, Config, fixtures};
use conduit_runtime::Seed;
use futures::{StreamExt, TryStreamExt};
use k8s_openapi::{
    ByteString,
    api::core::v1::{Pod, Secret},
};
use kube::{
    Api,
    api::{ListParams, ObjectMeta, PostParams, WatchParams},
};
use tokio::time::Instant;

#[tokio::main(flavor = "current_thread")]
#[allow(clippy::print_stdout, reason = "printing is what it is for")]
async fn main() -> Result<(), Box<dyn Error>> {
    let count: usize = std::env::args().nth(1).unwrap_or_else(|| "10000".to_owned()).parse()?;
    let cluster = Cluster::new(Config::new(Arc::new(|| Duration::from_secs(1_800_000_000)), Seed::fixed(1)));
    let client = cluster.client();
    let (pods, secrets): (Api<Pod>, Api<Secret>) =
        (Api::default_namespaced(client.clone()), Api::default_namespaced(client.clone()));
    let watch = pods.watch(&WatchParams::default(), "0").await?.boxed();
    let watching =
        tokio::spawn(
            async move { watch.take(count).try_fold(0, |seen, _| async move { Ok(seen + 1) }).await },
        );
    let params = PostParams::default();
    let deployment = Api::default_namespaced(client.clone())
        .create(&params, &fixtures::deployment("default", "web"))
        .await?;
    let replicas =
        Api::default_namespaced(client.clone()).create(&params, &fixtures::replica_set(&deployment)).await?;

    let start = Instant::now();
    for index in 0..count {
        pods.create(&params, &fixtures::pod(&replicas, index)).await?;
    }
    report("pod creates", count, start);
    let start = Instant::now();
    for index in 0..count {
        secrets.create(&params, &secret(index)).await?;
    }
    report("Secret creates", count, start);
    println!("watched {} pods", watching.await??);
    let start = Instant::now();
    let listed = pods.list(&ListParams::default()).await?.items.len();
    println!("listed and decoded {listed} pods in {:?}", start.elapsed());
    Ok(())
}

#[allow(clippy::print_stdout, reason = "printing is what it is for")]
fn report(what: &str, count: usize, start: Instant) {
    let taken = start.elapsed();
    println!("{count} {what} in {taken:?}: {:.0}/s", count as f64 / taken.as_secs_f64());
}

/// A Secret the size of a workload's certificate.
fn secret(index: usize) -> Secret {
    let data = ["tls.crt", "tls.key", "ca.crt"].map(|name| (name.to_owned(), ByteString(vec![b'x'; 900])));
    Secret {
        metadata: ObjectMeta { name: Some(format!("s{index}")), ..Default::default() },
        data: Some(data.into()),
        ..Default::default()
    }
}
