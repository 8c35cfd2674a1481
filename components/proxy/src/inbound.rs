//! Connections to the application of this pod.
//!
//! A ClientHello for our own name is ours: it is terminated, or refused when we hold no usable credentials, and never
//! handed to the application. Everything else passes byte for byte.

mod known;
mod tied;

use std::{
    collections::BTreeSet,
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use bytes::BytesMut;
use conduit_identity::{ClientPeer, HandshakeError, Identity, Loaded, Store, UnixTime, Unusable};
use conduit_net::Accepted;
use conduit_runtime::drain;
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};

use self::known::KnownPeers;
use crate::{
    accept,
    config::Config,
    connect::{ConnectError, Connector},
    detect::{self, ClientHello, Protocol},
    expiry::Expiry,
    http::{self, Version},
    metrics::{Malformed, Metrics},
    opening::{Heard, Opening, Patience},
    session::{Direction, PeerId, Session, Sessions, TlsStatus, Why},
    stream::Stream,
    tcp,
};

/// What a refused client may still send before we stop reading it.
const DRAIN_BYTES: u64 = 64 << 10;

/// What all inbound connections share.
pub(crate) struct Inbound {
    pub(crate) listener: SocketAddr,
    pub(crate) config: Arc<Config>,
    pub(crate) store: Store,
    pub(crate) expiry: Expiry,
    pub(crate) connector: Connector,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: Metrics,
    pub(crate) known: KnownPeers,
    /// Whether the proxy is about to stop, while it still goes on as before: see [`Inbound::leave`].
    pub(crate) leaving: Arc<AtomicBool>,
}

/// What the first bytes are for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum First {
    /// TLS for this proxy.
    Ours,
    /// TLS for the application.
    Theirs,
    /// No TLS.
    Clear,
}

/// A connection past TLS, ours or none.
struct Begun {
    opening: Opening,
    tls: TlsStatus,
    /// When the first of the two certificates ends.
    not_after: Option<UnixTime>,
}

/// What a connection carries within its TLS, if any.
enum Carries {
    Http(Version),
    Opaque,
}

/// Serves one connection to its end. `drain` tells it to end as soon as nothing is under way.
pub(crate) async fn serve(inbound: Arc<Inbound>, accepted: Accepted, drain: drain::Watch) {
    let Some(target) = inbound.target(&accepted) else {
        return accept::refuse(accepted, Direction::Inbound.label(), "it was not redirected to this proxy");
    };
    let session = inbound.sessions.accepted(Direction::Inbound, accepted.peer, target);
    // Boxed, phase by phase, and so is what one leaves to the next: the connection holds no room for what is over, and a
    // handshake is large.
    let Some((begun, carries)) = Box::pin(inbound.begin(&session, accepted)).await else { return };
    match carries {
        Carries::Http(version) => Box::pin(inbound.http(session, begun, version, drain)).await,
        Carries::Opaque => Box::pin(inbound.opaque(session, begun)).await,
    }
}

impl Inbound {
    /// From now on every answer is the last of its HTTP/1 connection. One that is closed while it is idle may be closed in the
    /// face of a request, which nobody may say twice; a client that was told so has no such connection when the proxy stops.
    pub(crate) fn leave(&self) {
        self.leaving.store(true, Relaxed);
    }

    /// Where the application listens for this connection.
    fn target(&self, accepted: &Accepted) -> Option<SocketAddr> {
        let original = accepted.original_dst.map(SocketAddr::from);
        original.filter(|target| !accept::is_loop(*target, accepted, self.listener)).or(self.config.forward)
    }

    fn patience(&self) -> Patience {
        Patience { silence: self.config.timeouts.silence, detect: self.config.timeouts.detect }
    }

    /// A peer gives its handshake up after its own deadline, and then closes. Waiting for longer than that tells its
    /// ClientHello, which the application must not see, from an application's that is only slow.
    fn patience_with_hello(&self) -> Patience {
        Patience { detect: 2 * self.config.timeouts.handshake, ..self.patience() }
    }

    /// Finds out what the connection is. None: it is over.
    async fn begin(&self, session: &Session, accepted: Accepted) -> Option<(Box<Begun>, Carries)> {
        let opening = Opening::new(Stream::plain(accepted.io));
        let mut begun = Box::new(Box::pin(self.secure(session, opening)).await?);
        let record = match begun.is_mute() {
            true => session.opened_mute(begun.tls.clone()),
            false => session.opened(begun.tls.clone()),
        };
        begun.opening.client.record(record);
        match self.protocol(session, &mut begun).await {
            Heard::Words(Protocol::Http1) => Some((begun, Carries::Http(Version::Http1))),
            Heard::Words(Protocol::Http2) => Some((begun, Carries::Http(Version::Http2))),
            Heard::Words(_) | Heard::Mumbling | Heard::CutOff | Heard::OnlyListens | Heard::ServerFirst => {
                Some((begun, Carries::Opaque))
            }
            Heard::Nothing => None,
            Heard::Unreachable(error) => {
                unreachable(session, &error);
                begun.opening.client.reset();
                None
            }
        }
    }

