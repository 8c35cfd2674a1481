//! Both ends of HTTP/1 connections: serving the client's, and driving the server's.
//!
//! A connection on which nothing happens for a moment is put to sleep: hyper's state and buffers, some 16 KiB on each
//! end, are given up, and only the stream is kept. Meshes have many idle connections.
//!
//! hyper's buffers grow to the largest head that we take. A body must not fill them while its receiver is slow: it is read in
//! pieces, and no piece is taken before the one before it has left (`body.rs`).

use std::{
    future::{Future, poll_fn},
    mem::replace,
    pin::{Pin, pin},
    task::{Context, Poll, ready},
    time::Duration,
};

use http::{Request, Response};
use hyper::{
    body::Incoming, client::conn::http1 as client, server::conn::http1 as server, service::service_fn,
};
use hyper_util::rt::TokioIo;
use tokio::{
    io::AsyncWriteExt,
    sync::oneshot,
    time::{Instant, sleep_until, timeout},
};

use super::{
    activity::{Activity, Granted},
    body::{Body, Upload},
    forward::Failed,
};
use crate::{
    detect::{MAX_HEAD_BYTES, MAX_HEADERS},
    stream::Stream,
};

/// How long an end of a connection may take to be written.
const GOODBYE: Duration = Duration::from_secs(5);

/// Sends requests over one connection.
pub(crate) type Sender = client::SendRequest<Upload>;

/// How serving a connection ended.
pub(crate) enum Ended {
    /// It is closed.
    Closed,
    /// Nothing happened for a moment; the connection is open.
    Asleep(Stream),
    /// It is not HTTP any more.
    Granted(Stream, Granted),
}

/// Serves `stream` until it ends, becomes something else, or falls asleep; after `ending`, until nothing is under way.
///
/// # Errors
/// The client broke the connection or the protocol.
pub(crate) async fn serve<Forward, Answer>(
    mut stream: Stream,
    forward: Forward,
    activity: &Activity,
    ending: Pin<&mut impl Future<Output = ()>>,
) -> Result<Ended, hyper::Error>
where
    Forward: Fn(Request<Incoming>) -> Answer + Unpin,
    Answer: Future<Output = Result<Response<Body>, Failed>> + Unpin,
{
    let mut builder = server::Builder::new();
    builder
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .preserve_header_case(true)
        // An end behind a whole request is withheld from hyper, which would take it for the end of everything.
        .half_close(false)
        // The application's own timeouts apply: it is tied to this connection.
        .header_read_timeout(None)
        .auto_date_header(false);
    stream.read_in_pieces();
    let mut connection = builder.serve_connection(TokioIo::new(stream), service_fn(forward));
    let fell_asleep = run(&mut connection, activity, ending).await?;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if !parts.read_buf.is_empty() {
        stream.unread(parts.read_buf);
    }
    let granted = activity.take_granted();
    Ok(match granted {
        Some(granted) => Ended::Granted(stream, granted),
        None if fell_asleep => Ended::Asleep(stream),
        None => {
            close(stream).await;
            Ended::Closed
        }
    })
}

/// True when the connection was stopped because nothing happens on it.
async fn run<Service>(
    connection: &mut server::Connection<TokioIo<Stream>, Service>,
    activity: &Activity,
    mut ending: Pin<&mut impl Future<Output = ()>>,
) -> Result<bool, hyper::Error>
where
    Service: hyper::service::HttpService<Incoming, ResBody = Body, Future: Unpin> + Unpin,
    Service::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
{
    let mut nap = pin!(sleep_until(Instant::now() + activity.drowsy()));
    let mut seen = activity.begun();
    let (mut stopping, mut asleep) = (false, false);
    poll_fn(|cx| {
        loop {
            if let Poll::Ready(ended) = connection.poll_without_shutdown(cx) {
                if ended.is_err() {
                    activity.break_off();
                }
                return Poll::Ready(ended);
            }
            activity.pass_end_on();
            // Stopped because it seemed idle, and was not: it ends when it is.
            asleep = false;
            if stopping {
                return Poll::Pending;
            }
            if ending.as_mut().poll(cx).is_pending() {
                ready!(nap.as_mut().poll(cx));
                nap.as_mut().reset(Instant::now() + activity.drowsy());
                let begun = activity.begun();
                asleep = begun == replace(&mut seen, begun) && activity.is_idle();
                if !asleep {
                    continue;
                }
            }
            stopping = true;
            Pin::new(&mut *connection).graceful_shutdown();
        }
    })
    .await?;
    Ok(asleep)
}

/// Waits, holding next to nothing, until the client speaks: true; or until it ends, or `others` or `ending` say so.
pub(crate) async fn sleep(
    stream: &mut Stream,
    mut others: impl FnMut(&mut Context<'_>) -> Poll<()>,
    mut ending: Pin<&mut impl Future<Output = ()>>,
) -> bool {
    poll_fn(|cx| {
        if let Poll::Ready(spoke) = stream.poll_wake(cx) {
            return Poll::Ready(spoke);
        }
        let over = others(cx).is_ready() || ending.as_mut().poll(cx).is_ready();
        if over { Poll::Ready(false) } else { Poll::Pending }
    })
    .await
}

/// Speaks HTTP/1 on a connection to a server: what requests are sent by, and what has to be [driven](drive).
///
/// # Errors
/// None that a new connection has; hyper says it may.
pub(crate) async fn open(
    mut stream: Stream,
) -> Result<(Sender, client::Connection<TokioIo<Stream>, Upload>), hyper::Error> {
    let mut builder = client::Builder::new();
    builder
        .max_headers(MAX_HEADERS)
        .max_buf_size(MAX_HEAD_BYTES)
        .preserve_header_case(true)
        .allow_obsolete_multiline_headers_in_responses(true)
        .allow_spaces_after_header_name_in_responses(true);
    stream.read_in_pieces();
    builder.handshake(TokioIo::new(stream)).await
}

/// Drives a connection to a server until it stops being HTTP: because its sender was dropped, because it was upgraded, or
/// because the server closed it. The stream is what is left.
///
/// # Errors
/// The server broke the connection or the protocol.
pub(crate) async fn drive(
    mut connection: client::Connection<TokioIo<Stream>, Upload>,
) -> Result<Stream, hyper::Error> {
    poll_fn(|cx| connection.poll_without_shutdown(cx)).await?;
    let parts = connection.into_parts();
    let mut stream = parts.io.into_inner();
    if !parts.read_buf.is_empty() {
        stream.unread(parts.read_buf);
    }
    Ok(stream)
}

/// Drives a connection in a task of its own, and says so when it has stopped being HTTP. The stream that is left is for whoever
/// still holds the receiver; it is closed otherwise.
pub(crate) fn spawn(
    connection: client::Connection<TokioIo<Stream>, Upload>,
    ended: impl FnOnce() + Send + 'static,
) -> oneshot::Receiver<Stream> {
    let (give, left) = oneshot::channel();
    tokio::spawn(async move {
        let driven = drive(connection).await;
        ended();
        match driven {
            Ok(stream) => {
                if let Err(unwanted) = give.send(stream) {
                    close(unwanted).await;
                }
            }
            Err(error) => tracing::debug!(%error, "an upstream connection broke"),
        }
    });
    left
}

/// Ends a connection in order, within TLS with a word of its own.
pub(crate) async fn close(mut stream: Stream) {
    // A peer that does not take even that has its connection dropped.
    drop(timeout(GOODBYE, stream.shutdown()).await);
}
