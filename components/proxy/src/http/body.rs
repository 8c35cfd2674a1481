//! Bodies on their way: of a request to the server, and of a response to the client, which tells the request's record
//! what passes.

use std::{
    pin::Pin,
    task::{Context, Poll, ready},
};

use bytes::{Buf, Bytes};
use http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header::CONTENT_LENGTH};
use http_body::{Body as _, Frame, SizeHint};
use hyper::body::Incoming;

use crate::{
    http::{
        activity::{Arriving, UnderWay},
        expect::{Declined, Expectation, Heard, Wait},
        forward::Lease,
    },
    session::{End, Exchange, Failure},
    stream::Control,
};

/// A response's body. Frames pass as they come: a client that reads slowly slows the server down.
#[derive(Debug)]
pub(crate) struct Body {
    /// None: the answer is ours, or the connection stops being HTTP.
    incoming: Option<Incoming>,
    /// None after the end.
    record: Option<Record>,
    /// The response has no body, but says how long it would be.
    only_announced: bool,
    /// Until hyper has done with the response.
    _under_way: Option<UnderWay>,
}

/// What goes on until the body ends.
#[derive(Debug)]
pub(crate) struct Record {
    /// The request's record.
    pub(crate) exchange: Exchange,
    /// The connection that the response comes from, to be given back when it is whole.
    pub(crate) lease: Option<Lease>,
    /// Breaks the client's connection when the response breaks off: an HTTP/1 body may otherwise seem whole.
    pub(crate) control: Option<Control>,
    /// Keeps the client's HTTP/1 connection awake.
    pub(crate) under_way: Option<UnderWay>,
    /// A call of gRPC, which has words of its own for a lost connection.
    pub(crate) grpc: bool,
    /// The server answered without the body that it was offered: its connection is not used again.
    pub(crate) declined: Option<Declined>,
}

impl Body {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self { incoming: None, record: None, only_announced: false, _under_way: None }
    }

    /// The body of a server's response.
    pub(crate) fn new(
        incoming: Incoming,
        status: StatusCode,
        headers: &HeaderMap,
        mut record: Record,
    ) -> Self {
        // hyper drops a length from a 304 without a body; it is the length the body would have (RFC 9110 section 8.6).
        let only_announced = status == StatusCode::NOT_MODIFIED && headers.contains_key(CONTENT_LENGTH);
        let _under_way = record.under_way.take();
        let mut body = Self { incoming: Some(incoming), record: Some(record), only_announced, _under_way };
        body.end_if_whole();
        body
    }

    /// Whether the client has not taken yet what was last written to it.
    fn is_held_up(&self) -> bool {
        let control = self.record.as_ref().and_then(|record| record.control.as_ref());
        control.is_some_and(Control::is_blocked)
    }

    fn end_if_whole(&mut self) {
        if self.incoming.as_ref().is_none_or(http_body::Body::is_end_stream)
            && let Some(record) = self.record.take()
        {
            record.complete();
        }
    }
}

impl Record {
    fn complete(mut self) {
        self.exchange.end(End::Complete);
        if let Some(lease) = self.lease.take().filter(|_| self.declined.is_none()) {
            lease.give_back();
        }
    }

    /// What to tell the client instead of the error, if there are words for it.
    fn broke_off(mut self, error: &hyper::Error) -> Option<HeaderMap> {
        let reason = h2_cause(error).and_then(h2::Error::reason);
        self.exchange.end(match reason {
            Some(reason) => End::Reset(reason),
            None => End::Failed(Failure::Closed),
        });
        if let Some(control) = &self.control {
            control.arm_reset();
        }
        (self.grpc && reason.is_none()).then(unavailable)
    }
}

/// What a client of gRPC would make of a connection that it lost itself: it may try again elsewhere.
pub(crate) fn unavailable() -> HeaderMap {
    const UNAVAILABLE: HeaderValue = HeaderValue::from_static("14");
    const LOST: HeaderValue = HeaderValue::from_static("the connection to the server was lost");
    let fields = [("grpc-status", UNAVAILABLE), ("grpc-message", LOST)];
    fields.into_iter().map(|(name, value)| (HeaderName::from_static(name), value)).collect()
}

/// A request's body.
#[derive(Debug)]
pub(crate) struct Upload {
    /// None for a request without one, which can be made again for a replay.
    incoming: Option<Incoming>,
    /// Told when the body stalls, and when it has passed.
    arriving: Option<Arriving>,
    /// Until the server has said whether it wants the body.
    waits: Option<Waits>,
}

