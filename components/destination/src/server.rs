//! Accepts proxies and answers them: gRPC, with TLS where the proxy offers it and in plaintext where it does not, on one
//! port. A proxy has no bundle to verify us by before the CA has given it one, and must be answered nevertheless.

use std::{net::IpAddr, pin::Pin, sync::Arc, time::Duration};

use conduit_identity::{ClientPeer, Clock, Store, UnixTime, accept, refuse_alert};
use conduit_net::{Accepted, Io, Listener, Prefixed};
use conduit_proto::destination::{
    GetRequest, Update,
    destination_server::{Destination, DestinationServer},
    get_request::Target,
};
use conduit_proto::lifecycle::{
    AwaitEndRequest, AwaitEndResponse,
    lifecycle_server::{Lifecycle, LifecycleServer},
};
use conduit_runtime::{
    drain,
    grpc::{self, Transport},
    serve,
};
use futures::{Stream, stream};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tonic::{Request, Response, Status};

use crate::{metrics::Metrics, names::Query, subscribe::Topics, translate};

/// How long a client may take to send its first byte. HTTP/2 clients send theirs at once.
const FIRST_BYTE: Duration = Duration::from_secs(5);
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a refused client may take to notice.
const GOODBYE: Duration = Duration::from_secs(1);
/// The longest request: two names.
const MAX_REQUEST: usize = 4 * 1024;
/// The first byte of a TLS record that carries a handshake (RFC 8446 section 5.1); HTTP/2 begins with a "P".
const TLS_HANDSHAKE: u8 = 0x16;
/// How often an expiry is looked for: the wall clock may be set, and may run at another pace than timers.
const EXPIRY_LOOK: Duration = Duration::from_secs(30);

/// What every connection needs. Cloning shares.
#[derive(Clone)]
pub(crate) struct Server {
    pub(crate) topics: Topics,
    pub(crate) store: Store,
    pub(crate) clock: Arc<dyn Clock>,
    pub(crate) metrics: Metrics,
}

impl Server {
    /// Serves until the drain begins; then ends every stream, so that its client moves on to another replica.
    pub(crate) async fn run(self, listener: Box<dyn Listener>, max_connections: usize, drain: drain::Watch) {
        let closing = drain.clone();
        serve::accept_loop(listener, max_connections, drain, move |accepted| {
            self.clone().connection(accepted, closing.clone())
        })
        .await;
    }

    async fn connection(self, accepted: Accepted, drain: drain::Watch) {
        let peer = accepted.peer.ip();
        let mut io = accepted.io;
        let mut first = [0];
        match tokio::time::timeout(FIRST_BYTE, io.read_exact(&mut first)).await {
            Ok(Ok(_)) => {}
            Ok(Err(_)) | Err(_) => return tracing::debug!(%peer, "a client said nothing"),
        }
        if first[0] == TLS_HANDSHAKE {
            self.secured(io, first, peer, drain).await;
        } else {
            self.metrics.connection("no_proxy_tls");
            self.answer(Prefixed::new(first.to_vec(), io), peer, None, drain).await;
        }
    }

    async fn secured(self, io: Io, first: [u8; 1], peer: IpAddr, drain: drain::Watch) {
        let loaded = match self.store.current() {
            Ok(loaded) => loaded,
            Err(unusable) => {
                self.metrics.connection(unusable.label());
                return refuse(io).await;
            }
        };
        let handshake = accept(&loaded, Prefixed::new(first.to_vec(), io));
        let (stream, client) = match tokio::time::timeout(HANDSHAKE, handshake).await {
            Ok(Ok(accepted)) => accepted,
            Ok(Err(error)) => {
                self.metrics.connection("handshake_failed");
                return tracing::debug!(%peer, %error, "a handshake failed");
            }
            Err(_) => {
                self.metrics.connection("handshake_failed");
                return tracing::debug!(%peer, "a handshake took too long");
            }
        };
        self.metrics.connection("true");
        let ours = loaded.credentials.not_after();
        let until = match client {
            ClientPeer::Verified { not_after, .. } => ours.min(not_after),
            ClientPeer::Unauthenticated => ours,
        };
        self.answer(stream, peer, Some(until), drain).await;
    }

