//! TLS between two parts of Conduit: version 1.3 only, both sides named, nothing resumed.
//!
//! Sessions are never resumed, on either side. A resumed session skips the certificates: it was seen accepted after both
//! had expired, and it would carry an identity over a rotation of the roots.
//!
//! The one ALPN token is [`ALPN`]. A peer that offers others, or none, is not refused for it: what is spoken inside is
//! detected there, and a future version must be able to talk to this one.

use std::{fmt, io, sync::Arc};

use rustls::{
    AlertDescription, CertificateError, ClientConfig, ServerConfig,
    client::Resumption,
    server::{Acceptor, NoServerSessionStorage},
    sign::SingleCertAndKey,
    version::TLS13,
};
use rustls_pki_types::CertificateDer;
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::{LazyConfigAcceptor, TlsConnector, client, server};

use crate::{
    Clock, Credentials, Crypto, Identity, LoadError, UnixTime,
    clock::RustlsClock,
    verify::{AnyClient, ClientPeer, ExactServer, Judge, judge_client, validity},
};

/// The protocol token between Conduit's proxies.
pub const ALPN: &[u8] = b"conduit/1";

/// Credentials, ready to be used on either side of a connection.
pub struct Loaded {
    /// What was loaded.
    pub credentials: Credentials,
    /// For connections we open. Its verifier demands the exact name it is asked for.
    pub client: Arc<ClientConfig>,
    /// For connections we accept.
    pub server: Arc<ServerConfig>,
    /// The same for a client that does not offer our token: rustls would refuse it otherwise.
    server_without_alpn: Arc<ServerConfig>,
    judge: Judge,
    clock: Arc<dyn Clock>,
}

impl Loaded {
    /// Prepares `credentials` for use; peers are judged by `clock`.
    ///
    /// # Errors
    /// [`LoadError::Crypto`]: the provider has no suite of TLS 1.3.
    pub fn new(credentials: Credentials, crypto: &Crypto, clock: Arc<dyn Clock>) -> Result<Self, LoadError> {
        let judge = Judge { trust: credentials.trust.clone(), signatures: crypto.signatures() };
        let certificate = Arc::new(SingleCertAndKey::from(credentials.key.clone()));
        let time = Arc::new(RustlsClock(clock.clone()));

        let mut client = ClientConfig::builder_with_details(crypto.provider.clone(), time.clone())
            .with_protocol_versions(&[&TLS13])
            .map_err(LoadError::Crypto)?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(ExactServer(judge.clone())))
            .with_client_cert_resolver(certificate.clone());
        client.alpn_protocols = vec![ALPN.to_vec()];
        client.resumption = Resumption::disabled();

        let mut server = ServerConfig::builder_with_details(crypto.provider.clone(), time)
            .with_protocol_versions(&[&TLS13])
            .map_err(LoadError::Crypto)?
            .with_client_cert_verifier(Arc::new(AnyClient(crypto.signatures())))
            .with_cert_resolver(certificate);
        server.session_storage = Arc::new(NoServerSessionStorage {});
        server.send_tls13_tickets = 0;
        let server_without_alpn = Arc::new(server.clone());
        server.alpn_protocols = vec![ALPN.to_vec()];

        Ok(Self {
            credentials,
            client: Arc::new(client),
            server: Arc::new(server),
            server_without_alpn,
            judge,
            clock,
        })
    }
}

impl fmt::Debug for Loaded {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Loaded").field("credentials", &self.credentials).finish_non_exhaustive()
    }
}

/// Who a server proved to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ServerPeer {
    /// The name that was asked for.
    pub identity: Identity,
    /// When its certificate stops proving it.
    pub not_after: UnixTime,
}

/// Opens TLS to `server` over `io`. The caller owns the deadline; dropping the future closes `io`.
///
/// No byte of the application is sent before the server has proved its name.
///
/// # Errors
/// The handshake failed and `io` is gone. Nothing was sent that matters: the same request may go another way.
pub async fn connect<T>(
    loaded: &Loaded,
    io: T,
    server: &Identity,
) -> Result<(client::TlsStream<T>, ServerPeer), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let name = server.server_name().map_err(HandshakeError::from_name)?;
    let stream =
        TlsConnector::from(loaded.client.clone()).connect(name, io).await.map_err(HandshakeError::from_io)?;
    let not_after = leaf_not_after(stream.get_ref().1.peer_certificates());
    Ok((stream, ServerPeer { identity: server.clone(), not_after }))
}

