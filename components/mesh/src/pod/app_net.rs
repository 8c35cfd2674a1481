//! The network as a pod's application sees it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
};

use conduit_net::{Accepted, Io, Listener, LocalAddr, Network, Resolved};
use futures::{FutureExt, future::BoxFuture};

use super::{Pod, Redirect, ports::Registration};
use crate::preamble;

pub(super) struct AppNet {
    pub(super) pod: Arc<Pod>,
    pub(super) redirect: Option<Redirect>,
}

impl Network for AppNet {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            match self.redirect {
                None if !is_localhost(address.ip()) => self.pod.listen_openly(address.port()).await,
                _ => self.pod.listen_privately(address).await,
            }
        }
        .boxed()
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Io>> {
        async move {
            if let Some(own) = self.pod.own(address) {
                return self.pod.host.connect(own?).await;
            }
            match self.redirect {
                None => self.pod.leave(address).await,
                Some(redirect) => self.through_the_sidecar(redirect, address).await,
            }
        }
        .boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        self.pod.resolve(host).boxed()
    }
}

impl AppNet {
    async fn through_the_sidecar(&self, redirect: Redirect, address: SocketAddr) -> io::Result<Io> {
        let mut io = self.pod.host.connect((self.pod.host.ip(), redirect.outbound).into()).await?;
        preamble::write(&mut io, address).await?;
        Ok(io)
    }
}

impl Pod {
    /// Listens where others connect to.
    async fn listen_openly(&self, port: u16) -> io::Result<Box<dyn Listener>> {
        let listener = self.host.bind(port).await?;
        let address = listener.local_addr();
        self.register(address.port(), false, address, listener)
    }

    /// Listens where only the pod itself connects to; the sidecar, if there is one, listens in public for it.
    async fn listen_privately(&self, address: SocketAddr) -> io::Result<Box<dyn Listener>> {
        let listener = self.host.bind(0).await?;
        let port = if address.port() == 0 { listener.local_addr().port() } else { address.port() };
        self.register(port, is_localhost(address.ip()), SocketAddr::new(self.host.ip(), port), listener)
    }

    fn register(
        &self,
        port: u16,
        is_loopback: bool,
        address: SocketAddr,
        listener: Box<dyn Listener>,
    ) -> io::Result<Box<dyn Listener>> {
        let real = listener.local_addr();
        let registration = self.ports.register(port, is_loopback, real).ok_or(io::ErrorKind::AddrInUse)?;
        Ok(Box::new(AppListener { listener, address, _registration: registration }))
    }

    /// Where the application reaches an address of its own pod, which is never redirected: its own listener, or
    /// whatever the sidecar serves there. None when `address` is another's.
    fn own(&self, address: SocketAddr) -> Option<io::Result<SocketAddr>> {
        if is_localhost(address.ip()) {
            return Some(self.ports.loopback(address.port()).ok_or(io::ErrorKind::ConnectionRefused.into()));
        }
        (address.ip() == self.host.ip()).then(|| Ok(self.ports.public(address.port()).unwrap_or(address)))
    }
}

/// Whether `ip` is this pod's loopback. Other addresses of 127.0.0.0/8 may be pods.
fn is_localhost(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => ip.octets()[..3] == [127, 0, 0],
        IpAddr::V6(ip) => ip.is_loopback(),
    }
}

/// A listener of the application, which sees the address it asked for.
struct AppListener {
    listener: Box<dyn Listener>,
    address: SocketAddr,
    _registration: Registration,
}

impl Listener for AppListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move { Ok(Accepted { local: LocalAddr(self.address), ..self.listener.accept().await? }) }
            .boxed()
    }
}
