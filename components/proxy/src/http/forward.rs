//! One request to one upstream connection, and its response back.

use std::{
    error::{self, Error as _},
    fmt, io,
    sync::Arc,
    time::Duration,
};

use http::{
    HeaderValue, Request, Response, StatusCode,
    header::{CONNECTION, CONTENT_TYPE},
    request,
};
use hyper::{
    body::Incoming,
    client::conn::{self, TrySendError},
    upgrade::OnUpgrade,
};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use super::{
    activity::{Activity, Granted},
    body::{Body, Record, Upload, h2_cause, unavailable},
    expect::{self, Declined, Expectation},
    headers::{self, Becomes, Tie},
    upgrade,
};
use crate::{
    detect::MAX_HEAD_BYTES,
    pool::{Idle, Key, Lanes},
    session::{End, Exchange, Failure},
    stream::{Control, Stream},
};

/// A request that got no response. hyper turns it into the end of an HTTP/1 connection or the reset of an HTTP/2 stream.
#[derive(Debug)]
pub(crate) struct Failed {
    /// Why.
    pub(crate) failure: Failure,
    /// What the client's HTTP/2 stream is reset with.
    reset: h2::Error,
}

impl Failed {
    /// Nothing of the request reached a server: an HTTP/2 client may send it again.
    pub(crate) fn unsent(failure: Failure) -> Self {
        Self { failure, reset: h2::Reason::REFUSED_STREAM.into() }
    }

    /// A server may have looked at it. Why it gave no answer is passed on, unless it says that nothing is wrong: for the
    /// client something is.
    fn sent(failure: Failure, reason: Option<h2::Reason>) -> Self {
        let reason = reason.filter(|reason| *reason != h2::Reason::NO_ERROR);
        Self { failure, reset: reason.unwrap_or(h2::Reason::INTERNAL_ERROR).into() }
    }
}

impl fmt::Display for Failed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.failure.fmt(f)
    }
}

impl error::Error for Failed {
    fn source(&self) -> Option<&(dyn error::Error + 'static)> {
        Some(&self.reset)
    }
}

/// An HTTP/1 connection on loan for one request.
#[derive(Debug)]
pub(crate) struct Lease {
    pub(crate) lanes: Arc<Lanes>,
    pub(crate) key: Key,
    pub(crate) idle: Idle,
}

impl Lease {
    /// The response is whole: the connection may serve the next request.
    pub(crate) fn give_back(self) {
        self.lanes.put(self.key, self.idle);
    }
}

/// What is needed when the response to a request comes.
pub(crate) struct Returning {
    asked: Becomes,
    tie: Tie,
    /// Of the client's connection, if it is HTTP/1.
    activity: Option<Arc<Activity>>,
    /// Of the client's stream, if it is HTTP/2 and asks for a tunnel.
    downstream: Option<OnUpgrade>,
    /// Of a body that waits for the server.
    expectation: Option<Expectation>,
}

/// Removes from a request what concerns the client's connection alone.
pub(crate) fn prepare(
    mut head: request::Parts,
    incoming: Incoming,
    tie: Tie,
    activity: Option<Arc<Activity>>,
) -> (Request<Upload>, Returning) {
    let asked = headers::prepare_request(&mut head, tie);
    headers::allow_no_authority(&mut head);
    if let Some(activity) = &activity {
        activity.set_asks(asked != Becomes::Http);
    }
    let body = Upload::new(incoming, activity.as_ref().map(Activity::arriving));
    let is_plain_http1 = activity.is_some() && asked == Becomes::Http;
    let waits = is_plain_http1 && !body.is_empty() && expect::is_expected(&head);
    let mut request = Request::from_parts(head, body);
    let expectation = waits.then(|| Expectation::of(&mut request));
    let wants_tunnel = asked != Becomes::Http && activity.is_none();
    let downstream = wants_tunnel.then(|| hyper::upgrade::on(&mut request));
    (request, Returning { asked, tie, activity, downstream, expectation })
}

impl Returning {
    /// The response as the client gets it; its end is the end of `record`.
    pub(crate) fn response(self, response: Response<Incoming>, mut record: Record) -> Response<Body> {
        let (mut head, incoming) = response.into_parts();
        record.exchange.responded(head.status, &head.headers);
        if headers::prepare_response(&mut head, self.asked, self.tie) {
            return self.hand_over(Response::from_parts(head, incoming), record);
        }
        if let Some(activity) = self.activity.filter(|_| self.asked != Becomes::Http) {
            activity.set_asks(false);
        }
        let declined = self.expectation.filter(Expectation::is_declined);
        let is_last = declined.is_some();
        // Of connections that are tied, the client's ends with this response, and the server's with the client's.
        record.declined = declined.filter(|_| self.tie == Tie::Loose).map(Declined);
        let body = Body::new(incoming, head.status, &head.headers, record);
        let mut response = Response::from_parts(head, body);
        if is_last {
            make_last(&mut response);
        }
        response
    }

