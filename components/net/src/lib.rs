//! Where bytes enter and leave Conduit: one object-safe [`Network`] that production, the demo and the simulation
//! each implement, so that everything above it is the same code in all three.
//!
//! - `addr.rs`: a type for each role an address plays
//! - `io.rs`: [`Io`], the one stream type the rest of Conduit reads and writes
//! - `prefixed.rs`: [`Prefixed`], a stream that first yields bytes already read from it
//! - `both.rs`: two listeners as one
//! - `tokio.rs`: [`TokioNetwork`], real sockets; the only file that touches `tokio::net`
//! - `original_dst.rs`: where a redirected connection was really going (Linux)
//! - `dns.rs`: names to addresses, without the C library's resolver
//!
//! Deadlines are the caller's: nothing here times out by itself. Dropping a future returned by a [`Network`] abandons
//! the operation and leaks nothing.

use std::{io, net::IpAddr, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::BoxFuture;

mod addr;
mod both;
mod dns;
mod io_stream;
mod original_dst;
mod prefixed;
mod tokio_net;

pub use addr::{LocalAddr, OriginalDst, PeerAddr};
pub use both::both;
pub use io_stream::{Io, Stream};
pub use prefixed::Prefixed;
pub use tokio_net::TokioNetwork;

/// A shared handle on a network.
pub type Net = Arc<dyn Network>;

/// Sockets and names, as a value: whoever holds a [`Net`] decides which world it lives in.
pub trait Network: Send + Sync + 'static {
    /// Listens on `addr`; port 0 picks a free one, told by [`Listener::local_addr`]. 0.0.0.0 is every address of the
    /// machine, those of IPv6 too where it has them.
    ///
    /// # Errors
    /// The operating system's: the address is taken or is not ours.
    fn bind(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>>;

    /// Opens a connection to `addr`.
    ///
    /// # Errors
    /// The operating system's; `ConnectionRefused` is what callers treat as "nobody listens there".
    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Io>>;

    /// Looks `host` (a DNS name without a port, or an address literal) up.
    ///
    /// # Errors
    /// `NotFound` when the name certainly does not exist, another kind when that could not be found out.
    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>>;
}

/// The answer to a name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resolved {
    /// At least one address, in the order the resolver gave them.
    pub addrs: Vec<IpAddr>,
    /// How long the answer may be kept.
    pub ttl: Duration,
}

/// A listening socket.
pub trait Listener: Send + 'static {
    /// The address it is bound to, with the real port.
    fn local_addr(&self) -> SocketAddr;

    /// Waits for the next connection. Cancel safe: a connection is never lost by dropping this future.
    ///
    /// # Errors
    /// The operating system's. An error concerns one connection or a shortage (file descriptors); the listener stays
    /// usable, and the caller backs off before it accepts again.
    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>>;
}

/// A connection that somebody opened to us.
#[derive(Debug)]
pub struct Accepted {
    /// The bytes.
    pub io: Io,
    /// Who opened it.
    pub peer: PeerAddr,
    /// The address of ours it arrived at.
    pub local: LocalAddr,
    /// Where it was going before it was redirected to us; none when it was opened to this very listener, or when the
    /// system cannot tell.
    pub original_dst: Option<OriginalDst>,
}
