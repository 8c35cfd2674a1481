//! [`Stream`]: one connection, in the clear or within TLS, accepted or opened, with its record.
//!
//! - `stream/control.rs`: what others may tell it, and ask of it, while hyper owns it

mod control;

use std::{
    io,
    io::IoSlice,
    mem::{self, MaybeUninit},
    pin::Pin,
    task::{Context, Poll, Waker, ready},
};

use bytes::{Buf, Bytes};
use conduit_net::{Io, Prefixed};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio_rustls::{client, server};

pub(crate) use self::control::Control;
use crate::session::Transport;

/// What is read of a connection at once to see whether it woke: a usual request.
const WAKE_BUFFER: usize = 2 << 10;

/// What is handed over at once when a stream is read in pieces: a record of TLS.
const PIECE: usize = 16 << 10;

/// A connection. What was read of it to find out what it carries can be put back with [`Stream::unread`].
pub(crate) struct Stream {
    unread: Bytes,
    /// None only while it is being dropped.
    carrier: Option<Carrier>,
    /// None until the connection's status is known.
    transport: Option<Transport>,
    /// Bytes read before that.
    early: usize,
    in_pieces: bool,
    control: Option<Control>,
}

/// What carries the bytes. TLS is boxed: its kilobyte would sit in every plaintext connection otherwise.
enum Carrier {
    Plain(Io),
    Opened(Box<client::TlsStream<Io>>),
    Accepted(Box<server::TlsStream<Prefixed<Io>>>),
}

impl Stream {
    /// A connection in the clear.
    pub(crate) fn plain(io: Io) -> Self {
        Self::new(Carrier::Plain(io))
    }

    /// A TLS connection that we opened.
    pub(crate) fn opened(tls: client::TlsStream<Io>) -> Self {
        Self::new(Carrier::Opened(Box::new(tls)))
    }

    /// A TLS connection that we accepted.
    pub(crate) fn accepted(tls: server::TlsStream<Prefixed<Io>>) -> Self {
        Self::new(Carrier::Accepted(Box::new(tls)))
    }

    fn new(carrier: Carrier) -> Self {
        Self {
            unread: Bytes::new(),
            carrier: Some(carrier),
            transport: None,
            early: 0,
            in_pieces: false,
            control: None,
        }
    }

    /// Puts `bytes` back in front of what is still to be read.
    pub(crate) fn unread(&mut self, bytes: Bytes) {
        self.unread = match self.unread.is_empty() {
            true => bytes,
            false => [bytes, mem::take(&mut self.unread)].concat().into(),
        };
    }

    /// From now on no read yields much, however large its buffer is: for readers that enlarge theirs as long as it is filled.
    pub(crate) fn read_in_pieces(&mut self) {
        self.in_pieces = true;
    }

    /// Records what crossed so far and what will to `transport`. What is put back counts once.
    pub(crate) fn record(&mut self, mut transport: Transport) {
        transport.read(mem::take(&mut self.early));
        self.transport = Some(transport);
    }

    /// For whoever does not own this stream.
    pub(crate) fn control(&mut self) -> Control {
        self.control.get_or_insert_default().clone()
    }

    /// Ends with a reset now.
    pub(crate) fn reset(mut self) {
        self.control().arm_reset();
    }

    /// The connection itself, if it is in the clear, with what was put back.
    pub(crate) fn into_plain(mut self) -> Option<Prefixed<Io>> {
        match self.carrier.take() {
            Some(Carrier::Plain(io)) => Some(Prefixed::new(mem::take(&mut self.unread), io)),
            other => {
                self.carrier = other;
                None
            }
        }
    }

    /// Waits for bytes to be there (true), or for the end (false), with no buffer of its own while it waits.
    pub(crate) fn poll_wake(&mut self, cx: &mut Context<'_>) -> Poll<bool> {
        if self.unread.is_empty() {
            let mut buffer = [MaybeUninit::uninit(); WAKE_BUFFER];
            let mut buf = ReadBuf::uninit(&mut buffer);
            if ready!(Pin::new(&mut *self).poll_read(cx, &mut buf)).is_ok() {
                self.unread = Bytes::copy_from_slice(buf.filled());
            }
        }
        Poll::Ready(!self.unread.is_empty())
    }

    /// Whether the peer neither said anything nor ended.
    pub(crate) fn is_quiet(&mut self) -> bool {
        self.poll_wake(&mut Context::from_waker(Waker::noop())).is_pending()
    }

    fn mark_read(&self) {
        if let Some(control) = &self.control {
            control.mark_read();
        }
    }

    fn reread(&mut self, buf: &mut ReadBuf<'_>) {
        let n = self.unread.len().min(buf.remaining());
        buf.put_slice(&self.unread[..n]);
        self.unread.advance(n);
        if self.unread.is_empty() {
            // Frees the buffer now: idle connections are many.
            self.unread = Bytes::new();
        }
    }

    fn withholds_end(&self, ended_now: bool, cx: &mut Context<'_>) -> bool {
        self.control.as_ref().is_some_and(|control| control.withholds_end(ended_now, cx))
    }

