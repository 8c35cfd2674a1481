//! The metrics of connections, requests, TLS, discovery and tap, as v0.5.0 named them where it had them.
//!
//! - `metrics/labels.rs`: label sets, and the caps on values that others choose
//! - `metrics/table.rs`: series by label set, evicted when idle
//! - `metrics/requests.rs`, `metrics/transports.rs`, `metrics/tls.rs`, `metrics/control.rs`, `metrics/process.rs`: the
//!   families
//! - `metrics/histogram.rs`, `metrics/counters.rs`: kinds of metric without locks
//!
//! Whoever counts resolves a handle once and keeps it; counting is then a few relaxed atomics, without a lock and
//! without text. What a session counts is decided in `session.rs`; here is only where it is kept.

mod control;
mod counters;
mod histogram;
mod labels;
mod process;
#[cfg(test)]
mod reference;
mod requests;
mod table;
mod tls;
mod transports;

use std::{sync::Arc, time::Duration};

use conduit_identity::{Store, UnixTime};
use conduit_runtime::metrics::Registry;
use tokio::time::Instant;

pub(crate) use control::{Discovery, Taps};
pub(crate) use labels::Labels;
pub(crate) use requests::{Class, Route};
pub(crate) use tls::Tls;
pub(crate) use transports::TransportSeries;

use crate::session::{Direction, Side, TlsStatus};
use counters::Counters;
use labels::{Cap, OTHER, RouteLabels, TlsLabels, TransportLabels};
use requests::Routes;
use transports::Transports;

/// Authorities told apart at a time. Clients choose them, peers' among others.
const MAX_AUTHORITIES: usize = 512;
/// Identities told apart at a time: peers that are deployed anew bring new names for years.
const MAX_IDENTITIES: usize = 512;
/// Octets of an authority: a DNS name of 253 and a port. What is longer is nobody's name.
const MAX_AUTHORITY: usize = 260;
/// Routes, and kinds of connections, at a time. Beyond, what would make a new one loses its own labels.
const MAX_SERIES: usize = 10_000;

/// What sessions record to, and everybody else who counts. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Metrics {
    /// What TLS does.
    pub(crate) tls: Tls,
    /// What discovery does.
    pub(crate) discovery: Discovery,
    /// What tap does.
    pub(crate) tap: Taps,
    malformed: Counters<4>,
    greetings: Counters<2>,
    tables: Arc<Tables>,
}

#[derive(Debug)]
struct Tables {
    routes: Routes,
    transports: Transports,
    authorities: Cap,
    identities: Cap,
}

/// Where input came from that made no sense.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Malformed {
    /// A ClientHello.
    Hello,
    /// An HTTP message.
    Http,
    /// A message of the destination service.
    Destination,
    /// A tap's request.
    Tap,
}

impl Malformed {
    const ALL: [Self; 4] = [Self::Hello, Self::Http, Self::Destination, Self::Tap];

    const fn label(self) -> &'static str {
        match self {
            Self::Hello => "hello",
            Self::Http => "http",
            Self::Destination => "destination",
            Self::Tap => "tap",
        }
    }
}

impl Metrics {
    /// Registers everything; series that are idle for `retain` are dropped when the registry is read.
    pub(crate) fn register(registry: &Registry, retain: Duration) -> Self {
        let tables = Arc::new(Tables {
            routes: Routes::default(),
            transports: Transports::default(),
            authorities: Cap::new(MAX_AUTHORITIES),
            identities: Cap::new(MAX_IDENTITIES),
        });
        requests::register(registry, &tables.routes);
        transports::register(registry, &tables.transports);
        let metrics = Self {
            tls: Tls::register(registry),
            discovery: Discovery::register(registry),
            tap: Taps::register(registry),
            malformed: Counters::new("source", Malformed::ALL.map(Malformed::label)),
            greetings: Counters::new("known_peer", ["false", "true"]),
            tables: Arc::clone(&tables),
        };
        registry.register("malformed_input", "Input that made no sense.", metrics.malformed.clone());
        let help = "First bytes of servers let out in plaintext after their hold, by whether the peer had done TLS before.";
        registry.register("greeting_released", help, metrics.greetings.clone());
        registry.before_encode(move || tables.evict(Instant::now(), retain));
        metrics
    }

    /// Shows the credentials in `store`.
    pub(crate) fn show_credentials(&self, registry: &Registry, store: &Store) {
        tls::register_credentials(registry, store);
    }

    /// Shows what the operating system knows of this process, which started at `started`.
    pub(crate) fn show_process(&self, registry: &Registry, started: UnixTime) {
        process::register(registry, started);
    }

    /// Input made no sense.
    pub(crate) fn malformed(&self, source: Malformed) {
        self.malformed.inc(source.label());
    }

    /// A server's greeting was let out in plaintext after its hold; `known_peer` when the client had completed a
    /// handshake lately, so that it was held for long.
    pub(crate) fn greeting_released(&self, known_peer: bool) {
        self.greetings.inc(if known_peer { "true" } else { "false" });
    }

    /// The handle for requests; `tls` is of the connection that carries them between pods.
    pub(crate) fn route(
        &self,
        direction: Direction,
        authority: &[u8],
        dst: &Labels,
        tls: &TlsStatus,
    ) -> Arc<Route> {
        self.tables.route(direction, authority, dst, tls)
    }

    /// The handle for connections.
    pub(crate) fn transport(
        &self,
        direction: Direction,
        side: Side,
        dst: &Labels,
        tls: &TlsStatus,
    ) -> Arc<TransportSeries> {
        self.tables.transport(direction, side, dst, tls)
    }
}

impl Tables {
    fn route(&self, direction: Direction, authority: &[u8], dst: &Labels, tls: &TlsStatus) -> Arc<Route> {
        let tls = TlsLabels::of(tls, &self.identities);
        let labels = RouteLabels { authority: self.authority(authority), direction, dst: dst.clone(), tls };
        if self.routes.len() < MAX_SERIES {
            return self.routes.get(&labels, Route::default);
        }
        let labels = RouteLabels { authority: OTHER.into(), dst: Labels::default(), ..labels };
        self.routes.get(&labels, Route::default)
    }

    fn transport(
        &self,
        direction: Direction,
        side: Side,
        dst: &Labels,
        tls: &TlsStatus,
    ) -> Arc<TransportSeries> {
        let full = self.transports.len() >= MAX_SERIES;
        let dst = if full { Labels::default() } else { dst.clone() };
        let labels = TransportLabels { direction, side, dst, tls: TlsLabels::of(tls, &self.identities) };
        self.transports.get(&labels, TransportSeries::default)
    }

    fn authority(&self, authority: &[u8]) -> Arc<str> {
        match std::str::from_utf8(authority) {
            Ok(text) if text.len() <= MAX_AUTHORITY => self.authorities.admit(&text.to_ascii_lowercase()),
            _ => OTHER.into(),
        }
    }

    fn evict(&self, now: Instant, retain: Duration) {
        self.routes.evict(now, retain);
        self.transports.evict(now, retain);
        self.authorities.forget_unused();
        self.identities.forget_unused();
    }
}

#[cfg(test)]
mod tests;
