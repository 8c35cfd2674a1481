//! Leadership by a Lease: at most one of several processes leads, and another one takes over when it stops.
//!
//! As in client-go, no two clocks are compared. A candidate remembers *when it saw* the record change, on its own
//! monotonic clock, and takes over only after a whole lease time without a change; the leader counts its claim from the
//! moment it *began* the write that renewed it, and for a shorter time. Times written into the object are for readers.
//!
//! The claim is judged at each use, so that a leader whose process was stopped for a minute does not lead when it wakes
//! up, even before any of its tasks has run.

use std::{sync::Arc, time::Duration};

use conduit_identity::Clock;
use conduit_runtime::{Backoff, Seed, drain};
use k8s_openapi::{
    api::coordination::v1::{Lease, LeaseSpec},
    apimachinery::pkg::apis::meta::v1::MicroTime,
    jiff::Timestamp,
};
use kube::{Api, Client, api::PostParams};
use tokio::{
    sync::watch,
    time::{Instant, sleep, sleep_until, timeout},
};
use tracing::{debug, info, warn};

use crate::cause::{Cause, News};

/// How leadership is timed; the proportions are client-go's, and `claim` must be well below `lease`.
#[derive(Debug, Clone)]
pub struct Timing {
    /// How long others wait without a sign of life before they take over.
    pub lease: Duration,
    /// How long the leader believes in its leadership after it began its last successful renewal.
    pub claim: Duration,
    /// How often the leader renews and the others look.
    pub retry: Duration,
}

impl Default for Timing {
    fn default() -> Self {
        Self { lease: Duration::from_secs(15), claim: Duration::from_secs(10), retry: Duration::from_secs(2) }
    }
}

/// Whether we lead. Cloning shares.
#[derive(Debug, Clone)]
pub struct Leadership {
    until: watch::Receiver<Option<Instant>>,
}

/// Leadership was lost, or never had.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("not the leader")]
pub struct NotLeading;

impl Leadership {
    /// Leadership that never ends, for a process that has no rivals: the demo's.
    pub fn unrivalled() -> Self {
        let never = Instant::now() + Duration::from_secs(60 * 60 * 24 * 365 * 30);
        Self { until: watch::channel(Some(never)).1 }
    }

    /// Whether we lead at this moment.
    pub fn is_leading(&self) -> bool {
        self.until.borrow().is_some_and(|until| Instant::now() < until)
    }

    /// Waits until we lead. Cancel safe.
    pub async fn gained(&self) {
        self.settle(true).await;
    }

    /// Waits until we do not lead. Cancel safe.
    pub async fn lost(&self) {
        self.settle(false).await;
    }

    /// Runs `work` while we lead, and drops it where it stands when leadership is lost.
    ///
    /// # Errors
    /// Leadership was lost before `work` ended, or not had. A write that was already sent may still be carried out:
    /// make it conditional on the version that was read.
    pub async fn within<T>(&self, work: impl Future<Output = T>) -> Result<T, NotLeading> {
        if !self.is_leading() {
            return Err(NotLeading);
        }
        tokio::select! {
            biased;
            () = self.lost() => Err(NotLeading),
            done = work => Ok(done),
        }
    }

