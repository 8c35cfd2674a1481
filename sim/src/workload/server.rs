//! Applications that answer.

use std::{
    future::Future,
    io,
    net::{IpAddr, Ipv4Addr},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::Duration,
};

use futures::FutureExt;
use rand::Rng;
use tokio::io::AsyncBufReadExt;
use tokio_rustls::TlsAcceptor;

use conduit_net::{Accepted, Io, Listener, Net};
use conduit_runtime::{drain, serve::accept_loop};

use super::{
    AppError, Context, DRAIN_LIMIT, http_server, opaque,
    payload::{answer, payload},
    server_first, websocket,
    wire::{Wire, broken, wire},
};
use crate::history::{Arrival, OpId, Protocol};

/// The most connections that are open at a time on a port.
const CONNECTIONS: usize = 1024;

/// How long one operation may take to arrive and be answered, from its first byte on.
const OP_LIMIT: Duration = Duration::from_secs(60);

/// How long a connection may be idle, where nothing else is said.
const IDLE_LIMIT: Duration = Duration::from_secs(3600);

/// Who a server is.
#[derive(Debug, Clone)]
pub struct ServerInfo {
    /// The pod's address.
    pub ip: IpAddr,
    /// `namespace/name` of the workload that it belongs to.
    pub workload: String,
}

/// How a server behaves.
#[derive(Debug, Clone, Default)]
pub struct ServerOptions {
    /// Closes each connection on which nothing is under way after a time of its own, from half of this to all of it; none
    /// keeps it.
    pub close_idle: Option<Duration>,
    /// How long [`Protocol::ServerFirst`] is silent before it greets.
    pub greeting_delay: Duration,
}

/// Listens on the port of each of `protocols` and answers; once the drain has begun, finishes what is under way, for at
/// most [`DRAIN_LIMIT`].
///
/// # Errors
/// A port cannot be listened on.
pub async fn server(
    net: Net,
    identity: ServerInfo,
    protocols: Vec<Protocol>,
    context: Context,
    options: ServerOptions,
    drain: drain::Watch,
) -> Result<(), AppError> {
    let mut ports = Vec::new();
    for protocol in protocols {
        let listener = net.bind((Ipv4Addr::UNSPECIFIED, protocol.port()).into()).await?;
        let server = Server::new(identity.clone(), protocol, context.clone(), options.clone(), drain.clone());
        ports.push(server.listen(listener));
    }
    // The ports have watches of their own: this one must not keep the drain from ending.
    drop(drain);
    futures::future::join_all(ports).await;
    Ok(())
}

/// What all connections to one port have in common.
pub(super) struct Server {
    pub(super) identity: ServerInfo,
    pub(super) protocol: Protocol,
    pub(super) options: ServerOptions,
    pub(super) drain: drain::Watch,
    context: Context,
    accepted: AtomicU64,
}

impl Server {
    pub(super) fn new(
        identity: ServerInfo,
        protocol: Protocol,
        context: Context,
        options: ServerOptions,
        drain: drain::Watch,
    ) -> Arc<Self> {
        Arc::new(Self { identity, protocol, options, drain, context, accepted: AtomicU64::new(0) })
    }

    /// Answers whoever connects.
    pub(super) async fn listen(self: Arc<Self>, listener: Box<dyn Listener>) {
        let drain = self.drain.clone();
        accept_loop(listener, CONNECTIONS, drain, move |accepted| self.clone().connection(accepted)).await;
    }

    async fn connection(self: Arc<Self>, accepted: Accepted) {
        let drain = self.drain.clone();
        let overdue = async move {
            drain.signaled().await;
            tokio::time::sleep(DRAIN_LIMIT).await;
        };
        tokio::select! {
            biased;
            result = self.clone().speak(accepted.io).boxed() => if let Err(error) = result {
                tracing::debug!(error, protocol = self.protocol.name(), "a connection ended early");
            },
            () = overdue => {}
        }
    }

    async fn speak(self: Arc<Self>, io: Io) -> Result<(), AppError> {
        let idle = self.idle_limit();
        match self.protocol {
            Protocol::Http1 | Protocol::Http2 | Protocol::Grpc => {
                return http_server::serve(self, io, idle).await;
            }
            Protocol::Opaque => opaque::serve(&self, &mut wire(io), idle).await?,
            Protocol::ServerFirst => server_first::serve(&self, &mut wire(io), idle).await?,
            Protocol::WebSocket => websocket::serve(&self, &mut wire(io), idle).await?,
            Protocol::AppTls => {
                let tls = self.in_time(TlsAcceptor::from(self.context.tls.server.clone()).accept(io)).await?;
                opaque::serve(&self, &mut wire(tls), idle).await?;
            }
        }
        Ok(())
    }

    fn idle_limit(&self) -> Duration {
        let number = self.accepted.fetch_add(1, Ordering::Relaxed);
        let Some(most) = self.options.close_idle else { return IDLE_LIMIT };
        let purpose = format!("idle/{}/{}/{number}", self.identity.ip, self.protocol.name());
        let most = u64::try_from(most.as_nanos()).unwrap_or(u64::MAX).max(1);
        // At least half of it: what is closed before it can be used is a server that nobody could talk to.
        Duration::from_nanos(most / 2 + self.context.seed.fork(&purpose).rng().next_u64() % most.div_ceil(2))
    }

    /// Waits until another operation begins. False when none will: the client has ended, or the connection was idle too
    /// long, or the drain has begun. A new connection's first operation is under way even before its first byte is there.
    pub(super) async fn another(&self, wire: &mut Wire, first: bool, idle: Duration) -> io::Result<bool> {
        let ending = async {
            match first {
                true => tokio::time::sleep(OP_LIMIT).await,
                false => drop(tokio::time::timeout(idle, self.drain.signaled()).await),
            }
        };
        tokio::select! {
            biased;
            read = wire.fill_buf() => Ok(!read?.is_empty()),
            () = ending => Ok(false),
        }
    }

    /// Bounds what belongs to one operation.
    pub(super) async fn in_time<T>(&self, work: impl Future<Output = io::Result<T>>) -> io::Result<T> {
        tokio::time::timeout(OP_LIMIT, work).await.unwrap_or_else(|_| Err(io::ErrorKind::TimedOut.into()))
    }

    /// Writes down that `received` is there, and gives the answer to it.
    ///
    /// # Errors
    /// It is nobody's payload.
    pub(super) fn received(&self, received: &[u8]) -> io::Result<Vec<u8>> {
        let op = OpId::find(received).ok_or_else(|| broken("a payload of nobody"))?;
        Ok(self.arrived(op, received, true))
    }

    /// Writes down that `op` is there with its payload, intact if that is and `around` it everything was; gives the answer.
    pub(super) fn arrived(&self, op: OpId, received: &[u8], around: bool) -> Vec<u8> {
        self.context.log.arrive(Arrival {
            op,
            server: self.identity.ip,
            workload: self.identity.workload.clone(),
            protocol: self.protocol,
            at: self.context.time.now(),
            intact: around && received == payload(op, received.len()),
        });
        answer(op, received)
    }
}
