//! Whether what is told still follows the cluster.
//!
//! An index whose watches fail goes on saying what was true: a client that knows goes by what endpoints prove, and by
//! Kubernetes where they do not. A watch over a connection that went silent fails only when its life is over, so the API
//! server is asked for a sign of life as well. What was only listed, and never followed, may be as old as a cache of the API
//! server: nobody stands by it.

use std::time::Duration;

use conduit_runtime::{Backoff, Seed};
use kube::Client;
use tokio::time::{Instant, sleep, timeout};

use crate::{feed::Feeds, subscribe::Topics};

/// From one sign of life to the next: each takes between half of it and all of it.
const EVERY: Duration = Duration::from_secs(2);
/// How long the API server may take for one.
const ANSWER: Duration = Duration::from_secs(2);
/// How long things may fail before anybody is told: an API server that restarts, or a watch that is begun again, is none of
/// the clients' business, and the address of a pod is not somebody else's at once.
const TOLERATED: Duration = Duration::from_secs(3);

/// Tells `topics`, which do not until they are told, whether they follow the cluster, for ever.
pub(crate) async fn watch(client: Client, seed: Seed, topics: Topics, feeds: Feeds) {
    let mut pace = Backoff::new(EVERY, EVERY, &seed.fork("standing"));
    let (mut silent_since, mut was_failing) = (None, false);
    loop {
        let asked = Instant::now();
        silent_since = if is_there(&client).await { None } else { silent_since.or(Some(asked)) };
        let failing_since = feeds.failing_since().into_iter().chain(silent_since).min();
        let is_failing = failing_since.is_some_and(|since: Instant| since.elapsed() >= TOLERATED);
        match (was_failing, is_failing) {
            (false, true) => {
                tracing::warn!(
                    "the cluster is not followed: clients are told that what they know may be old"
                );
            }
            (true, false) => tracing::info!("what clients are told follows the cluster again"),
            _ => {}
        }
        was_failing = is_failing;
        topics.set_stale(is_failing || !feeds.are_followed());
        tokio::select! {
            () = feeds.followed(), if topics.is_stale() && !is_failing => {}
            () = sleep(pace.next_delay()) => {}
        }
    }
}

/// Whether the API server answers. What it answers is for the watches to judge: to whom its version may not be told, it is
/// there all the same.
async fn is_there(client: &Client) -> bool {
    match timeout(ANSWER, client.apiserver_version()).await {
        Ok(Ok(_)) => true,
        Ok(Err(kube::Error::Api(status))) => status.code < 500,
        Ok(Err(_)) | Err(_) => false,
    }
}
