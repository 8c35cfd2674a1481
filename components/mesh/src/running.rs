//! Something that runs until it is told to stop.

use std::{future::Future, time::Duration};

use conduit_runtime::drain;
use tokio::task::JoinHandle;

/// A task with a drain of its own. Dropping it ends the task at once.
pub(crate) struct Part {
    name: String,
    trigger: Option<drain::Trigger>,
    task: JoinHandle<()>,
}

impl Part {
    /// A task whose drain exists already.
    pub(crate) fn with_trigger(
        name: impl Into<String>,
        trigger: drain::Trigger,
        run: impl Future<Output = ()> + Send + 'static,
    ) -> Self {
        Self { name: name.into(), trigger: Some(trigger), task: tokio::spawn(run) }
    }

    /// Starts what `run` makes of a drain.
    pub(crate) fn start<Fut>(name: impl Into<String>, run: impl FnOnce(drain::Watch) -> Fut) -> Self
    where
        Fut: Future<Output = ()> + Send + 'static,
    {
        let (trigger, watch) = drain::channel();
        Self { name: name.into(), trigger: Some(trigger), task: tokio::spawn(run(watch)) }
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

impl Drop for Part {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl std::fmt::Debug for Part {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_tuple("Part").field(&self.name).finish()
    }
}
