//! What happened in one run: what was asked of applications, what arrived at them, what crossed the wire, what was
//! broken. Everything a checker judges is here, as plain values; times are simulated time since the start of the run.
//!
//! - `history/run.rs`: [`Run`], all of it together, with who held what and when; what follows from that
//! - `history/reading.rs`: what proxies, `stat` and `tap` said meanwhile

mod reading;
mod run;

use std::{
    collections::{BTreeMap, btree_map::Entry},
    fmt,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use parking_lot::Mutex;

pub use reading::{Counter, Reading, StatRow, TapEvent};
pub use run::{FaultRecord, Held, PodLife, Run, Sidecar, Trusted, Window};

/// What an application speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Protocol {
    /// HTTP/1.1, kept alive or one connection a request.
    Http1,
    /// HTTP/2 with prior knowledge.
    Http2,
    /// gRPC: HTTP/2 with a status in trailers.
    Grpc,
    /// Bytes that are no protocol anybody knows; the client speaks first and half-closes at the end.
    Opaque,
    /// The server greets, and the client is silent until it has been greeted.
    ServerFirst,
    /// An HTTP/1.1 upgrade, and frames after it.
    WebSocket,
    /// The application's own TLS, to a name of its own.
    AppTls,
}

impl Protocol {
    /// Every protocol, in the order of the type.
    pub const ALL: [Self; 7] = [
        Self::Http1,
        Self::Http2,
        Self::Grpc,
        Self::Opaque,
        Self::ServerFirst,
        Self::WebSocket,
        Self::AppTls,
    ];

    /// The port on which every application of the simulation speaks it.
    pub const fn port(self) -> u16 {
        match self {
            Self::Http1 => 8080,
            Self::Http2 => 8081,
            Self::Grpc => 8082,
            Self::Opaque => 9000,
            Self::ServerFirst => 9001,
            Self::WebSocket => 8083,
            Self::AppTls => 9443,
        }
    }

    /// Its name in Services, traces and command lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Http1 => "http1",
            Self::Http2 => "http2",
            Self::Grpc => "grpc",
            Self::Opaque => "opaque",
            Self::ServerFirst => "server-first",
            Self::WebSocket => "websocket",
            Self::AppTls => "app-tls",
        }
    }
}

/// An operation's name: unique in a run, and the same in the run without Conduit, because operations are started by the
/// clock alone. `Display` and the payload's marker are `op-<client>-<stream>-<number>.`, the final dot included, so that no
/// marker is a prefix of another.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OpId {
    /// Which client: its number in the world.
    pub client: u16,
    /// Which of the client's streams of operations.
    pub stream: u16,
    /// Which operation of the stream, from 0.
    pub number: u32,
}

impl fmt::Display for OpId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "op-{}-{}-{}.", self.client, self.stream, self.number)
    }
}

const PREFIX: &[u8] = b"op-";

impl OpId {
    /// No marker is longer than this many octets.
    pub const MAX_LEN: usize = 27;

    /// Finds the first marker in `bytes`; the inverse of `Display`, wherever it stands.
    pub fn find(bytes: &[u8]) -> Option<Self> {
        Self::find_all(bytes).next()
    }

    /// Every marker in `bytes`, in order.
    pub fn find_all(bytes: &[u8]) -> impl Iterator<Item = Self> + '_ {
        let begins = bytes.iter().enumerate().filter(|(_, byte)| **byte == PREFIX[0]).map(|(at, _)| at);
        begins.filter_map(|at| Self::parse(bytes[at..].strip_prefix(PREFIX)?))
    }

    fn parse(bytes: &[u8]) -> Option<Self> {
        let end = bytes.iter().take(Self::MAX_LEN - PREFIX.len()).position(|byte| *byte == b'.')?;
        let text = std::str::from_utf8(&bytes[..end]).ok()?;
        let mut numbers = text.split('-');
        let id = Self {
            client: numbers.next()?.parse().ok()?,
            stream: numbers.next()?.parse().ok()?,
            number: numbers.next()?.parse().ok()?,
        };
        numbers.next().is_none().then_some(id)
    }
}

/// One thing a client asked of a Service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Op {
    /// The pod it comes from.
    pub client: IpAddr,
    /// `namespace/name` of the Service.
    pub service: String,
    /// What they speak.
    pub protocol: Protocol,
    /// When the client began.
    pub started: Duration,
    /// When it had its answer or its failure; none while it is under way.
    pub ended: Option<Duration>,
    /// How it ended.
    pub outcome: Outcome,
    /// The client's own deadline for it, from its start.
    pub deadline: Duration,
}

/// How an operation ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Outcome {
    /// It is under way, or its client was killed.
    Unfinished,
    /// The answer is what the server must answer to this operation, byte for byte.
    Answered,
    /// An answer came that is not: lost, doubled, reordered or somebody else's bytes.
    Wrong(String),
    /// An error, as the client saw it; running out of time is one.
    Failed(String),
}

