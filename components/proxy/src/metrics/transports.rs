//! Connections, accepted and opened: `tcp_*`. Bytes are counted as they pass, not when the connection ends: a connection
//! may live for weeks.

use std::{
    fmt,
    sync::atomic::{AtomicI64, AtomicU64, Ordering::Relaxed},
    time::Duration,
};

use prometheus_client::{
    encoding::{MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    histogram::Histogram,
    labels::{And, TransportLabels},
    requests::classification,
    table::{Face, Series, Table},
};

pub(super) type Transports = Table<TransportLabels, TransportSeries>;

/// Connections of one direction to one kind of peer, over one kind of TLS.
#[derive(Debug, Default)]
pub(crate) struct TransportSeries {
    opened: AtomicU64,
    open: AtomicI64,
    read_bytes: AtomicU64,
    write_bytes: AtomicU64,
    /// How long those lived that ended in order, and those that an error ended.
    succeeded: Histogram,
    failed: Histogram,
}

impl TransportSeries {
    /// A connection is open.
    pub(crate) fn open(&self) {
        self.opened.fetch_add(1, Relaxed);
        self.open.fetch_add(1, Relaxed);
    }

    /// A connection that was counted by [`TransportSeries::open`] is closed, an error having ended it or not.
    pub(crate) fn close(&self, failed: bool, lived: Duration) {
        self.open.fetch_sub(1, Relaxed);
        let closed = if failed { &self.failed } else { &self.succeeded };
        closed.observe(lived);
    }

    /// Bytes came from the peer.
    pub(crate) fn read(&self, bytes: usize) {
        self.read_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// Bytes went to the peer.
    pub(crate) fn wrote(&self, bytes: usize) {
        self.write_bytes.fetch_add(bytes as u64, Relaxed);
    }

    /// The classifications that occurred: the other would be an empty histogram of 27 lines.
    fn closed(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        [(true, &self.succeeded), (false, &self.failed)]
            .into_iter()
            .filter(|(_, closed)| closed.count() > 0)
            .map(|(success, closed)| (classification(success), closed))
    }
}

impl Series for TransportSeries {
    fn activity(&self) -> u64 {
        [&self.opened, &self.read_bytes, &self.write_bytes]
            .iter()
            .map(|counter| counter.load(Relaxed))
            .chain([self.succeeded.count(), self.failed.count()])
            .fold(0, u64::wrapping_add)
    }
}

type Encode = fn(&mut MetricEncoder<'_>, &TransportLabels, &TransportSeries) -> fmt::Result;

/// The families that transports show.
const FAMILIES: [(&str, &str, MetricType, Encode); 6] = [
    ("tcp_open", "Connections that were opened.", MetricType::Counter, |encoder, labels, series| {
        counter(encoder, labels, &series.opened)
    }),
    ("tcp_open_connections", "Connections that are open.", MetricType::Gauge, |encoder, labels, series| {
        encoder.encode_family(labels)?.encode_gauge(&series.open.load(Relaxed))
    }),
    (
        "tcp_read_bytes",
        "Bytes received from peers, inside TLS.",
        MetricType::Counter,
        |encoder, labels, series| counter(encoder, labels, &series.read_bytes),
    ),
    (
        "tcp_write_bytes",
        "Bytes sent to peers, inside TLS.",
        MetricType::Counter,
        |encoder, labels, series| counter(encoder, labels, &series.write_bytes),
    ),
    ("tcp_close", "Connections that were closed.", MetricType::Counter, |encoder, labels, series| {
        series.closed().try_for_each(|(class, closed)| {
            let labels = And(labels, "classification", class);
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&closed.count(), None)
        })
    }),
    (
        "tcp_connection_duration_ms",
        "Milliseconds from open to close.",
        MetricType::Histogram,
        |encoder, labels, series| {
            series.closed().try_for_each(|(class, closed)| {
                closed.encode(&mut encoder.encode_family(&And(labels, "classification", class))?)
            })
        },
    ),
];

fn counter(encoder: &mut MetricEncoder<'_>, labels: &TransportLabels, value: &AtomicU64) -> fmt::Result {
    encoder.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(&value.load(Relaxed), None)
}

/// Registers the families.
pub(super) fn register(registry: &conduit_runtime::metrics::Registry, transports: &Transports) {
    for (name, help, metric_type, encode) in FAMILIES {
        registry.register(name, help, Face { table: transports.clone(), metric_type, encode });
    }
}
