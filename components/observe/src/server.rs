//! Serves a router over any network, with bounds on connections, heads and time.

use std::{net::IpAddr, time::Duration};

use axum::{Extension, Router};
use conduit_net::{Accepted, Listener};
use conduit_runtime::{drain, serve};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};

/// Connections at once: a handful of people and their browsers.
const MAX_CONNECTIONS: usize = 256;
/// How long a request's head may take to arrive; also how long a connection may be idle.
const HEAD_TIMEOUT: Duration = Duration::from_secs(30);
/// Octets of a request's head. The longest query there is has nine parameters of 512.
const MAX_HEAD: usize = 16 * 1024;

/// Where a request comes from.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Peer(pub(crate) IpAddr);

/// Serves until the drain begins, and what is under way to its end.
pub(crate) async fn serve(listener: Box<dyn Listener>, router: Router, drain: drain::Watch) {
    let closing = drain.clone();
    serve::accept_loop(listener, MAX_CONNECTIONS, drain, move |accepted| {
        connection(accepted, router.clone(), closing.clone())
    })
    .await;
}

async fn connection(accepted: Accepted, router: Router, drain: drain::Watch) {
    let mut server = http1::Builder::new();
    server
        .timer(TokioTimer::new())
        .header_read_timeout(HEAD_TIMEOUT)
        .max_buf_size(MAX_HEAD)
        .auto_date_header(false);
    let service = TowerToHyperService::new(router.layer(Extension(Peer(accepted.peer.ip()))));
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(accepted.io), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.signaled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = %accepted.peer, "a connection to the API broke");
    }
}
