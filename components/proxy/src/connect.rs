//! Opening a connection to an endpoint: encrypted whenever both ends can, in plaintext, and saying why, when not.

mod peers;

use std::{fmt, io, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{HandshakeError, HandshakeFailure, Identity, Loaded, Store, UnixTime};
use conduit_net::{Io, Net};
use conduit_runtime::Seed;
use futures::{StreamExt, future::BoxFuture, stream::FuturesUnordered};
use tokio::time::{Instant, timeout};
use tokio_util::sync::CancellationToken;

use self::peers::Peers;
use crate::{
    config::Timeouts,
    discover::Endpoint,
    metrics::{Labels, Metrics},
    session::{Direction, Failure, PeerId, Sessions, TlsStatus, Why},
    stream::Stream,
};

/// When to dial again beside a connection that got no answer. The kernel sends a lost SYN again after 1, 2, 4 s; a link that
/// is back after such a pause has begun would be found by every new connection before the one that all requests wait for. No
/// multiple of a second, so that no two attempts get through at once.
const DIAL_AGAIN: Duration = Duration::from_millis(1_300);

type Dialling<'a> = BoxFuture<'a, io::Result<Io>>;

/// Where to connect to.
#[derive(Debug, Clone)]
pub(crate) enum Remote {
    /// What the destination service told.
    Endpoint(Arc<Endpoint>),
    /// Where the connection was going, because there is nothing better.
    Address {
        /// The original destination.
        addr: SocketAddr,
        /// Of the service behind it, if that much is known.
        labels: Labels,
        /// Why nothing better is known.
        why: Why,
    },
}

impl Remote {
    /// The address to dial.
    pub(crate) fn addr(&self) -> SocketAddr {
        match self {
            Self::Endpoint(endpoint) => endpoint.addr,
            Self::Address { addr, .. } => *addr,
        }
    }

    /// A connection to it was opened.
    pub(crate) fn connected(&self) {
        if let Self::Endpoint(endpoint) = self {
            endpoint.load.connected();
        }
    }

    /// The labels of the destination.
    pub(crate) fn labels(&self) -> &Labels {
        match self {
            Self::Endpoint(endpoint) => &endpoint.labels,
            Self::Address { labels, .. } => labels,
        }
    }
}

/// How a connection is to be opened. Part of a pool's key, so that a request never travels in plaintext over a connection
/// that is left from worse times.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) enum Security {
    /// TLS to a peer that must prove this name.
    Mutual(Identity),
    /// In plaintext.
    Plain(Why),
}

impl Security {
    /// Whether the peer has to prove who it is, or is the pod itself.
    pub(crate) fn is_proof(&self) -> bool {
        matches!(self, Self::Mutual(_) | Self::Plain(Why::Loopback))
    }

    /// What a connection turned out to be.
    pub(crate) fn of(tls: &TlsStatus) -> Self {
        match tls {
            TlsStatus::Mutual { server: PeerId::Verified(identity), .. } => Self::Mutual(identity.clone()),
            // A server that proved nothing is not one that we do TLS with.
            TlsStatus::Mutual { server: PeerId::Unauthenticated, .. } => Self::Plain(Why::NoIdentity),
            TlsStatus::Plain(why) => Self::Plain(*why),
        }
    }
}

/// An open connection.
#[derive(Debug)]
pub(crate) struct Connected {
    /// Its record is attached.
    pub(crate) stream: Stream,
    /// What it is, which is not always what was asked for.
    pub(crate) tls: TlsStatus,
    /// When the first of the two certificates ends.
    pub(crate) not_after: Option<UnixTime>,
}

/// Why there is no connection. Nothing of the application was sent: another endpoint may be tried.
#[derive(Debug)]
pub(crate) enum ConnectError {
    /// Nobody listens there.
    Refused,
    /// No answer in time.
    Timeout,
    /// Anything else that the operating system says.
    Unreachable(io::Error),
}

impl ConnectError {
    /// The same as the end of a request.
    pub(crate) fn failure(&self) -> Failure {
        match self {
            Self::Refused => Failure::Refused,
            Self::Timeout => Failure::ConnectTimeout,
            Self::Unreachable(_) => Failure::Unreachable,
        }
    }
}

impl fmt::Display for ConnectError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Refused => f.write_str("connection refused"),
            Self::Timeout => f.write_str("the connection did not open in time"),
            Self::Unreachable(error) => error.fmt(f),
        }
    }
}

