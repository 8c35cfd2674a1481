//! What a pod's address is on the machine we run on.
//!
//! On Linux the whole of 127.0.0.0/8 is ours: a pod's address is a real one, and what a sniffer on the loopback
//! interface sees is what it would see between nodes. Elsewhere only 127.0.0.1 exists: there a pod's address is a name
//! known to this process, and each listener is a port of 127.0.0.1.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::Arc,
};

use conduit_net::{Accepted, Io, Listener, LocalAddr, Net, Network, Resolved, TokioNetwork};
use futures::{FutureExt, future::BoxFuture};
use parking_lot::Mutex;

use crate::running::{Here, Processes};

/// The first pod's address; 127.0.0.x is left to whatever else runs on the machine.
const FIRST: u32 = u32::from_be_bytes([127, 16, 0, 1]);
/// Pods a mesh may have: what fits between [`FIRST`] and the end of 127.0.0.0/8, with room to spare.
const MAX: u32 = 1 << 20;

/// Hands out addresses for pods.
#[derive(Debug, Clone)]
pub struct Addresses {
    kind: Kind,
    next: Arc<Mutex<u32>>,
}

/// A world of its own that pods live in: hands out the place for each.
pub trait Hosts: Send + Sync + std::fmt::Debug + 'static {
    /// The place of the next pod.
    ///
    /// # Errors
    /// There is none left.
    fn host(&self) -> io::Result<Host>;
}

#[derive(Debug, Clone)]
enum Kind {
    Loopback,
    Ports(PortMap),
    Elsewhere(Arc<dyn Hosts>),
}

/// Which port of 127.0.0.1 stands for which address of a pod.
type PortMap = Arc<Mutex<BTreeMap<SocketAddr, SocketAddr>>>;

impl Addresses {
    /// An address of 127.0.0.0/8 for each pod. Works where all of it is this machine's: on Linux.
    pub fn loopback() -> Self {
        Self { kind: Kind::Loopback, next: Arc::new(Mutex::new(FIRST)) }
    }

    /// Ports of 127.0.0.1. Works everywhere; a server sees every client as 127.0.0.1.
    pub fn ports() -> Self {
        Self { kind: Kind::Ports(PortMap::default()), next: Arc::new(Mutex::new(FIRST)) }
    }

    /// Those of another world, as in a simulation.
    pub fn of(hosts: Arc<dyn Hosts>) -> Self {
        Self { kind: Kind::Elsewhere(hosts), next: Arc::new(Mutex::new(FIRST)) }
    }

    /// The best that this machine has.
    pub async fn of_this_machine() -> Self {
        let addresses = Self::loopback();
        match TokioNetwork::shared().bind((Ipv4Addr::from(FIRST), 0).into()).await {
            Ok(_) => addresses,
            Err(_) => Self::ports(),
        }
    }

    /// Starts handing out at another place, so that two meshes on one machine do not meet.
    #[must_use]
    pub fn starting_at(self, offset: u32) -> Self {
        *self.next.lock() = FIRST + offset % MAX;
        self
    }

    /// What a program outside the mesh dials for an address of a pod; none when nobody listens there.
    pub(crate) fn real(&self, address: SocketAddr) -> Option<SocketAddr> {
        match &self.kind {
            Kind::Loopback | Kind::Elsewhere(_) => Some(address),
            Kind::Ports(map) => real(Some(map), address),
        }
    }

    /// Leaves the next `count` addresses out.
    pub(crate) fn skip(&self, count: u32) {
        let mut next = self.next.lock();
        *next = next.saturating_add(count);
    }

    /// The sockets of a new pod.
    ///
    /// # Errors
    /// No address is left.
    pub fn host(&self) -> io::Result<Host> {
        if let Kind::Elsewhere(hosts) = &self.kind {
            return hosts.host();
        }
        let mut next = self.next.lock();
        if *next >= FIRST + MAX {
            return Err(io::Error::new(
                io::ErrorKind::AddrNotAvailable,
                "no address is left for another pod",
            ));
        }
        let ip = IpAddr::from(Ipv4Addr::from(*next));
        *next += 1;
        Ok(match &self.kind {
            Kind::Ports(map) => {
                Host::new(ip, Ipv4Addr::LOCALHOST.into(), TokioNetwork::shared(), Some(map.clone()))
            }
            Kind::Loopback | Kind::Elsewhere(_) => {
                Host::new(ip, ip, Arc::new(TokioNetwork::from_source(ip)), None)
            }
        })
    }
}

