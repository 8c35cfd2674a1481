//! HTTP on an accepted connection: hyper's server, with one `forward` per request.

pub(crate) mod body;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod upgrade;

use std::{future::Future, pin::pin, sync::Arc};

use http::{Request, Response};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use self::{body::Body, forward::Failed, upgrade::Upgraded};
use crate::{
    detect::{MAX_HEAD_BYTES, MAX_HEADERS},
    stream::Stream,
};

/// Streams open at once on an HTTP/2 connection: what the proxy held in v0.5.0. The application's own limit is lower,
/// and is kept by the connection to it.
const MAX_STREAMS: u32 = 10_000;

/// Streams that were reset before they were looked at. Clients that cancel in bulk are no attack.
const MAX_RESET_STREAMS: usize = 256;

/// Which HTTP.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Version {
    /// 1.0 and 1.1.
    Http1,
    /// 2.
    Http2,
}

/// Serves `downstream` until it ends, or until it is idle after `ending`. A connection that was upgraded is returned
/// for a plain copy.
///
/// # Errors
/// The client broke the connection or the protocol.
pub(crate) async fn serve<Forward, Answer>(
    downstream: Stream,
    version: Version,
    forward: Forward,
    ending: impl Future<Output = ()>,
) -> Result<(), hyper::Error>
where
    Forward: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Response<Body>, Failed>> + Send + 'static,
{
    let io = TokioIo::new(downstream);
    match version {
        Version::Http1 => serve_http1(io, forward, ending).await,
        Version::Http2 => serve_http2(io, forward, ending).await,
    }
}

async fn serve_http1<Forward, Answer>(
    io: TokioIo<Stream>,
    forward: Forward,
    ending: impl Future<Output = ()>,
) -> Result<(), hyper::Error>
where
    Forward: Fn(Request<Incoming>) -> Answer,
    Answer: Future<Output = Result<Response<Body>, Failed>> + Send + 'static,
{
    let mut server = http1::Builder::new();
    server
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .preserve_header_case(true)
        // A client may end its direction after its request and still read.
        .half_close(true)
        // The application's own timeouts apply: it is tied to this connection.
        .header_read_timeout(None)
        .auto_date_header(false);
    let mut connection = pin!(server.serve_connection(io, service_fn(forward)).with_upgrades());
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

async fn serve_http2<Forward, Answer>(
    io: TokioIo<Stream>,
    forward: Forward,
    ending: impl Future<Output = ()>,
) -> Result<(), hyper::Error>
where
    Forward: Fn(Request<Incoming>) -> Answer + Send + Sync + 'static,
    Answer: Future<Output = Result<Response<Body>, Failed>> + Send + 'static,
{
    let mut server = http2::Builder::new(TokioExecutor::new());
    server
        .timer(TokioTimer::new())
        .max_concurrent_streams(MAX_STREAMS)
        .max_pending_accept_reset_streams(MAX_RESET_STREAMS)
        .max_header_list_size(MAX_HEAD_BYTES as u32)
        .auto_date_header(false);
    let mut connection = pin!(server.serve_connection(io, service_fn(forward)));
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}

/// Where a request that turned its connection into something else leaves the two ends of it.
pub(crate) type Handover = Arc<parking_lot::Mutex<Option<Upgraded>>>;
