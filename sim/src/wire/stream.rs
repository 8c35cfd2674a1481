//! One end of a connection, as a process holds it.

use std::{
    io,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    time::{Sleep, sleep},
};

use super::{
    Wire,
    connection::{Broken, Read, Side},
};
use crate::time::elapsed;

/// A wait for something that is on its way.
#[derive(Default)]
pub(super) struct Arrival(Option<Pin<Box<Sleep>>>);

impl Arrival {
    /// Waits for simulated time `at`; ready when it has come.
    pub(super) fn poll_until(&mut self, at: Duration, cx: &mut Context<'_>) -> Poll<()> {
        let mut arrival = Box::pin(sleep(at.saturating_sub(elapsed())));
        let polled = arrival.as_mut().poll(cx);
        self.0 = polled.is_pending().then_some(arrival);
        polled
    }
}

pub(super) struct Stream {
    wire: Wire,
    id: u64,
    side: Side,
    resets: bool,
    arrival: Arrival,
}

impl Stream {
    pub(super) fn new(wire: Wire, id: u64, side: Side) -> Self {
        Self { wire, id, side, resets: false, arrival: Arrival::default() }
    }
}

impl conduit_net::Stream for Stream {
    fn reset_on_close(&mut self) {
        self.resets = true;
    }
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        if buf.remaining() == 0 {
            return Poll::Ready(Ok(()));
        }
        let (id, side, room) = (self.id, self.side, buf.remaining());
        loop {
            let read = self.wire.with(|state, wakers| {
                let read = state.read(id, side, room, wakers);
                if matches!(read, Read::At(_) | Read::Nothing)
                    && let Some(connection) = state.connections.get_mut(&id)
                {
                    wakers.extend(
                        connection
                            .end(side)
                            .reader
                            .replace(cx.waker().clone())
                            .filter(|old| !old.will_wake(cx.waker())),
                    );
                }
                read
            });
            match read {
                Read::Data(bytes) => {
                    buf.put_slice(&bytes);
                    return Poll::Ready(Ok(()));
                }
                Read::End => return Poll::Ready(Ok(())),
                Read::Reset => return Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
                Read::Nothing => return Poll::Pending,
                Read::At(at) => std::task::ready!(self.arrival.poll_until(at, cx)),
            }
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let (id, side) = (self.id, self.side);
        if bytes.is_empty() {
            return Poll::Ready(Ok(0));
        }
        let written = self.wire.with(|state, wakers| {
            let written = state.write(id, side, bytes, wakers);
            if written == Ok(0)
                && let Some(connection) = state.connections.get_mut(&id)
            {
                wakers.extend(
                    connection
                        .end(side.other())
                        .writer
                        .replace(cx.waker().clone())
                        .filter(|old| !old.will_wake(cx.waker())),
                );
            }
            written
        });
        match written {
            Ok(0) => Poll::Pending,
            Ok(written) => Poll::Ready(Ok(written)),
            Err(Broken::Reset) => Poll::Ready(Err(io::ErrorKind::ConnectionReset.into())),
            Err(Broken::ShutDown) => Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.wire.with(|state, wakers| state.shut_down(self.id, self.side, wakers));
        Poll::Ready(Ok(()))
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        self.wire.with(|state, wakers| state.close(self.id, self.side, self.resets, wakers));
    }
}
