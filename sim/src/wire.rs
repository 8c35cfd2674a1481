//! The network of a world: TCP between hosts, on simulated time, with everything that goes wrong in one.
//!
//! turmoil brings hosts, their runtimes and time. The connections are ours because what is promised is about
//! connections: here bytes survive a partition as they do with TCP's retransmission, a reset is a reset, a silent host
//! is silent, and a rule can break a connection at its nth byte. What crosses between hosts passes `sniff`, which sees
//! bytes and nothing else.
//!
//! - `wire/connection.rs`: one connection (pure); `wire/stream.rs`: an end of it, as an `Io`
//! - `wire/link.rs`: latency and partitions, by seed and time
//! - `wire/rule.rs`: what goes wrong with connections to come
//! - `wire/trace.rs`: every segment, as a line
//!
//! Deliberately absent: congestion, reordering within a connection (TCP hides it), names (the mesh has its own DNS).

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    task::Waker,
    time::Duration,
};

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::time::sleep;

mod connection;
pub(crate) mod link;
mod network;
mod rule;
mod stream;
mod trace;

pub use network::HostNetwork;
pub use rule::{Effect, Scope};
pub use trace::Trace;

use crate::{
    history::{WireConnection, WireKind},
    sniff::Sniffer,
    time::elapsed,
};
use connection::{Connection, Read, Side, What};
use rule::{Fate, Rule};
use stream::Stream;

/// SYNs that a listener holds before it drops more: `net.core.somaxconn` of Linux before 5.4.
const BACKLOG: usize = 128;
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

struct State {
    links: link::Links,
    hosts: BTreeMap<IpAddr, Host>,
    connections: BTreeMap<u64, Connection>,
    next: u64,
    rules: Vec<Rule>,
    records: BTreeMap<u64, Record>,
    mesh_suffix: String,
    trace: Trace,
}

#[derive(Default)]
struct Host {
    listeners: BTreeMap<u16, Listening>,
    next_port: u16,
    is_down: bool,
}

#[derive(Default)]
struct Listening {
    /// By when they are established: with the last of the three segments, and what the client says first comes with it.
    waiting: BTreeSet<(Duration, u64)>,
    acceptor: Option<Waker>,
}

/// What the sniffer knows of a connection between hosts.
struct Record {
    client: SocketAddr,
    server: SocketAddr,
    opened: Duration,
    closed: Option<Duration>,
    bytes: (u64, u64),
    broken: Option<Duration>,
    /// It is not only a link that was cut: nothing makes it whole again.
    is_lost: bool,
    whole: Option<Duration>,
    is_late: bool,
    sniffer: Sniffer,
}

/// What a SYN met.
enum Syn {
    Accepted(u64),
    Refused,
    Lost,
    NoSuchHost,
}

/// Wakers to wake, or to drop, once nothing is locked: dropping one may end a task, whose sockets lock again.
type Wakers = Vec<Waker>;

impl Wire {
    /// A wire whose links have latencies between `low` and `high`, one way. Names of the mesh end in `mesh_suffix`.
    pub fn new(seed: u64, low: Duration, high: Duration, mesh_suffix: &str, trace: Trace) -> Self {
        let links = link::Links::new(seed, (low, high));
        Self(Arc::new(Mutex::new(State {
            links,
            hosts: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            rules: Vec::new(),
            records: BTreeMap::new(),
            mesh_suffix: mesh_suffix.to_owned(),
            trace,
        })))
    }

    fn with<T>(&self, act: impl FnOnce(&mut State, &mut Wakers) -> T) -> T {
        let mut wakers = Wakers::new();
        let result = act(&mut self.0.lock(), &mut wakers);
        for waker in wakers {
            waker.wake();
        }
        result
    }

