//! The messages of HTTP and gRPC operations.

use std::convert::Infallible;

use bytes::{BufMut, Bytes, BytesMut};
use futures::stream;
use http::{
    HeaderMap, HeaderName, HeaderValue, Response, StatusCode, Version,
    header::{CONNECTION, CONTENT_TYPE, HOST, TE},
    uri::Authority,
};
use http_body_util::{BodyExt, Full, Limited, StreamBody, combinators::BoxBody};
use hyper::body::{Frame, Incoming};

use super::{
    payload::{MAX_ANSWER, difference},
    request::{AnswerForm, Method, Problem, Request},
};
use crate::history::OpId;

/// The operation, in a request.
pub(super) const OP: HeaderName = HeaderName::from_static("x-op");
/// The payload's length, in a request; without a body it says what the server has to answer to.
pub(super) const LENGTH: HeaderName = HeaderName::from_static("x-length");
/// How to answer, in a request.
pub(super) const ANSWER: HeaderName = HeaderName::from_static("x-answer");
/// The operation that is answered, in a response's header or trailers.
pub(super) const RE: HeaderName = HeaderName::from_static("x-re");
/// How a call ended, in trailers.
pub(super) const GRPC_STATUS: HeaderName = HeaderName::from_static("grpc-status");

/// What both ends send.
pub(super) type Body = BoxBody<Bytes, Infallible>;

/// Bodies of unknown length are sent in pieces of so many bytes, which is no multiple of anything.
const PIECE: usize = 3001;

/// gRPC's method.
const CALL: &str = "/sim.Ops/Ask";

/// An HTTP request for `authority`. `last` says that the connection is used no more.
pub(super) fn request(
    request: &Request,
    authority: &Authority,
    version: Version,
    last: bool,
) -> Result<http::Request<Body>, Problem> {
    let (method, word, body) = match request.method {
        Method::Get => (http::Method::GET, "get", sized(Vec::new())),
        Method::Head => (http::Method::HEAD, "head", sized(Vec::new())),
        Method::Post => (http::Method::POST, "post", sized(request.payload.clone())),
        Method::PostChunked => (http::Method::POST, "post", pieces(request.payload.clone(), None)),
    };
    let path = format!("/{word}/{}", request.id);
    let answer = match request.answer {
        AnswerForm::Sized => "sized",
        AnswerForm::Chunked => "chunked",
        AnswerForm::Trailers => "trailers",
    };
    let message = http::Request::builder()
        .method(method)
        .version(version)
        .header(OP, request.id.to_string())
        .header(LENGTH, request.payload.len())
        .header(ANSWER, answer)
        .header(TE, "trailers");
    // HTTP/2 has no Connection field, and its authority is no field either.
    let message = if version == Version::HTTP_2 {
        message.uri(format!("http://{authority}{path}"))
    } else {
        let connection = if last { "TE, close" } else { "TE" };
        message.uri(path).header(HOST, authority.as_str()).header(CONNECTION, connection)
    };
    message.body(body).map_err(Problem::failed)
}

/// A gRPC call to `authority`.
pub(super) fn call(request: &Request, authority: &Authority) -> Result<http::Request<Body>, Problem> {
    http::Request::post(format!("http://{authority}{CALL}"))
        .version(Version::HTTP_2)
        .header(CONTENT_TYPE, "application/grpc")
        .header(TE, "trailers")
        .header(OP, request.id.to_string())
        .body(pieces(message(&request.payload), None))
        .map_err(Problem::failed)
}

/// Whether `response` is HTTP's answer to `request`.
pub(super) async fn check(request: &Request, response: Response<Incoming>) -> Result<(), Problem> {
    let (head, (answer, trailers)) = received(response).await?;
    about(&head, request.id)?;
    match request.method {
        Method::Head if answer.is_empty() => return Ok(()),
        Method::Head => return Err(Problem::Wrong("a body for HEAD".into())),
        _ => request.verify(&answer)?,
    }
    match request.answer {
        // A client asked for them, and whoever is between may not drop them.
        AnswerForm::Trailers => about(&trailers, request.id),
        AnswerForm::Sized | AnswerForm::Chunked => Ok(()),
    }
}

/// Whether `response` is gRPC's answer to `request`.
pub(super) async fn check_call(request: &Request, response: Response<Incoming>) -> Result<(), Problem> {
    let (head, (body, trailers)) = received(response).await?;
    let status = trailers.get(GRPC_STATUS).or_else(|| head.get(GRPC_STATUS));
    match status.map(HeaderValue::as_bytes) {
        Some(b"0") => {}
        Some(other) => {
            return Err(Problem::Failed(format!("{GRPC_STATUS} {}", String::from_utf8_lossy(other))));
        }
        None => return Err(Problem::Wrong(format!("no {GRPC_STATUS}"))),
    }
    about(&head, request.id)?;
    let expected = message(&super::answer(request.id, &request.payload));
    difference(&body, &expected).map_or(Ok(()), |how| Err(Problem::Wrong(how)))
}

async fn received(response: Response<Incoming>) -> Result<(HeaderMap, (Bytes, HeaderMap)), Problem> {
    if response.status() != StatusCode::OK {
        return Err(Problem::Failed(format!("status {}", response.status())));
    }
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER + 5).collect().await.map_err(Problem::failed)?;
    let trailers = body.trailers().cloned().unwrap_or_default();
    Ok((head.headers, (body.to_bytes(), trailers)))
}

fn about(fields: &HeaderMap, op: OpId) -> Result<(), Problem> {
    match fields.get(RE) {
        Some(value) if value == &op.to_string() => Ok(()),
        other => Err(Problem::Wrong(format!("{RE} is {other:?}"))),
    }
}

/// A message with gRPC's prefix: not compressed, and its length.
pub(super) fn message(payload: &[u8]) -> Vec<u8> {
    let mut message = BytesMut::with_capacity(payload.len() + 5);
    message.put_u8(0);
    message.put_u32(payload.len() as u32);
    message.put_slice(payload);
    message.into()
}

/// A body whose length is announced.
pub(super) fn sized(bytes: Vec<u8>) -> Body {
    Full::new(bytes.into()).boxed()
}

/// A body that comes piece by piece, with trailers if there are any.
pub(super) fn pieces(bytes: Vec<u8>, trailers: Option<HeaderMap>) -> Body {
    let pieces: Vec<_> =
        bytes.chunks(PIECE).map(|piece| Frame::data(Bytes::copy_from_slice(piece))).collect();
    let frames = pieces.into_iter().chain(trailers.map(Frame::trailers));
    StreamBody::new(stream::iter(frames.map(Ok))).boxed()
}
