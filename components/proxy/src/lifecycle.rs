//! A proxy from its listeners to its end.
//!
//! It ends in two phases. For a grace it goes on as before, since whoever dials it has not heard yet, but calls each answer the
//! last of its connection. Then inbound stops accepting and ends what is idle, while outbound stays at the application's
//! service until its connections are gone. In a Job it may also be told that the application has ended; then nobody is left to
//! wait for but the application's last words.

use std::{
    io,
    net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use conduit_identity::{Clock, Crypto, Identity, Store};
use conduit_net::{Listener, Net, both};
use conduit_runtime::{Seed, admin, admin::Admin, drain, metrics::Registry, ready::Readiness};
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::{sync::oneshot, time::timeout};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use crate::{
    accept,
    config::Config,
    connect::Connector,
    discover::{self, Discover},
    expiry::Expiry,
    inbound::{self, Inbound},
    metrics::Metrics,
    outbound::{self, Outbound},
    pool::Pool,
    probe,
    session::Sessions,
    tap::{self, Tap},
    trust,
};

/// How long what an application sent before it ended may take to arrive. A Job is over 5 s after its last container at
/// the latest, and learning of that takes its time too.
const LAST_WORDS: Duration = Duration::from_secs(2);

/// The world a proxy lives in.
pub struct Deps {
    /// Where it listens and connects.
    pub net: Net,
    /// Wall-clock time, by which certificates are judged.
    pub clock: Arc<dyn Clock>,
    /// All its randomness but that of TLS.
    pub seed: Seed,
    /// All its cryptography.
    pub crypto: Crypto,
    /// Told when every listener accepts.
    pub started: Option<oneshot::Sender<Bound>>,
}

/// Where a proxy listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Bound {
    /// Connections to the application.
    pub inbound: SocketAddr,
    /// Connections from the application.
    pub outbound: SocketAddr,
    /// Tap.
    pub tap: SocketAddr,
    /// Probes and metrics.
    pub admin: SocketAddr,
}

/// Why a proxy cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A listener's address cannot be had: it is taken, or not ours.
    #[error("the {listener} listener cannot listen on {addr}: {source}")]
    Bind {
        /// Which listener.
        listener: &'static str,
        /// Its address.
        addr: SocketAddr,
        /// The operating system's reason.
        source: io::Error,
    },
}

/// Runs a proxy until `drain` begins and what was under way has ended. Dropping the future ends everything at once.
///
/// # Errors
/// It cannot start; nothing that happens later ends it.
pub fn run(config: Config, deps: Deps, drain: drain::Watch) -> BoxFuture<'static, Result<(), Error>> {
    async move {
        let listeners = Listeners::bind(&config, &deps.net).await?;
        Proxy::new(config, deps, listeners).run(drain).await;
        Ok(())
    }
    .boxed()
}

struct Listeners {
    inbound: Box<dyn Listener>,
    outbound: Box<dyn Listener>,
    tap: Box<dyn Listener>,
    admin: Box<dyn Listener>,
}

impl Listeners {
    async fn bind(config: &Config, net: &Net) -> Result<Self, Error> {
        let bind = async |listener, addr| {
            net.bind(addr).await.map_err(|source| Error::Bind { listener, addr, source })
        };
        Ok(Self {
            admin: bind("metrics", config.listen.admin).await?,
            tap: bind("control", config.listen.tap).await?,
            inbound: bind("public", config.listen.inbound).await?,
            outbound: with_ipv6(bind("private", config.listen.outbound).await?, net).await,
        })
    }

    fn bound(&self) -> Bound {
        Bound {
            inbound: self.inbound.local_addr(),
            outbound: self.outbound.local_addr(),
            tap: self.tap.local_addr(),
            admin: self.admin.local_addr(),
        }
    }
}

/// A redirected connection of IPv6 arrives at `::1`, as one of IPv4 does at 127.0.0.1. A pod without IPv6 makes none.
async fn with_ipv6(listener: Box<dyn Listener>, net: &Net) -> Box<dyn Listener> {
    let addr = listener.local_addr();
    if addr.ip() != IpAddr::V4(Ipv4Addr::LOCALHOST) {
        return listener;
    }
    match net.bind((Ipv6Addr::LOCALHOST, addr.port()).into()).await {
        Ok(companion) => both(listener, companion),
        Err(error) => {
            tracing::info!(%error, "not listening on ::1: connections of IPv6 are not taken from the application");
            listener
        }
    }
}

