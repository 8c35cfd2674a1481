//! The wire as one host sees it.

use std::{
    io,
    net::{IpAddr, SocketAddr},
    task::Poll,
    time::Duration,
};

use conduit_net::{Accepted, Io, Listener, LocalAddr, Network, PeerAddr, Resolved};
use futures::{
    FutureExt,
    future::{BoxFuture, poll_fn},
};

use super::{
    EPHEMERAL, Wire,
    connection::Side,
    state::Listening,
    stream::{Arrival, Stream},
};
use crate::time::elapsed;

/// How long an address literal may be kept: it does not change.
const LITERAL_TTL: Duration = Duration::from_secs(3600);

/// One host's sockets.
#[derive(Clone)]
pub struct HostNetwork {
    wire: Wire,
    ip: IpAddr,
}

impl HostNetwork {
    pub(super) fn new(wire: Wire, ip: IpAddr) -> Self {
        Self { wire, ip }
    }
}

impl Network for HostNetwork {
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async move {
            let port = self.wire.with(|state, _| {
                let host = state.hosts.entry(self.ip).or_default();
                let free = |port: &u16| !host.listeners.contains_key(port);
                let port = match addr.port() {
                    0 => (EPHEMERAL..=u16::MAX).rev().find(free),
                    port => Some(port).filter(free),
                };
                let port = port.ok_or(io::Error::from(io::ErrorKind::AddrInUse))?;
                host.listeners.insert(port, Listening::default());
                Ok::<_, io::Error>(port)
            })?;
            let address = SocketAddr::new(self.ip, port);
            Ok(Box::new(WireListener { wire: self.wire.clone(), address }) as Box<dyn Listener>)
        }
        .boxed()
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Io>> {
        async move { Ok(Io::other(self.wire.connect(self.ip, addr).await?)) }.boxed()
    }

    /// Knows address literals alone.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        async move {
            match host.trim_matches(['[', ']']).parse() {
                Ok(ip) => Ok(Resolved { addrs: vec![ip], ttl: LITERAL_TTL }),
                Err(_) => Err(io::Error::new(io::ErrorKind::NotFound, format!("nobody is called {host}"))),
            }
        }
        .boxed()
    }
}

struct WireListener {
    wire: Wire,
    address: SocketAddr,
}

impl Listener for WireListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        let Self { wire, address } = self;
        let mut arrival = Arrival::default();
        poll_fn(move |cx| {
            loop {
                let next = wire.with(|state, _| {
                    let host = state.hosts.get_mut(&address.ip())?;
                    let listening = host.listeners.get_mut(&address.port())?;
                    let (established, id) = *listening.waiting.first()?;
                    let is_due = established <= elapsed();
                    if is_due {
                        listening.waiting.pop_first();
                    }
                    Some(if is_due { Ok(id) } else { Err(established) })
                });
                match next {
                    Some(Ok(id)) => return Poll::Ready(wire.accepted(id, *address)),
                    Some(Err(established)) if arrival.poll_until(established, cx).is_ready() => {}
                    Some(Err(_)) | None => break,
                }
            }
            // One that comes later may be there sooner.
            wire.with(|state, wakers| {
                let host = state.hosts.get_mut(&address.ip())?;
                let listening = host.listeners.get_mut(&address.port())?;
                let before = listening.acceptor.replace(cx.waker().clone());
                wakers.extend(before.filter(|before| !before.will_wake(cx.waker())));
                Some(())
            });
            Poll::Pending
        })
        .boxed()
    }
}

impl Wire {
    /// The server's end of a connection that is established.
    fn accepted(&self, id: u64, local: SocketAddr) -> io::Result<Accepted> {
        let client = self.with(|state, _| state.connections.get(&id).map(|connection| connection.client));
        // Its client may have given up meanwhile, and both ends are gone.
        let peer = client.ok_or(io::ErrorKind::ConnectionAborted)?;
        let io = Io::other(Stream::new(self.clone(), id, Side::Server));
        Ok(Accepted { io, peer: PeerAddr(peer), local: LocalAddr(local), original_dst: None })
    }
}

impl Drop for WireListener {
    fn drop(&mut self) {
        self.wire.with(|state, wakers| {
            let host = state.hosts.get_mut(&self.address.ip());
            let Some(listening) = host.and_then(|host| host.listeners.remove(&self.address.port())) else {
                return;
            };
            wakers.extend(listening.acceptor);
            for (_, id) in listening.waiting {
                state.close(id, Side::Server, true, wakers);
            }
        });
    }
}
