//! Connections that stop being HTTP: WebSocket and other upgrades, and CONNECT. From then on they are bytes.

use std::{io, time::Duration};

use conduit_identity::UnixTime;
use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

use crate::stream::Stream;

/// Both ends hand their connection over as soon as the answer is written.
const HANDOVER: Duration = Duration::from_secs(10);

/// The two connections of an upgrade that was granted.
pub(crate) struct Upgraded {
    /// The client's.
    pub(crate) downstream: OnUpgrade,
    /// The server's.
    pub(crate) upstream: OnUpgrade,
    /// When the server's connection's certificates end.
    pub(crate) not_after: Option<UnixTime>,
}

impl Upgraded {
    /// The two streams, as they are after the last byte of HTTP.
    ///
    /// # Errors
    /// One of them ended first.
    pub(crate) async fn streams(self) -> io::Result<(Stream, Stream)> {
        let both = async { tokio::try_join!(self.downstream, self.upstream) };
        let (downstream, upstream) =
            timeout(HANDOVER, both).await.map_err(|_| io::ErrorKind::TimedOut)?.map_err(io::Error::other)?;
        Ok((stream(downstream)?, stream(upstream)?))
    }
}

impl Upgraded {
    /// Copies between two streams of HTTP/2, each of which holds its connection open.
    pub(crate) fn splice(self) {
        tokio::spawn(async move {
            let both = async { tokio::try_join!(self.downstream, self.upstream) };
            let Ok(Ok((downstream, upstream))) = timeout(HANDOVER, both).await else { return };
            let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
            // Dropping a stream that broke resets it, which is how the other end hears of it.
            if let Err(error) = tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await {
                tracing::debug!(%error, "a tunnel within HTTP/2 broke");
            }
        });
    }
}

fn stream(upgraded: hyper::upgrade::Upgraded) -> io::Result<Stream> {
    let parts = upgraded
        .downcast::<TokioIo<Stream>>()
        .map_err(|_| io::Error::other("an upgraded connection is not one of ours"))?;
    let mut stream = parts.io.into_inner();
    if !parts.read_buf.is_empty() {
        stream.unread(parts.read_buf);
    }
    Ok(stream)
}