    /// Finds out whether the connection is TLS for us, and terminates it if so. None: it is over.
    async fn secure(&self, session: &Session, mut opening: Opening) -> Option<Begun> {
        let judge = |said: &[u8], _| first(said, self.store.identity());
        let dial = || self.connector.dial_application(session.target());
        let heard = opening.hear(judge, self.patience_with_hello(), dial).await;
        self.note_malformed(&heard, &opening.said);
        let first = match heard {
            Heard::Words(first) => first,
            Heard::Mumbling => mumbled(&opening.said),
            // No ClientHello will come.
            Heard::OnlyListens => First::Clear,
            Heard::ServerFirst => self.hold(session, &mut opening).await?,
            // Perhaps a ClientHello of a peer that gave up: it is not the application's to see, nor of use to it.
            Heard::CutOff | Heard::Nothing => return None,
            Heard::Unreachable(error) => {
                unreachable(session, &error);
                opening.client.reset();
                return None;
            }
        };
        let why = match first {
            First::Ours => return self.terminate(session, opening).await,
            First::Theirs => Why::AppTls,
            First::Clear => self.store.current().map_or_else(Why::from, |_| Why::NoProxyTls),
        };
        Some(Begun { opening, tls: TlsStatus::Plain(why), not_after: None })
    }

    /// Counts what began like a ClientHello and did not become one.
    fn note_malformed(&self, heard: &Heard<First, ConnectError>, said: &[u8]) {
        let is_malformed = match heard {
            Heard::Words(First::Clear) => detect::begins_like_hello(said),
            Heard::Mumbling | Heard::CutOff => !said.is_empty(),
            _ => false,
        };
        if is_malformed {
            self.metrics.malformed(Malformed::Hello);
        }
    }

    /// The server spoke first. Its words must not go out in plaintext to a peer whose ClientHello is only late, so they
    /// are held back: briefly, or as long as a handshake may take when the peer has lately done one.
    async fn hold(&self, session: &Session, opening: &mut Opening) -> Option<First> {
        if opening.answered.is_empty() || self.store.current().is_err() {
            // It ended without a word, or no TLS is to be had: there is nothing to hold back for.
            return Some(First::Clear);
        }
        let known = self.known.contains(session.peer().ip());
        let hold = if known { self.config.timeouts.handshake } else { self.config.timeouts.hold };
        if !opening.hear_late(hold).await {
            self.metrics.greeting_released(known);
            return Some(First::Clear);
        }
        let judge = |said: &[u8], _| first(said, self.store.identity());
        let no_dial = std::future::pending::<Result<Stream, ConnectError>>;
        match opening.hear(judge, self.patience_with_hello(), no_dial).await {
            Heard::Words(first) => Some(first),
            Heard::Mumbling => Some(mumbled(&opening.said)),
            Heard::OnlyListens => Some(First::Clear),
            Heard::CutOff | Heard::Nothing | Heard::ServerFirst | Heard::Unreachable(_) => None,
        }
    }

