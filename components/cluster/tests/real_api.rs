//! A real API server keeps the promises of the conformance suite, which is how we know that they are Kubernetes'.
//!
//! Run by name only, against the cluster of a kubeconfig whose user may do everything:
//!
//! ```text
//! CONDUIT_CONFORMANCE_KUBECONFIG=/path/to/kubeconfig cargo test -p conduit-cluster --test real_api
//! ```
//!
//! It makes and deletes namespaces called `conduit-conformance-...` and touches nothing else. `CONDUIT_CONFORMANCE_CASE`
//! picks cases whose names contain it.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

use conduit_cluster::conformance::CASES;
use conduit_runtime::{Seed, env::Env};
use futures::{StreamExt, stream};
use kube::{
    Client,
    config::{KubeConfigOptions, Kubeconfig},
};
use rand::Rng;

/// Cases side by side: they wait for controllers most of the time.
const AT_ONCE: usize = 6;

#[tokio::test]
async fn every_promise_is_kept_by_a_real_api_server() {
    let mut env = Env::from_process();
    let path = env.parse("CONDUIT_CONFORMANCE_KUBECONFIG", conduit_runtime::env::text);
    let only = env.parse("CONDUIT_CONFORMANCE_CASE", conduit_runtime::env::text).unwrap_or_default();
    env.finish().unwrap();
    let path = path.expect("CONDUIT_CONFORMANCE_KUBECONFIG names the kubeconfig of a cluster");
    let kubeconfig = Kubeconfig::read_from(path).unwrap();
    let options = KubeConfigOptions::default();
    let mut config = kube::Config::from_custom_kubeconfig(kubeconfig, &options).await.unwrap();
    // The client would hide the refusals that ask for another try.
    config.default_retry = false;
    let client = Client::try_from(config).unwrap();
    // A run must not meet the namespaces of the last, which may still be terminating.
    let run = Seed::from_os().unwrap().rng().next_u32();
    let chosen: Vec<_> = CASES.iter().filter(|case| case.name.contains(&only)).collect();
    let failures: Vec<String> = stream::iter(chosen.iter().enumerate())
        .map(|(index, case)| {
            let client = client.clone();
            async move {
                let namespace = format!("conduit-conformance-{run:08x}-{index}");
                let outcome = case.run(client, &namespace).await;
                outcome.err().map(|error| format!("{}: {error}", case.name))
            }
        })
        .buffered(AT_ONCE)
        .filter_map(|failure| async { failure })
        .collect()
        .await;
    assert!(failures.is_empty(), "{} of {} failed:\n{}", failures.len(), chosen.len(), failures.join("\n"));
}
