//! The record of one connection.

use std::{io, sync::Arc};

use tokio::time::Instant;

use crate::metrics::TransportSeries;

/// The record of one connection from open to close; dropping it closes. Its counters are of the bytes that crossed it
/// in the clear, that is, within TLS.
#[derive(Debug)]
pub(crate) struct Transport {
    opened_at: Instant,
    failed: Option<io::ErrorKind>,
    series: Arc<TransportSeries>,
}

impl Transport {
    pub(super) fn open(opened_at: Instant, series: Arc<TransportSeries>) -> Self {
        series.open();
        Self { opened_at, failed: None, series }
    }

    /// Bytes came from the peer. Called on every read: it must cost next to nothing.
    pub(crate) fn read(&self, bytes: usize) {
        self.series.read(bytes);
    }

    /// Bytes went to the peer.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.series.wrote(bytes);
    }

    /// An error ended it; the first one counts.
    pub(crate) fn failed(&mut self, error: &io::Error) {
        self.failed.get_or_insert(error.kind());
    }
}

impl Drop for Transport {
    fn drop(&mut self) {
        self.series.close(self.failed.is_some(), self.opened_at.elapsed());
    }
}
