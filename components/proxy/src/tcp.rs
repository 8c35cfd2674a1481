//! Bytes both ways between two connections, until both directions have ended.
//!
//! An end of one direction is passed on as an end of that direction; the other one stays open as long as its sender likes.
//! A connection that breaks is passed on as a reset: an orderly end would claim that everything arrived.

use std::{
    cell::RefCell,
    future::poll_fn,
    io,
    pin::Pin,
    task::{Context, Poll, ready},
};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::stream::Stream;

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
pub(crate) async fn copy(mut left: Stream, mut right: Stream) -> io::Result<()> {
    let mut there = Direction::default();
    let mut back = Direction::default();
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
