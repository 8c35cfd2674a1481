//! Applications, in raw bytes.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use conduit_net::{Io, Listener, TokioNetwork};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use super::{Pod, within};

/// Serves each connection to the application of `pod` with `handle`.
pub(crate) async fn serve<Handled>(
    pod: &Pod,
    handle: impl Fn(Client) -> Handled + Send + Sync + 'static,
) -> SocketAddr
where
    Handled: Future<Output = ()> + Send + 'static,
{
    let mut listener = TokioNetwork::shared().bind(SocketAddr::new(pod.ip, 0)).await.unwrap();
    let addr = listener.local_addr();
    let handle = Arc::new(handle);
    tokio::spawn(async move {
        while let Ok(accepted) = Listener::accept(&mut *listener).await {
            tokio::spawn(handle(Client::new(accepted.io)));
        }
    });
    addr
}

/// An address at which nobody listens.
pub(crate) async fn nobody(pod: &Pod) -> SocketAddr {
    TokioNetwork::shared().bind(SocketAddr::new(pod.ip, 0)).await.unwrap().local_addr()
}

/// One end of a connection.
#[derive(Debug)]
pub(crate) struct Client {
    pub(crate) io: Io,
    unread: Vec<u8>,
}

impl Client {
    pub(crate) fn new(io: Io) -> Self {
        Self { io, unread: Vec::new() }
    }

    pub(crate) async fn send(&mut self, bytes: impl AsRef<[u8]>) {
        within(self.io.write_all(bytes.as_ref())).await.unwrap();
        within(self.io.flush()).await.unwrap();
    }

    /// Ends the own direction.
    pub(crate) async fn finish(&mut self) {
        within(self.io.shutdown()).await.unwrap();
    }

    /// Reads exactly `count` bytes.
    pub(crate) async fn receive(&mut self, count: usize) -> Vec<u8> {
        while self.unread.len() < count {
            assert!(
                self.fill().await.unwrap() > 0,
                "ended after {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
        self.unread.drain(..count).collect()
    }

    pub(crate) async fn expect(&mut self, bytes: impl AsRef<[u8]>) {
        let expected = bytes.as_ref();
        let received = self.receive(expected.len()).await;
        assert_eq!(String::from_utf8_lossy(&received), String::from_utf8_lossy(expected));
    }

    /// Reads up to and with the empty line.
    pub(crate) async fn head(&mut self) -> String {
        loop {
            if let Some(at) = self.unread.windows(4).position(|four| four == b"\r\n\r\n") {
                return String::from_utf8(self.unread.drain(..at + 4).collect()).unwrap();
            }
            assert!(
                self.fill().await.unwrap() > 0,
                "ended after {:?}",
                String::from_utf8_lossy(&self.unread)
            );
        }
    }

    /// As [`Client::head`], or nothing when the peer ends instead.
    pub(crate) async fn next_head(&mut self) -> Option<String> {
        if self.unread.is_empty() && self.fill().await.unwrap_or_default() == 0 {
            return None;
        }
        Some(self.head().await)
    }

    /// Reads to the end.
    pub(crate) async fn rest(&mut self) -> io::Result<Vec<u8>> {
        while self.fill().await? > 0 {}
        Ok(std::mem::take(&mut self.unread))
    }

    /// Whether nothing comes for a while.
    pub(crate) async fn is_silent(&mut self, time: Duration) -> bool {
        self.unread.is_empty() && tokio::time::timeout(time, self.io.read(&mut [0; 1])).await.is_err()
    }

    /// Waits for the reset that must come.
    pub(crate) async fn is_reset(&mut self) {
        let error = self.rest().await.expect_err("a reset, not an end");
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    async fn fill(&mut self) -> io::Result<usize> {
        within(self.io.read_buf(&mut self.unread)).await
    }
}
