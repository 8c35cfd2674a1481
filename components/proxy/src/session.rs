//! What happened to a connection, and to each request on it: one value each, which metrics, logs and tap all read, so
//! that they cannot disagree.
//!
//! A [`Session`] begins when a connection is accepted. A [`Transport`] is the record of one connection, accepted or
//! opened, from the moment its [`TlsStatus`] is known to its close. An [`Exchange`] is the record of one request; it
//! ends exactly once, at the latest when it is dropped.
//!
//! - `session/transport.rs`, `session/exchange.rs`: the two records, and what each counts and offers to the taps
//! - `session/routes.rs`: the handles a connection's requests count on

mod exchange;
mod routes;
mod transport;

use std::{fmt, net::SocketAddr, sync::Arc};

use conduit_identity::{HandshakeFailure, Identity, Unusable};
use conduit_net::PeerAddr;
use http::request;
use tokio::time::Instant;

pub(crate) use exchange::Exchange;
use transport::Mute;
pub(crate) use transport::Transport;

use crate::{
    metrics::{Labels, Metrics, TransportSeries},
    tap::Tap,
};
use routes::Routes;

/// Which way a connection crosses the pod's border.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Direction {
    /// To the application of this pod.
    Inbound,
    /// From the application of this pod.
    Outbound,
}

impl Direction {
    /// The value of the `direction` label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }
}

/// Which end of the proxy a connection is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Side {
    /// Accepted: its peer is the client.
    Source,
    /// Opened: its peer is the server.
    Destination,
}

impl Side {
    /// The value of the `peer` label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Source => "src",
            Self::Destination => "dst",
        }
    }
}

/// Whether the bytes of one connection are encrypted, and if not, why. Taken from the connection that carried them,
/// never from what was intended.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum TlsStatus {
    /// TLS between two Conduit proxies.
    Mutual {
        /// Who opened the connection.
        client: PeerId,
        /// Who accepted it.
        server: PeerId,
    },
    /// No TLS of ours.
    Plain(Why),
}

impl TlsStatus {
    /// Whether the peer has proven who it is, or is the pod itself.
    pub(crate) const fn is_proof(&self) -> bool {
        matches!(self, Self::Mutual { .. } | Self::Plain(Why::Loopback))
    }

    /// The value of the `tls` label.
    pub(crate) const fn label(&self) -> &'static str {
        match self {
            Self::Mutual { .. } => "true",
            Self::Plain(why) => why.label(),
        }
    }

    /// The sub-reason of `handshake_failed`.
    pub(crate) const fn reason(&self) -> Option<&'static str> {
        match self {
            Self::Plain(Why::HandshakeFailed(failure)) => Some(failure.label()),
            _ => None,
        }
    }

    /// The value of the `client_id` label.
    pub(crate) fn client_id(&self) -> Option<&str> {
        match self {
            Self::Mutual { client, .. } => Some(client.as_str()),
            Self::Plain(_) => None,
        }
    }

    /// The value of the `server_id` label.
    pub(crate) fn server_id(&self) -> Option<&str> {
        match self {
            Self::Mutual { server, .. } => Some(server.as_str()),
            Self::Plain(_) => None,
        }
    }
}

/// What one end of a TLS connection proved to be.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum PeerId {
    /// Its certificate verified at the handshake.
    Verified(Identity),
    /// It sent no certificate, or one that does not verify.
    Unauthenticated,
}

impl PeerId {
    /// The identity, or the word that stands for none.
    pub(crate) fn as_str(&self) -> &str {
        match self {
            Self::Verified(identity) => identity.as_str(),
            Self::Unauthenticated => "unauthenticated",
        }
    }
}

/// Why a connection carries no TLS of ours.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Why {
    /// TLS is off for this pod.
    Disabled,
    /// Our credentials are not there.
    NoConfig,
    /// Our credentials are unreadable, mismatched, or for a wrong root or name.
    BadCredentials,
    /// Our certificate is past.
    Expired,
    /// Our certificate is not yet valid.
    ClockSkew,
    /// The destination service has not answered.
    NoDiscovery,
    /// The destination service knows no identity for the endpoint.
    NoIdentity,
    /// TLS was tried, or lately tried, and the connection fell back.
    HandshakeFailed(HandshakeFailure),
    /// Inbound: the peer sent no TLS for us.
    NoProxyTls,
    /// The application's own TLS, passed through.
    AppTls,
    /// The application to its own outbound proxy.
    InternalTraffic,
    /// The proxy to its own application, and calls of a pod to itself.
    Loopback,
    /// A probe of the kubelet: a request that says so, or a connection on which nobody said a word.
    KubeletProbe,
}

impl Why {
    /// The value of the `tls` label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::NoConfig => "no_config",
            Self::BadCredentials => "bad_credentials",
            Self::Expired => "expired",
            Self::ClockSkew => "clock_skew",
            Self::NoDiscovery => "no_discovery",
            Self::NoIdentity => "no_identity",
            Self::HandshakeFailed(_) => "handshake_failed",
            Self::NoProxyTls => "no_proxy_tls",
            Self::AppTls => "app_tls",
            Self::InternalTraffic => "internal_traffic",
            Self::Loopback => "loopback",
            Self::KubeletProbe => "kubelet_probe",
        }
    }
}