/// Accepts TLS over `io` and tells who the client is. The caller owns the deadline; dropping the future closes `io`.
///
/// # Errors
/// The handshake failed and `io` is gone, after an alert to the client where one could be written. A certificate that
/// does not verify is no failure: see [`ClientPeer::Unauthenticated`].
pub async fn accept<T>(loaded: &Loaded, io: T) -> Result<(server::TlsStream<T>, ClientPeer), HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let hello = LazyConfigAcceptor::new(Acceptor::default(), io).await.map_err(HandshakeError::from_io)?;
    let offers_ours = hello.client_hello().alpn().is_some_and(|mut tokens| tokens.any(|token| token == ALPN));
    let config = if offers_ours { &loaded.server } else { &loaded.server_without_alpn };
    let stream = hello.into_stream(config.clone()).await.map_err(HandshakeError::from_io)?;
    let peer = judge_client(&loaded.judge, stream.get_ref().1.peer_certificates(), loaded.clock.now());
    Ok((stream, peer))
}

/// What to answer a ClientHello with that is meant for us while we hold no credentials: a fatal `handshake_failure`
/// alert in a record of its own (RFC 8446 sections 5.1 and 6.2), which a client takes for a refusal without delay.
///
/// Write it, shut down writing, and read to the end: a reset caused by unread bytes overtakes the alert.
pub fn refuse_alert() -> &'static [u8] {
    const ALERT: u8 = 21;
    const FATAL: u8 = 2;
    const HANDSHAKE_FAILURE: u8 = 40;
    &[ALERT, 3, 3, 0, 2, FATAL, HANDSHAKE_FAILURE]
}

/// A handshake that came to nothing.
#[derive(Debug, thiserror::Error)]
#[error("tls handshake failed ({reason}): {source}")]
pub struct HandshakeError {
    reason: HandshakeFailure,
    source: io::Error,
}

impl HandshakeError {
    /// The caller's deadline passed first.
    pub fn timeout() -> Self {
        Self { reason: HandshakeFailure::Timeout, source: io::ErrorKind::TimedOut.into() }
    }

    /// Why, in one word.
    pub fn reason(&self) -> HandshakeFailure {
        self.reason
    }

    pub(crate) fn from_rustls(source: rustls::Error) -> Self {
        Self { reason: HandshakeFailure::Protocol, source: io::Error::other(source) }
    }

    pub(crate) fn from_name(source: crate::NameError) -> Self {
        let source = io::Error::new(io::ErrorKind::InvalidInput, source);
        Self { reason: HandshakeFailure::WrongName, source }
    }

    pub(crate) fn from_io(source: io::Error) -> Self {
        let cause = source.get_ref().and_then(|inner| inner.downcast_ref::<rustls::Error>());
        let reason = match cause {
            Some(error) => HandshakeFailure::of(error),
            None if source.kind() == io::ErrorKind::TimedOut => HandshakeFailure::Timeout,
            None => HandshakeFailure::Reset,
        };
        Self { reason, source }
    }
}

/// Why a handshake failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HandshakeFailure {
    /// The peer sent an alert.
    Refused,
    /// The deadline passed.
    Timeout,
    /// The peer's certificate does not lead to a root of ours.
    Untrusted,
    /// The peer's certificate is for another name.
    WrongName,
    /// The peer's certificate is past.
    Expired,
    /// The peer's certificate is not yet valid: a clock is wrong, ours or theirs.
    NotYetValid,
    /// The connection ended.
    Reset,
    /// The peer does not speak TLS, or none that we do.
    Protocol,
}

impl HandshakeFailure {
    /// Every reason, in the order of declaration.
    pub const ALL: [Self; 8] = [
        Self::Refused,
        Self::Timeout,
        Self::Untrusted,
        Self::WrongName,
        Self::Expired,
        Self::NotYetValid,
        Self::Reset,
        Self::Protocol,
    ];

    /// The value of a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Refused => "refused",
            Self::Timeout => "timeout",
            Self::Untrusted => "untrusted",
            Self::WrongName => "wrong_name",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::Reset => "reset",
            Self::Protocol => "protocol",
        }
    }

    fn of(error: &rustls::Error) -> Self {
        use CertificateError as C;
        match error {
            rustls::Error::AlertReceived(AlertDescription::CloseNotify) => Self::Reset,
            rustls::Error::AlertReceived(_) => Self::Refused,
            rustls::Error::InvalidCertificate(cause) => match cause {
                C::Expired | C::ExpiredContext { .. } => Self::Expired,
                C::NotValidYet | C::NotValidYetContext { .. } => Self::NotYetValid,
                C::NotValidForName | C::NotValidForNameContext { .. } => Self::WrongName,
                _ => Self::Untrusted,
            },
            rustls::Error::NoCertificatesPresented => Self::Untrusted,
            _ => Self::Protocol,
        }
    }
}

impl fmt::Display for HandshakeFailure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

/// The end of a certificate that verified a moment ago; the epoch if there is none, which is past.
fn leaf_not_after(chain: Option<&[CertificateDer<'_>]>) -> UnixTime {
    chain
        .and_then(|chain| chain.first())
        .and_then(|leaf| validity(leaf).ok())
        .map(|(_, ends)| ends)
        .unwrap_or_default()
}
