//! turmoil's hosts: where pods' processes run. A pod is a host of its own; the control plane's pods share one, each with
//! an address of its own, which is what two nodes of a cluster would be to the wire.

use std::{
    collections::{BTreeMap, VecDeque},
    io,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
};

use conduit_mesh::{Host, Hosts, Processes};
use futures::future::BoxFuture;
use parking_lot::Mutex;
use tokio::sync::mpsc;

use crate::wire::Wire;

/// The name of the host that the cluster's own pods share.
pub(crate) const CONTROL: &str = "control-plane";
/// Processes that a host has been told to run and has not begun yet.
const INBOX: usize = 256;

/// Every host of a world. Cloning shares.
#[derive(Clone)]
pub struct Machines(Arc<Inner>);

struct Inner {
    wire: Wire,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    /// Hosts for pods of applications that are free, the next one first.
    free: VecDeque<IpAddr>,
    names: BTreeMap<IpAddr, String>,
    inboxes: BTreeMap<String, mpsc::Sender<BoxFuture<'static, ()>>>,
    control_ips: u8,
    serves_control: bool,
    orders: VecDeque<Order>,
}

/// What has to be done to a host between two steps.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Order {
    /// Everything that runs on it is gone.
    Crash(String),
    /// It boots.
    Boot(String),
}

impl Machines {
    /// `pods` hosts for pods of applications, and one for the control plane.
    pub(crate) fn new(wire: Wire, pods: u8) -> Self {
        let mut state = State { serves_control: true, ..State::default() };
        for number in 1..=pods {
            let ip = IpAddr::from(Ipv4Addr::new(10, 244, 0, number));
            state.free.push_back(ip);
            state.names.insert(ip, format!("pod-{number:02}"));
        }
        Self(Arc::new(Inner { wire, state: Mutex::new(state) }))
    }

    /// The names of turmoil's hosts.
    pub(crate) fn names(&self) -> Vec<String> {
        let names = self.0.state.lock().names.values().cloned().collect::<Vec<_>>();
        std::iter::once(CONTROL.to_owned()).chain(names).collect()
    }

    /// What the host of this name runs: whatever it is told to.
    pub(crate) async fn run(self, name: String) {
        let (inbox, mut processes) = mpsc::channel(INBOX);
        self.0.state.lock().inboxes.insert(name, inbox);
        while let Some(process) = processes.recv().await {
            tokio::spawn(process);
        }
    }

    /// Whether the next pods are the control plane's.
    pub fn serve_control(&self, serves_control: bool) {
        self.0.state.lock().serves_control = serves_control;
    }

    /// Takes back the address of a pod that has ended: the next pod gets it, and until then nobody is there.
    pub fn give_back(&self, ip: IpAddr) {
        self.0.wire.vacate(ip);
        self.0.state.lock().free.push_front(ip);
    }

    /// Kills a host and everything on it.
    pub fn crash(&self, ip: IpAddr) {
        self.0.wire.crash(ip);
        self.order(ip, Order::Crash);
    }

    /// Boots a host that was killed. Nothing runs on it until it is told to. One that runs goes on.
    pub fn boot(&self, ip: IpAddr) {
        if self.is_down(ip) {
            self.0.wire.revive(ip);
            self.order(ip, Order::Boot);
        }
    }

    /// Whether a host was killed and has not booted.
    pub fn is_down(&self, ip: IpAddr) -> bool {
        self.name(ip).is_some_and(|name| !self.0.state.lock().inboxes.contains_key(&name))
    }

    fn name(&self, ip: IpAddr) -> Option<String> {
        self.0.state.lock().names.get(&ip).cloned()
    }

    fn order(&self, ip: IpAddr, order: fn(String) -> Order) {
        let Some(name) = self.name(ip) else { return };
        let mut state = self.0.state.lock();
        state.inboxes.remove(&name);
        state.orders.push_back(order(name));
    }

    /// What has been ordered since the last time.
    pub(crate) fn take_orders(&self) -> VecDeque<Order> {
        std::mem::take(&mut self.0.state.lock().orders)
    }
}

impl std::fmt::Debug for Machines {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Machines")
    }
}

impl Hosts for Machines {
    fn host(&self) -> io::Result<Host> {
        let mut state = self.0.state.lock();
        let (ip, name) = if state.serves_control {
            state.control_ips += 1;
            (IpAddr::from(Ipv4Addr::new(10, 244, 1, state.control_ips)), CONTROL.to_owned())
        } else {
            let none_left = || io::Error::new(io::ErrorKind::AddrNotAvailable, "every host has a pod");
            let ip = state.free.pop_front().ok_or_else(none_left)?;
            (ip, state.names.get(&ip).cloned().unwrap_or_default())
        };
        drop(state);
        let processes = Arc::new(HostProcesses { machines: self.clone(), name });
        Ok(Host::of_network(ip, Arc::new(self.0.wire.host(ip)), processes))
    }
}

/// Runs processes on one host.
struct HostProcesses {
    machines: Machines,
    name: String,
}

impl Processes for HostProcesses {
    fn spawn(&self, process: BoxFuture<'static, ()>) {
        let inbox = self.machines.0.state.lock().inboxes.get(&self.name).cloned();
        // A host that is down runs nothing; whoever waits for the process sees it end.
        let Some(inbox) = inbox else { return };
        if inbox.try_send(process).is_err() {
            tracing::error!(host = self.name, "the host takes no more processes");
        }
    }
}