impl From<Unusable> for Why {
    fn from(unusable: Unusable) -> Self {
        match unusable {
            Unusable::Disabled => Self::Disabled,
            Unusable::NoConfig => Self::NoConfig,
            Unusable::BadCredentials => Self::BadCredentials,
            Unusable::Expired => Self::Expired,
            Unusable::ClockSkew => Self::ClockSkew,
        }
    }
}

/// Makes sessions; what they record goes to the metrics and the taps of the whole proxy. Cheap to clone.
#[derive(Debug, Clone)]
pub(crate) struct Sessions {
    recorders: Arc<Recorders>,
}

#[derive(Debug)]
struct Recorders {
    metrics: Metrics,
    tap: Tap,
}

impl Sessions {
    /// Sessions that record to `metrics` and `tap`.
    pub(crate) fn new(metrics: Metrics, tap: Tap) -> Self {
        Self { recorders: Arc::new(Recorders { metrics, tap }) }
    }

    /// A connection was accepted from `peer` that was going to `target`.
    pub(crate) fn accepted(&self, direction: Direction, peer: PeerAddr, target: SocketAddr) -> Session {
        Session {
            inner: Arc::new(Inner {
                sessions: self.clone(),
                direction,
                peer,
                target,
                accepted_at: Instant::now(),
                routes: Routes::default(),
            }),
        }
    }

    /// A connection was opened to `target`.
    pub(crate) fn dialed(
        &self,
        direction: Direction,
        target: SocketAddr,
        labels: &Labels,
        tls: &TlsStatus,
    ) -> Transport {
        // Series by address would be as many as pods ever were; the labels name the pod where it is known.
        let _ = target;
        let series = self.recorders.metrics.transport(direction, Side::Destination, labels, tls);
        Transport::open(Instant::now(), series)
    }
}

/// One accepted connection. Cloning shares.
#[derive(Debug, Clone)]
pub(crate) struct Session {
    inner: Arc<Inner>,
}

#[derive(Debug)]
struct Inner {
    sessions: Sessions,
    direction: Direction,
    peer: PeerAddr,
    target: SocketAddr,
    accepted_at: Instant,
    routes: Routes,
}

impl Session {
    /// Which way it crosses the pod's border.
    pub(crate) fn direction(&self) -> Direction {
        self.inner.direction
    }

    /// Who opened it.
    pub(crate) fn peer(&self) -> PeerAddr {
        self.inner.peer
    }

    /// Where it was going.
    pub(crate) fn target(&self) -> SocketAddr {
        self.inner.target
    }

    /// The status of the accepted connection is known: it counts as open from here. Called once.
    pub(crate) fn opened(&self, tls: TlsStatus) -> Transport {
        Transport::open(self.inner.accepted_at, self.series(&tls))
    }

    /// As [`Session::opened`], of a connection on which nobody has said a word. If nobody ever does, it is a probe: that is
    /// what a `tcpSocket` probe looks like, and nobody's bytes were in the clear.
    pub(crate) fn opened_mute(&self, tls: TlsStatus) -> Transport {
        let series = self.series(&TlsStatus::Plain(Why::KubeletProbe));
        Transport::mute(self.inner.accepted_at, series, Mute { session: self.clone(), tls })
    }

    /// Where the accepted connection counts.
    fn series(&self, tls: &TlsStatus) -> Arc<TransportSeries> {
        self.recorders().metrics.transport(self.inner.direction, Side::Source, &Labels::default(), tls)
    }

    /// A request arrived. `source` is the status of the accepted connection that carried it.
    pub(crate) fn request(&self, head: &request::Parts, source: &TlsStatus) -> Exchange {
        Exchange::begin(self.clone(), head, source)
    }

    fn recorders(&self) -> &Recorders {
        &self.inner.sessions.recorders
    }
}

/// How a request ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum End {
    /// The response arrived whole.
    Complete,
    /// The server reset the stream.
    Reset(h2::Reason),
    /// There was no response, or only the beginning of one.
    Failed(Failure),
    /// The client left first.
    Canceled,
}

/// Why a request came to nothing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Failure {
    /// Nobody listens at the endpoint.
    Refused,
    /// The connection did not open in time.
    ConnectTimeout,
    /// The endpoint cannot be reached for another reason.
    Unreachable,
    /// The service has no endpoints, or the name no address.
    NoEndpoints,
    /// The connection ended before the response did.
    Closed,
    /// The server's answer is no HTTP.
    Protocol,
    /// The proxy itself declined: a limit, or a request that cannot be forwarded.
    Declined,
}

impl Failure {
    /// The value of a metric's label.
    pub(crate) const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::ConnectTimeout => "connect_timeout",
            Self::Unreachable => "unreachable",
            Self::NoEndpoints => "no_endpoints",
            Self::Closed => "closed",
            Self::Protocol => "protocol",
            Self::Declined => "declined",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

#[cfg(test)]
mod reasons;
