//! The gRPC server of tap. It fails closed: whoever does not prove to be the control plane's observe is told that tap is
//! unavailable, or any pod could read the paths of its neighbours' encrypted requests.

use std::{io, sync::Arc, time::Duration};

use bytes::Bytes;
use conduit_identity::{ClientPeer, Clock, HandshakeError, Identity, Loaded, Store, UnixTime, refuse_alert};
use conduit_net::{Accepted, Io, Listener, Prefixed};
use conduit_proto::tap::{Event, ObserveRequest, tap_server};
use conduit_runtime::{drain, grpc, serve::accept_crowd};
use futures::stream::{self, BoxStream, StreamExt};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    time::{Instant, timeout},
};
use tonic::{Request, Response, Status};

use super::{Condition, Tap};
use crate::{
    metrics::{Malformed, Metrics},
    session::Direction,
};

/// Connections at a time. Observe opens one. Beyond, strangers give way: whoever holds many does not keep observe out.
const MAX_CONNECTIONS: usize = 256;
/// How long a caller may be silent before its first byte, and take to leave after it was refused.
const PATIENCE: Duration = Duration::from_secs(5);
/// The first octet of a TLS record that carries a handshake (RFC 8446 section 5.1).
const TLS_HANDSHAKE: u8 = 22;

/// Who may tap, and what that is judged by.
#[derive(Debug, Clone)]
pub(crate) struct Guard {
    /// Our credentials: without them nobody can prove anything to us.
    pub(crate) store: Store,
    /// The only caller that is served.
    pub(crate) observe: Identity,
    /// By which the caller's certificate is judged at each call.
    pub(crate) clock: Arc<dyn Clock>,
    /// How long a handshake may take.
    pub(crate) handshake: Duration,
}

/// Serves until the drain begins.
pub(crate) async fn serve(
    listener: Box<dyn Listener>,
    tap: Tap,
    guard: Guard,
    metrics: Metrics,
    drain: drain::Watch,
) {
    let closing = drain.clone();
    accept_crowd(listener, MAX_CONNECTIONS, drain, move |accepted, seat| {
        let server = Server {
            tap: tap.clone(),
            guard: guard.clone(),
            metrics: metrics.clone(),
            drain: closing.clone(),
        };
        connection(accepted, server, move || seat.keep())
    })
    .await;
}

#[derive(Clone)]
struct Server {
    tap: Tap,
    guard: Guard,
    metrics: Metrics,
    drain: drain::Watch,
}

/// `keep` keeps the connection from giving way to others.
async fn connection(accepted: Accepted, server: Server, keep: impl Fn() + Send + Sync) {
    let peer = accepted.peer;
    if let Err(error) = server.connection(accepted.io, &keep).await {
        tracing::debug!(%error, %peer, "a tap connection broke");
    }
}

impl Server {
    async fn connection(self, mut io: Io, keep: &(impl Fn() + Sync)) -> io::Result<()> {
        let mut first = [0];
        timeout(PATIENCE, io.read_exact(&mut first)).await??;
        let tls = first == [TLS_HANDSHAKE];
        let io = Prefixed::new(Bytes::copy_from_slice(&first), io);
        if !tls {
            return self.calls(io, Caller::Anybody).await;
        }
        match self.guard.store.current() {
            Ok(loaded) => {
                let (io, peer) = self.handshake(&loaded, io).await.map_err(io::Error::other)?;
                let caller = self.guard.judge(peer);
                if self.guard.admits(caller) {
                    keep();
                }
                self.calls(io, caller).await
            }
            Err(reason) => {
                self.metrics.tls.refused(reason);
                refuse(io).await
            }
        }
    }

    async fn handshake(
        &self,
        loaded: &Loaded,
        io: Prefixed<Io>,
    ) -> Result<(tokio_rustls::server::TlsStream<Prefixed<Io>>, ClientPeer), HandshakeError> {
        let began = Instant::now();
        let result = timeout(self.guard.handshake, conduit_identity::accept(loaded, io))
            .await
            .unwrap_or_else(|_| Err(HandshakeError::timeout()));
        let outcome = result.as_ref().map(|_| ()).map_err(HandshakeError::reason);
        self.metrics.tls.handshake(Direction::Inbound, outcome, began.elapsed());
        result
    }

    async fn calls(self, io: impl grpc::Transport, caller: Caller) -> io::Result<()> {
        let drain = self.drain.clone();
        let service = tap_server::TapServer::new(Service { server: self, caller });
        let routes = tonic::service::Routes::new(service);
        grpc::serve_connection(io, routes, drain).await.map_err(io::Error::other)
    }
}

/// Answers a handshake that we cannot do, so that the caller knows without waiting.
async fn refuse(mut io: Prefixed<Io>) -> io::Result<()> {
    io.write_all(refuse_alert()).await?;
    io.shutdown().await?;
    // Reading to the end keeps the unread rest of its hello from becoming a reset that overtakes the alert.
    let mut rest = tokio::io::sink();
    drop(timeout(PATIENCE, tokio::io::copy(&mut io, &mut rest)).await);
    Ok(())
}

/// What a caller proved.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Caller {
    /// To be observe, until then.
    Observe { not_after: UnixTime },
    /// Nothing that counts.
    Anybody,
}

impl Guard {
    fn judge(&self, peer: ClientPeer) -> Caller {
        match peer {
            ClientPeer::Verified { identity, not_after } if identity == self.observe => {
                Caller::Observe { not_after }
            }
            ClientPeer::Verified { .. } | ClientPeer::Unauthenticated => Caller::Anybody,
        }
    }

    fn admits(&self, caller: Caller) -> bool {
        matches!(caller, Caller::Observe { not_after } if self.clock.now() <= not_after)
    }
}

struct Service {
    server: Server,
    caller: Caller,
}

#[tonic::async_trait]
impl tap_server::Tap for Service {
    type ObserveStream = BoxStream<'static, Result<Event, Status>>;

    async fn observe(
        &self,
        request: Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        let Server { tap, guard, metrics, drain } = &self.server;
        if !guard.admits(self.caller) {
            metrics.tap.refused.inc();
            return Err(Status::unavailable(
                "tap is open to the control plane's observe only, over mutual TLS",
            ));
        }
        let request = request.into_inner();
        let condition = Condition::read(request.r#match.as_ref()).map_err(|error| error.to_string());
        let condition = match (request.limit, condition) {
            (0, _) => Err("limit is 0: ask for at least one request".to_owned()),
            (_, condition) => condition,
        };
        let condition = condition.map_err(|error| {
            metrics.malformed(Malformed::Tap);
            Status::invalid_argument(error)
        })?;
        let events = tap
            .open(request.limit, condition)
            .map_err(|error| Status::resource_exhausted(error.to_string()))?;
        let drain = drain.clone();
        // A tap may last for ever: the drain ends it.
        let events = stream::unfold((events, drain), |(mut events, drain)| async move {
            let event = tokio::select! {
                biased;
                () = drain.signaled() => None,
                event = events.next() => event,
            };
            event.map(|event| (Ok(event), (events, drain)))
        });
        Ok(Response::new(events.boxed()))
    }
}

#[cfg(test)]
mod tests;