    /// Answers until the connection ends, the drain begins, or a certificate that it stands on is past: the client opens
    /// a new one then, with the certificates of that time.
    async fn answer(self, io: impl Transport, peer: IpAddr, until: Option<UnixTime>, drain: drain::Watch) {
        let (trigger, closing) = drain::channel();
        let service = Answers {
            topics: self.topics.clone(),
            metrics: self.metrics.clone(),
            client: peer,
            drain: closing.clone(),
        };
        let lifecycle = LifecycleServer::new(service.clone()).max_decoding_message_size(MAX_REQUEST);
        let service = DestinationServer::new(service).max_decoding_message_size(MAX_REQUEST);
        let routes = tonic::service::Routes::new(service).add_service(lifecycle);
        let served = grpc::serve_connection(io, routes, closing);
        let mut served = std::pin::pin!(served);
        let ended = tokio::select! {
            ended = served.as_mut() => ended,
            () = drain.signaled() => {
                drop(trigger);
                served.await
            }
            () = self.expired(until) => {
                drop(trigger);
                served.await
            }
        };
        if let Err(error) = ended {
            tracing::debug!(%peer, %error, "a connection broke");
        }
    }

    async fn expired(&self, until: Option<UnixTime>) {
        let Some(until) = until else { return std::future::pending().await };
        loop {
            let left = until.since(self.clock.now());
            if left.is_zero() {
                return;
            }
            tokio::time::sleep(left.min(EXPIRY_LOOK)).await;
        }
    }
}

/// Tells a client that we have no credentials, so that it goes on in plaintext without waiting. Reading to the end keeps
/// a reset from overtaking the alert.
async fn refuse(mut io: Io) {
    let goodbye = async {
        io.write_all(refuse_alert()).await?;
        io.shutdown().await?;
        tokio::io::copy(&mut io, &mut tokio::io::sink()).await
    };
    // Whatever went wrong, the client is gone.
    drop(tokio::time::timeout(GOODBYE, goodbye).await);
}

/// The services, as one connection sees them.
#[derive(Clone)]
struct Answers {
    topics: Topics,
    metrics: Metrics,
    client: IpAddr,
    drain: drain::Watch,
}

#[tonic::async_trait]
impl Destination for Answers {
    type GetStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let GetRequest { context_namespace, target } = request.into_inner();
        let query = match target {
            Some(Target::Authority(authority)) => {
                Query::of_authority(&authority, &context_namespace, &self.topics.zone())
            }
            Some(Target::Address(address)) => Query::of_address(&address)
                .ok_or_else(|| Status::invalid_argument("address: expected ip:port, IPv6 in brackets"))?,
            None => return Err(Status::invalid_argument("target: expected an authority or an address")),
        };
        let subscription = self.topics.subscribe(query, Some(self.client)).map_err(|full| {
            self.metrics.refused_stream();
            Status::resource_exhausted(full.to_string())
        })?;
        let metrics = self.metrics.clone();
        // The stream holds the connection's drain, which ends it; it never ends by itself.
        let words = stream::unfold((subscription, self.drain.clone()), move |(mut subscription, drain)| {
            let metrics = metrics.clone();
            async move {
                let word = tokio::select! {
                    biased;
                    () = drain.signaled() => return None,
                    word = subscription.next() => word,
                };
                metrics.update(translate::kind(&word));
                Some((Ok(translate::update(&word)), (subscription, drain)))
            }
        });
        Ok(Response::new(Box::pin(words)))
    }
}

/// Whoever asks learns no more than that containers have ended, and only of a pod whose uid it knows.
#[tonic::async_trait]
impl Lifecycle for Answers {
    async fn await_end(
        &self,
        request: Request<AwaitEndRequest>,
    ) -> Result<Response<AwaitEndResponse>, Status> {
        let AwaitEndRequest { pod_uid } = request.into_inner();
        if pod_uid.is_empty() {
            return Err(Status::invalid_argument("pod_uid: expected the uid of the asking pod"));
        }
        tokio::select! {
            () = self.topics.ended(&pod_uid) => Ok(Response::new(AwaitEndResponse {})),
            () = self.drain.signaled() => Err(Status::unavailable("this replica ends: ask again")),
        }
    }
}