    async fn settle(&self, wanted: bool) {
        let mut until = self.until.clone();
        loop {
            let claim = *until.borrow_and_update();
            if claim.is_some_and(|until| Instant::now() < until) == wanted {
                return;
            }
            let expiry = async {
                match claim.filter(|_| !wanted) {
                    Some(claim) => sleep_until(claim).await,
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                () = expiry => {}
                changed = until.changed() => if changed.is_err() {
                    return self.settle_after_the_campaign(wanted).await;
                }
            }
        }
    }

    /// The campaign is over: its last claim runs out, and none will follow.
    async fn settle_after_the_campaign(&self, wanted: bool) {
        let claim = *self.until.borrow();
        match (wanted, claim) {
            (true, _) => std::future::pending().await,
            (false, Some(claim)) => sleep_until(claim).await,
            (false, None) => {}
        }
    }
}

/// One process's candidacy for one Lease.
pub struct Campaign {
    leases: Api<Lease>,
    name: String,
    holder: String,
    clock: Arc<dyn Clock>,
    timing: Timing,
    jitter: Backoff,
    until: watch::Sender<Option<Instant>>,
    /// The last record of another holder, and when we saw it become so.
    seen: Option<(LeaseSpec, Instant)>,
    news: News,
}

/// What came of one attempt to lead.
enum Attempt {
    Leading,
    Following { holder: String },
}

impl Campaign {
    /// A candidacy of `holder`, which no other live process may be called, for the Lease `name` in `namespace`.
    pub fn new(
        client: Client,
        namespace: &str,
        name: &str,
        holder: &str,
        clock: Arc<dyn Clock>,
        timing: Timing,
        seed: &Seed,
    ) -> (Self, Leadership) {
        let (sender, until) = watch::channel(None);
        let campaign = Self {
            leases: Api::namespaced(client, namespace),
            name: name.to_owned(),
            holder: holder.to_owned(),
            clock,
            jitter: Backoff::new(timing.retry, timing.retry, &seed.fork("lease")),
            timing,
            until: sender,
            seen: None,
            news: News::default(),
        };
        (campaign, Leadership { until })
    }

    /// Campaigns until the drain begins, then gives the lease up at once, so that another one need not wait for it to
    /// run out. Dropping the future leaves the lease to run out.
    pub async fn run(mut self, drain: drain::Watch) {
        while !drain.is_signaled() {
            let patience = self.timing.retry;
            let ending = async {
                drain.signaled().await;
                sleep(patience).await;
            };
            tokio::select! {
                biased;
                // Not broken off at once: an attempt may be about to take what nobody would know then to give up.
                () = self.step() => {}
                () = ending => break,
            }
            tokio::select! {
                biased;
                () = drain.signaled() => break,
                () = sleep(self.jitter.next_delay()) => {}
            }
        }
        self.release().await;
    }

    async fn step(&mut self) {
        let begun = Instant::now();
        let led = self.until.borrow().is_some_and(|until| begun < until);
        // An attempt that takes longer than the claim could only make us believe in what has run out.
        let attempt = timeout(self.timing.claim, self.attempt()).await;
        match attempt {
            Ok(Ok(Attempt::Leading)) => {
                self.until.send_replace(Some(begun + self.timing.claim));
                if !led {
                    info!(lease = self.name, holder = self.holder, "leading");
                }
                self.succeeded();
            }
            Ok(Ok(Attempt::Following { holder })) => {
                self.succeeded();
                self.until.send_replace(None);
                if led {
                    warn!(lease = self.name, leader = holder, "another process leads now");
                }
            }
            // The claim is left to run out: an API server that is away for a moment deposes nobody.
            Ok(Err(error)) => self.failed(&(&error).into()),
            Err(_) => {
                self.failed(&Cause::no_server(format_args!("no answer within {:?}", self.timing.claim)))
            }
        }
    }

    fn succeeded(&mut self) {
        if self.news.succeeded(&self.name) {
            info!(lease = self.name, "the lease can be read and written again");
        }
    }

    fn failed(&mut self, cause: &Cause) {
        let leading = self.until.borrow().is_some_and(|until| Instant::now() < until);
        if self.news.failed(&self.name, cause) {
            warn!(lease = self.name, %cause, leading, "cannot renew or take the lease");
        } else {
            debug!(lease = self.name, %cause, leading, "still cannot renew or take the lease");
        }
    }

    async fn attempt(&mut self) -> Result<Attempt, kube::Error> {
        let Some(lease) = self.leases.get_opt(&self.name).await? else {
            let lease = Lease {
                metadata: kube::api::ObjectMeta { name: Some(self.name.clone()), ..Default::default() },
                spec: Some(self.record(&LeaseSpec::default())),
            };
            let created = self.leases.create(&PostParams::default(), &lease).await;
            return self.outcome(created);
        };
        let current = lease.spec.clone().unwrap_or_default();
        if !self.may_take(&current) {
            return Ok(Attempt::Following { holder: current.holder_identity.unwrap_or_default() });
        }
        let renewed = Lease { spec: Some(self.record(&current)), ..lease };
        let replaced = self.leases.replace(&self.name, &PostParams::default(), &renewed).await;
        self.outcome(replaced)
    }

