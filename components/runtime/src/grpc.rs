//! gRPC over any network: a client channel and a server connection, both on streams that the caller opened and secured.
//!
//! The only file that says tower: tonic asks for its `Service` trait.

use std::{
    io,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    io::{AsyncRead, AsyncWrite},
    sync::Mutex,
};
use tonic::body::Body;

use crate::drain;

/// A peer that vanished without a word is noticed after the interval and the timeout together.
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(10);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(5);
/// How long opening a connection may take, name, handshake and all.
const CONNECT_TIMEOUT: Duration = Duration::from_secs(3);
/// Streams a client may have open on one connection.
const MAX_STREAMS: u32 = 1_024;
/// Most bytes of a request's header fields.
const MAX_HEADER_BYTES: u32 = 16 * 1024;

/// A stream that gRPC can run on.
pub trait Transport: AsyncRead + AsyncWrite + Send + Unpin + 'static {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin + 'static> Transport for T {}

/// Opens (and secures) a connection to the one server a [`Channel`] talks to.
pub type Connect = Arc<dyn Fn() -> BoxFuture<'static, io::Result<Box<dyn Transport>>> + Send + Sync>;

/// A gRPC client's connection: opened when first needed, opened again after it broke. It retries nothing by itself;
/// the caller backs off. Cloning shares the connection.
#[derive(Clone)]
pub struct Channel {
    connect: Connect,
    origin: Uri,
    current: Arc<Mutex<Option<SendRequest<Body>>>>,
}

impl Channel {
    /// A channel over what `connect` opens; `authority` is what requests name as their server.
    ///
    /// # Errors
    /// `authority` is not `host[:port]`.
    pub fn new(authority: &str, connect: Connect) -> Result<Self, http::Error> {
        let origin = Uri::builder().scheme("http").authority(authority).path_and_query("/").build()?;
        Ok(Self { connect, origin, current: Arc::default() })
    }

    /// Closes the connection once its requests have ended; the next request opens a new one. For a caller whose
    /// credentials changed.
    pub async fn reconnect(&self) {
        self.current.lock().await.take();
    }

    async fn send(self, mut request: Request<Body>) -> io::Result<Response<Incoming>> {
        let mut sender = tokio::time::timeout(CONNECT_TIMEOUT, self.sender())
            .await
            .map_err(|_| io::Error::new(io::ErrorKind::TimedOut, "the connection did not open in time"))??;
        let mut uri = self.origin.into_parts();
        uri.path_and_query = request.uri().path_and_query().cloned();
        *request.uri_mut() = Uri::from_parts(uri).map_err(io::Error::other)?;
        sender.send_request(request).await.map_err(io::Error::other)
    }

    async fn sender(&self) -> io::Result<SendRequest<Body>> {
        let mut current = self.current.lock().await;
        if let Some(sender) = current.as_mut()
            && sender.ready().await.is_ok()
        {
            return Ok(sender.clone());
        }
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .timer(TokioTimer::new())
            .keep_alive_interval(KEEPALIVE_INTERVAL)
            .keep_alive_timeout(KEEPALIVE_TIMEOUT)
            .handshake(TokioIo::new((self.connect)().await?))
            .await
            .map_err(io::Error::other)?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a gRPC connection broke");
            }
        });
        *current = Some(sender.clone());
        Ok(sender)
    }
}

impl tower::Service<Request<Body>> for Channel {
    type Response = Response<Incoming>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Response<Incoming>>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request<Body>) -> Self::Future {
        Box::pin(self.clone().send(request))
    }
}

impl std::fmt::Debug for Channel {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Channel({})", self.origin)
    }
}

/// Serves `routes` on one connection until it ends; a drain lets the calls under way finish.
///
/// # Errors
/// The connection broke or spoke no HTTP/2.
pub async fn serve_connection(
    io: impl Transport,
    routes: tonic::service::Routes,
    drain: drain::Watch,
) -> Result<(), hyper::Error> {
    let mut server = hyper::server::conn::http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .keep_alive_interval(KEEPALIVE_INTERVAL)
        .keep_alive_timeout(KEEPALIVE_TIMEOUT)
        .max_concurrent_streams(MAX_STREAMS)
        .max_header_list_size(MAX_HEADER_BYTES)
        .auto_date_header(false);
    let service = TowerToHyperService::new(routes.prepare());
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(io), service));
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.signaled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
