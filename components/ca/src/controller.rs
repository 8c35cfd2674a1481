//! The loop: look, reconcile, write, wait. It runs while this replica leads.

use std::{collections::BTreeSet, sync::Arc, time::Duration};

use conduit_identity::Clock;
use conduit_k8s::lease::Leadership;
use tokio::time::{Instant, sleep};
use tracing::{error, warn};

use crate::{
    caches::{Caches, Changes},
    config::Config,
    inspect::Inspector,
    metrics::{Metrics, Operation},
    objects,
    overlay::Overlay,
    reconcile::{Observed, Plan, Report, reconcile},
    state::State,
    writer::{Basis, Progress, Writer},
};

/// Changes come in bursts; this long they are collected before a look.
const SETTLE: Duration = Duration::from_millis(50);

/// Issues certificates.
pub(crate) struct Controller {
    pub(crate) config: Config,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) caches: Caches,
    pub(crate) metrics: Metrics,
    pub(crate) inspector: Inspector,
    pub(crate) writer: Writer,
    pub(crate) memory: Memory,
}

/// What is kept from one look to the next.
#[derive(Debug, Default)]
pub(crate) struct Memory {
    /// The state as it was last stored: keys survive a deletion of the Secret as long as this process does.
    state: Option<State>,
    reported: BTreeSet<Report>,
    complaint: Option<String>,
}

impl Controller {
    /// Works whenever it leads. Never returns; dropped at any moment it leaves whole objects behind.
    pub(crate) async fn run(mut self, leadership: Leadership) {
        loop {
            leadership.gained().await;
            self.metrics.leading(true);
            // Its work never ends by itself.
            let _ = leadership.within(self.lead()).await;
            self.metrics.leading(false);
            // Another replica writes now: nothing that we remember need be so any more.
            self.memory = Memory::default();
            (self.writer.secrets, self.writer.bundles) = (Overlay::default(), Overlay::default());
        }
    }

    async fn lead(&mut self) {
        let mut changes = self.caches.changes();
        self.caches.synced().await;
        loop {
            changes.note();
            if let Some(idle) = self.pass().await {
                wait(&mut changes, idle).await;
            }
        }
    }

    /// One look and its writes. Some when there is nothing to do at the moment: for how long at most.
    async fn pass(&mut self) -> Option<Duration> {
        let interval = self.config.interval;
        self.writer.look_at_foreign().await;
        let Some((basis, plan)) = self.look() else { return Some(interval) };
        match self.writer.write(&basis, &plan.writes).await {
            Ok(Progress::Sent) => None,
            Ok(Progress::Nothing(Some(next))) => {
                Some(interval.min(next.saturating_duration_since(Instant::now())))
            }
            Ok(Progress::Nothing(None)) => Some(interval),
            Err(blocked) => {
                self.complain(blocked.to_string());
                Some(interval)
            }
        }
    }

    /// None when the stored state cannot be read: nothing that is done without it would be right.
    fn look(&mut self) -> Option<(Basis, Plan)> {
        let secrets = self.writer.secrets.over(self.caches.secrets.snapshot());
        let bundles = self.writer.bundles.over(self.caches.bundles.snapshot());
        let stored = secrets.get(&objects::root_key(&self.config.control_plane));
        let state = match stored.map(|secret| objects::read_root(secret)).transpose() {
            Ok(state) => state,
            Err(problem) => {
                self.complain(problem.to_string());
                return None;
            }
        };
        if state.is_some() {
            self.memory.state.clone_from(&state);
            self.memory.complaint = None;
        }
        let observed = Observed {
            pods: &self.caches.pods.snapshot(),
            components: &self.caches.components.snapshot(),
            owners: &self.caches.owners(),
            secrets: &secrets,
            bundles: &bundles,
            foreign: &self.writer.foreign,
            state: state.as_ref(),
            remembers: self.memory.state.is_some(),
        };
        let Config { control_plane, lifetimes, .. } = &self.config;
        let now = self.clock.now();
        let plan = reconcile(&observed, &mut self.inspector, now, control_plane, lifetimes);
        self.metrics.seen(&plan, state.as_ref(), now);
        self.report(&plan);
        Some((Basis { state: state.or_else(|| self.memory.state.clone()), secrets, bundles }, plan))
    }

    /// Logs what is new; what metrics tell at each look would be noise in a log.
    fn report(&mut self, plan: &Plan) {
        for report in plan.reports.difference(&self.memory.reported) {
            match report {
                Report::ForeignSecret(key) => {
                    error!(secret = %key, "not ours although of our name; its workload stays without certificate");
                }
                Report::ForeignBundle(key) => {
                    error!(config_map = %key, "not ours although of our name; its namespace stays without trust");
                }
                Report::ClockBehind => {
                    error!(
                        "this machine's clock is behind the API server's; nothing is issued until it is set right"
                    );
                }
                Report::Mismatch(mismatch) => {
                    warn!(pod = %mismatch.pod, reason = mismatch.text, "no certificate for this pod's workload");
                }
            }
        }
        self.memory.reported.clone_from(&plan.reports);
    }

    fn complain(&mut self, complaint: String) {
        self.metrics.failed(Operation::ReadRoot);
        if self.memory.complaint.as_ref() != Some(&complaint) {
            error!(
                complaint,
                "nothing is issued until the authority's Secret is restored, or deleted for new roots"
            );
            self.memory.complaint = Some(complaint);
        }
    }
}

async fn wait(changes: &mut Changes, at_most: Duration) {
    changes.next(at_most).await;
    sleep(SETTLE).await;
}
