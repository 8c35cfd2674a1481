//! Bytes both ways between two connections, until both directions have ended.
//!
//! An end of one direction is passed on as an end of that direction; the other one stays open as long as its sender likes.
//! A connection that breaks is passed on as a reset: an orderly end would claim that everything arrived.

use std::{
    cell::RefCell,
    future::{Future, poll_fn},
    io,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use crate::{opening::poll_read, stream::Stream};

/// What is read at once.
const BUFFER: usize = 64 << 10;

thread_local! {
    /// What was just read, until it is written in the same breath. Shared by all copies of a worker, so that a connection
    /// holds memory only while its receiver is slower than its sender.
    static SCRATCH: RefCell<Box<[u8]>> = RefCell::new(vec![0; BUFFER].into_boxed_slice());
}

/// Copies until both directions have ended.
///
/// # Errors
/// One of the connections broke; both were reset.
pub(crate) async fn copy(left: Stream, right: Stream) -> io::Result<()> {
    both_ways(left, right, Direction::default()).await
}

/// As [`copy`], but what `left` says first is withheld from `right` until `may_pass` knows of all of it whether it is for
/// `right`. What ends before is not; what takes longer than `patience` is.
///
/// # Errors
/// One of the connections broke, or what was said is not for `right`; both were reset.
pub(crate) async fn copy_judged(
    mut left: Stream,
    mut right: Stream,
    patience: Duration,
    may_pass: impl Fn(&[u8]) -> Option<bool>,
) -> io::Result<()> {
    let mut back = Direction::default();
    match first_words(&mut left, &mut right, &mut back, patience, may_pass).await {
        Ok(said) => {
            if !said.is_empty() {
                left.unread(said.freeze());
            }
            both_ways(left, right, back).await
        }
        Err(error) => {
            left.reset();
            right.reset();
            Err(error)
        }
    }
}

/// Copies `back` until it is known that what `left` says may pass.
async fn first_words(
    left: &mut Stream,
    right: &mut Stream,
    back: &mut Direction,
    patience: Duration,
    may_pass: impl Fn(&[u8]) -> Option<bool>,
) -> io::Result<BytesMut> {
    let mut said = BytesMut::new();
    let mut patience = Patience::Whole(patience);
    let passes = poll_fn(|cx| {
        // Its end is noticed again afterwards.
        if let Poll::Ready(Err(error)) = back.poll_copy(cx, right, left) {
            return Poll::Ready(Err(error));
        }
        while let Poll::Ready(read) = poll_read(cx, left, &mut said) {
            if read? == 0 {
                return Poll::Ready(Ok(said.is_empty()));
            }
            if let Some(passes) = may_pass(&said) {
                return Poll::Ready(Ok(passes));
            }
        }
        match said.is_empty() {
            true => Poll::Pending,
            false => patience.poll_over(cx).map(|()| Ok(true)),
        }
    })
    .await?;
    let refused =
        || io::Error::new(io::ErrorKind::ConnectionAborted, "what was said is not for the other end");
    if passes { Ok(said) } else { Err(refused()) }
}

/// Time that begins to run when it is first asked whether it is over.
enum Patience {
    Whole(Duration),
    Running(Pin<Box<Sleep>>),
}

impl Patience {
    fn poll_over(&mut self, cx: &mut Context<'_>) -> Poll<()> {
        if let Self::Whole(whole) = self {
            *self = Self::Running(Box::pin(sleep(*whole)));
        }
        match self {
            Self::Running(sleep) => sleep.as_mut().poll(cx),
            Self::Whole(_) => Poll::Pending,
        }
    }
}

async fn both_ways(mut left: Stream, mut right: Stream, mut back: Direction) -> io::Result<()> {
    let mut there = Direction::default();
    let result = poll_fn(|cx| {
        let there = there.poll_copy(cx, &mut left, &mut right)?;
        let back = back.poll_copy(cx, &mut right, &mut left)?;
        match (there, back) {
            (Poll::Ready(()), Poll::Ready(())) => Poll::Ready(Ok(())),
            _ => Poll::Pending,
        }
    })
    .await;
    if result.is_err() {
        left.reset();
        right.reset();
    }
    result
}

/// One direction of a copy.
#[derive(Default)]
struct Direction {
    /// Read and not yet written: the receiver is slower than the sender.
    unwritten: Vec<u8>,
    state: State,
    unflushed: bool,
}

#[derive(Default, Clone, Copy, PartialEq, Eq)]
enum State {
    #[default]
    Copying,
    Ending,
    Ended,
}

impl Direction {
    fn poll_copy(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<()>> {
        loop {
            match self.state {
                State::Copying => {
                    ready!(self.poll_unwritten(cx, to))?;
                    match self.poll_pass(cx, from, to) {
                        Poll::Ready(Ok(0)) => self.state = State::Ending,
                        Poll::Ready(Ok(_)) => {}
                        Poll::Ready(Err(error)) => return Poll::Ready(Err(error)),
                        Poll::Pending => return self.poll_idle(cx, to),
                    }
                }
                State::Ending => {
                    ready!(Pin::new(&mut *to).poll_shutdown(cx))?;
                    self.state = State::Ended;
                }
                State::Ended => return Poll::Ready(Ok(())),
            }
        }
    }

    fn poll_unwritten(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        while !self.unwritten.is_empty() {
            let n = ready!(poll_write(cx, to, &self.unwritten))?;
            self.unflushed = true;
            match n == self.unwritten.len() {
                true => self.unwritten = Vec::new(),
                false => drop(self.unwritten.drain(..n)),
            }
        }
        Poll::Ready(Ok(()))
    }

    /// Reads once and writes what it can of it; zero is the end.
    fn poll_pass(
        &mut self,
        cx: &mut Context<'_>,
        from: &mut Stream,
        to: &mut Stream,
    ) -> Poll<io::Result<usize>> {
        SCRATCH.with_borrow_mut(|scratch| {
            let mut buf = ReadBuf::new(scratch);
            ready!(Pin::new(from).poll_read(cx, &mut buf))?;
            let read = buf.filled();
            if read.is_empty() {
                return Poll::Ready(Ok(0));
            }
            let written = match poll_write(cx, to, read) {
                Poll::Ready(written) => written?,
                Poll::Pending => 0,
            };
            self.unflushed = true;
            self.unwritten.extend_from_slice(&read[written..]);
            Poll::Ready(Ok(read.len()))
        })
    }

    /// Nothing to read: what is written must not wait in a buffer, as a TLS record may.
    fn poll_idle(&mut self, cx: &mut Context<'_>, to: &mut Stream) -> Poll<io::Result<()>> {
        if self.unflushed {
            ready!(Pin::new(to).poll_flush(cx))?;
            self.unflushed = false;
        }
        Poll::Pending
    }
}

fn poll_write(cx: &mut Context<'_>, to: &mut Stream, bytes: &[u8]) -> Poll<io::Result<usize>> {
    match ready!(Pin::new(to).poll_write(cx, bytes))? {
        0 => Poll::Ready(Err(io::ErrorKind::WriteZero.into())),
        n => Poll::Ready(Ok(n)),
    }
}
