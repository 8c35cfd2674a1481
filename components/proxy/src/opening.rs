//! The beginning of a connection, when it is not known yet what it carries, nor who speaks first.
//!
//! Most clients speak at once. One that stays silent for a moment may be waiting for the server (MySQL, SMTP): then the
//! server is dialled too, and whoever speaks first decides. Nobody waits for a timeout, and nobody configures ports.

use std::{
    future::{Future, poll_fn},
    io,
    mem::MaybeUninit,
    pin::Pin,
    task::{Context, Poll, ready},
    time::Duration,
};

use bytes::BytesMut;
use tokio::{
    io::{AsyncRead, ReadBuf},
    time::{Instant, timeout, timeout_at},
};

use crate::stream::Stream;

/// First read of a connection; a ClientHello with a post-quantum key share fits.
const FIRST_READ: usize = 4 << 10;

/// How long to wait for what.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Patience {
    /// For a first byte of the client, before the server is dialled.
    pub(crate) silence: Duration,
    /// For the client to complete what it began.
    pub(crate) detect: Duration,
}

/// A connection that begins.
#[derive(Debug)]
pub(crate) struct Opening {
    pub(crate) client: Stream,
    /// What the client said so far. Not yet given back to `client`.
    pub(crate) said: BytesMut,
    /// Dialled because the client was silent.
    pub(crate) server: Option<Stream>,
    /// What the server said meanwhile, to a client that had said nothing.
    pub(crate) answered: BytesMut,
}

/// How a wait for the client's first words ended.
#[derive(Debug)]
pub(crate) enum Heard<T, E> {
    /// The client said enough.
    Words(T),
    /// What the client said became nothing recognizable in time.
    Mumbling,
    /// The client stopped speaking before it became something recognizable.
    CutOff,
    /// The server spoke, or ended, before the client did.
    ServerFirst,
    /// The client ended its direction without a word. It may still listen: there are servers that speak first.
    OnlyListens,
    /// The client broke the connection without a word.
    Nothing,
    /// The server could not be dialled, or broke the connection.
    Unreachable(E),
}

impl Opening {
    /// A connection of which nothing was read yet.
    pub(crate) fn new(client: Stream) -> Self {
        Self { client, said: BytesMut::new(), server: None, answered: BytesMut::new() }
    }

    /// Reads from the client until `judge`, which is given all it said and how much of that it was given before, has an
    /// answer. Calls `dial` when the client is silent.
    pub(crate) async fn hear<T, E, Dialed>(
        &mut self,
        mut judge: impl FnMut(&[u8], usize) -> Option<T>,
        patience: Patience,
        dial: impl FnOnce() -> Dialed,
    ) -> Heard<T, E>
    where
        E: From<io::Error>,
        Dialed: Future<Output = Result<Stream, E>>,
    {
        if self.said.is_empty() {
            match self.first_word(patience.silence, dial).await {
                Word::Spoken => {}
                Word::Ended => return Heard::OnlyListens,
                Word::Broken => return Heard::Nothing,
                Word::ServerFirst => return Heard::ServerFirst,
                Word::Unreachable(error) => return Heard::Unreachable(error),
            }
        }
        let deadline = Instant::now() + patience.detect;
        let mut seen = 0;
        loop {
            if let Some(answer) = judge(&self.said, seen) {
                return Heard::Words(answer);
            }
            seen = self.said.len();
            match timeout_at(deadline, read(&mut self.client, &mut self.said)).await {
                Ok(Ok(1..)) => {}
                Ok(Ok(0) | Err(_)) => return Heard::CutOff,
                Err(_) => return Heard::Mumbling,
            }
        }
    }

    /// Waits for the client alone, with the server's first words held back. True when it said something.
    pub(crate) async fn hear_late(&mut self, hold: Duration) -> bool {
        matches!(timeout(hold, read(&mut self.client, &mut self.said)).await, Ok(Ok(1..)))
    }

    async fn first_word<E, Dialed>(&mut self, silence: Duration, dial: impl FnOnce() -> Dialed) -> Word<E>
    where
        E: From<io::Error>,
        Dialed: Future<Output = Result<Stream, E>>,
    {
        let server = match &mut self.server {
            Some(server) => server,
            none => {
                if let Ok(read) = timeout(silence, read(&mut self.client, &mut self.said)).await {
                    return self.word(read);
                }
                let server = tokio::select! {
                    biased;
                    read = read(&mut self.client, &mut self.said) => return self.word(read),
                    server = dial() => server,
                };
                match server {
                    Ok(server) => none.insert(server),
                    Err(error) => return Word::Unreachable(error),
                }
            }
        };
        tokio::select! {
            biased;
            read = read(&mut self.client, &mut self.said) => self.word(read),
            read = read(server, &mut self.answered) => match read {
                Ok(_) => Word::ServerFirst,
                Err(error) => Word::Unreachable(error.into()),
            },
        }
    }

    /// What the client's first word is; if it broke the connection instead, the server's is broken too.
    fn word<E>(&mut self, read: io::Result<usize>) -> Word<E> {
        match read {
            Ok(1..) => Word::Spoken,
            Ok(0) => Word::Ended,
            Err(_) => {
                self.server.take().into_iter().for_each(Stream::reset);
                Word::Broken
            }
        }
    }

    /// Both ends with what they said put back, for a plain copy between them.
    pub(crate) fn into_streams(mut self) -> (Stream, Option<Stream>) {
        if !self.said.is_empty() {
            self.client.unread(self.said.freeze());
        }
        let server = self.server.map(|mut server| {
            if !self.answered.is_empty() {
                server.unread(self.answered.freeze());
            }
            server
        });
        (self.client, server)
    }
}

/// What came first.
enum Word<E> {
    Spoken,
    Ended,
    Broken,
    ServerFirst,
    Unreachable(E),
}

/// Reads what there is. Cancel safe: nothing is lost when the future is dropped.
async fn read(from: &mut (impl AsyncRead + Unpin), into: &mut BytesMut) -> io::Result<usize> {
    poll_fn(|cx| poll_read(cx, from, into)).await
}

/// Reads what there is; zero is the end. The buffer is allocated when there is something, so that a silent connection costs
/// none.
pub(crate) fn poll_read(
    cx: &mut Context<'_>,
    from: &mut (impl AsyncRead + Unpin),
    into: &mut BytesMut,
) -> Poll<io::Result<usize>> {
    let mut small = [MaybeUninit::<u8>::uninit(); FIRST_READ];
    let mut buf = ReadBuf::uninit(&mut small);
    ready!(Pin::new(from).poll_read(cx, &mut buf))?;
    into.extend_from_slice(buf.filled());
    Poll::Ready(Ok(buf.filled().len()))
}
