//! The record of one connection.

use std::{io, sync::Arc};

use tokio::time::Instant;

use super::{Session, TlsStatus};
use crate::metrics::TransportSeries;

/// The record of one connection from open to close; dropping it closes. Its counters are of the bytes that crossed it
/// in the clear, that is, within TLS.
#[derive(Debug)]
pub(crate) struct Transport {
    opened_at: Instant,
    failed: Option<io::ErrorKind>,
    series: Arc<TransportSeries>,
    /// There until the first byte crosses; it counts as open from then on.
    mute: Option<Box<Mute>>,
}

/// A connection on which nobody has said a word yet.
#[derive(Debug)]
pub(super) struct Mute {
    /// Whose connection it is.
    pub(super) session: Session,
    /// What a word would cross.
    pub(super) tls: TlsStatus,
}

impl Transport {
    pub(super) fn open(opened_at: Instant, series: Arc<TransportSeries>) -> Self {
        series.open();
        Self { opened_at, failed: None, series, mute: None }
    }

    /// The record of a connection that counts in `series` if it ends without a word, and as what it is otherwise.
    pub(super) fn mute(opened_at: Instant, series: Arc<TransportSeries>, mute: Mute) -> Self {
        Self { opened_at, failed: None, series, mute: Some(Box::new(mute)) }
    }

    /// Bytes came from the peer. Called on every read: it must cost next to nothing.
    pub(crate) fn read(&mut self, bytes: usize) {
        self.speak(bytes);
        self.series.read(bytes);
    }

    /// Bytes went to the peer.
    pub(crate) fn wrote(&mut self, bytes: usize) {
        self.speak(bytes);
        self.series.wrote(bytes);
    }

    fn speak(&mut self, bytes: usize) {
        if bytes > 0
            && let Some(mute) = self.mute.take()
        {
            self.series = mute.session.series(&mute.tls);
            self.series.open();
        }
    }

    /// An error ended it; the first one counts.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        self.failed.get_or_insert(error.kind());
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        if self.mute.is_some() {
            self.series.open();
        }
        self.series.close(self.failed.is_some(), self.opened_at.elapsed());
    }
}