/// Everything, wired.
struct Proxy {
    config: Arc<Config>,
    listeners: Listeners,
    started: Option<oneshot::Sender<Bound>>,
    inbound: Arc<Inbound>,
    outbound: Arc<Outbound>,
    store: Store,
    clock: Arc<dyn Clock>,
    metrics: Metrics,
    tap: Tap,
    net: Net,
    readiness: Readiness,
    registry: Registry,
    /// Ends what runs in the background, when dropped with the proxy too.
    end: tokio_util::sync::DropGuard,
}

impl Proxy {
    fn new(config: Config, deps: Deps, listeners: Listeners) -> Self {
        let Deps { net, clock, seed, crypto, started } = deps;
        let seed = seed.fork("proxy");
        let config = Arc::new(config);
        let (registry, readiness, end) =
            (Registry::default(), Readiness::default(), CancellationToken::new());
        let store = match &config.tls.own {
            Some(own) => Store::new(own.identity.clone(), crypto, clock.clone()),
            None => Store::disabled(),
        };
        let metrics = Metrics::register(&registry, config.timeouts.metrics_idle);
        metrics.show_credentials(&registry, &store);
        let wall = clock.clone();
        registry.register_time(move || wall.now().0);
        if config.process_metrics {
            metrics.show_process(&registry, clock.now());
        }
        let tap = Tap::new(config.limits.tap_events, metrics.tap.clone());
        let sessions = Sessions::new(metrics.clone(), tap.clone());
        let recorders = (sessions.clone(), metrics.clone());
        let connector =
            Connector::new(net.clone(), store.clone(), recorders, config.timeouts, &seed, end.child_token());
        let discover = discovery(&config, &net, &store, &metrics, &readiness, &seed);
        let expiry = Expiry::new(clock.clone());
        let inbound = Arc::new(Inbound {
            listener: listeners.inbound.local_addr(),
            config: config.clone(),
            store: store.clone(),
            expiry: expiry.clone(),
            connector: connector.clone(),
            sessions: sessions.clone(),
            metrics: metrics.clone(),
            known: Default::default(),
            leaving: Arc::default(),
        });
        let outbound = Arc::new(Outbound {
            listener: listeners.outbound.local_addr(),
            config: config.clone(),
            net: net.clone(),
            expiry,
            connector,
            discover,
            pool: Pool::new(config.limits.pool_idle, clock.clone()),
            sessions,
            metrics: metrics.clone(),
            rng: Mutex::new(seed.fork("balance").rng()),
        });
        let end = end.drop_guard();
        Self {
            config,
            listeners,
            started,
            inbound,
            outbound,
            store,
            clock,
            metrics,
            tap,
            net,
            readiness,
            registry,
            end,
        }
    }

    async fn run(self, drain: drain::Watch) {
        let bound = self.listeners.bound();
        tracing::info!(
            inbound = %bound.inbound, outbound = %bound.outbound, tap = %bound.tap, admin = %bound.admin,
            identity = ?self.store.identity(), "serving"
        );
        let Self { config, listeners, inbound, outbound, .. } = self;
        let (pool, expiry) = (outbound.pool.clone(), outbound.expiry.clone());
        let ended = application_ended(&config, outbound.discover.clone());
        // Never signaled: these are there until the very end.
        let (_until_the_end, watch) = drain::channel();
        let mut admin = Admin::new(self.readiness.clone(), self.registry);
        admin.own = Some(probe::answers(config.tcp_probes.clone(), self.net));
        let observe = Identity::of(&config.control_plane.component("observe"), &config.control_plane);
        let guard = tap::Guard {
            store: self.store.clone(),
            observe,
            clock: self.clock,
            handshake: config.timeouts.handshake,
        };
        let background = async {
            tokio::join!(
                admin::serve(listeners.admin, admin, watch.clone()),
                tap::serve(listeners.tap, self.tap, guard, self.metrics.clone(), watch.clone()),
                trust::keep(&config, self.store, self.metrics, self.readiness),
                pool.sweep(),
                expiry.run(config.timeouts.tls_poll),
            )
        };
        if let Some(started) = self.started {
            // Whoever asked may have left.
            let _ = started.send(bound);
        }
        tokio::select! {
            _ = background => {}
            () = serve(config.clone(), (listeners.inbound, inbound), (listeners.outbound, outbound), drain, ended) => {}
        }
        drop(self.end);
        tracing::info!("stopped");
    }
}