impl From<io::Error> for ConnectError {
    fn from(error: io::Error) -> Self {
        match error.kind() {
            io::ErrorKind::ConnectionRefused => Self::Refused,
            io::ErrorKind::TimedOut => Self::Timeout,
            _ => Self::Unreachable(error),
        }
    }
}

/// Opens connections. Cheap to clone.
#[derive(Clone)]
pub(crate) struct Connector {
    inner: Arc<Inner>,
}

struct Inner {
    net: Net,
    store: Store,
    sessions: Sessions,
    metrics: Metrics,
    timeouts: Timeouts,
    peers: Peers,
    seed: Seed,
    /// Ends the probes with the proxy.
    end: CancellationToken,
}

impl Connector {
    /// A connector whose background work ends with `end`.
    pub(crate) fn new(
        net: Net,
        store: Store,
        (sessions, metrics): (Sessions, Metrics),
        timeouts: Timeouts,
        seed: &Seed,
        end: CancellationToken,
    ) -> Self {
        let seed = seed.fork("connect");
        let peers = Peers::default();
        Self { inner: Arc::new(Inner { net, store, sessions, metrics, timeouts, peers, seed, end }) }
    }

    /// How a connection to `remote` is to be opened at this moment, on behalf of the pod at `own`.
    pub(crate) fn security(&self, remote: &Remote, own: IpAddr) -> Security {
        if remote.addr().ip().to_canonical() == own {
            return Security::Plain(Why::Loopback);
        }
        if let Err(unusable) = self.inner.store.current() {
            return Security::Plain(unusable.into());
        }
        match remote {
            Remote::Address { why, .. } => Security::Plain(*why),
            Remote::Endpoint(endpoint) => match &endpoint.identity {
                None => Security::Plain(Why::NoIdentity),
                Some(identity) => match self.inner.peers.failure(endpoint, identity) {
                    Some(failure) => Security::Plain(Why::HandshakeFailed(failure)),
                    None => Security::Mutual(identity.clone()),
                },
            },
        }
    }

    /// Opens a connection to `remote`. When TLS fails before any byte of the application was sent, a second connection
    /// is opened in plaintext, and the peer is remembered until a probe succeeds. Each is waited for as long as `patience`
    /// says, and never longer than configured.
    ///
    /// # Errors
    /// TCP itself failed.
    pub(crate) async fn open(
        &self,
        remote: &Remote,
        security: &Security,
        patience: Option<Duration>,
    ) -> Result<Connected, ConnectError> {
        let configured = self.inner.timeouts.outbound_connect;
        let within = patience.map_or(configured, |patience| patience.min(configured));
        let why = match (security, remote) {
            (Security::Plain(why), _) => *why,
            (Security::Mutual(_), Remote::Address { why, .. }) => *why,
            (Security::Mutual(identity), Remote::Endpoint(endpoint)) => {
                match self.open_mutual(endpoint, identity, within).await? {
                    Ok(connected) => return Ok(connected),
                    Err(why) => why,
                }
            }
        };
        let io = self.dial(remote.addr(), within).await?;
        Ok(self.connected(Stream::plain(io), remote.addr(), remote.labels(), (TlsStatus::Plain(why), None)))
    }

    /// Opens a connection to the own application.
    ///
    /// # Errors
    /// TCP itself failed.
    pub(crate) async fn dial_application(&self, addr: SocketAddr) -> Result<Stream, ConnectError> {
        let io = self.dial(addr, self.inner.timeouts.inbound_connect).await?;
        let tls = TlsStatus::Plain(Why::Loopback);
        let mut stream = Stream::plain(io);
        stream.record(self.inner.sessions.dialed(Direction::Inbound, addr, &Labels::default(), &tls));
        Ok(stream)
    }

    /// The inner error is the reason to go on in plaintext.
    async fn open_mutual(
        &self,
        endpoint: &Arc<Endpoint>,
        identity: &Identity,
        within: Duration,
    ) -> Result<Result<Connected, Why>, ConnectError> {
        // Asked again: they may have expired since the decision.
        let loaded = match self.inner.store.current() {
            Ok(loaded) => loaded,
            Err(unusable) => return Ok(Err(unusable.into())),
        };
        let io = self.dial(endpoint.addr, within).await?;
        match self.handshake(&loaded, io, identity).await {
            Ok((stream, not_after)) => {
                let own = loaded.credentials.identity().clone();
                let (client, server) = (PeerId::Verified(own), PeerId::Verified(identity.clone()));
                let tls = (TlsStatus::Mutual { client, server }, Some(not_after));
                Ok(Ok(self.connected(stream, endpoint.addr, &endpoint.labels, tls)))
            }
            Err(error) => {
                tracing::debug!(%error, endpoint = %endpoint.addr, %identity, "going on in plaintext");
                self.inner.metrics.tls.fallback(error.reason());
                self.remember(endpoint, identity, error.reason());
                Ok(Err(Why::HandshakeFailed(error.reason())))
            }
        }
    }

