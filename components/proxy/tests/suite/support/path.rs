//! A client's pod and a server's, and what may lie between them.

use std::net::SocketAddr;

use super::{Client, Pod, World, identity, serve};

/// How two meshed pods talk.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Mode {
    /// Encrypted.
    Tls,
    /// In plaintext: neither was injected with TLS.
    Plain,
}

impl Mode {
    pub(crate) const ALL: [Self; 2] = [Self::Tls, Self::Plain];
}

/// Two meshed pods.
pub(crate) struct Path {
    pub(crate) world: World,
    pub(crate) client: Pod,
    pub(crate) server: Pod,
    mode: Mode,
}

impl Path {
    pub(crate) async fn new(mode: Mode) -> Self {
        let world = World::new().await;
        let (client, server) = match mode {
            Mode::Tls => (Pod::meshed(&world, 1, "client").await, Pod::meshed(&world, 2, "web").await),
            Mode::Plain => (Pod::without_tls(&world, 1).await, Pod::without_tls(&world, 2).await),
        };
        Self { world, client, server, mode }
    }

    /// Serves in the server's pod, and has the destination service say so.
    pub(crate) async fn serve<Handled>(
        &self,
        handle: impl Fn(Client) -> Handled + Send + Sync + 'static,
    ) -> SocketAddr
    where
        Handled: Future<Output = ()> + Send + 'static,
    {
        let addr = serve(&self.server, handle).await;
        self.tell(addr);
        addr
    }

    /// The destination service knows the server at `addr`.
    pub(crate) fn tell(&self, addr: SocketAddr) {
        let web = identity("web");
        let identity = (self.mode == Mode::Tls).then_some(&web);
        self.world.destination.tell(addr, &[(addr, identity)]);
    }

    /// What crossed between the pods was encrypted, or not, as it should be, and some of it was there.
    pub(crate) fn assert_wires(&self, to: SocketAddr) {
        let wires = self.world.wires(to);
        assert!(!wires.is_empty(), "nothing crossed to {to}");
        for wire in wires {
            assert_eq!(wire.is_tls(), self.mode == Mode::Tls, "{to}");
        }
    }
}