fn discovery(
    config: &Config,
    net: &Net,
    store: &Store,
    metrics: &Metrics,
    readiness: &Readiness,
    seed: &Seed,
) -> Discover {
    let Some(destination) = config.destination.clone() else { return Discover::disabled() };
    let settings = discover::Settings {
        destination,
        namespace: config.pod_namespace.clone(),
        control_plane: config.control_plane.clone(),
        max_targets: config.limits.targets,
        handshake: config.timeouts.handshake,
    };
    Discover::new(net.clone(), settings, store.clone(), metrics.clone(), readiness.clone(), seed)
        .unwrap_or_else(|error| {
            tracing::error!(%error, "the destination service's name is none; going on without it");
            Discover::disabled()
        })
}

/// Returns when the application has ended, if the proxy is to end with it.
fn application_ended(config: &Config, discover: Discover) -> BoxFuture<'static, ()> {
    match config.end_with_pod.clone() {
        Some(uid) => async move { discover.application_ended(uid).await }.boxed(),
        None => std::future::pending().boxed(),
    }
}

/// Accepts both ways until the drain is over, or the application.
async fn serve(
    config: Arc<Config>,
    (inbound_listener, inbound): (Box<dyn Listener>, Arc<Inbound>),
    (outbound_listener, outbound): (Box<dyn Listener>, Arc<Outbound>),
    drain: drain::Watch,
    ended: BoxFuture<'static, ()>,
) {
    let limit = config.limits.connections;
    let (ending, closing) = drain::channel();
    let (stopping, stopped) = drain::channel();
    let inbound_closing = closing.clone();
    let leaving = inbound.clone();
    let mut inbound =
        std::pin::pin!(accept::accept(inbound_listener, limit, closing.clone(), move |accepted| {
            // Boxed: moving it into its task would double its size.
            Box::pin(inbound::serve(inbound.clone(), accepted, inbound_closing.clone()))
        }));
    let open = TaskTracker::new();
    let tracker = open.clone();
    let outbound = accept::accept(outbound_listener, limit, stopped, move |accepted| {
        let connection = outbound::serve(outbound.clone(), accepted, closing.clone());
        Box::pin(tracker.track_future(connection))
    });
    let end = async {
        let mut deadline = config.timeouts.drain_deadline;
        tokio::select! {
            () = inbound.as_mut() => {}
            () = async {
                drain.signaled().await;
                tracing::info!(grace = ?config.timeouts.drain_grace, "stopping");
                leaving.leave();
                tokio::time::sleep(config.timeouts.drain_grace).await;
            } => {}
            () = ended => {
                tracing::info!("everything else in the pod has ended");
                deadline = deadline.min(LAST_WORDS);
            }
        }
        drop(ending);
        open.close();
        let over = async { tokio::join!(inbound, open.wait()) };
        if timeout(deadline, over).await.is_err() {
            tracing::warn!(open = open.len(), "cutting off what is still open");
        }
    };
    tokio::select! {
        () = outbound => {}
        () = end => {}
    }
    drop(stopping);
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `make` returns takes this many bytes.
    fn size_of_future<A, B, C, F: Future>(_: impl FnOnce(A, B, C) -> F) -> usize {
        size_of::<F>()
    }

    #[test]
    fn a_connection_holds_no_room_for_what_it_does_not_do() {
        let (inbound, outbound) = (size_of_future(inbound::serve), size_of_future(outbound::serve));
        // As measured, rounded up; a handshake or a request inlined would show at once.
        assert!(inbound <= 512 && outbound <= 768, "{inbound} {outbound}");
    }
}
