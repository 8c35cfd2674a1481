//! HTTP/1.1 on a listener.

use std::{convert::Infallible, future::Future, time::Duration};

use bytes::Bytes;
use conduit_net::{Accepted, Listener};
use conduit_runtime::{drain, serve};
use http::{HeaderValue, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};

/// Connections served at once.
const MAX_CONNECTIONS: usize = 4096;
/// How long a request's head may take to arrive, which also bounds an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers every request with what `handle` makes of it, until the drain; then what is under way to its end.
pub(crate) async fn serve<F, Fut>(listener: Box<dyn Listener>, drain: drain::Watch, handle: F)
where
    F: Fn(Request<Incoming>) -> Fut + Clone + Send + Sync + 'static,
    Fut: Future<Output = Response<Full<Bytes>>> + Send + 'static,
{
    let closing = drain.clone();
    serve::accept_loop(listener, MAX_CONNECTIONS, drain, move |accepted| {
        connection(accepted, closing.clone(), handle.clone())
    })
    .await;
}

async fn connection<F, Fut>(accepted: Accepted, drain: drain::Watch, handle: F)
where
    F: Fn(Request<Incoming>) -> Fut,
    Fut: Future<Output = Response<Full<Bytes>>>,
{
    let service = service_fn(|request| {
        let response = handle(request);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .auto_date_header(false)
        .half_close(true);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(accepted.io), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.signaled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = %accepted.peer, "a connection broke");
    }
}

/// A whole answer of the given media type.
pub(crate) fn answer(
    status: StatusCode,
    media: &'static str,
    body: impl Into<Bytes>,
) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(media));
    response
}

/// A value as JSON.
pub(crate) fn json(status: StatusCode, value: &serde_json::Value) -> Response<Full<Bytes>> {
    answer(status, "application/json", value.to_string())
}
