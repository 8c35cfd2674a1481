//! The network as a pod's sidecar sees it: two listeners that know where each connection was going, and a way out.

use std::{collections::BTreeMap, io, net::SocketAddr, sync::Arc, time::Duration};

use conduit_net::{Accepted, Io, Listener, Network, OriginalDst, Resolved};
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::mpsc,
    task::{JoinHandle, JoinSet},
};

use super::{Pod, Redirect};
use crate::{preamble, services::Translated};

/// Connections taken from the kernel that the sidecar has not accepted yet.
const BACKLOG: usize = 64;
/// The application's side of a connection writes its preamble at once.
const PREAMBLE_DEADLINE: Duration = Duration::from_secs(2);
/// After a failed accept, as after a failed bind; neither goes away by trying faster.
const PAUSE: Duration = Duration::from_millis(50);

pub(super) struct ProxyNet {
    pub(super) pod: Arc<Pod>,
    pub(super) redirect: Option<Redirect>,
}

impl Network for ProxyNet {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let listener = self.pod.host.bind(address.port()).await?;
            let Some(redirect) = self.redirect else { return Ok(listener) };
            Ok(match address.port() {
                port if port == redirect.inbound => inbound(self.pod.clone(), listener),
                port if port == redirect.outbound => outbound(listener),
                _ => listener,
            })
        }
        .boxed()
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Io>> {
        self.pod.leave(address).boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        self.pod.resolve(host).boxed()
    }
}

impl Pod {
    /// Connects without passing the sidecar: to a Service as kube-proxy would, to the own application, to anybody.
    pub(super) async fn leave(&self, address: SocketAddr) -> io::Result<Io> {
        let address = match self.services.translate(address, &self.turns) {
            Translated::NotAService => address,
            Translated::Endpoint(endpoint) => endpoint,
            Translated::NoEndpoint => return Err(io::ErrorKind::ConnectionRefused.into()),
        };
        let is_own = address.ip() == self.host.ip();
        let own = is_own.then(|| self.ports.public(address.port())).flatten();
        self.host.connect(own.unwrap_or(address)).await
    }

    /// Looks a name up: the cluster's own, then everybody's.
    pub(super) async fn resolve(&self, host: &str) -> io::Result<Resolved> {
        self.services.resolve(host, &self.namespace, self.host.net()).await
    }
}

/// Accepts from a channel that tasks fill; the tasks end with the listener.
struct FedListener {
    address: SocketAddr,
    accepted: mpsc::Receiver<io::Result<Accepted>>,
    feeder: JoinHandle<()>,
}

impl Listener for FedListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move {
            match self.accepted.recv().await {
                Some(accepted) => accepted,
                // The feeder never ends by itself; it panicked.
                None => std::future::pending().await,
            }
        }
        .boxed()
    }
}

impl Drop for FedListener {
    fn drop(&mut self) {
        self.feeder.abort();
    }
}

type Feed = mpsc::Sender<io::Result<Accepted>>;

/// One listener for the inbound port and for every port of the application, which follows the application's listeners
/// as they come and go.
fn inbound(pod: Arc<Pod>, listener: Box<dyn Listener>) -> Box<dyn Listener> {
    let address = listener.local_addr();
    let (feed, accepted) = mpsc::channel(BACKLOG);
    let feeder = tokio::spawn(merge(pod, listener, feed));
    Box::new(FedListener { address, accepted, feeder })
}

async fn merge(pod: Arc<Pod>, own: Box<dyn Listener>, feed: Feed) {
    let local = own.local_addr();
    let mut tasks = JoinSet::new();
    tasks.spawn(accept_all(own, feed.clone(), |accepted| accepted));
    let mut listening = pod.ports.listening();
    let mut open: BTreeMap<u16, tokio::task::AbortHandle> = BTreeMap::new();
    loop {
        let wanted = listening.borrow_and_update().clone();
        open.retain(|port, task| {
            let stays = wanted.contains(port);
            if !stays {
                task.abort();
            }
            stays
        });
        for port in wanted {
            open.entry(port).or_insert_with(|| tasks.spawn(stand_in(pod.clone(), port, local, feed.clone())));
        }
        if listening.changed().await.is_err() {
            return;
        }
    }
}

/// Listens in public on a port of the application, as the redirect would.
async fn stand_in(pod: Arc<Pod>, port: u16, local: SocketAddr, feed: Feed) {
    let original = SocketAddr::new(pod.host.ip(), port);
    let mut told = false;
    let listener = loop {
        match pod.host.bind(port).await {
            Ok(listener) => break listener,
            Err(error) if !told => {
                tracing::error!(%error, address = %original, "cannot stand in for the application, trying again");
                told = true;
            }
            Err(_) => {}
        }
        tokio::time::sleep(PAUSE).await;
    };
    accept_all(listener, feed, move |accepted| Accepted {
        local: conduit_net::LocalAddr(local),
        original_dst: Some(OriginalDst(original)),
        ..accepted
    })
    .await;
}

async fn accept_all(mut listener: Box<dyn Listener>, feed: Feed, redirected: impl Fn(Accepted) -> Accepted) {
    loop {
        let accepted = listener.accept().await.map(&redirected);
        let failed = accepted.is_err();
        if feed.send(accepted).await.is_err() {
            return;
        }
        if failed {
            tokio::time::sleep(PAUSE).await;
        }
    }
}

/// The listener for what the application sends. Preambles are read beside each other, so that a connection whose
/// preamble is late delays no other.
fn outbound(listener: Box<dyn Listener>) -> Box<dyn Listener> {
    let address = listener.local_addr();
    let (feed, accepted) = mpsc::channel(BACKLOG);
    let feeder = tokio::spawn(strip_preambles(listener, feed));
    Box::new(FedListener { address, accepted, feeder })
}

async fn strip_preambles(mut listener: Box<dyn Listener>, feed: Feed) {
    let mut readers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            Some(_) = readers.join_next(), if !readers.is_empty() => continue,
        };
        match accepted {
            Ok(accepted) => drop(readers.spawn(strip_preamble(accepted, feed.clone()))),
            Err(error) => {
                drop(feed.send(Err(error)).await);
                tokio::time::sleep(PAUSE).await;
            }
        }
    }
}

async fn strip_preamble(mut accepted: Accepted, feed: Feed) {
    match tokio::time::timeout(PREAMBLE_DEADLINE, preamble::read(&mut accepted.io)).await {
        Ok(Ok(destination)) => {
            let original_dst = Some(OriginalDst(destination));
            // An error means that the sidecar no longer listens; the connection ends with it.
            drop(feed.send(Ok(Accepted { original_dst, ..accepted })).await);
        }
        // Whoever connects without a preamble is not the pod's application.
        Ok(Err(error)) => tracing::debug!(%error, peer = %accepted.peer, "no preamble"),
        Err(_) => tracing::debug!(peer = %accepted.peer, "no preamble in time"),
    }
}