/// One pod's sockets, which it binds at its own address and connects from, and where its processes run.
#[derive(Clone)]
pub struct Host {
    ip: IpAddr,
    bind_ip: IpAddr,
    net: Net,
    ports: Option<PortMap>,
    processes: Arc<dyn Processes>,
}

impl Host {
    fn new(ip: IpAddr, bind_ip: IpAddr, net: Net, ports: Option<PortMap>) -> Self {
        Self { ip, bind_ip, net, ports, processes: Here::shared() }
    }

    /// A pod that is a host of its own on `net`, as in a simulation: it binds the unspecified address there, and what it
    /// runs is run by `processes`.
    pub fn of_network(ip: IpAddr, net: Net, processes: Arc<dyn Processes>) -> Self {
        Self { processes, ..Self::new(ip, Ipv4Addr::UNSPECIFIED.into(), net, None) }
    }

    /// Where the pod's processes run.
    pub(crate) fn processes(&self) -> &dyn Processes {
        &*self.processes
    }

    /// The pod's address, as everybody in the mesh knows it.
    pub fn ip(&self) -> IpAddr {
        self.ip
    }

    /// The network behind, for names that are not the cluster's.
    pub(crate) fn net(&self) -> &Net {
        &self.net
    }

    /// Listens on `port` of the pod; 0 picks a free one. [`Listener::local_addr`] is the pod's address.
    pub(crate) async fn bind(&self, port: u16) -> io::Result<Box<dyn Listener>> {
        let real_port = if self.ports.is_some() { 0 } else { port };
        let listener = self.net.bind((self.bind_ip, real_port).into()).await?;
        let real = listener.local_addr();
        let address = SocketAddr::new(self.ip, if port == 0 { real.port() } else { port });
        if let Some(ports) = &self.ports {
            let mut ports = ports.lock();
            if ports.contains_key(&address) {
                return Err(io::ErrorKind::AddrInUse.into());
            }
            ports.insert(address, real);
        }
        Ok(Box::new(HostListener { listener, address, ports: self.ports.clone() }))
    }

    /// Connects to an address of a pod.
    pub(crate) async fn connect(&self, address: SocketAddr) -> io::Result<Io> {
        match self.real(address) {
            Some(real) => self.net.connect(real).await,
            None => Err(io::ErrorKind::ConnectionRefused.into()),
        }
    }

    fn real(&self, address: SocketAddr) -> Option<SocketAddr> {
        real(self.ports.as_ref(), address)
    }
}

/// The pod's sockets as they are, without anything between them and the pod.
impl Network for Host {
    fn bind(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        Host::bind(self, address.port()).boxed()
    }

    fn connect(&self, address: SocketAddr) -> BoxFuture<'_, io::Result<Io>> {
        Host::connect(self, address).boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        self.net.resolve(host).boxed()
    }
}

impl std::fmt::Debug for Host {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Host({})", self.ip)
    }
}

/// What stands for an address of a pod; none when nobody listens there.
fn real(ports: Option<&PortMap>, address: SocketAddr) -> Option<SocketAddr> {
    let Some(ports) = ports else { return Some(address) };
    match ports.lock().get(&address) {
        Some(real) => Some(*real),
        None => (!is_pod(address.ip())).then_some(address),
    }
}

fn is_pod(ip: IpAddr) -> bool {
    matches!(ip, IpAddr::V4(ip) if (FIRST..FIRST + MAX).contains(&u32::from(ip)))
}

struct HostListener {
    listener: Box<dyn Listener>,
    address: SocketAddr,
    ports: Option<PortMap>,
}

impl Listener for HostListener {
    fn local_addr(&self) -> SocketAddr {
        self.address
    }

    fn accept(&mut self) -> BoxFuture<'_, io::Result<Accepted>> {
        async move { Ok(Accepted { local: LocalAddr(self.address), ..self.listener.accept().await? }) }
            .boxed()
    }
}

impl Drop for HostListener {
    fn drop(&mut self) {
        if let Some(ports) = &self.ports {
            ports.lock().remove(&self.address);
        }
    }
}
