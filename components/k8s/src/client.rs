//! [`kube::Client`] over a [`Net`]: the same client in a cluster, on a laptop, in the demo and in the simulation.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use conduit_net::{Io, Net};
use futures::future::BoxFuture;
use http::{Uri, uri::Scheme};
use hyper_util::{
    client::legacy::{
        Client as HttpClient,
        connect::{Connected, Connection},
    },
    rt::{TokioExecutor, TokioIo, TokioTimer},
};
use kube::{
    Client, Config,
    client::{Body, ClientBuilder, ConfigExt},
};
use tower::{BoxError, Service, ServiceBuilder, timeout::TimeoutLayer, util::BoxCloneSyncService};

use crate::kubeconfig::{self, Choice};

/// How long one address may take to accept a connection before the next one is tried.
const CONNECT_DEADLINE: Duration = Duration::from_secs(5);

/// How long opening a connection may take in all: names, every address, TLS.
const OPEN_DEADLINE: Duration = Duration::from_secs(15);

/// How long the API server may take to begin its answer. Admission webhooks may hold a write for 30 s
/// (`timeoutSeconds` of a webhook), so this is the shortest deadline that never cuts off a legal answer by much.
const ANSWER_DEADLINE: Duration = Duration::from_secs(32);

/// How long an unused connection is kept. Short, because a connection whose peer vanished without a word is found out
/// only by the request that waits on it.
const IDLE: Duration = Duration::from_secs(20);

/// A client for the cluster that `config` describes, over `net`. Must be called within a tokio runtime.
///
/// Each request has a deadline until its answer begins; who reads a long body (logs, a watch) owns its deadline.
///
/// # Errors
/// The configuration's certificates, keys or credentials cannot be used, or it asks for an HTTP proxy, which this
/// client does not speak.
pub fn connect(net: Net, config: Config) -> Result<Client, ConnectError> {
    if let Some(proxy) = &config.proxy_url {
        return Err(ConnectError::Proxy(proxy.clone()));
    }
    let plain = NetConnector { net };
    if config.cluster_url.scheme() == Some(&Scheme::HTTP) {
        // Not through the TLS connector: it reads the machine's trust store, and fails where there is none.
        return over(config, plain);
    }
    // kube builds its rustls configuration from the process-wide provider; another one installed before is kept.
    drop(rustls::crypto::aws_lc_rs::default_provider().install_default());
    let secured = config.rustls_https_connector_with_connector(plain)?;
    over(config, secured)
}

/// The layers of a client, on top of what opens its connections.
fn over<C>(config: Config, connector: C) -> Result<Client, ConnectError>
where
    C: Service<Uri, Error: Into<BoxError>, Future: Send> + Clone + Send + Sync + 'static,
    C::Response: Connection + hyper::rt::Read + hyper::rt::Write + Send + Unpin + 'static,
{
    let connector = ServiceBuilder::new().layer(TimeoutLayer::new(OPEN_DEADLINE)).service(connector);
    let http = HttpClient::builder(TokioExecutor::new())
        .timer(TokioTimer::new())
        .pool_timer(TokioTimer::new())
        .pool_idle_timeout(IDLE)
        .build::<_, Body>(BoxCloneSyncService::new(connector));
    let service = ServiceBuilder::new()
        .layer(config.base_uri_layer())
        .option_layer(config.auth_layer()?)
        .layer(config.extra_headers_layer()?)
        .layer(TimeoutLayer::new(ANSWER_DEADLINE))
        .map_err(BoxError::from)
        .service(http);
    Ok(ClientBuilder::new(service, config.default_namespace).build())
}

/// A client for an API server that speaks plain HTTP at `addr`: the in-memory one. Must be called within a tokio
/// runtime.
///
/// # Errors
/// As [`connect`]; none is expected of such a plain configuration.
pub fn plain(net: Net, addr: SocketAddr, default_namespace: &str) -> Result<Client, ConnectError> {
    let uri = Uri::builder().scheme(Scheme::HTTP).authority(addr.to_string()).path_and_query("/").build()?;
    let mut config = Config::new(uri);
    config.default_namespace = default_namespace.to_owned();
    connect(net, config)
}