    /// The request is over; the connections go on, each with its own record.
    fn hand_over(self, mut response: Response<Incoming>, mut record: Record) -> Response<Body> {
        record.exchange.end(End::Complete);
        if let Some(downstream) = self.downstream {
            upgrade::splice(downstream, hyper::upgrade::on(&mut response));
        }
        if let Some(activity) = self.activity {
            let idle = record.lease.take().map(|lease| lease.idle);
            let not_after = idle.as_ref().and_then(|idle| idle.not_after);
            activity.grant(Granted { upstream: idle.map(|idle| idle.stream), not_after });
        }
        response.map(|_| Body::empty())
    }
}

/// An answer of our own. It is the last one of its HTTP/1 connection: what follows on it may be the request's body.
pub(crate) fn answer(status: StatusCode, version: http::Version) -> Response<Body> {
    let mut response = Response::new(Body::empty());
    *response.status_mut() = status;
    if version < http::Version::HTTP_2 {
        make_last(&mut response);
    }
    response
}

/// Ends the client's HTTP/1 connection with this response, unless it becomes something else with it.
pub(crate) fn make_last(response: &mut Response<Body>) {
    if response.status() != StatusCode::SWITCHING_PROTOCOLS {
        response.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
    }
}

/// A request that was not answered.
#[derive(Debug)]
pub(crate) struct Unanswered {
    /// The request itself, if no byte of it left us.
    pub(crate) unsent: Option<Box<Request<Upload>>>,
    /// The peer proved that it did not look at the request (RFC 9113 section 8.7).
    pub(crate) is_unprocessed: bool,
    /// The request's body is no HTTP.
    pub(crate) is_malformed: bool,
    failure: Failure,
    reason: Option<h2::Reason>,
}

impl Unanswered {
    /// There was no connection any more to send it on.
    pub(crate) fn closed() -> Self {
        Self {
            unsent: None,
            is_unprocessed: false,
            is_malformed: false,
            failure: Failure::Closed,
            reason: None,
        }
    }

    /// Whether no server can have looked at the request.
    fn is_unseen(&self) -> bool {
        self.is_unprocessed || self.unsent.is_some()
    }

    /// Ends the request's record, and tells the client in the words of its protocol: a call of gRPC by a status, HTTP/2
    /// by a reset, HTTP/1 by the end of the connection. An HTTP/2 client is told if it may send the request again.
    ///
    /// # Errors
    /// There is no answer; hyper makes the best of it.
    pub(crate) fn answer(
        self,
        exchange: &mut Exchange,
        grpc: bool,
        control: Option<&Control>,
    ) -> Result<Response<Body>, Failed> {
        if self.is_malformed {
            exchange.malformed();
        }
        exchange.end(match self.reason {
            Some(reason) => End::Reset(reason),
            None => End::Failed(self.failure),
        });
        if self.is_unseen() {
            control.into_iter().for_each(Control::arm_reset);
            return Err(Failed::unsent(self.failure));
        }
        if grpc && self.reason.is_none() {
            let mut response = Response::new(Body::empty());
            *response.headers_mut() = unavailable();
            response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static("application/grpc"));
            return Ok(response);
        }
        control.into_iter().for_each(Control::arm_reset);
        Err(Failed::sent(self.failure, self.reason))
    }
}

impl From<TrySendError<Request<Upload>>> for Unanswered {
    fn from(mut error: TrySendError<Request<Upload>>) -> Self {
        let unsent = error.take_message().map(Box::new);
        let error = error.into_error();
        let failure = if error.is_parse() { Failure::Protocol } else { Failure::Closed };
        let cause = h2_cause(&error);
        let is_unprocessed = cause.is_some_and(|cause| {
            let refused = cause.is_reset() && cause.reason() == Some(h2::Reason::REFUSED_STREAM);
            cause.is_remote() && (refused || cause.is_go_away())
        });
        let reason = cause.and_then(h2::Error::reason);
        Self { unsent, is_unprocessed, is_malformed: is_of_malformed_body(&error), failure, reason }
    }
}

/// Whether a request failed because its body's coding makes no sense. hyper's decoder says so by the kind of its error.
fn is_of_malformed_body(error: &hyper::Error) -> bool {
    let mut causes = std::iter::successors(error.source(), |cause| (*cause).source());
    error.is_user()
        && causes.any(|cause| {
            let kind = cause.downcast_ref::<io::Error>().map(io::Error::kind);
            matches!(kind, Some(io::ErrorKind::InvalidInput | io::ErrorKind::InvalidData))
        })
}

/// How long a ping may stay unanswered: a proxy that is starved of CPU for a while is not gone.
const PONG: Duration = Duration::from_secs(20);

/// Sends requests over one HTTP/2 connection.
pub(crate) type Http2 = conn::http2::SendRequest<Upload>;

/// Speaks HTTP/2 on `stream`; the second value ends with the connection. As long as answers are awaited the server is asked
/// every `ping` whether it is still there: another proxy always answers, other servers may mind.
///
/// # Errors
/// The preface could not be written.
pub(crate) async fn open_http2(
    stream: Stream,
    ping: Option<Duration>,
) -> Result<(Http2, impl Future<Output = Result<(), hyper::Error>> + Send), hyper::Error> {
    let mut client = conn::http2::Builder::new(TokioExecutor::new());
    client
        .timer(TokioTimer::new())
        .keep_alive_interval(ping)
        .keep_alive_timeout(PONG)
        .max_header_list_size(MAX_HEAD_BYTES as u32);
    client.handshake(TokioIo::new(stream)).await
}
