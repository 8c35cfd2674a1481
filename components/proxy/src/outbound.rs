//! Connections from the application of this pod.

mod balanced;
mod route;

use std::{net::SocketAddr, sync::Arc};

use conduit_identity::UnixTime;
use conduit_net::{Accepted, Net};
use conduit_runtime::drain;
use parking_lot::Mutex;
use rand::{Rng, rngs::StdRng};
use tokio::sync::{OnceCell, watch};

use crate::{
    accept,
    config::Config,
    connect::{ConnectError, Connected, Connector, Security},
    detect::{self, ClientHello, Protocol},
    discover::{Discover, Resolution},
    expiry::Expiry,
    http::{self, Version},
    metrics::{Malformed, Metrics},
    opening::{Heard, Opening, Patience},
    pool::Pool,
    session::{Direction, Session, Sessions, TlsStatus, Why},
    stream::Stream,
    tcp,
};

/// What all outbound connections share.
pub(crate) struct Outbound {
    pub(crate) listener: SocketAddr,
    pub(crate) config: Arc<Config>,
    pub(crate) net: Net,
    pub(crate) expiry: Expiry,
    pub(crate) connector: Connector,
    pub(crate) discover: Discover,
    pub(crate) pool: Pool,
    pub(crate) sessions: Sessions,
    pub(crate) metrics: Metrics,
    pub(crate) rng: Mutex<StdRng>,
}

/// One accepted connection.
struct Connection {
    session: Session,
    /// Where it was going; none when it was opened to the proxy itself, as an HTTP proxy.
    original: Option<SocketAddr>,
    source: TlsStatus,
    /// What is known of where it was going, kept up to date; asked for once.
    known: OnceCell<watch::Receiver<Resolution>>,
    /// Opened because the client was silent, and not used yet.
    spare: Mutex<Option<Spare>>,
    /// Which part of many endpoints it uses: drawn once, so that what it has opened serves again.
    share: u64,
}

/// A connection of which something was heard.
struct Begun {
    connection: Connection,
    opening: Opening,
}

impl Begun {
    /// The client's stream, with what was heard put back; a connection that was dialled ahead waits in the other value.
    fn into_parts(self) -> (Connection, Stream) {
        let (client, unused) = self.opening.into_streams();
        if let Some(spare) = self.connection.spare.lock().as_mut() {
            spare.stream = unused;
        }
        (self.connection, client)
    }
}

/// What a connection carries.
enum Carries {
    Http(Version),
    Opaque,
}

/// What opaque bytes are, as far as it matters.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Content {
    /// The application's own TLS: without ours around it, it is no plaintext either.
    Tls,
    Unknown,
}

/// A connection opened before it was known what for.
struct Spare {
    addr: SocketAddr,
    security: Security,
    tls: TlsStatus,
    not_after: Option<UnixTime>,
    /// None while it is listened to for the server's first words.
    stream: Option<Stream>,
}

/// Serves one connection to its end. `drain` tells it to end as soon as nothing is under way.
pub(crate) async fn serve(outbound: Arc<Outbound>, accepted: Accepted, drain: drain::Watch) {
    let original = accepted.original_dst.map(SocketAddr::from);
    if original.is_some_and(|target| accept::is_loop(target, &accepted, outbound.listener)) {
        return accept::refuse(accepted, Direction::Outbound.label(), "it leads to this proxy itself");
    }
    let target = original.unwrap_or(accepted.local.into());
    let session = outbound.sessions.accepted(Direction::Outbound, accepted.peer, target);
    let source = TlsStatus::Plain(Why::InternalTraffic);
    let mut client = Stream::plain(accepted.io);
    client.record(session.opened(source.clone()));
    let share = outbound.draw();
    let connection =
        Connection { session, original, source, known: OnceCell::new(), spare: Mutex::default(), share };
    let begun = Box::new(Begun { connection, opening: Opening::new(client) });
    // Boxed, phase by phase, and so is what one leaves to the next: the connection holds no room for what is over, and a
    // handshake is large.
    let Some((begun, carries)) = Box::pin(outbound.begin(begun)).await else { return };
    match carries {
        Carries::Http(version) => Box::pin(outbound.http(begun, version, drain)).await,
        Carries::Opaque => Box::pin(outbound.opaque(begun)).await,
    }
}

