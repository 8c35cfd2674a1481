//! Serving HTTP/1.1, HTTP/2 and gRPC.

use std::{future::Future, io, pin::pin, sync::Arc, time::Duration};

use bytes::Bytes;
use http::{
    HeaderMap, HeaderValue, Method, Request, Response, StatusCode,
    header::{CONTENT_LENGTH, CONTENT_TYPE, TRAILER},
};
use http_body_util::{BodyExt, Limited};
use hyper::{
    body::Incoming,
    server::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo, TokioTimer},
    server::graceful::GracefulConnection,
};
use tokio::sync::watch;

use conduit_net::Io;

use super::{
    AppError, DRAIN_LIMIT,
    http::{ANSWER, Body, GRPC_STATUS, LENGTH, OP, RE, message, pieces, sized},
    payload::{MAX_PAYLOAD, payload},
    server::Server,
    wire::broken,
};
use crate::history::{OpId, Protocol};

/// Answers until the client ends, or nothing was under way for `idle`.
pub(super) async fn serve(server: Arc<Server>, io: Io, idle: Duration) -> Result<(), AppError> {
    let (busy, under_way) = watch::channel(0_usize);
    let drain = server.drain.clone();
    let ending = async {
        tokio::select! {
            biased;
            () = drain.signaled() => {}
            () = unused(under_way, idle) => {}
        }
    };
    let busy = Arc::new(busy);
    let protocol = server.protocol;
    let service = service_fn(move |request| {
        let (server, busy) = (server.clone(), busy.clone());
        async move {
            let under_way = UnderWay::begin(busy);
            let answer = respond(&server, request).await;
            drop(under_way);
            // A concrete error: the compiler cannot see that a boxed one may cross threads here.
            answer.map_err(io::Error::other)
        }
    });
    let io = TokioIo::new(io);
    if protocol == Protocol::Http1 {
        // Idle connections are ended below; the reading of heads must not end them earlier.
        let mut builder = http1::Builder::new();
        builder.timer(TokioTimer::new()).auto_date_header(false).header_read_timeout(None);
        until(builder.serve_connection(io, service), ending).await
    } else {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new()).auto_date_header(false);
        until(builder.serve_connection(io, service), ending).await
    }
}

/// Runs a connection; when `ending` says so, what is under way on it is finished and nothing else is begun.
async fn until<C>(connection: C, ending: impl Future<Output = ()>) -> Result<(), AppError>
where
    C: GracefulConnection,
    C::Error: Into<AppError>,
{
    let mut connection = pin!(connection);
    tokio::select! {
        biased;
        result = connection.as_mut() => return result.map_err(Into::into),
        () = ending => {}
    }
    connection.as_mut().graceful_shutdown();
    tokio::time::timeout(DRAIN_LIMIT, connection).await?.map_err(Into::into)
}

/// An operation that is under way, until it is dropped: the client may give it up.
struct UnderWay(Arc<watch::Sender<usize>>);

impl UnderWay {
    fn begin(count: Arc<watch::Sender<usize>>) -> Self {
        count.send_modify(|count| *count += 1);
        Self(count)
    }
}

impl Drop for UnderWay {
    fn drop(&mut self) {
        self.0.send_modify(|count| *count = count.saturating_sub(1));
    }
}

/// Ends when no operation was under way for `limit`.
async fn unused(mut under_way: watch::Receiver<usize>, limit: Duration) {
    loop {
        if under_way.wait_for(|count| *count == 0).await.is_err() {
            return;
        }
        tokio::select! {
            biased;
            _ = under_way.changed() => {}
            () = tokio::time::sleep(limit) => return,
        }
    }
}

async fn respond(server: &Server, request: Request<Incoming>) -> Result<Response<Body>, AppError> {
    let (head, body) = request.into_parts();
    let body = Limited::new(body, MAX_PAYLOAD + 5).collect();
    let whole = async { body.await.map(|body| body.to_bytes()).map_err(io::Error::other) };
    let body = server.in_time(whole).await?;
    if server.protocol == Protocol::Grpc {
        return call(server, &body);
    }
    let op = head.headers.get(OP).and_then(|value| OpId::find(value.as_bytes()));
    let (Some(op), Some(len)) = (op, number(&head.headers)) else {
        return Ok(status(StatusCode::BAD_REQUEST)?);
    };
    let same = OpId::find(head.uri.path().as_bytes()) == Some(op);
    let answer = match head.method {
        Method::POST => server.arrived(op, &body, same && body.len() == len),
        _ => server.arrived(op, &payload(op, len), same && body.is_empty()),
    };
    let re = HeaderValue::try_from(op.to_string())?;
    let response = Response::builder().header(RE, re.clone());
    if head.method == Method::HEAD {
        // The length is the body's that GET would have.
        return Ok(response.header(CONTENT_LENGTH, answer.len()).body(sized(Vec::new()))?);
    }
    let form = head.headers.get(ANSWER).map(HeaderValue::as_bytes);
    Ok(match form {
        Some(b"trailers") => {
            let trailers = HeaderMap::from_iter([(RE, re)]);
            response.header(TRAILER, RE.as_str()).body(pieces(answer, Some(trailers)))?
        }
        Some(b"chunked") => response.body(pieces(answer, None))?,
        _ => response.body(sized(answer))?,
    })
}

/// A call with one message in each direction.
fn call(server: &Server, body: &Bytes) -> Result<Response<Body>, AppError> {
    let Some(payload) = body.get(5..).filter(|payload| body[..5] == message(payload)[..5]) else {
        return Err(broken("no gRPC message").into());
    };
    let op = OpId::find(payload).ok_or_else(|| broken("a message of nobody"))?;
    let answer = server.arrived(op, payload, true);
    let trailers = HeaderMap::from_iter([(GRPC_STATUS, HeaderValue::from_static("0"))]);
    let response = Response::builder().header(CONTENT_TYPE, "application/grpc").header(RE, op.to_string());
    Ok(response.body(pieces(message(&answer), Some(trailers)))?)
}

fn status(status: StatusCode) -> Result<Response<Body>, http::Error> {
    Response::builder().status(status).body(sized(Vec::new()))
}

fn number(fields: &HeaderMap) -> Option<usize> {
    let len = fields.get(LENGTH)?.to_str().ok()?.parse().ok()?;
    (len <= MAX_PAYLOAD).then_some(len)
}
