//! The API on a network, and the client that needs none.

use std::{io, net::SocketAddr, sync::Arc};

use axum::body::Body;
use conduit_net::{Accepted, Net};
use conduit_runtime::drain;
use futures::future::BoxFuture;
use http::{Request, Response};
use hyper_util::rt::{TokioExecutor, TokioIo, TokioTimer};

use crate::{Shared, api};

/// Connections served at a time; the next ones wait to be accepted.
const CONNECTIONS: usize = 1024;

/// An API server on a network.
pub struct Serving {
    /// Where it listens, with the real port.
    pub addr: SocketAddr,
    /// Ends when the drain has, or is aborted by dropping it. Must be polled or spawned.
    pub server: BoxFuture<'static, ()>,
}

impl std::fmt::Debug for Serving {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Serving").field("addr", &self.addr).finish_non_exhaustive()
    }
}

/// Listens on `addr` and makes the future that serves.
///
/// # Errors
/// The network's, when the address cannot be had.
pub(crate) async fn serve(
    shared: Arc<Shared>,
    net: &Net,
    addr: SocketAddr,
    drain: drain::Watch,
) -> io::Result<Serving> {
    let listener = net.bind(addr).await?;
    let addr = listener.local_addr();
    let watch = drain.clone();
    let server =
        Box::pin(conduit_runtime::serve::accept_loop(listener, CONNECTIONS, drain, move |accepted| {
            connection(shared.clone(), accepted, watch.clone())
        }));
    Ok(Serving { addr, server })
}

async fn connection(shared: Arc<Shared>, accepted: Accepted, drain: drain::Watch) {
    if shared.faults.is_down() {
        return accepted.io.reset();
    }
    let faults = shared.faults.clone();
    let service = hyper::service::service_fn(move |request| api::handle(shared.clone(), request));
    let mut builder = hyper_util::server::conn::auto::Builder::new(TokioExecutor::new());
    // The Date header would be the only bytes that two runs of a simulation differ in.
    builder.http1().auto_date_header(false).timer(TokioTimer::new());
    builder.http2().auto_date_header(false).timer(TokioTimer::new());
    let served = builder.serve_connection_with_upgrades(TokioIo::new(accepted.io), service);
    tokio::select! {
        biased;
        // Watches never end by themselves, so a drain does not wait for them.
        () = drain.signaled() => {}
        () = faults.taken_down() => {}
        ended = served => {
            if let Err(error) = ended {
                tracing::debug!(error, peer = ?accepted.peer, "an API connection ended in an error");
            }
        }
    }
}

/// A client that calls the API as a function.
pub(crate) fn client(shared: Arc<Shared>) -> kube::Client {
    calling(shared, api::handle)
}

/// The same, spared from faults.
pub(crate) fn steady_client(shared: Arc<Shared>) -> kube::Client {
    calling(shared, api::handle_steadily)
}

fn calling<Handle, Handling>(shared: Arc<Shared>, handle: Handle) -> kube::Client
where
    Handle: Fn(Arc<Shared>, Request<kube::client::Body>) -> Handling + Send + 'static,
    Handling: Future<Output = Result<Response<Body>, api::Broken>> + Send + 'static,
{
    let service =
        tower::service_fn(move |request: Request<kube::client::Body>| handle(shared.clone(), request));
    kube::Client::new(service, "default")
}