impl Outbound {
    /// Finds out what the connection is. None: it is over.
    async fn begin(&self, mut begun: Box<Begun>) -> Option<(Box<Begun>, Carries)> {
        let Begun { connection, opening } = &mut *begun;
        match self.protocol(connection, opening).await {
            Heard::Words(Protocol::Http1) => Some((begun, Carries::Http(Version::Http1))),
            Heard::Words(Protocol::Http2) => Some((begun, Carries::Http(Version::Http2))),
            // Whoever opens a connection to the proxy itself and leaves it at that wants nothing.
            Heard::OnlyListens if begun.connection.original.is_none() => None,
            Heard::Words(_) | Heard::Mumbling | Heard::CutOff | Heard::OnlyListens | Heard::ServerFirst => {
                Some((begun, Carries::Opaque))
            }
            Heard::Nothing => None,
            Heard::Unreachable(error) => {
                unreachable(&begun.connection.session, &error);
                begun.opening.client.reset();
                None
            }
        }
    }

    async fn http(self: Arc<Self>, begun: Box<Begun>, version: Version, drain: drain::Watch) {
        let peer = begun.connection.session.peer();
        if let Err(error) = balanced::serve(self.clone(), begun, version, drain).await {
            if http::is_malformed(&error) {
                self.metrics.malformed(Malformed::Http);
            }
            tracing::debug!(%error, %peer, "an outbound connection broke");
        }
    }

    async fn protocol(
        &self,
        connection: &Connection,
        opening: &mut Opening,
    ) -> Heard<Protocol, ConnectError> {
        let port = connection.original.map(|original| original.port());
        if port.is_some_and(|port| self.config.outbound_opaque_ports.contains(&port)) {
            return Heard::Words(Protocol::Opaque);
        }
        let known = |said: &[u8], seen| {
            Some(detect::protocol(said, seen)).filter(|protocol| *protocol != Protocol::NeedMore)
        };
        let timeouts = &self.config.timeouts;
        let patience = Patience { silence: timeouts.silence, detect: timeouts.detect };
        opening.hear(known, patience, || self.dial_ahead(connection)).await
    }

    /// Opens the connection that opaque bytes would take, because the server may be the one to speak first.
    async fn dial_ahead(&self, connection: &Connection) -> Result<Stream, ConnectError> {
        let Some(original) = connection.original else {
            // Without a destination there is no server that could speak, and no reason to wait for long.
            tokio::time::sleep(self.config.timeouts.detect).await;
            return Err(ConnectError::Refused);
        };
        let opened = self.open_original(connection, original, Content::Unknown).await?;
        let Connected { stream, tls, not_after } = opened.connected;
        let (addr, security) = (opened.remote.addr(), Security::of(&tls));
        *connection.spare.lock() = Some(Spare { addr, security, tls, not_after, stream: None });
        Ok(stream)
    }

    async fn opaque(&self, begun: Box<Begun>) {
        let Begun { connection, opening } = *begun;
        let content = match detect::client_hello(&opening.said) {
            ClientHello::For(_) => Content::Tls,
            ClientHello::Not | ClientHello::NeedMore => Content::Unknown,
        };
        let (client, dialled) = opening.into_streams();
        let spare = connection.spare.lock().take();
        let (server, not_after) = match (dialled, spare, connection.original) {
            (Some(server), Some(spare), _) => (server, spare.not_after),
            (_, _, Some(original)) => match self.open_original(&connection, original, content).await {
                Ok(opened) => (opened.connected.stream, opened.connected.not_after),
                Err(error) => {
                    unreachable(&connection.session, &error);
                    return client.reset();
                }
            },
            (_, _, None) => {
                tracing::warn!(peer = %connection.session.peer(), "a connection to nowhere that is not HTTP");
                return client.reset();
            }
        };
        self.copy(&connection.session, client, server, not_after).await;
    }

    /// Copies to the end. Streams are not cut when a certificate expires meanwhile, but counted.
    async fn copy(&self, session: &Session, client: Stream, server: Stream, not_after: Option<UnixTime>) {
        let mut copy = std::pin::pin!(tcp::copy(client, server));
        let ended = tokio::select! {
            ended = copy.as_mut() => ended,
            () = self.expiry.reached(not_after) => {
                self.metrics.tls.outlived();
                copy.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%error, peer = %session.peer(), "an outbound stream broke");
        }
    }

    fn draw(&self) -> u64 {
        self.rng.lock().next_u64()
    }
}

fn unreachable(session: &Session, error: &ConnectError) {
    tracing::debug!(%error, target = %session.target(), "the destination cannot be reached");
}
