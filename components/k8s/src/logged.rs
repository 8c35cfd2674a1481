//! What tests of logs need.

use std::sync::Arc;

use parking_lot::Mutex;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _};

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

impl std::io::Write for Log {
    fn write(&mut self, octets: &[u8]) -> std::io::Result<usize> {
        self.0.lock().extend_from_slice(octets);
        Ok(octets.len())
    }

    fn flush(&mut self) -> std::io::Result<()> {
        Ok(())
    }
}

impl Log {
    /// Collects until the guard is dropped.
    pub(crate) fn start() -> (Self, tracing::subscriber::DefaultGuard) {
        let log = Self::default();
        let writer = log.clone();
        let filter: Targets = crate::cause::log_filter(None).parse().unwrap();
        let lines = fmt::layer().with_ansi(false).without_time().with_writer(move || writer.clone());
        let subscriber = tracing_subscriber::registry().with(lines).with(filter);
        let guard = tracing::subscriber::set_default(subscriber);
        (log, guard)
    }

    /// Each event so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}
