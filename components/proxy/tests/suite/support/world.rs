//! What connections meet between two pods: the redirects that iptables would do, Services, and a wire that can be read.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, SocketAddr},
    pin::Pin,
    sync::Arc,
    task::{Context, Poll, ready},
};

use conduit_identity::ManualClock;
use conduit_net::{Accepted, Io, Listener, Network, OriginalDst, Resolved, Stream, TokioNetwork};
use futures::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use super::{Authority, NOW, destination::Destination};

/// Everything that is not a pod. Cloning shares.
#[derive(Clone)]
pub(crate) struct World {
    kernel: Arc<Kernel>,
    pub(crate) authority: Arc<Authority>,
    pub(crate) clock: ManualClock,
    pub(crate) destination: Arc<Destination>,
}

#[derive(Default)]
struct Kernel {
    /// By the pod's address: where what comes in is redirected to.
    inbound: Mutex<BTreeMap<IpAddr, SocketAddr>>,
    /// By the pod's address: where what its application opens is redirected to.
    outbound: Mutex<BTreeMap<IpAddr, SocketAddr>>,
    /// ClusterIPs, and the pod behind each.
    services: Mutex<BTreeMap<SocketAddr, SocketAddr>>,
    /// What is never redirected.
    exempt: Mutex<Vec<SocketAddr>>,
    /// By redirect target: the original destinations of connections under way to it, in their order.
    originals: Mutex<BTreeMap<SocketAddr, VecDeque<SocketAddr>>>,
    /// Keeps that order.
    one_at_a_time: tokio::sync::Mutex<()>,
    names: Mutex<BTreeMap<String, IpAddr>>,
    wires: Mutex<Vec<Wire>>,
}

/// What crossed between two pods on one connection.
#[derive(Clone)]
pub(crate) struct Wire {
    pub(crate) to: SocketAddr,
    pub(crate) sent: Arc<Mutex<Vec<u8>>>,
    pub(crate) received: Arc<Mutex<Vec<u8>>>,
}

impl Wire {
    pub(crate) fn is_tls(&self) -> bool {
        self.sent.lock().first() == Some(&22)
    }

    /// Whether `text` crossed in the clear, in either direction.
    pub(crate) fn shows(&self, text: &str) -> bool {
        let shows = |bytes: &[u8]| bytes.windows(text.len()).any(|window| window == text.as_bytes());
        shows(&self.sent.lock()) || shows(&self.received.lock())
    }
}

impl World {
    pub(crate) async fn new() -> Self {
        Self {
            kernel: Arc::default(),
            authority: Arc::new(Authority::new()),
            clock: ManualClock::at(NOW),
            destination: Arc::new(Destination::start().await),
        }
    }

    /// The network as a process of the pod at `ip` sees it; `is_proxy` is what iptables tells by the uid.
    pub(crate) fn net(&self, ip: IpAddr, is_proxy: bool) -> WorldNet {
        WorldNet { kernel: self.kernel.clone(), inner: Arc::new(TokioNetwork::from_source(ip)), ip, is_proxy }
    }

    pub(crate) fn redirect(
        &self,
        ip: IpAddr,
        inbound: SocketAddr,
        outbound: SocketAddr,
        exempt: &[SocketAddr],
    ) {
        self.kernel.inbound.lock().insert(ip, inbound);
        self.kernel.outbound.lock().insert(ip, outbound);
        self.kernel.exempt.lock().extend_from_slice(exempt);
    }

    /// A ClusterIP with one pod behind it.
    pub(crate) fn service(&self, cluster_ip: &str, pod: SocketAddr) -> SocketAddr {
        let cluster_ip = cluster_ip.parse().unwrap();
        self.kernel.services.lock().insert(cluster_ip, pod);
        cluster_ip
    }

    pub(crate) fn name(&self, name: &str, ip: IpAddr) {
        self.kernel.names.lock().insert(name.to_owned(), ip);
    }

    /// What crossed to `to`, connection by connection.
    pub(crate) fn wires(&self, to: SocketAddr) -> Vec<Wire> {
        self.kernel.wires.lock().iter().filter(|wire| wire.to == to).cloned().collect()
    }
}

