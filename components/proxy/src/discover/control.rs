//! The connection to the destination service: over TLS as soon as both ends can, in plaintext until then. Discovery
//! fails open too: a mesh whose certificates are broken must still find its endpoints.

use std::{io, net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{HandshakeError, HandshakeFailure, Identity, Loaded, Store};
use conduit_net::{Io, Net};
use conduit_proto::{
    destination::destination_client::DestinationClient, lifecycle::lifecycle_client::LifecycleClient,
};
use conduit_runtime::{Backoff, Seed, grpc, ready::Readiness};
use futures::FutureExt;
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};

use super::Settings;
use crate::{
    config::Destination,
    metrics::Metrics,
    session::{Direction, PeerId, TlsStatus, Why},
};

/// All of opening a connection, below the gRPC channel's own limit of 3 s, so that the failure is seen here.
const DIAL: Duration = Duration::from_millis(2_500);
/// One address of the service, which may be a pod that is gone.
const CONNECT: Duration = Duration::from_secs(1);
/// Addresses tried of one name.
const MAX_ADDRESSES: usize = 3;
/// How often TLS is tried beside a connection in plaintext.
const PROBE_MIN: Duration = Duration::from_secs(5);
const PROBE_MAX: Duration = Duration::from_secs(60);

/// How the destination service was reached at the last attempt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Link {
    /// No attempt has ended yet.
    Untried,
    /// Over a connection with this status.
    Up(TlsStatus),
    /// Not.
    Down,
}

/// The connection that all streams share.
pub(super) struct Control {
    pub(super) namespace: String,
    pub(super) control_plane: conduit_identity::ControlPlane,
    dialer: Arc<Dialer>,
    channel: grpc::Channel,
    /// Counts the times that streams are to move to a new connection.
    renewals: watch::Sender<u64>,
}

impl Control {
    pub(super) fn new(
        net: Net,
        settings: &Settings,
        store: Store,
        metrics: Metrics,
        readiness: Readiness,
    ) -> Result<Self, http::Error> {
        let destination = settings.destination.clone();
        let authority = authority(&destination);
        let link = watch::Sender::new(Link::Untried);
        let handshake = settings.handshake;
        let dialer = Arc::new(Dialer { net, destination, store, handshake, metrics, readiness, link });
        let dial = Arc::clone(&dialer);
        let channel = grpc::Channel::new(&authority, Arc::new(move || Arc::clone(&dial).dial().boxed()))?;
        Ok(Self {
            namespace: settings.namespace.clone(),
            control_plane: settings.control_plane.clone(),
            dialer,
            channel,
            renewals: watch::Sender::new(0),
        })
    }

    /// A client over the shared connection.
    pub(super) fn client(&self) -> DestinationClient<grpc::Channel> {
        DestinationClient::new(self.channel.clone())
    }

    /// The same of the service that knows when applications end.
    pub(super) fn lifecycle(&self) -> LifecycleClient<grpc::Channel> {
        LifecycleClient::new(self.channel.clone())
    }

    /// Changes when streams are to be opened anew, over a better connection.
    pub(super) fn renewals(&self) -> watch::Receiver<u64> {
        self.renewals.subscribe()
    }

    /// Changes with each attempt to connect that ends differently from the one before.
    pub(super) fn link(&self) -> watch::Receiver<Link> {
        self.dialer.link.subscribe()
    }

    pub(super) fn metrics(&self) -> &Metrics {
        &self.dialer.metrics
    }

    /// Moves the streams to a new connection when our credentials change, and when TLS has become possible. Never
    /// returns.
    pub(super) async fn keep_secure(self: Arc<Self>, seed: Seed) {
        let mut versions = self.dialer.store.subscribe();
        let mut backoff = Backoff::new(PROBE_MIN, PROBE_MAX, &seed);
        loop {
            let better = tokio::select! {
                changed = versions.changed() => match changed {
                    Ok(()) => matches!(*self.dialer.link.borrow(), Link::Up(_)),
                    // The store is ours, so that this does not happen; waiting for the next probe is harmless.
                    Err(_) => { tokio::time::sleep(PROBE_MAX).await; false }
                },
                () = tokio::time::sleep(backoff.next_delay()) => self.dialer.can_do_better().await,
            };
            if better {
                self.channel.reconnect().await;
                self.renewals.send_modify(|count| *count += 1);
                backoff.reset();
            }
        }
    }
}

struct Dialer {
    net: Net,
    destination: Destination,
    store: Store,
    handshake: Duration,
    metrics: Metrics,
    readiness: Readiness,
    link: watch::Sender<Link>,
}

type Reached = (Box<dyn grpc::Transport>, TlsStatus);

