//! The upstream connection of one request: kept from an earlier one, or opened.

use std::{sync::Arc, time::Duration};

use http::{Request, Response};
use hyper::body::Incoming;

use super::Balanced;
use crate::{
    connect::{ConnectError, Connected, Remote, Security},
    http::{
        body::Upload,
        forward::{self, Lease, Unanswered},
        http1,
    },
    pool::{Asleep, Idle, Kept, Key, KeyRef, Shared},
    session::TlsStatus,
    stream::Control,
};

/// An upstream connection for one request.
pub(super) enum Way {
    Http1(Lease),
    Http2(Shared),
}

impl Way {
    /// What it is.
    pub(super) fn tls(&self) -> &TlsStatus {
        match self {
            Self::Http1(lease) => &lease.idle.tls,
            Self::Http2(shared) => &shared.tls,
        }
    }

    /// Of the connection, if it is this request's alone.
    pub(super) fn control(&self) -> Option<&Control> {
        match self {
            Self::Http1(lease) => Some(&lease.idle.control),
            Self::Http2(_) => None,
        }
    }

    /// A copy of a request without a body, where the peer may prove that it did not look at it.
    pub(super) fn keep_for_replay(&self, request: &Request<Upload>) -> Option<Request<Upload>> {
        match self {
            Self::Http2(_) if request.body().is_empty() => {
                let mut again = Request::new(Upload::empty());
                *again.method_mut() = request.method().clone();
                *again.uri_mut() = request.uri().clone();
                *again.version_mut() = request.version();
                *again.headers_mut() = request.headers().clone();
                Some(again)
            }
            _ => None,
        }
    }

    /// Waiting is bounded by the client's patience, not by ours: a slow answer is an answer.
    pub(super) async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Unanswered> {
        Ok(match self {
            Self::Http1(lease) => lease.idle.sender.try_send_request(request).await?,
            Self::Http2(shared) => shared.sender.try_send_request(request).await?,
        })
    }

    /// The connection, if it is to be given back.
    pub(super) fn into_lease(self) -> Option<Lease> {
        match self {
            Self::Http1(lease) => Some(lease),
            Self::Http2(_) => None,
        }
    }
}

impl Balanced {
    /// A connection to `remote`: one that is there, or a new one.
    pub(super) async fn way(
        &self,
        remote: &Remote,
        security: &Security,
        authority: &str,
        patience: Option<Duration>,
    ) -> Result<Way, ConnectError> {
        let key = KeyRef { addr: remote.addr(), security, authority };
        match self.activity {
            Some(_) => match self.lanes.take(key) {
                Some((key, Kept::Awake(idle))) => {
                    Ok(Way::Http1(Lease { lanes: self.lanes.clone(), key, idle }))
                }
                Some((key, Kept::Asleep(asleep))) => self.lease(key, asleep).await.map(Way::Http1),
                // Boxed: a handshake is large, and most requests need none.
                None => {
                    Box::pin(self.open_http1(remote, security, authority, patience)).await.map(Way::Http1)
                }
            },
            None => {
                let place = self.lanes.shared(key);
                let shared =
                    place.get_or_try_init(|| Box::pin(self.share(remote, security, patience))).await?;
                Ok(Way::Http2(shared.clone()))
            }
        }
    }

    async fn open_http1(
        &self,
        remote: &Remote,
        security: &Security,
        authority: &str,
        patience: Option<Duration>,
    ) -> Result<Lease, ConnectError> {
        let Connected { stream, tls, not_after } = self.open(remote, security, patience).await?;
        let security = Security::of(&tls);
        let key = KeyRef { addr: remote.addr(), security: &security, authority }.to_key();
        self.lease(key, Asleep { stream, tls: Arc::new(tls), not_after }).await
    }

    /// Speaks HTTP/1 on a connection.
    async fn lease(&self, key: Key, asleep: Asleep) -> Result<Lease, ConnectError> {
        let Asleep { mut stream, tls, not_after } = asleep;
        let control = stream.control();
        let (sender, connection) = http1::open(stream).await.map_err(broken)?;
        let idle = Idle { sender, control, stream: http1::spawn(connection, self.ended()), tls, not_after };
        Ok(Lease { lanes: self.lanes.clone(), key, idle })
    }

    /// What to do when an upstream connection has ended.
    fn ended(&self) -> impl FnOnce() + Send + 'static {
        let lanes = Arc::downgrade(&self.lanes);
        move || lanes.upgrade().into_iter().for_each(|lanes| lanes.one_ended())
    }

    async fn share(
        &self,
        remote: &Remote,
        security: &Security,
        patience: Option<Duration>,
    ) -> Result<Shared, ConnectError> {
        let Connected { stream, tls, not_after } = self.open(remote, security, patience).await?;
        let ping = matches!(tls, TlsStatus::Mutual { .. }).then_some(self.outbound.config.timeouts.ping);
        let (sender, connection) = forward::open_http2(stream, ping).await.map_err(broken)?;
        run(connection, self.ended());
        Ok(Shared { sender, tls: Arc::new(tls), not_after })
    }

    async fn open(
        &self,
        remote: &Remote,
        security: &Security,
        patience: Option<Duration>,
    ) -> Result<Connected, ConnectError> {
        let connected = match self.take_spare(remote, security) {
            Some(spare) => spare,
            None => self.outbound.connector.open(remote, security, patience).await?,
        };
        remote.connected();
        Ok(connected)
    }

    /// The connection that was dialled ahead, if it is the one that is wanted first; it is closed otherwise.
    fn take_spare(&self, remote: &Remote, security: &Security) -> Option<Connected> {
        let spare = self.connection.spare.lock().take()?;
        let is_wanted = spare.addr == remote.addr() && spare.security == *security;
        let stream = spare.stream.filter(|_| is_wanted)?;
        Some(Connected { stream, tls: spare.tls, not_after: spare.not_after })
    }
}

/// Runs a connection until it ends: when the peer closes it, or when nobody holds its sender any more.
fn run(
    connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static,
    ended: impl FnOnce() + Send + 'static,
) {
    tokio::spawn(async move {
        let result = connection.await;
        ended();
        if let Err(error) = result {
            tracing::debug!(%error, "an upstream connection broke");
        }
    });
}

/// hyper failed before a byte was sent, which a connection that has just opened does only when it breaks.
fn broken(error: hyper::Error) -> ConnectError {
    ConnectError::Unreachable(std::io::Error::other(error))
}
