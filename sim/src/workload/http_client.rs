//! Asking by HTTP/1.1, HTTP/2 and gRPC.

use std::{future::Future, sync::Arc, time::Duration};

use http::{Version, uri::Authority};
use hyper::client::conn::{TrySendError, http1, http2};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};
use tokio::sync::oneshot;

use conduit_net::Io;

use super::{
    http::{Body, call, check, check_call, request},
    request::{Problem, Request},
};
use crate::history::Protocol;

/// How long a connection that nobody uses any more may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// A connection for one request at a time.
pub(super) struct Http1 {
    sender: http1::SendRequest<Body>,
    _used: Used,
}

impl Http1 {
    /// Speaks HTTP/1.1 on a new connection.
    pub(super) async fn open(io: Io) -> Result<Self, Problem> {
        let (sender, connection) = http1::handshake(TokioIo::new(io)).await.map_err(Problem::failed)?;
        Ok(Self { sender, _used: drive(connection) })
    }

    /// Asks once.
    pub(super) async fn ask(&mut self, asked: &Request, to: &Authority, last: bool) -> Result<(), Problem> {
        let message = request(asked, to, Version::HTTP_11, last)?;
        self.sender.ready().await.map_err(unsent)?;
        let response = self.sender.try_send_request(message).await.map_err(sending)?;
        check(asked, response).await
    }
}

/// A connection for many requests at a time. Cloning shares it.
#[derive(Clone)]
pub(super) struct Http2 {
    sender: http2::SendRequest<Body>,
    _used: Arc<Used>,
}

impl Http2 {
    /// Speaks HTTP/2 on a new connection, with prior knowledge.
    pub(super) async fn open(io: Io) -> Result<Self, Problem> {
        let mut builder = http2::Builder::new(TokioExecutor::new());
        builder.timer(TokioTimer::new());
        let (sender, connection) = builder.handshake(TokioIo::new(io)).await.map_err(Problem::failed)?;
        Ok(Self { sender, _used: Arc::new(drive(connection)) })
    }

    /// Whether it can carry another request.
    pub(super) fn is_open(&self) -> bool {
        !self.sender.is_closed()
    }

    /// Asks once, by HTTP or gRPC.
    pub(super) async fn ask(
        &mut self,
        protocol: Protocol,
        asked: &Request,
        to: &Authority,
    ) -> Result<(), Problem> {
        let is_call = protocol == Protocol::Grpc;
        let message = if is_call { call(asked, to)? } else { request(asked, to, Version::HTTP_2, false)? };
        self.sender.ready().await.map_err(unsent)?;
        let response = self.sender.try_send_request(message).await.map_err(sending)?;
        if is_call { check_call(asked, response).await } else { check(asked, response).await }
    }
}

/// As long as it lives, its connection is in use.
type Used = oneshot::Receiver<()>;

/// Runs a connection as long as it is used, and a while longer, so that it ends in order.
fn drive(connection: impl Future<Output = hyper::Result<()>> + Send + 'static) -> Used {
    let (mut user, used) = oneshot::channel();
    tokio::spawn(async move {
        let unused = async {
            user.closed().await;
            tokio::time::sleep(GOODBYE).await;
        };
        tokio::select! {
            biased;
            // Whoever waits for an answer on it has the error.
            result = connection => drop(result),
            () = unused => {}
        }
    });
    used
}

fn unsent(error: hyper::Error) -> Problem {
    Problem::Unsent(format!("the connection was closed before: {}", chain(&error)))
}

fn sending(mut error: TrySendError<http::Request<Body>>) -> Problem {
    let returned = error.take_message().is_some();
    let error = error.into_error();
    if returned || was_refused(&error) { unsent(error) } else { Problem::Failed(chain(&error)) }
}

/// Whether the server says that it did not begin with the request: RFC 9113 sections 8.7 and 6.8.
fn was_refused(error: &hyper::Error) -> bool {
    let source = std::error::Error::source(error).and_then(|source| source.downcast_ref::<h2::Error>());
    source.is_some_and(|error| {
        let refused = error.is_reset() && error.reason() == Some(h2::Reason::REFUSED_STREAM);
        error.is_remote() && (refused || error.is_go_away())
    })
}

/// An error with all that caused it.
fn chain(error: &dyn std::error::Error) -> String {
    let causes = std::iter::successors(Some(error), |error| error.source());
    causes.map(ToString::to_string).collect::<Vec<_>>().join(": ")
}
