//! Tunnels within HTTP/2: streams that stop being requests, while the connection goes on.

use std::time::Duration;

use hyper::upgrade::OnUpgrade;
use hyper_util::rt::TokioIo;
use tokio::time::timeout;

/// Both ends hand their stream over as soon as the answer is written.
const HANDOVER: Duration = Duration::from_secs(10);

/// Copies between two streams of HTTP/2, each of which holds its connection open.
pub(crate) fn splice(downstream: OnUpgrade, upstream: OnUpgrade) {
    tokio::spawn(async move {
        let both = async { tokio::try_join!(downstream, upstream) };
        let Ok(Ok((downstream, upstream))) = timeout(HANDOVER, both).await else { return };
        let (mut downstream, mut upstream) = (TokioIo::new(downstream), TokioIo::new(upstream));
        // Dropping a stream that broke resets it, which is how the other end hears of it.
        if let Err(error) = tokio::io::copy_bidirectional(&mut downstream, &mut upstream).await {
            tracing::debug!(%error, "a tunnel within HTTP/2 broke");
        }
    });
}
