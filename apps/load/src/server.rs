//! HTTP/1.1 on a listener.

use std::{convert::Infallible, sync::Arc, time::Duration};

use bytes::Bytes;
use conduit_net::{Accepted, Listener};
use conduit_runtime::{drain, serve};
use http::{Method, Request, Response, StatusCode};
use http_body_util::{BodyExt, Full, Limited};
use hyper::{body::Incoming, service::service_fn};
use hyper_util::rt::{TokioIo, TokioTimer};

/// Connections served at once.
const MAX_CONNECTIONS: usize = 4096;
/// Most bytes of a request's body.
const MAX_BODY: usize = 1024 * 1024;
/// How long a request's head may take to arrive, which also bounds an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(60);

/// Answers every request with what `answer` makes of its method, path and body, until the drain.
pub(crate) async fn run<F>(listener: Box<dyn Listener>, drain: drain::Watch, answer: F)
where
    F: Fn(&Method, &str, &[u8]) -> String + Send + Sync + 'static,
{
    let answer = Arc::new(answer);
    let closing = drain.clone();
    serve::accept_loop(listener, MAX_CONNECTIONS, drain, move |accepted| {
        connection(accepted, closing.clone(), answer.clone())
    })
    .await;
}

async fn connection<F>(accepted: Accepted, drain: drain::Watch, answer: Arc<F>)
where
    F: Fn(&Method, &str, &[u8]) -> String,
{
    let service = service_fn(|request| {
        let answer = answer.clone();
        async move { Ok::<_, Infallible>(respond(request, &*answer).await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).half_close(true);
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

async fn respond(
    request: Request<Incoming>,
    answer: &impl Fn(&Method, &str, &[u8]) -> String,
) -> Response<Full<Bytes>> {
    let (head, body) = request.into_parts();
    match Limited::new(body, MAX_BODY).collect().await {
        Ok(body) => Response::new(Full::new(answer(&head.method, head.uri.path(), &body.to_bytes()).into())),
        Err(error) => {
            let mut response = Response::new(Full::new(Bytes::from(error.to_string())));
            *response.status_mut() = StatusCode::BAD_REQUEST;
            response
        }
    }
}
