//! The in-memory API keeps the promises of the conformance suite, as a function call and over sockets.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::{sync::Arc, time::Duration};

use conduit_cluster::{Cluster, Config, conformance::CASES};
use conduit_net::TokioNetwork;
use conduit_runtime::{Seed, drain};
use futures::{StreamExt, stream};
use kube::Client;

fn cluster() -> Cluster {
    let clock = || Duration::from_secs(1_800_000_000);
    let cluster = Cluster::new(Config::new(Arc::new(clock), Seed::fixed(1)));
    cluster.compact();
    cluster
}

/// Runs every case and says which failed.
async fn run_all(cluster: &Cluster, client: Client, at_once: usize) {
    let (_trigger, watch) = drain::channel();
    let controllers = tokio::spawn({
        let cluster = cluster.clone();
        async move { cluster.run_controllers(watch).await }
    });
    let failures: Vec<String> = stream::iter(CASES.iter().enumerate())
        .map(|(index, case)| {
            let client = client.clone();
            async move {
                let outcome = case.run(client, &format!("case-{index}")).await;
                outcome.err().map(|error| format!("{}: {error}", case.name))
            }
        })
        .buffered(at_once)
        .filter_map(|failure| async { failure })
        .collect()
        .await;
    controllers.abort();
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), CASES.len(), failures.join("\n"));
}

#[tokio::test(start_paused = true)]
async fn every_promise_is_kept_in_process() {
    let cluster = cluster();
    run_all(&cluster, cluster.client(), 1).await;
}

#[tokio::test]
async fn every_promise_is_kept_over_sockets_and_side_by_side() {
    let cluster = cluster();
    let (_trigger, watch) = drain::channel();
    let serving =
        cluster.serve(&TokioNetwork::shared(), "127.0.0.1:0".parse().unwrap(), watch).await.unwrap();
    let url = format!("http://{}", serving.addr).parse().unwrap();
    let server = tokio::spawn(serving.server);
    let mut config = kube::Config::new(url);
    // The client would hide the refusals that ask for another try.
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    run_all(&cluster, client, 8).await;
    server.abort();
}
