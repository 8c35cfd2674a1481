//! One stream per target, opened again whenever it ends.

use std::{sync::Arc, time::Duration};

use conduit_proto::destination::Update;
use conduit_runtime::{Backoff, Seed};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tonic::{Status, Streaming};

use super::{
    Resolution, Target,
    control::Control,
    view::{Builder, Malformed},
};
use crate::metrics;

/// Between two streams of one target. The first is short, so that a service which restarts is asked again soon; the last
/// keeps a fleet of proxies from asking a broken one all the time.
const BACKOFF_MIN: Duration = Duration::from_millis(200);
const BACKOFF_MAX: Duration = Duration::from_secs(10);
/// How long the service may take to begin a stream, which it can do without knowing anything yet.
const BEGIN: Duration = Duration::from_secs(30);

/// Keeps `sender` in step with what the destination service says of `target`. Never returns.
pub(super) async fn follow(
    target: Target,
    sender: watch::Sender<Resolution>,
    control: Arc<Control>,
    seed: Seed,
) {
    let builder = Builder::new(control.control_plane.clone());
    let renewals = control.renewals();
    let mut backoff = Backoff::new(BACKOFF_MIN, BACKOFF_MAX, &seed);
    let mut follower = Follower { target, sender, control, builder, renewals };
    loop {
        let began = Instant::now();
        let ended = follower.stream().await;
        if began.elapsed() > BACKOFF_MAX {
            // It worked for a while: what ended it is new.
            backoff.reset();
        }
        match ended {
            Ended::Renewed => {}
            Ended::Lost(status) => {
                tracing::debug!(target = %follower.target, %status, "the destination service's stream ended");
                follower.control.metrics().discovery.interrupted.inc();
                follower.builder.disconnected();
                follower.publish();
                sleep(backoff.next_delay()).await;
            }
        }
    }
}

struct Follower {
    target: Target,
    sender: watch::Sender<Resolution>,
    control: Arc<Control>,
    builder: Builder,
    renewals: watch::Receiver<u64>,
}

enum Ended {
    /// A better connection waits.
    Renewed,
    /// The service or the way to it failed.
    Lost(Status),
}

impl Follower {
    async fn stream(&mut self) -> Ended {
        self.renewals.mark_unchanged();
        self.builder.reconnected();
        let mut client = self.control.client();
        let began = timeout(BEGIN, client.get(self.target.request(&self.control.namespace))).await;
        match began.unwrap_or_else(|_| Err(Status::deadline_exceeded("no answer"))) {
            Ok(response) => self.messages(response.into_inner()).await,
            Err(status) => Ended::Lost(status),
        }
    }

    async fn messages(&mut self, mut stream: Streaming<Update>) -> Ended {
        loop {
            let doubted_until = self.builder.doubted_until();
            tokio::select! {
                biased;
                Ok(()) = self.renewals.changed() => return Ended::Renewed,
                message = stream.message() => match message {
                    Ok(Some(update)) => self.apply(update),
                    Ok(None) => return Ended::Lost(Status::ok("the service ended it")),
                    Err(status) => return Ended::Lost(status),
                },
                () = until(doubted_until) => {
                    self.builder.give_up();
                    self.publish();
                }
            }
        }
    }

    fn apply(&mut self, update: Update) {
        let Malformed(malformed) = self.builder.apply(update, Instant::now());
        for _ in 0..malformed {
            self.control.metrics().malformed(metrics::Malformed::Destination);
        }
        self.publish();
    }

    fn publish(&self) {
        self.sender.send_replace(self.builder.resolution());
    }
}

/// Waits until `moment`, for ever when there is none.
async fn until(moment: Option<Instant>) {
    match moment {
        Some(moment) => sleep_until(moment).await,
        None => std::future::pending().await,
    }
}
