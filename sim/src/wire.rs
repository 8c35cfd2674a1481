//! The network of a world: TCP between hosts, on simulated time, with everything that goes wrong in one.
//!
//! turmoil brings hosts, their runtimes and time. The connections are ours because what is promised is about
//! connections: here bytes survive a partition as they do with TCP's retransmission, a reset is a reset, a silent host
//! is silent, and a rule can break a connection at its nth byte. What crosses between hosts passes `sniff`, which sees
//! bytes and nothing else.
//!
//! - `wire/state.rs`: hosts and connections, and what segments do to them; `wire/record.rs`: what the sniffer knows of one
//! - `wire/connection.rs`: one connection (pure); `wire/stream.rs`: an end of it, as an `Io`
//! - `wire/link.rs`: latency and partitions, by seed and time
//! - `wire/rule.rs`: what goes wrong with connections to come
//! - `wire/trace.rs`: every segment, as a line
//!
//! Deliberately absent: congestion, reordering within a connection (TCP hides it), names (the mesh has its own DNS).

use std::{
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use parking_lot::Mutex;
use tokio::time::sleep;

mod connection;
pub(crate) mod link;
mod network;
mod record;
mod rule;
mod state;
mod stream;
mod trace;

pub use network::HostNetwork;
pub use rule::{Effect, Scope};
pub use trace::Trace;

use crate::{history::WireConnection, time::elapsed};
use connection::{Connection, Side};
use record::Record;
use rule::Rule;
use state::{State, Syn};
use stream::Stream;

/// The first and the last pause between two SYNs, and when connecting gives up: Linux with `tcp_syn_retries` = 6.
const SYN_FIRST: Duration = Duration::from_secs(1);
const SYN_GIVE_UP: Duration = Duration::from_secs(127);
/// How long a host asks for the hardware address of one that does not exist, before it says unreachable.
const ARP: Duration = Duration::from_secs(3);
/// Where ephemeral ports begin: `net.ipv4.ip_local_port_range`.
const EPHEMERAL: u16 = 32768;

/// The wire. Cloning shares.
#[derive(Clone)]
pub struct Wire(Arc<Mutex<State>>);

/// Wakers to wake, or to drop, once nothing is locked: dropping one may end a task, whose sockets lock again.
type Wakers = Vec<Waker>;

impl Wire {
    /// A wire whose links have latencies between `low` and `high`, one way. Names of the mesh end in `mesh_suffix`.
    pub fn new(seed: u64, low: Duration, high: Duration, mesh_suffix: &str, trace: Trace) -> Self {
        let links = link::Links::new(seed, (low, high));
        Self(Arc::new(Mutex::new(State::new(links, mesh_suffix, trace))))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::new();
        let result = act(&mut self.0.lock(), &mut wakers);
        for waker in wakers {
            waker.wake();
        }
        result
    }

    /// Adds a host, or gives a vacant address to another one.
    pub fn host(&self, ip: IpAddr) -> HostNetwork {
        self.with(|state, _| {
            let host = state.hosts.entry(ip).or_default();
            (host.next_port, host.is_vacant) = (EPHEMERAL, false);
        });
        HostNetwork::new(self.clone(), ip)
    }

    /// Nobody has this address until the next [`Wire::host`]: not even a refusal comes from there.
    pub fn vacate(&self, ip: IpAddr) {
        self.note(format_args!("vacate {ip}"));
        self.with(|state, _| state.hosts.entry(ip).or_default().is_vacant = true);
    }

    /// Lets nothing pass from one host to another any more; what is sent waits until [`Wire::mend`].
    pub fn cut(&self, from: IpAddr, to: IpAddr) {
        self.with(|state, _| {
            state.links.cut(from, to);
            let meets = |client, server| (client, server) == (from, to) || (server, client) == (from, to);
            state.hindered(meets).for_each(Record::cut);
        });
        self.note(format_args!("cut {from} > {to}"));
    }

    /// Ends [`Wire::cut`].
    pub fn mend(&self, from: IpAddr, to: IpAddr) {
        self.with(|state, wakers| {
            state.links.mend(from, to);
            if state.links.passes(to, from) {
                let meets = |client, server| (client, server) == (from, to) || (server, client) == (from, to);
                state.hindered(meets).for_each(Record::mend);
            }
            state.wake_readers(wakers);
        });
        self.note(format_args!("mend {from} > {to}"));
    }

    /// Makes a link slower by so much, one way.
    pub fn slow(&self, from: IpAddr, to: IpAddr, by: Duration) {
        self.with(|state, _| state.links.slow(from, to, by));
        self.note(format_args!("slow {from} > {to} by {by:?}"));
    }

    /// Orders `effect` for the next `times` connections within `scope`; the result names the rule.
    pub fn order(&self, scope: Scope, effect: Effect, times: u32) -> usize {
        self.note(format_args!("order {effect:?} for {times} of {scope:?}"));
        self.with(|state, _| {
            let id = state.rules.len();
            state.rules.push(Rule { id, scope, effect, left: times, fired: 0 });
            id
        })
    }

    /// Takes a rule back, resets what it swallows, and says how often it has done what it says.
    pub fn withdraw(&self, rule: usize) -> u64 {
        self.with(|state, wakers| {
            let now = elapsed();
            let swallowed = |connection: &&mut Connection| {
                let swallows = |effect| effect == Effect::Swallow || connection.is_stalled;
                connection.fate.is_some_and(|fate| fate.rule == rule && swallows(fate.effect))
            };
            for connection in state.connections.values_mut().filter(swallowed) {
                for side in [Side::Client, Side::Server] {
                    connection.reset(side, now);
                    wakers.extend(connection.end(side).reader.take());
                }
            }
            state.rules.get_mut(rule).map_or(0, |rule| {
                rule.left = 0;
                rule.fired
            })
        })
    }

    /// A host dies: its sockets are gone without a word to anybody.
    pub fn crash(&self, ip: IpAddr) {
        self.note(format_args!("crash {ip}"));
        self.with(|state, _| {
            let now = elapsed();
            state.hindered(|client, server| client == ip || server == ip).for_each(Record::lose);
            let host = state.hosts.entry(ip).or_default();
            host.is_down = true;
            host.listeners.clear();
            for connection in state.connections.values_mut() {
                for side in [Side::Client, Side::Server] {
                    if connection.address(side).ip() == ip {
                        connection.end(side).died.get_or_insert(now);
                    }
                }
            }
        });
    }

    /// The processes of a host have ended, and the kernel resets every connection that one of them still had.
    pub fn close_all(&self, ip: IpAddr) {
        self.with(|state, wakers| {
            let now = elapsed();
            for (id, connection) in &mut state.connections {
                for side in [Side::Client, Side::Server] {
                    let end = connection.end(side);
                    let is_open = end.closed.is_none() && end.died.is_none();
                    if connection.address(side).ip() != ip || !is_open {
                        continue;
                    }
                    let other = connection.address(side.other()).ip();
                    let latency = state.links.latency(ip, other, now);
                    connection.reset(side, now);
                    connection.reset(side.other(), now + latency);
                    for side in [side, side.other()] {
                        wakers.extend(connection.end(side).reader.take());
                        wakers.extend(connection.end(side).writer.take());
                    }
                    state.records.get_mut(id).into_iter().for_each(Record::lose);
                }
            }
        });
    }

    /// A dead host is back, and knows nothing of its former connections: whoever still sends on one is reset.
    pub fn revive(&self, ip: IpAddr) {
        self.note(format_args!("revive {ip}"));
        self.with(|state, wakers| {
            state.hosts.entry(ip).or_default().is_down = false;
            let now = elapsed();
            for connection in state.connections.values_mut() {
                for side in [Side::Client, Side::Server] {
                    // What was sent meanwhile is sent again, and answered by a reset.
                    if connection.end(side).died.is_some() && connection.address(side).ip() == ip {
                        connection.reset(side.other(), now + SYN_FIRST);
                        wakers.extend(connection.end(side.other()).reader.take());
                    }
                }
            }
        });
    }

    /// What the sniffer has seen between hosts so far.
    pub fn sniffed(&self) -> Vec<WireConnection> {
        self.with(|state, _| state.records.iter().map(|(id, record)| record.told(*id)).collect())
    }

    /// Writes a line into the trace.
    pub fn note(&self, line: std::fmt::Arguments<'_>) {
        self.with(|state, _| state.trace.line(elapsed(), line));
    }

    /// Leaves `text` out of what the trace tells of servers' bytes.
    pub(crate) fn mask(&self, text: &[u8]) {
        self.with(|state, _| state.trace.mask(text));
    }

    /// The lines of the trace so far.
    pub fn trace(&self) -> Trace {
        self.with(|state, _| state.trace.clone())
    }

    async fn connect(&self, from: IpAddr, to: SocketAddr) -> io::Result<Stream> {
        let begun = elapsed();
        let mut pause = SYN_FIRST;
        let local = self.with(|state, _| state.ephemeral(from));
        loop {
            self.travel(from, to.ip()).await;
            match self.with(|state, wakers| state.syn(local, to, wakers)) {
                Syn::Accepted(id) => {
                    let mut opening = Opening { wire: self, id, to, is_open: false };
                    self.travel(to.ip(), from).await;
                    opening.is_open = true;
                    return Ok(Stream::new(self.clone(), id, Side::Client));
                }
                Syn::Refused => {
                    self.travel(to.ip(), from).await;
                    return Err(io::ErrorKind::ConnectionRefused.into());
                }
                Syn::NoSuchHost => {
                    sleep(ARP).await;
                    return Err(io::ErrorKind::HostUnreachable.into());
                }
                Syn::Lost if elapsed().saturating_sub(begun) > SYN_GIVE_UP => {
                    return Err(io::ErrorKind::TimedOut.into());
                }
                Syn::Lost => {
                    sleep(pause).await;
                    pause *= 2;
                }
            }
        }
    }

    async fn travel(&self, from: IpAddr, to: IpAddr) {
        let latency = self.with(|state, _| state.links.latency(from, to, elapsed()));
        if !latency.is_zero() {
            sleep(latency).await;
        }
    }
}

/// A connection whose SYN was answered, and the answer has not arrived.
struct Opening<'a> {
    wire: &'a Wire,
    id: u64,
    to: SocketAddr,
    is_open: bool,
}

impl Drop for Opening<'_> {
    /// Who has gone meanwhile answers the answer with a reset, and nobody accepts anything.
    fn drop(&mut self) {
        if self.is_open {
            return;
        }
        self.wire.with(|state, wakers| {
            let host = state.hosts.get_mut(&self.to.ip());
            if let Some(listening) = host.and_then(|host| host.listeners.get_mut(&self.to.port())) {
                listening.waiting.retain(|(_, id)| *id != self.id);
            }
            state.close(self.id, Side::Server, true, wakers);
            state.close(self.id, Side::Client, true, wakers);
        });
    }
}
