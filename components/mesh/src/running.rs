//! Something that runs until it is told to stop, and where it runs.

use std::{future::Future, sync::Arc, time::Duration};

use conduit_runtime::drain;
use futures::future::BoxFuture;
use tokio_util::sync::{CancellationToken, DropGuard};

/// Where the processes of one pod run.
pub trait Processes: Send + Sync + 'static {
    /// Runs `process` until it ends.
    fn spawn(&self, process: BoxFuture<'static, ()>);
}

/// In the runtime of whoever starts them.
pub(crate) struct Here;

impl Here {
    pub(crate) fn shared() -> Arc<dyn Processes> {
        Arc::new(Self)
    }
}

impl Processes for Here {
    fn spawn(&self, process: BoxFuture<'static, ()>) {
        tokio::spawn(process);
    }
}

/// A process with a drain of its own. Dropping it ends the process at once.
pub(crate) struct Part {
    name: String,
    trigger: Option<drain::Trigger>,
    _end: DropGuard,
}

impl Part {
    /// Runs something whose drain exists already, here.
    pub(crate) fn with_trigger(
        name: impl Into<String>,
        trigger: drain::Trigger,
        run: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self::on(&Here, name.into(), trigger, run)
    }

    /// Starts what `run` makes of a drain, here.
    pub(crate) fn start<Fut>(name: impl Into<String>, run: impl FnOnce(drain::Watch) -> Fut) -> Self
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        Self::start_on(&Here, name, run)
    }

    /// Starts what `run` makes of a drain, where a pod's processes run.
    pub(crate) fn start_on<Fut>(
        place: &dyn Processes,
        name: impl Into<String>,
        run: impl FnOnce(drain::Watch) -> Fut,
    ) -> Self
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (trigger, watch) = drain::channel();
        Self::on(place, name.into(), trigger, run(watch))
    }

    fn on(
        place: &dyn Processes,
        name: String,
        trigger: drain::Trigger,
        run: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        let end = CancellationToken::new();
        let ended = end.clone();
        // Its values are dropped where it runs, not where it is told to end.
        place.spawn(Box::pin(async move {
            tokio::select! {
                biased;
                () = ended.cancelled() => {}
                () = run => {}
            }
        }));
        Self { name, trigger: Some(trigger), _end: end.drop_guard() }
    }

    /// Lets it end what is under way, for `deadline` at most.
    pub(crate) async fn stop(mut self, deadline: Duration) {
        if let Some(trigger) = self.trigger.take()
            && !trigger.drain(deadline).await
        {
            tracing::debug!(name = self.name, ?deadline, "cut off");
        }
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Part").field(&self.name).finish()
    }
}