impl Kernel {
    /// Where a connection really goes, and the original destination if that is somewhere else.
    fn route(&self, from: IpAddr, is_proxy: bool, to: SocketAddr) -> (SocketAddr, Option<SocketAddr>) {
        if self.exempt.lock().contains(&to) {
            return (to, None);
        }
        if !is_proxy
            && to.ip() != from
            && let Some(proxy) = self.outbound.lock().get(&from)
        {
            return (*proxy, Some(to));
        }
        let to = self.services.lock().get(&to).copied().unwrap_or(to);
        match self.inbound.lock().get(&to.ip()) {
            Some(proxy) if to.ip() != from => (*proxy, Some(to)),
            _ => (to, None),
        }
    }
}

pub(crate) struct WorldNet {
    kernel: Arc<Kernel>,
    inner: Arc<TokioNetwork>,
    ip: IpAddr,
    is_proxy: bool,
}

impl Network for WorldNet {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let inner = self.inner.bind(addr).await?;
            Ok(Box::new(Redirected { inner, kernel: self.kernel.clone() }) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Io>> {
        async move {
            let (to, original) = self.kernel.route(self.ip, self.is_proxy, addr);
            let _order = self.kernel.one_at_a_time.lock().await;
            if let Some(original) = original {
                self.kernel.originals.lock().entry(to).or_default().push_back(original);
            }
            let connected = self.inner.connect(to).await;
            if connected.is_err() && original.is_some() {
                self.kernel.originals.lock().entry(to).or_default().pop_back();
            }
            let final_to = original.filter(|_| self.is_proxy).unwrap_or(to);
            match self.is_proxy && final_to.ip() != self.ip {
                true => Ok(self.sniffed(connected?, final_to)),
                false => connected,
            }
        }
        .boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        let named = self.kernel.names.lock().get(host).copied();
        let literal = host.parse().ok();
        async move {
            let ip = named.or(literal).ok_or(io::ErrorKind::NotFound)?;
            Ok(Resolved { addrs: vec![ip], ttl: std::time::Duration::from_secs(5) })
        }
        .boxed()
    }
}

impl WorldNet {
    fn sniffed(&self, io: Io, to: SocketAddr) -> Io {
        let wire = Wire { to, sent: Arc::default(), received: Arc::default() };
        self.kernel.wires.lock().push(wire.clone());
        Io::other(Sniffed { io: Some(io), wire, reset: false })
    }
}

struct Redirected {
    inner: Box<dyn Listener>,
    kernel: Arc<Kernel>,
}

impl Listener for Redirected {
    fn local_addr(&self) -> SocketAddr {
        self.inner.local_addr()
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move {
            let mut accepted = self.inner.accept().await?;
            let listener = self.inner.local_addr();
            let original = self.kernel.originals.lock().get_mut(&listener).and_then(VecDeque::pop_front);
            accepted.original_dst = original.map(OriginalDst);
            Ok(accepted)
        }
        .boxed()
    }
}

/// A connection whose bytes are written down.
struct Sniffed {
    io: Option<Io>,
    wire: Wire,
    reset: bool,
}

impl Sniffed {
    fn io(&mut self) -> Pin<&mut Io> {
        Pin::new(self.io.as_mut().expect("present until it is dropped"))
    }
}

impl Stream for Sniffed {
    fn reset_on_close(&mut self) {
        self.reset = true;
    }
}

impl Drop for Sniffed {
    fn drop(&mut self) {
        if let Some(io) = self.io.take().filter(|_| self.reset) {
            io.reset();
        }
    }
}

impl AsyncRead for Sniffed {
    fn poll_read(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        buf: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let before = buf.filled().len();
        ready!(self.io().poll_read(cx, buf))?;
        self.wire.received.lock().extend_from_slice(&buf.filled()[before..]);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Sniffed {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let n = ready!(self.io().poll_write(cx, buf))?;
        self.wire.sent.lock().extend_from_slice(&buf[..n]);
        Poll::Ready(Ok(n))
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        self.io().poll_shutdown(cx)
    }
}