    /// Adds a host.
    pub fn host(&self, ip: IpAddr) -> HostNetwork {
        self.with(|state, _| state.hosts.entry(ip).or_default().next_port = EPHEMERAL);
        HostNetwork::new(self.clone(), ip)
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

impl State {
    fn ephemeral(&mut self, ip: IpAddr) -> SocketAddr {
        let host = self.hosts.entry(ip).or_default();
        let port = host.next_port.max(EPHEMERAL);
        host.next_port = port.checked_add(1).unwrap_or(EPHEMERAL);
        SocketAddr::new(ip, port)
    }

    fn syn(&mut self, from: SocketAddr, to: SocketAddr, wakers: &mut Wakers) -> Syn {
        let now = elapsed();
        if !self.links.passes(from.ip(), to.ip()) || !self.links.passes(to.ip(), from.ip()) {
            return Syn::Lost;
        }
        let Some(host) = self.hosts.get_mut(&to.ip()) else { return Syn::NoSuchHost };
        if host.is_down {
            return Syn::Lost;
        }
        let Some(listening) = host.listeners.get_mut(&to.port()) else { return Syn::Refused };
        if listening.waiting.len() >= BACKLOG {
            return Syn::Lost;
        }
        let id = self.next;
        self.next += 1;
        let fate = fate(&mut self.rules, from.ip(), to);
        if fate.is_some_and(|fate| fate.effect == Effect::Swallow) {
            fired(&mut self.rules, fate);
        } else {
            let latency = |from, to| self.links.latency(from, to, now);
            let round_trip = latency(to.ip(), from.ip()) + latency(from.ip(), to.ip());
            listening.waiting.insert((now + round_trip, id));
            wakers.extend(listening.acceptor.take());
        }
        let mut connection = Connection::new(from, to, fate);
        if fate.is_some_and(|fate| fate.effect == Effect::Swallow) {
            connection.end(Side::Server).died = Some(now);
        }
        if !connection.is_within_a_host() {
            self.trace.line(now, format_args!("#{id} {from} > {to}"));
            let sniffer = Sniffer::new(self.mesh_suffix.as_str());
            let is_lost = matches!(fate, Some(Fate { effect: Effect::Swallow, .. }));
            let (opened, closed) = (now, None);
            let record = Record {
                client: from,
                server: to,
                opened,
                closed,
                bytes: (0, 0),
                broken: is_lost.then_some(now),
                is_lost,
                whole: None,
                is_late: false,
                sniffer,
            };
            self.records.insert(id, record);
        }
        self.connections.insert(id, connection);
        Syn::Accepted(id)
    }

    /// The open connections between hosts that `meets` names: a fault comes over them, or goes.
    fn hindered(&mut self, meets: impl Fn(IpAddr, IpAddr) -> bool) -> impl Iterator<Item = &mut Record> {
        let open = self.records.values_mut().filter(|record| record.closed.is_none());
        open.filter(move |record| meets(record.client.ip(), record.server.ip()))
    }

    fn wake_readers(&mut self, wakers: &mut Wakers) {
        for connection in self.connections.values_mut() {
            for side in [Side::Client, Side::Server] {
                wakers.extend(connection.end(side).reader.take());
            }
        }
    }

    /// Takes what has arrived for one end.
    fn read(&mut self, id: u64, side: Side, room: usize, wakers: &mut Wakers) -> Read {
        let Some(connection) = self.connections.get_mut(&id) else { return Read::Reset };
        let passes = self.links.passes(connection.address(side.other()).ip(), connection.address(side).ip());
        let read = connection.read(side, elapsed(), passes, room);
        if matches!(read, Read::Data(_)) {
            wakers.extend(connection.end(side).writer.take());
        }
        read
    }

    /// Sends bytes from one end, as many as there is room for; none when it has to wait.
    fn write(
        &mut self,
        id: u64,
        side: Side,
        bytes: &[u8],
        wakers: &mut Wakers,
    ) -> Result<usize, connection::Broken> {
        let now = elapsed();
        let Some(connection) = self.connections.get_mut(&id) else {
            return Err(connection::Broken::Reset);
        };
        let room = connection.room(side, now)?.min(bytes.len());
        if room == 0 {
            return Ok(0);
        }
        let bytes = &bytes[..room];
        let (from, to) = (connection.address(side).ip(), connection.address(side.other()).ip());
        let mut at = now + self.links.latency(from, to, now);
        self.trace.segment(now, id, side == Side::Client, bytes, connection.is_within_a_host());
        if let Some(record) = self.records.get_mut(&id) {
            record.sniff(side, bytes, now);
        }
        if let Some(Fate { effect: Effect::DelayFirst(by), .. }) = connection.fate
            && side == Side::Client
        {
            fired(&mut self.rules, connection.fate.take());
            at += by;
            if let Some(record) = self.records.get_mut(&id) {
                record.is_late = true;
            }
        }
        connection.send(side, at, What::Data(Bytes::copy_from_slice(bytes)));
        let other = side.other();
        wakers.extend(connection.end(other).reader.take());
        if connection.end(other).closed.is_some() && self.hosts.get(&to).is_some_and(|host| !host.is_down) {
            // Nobody reads there any more: the kernel answers with a reset.
            let back = at + self.links.latency(to, from, now);
            connection.reset(side, back);
            wakers.extend(connection.end(side).reader.take());
        }
        self.break_at_its_byte(id, now, wakers);
        Ok(room)
    }

    fn break_at_its_byte(&mut self, id: u64, now: Duration, wakers: &mut Wakers) {
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let is_of_the_mesh = || self.records.get(&id).is_some_and(Record::is_of_the_mesh);
        let carried = connection.carried;
        let stalls = match connection.fate.map(|fate| fate.effect) {
            Some(Effect::ResetAfter(limit)) if carried >= limit => false,
            Some(Effect::ResetMeshAfter(limit)) if carried >= limit && is_of_the_mesh() => false,
            Some(Effect::StallMeshAfter(limit))
                if carried >= limit && !connection.is_stalled && is_of_the_mesh() =>
            {
                true
            }
            _ => return,
        };
        if stalls {
            fired(&mut self.rules, connection.fate);
            connection.is_stalled = true;
        } else {
            fired(&mut self.rules, connection.fate.take());
            for side in [Side::Client, Side::Server] {
                connection.reset(side, now);
                wakers.extend(connection.end(side).reader.take());
                wakers.extend(connection.end(side).writer.take());
            }
        }
        self.records.get_mut(&id).into_iter().for_each(Record::lose);
        self.trace.line(now, format_args!("#{id} broken by a fault"));
    }

    /// Ends one direction.
    fn shut_down(&mut self, id: u64, side: Side, wakers: &mut Wakers) {
        let now = elapsed();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        if connection.has_ended(side) {
            return;
        }
        let latency =
            self.links.latency(connection.address(side).ip(), connection.address(side.other()).ip(), now);
        connection.send(side, now + latency, What::Fin);
        wakers.extend(connection.end(side.other()).reader.take());
        if !connection.is_within_a_host() {
            self.trace.line(now, format_args!("#{id} {} fin", trace::arrow(side == Side::Client)));
        }
    }

    /// A process lets go of its end.
    fn close(&mut self, id: u64, side: Side, with_reset: bool, wakers: &mut Wakers) {
        let now = elapsed();
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let is_dead = connection.end(side).died.is_some();
        if !is_dead && (with_reset || connection.has_unread(side)) {
            let latency =
                self.links.latency(connection.address(side).ip(), connection.address(side.other()).ip(), now);
            connection.reset(side.other(), now + latency);
            wakers.extend(connection.end(side.other()).reader.take());
            wakers.extend(connection.end(side).writer.take());
            if !connection.is_within_a_host() {
                self.trace.line(now, format_args!("#{id} {} reset", trace::arrow(side == Side::Client)));
            }
        } else if !is_dead {
            self.shut_down(id, side, wakers);
        }
        let Some(connection) = self.connections.get_mut(&id) else { return };
        let end = connection.end(side);
        end.closed = Some(now);
        wakers.extend(end.reader.take());
        // Who waits for room at an end that is gone may write into the void, and learns of it.
        wakers.extend(end.writer.take());
        if connection.is_over() {
            self.connections.remove(&id);
            if let Some(record) = self.records.get_mut(&id) {
                record.closed.get_or_insert(now);
            }
        }
    }
}

/// Chooses a fate for a connection that is being opened.
fn fate(rules: &mut [Rule], from: IpAddr, to: SocketAddr) -> Option<Fate> {
    let rule = rules.iter_mut().find(|rule| rule.is_for(from, to.ip(), to.port()))?;
    rule.left -= 1;
    Some(Fate { rule: rule.id, effect: rule.effect })
}

fn fired(rules: &mut [Rule], fate: Option<Fate>) {
    if let Some(rule) = fate.and_then(|fate| rules.get_mut(fate.rule)) {
        rule.fired += 1;
    }
}

impl Record {
    fn sniff(&mut self, side: Side, bytes: &[u8], now: Duration) {
        match side {
            Side::Client => {
                self.bytes.0 += bytes.len() as u64;
                self.sniffer.client(bytes, now);
            }
            Side::Server => {
                self.bytes.1 += bytes.len() as u64;
                self.sniffer.server(bytes, now);
            }
        }
    }

    /// Nothing passes any more, until it is mended.
    fn cut(&mut self) {
        self.broken.get_or_insert_with(elapsed);
        self.whole = None;
    }

    /// What was sent meanwhile is sent again.
    fn mend(&mut self) {
        self.whole = self.broken.filter(|_| !self.is_lost).map(|_| elapsed());
    }

    /// It is over.
    fn lose(&mut self) {
        if !std::mem::replace(&mut self.is_lost, true) {
            (self.broken, self.whole) = (Some(elapsed()), None);
        }
    }

    /// Whether it begins with a ClientHello, whole by now, for a name of the mesh.
    fn is_of_the_mesh(&self) -> bool {
        let sniffed = self.sniffer.finish();
        matches!(sniffed.kind, WireKind::Handshake | WireKind::Mesh) && sniffed.sni.is_some()
    }

    fn told(&self, id: u64) -> WireConnection {
        let sniffed = self.sniffer.finish();
        WireConnection {
            id,
            client: self.client,
            server: self.server,
            opened: self.opened,
            closed: self.closed,
            kind: sniffed.kind,
            sni: sniffed.sni,
            first_application_byte: sniffed.first_application_byte,
            bytes: self.bytes,
            markers: sniffed.markers,
            broken_by_fault: self.broken,
            whole_since: self.whole,
            is_late: self.is_late,
        }
    }
}
