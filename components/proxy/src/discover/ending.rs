//! Whether the application has ended: one call at the destination service, made again whenever it fails.

use std::{sync::Arc, time::Duration};

use conduit_proto::lifecycle::AwaitEndRequest;
use conduit_runtime::{Backoff, Seed};
use tokio::time::{Instant, sleep};

use super::control::Control;

/// Between two calls, at least.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
/// And at most: a Job waits for as long as this once the service is back.
const BACKOFF_MAX: Duration = Duration::from_secs(5);

/// Returns when the destination service says that the application of the pod with this uid has ended.
pub(super) async fn application_ended(control: Arc<Control>, pod_uid: String, seed: Seed) {
    let mut renewals = control.renewals();
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX, &seed);
    loop {
        renewals.mark_unchanged();
        let (mut client, asked) = (control.lifecycle(), Instant::now());
        let answer = tokio::select! {
            answer = client.await_end(AwaitEndRequest { pod_uid: pod_uid.clone() }) => answer,
            Ok(()) = renewals.changed() => continue,
        };
        match answer {
            Ok(_) => return,
            Err(status) => tracing::debug!(%status, "cannot be told yet when the application ends"),
        }
        // It had an ear for us; what ended it is not what failed before.
        if asked.elapsed() > BACKOFF_MAX {
            backoff.reset();
        }
        sleep(backoff.next_delay()).await;
    }
}
