//! gRPC by name and on a listener.

use std::{io, sync::Arc, time::Duration};

use conduit_net::{Accepted, Listener, Net};
pub(crate) use conduit_runtime::grpc::Channel;
use conduit_runtime::{
    drain,
    grpc::{self, Transport},
    serve,
};
use futures::FutureExt;
use tonic::{Response, Status, service::Routes};

use crate::Authority;

/// Connections served at once.
const MAX_CONNECTIONS: usize = 4096;

/// A channel to `server`, whose name is resolved anew for every connection.
pub(crate) fn channel(net: Net, server: &Authority) -> Result<Channel, http::Error> {
    let named = server.clone();
    let connect: grpc::Connect = Arc::new(move || {
        let (net, server) = (net.clone(), named.clone());
        async move {
            let io = server.connect(&*net).await?;
            Ok(Box::new(io) as Box<dyn Transport>)
        }
        .boxed()
    });
    Channel::new(server.as_str(), connect)
}

/// Serves `routes` on every connection until the drain, and the calls under way to their end.
pub(crate) async fn serve(listener: Box<dyn Listener>, routes: Routes, drain: drain::Watch) {
    let closing = drain.clone();
    serve::accept_loop(listener, MAX_CONNECTIONS, drain, move |accepted| {
        connection(accepted, routes.clone(), closing.clone())
    })
    .await;
}

async fn connection(accepted: Accepted, routes: Routes, drain: drain::Watch) {
    if let Err(error) = grpc::serve_connection(accepted.io, routes, drain).await {
        tracing::debug!(%error, peer = %accepted.peer, "a connection broke");
    }
}

/// Puts a deadline on a call. The status is what gRPC prescribes for one that came too late.
pub(crate) async fn within<T>(
    deadline: Duration,
    call: impl Future<Output = Result<Response<T>, Status>>,
) -> Result<T, Status> {
    match tokio::time::timeout(deadline, call).await {
        Ok(answered) => answered.map(Response::into_inner),
        Err(_) => Err(Status::deadline_exceeded(format!("no answer within {deadline:?}"))),
    }
}

/// A part cannot listen where it should.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {source}")]
pub struct BindError {
    /// Where.
    pub address: std::net::SocketAddr,
    /// The operating system's reason.
    pub source: io::Error,
}

/// Listens, and says where when it cannot.
pub(crate) async fn bind(net: &Net, address: std::net::SocketAddr) -> Result<Box<dyn Listener>, BindError> {
    net.bind(address).await.map_err(|source| BindError { address, source })
}