/// An operation that reached an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Arrival {
    /// Which operation.
    pub op: OpId,
    /// The pod whose application has it.
    pub server: IpAddr,
    /// `namespace/name` of the workload that the application belongs to.
    pub workload: String,
    /// What was spoken.
    pub protocol: Protocol,
    /// When.
    pub at: Duration,
    /// Whether every byte of its payload was there, once and in order.
    pub intact: bool,
}

/// What a run's applications say. Cloning shares.
#[derive(Debug, Clone, Default)]
pub struct OpLog(Arc<Mutex<Ops>>);

/// The operations of a run, and what became of them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Ops {
    /// What clients asked; of an operation that a client began again, the first beginning.
    pub asked: BTreeMap<OpId, Op>,
    /// How often the client itself began those that it began more than once.
    pub begun: BTreeMap<OpId, u32>,
    /// How often clients got those back that were not begun with, and asked anew.
    pub handed_back: BTreeMap<OpId, u32>,
    /// What servers received, in the order of arrival.
    pub arrived: Vec<Arrival>,
}

impl OpLog {
    /// A client begins, or begins again.
    pub fn begin(&self, id: OpId, op: Op) {
        let Ops { asked, begun, .. } = &mut *self.0.lock();
        match asked.entry(id) {
            Entry::Vacant(first) => {
                first.insert(op);
            }
            Entry::Occupied(_) => *begun.entry(id).or_insert(1) += 1,
        }
    }

    /// A client got its request back, untouched, and asks anew.
    pub fn hand_back(&self, id: OpId) {
        *self.0.lock().handed_back.entry(id).or_default() += 1;
    }

    /// A client has an answer, or will never have one.
    pub fn end(&self, id: OpId, at: Duration, outcome: Outcome) {
        if let Some(op) = self.0.lock().asked.get_mut(&id) {
            op.ended = Some(at);
            op.outcome = outcome;
        }
    }

    /// A server received one.
    pub fn arrive(&self, arrival: Arrival) {
        self.0.lock().arrived.push(arrival);
    }

    /// Everything so far.
    pub fn snapshot(&self) -> Ops {
        self.0.lock().clone()
    }
}

impl Ops {
    /// How often a client asked for `id`: no server may see it more often.
    pub fn times_asked(&self, id: OpId) -> u32 {
        match self.begun.get(&id) {
            Some(times) => *times,
            None => u32::from(self.asked.contains_key(&id)),
        }
    }

    /// How often a client got `id` back and asked anew: a proxy counts each time, and a server sees none of them.
    pub fn times_handed_back(&self, id: OpId) -> u32 {
        self.handed_back.get(&id).copied().unwrap_or_default()
    }
}

/// What the sniffer knows of one connection between two hosts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct WireConnection {
    /// In the order of opening.
    pub id: u64,
    /// Who opened it.
    pub client: SocketAddr,
    /// To whom.
    pub server: SocketAddr,
    /// When the server's host had accepted it.
    pub opened: Duration,
    /// When both ends had let go of it; none while it is open.
    pub closed: Option<Duration>,
    /// What it carried, told from its bytes alone.
    pub kind: WireKind,
    /// The name in the ClientHello that it begins with, if any.
    pub sni: Option<String>,
    /// When the first byte that is no handshake crossed: a TLS record of application data, or any byte of plaintext.
    pub first_application_byte: Option<Duration>,
    /// When its client had the handshake behind it, if there was one.
    pub agreed: Option<Duration>,
    /// Bytes from the client, and to it.
    pub bytes: (u64, u64),
    /// Markers of operations seen in the clear, each with the time at which it crossed.
    pub markers: Vec<(OpId, Duration)>,
    /// When a fault came over it: it was reset, or it swallows, or its link was cut, or a host at its end died.
    pub broken_by_fault: Option<Duration>,
    /// Since when it is as before again, after its link was cut.
    pub whole_since: Option<Duration>,
    /// Whether a fault held the client's first bytes back. Who waits no longer for them takes them for no protocol at all.
    pub is_late: bool,
}

impl WireConnection {
    /// Whether it is a probe that found somebody else: it began with a ClientHello for a name of the mesh, which who was
    /// there answered in the clear, and nothing of an application ever crossed.
    pub fn is_misled_probe(&self) -> bool {
        self.kind == WireKind::Plaintext && self.sni.is_some() && self.markers.is_empty()
    }
}

/// What a connection carried.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum WireKind {
    /// Nothing at all.
    Silent,
    /// It began with a ClientHello for a name of the mesh, and no application data followed: a probe, or a failed handshake.
    Handshake,
    /// TLS to a name of the mesh, with application data in both or one of the directions.
    Mesh,
    /// TLS to another name: the application's own.
    AppTls,
    /// Anything else.
    Plaintext,
}
