//! [`Io`]: every byte stream in Conduit, real or simulated.

use std::{
    fmt, io,
    io::IoSlice,
    pin::Pin,
    task::{Context, Poll},
    time::Duration,
};

use tokio::{
    io::{AsyncRead, AsyncWrite, ReadBuf},
    net::TcpStream,
};

/// What a stream must offer to be an [`Io`] without being a TCP socket: the simulation's and the demo's do.
pub trait Stream: AsyncRead + AsyncWrite + Send + Unpin + 'static {
    /// Makes the coming close a reset instead of an orderly end, where the transport has such a thing.
    fn reset_on_close(&mut self) {}
}

/// A byte stream. An enum, not a type parameter: signatures stay plain, and the common case is a direct call.
pub enum Io {
    /// A socket of this machine.
    Tcp(TcpStream),
    /// Anything else.
    Other(Box<dyn Stream>),
}

impl Io {
    /// Wraps a stream that is not a TCP socket.
    pub fn other(stream: impl Stream) -> Self {
        Self::Other(Box::new(stream))
    }

    /// Closes with a reset, which is how a refused upstream connection is passed on to the client: an orderly end would
    /// tell it that the peer accepted and had nothing to say.
    pub fn reset(mut self) {
        match &mut self {
            // Zero linger turns close into a reset. A failure here leaves an orderly close, which is all we can do.
            Self::Tcp(tcp) => drop(socket2::SockRef::from(&*tcp).set_linger(Some(Duration::ZERO))),
            Self::Other(stream) => stream.reset_on_close(),
        }
    }
}

impl fmt::Debug for Io {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Tcp(tcp) => tcp.fmt(f),
            Self::Other(_) => f.write_str("Io::Other"),
        }
    }
}

impl AsyncRead for Io {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_read(cx, buf),
            Self::Other(stream) => Pin::new(stream).poll_read(cx, buf),
        }
    }
}

impl AsyncWrite for Io {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write(cx, buf),
            Self::Other(stream) => Pin::new(stream).poll_write(cx, buf),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_flush(cx),
            Self::Other(stream) => Pin::new(stream).poll_flush(cx),
        }
    }

    /// Ends our direction. Ending it twice is not an error, whatever the transport says.
    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let ended = match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_shutdown(cx),
            Self::Other(stream) => Pin::new(stream).poll_shutdown(cx),
        };
        ended.map(|result| match result {
            Err(error) if error.kind() == io::ErrorKind::NotConnected => Ok(()),
            other => other,
        })
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Tcp(tcp) => Pin::new(tcp).poll_write_vectored(cx, bufs),
            Self::Other(stream) => Pin::new(stream).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Tcp(tcp) => tcp.is_write_vectored(),
            Self::Other(stream) => stream.is_write_vectored(),
        }
    }
}

impl Stream for tokio::io::DuplexStream {}