#[derive(Debug)]
enum Waits {
    /// Nobody wanted to read the body yet.
    NotYet(Expectation),
    Already(Box<Wait>),
}

impl Upload {
    /// No body.
    pub(crate) fn empty() -> Self {
        Self { incoming: None, arriving: None, waits: None }
    }

    /// The body of a client's request.
    pub(crate) fn new(incoming: Incoming, arriving: Option<Arriving>) -> Self {
        match incoming.is_end_stream() {
            true => Self::empty(),
            false => Self { incoming: Some(incoming), arriving, waits: None },
        }
    }

    /// Whether there is none.
    pub(crate) fn is_empty(&self) -> bool {
        self.incoming.is_none()
    }

    /// Has it read only when the server wants it.
    pub(crate) fn wait(&mut self, expectation: Expectation) {
        self.waits = Some(Waits::NotYet(expectation));
    }

    /// Waits until it is to be sent: true; or until nothing is.
    fn poll_wanted(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if let Some(Waits::NotYet(expectation)) = &self.waits {
            self.waits = Some(Waits::Already(Box::new(Wait::new(expectation.clone()))));
        }
        let Some(Waits::Already(wait)) = &mut self.waits else { return Poll::Ready(true) };
        match ready!(wait.poll(cx)) {
            Heard::GoOn => {
                self.waits = None;
                Poll::Ready(true)
            }
            Heard::Answered => {
                // The client's connection reads no more, and ends with the answer. The server's is left as it is meanwhile:
                // hyper takes the end of a body that has not begun for a failure.
                (self.incoming, self.arriving) = (None, None);
                Poll::Pending
            }
            Heard::Over => Poll::Ready(false),
        }
    }
}

impl http_body::Body for Upload {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if !ready!(self.poll_wanted(cx)) {
            return Poll::Ready(None);
        }
        if self.arriving.as_ref().is_some_and(Arriving::is_held_up) {
            // hyper asks again as soon as it has written what it has.
            return Poll::Pending;
        }
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let frame = Pin::new(incoming).poll_frame(cx);
        if let (Poll::Pending, Some(arriving)) = (&frame, &self.arriving) {
            arriving.stalls(cx);
        }
        frame
    }

    fn is_end_stream(&self) -> bool {
        self.waits.is_none() && self.incoming.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    /// A body that is not there has no length: hyper would tell it to an HTTP/2 server, in a field that the client did not send.
    fn size_hint(&self) -> SizeHint {
        self.incoming.as_ref().map_or(SizeHint::default(), http_body::Body::size_hint)
    }
}

/// What HTTP/2 says about an error.
pub(crate) fn h2_cause<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e h2::Error> {
    let mut cause = Some(error);
    while let Some(error) = cause {
        if let Some(h2) = error.downcast_ref::<h2::Error>() {
            return Some(h2);
        }
        cause = error.source();
    }
    None
}

impl http_body::Body for Body {
    type Data = Bytes;
    type Error = hyper::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, hyper::Error>>> {
        if self.is_held_up() {
            // hyper asks again as soon as it has written what it has.
            return Poll::Pending;
        }
        let Some(incoming) = &mut self.incoming else { return Poll::Ready(None) };
        let mut frame = ready!(Pin::new(incoming).poll_frame(cx));
        if let Some(record) = &mut self.record {
            match &frame {
                Some(Ok(frame)) => {
                    if let Some(data) = frame.data_ref() {
                        record.exchange.data(data.remaining());
                    } else if let Some(trailers) = frame.trailers_ref() {
                        record.exchange.trailers(trailers);
                        // Nothing comes behind them, and over HTTP/1 nobody asks whether something does.
                        self.record.take().into_iter().for_each(Record::complete);
                    }
                }
                Some(Err(error)) => {
                    let told = self.record.take().and_then(|record| record.broke_off(error));
                    if let Some(trailers) = told {
                        self.incoming = None;
                        frame = Some(Ok(Frame::trailers(trailers)));
                    }
                }
                None => {
                    if let Some(record) = self.record.take() {
                        record.complete();
                    }
                }
            }
        }
        self.end_if_whole();
        Poll::Ready(frame)
    }

    fn is_end_stream(&self) -> bool {
        !self.only_announced && self.incoming.as_ref().is_none_or(http_body::Body::is_end_stream)
    }

    fn size_hint(&self) -> SizeHint {
        match &self.incoming {
            Some(_) if self.only_announced => SizeHint::default(),
            Some(incoming) => incoming.size_hint(),
            None => SizeHint::with_exact(0),
        }
    }
}