    /// Ends our direction if that is asked for. A failure shows when the stream is read.
    fn finish(&mut self, cx: &mut Context<'_>) {
        if self.control.as_ref().is_some_and(|control| control.is_finished(cx)) {
            let _ended = Pin::new(self).poll_shutdown(cx);
        }
    }

    fn is_to_be_reset(&self) -> bool {
        self.control.as_ref().is_some_and(Control::is_to_be_reset)
    }

    fn fail<T>(&mut self, result: io::Result<T>) -> io::Result<T> {
        if let (Err(error), Some(transport)) = (&result, &mut self.transport) {
            transport.failed(error);
        }
        result
    }
}

impl Drop for Stream {
    fn drop(&mut self) {
        if self.is_to_be_reset()
            && let Some(carrier) = self.carrier.take()
        {
            carrier.into_io().reset();
        }
    }
}

impl Carrier {
    fn into_io(self) -> Io {
        match self {
            Self::Plain(io) => io,
            Self::Opened(tls) => tls.into_inner().0,
            Self::Accepted(tls) => tls.into_inner().0.into_parts().1,
        }
    }
}

macro_rules! carrier {
    ($self:ident, $io:ident => $call:expr) => {
        match &mut $self.carrier {
            Some(Carrier::Plain($io)) => $call,
            Some(Carrier::Opened($io)) => $call,
            Some(Carrier::Accepted($io)) => $call,
            None => Poll::Ready(Err(io::ErrorKind::NotConnected.into())),
        }
    };
}

impl AsyncRead for Stream {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if !this.unread.is_empty() {
            this.mark_read();
            this.reread(buf);
            return Poll::Ready(Ok(()));
        }
        if this.withholds_end(false, cx) {
            return Poll::Pending;
        }
        this.finish(cx);
        let before = buf.filled().len();
        let result = ready!(match this.in_pieces && buf.remaining() > PIECE {
            true => this.poll_piece(cx, buf),
            false => carrier!(this, io => Pin::new(io).poll_read(cx, buf)),
        });
        let ended = result.is_ok() && buf.filled().len() == before && buf.remaining() > 0;
        if ended && this.withholds_end(true, cx) {
            return Poll::Pending;
        }
        this.mark_read();
        let read = buf.filled().len() - before;
        match &mut this.transport {
            Some(transport) => transport.read(read),
            None => this.early += read,
        }
        Poll::Ready(this.fail(result))
    }
}

impl AsyncWrite for Stream {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let result = carrier!(this, io => Pin::new(io).poll_write(cx, buf));
        this.wrote(result)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let this = &mut *self;
        let result = carrier!(this, io => Pin::new(io).poll_write_vectored(cx, bufs));
        this.wrote(result)
    }

    fn is_write_vectored(&self) -> bool {
        match &self.carrier {
            Some(Carrier::Plain(io)) => io.is_write_vectored(),
            Some(Carrier::Opened(tls)) => tls.is_write_vectored(),
            Some(Carrier::Accepted(tls)) => tls.is_write_vectored(),
            None => false,
        }
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        let result = carrier!(this, io => Pin::new(io).poll_flush(cx));
        if let Some(control) = &this.control {
            control.mark_blocked(result.is_pending());
        }
        result.map(|result| this.fail(result))
    }

    /// Ends our direction; within TLS with a `close_notify`, so that the peer can tell an end from a cut. A stream that
    /// is to be reset is not ended in order first.
    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let this = &mut *self;
        if this.is_to_be_reset() {
            return Poll::Ready(Ok(()));
        }
        carrier!(this, io => Pin::new(io).poll_shutdown(cx))
    }
}

impl Stream {
    fn poll_piece(&mut self, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let mut piece = ReadBuf::new(buf.initialize_unfilled_to(PIECE));
        let result = ready!(carrier!(self, io => Pin::new(io).poll_read(cx, &mut piece)));
        let read = piece.filled().len();
        buf.advance(read);
        Poll::Ready(result)
    }

    fn wrote(&mut self, result: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Some(control) = &self.control {
            control.mark_written(result.is_pending());
        }
        let result = ready!(result);
        if let (Ok(n), Some(transport)) = (&result, &mut self.transport) {
            transport.wrote(*n);
        }
        Poll::Ready(self.fail(result))
    }
}

impl std::fmt::Debug for Stream {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let carrier = match &self.carrier {
            Some(Carrier::Plain(_)) => "plain",
            Some(Carrier::Opened(_) | Carrier::Accepted(_)) => "tls",
            None => "closed",
        };
        write!(f, "Stream({carrier})")
    }
}

#[cfg(test)]
mod tests {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[tokio::test]
    async fn what_is_put_back_comes_before_what_was_put_back_earlier() {
        let (mut far, near) = tokio::io::duplex(64);
        far.write_all(b" is there").await.unwrap();
        drop(far);
        let mut stream = Stream::plain(Io::other(near));
        stream.unread(Bytes::from_static(b" it"));
        stream.unread(Bytes::from_static(b""));
        stream.unread(Bytes::from_static(b"all of"));
        let mut text = String::new();
        stream.read_to_string(&mut text).await.unwrap();
        assert_eq!(text, "all of it is there");
    }
}
