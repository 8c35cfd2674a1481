//! From a listener to one task per connection. Nothing here waits for a peer: who is silent delays nobody else.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
};

use conduit_net::{Accepted, Listener};
use conduit_runtime::{drain, serve};

/// Accepts on `listener` until `stop`, hands each connection to `handle`, and waits for the last of them.
pub(crate) async fn accept<Handle, Handled>(
    listener: Box<dyn Listener>,
    limit: usize,
    stop: drain::Watch,
    handle: Handle,
) where
    Handle: Fn(Accepted) -> Handled + Send + Sync + 'static,
    Handled: Future<Output = ()> + Send + 'static,
{
    serve::accept_loop(listener, limit, stop, handle).await;
}

/// Whether a connection that was going to `target` was going to the very listener it arrived at: forwarding it would
/// bring it back, for ever.
pub(crate) fn is_loop(target: SocketAddr, accepted: &Accepted, listener: SocketAddr) -> bool {
    let ip = |addr: SocketAddr| -> IpAddr { addr.ip().to_canonical() };
    target.port() == listener.port() && [ip(listener), accepted.local.ip()].contains(&ip(target))
}

/// A connection that was not redirected, or by nobody we know.
pub(crate) fn refuse(accepted: Accepted, direction: &'static str, problem: &'static str) {
    tracing::warn!(direction, peer = %accepted.peer, local = %accepted.local, problem, "refusing a connection");
    accepted.io.reset();
}
