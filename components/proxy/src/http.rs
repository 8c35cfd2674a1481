//! HTTP on an accepted connection: hyper's server, with one `forward` per request.
//!
//! - `http/http1.rs`: both ends of HTTP/1 connections, `http/activity.rs`: what goes on on them; HTTP/2 is here
//! - `http/forward.rs`: one request and its response; `http/body.rs`: their bodies; `http/expect.rs`: those that wait
//! - `http/headers.rs`: what concerns one connection and must not travel on
//! - `http/upgrade.rs`: tunnels within HTTP/2

pub(crate) mod activity;
pub(crate) mod body;
pub(crate) mod expect;
pub(crate) mod forward;
pub(crate) mod headers;
pub(crate) mod http1;
pub(crate) mod upgrade;

use std::{future::Future, pin::pin};

use http::{Request, Response};
use hyper::{body::Incoming, server::conn::http2, service::service_fn};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use self::{
    body::{Body, h2_cause},
    forward::Failed,
};
use crate::{detect::MAX_HEAD_BYTES, stream::Stream};

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

/// Whether a client's connection ended because what came over it is no HTTP, or more of it than we take.
pub(crate) fn is_malformed(error: &hyper::Error) -> bool {
    let is_protocol = |error: &h2::Error| {
        error.is_library() && error.reason().is_some_and(|reason| reason != h2::Reason::ENHANCE_YOUR_CALM)
    };
    error.is_parse() || h2_cause(error).is_some_and(is_protocol)
}

/// Serves HTTP/2 on `stream` until it ends; after `ending`, until nothing is under way.
///
/// # Errors
/// The client broke the connection or the protocol.
pub(crate) async fn serve_http2<Forward, Answer>(
    stream: Stream,
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
    let mut connection = pin!(server.serve_connection(TokioIo::new(stream), service_fn(forward)));
    tokio::select! {
        ended = connection.as_mut() => ended,
        () = ending => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    }
}