impl Dialer {
    async fn dial(self: Arc<Self>) -> io::Result<Box<dyn grpc::Transport>> {
        let reached =
            timeout(DIAL, self.reach()).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()));
        match reached {
            Ok((transport, tls)) => {
                self.is_up(tls);
                Ok(transport)
            }
            Err(error) => {
                self.is_down(&error);
                Err(error)
            }
        }
    }

    async fn reach(&self) -> io::Result<Reached> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for addr in self.addresses().await? {
            match self.reach_at(addr).await {
                Ok(reached) => return Ok(reached),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    async fn addresses(&self) -> io::Result<Vec<SocketAddr>> {
        let Destination { host, port, .. } = &self.destination;
        let found = self.net.resolve(host).await?;
        Ok(found.addrs.into_iter().take(MAX_ADDRESSES).map(|ip| SocketAddr::new(ip, *port)).collect())
    }

    async fn reach_at(&self, addr: SocketAddr) -> io::Result<Reached> {
        let why = match self.means() {
            Ok((loaded, identity)) => match self.secure(addr, &loaded, identity).await? {
                Ok(reached) => return Ok(reached),
                Err(failure) => {
                    self.metrics.tls.fallback(failure);
                    Why::HandshakeFailed(failure)
                }
            },
            Err(why) => why,
        };
        Ok((Box::new(self.connect(addr).await?), TlsStatus::Plain(why)))
    }

    /// What TLS can be done with now.
    fn means(&self) -> Result<(Arc<Loaded>, &Identity), Why> {
        let loaded = self.store.current()?;
        let identity = self.destination.identity.as_ref().ok_or(Why::NoIdentity)?;
        Ok((loaded, identity))
    }

    async fn connect(&self, addr: SocketAddr) -> io::Result<Io> {
        timeout(CONNECT, self.net.connect(addr)).await?
    }

    /// A connection over TLS, or why there is none although the service accepts connections.
    async fn secure(
        &self,
        addr: SocketAddr,
        loaded: &Loaded,
        identity: &Identity,
    ) -> io::Result<Result<Reached, HandshakeFailure>> {
        let io = self.connect(addr).await?;
        let began = Instant::now();
        let result = timeout(self.handshake, conduit_identity::connect(loaded, io, identity))
            .await
            .unwrap_or_else(|_| Err(HandshakeError::timeout()));
        let outcome = result.as_ref().map(|_| ()).map_err(HandshakeError::reason);
        self.metrics.tls.handshake(Direction::Outbound, outcome, began.elapsed());
        Ok(match result {
            Ok((stream, server)) => {
                let client = PeerId::Verified(loaded.credentials.identity().clone());
                let tls = TlsStatus::Mutual { client, server: PeerId::Verified(server.identity) };
                Ok((Box::new(stream), tls))
            }
            Err(error) => Err(error.reason()),
        })
    }

    /// Whether the connection is in plaintext and a handshake on another one succeeds.
    async fn can_do_better(&self) -> bool {
        if !matches!(*self.link.borrow(), Link::Up(TlsStatus::Plain(_))) {
            return false;
        }
        let Ok((loaded, identity)) = self.means() else { return false };
        let Ok(Ok(addresses)) = timeout(CONNECT, self.addresses()).await else { return false };
        let Some(addr) = addresses.first() else { return false };
        matches!(self.secure(*addr, &loaded, identity).await, Ok(Ok(_)))
    }

    fn is_up(&self, tls: TlsStatus) {
        self.metrics.discovery.link(Some(tls.clone()));
        if self.changes(Link::Up(tls.clone())) {
            let text = match (&tls, tls.reason()) {
                (TlsStatus::Mutual { .. }, _) => "connected over TLS".to_owned(),
                (_, Some(reason)) => format!("connected in plaintext: {}, {reason}", tls.label()),
                (_, None) => format!("connected in plaintext: {}", tls.label()),
            };
            tracing::info!(destination = %authority(&self.destination), tls = tls.label(), "reached the destination service");
            self.readiness.note("destination", text);
        }
    }

    fn is_down(&self, error: &io::Error) {
        self.metrics.discovery.link(None);
        if self.changes(Link::Down) {
            let destination = authority(&self.destination);
            tracing::warn!(%destination, %error, "cannot reach the destination service; what is known stays in use");
            self.readiness.note("destination", format!("not reachable: {error}; what is known stays in use"));
        }
    }

    fn changes(&self, link: Link) -> bool {
        self.link.send_if_modified(|known| {
            let changed = *known != link;
            *known = link;
            changed
        })
    }
}

fn authority(Destination { host, port, .. }: &Destination) -> String {
    match host.parse() {
        Ok(ip) => SocketAddr::new(ip, *port).to_string(),
        Err(_) => format!("{host}:{port}"),
    }
}
