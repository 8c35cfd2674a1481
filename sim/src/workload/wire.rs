//! Connections without HTTP, and what is read from them.

use std::{io, pin::pin, task::Poll};

use tokio::io::{AsyncBufReadExt, AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use super::request::Problem;

/// A line of a protocol is at most so long, in bytes.
const MAX_LINE: usize = 1024;

/// Bytes in both directions.
pub(super) trait Duplex: AsyncRead + AsyncWrite + Send + Unpin {}

impl<T: AsyncRead + AsyncWrite + Send + Unpin> Duplex for T {}

/// A connection. What was read ahead stays in it.
pub(super) type Wire = BufReader<Box<dyn Duplex>>;

/// Makes a connection of a stream.
pub(super) fn wire(stream: impl Duplex + 'static) -> Wire {
    BufReader::new(Box::new(stream))
}

/// Whether a kept connection, on which nothing is under way, can be used again.
///
/// # Errors
/// `Unsent` when the other end has closed it, `Wrong` when it said something that nobody asked.
pub(super) async fn reuse(wire: &mut Wire) -> Result<(), Problem> {
    let state = {
        let mut read = pin!(wire.fill_buf());
        futures::poll!(read.as_mut()).map_ok(<[u8]>::len)
    };
    match state {
        Poll::Pending => Ok(()),
        Poll::Ready(Ok(0)) => Err(Problem::Unsent("the server closed the kept connection".into())),
        Poll::Ready(Ok(len)) => Err(Problem::Wrong(format!("{len} bytes that nobody asked for"))),
        Poll::Ready(Err(error)) => Err(Problem::Unsent(format!("the kept connection broke: {error}"))),
    }
}

/// Writes a length of four bytes and then the message.
pub(super) async fn write_frame(wire: &mut Wire, message: &[u8]) -> io::Result<()> {
    wire.write_u32(u32::try_from(message.len()).map_err(io::Error::other)?).await?;
    wire.write_all(message).await?;
    wire.flush().await
}

/// Reads what [`write_frame`] wrote, at most `limit` bytes.
pub(super) async fn read_frame(wire: &mut Wire, limit: usize) -> io::Result<Vec<u8>> {
    let len = wire.read_u32().await? as usize;
    read_exactly(wire, len, limit).await
}

/// Reads `len` bytes, if that is not more than `limit`.
pub(super) async fn read_exactly(wire: &mut Wire, len: usize, limit: usize) -> io::Result<Vec<u8>> {
    if len > limit {
        return Err(broken(format!("{len} bytes announced where {limit} are the most")));
    }
    let mut message = vec![0; len];
    wire.read_exact(&mut message).await?;
    Ok(message)
}

/// Reads a line, and gives it without its end.
pub(super) async fn read_line(wire: &mut Wire) -> io::Result<String> {
    let mut line = Vec::new();
    loop {
        match wire.read_u8().await? {
            b'\n' => break,
            byte if line.len() < MAX_LINE => line.push(byte),
            _ => return Err(broken(format!("a line of more than {MAX_LINE} bytes"))),
        }
    }
    let line = String::from_utf8(line).map_err(|_| broken("a line that is no text"))?;
    Ok(line.trim_end_matches('\r').to_owned())
}

/// A peer that does not keep to the protocol.
pub(super) fn broken(what: impl Into<String>) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, what.into())
}
