//! Bodies that their clients send only when they are told to (`Expect: 100-continue`, RFC 9110 section 10.1.1). hyper tells
//! a client as soon as its body is read: so nobody reads it before the server has asked for it, or was silent for long.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU8, Ordering::SeqCst},
    },
    task::{Context, Poll},
    time::Duration,
};

use futures::task::AtomicWaker;
use http::{HeaderValue, Request, StatusCode, Version, header::EXPECT, request};
use tokio::time::{Sleep, sleep};

use super::body::Upload;

/// How long a server may be silent. There are some that never ask and wait for the body, which is why a client does not wait
/// for ever either: curl gives up after this.
const PATIENCE: Duration = Duration::from_secs(1);

/// The server has said nothing yet.
const NOTHING: u8 = 0;
/// It asked for the body, or was silent for too long.
const GO_ON: u8 = 1;
/// It answered without the body.
const ANSWERED: u8 = 2;
/// That answer has passed: the connection to the server, which may still expect a body, is of no more use.
const OVER: u8 = 3;

/// What a server said to a request whose body waits for that. Cloning shares.
#[derive(Debug, Clone, Default)]
pub(crate) struct Expectation(Arc<Word>);

#[derive(Debug, Default)]
struct Word {
    said: AtomicU8,
    /// The task that waits to read the body.
    reader: AtomicWaker,
}

/// Whether the body of a request with this head waits. A server of HTTP/1.0 cannot ask for it.
pub(crate) fn is_expected(head: &request::Parts) -> bool {
    let asks = |value: &HeaderValue| value.as_bytes().eq_ignore_ascii_case(b"100-continue");
    head.version == Version::HTTP_11 && head.headers.get(EXPECT).is_some_and(asks)
}

impl Expectation {
    /// Makes the body of `request` wait.
    pub(crate) fn of(request: &mut Request<Upload>) -> Self {
        let expectation = Self::default();
        request.body_mut().wait(expectation.clone());
        let heard = expectation.clone();
        hyper::ext::on_informational(request, move |response| {
            if response.status() == StatusCode::CONTINUE {
                heard.say(GO_ON);
            }
        });
        expectation
    }

    /// The server answered. True when that was its first word: the body is not read any more.
    pub(crate) fn is_declined(&self) -> bool {
        self.say(ANSWERED)
    }

    /// Says it, unless something else was said before.
    fn say(&self, word: u8) -> bool {
        let is_first = self.0.said.compare_exchange(NOTHING, word, SeqCst, SeqCst).is_ok();
        self.0.reader.wake();
        is_first
    }
}

/// An answer without the body. Dropped when it has passed: that ends the connection to the server.
#[derive(Debug)]
pub(crate) struct Declined(pub(crate) Expectation);

impl Drop for Declined {
    fn drop(&mut self) {
        let Word { said, reader } = &*self.0.0;
        said.store(OVER, SeqCst);
        reader.wake();
    }
}

/// What a body that waits has heard.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Heard {
    /// It is to be sent.
    GoOn,
    /// It will not be sent.
    Answered,
    /// Nor will anything else.
    Over,
}

/// A body's wait. Made when the body is first wanted.
#[derive(Debug)]
pub(crate) struct Wait {
    expectation: Expectation,
    patience: Pin<Box<Sleep>>,
}

impl Wait {
    /// A wait that begins now.
    pub(crate) fn new(expectation: Expectation) -> Self {
        Self { expectation, patience: Box::pin(sleep(PATIENCE)) }
    }

    /// Waits for a word; called again, for the next one.
    pub(crate) fn poll(&mut self, cx: &mut Context<'_>) -> Poll<Heard> {
        let Word { said, reader } = &*self.expectation.0;
        reader.register(cx.waker());
        match said.load(SeqCst) {
            GO_ON => Poll::Ready(Heard::GoOn),
            ANSWERED => Poll::Ready(Heard::Answered),
            OVER => Poll::Ready(Heard::Over),
            _ => {
                std::task::ready!(self.patience.as_mut().poll(cx));
                self.expectation.say(GO_ON);
                self.poll(cx)
            }
        }
    }
}
