//! What is on a wire: hosts, the connections between them, and what each segment does to them.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, SocketAddr},
    task::Waker,
    time::Duration,
};

use bytes::Bytes;

use super::{
    EPHEMERAL, Wakers,
    connection::{Broken, Connection, Read, Side, What},
    link::Links,
    record::Record,
    rule::{Effect, Fate, Rule},
    trace::{self, Trace},
};
use crate::time::elapsed;

/// SYNs that a listener holds before it drops more: `net.core.somaxconn` of Linux before 5.4.
const BACKLOG: usize = 128;

pub(super) struct State {
    pub(super) links: Links,
    pub(super) hosts: BTreeMap<IpAddr, Host>,
    pub(super) connections: BTreeMap<u64, Connection>,
    next: u64,
    pub(super) rules: Vec<Rule>,
    pub(super) records: BTreeMap<u64, Record>,
    mesh_suffix: String,
    pub(super) trace: Trace,
}

#[derive(Default)]
pub(super) struct Host {
    pub(super) listeners: BTreeMap<u16, Listening>,
    pub(super) next_port: u16,
    pub(super) is_down: bool,
    /// Its pod is gone, and no other has the address.
    pub(super) is_vacant: bool,
}

#[derive(Default)]
pub(super) struct Listening {
    /// By when they are established: with the last of the three segments, and what the client says first comes with it.
    pub(super) waiting: BTreeSet<(Duration, u64)>,
    pub(super) acceptor: Option<Waker>,
}

/// What a SYN met.
pub(super) enum Syn {
    Accepted(u64),
    Refused,
    Lost,
    NoSuchHost,
}

impl State {
    pub(super) fn new(links: Links, mesh_suffix: &str, trace: Trace) -> Self {
        Self {
            links,
            hosts: BTreeMap::new(),
            connections: BTreeMap::new(),
            next: 0,
            rules: Vec::new(),
            records: BTreeMap::new(),
            mesh_suffix: mesh_suffix.to_owned(),
            trace,
        }
    }

    pub(super) fn ephemeral(&mut self, ip: IpAddr) -> SocketAddr {
        let host = self.hosts.entry(ip).or_default();
        let port = host.next_port.max(EPHEMERAL);
        host.next_port = port.checked_add(1).unwrap_or(EPHEMERAL);
        SocketAddr::new(ip, port)
    }

    pub(super) fn syn(&mut self, from: SocketAddr, to: SocketAddr, wakers: &mut Wakers) -> Syn {
        let now = elapsed();
        if !self.links.passes(from.ip(), to.ip()) || !self.links.passes(to.ip(), from.ip()) {
            return Syn::Lost;
        }
        let host = self.hosts.get_mut(&to.ip()).filter(|host| !host.is_vacant);
        let Some(host) = host else { return Syn::NoSuchHost };
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
            let mut record = Record::new(from, to, &self.mesh_suffix, now);
            if fate.is_some_and(|fate| fate.effect == Effect::Swallow) {
                record.lose();
            }
            self.records.insert(id, record);
        }
        self.connections.insert(id, connection);
        Syn::Accepted(id)
    }

    /// The open connections between hosts that `meets` names: a fault comes over them, or goes.
    pub(super) fn hindered(
        &mut self,
        meets: impl Fn(IpAddr, IpAddr) -> bool,
    ) -> impl Iterator<Item = &mut Record> {
        let open = self.records.values_mut().filter(|record| record.closed.is_none());
        open.filter(move |record| meets(record.client.ip(), record.server.ip()))
    }

    pub(super) fn wake_readers(&mut self, wakers: &mut Wakers) {
        for connection in self.connections.values_mut() {
            for side in [Side::Client, Side::Server] {
                wakers.extend(connection.end(side).reader.take());
            }
        }
    }

    /// Takes what has arrived for one end.
    pub(super) fn read(&mut self, id: u64, side: Side, room: usize, wakers: &mut Wakers) -> Read {
        let Some(connection) = self.connections.get_mut(&id) else { return Read::Reset };
        let passes = self.links.passes(connection.address(side.other()).ip(), connection.address(side).ip());
        let read = connection.read(side, elapsed(), passes, room);
        if matches!(read, Read::Data(_)) {
            wakers.extend(connection.end(side).writer.take());
        }
        read
    }

    /// Sends bytes from one end, as many as there is room for; none when it has to wait.
    pub(super) fn write(
        &mut self,
        id: u64,
        side: Side,
        bytes: &[u8],
        wakers: &mut Wakers,
    ) -> Result<usize, Broken> {
        let now = elapsed();
        let Some(connection) = self.connections.get_mut(&id) else {
            return Err(Broken::Reset);
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
        let (carried, answered) = (connection.carried, connection.answered);
        let stalls = match connection.fate.map(|fate| fate.effect) {
            Some(Effect::ResetAfter(limit)) if carried >= limit => false,
            Some(Effect::ResetAfterAnswers(limit)) if answered >= limit => false,
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
    pub(super) fn shut_down(&mut self, id: u64, side: Side, wakers: &mut Wakers) {
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
    pub(super) fn close(&mut self, id: u64, side: Side, with_reset: bool, wakers: &mut Wakers) {
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