/// A client for the cluster this process is in, or that the user's kubeconfig names: what a binary calls.
///
/// # Errors
/// There is no usable configuration, or it is as [`connect`] says.
pub async fn infer(net: Net) -> Result<Client, ConnectError> {
    connect(net, kubeconfig::find(&Choice::default()).await?.config)
}

/// Why there is no client.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Neither the pod's environment nor a kubeconfig says which cluster.
    #[error(transparent)]
    NoCluster(#[from] kubeconfig::Problem),
    /// The configuration's TLS or credentials.
    #[error("the cluster's configuration cannot be used")]
    Configuration(#[from] kube::Error),
    /// An HTTP proxy.
    #[error("the cluster's configuration names the HTTP proxy {0}, which is not supported; remove proxy-url")]
    Proxy(Uri),
    /// The address makes no URI.
    #[error("not the address of an API server")]
    Address(#[from] http::Error),
}

/// Opens hyper's connections on our network.
#[derive(Clone)]
struct NetConnector {
    net: Net,
}

impl Service<Uri> for NetConnector {
    type Response = TokioIo<NetConnection>;
    type Error = io::Error;
    type Future = BoxFuture<'static, io::Result<Self::Response>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, uri: Uri) -> Self::Future {
        let net = Arc::clone(&self.net);
        Box::pin(async move { Ok(TokioIo::new(NetConnection(open(&net, &uri).await?))) })
    }
}

/// Connects to the first address of `uri`'s host that accepts.
async fn open(net: &Net, uri: &Uri) -> io::Result<Io> {
    let mut last = io::Error::new(io::ErrorKind::InvalidInput, format!("{uri} names no host"));
    for ip in addresses(net, uri.host().unwrap_or_default()).await? {
        let addr = SocketAddr::new(ip, port(uri));
        match tokio::time::timeout(CONNECT_DEADLINE, net.connect(addr)).await {
            Ok(Ok(io)) => return Ok(io),
            Ok(Err(error)) => last = error,
            Err(_) => last = io::Error::new(io::ErrorKind::TimedOut, format!("{addr} does not answer")),
        }
    }
    Err(last)
}

async fn addresses(net: &Net, host: &str) -> io::Result<Vec<IpAddr>> {
    let literal = host.trim_start_matches('[').trim_end_matches(']');
    if let Ok(ip) = literal.parse() {
        return Ok(vec![ip]);
    }
    let resolved = tokio::time::timeout(CONNECT_DEADLINE, net.resolve(host)).await;
    match resolved {
        Ok(resolved) => Ok(resolved?.addrs),
        Err(_) => Err(io::Error::new(io::ErrorKind::TimedOut, format!("looking up {host} takes too long"))),
    }
}

fn port(uri: &Uri) -> u16 {
    let default = if uri.scheme() == Some(&Scheme::HTTPS) { 443 } else { 80 };
    uri.port_u16().unwrap_or(default)
}

/// An [`Io`] that hyper's client accepts as a connection.
struct NetConnection(Io);

impl Connection for NetConnection {
    fn connected(&self) -> Connected {
        Connected::new()
    }
}

impl tokio::io::AsyncRead for NetConnection {
    fn poll_read(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut tokio::io::ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_read(cx, buf)
    }
}

impl tokio::io::AsyncWrite for NetConnection {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().0).poll_write(cx, buf)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_flush(cx)
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().0).poll_shutdown(cx)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_port_is_that_of_the_uri_or_of_its_scheme() {
        for (uri, expected) in [
            ("https://10.0.0.1:6443/", 6443),
            ("https://10.0.0.1/", 443),
            ("http://api.example/", 80),
            ("https://[fd00::1]:8443/", 8443),
        ] {
            assert_eq!(port(&uri.parse().unwrap()), expected, "{uri}");
        }
    }
}