    /// Terminates TLS, or refuses it when there is nothing to do it with.
    async fn terminate(&self, session: &Session, opening: Opening) -> Option<Begun> {
        let Opening { client, said, server, answered } = opening;
        let loaded = match self.store.current() {
            Ok(loaded) => loaded,
            Err(unusable) => {
                self.refuse(session, client, said, unusable).await;
                return None;
            }
        };
        let (client, peer) = match self.handshake(&loaded, client, said).await {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, peer = %session.peer(), "an inbound handshake failed");
                return None;
            }
        };
        self.known.insert(session.peer().ip());
        let own = &loaded.credentials;
        let (client_id, not_after) = match peer {
            ClientPeer::Verified { identity, not_after } => (PeerId::Verified(identity), not_after),
            ClientPeer::Unauthenticated => (PeerId::Unauthenticated, own.not_after()),
        };
        let tls = TlsStatus::Mutual { client: client_id, server: PeerId::Verified(own.identity().clone()) };
        let opening = Opening { client, said: BytesMut::new(), server, answered };
        Some(Begun { opening, tls, not_after: Some(not_after.min(own.not_after())) })
    }

    async fn handshake(
        &self,
        loaded: &Loaded,
        mut client: Stream,
        said: BytesMut,
    ) -> Result<(Stream, ClientPeer), HandshakeError> {
        client.unread(said.freeze());
        let started = Instant::now();
        let result = match client.into_plain() {
            Some(io) => timeout(self.config.timeouts.handshake, conduit_identity::accept(loaded, io))
                .await
                .unwrap_or_else(|_| Err(HandshakeError::timeout())),
            None => Err(HandshakeError::timeout()),
        };
        let verdict = result.as_ref().map(|_| ()).map_err(HandshakeError::reason);
        self.metrics.tls.handshake(Direction::Inbound, verdict, started.elapsed());
        result.map(|(tls, peer)| (Stream::accepted(tls), peer))
    }

    /// Tells the peer at once that there is no TLS to be had, so that it falls back without delay. What it has sent is
    /// read to the end: closing with unread bytes resets the connection, and a reset overtakes the alert.
    async fn refuse(&self, session: &Session, mut client: Stream, said: BytesMut, unusable: Unusable) {
        self.metrics.tls.refused(unusable);
        tracing::debug!(peer = %session.peer(), reason = unusable.label(), "refusing TLS");
        drop(said);
        let goodbye = async {
            client.write_all(conduit_identity::refuse_alert()).await?;
            client.shutdown().await?;
            tokio::io::copy(&mut client.take(DRAIN_BYTES), &mut tokio::io::sink()).await
        };
        // Whether it arrived is the peer's business: it falls back in any case.
        drop(timeout(self.config.timeouts.handshake, goodbye).await);
    }

    async fn http(&self, session: Session, begun: Box<Begun>, version: Version, drain: drain::Watch) {
        let peer = session.peer();
        if let Err(error) = tied::serve(self, session, begun, version, drain).await {
            if http::is_malformed(&error) {
                self.metrics.malformed(Malformed::Http);
            }
            tracing::debug!(%error, %peer, "an inbound connection broke");
        }
    }

    async fn protocol(&self, session: &Session, begun: &mut Begun) -> Heard<Protocol, ConnectError> {
        let passes = matches!(begun.tls, TlsStatus::Plain(Why::AppTls));
        if passes || self.is_opaque(session.target().port()) || !begun.opening.answered.is_empty() {
            return Heard::Words(Protocol::Opaque);
        }
        begun
            .opening
            .hear(known_protocol, self.patience(), || self.connector.dial_application(session.target()))
            .await
    }

    fn is_opaque(&self, port: u16) -> bool {
        let ports: &BTreeSet<u16> = &self.config.inbound_opaque_ports;
        ports.contains(&port)
    }

    async fn opaque(&self, session: Session, begun: Box<Begun>) {
        let is_greeted = begun.is_greeted();
        let Begun { opening, not_after, .. } = *begun;
        let (client, dialled) = opening.into_streams();
        let Some(server) = self.application(&session, dialled).await else { return client.reset() };
        match is_greeted {
            true => self.copy(&session, self.copy_greeted(client, server), not_after).await,
            false => self.copy(&session, tcp::copy(client, server), not_after).await,
        }
    }

    /// Copies after a greeting that was let out in plaintext. What comes now may still be the ClientHello that it did not
    /// wait for: the peer gives the connection up when it reads the greeting, and the application would take it for nonsense.
    async fn copy_greeted(&self, client: Stream, server: Stream) -> io::Result<()> {
        let may_pass = |said: &[u8]| first(said, self.store.identity()).map(|first| first != First::Ours);
        tcp::copy_judged(client, server, self.patience_with_hello().detect, may_pass).await
    }

    /// The connection to the application, dialled unless it was. None: it refuses, and so must we.
    async fn application(&self, session: &Session, dialled: Option<Stream>) -> Option<Stream> {
        if dialled.is_some() {
            return dialled;
        }
        let dialled = self.connector.dial_application(session.target()).await;
        dialled.inspect_err(|error| unreachable(session, error)).ok()
    }

    /// Runs `copy` to its end. Streams are not cut when a certificate expires meanwhile, but counted.
    async fn copy(
        &self,
        session: &Session,
        copy: impl Future<Output = io::Result<()>>,
        not_after: Option<UnixTime>,
    ) {
        let mut copy = std::pin::pin!(copy);
        let ended = tokio::select! {
            ended = copy.as_mut() => ended,
            () = self.expiry.reached(not_after) => {
                self.metrics.tls.outlived();
                copy.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %session.peer(), "an inbound stream broke");
        }
    }
}

impl Begun {
    /// Whether nobody has said a word: the client, or the application that was dialled meanwhile, ended first.
    fn is_mute(&self) -> bool {
        let Opening { said, answered, .. } = &self.opening;
        matches!(self.tls, TlsStatus::Plain(_)) && said.is_empty() && answered.is_empty()
    }

    /// Whether the server's first words go out in plaintext to a client that has said nothing.
    fn is_greeted(&self) -> bool {
        let Opening { said, answered, .. } = &self.opening;
        matches!(self.tls, TlsStatus::Plain(_)) && said.is_empty() && !answered.is_empty()
    }
}

fn first(said: &[u8], own: Option<&Identity>) -> Option<First> {
    match detect::client_hello(said) {
        ClientHello::NeedMore => None,
        ClientHello::Not => Some(First::Clear),
        ClientHello::For(Some(name)) if own.is_some_and(|own| own.as_str() == name) => Some(First::Ours),
        ClientHello::For(_) => Some(First::Theirs),
    }
}

/// A ClientHello that never became whole is the application's to judge.
fn mumbled(said: &[u8]) -> First {
    if said.is_empty() { First::Clear } else { First::Theirs }
}

fn known_protocol(said: &[u8], seen: usize) -> Option<Protocol> {
    Some(detect::protocol(said, seen)).filter(|protocol| *protocol != Protocol::NeedMore)
}

fn unreachable(session: &Session, error: &ConnectError) {
    tracing::debug!(%error, target = %session.target(), "the application cannot be reached");
}