    async fn handshake(
        &self,
        loaded: &Loaded,
        io: Io,
        identity: &Identity,
    ) -> Result<(Stream, UnixTime), HandshakeError> {
        let started = Instant::now();
        let result = timeout(self.inner.timeouts.handshake, conduit_identity::connect(loaded, io, identity))
            .await
            .unwrap_or_else(|_| Err(HandshakeError::timeout()));
        let verdict = result.as_ref().map(|_| ()).map_err(HandshakeError::reason);
        self.inner.metrics.tls.handshake(Direction::Outbound, verdict, started.elapsed());
        let (tls, peer) = result?;
        Ok((Stream::opened(tls), peer.not_after.min(loaded.credentials.not_after())))
    }

    async fn dial(&self, addr: SocketAddr, within: Duration) -> Result<Io, ConnectError> {
        let dialled = timeout(within, async {
            let mut first = self.inner.net.connect(addr);
            match timeout(DIAL_AGAIN, &mut first).await {
                Ok(io) => io,
                Err(_) => Box::pin(self.dial_beside(first, addr)).await,
            }
        });
        match dialled.await {
            Ok(io) => Ok(io?),
            Err(_) => Err(ConnectError::Timeout),
        }
    }

    /// Dials again and again beside the attempts that got no answer so far; the first that ends decides. The caller owns the
    /// deadline, which bounds their number.
    async fn dial_beside(&self, first: Dialling<'_>, addr: SocketAddr) -> io::Result<Io> {
        let mut attempts = FuturesUnordered::from_iter([first, self.inner.net.connect(addr)]);
        loop {
            match timeout(DIAL_AGAIN, attempts.next()).await {
                Ok(Some(io)) => return io,
                Ok(None) | Err(_) => attempts.push(self.inner.net.connect(addr)),
            }
        }
    }

    fn connected(
        &self,
        mut stream: Stream,
        addr: SocketAddr,
        labels: &Labels,
        (tls, not_after): (TlsStatus, Option<UnixTime>),
    ) -> Connected {
        stream.record(self.inner.sessions.dialed(Direction::Outbound, addr, labels, &tls));
        Connected { stream, tls, not_after }
    }

    /// Remembers that TLS to a peer failed, and has it probed in the background until it works again.
    fn remember(&self, endpoint: &Arc<Endpoint>, identity: &Identity, failure: HandshakeFailure) {
        if let Some(probe) = self.inner.peers.remember(endpoint, identity, failure) {
            let connector = self.clone();
            tokio::spawn(async move {
                let end = connector.inner.end.clone();
                end.run_until_cancelled(connector.probe(probe)).await;
            });
        }
    }

    /// Tries TLS to a peer that failed, on connections that carry no byte of the application.
    async fn probe(&self, mut probe: peers::Probe) {
        let mut news = self.inner.store.subscribe();
        let mut backoff = peers::backoff(&self.inner.seed.fork(&probe.addr().to_string()));
        loop {
            tokio::select! {
                () = tokio::time::sleep(backoff.next_delay()) => {}
                () = probe.changed() => backoff.reset(),
                Ok(()) = news.changed() => backoff.reset(),
            }
            if !self.inner.peers.is_wanted(&probe) {
                return;
            }
            let Ok(loaded) = self.inner.store.current() else { continue };
            // A peer that refuses TCP, too, is no news about its TLS.
            let Ok(io) = self.dial(probe.addr(), self.inner.timeouts.outbound_connect).await else {
                continue;
            };
            match self.handshake(&loaded, io, probe.identity()).await {
                Ok(_) => return self.inner.peers.recovered(&probe),
                Err(error) => self.inner.peers.failed_again(&probe, error.reason()),
            }
        }
    }
}

impl fmt::Debug for Connector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Connector").field("peers", &self.inner.peers).finish_non_exhaustive()
    }
}