    /// A conflict means that somebody else wrote first: whoever that was, it is not us.
    fn outcome(&self, written: Result<Lease, kube::Error>) -> Result<Attempt, kube::Error> {
        match written {
            Ok(_) => Ok(Attempt::Leading),
            Err(kube::Error::Api(status)) if status.code == 409 => {
                Ok(Attempt::Following { holder: "another".to_owned() })
            }
            Err(error) => Err(error),
        }
    }

    fn may_take(&mut self, current: &LeaseSpec) -> bool {
        let holder = current.holder_identity.as_deref().unwrap_or_default();
        if holder.is_empty() || holder == self.holder {
            self.seen = None;
            return true;
        }
        match &self.seen {
            Some((seen, since)) if seen == current => since.elapsed() >= self.patience(current),
            _ => {
                self.seen = Some((current.clone(), Instant::now()));
                false
            }
        }
    }

    /// The holder's own lease time, if it is a sane one: it may be configured otherwise than we are.
    fn patience(&self, current: &LeaseSpec) -> Duration {
        let told = current.lease_duration_seconds.and_then(|seconds| u64::try_from(seconds).ok());
        told.filter(|seconds| (1..=600).contains(seconds)).map_or(self.timing.lease, Duration::from_secs)
    }

    fn record(&self, before: &LeaseSpec) -> LeaseSpec {
        let now = self.renewal(before);
        let same = before.holder_identity.as_deref() == Some(&self.holder);
        let transitions = before.lease_transitions.unwrap_or(0);
        LeaseSpec {
            holder_identity: Some(self.holder.clone()),
            lease_duration_seconds: i32::try_from(self.timing.lease.as_secs()).ok(),
            acquire_time: before.acquire_time.clone().filter(|_| same).or(Some(now.clone())),
            renew_time: Some(now),
            lease_transitions: Some(if same { transitions } else { transitions.saturating_add(1) }),
            ..before.clone()
        }
    }

    /// The time to write: always another one than before, even if our clock stands still or was set back, because the
    /// change is the sign of life that the others look for.
    fn renewal(&self, before: &LeaseSpec) -> MicroTime {
        let micros = i64::try_from(self.clock.now().0.as_micros()).unwrap_or(i64::MAX);
        let now = Timestamp::from_microsecond(micros).unwrap_or(Timestamp::MAX);
        let last = before.renew_time.as_ref().map(|last| last.0);
        MicroTime(match last.filter(|last| last.as_microsecond() == now.as_microsecond()) {
            Some(last) => Timestamp::from_microsecond(last.as_microsecond().saturating_add(1)).unwrap_or(now),
            None => now,
        })
    }

    /// Gives the lease up, if we hold it: an empty holder is what everybody may take at once.
    async fn release(&mut self) {
        let led = self.until.send_replace(None).is_some();
        if !led {
            return;
        }
        let release = async {
            let Some(lease) = self.leases.get_opt(&self.name).await? else { return Ok(()) };
            let current = lease.spec.clone().unwrap_or_default();
            if current.holder_identity.as_deref() != Some(&self.holder) {
                return Ok(());
            }
            let released = LeaseSpec {
                holder_identity: Some(String::new()),
                lease_duration_seconds: Some(1),
                renew_time: Some(self.renewal(&current)),
                ..current
            };
            let lease = Lease { spec: Some(released), ..lease };
            self.leases.replace(&self.name, &PostParams::default(), &lease).await.map(drop)
        };
        match timeout(self.timing.retry, release).await {
            Ok(Ok(())) => info!(lease = self.name, "leadership given up"),
            Ok(Err(error)) => {
                warn!(lease = self.name, cause = %Cause::from(&error), "the lease is left to run out");
            }
            Err(_) => warn!(lease = self.name, "no answer about the lease, it is left to run out"),
        }
    }
}

#[cfg(test)]
mod tests;
