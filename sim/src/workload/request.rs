//! What a client asks in one operation.

use std::ops::RangeInclusive;

use rand::Rng;

use conduit_runtime::Seed;

use super::payload::{MAX_PAYLOAD, answer, difference, payload};
use crate::history::{OpId, Protocol};

/// One operation's request. It follows from the seed and the operation's name, whatever else happens.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Request {
    pub(super) id: OpId,
    pub(super) payload: Vec<u8>,
    pub(super) method: Method,
    pub(super) answer: AnswerForm,
    /// Whether a connection that is used once is ended after the request, before the answer.
    pub(super) half_close: bool,
}

/// How HTTP asks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Method {
    /// Without a body; the server has the length from a header and knows the rest.
    Get,
    /// The same, and the answer has no body either.
    Head,
    /// With a body whose length is announced.
    Post,
    /// With a body that ends when it ends.
    PostChunked,
}

/// How HTTP answers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum AnswerForm {
    /// With a length.
    Sized,
    /// Piece by piece.
    Chunked,
    /// Piece by piece, with a trailer.
    Trailers,
}

impl Request {
    /// What `id` asks, with a payload as long as `lengths` allow.
    pub(super) fn draw(seed: &Seed, id: OpId, protocol: Protocol, lengths: &RangeInclusive<usize>) -> Self {
        let mut rng = seed.fork(&id.to_string()).rng();
        let span = lengths.end().saturating_sub(*lengths.start()) as u64 + 1;
        let len = lengths.start() + (rng.next_u64() % span) as usize;
        let methods = [Method::Get, Method::Post, Method::PostChunked, Method::Post, Method::Head];
        let method = match methods[(rng.next_u64() % 5) as usize] {
            // HTTP/2 compresses headers: without a body nothing would show a sniffer whose message it is.
            Method::Head if protocol == Protocol::Http2 => Method::Get,
            method => method,
        };
        Self {
            id,
            payload: payload(id, len.min(MAX_PAYLOAD)),
            method,
            answer: [AnswerForm::Sized, AnswerForm::Chunked, AnswerForm::Trailers]
                [(rng.next_u64() % 3) as usize],
            half_close: rng.next_u64().is_multiple_of(2),
        }
    }

    /// Whether `got` is what a server must answer.
    ///
    /// # Errors
    /// How it differs.
    pub(super) fn verify(&self, got: &[u8]) -> Result<(), Problem> {
        difference(got, &answer(self.id, &self.payload)).map_or(Ok(()), |how| Err(Problem::Wrong(how)))
    }
}

/// Why an operation has no good answer.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// Nothing of the request was handled, and this is certain: the connection was closed before any of it was sent, or
    /// the server says so. A client may ask again, whatever it asks.
    Unsent(String),
    /// The request may have arrived; asking again could do it twice.
    Failed(String),
    /// There was an answer, and it is not the one.
    Wrong(String),
}

impl Problem {
    /// An input or output error after something was sent.
    pub(super) fn failed(error: impl std::fmt::Display) -> Self {
        Self::Failed(error.to_string())
    }
}

impl From<std::io::Error> for Problem {
    fn from(error: std::io::Error) -> Self {
        Self::failed(error)
    }
}
