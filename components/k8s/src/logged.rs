//! What tests of logs need.

use std::{
    cell::RefCell,
    io,
    sync::{Arc, Once},
};

use parking_lot::Mutex;
use tracing_subscriber::{filter::Targets, fmt, layer::SubscriberExt as _};

thread_local! {
    static HEARD: RefCell<Option<Log>> = const { RefCell::new(None) };
}

/// Collects what is logged on this thread.
#[derive(Clone, Default)]
pub(crate) struct Log(Arc<Mutex<Vec<u8>>>);

/// Ends the collection of a thread.
pub(crate) struct Guard(());

impl Drop for Guard {
    fn drop(&mut self) {
        HEARD.set(None);
    }
}

/// Where the one subscriber of the process writes.
struct ToThread;

impl io::Write for ToThread {
    fn write(&mut self, octets: &[u8]) -> io::Result<usize> {
        HEARD.with_borrow(|log| log.iter().for_each(|log| log.0.lock().extend_from_slice(octets)));
        Ok(octets.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Lets every event be heard that happens from now on. Whoever runs what is tested calls this first, in tests that look at no
/// log as well: an event that happens before there is a subscriber can be taken for one that nobody wants, in all threads and
/// for ever.
pub(crate) fn listen() {
    static ONCE: Once = Once::new();
    ONCE.call_once(|| {
        let filter: Targets = crate::cause::log_filter(None).parse().unwrap();
        let lines = fmt::layer().with_ansi(false).without_time().with_writer(|| ToThread);
        tracing::subscriber::set_global_default(tracing_subscriber::registry().with(lines).with(filter))
            .unwrap();
    });
}

impl Log {
    /// Collects until the guard is dropped.
    pub(crate) fn start() -> (Self, Guard) {
        listen();
        let log = Self::default();
        HEARD.set(Some(log.clone()));
        (log, Guard(()))
    }

    /// Each event so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = String::from_utf8(self.0.lock().clone()).unwrap();
        text.lines().map(|line| line.trim().to_owned()).collect()
    }
}
