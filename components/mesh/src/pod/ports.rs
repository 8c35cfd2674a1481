//! Which of a pod's ports its application listens on, and where those listeners really are.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    sync::Arc,
};

use parking_lot::Mutex;
use tokio::sync::watch;

/// The application's listeners. Cloning shares.
#[derive(Clone)]
pub(crate) struct Ports {
    open: Arc<Mutex<Open>>,
    public: Arc<watch::Sender<BTreeSet<u16>>>,
}

#[derive(Default)]
struct Open {
    /// Reachable at the pod's address.
    public: BTreeMap<u16, SocketAddr>,
    /// Bound to 127.0.0.1 of the pod: reachable from the application alone.
    loopback: BTreeMap<u16, SocketAddr>,
}

impl Default for Ports {
    fn default() -> Self {
        Self { open: Arc::default(), public: Arc::new(watch::Sender::new(BTreeSet::new())) }
    }
}

impl Ports {
    /// Notes that `port` is served at `real`; none when the application already listens there.
    pub(crate) fn register(&self, port: u16, is_loopback: bool, real: SocketAddr) -> Option<Registration> {
        let mut open = self.open.lock();
        let ports = if is_loopback { &mut open.loopback } else { &mut open.public };
        if ports.contains_key(&port) {
            return None;
        }
        ports.insert(port, real);
        self.publish(&open);
        drop(open);
        Some(Registration { ports: self.clone(), port, is_loopback })
    }

    /// Where what listens on `port` of the pod's address really is.
    pub(crate) fn public(&self, port: u16) -> Option<SocketAddr> {
        self.open.lock().public.get(&port).copied()
    }

    /// Where the application finds what it listens on at 127.0.0.1: there, or on all addresses.
    pub(crate) fn loopback(&self, port: u16) -> Option<SocketAddr> {
        let open = self.open.lock();
        open.loopback.get(&port).or_else(|| open.public.get(&port)).copied()
    }

    pub(crate) fn listening(&self) -> watch::Receiver<BTreeSet<u16>> {
        self.public.subscribe()
    }

    fn publish(&self, open: &Open) {
        self.public.send_replace(open.public.keys().copied().collect());
    }
}

/// A listener of the application; dropping it ends the listening.
pub(crate) struct Registration {
    ports: Ports,
    port: u16,
    is_loopback: bool,
}

impl Drop for Registration {
    fn drop(&mut self) {
        let mut open = self.ports.open.lock();
        let ports = if self.is_loopback { &mut open.loopback } else { &mut open.public };
        ports.remove(&self.port);
        self.ports.publish(&open);
    }
}
