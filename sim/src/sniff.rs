//! Tells what a connection carries from its bytes alone, as they cross, in whatever pieces.
//!
//! The first bytes decide: a ClientHello for a name of the mesh, one for another name, or no TLS. Of what claims to be TLS,
//! every record's header is checked to the end; where the records end, plaintext begins. Markers of operations are
//! looked for in every byte, those inside of records too: what is encrypted shows none.
//!
//! # When application data begins
//!
//! In TLS 1.3 the encrypted half of the handshake travels in records of the same type, 23, as what follows. rustls writes all
//! messages of such a flight into one record (`HandshakeFlight` in its `common_state.rs`), or several when they exceed
//! 2^14 octets, all but the last of them full. So, in either direction, the records of type 23 up to the first that is not
//! full are the handshake, and later ones are application data, except those just large enough for an alert: a
//! `close_notify` says nothing of the application.
//!
//! What follows from that: a write of exactly two octets looks like an alert (no operation is that small); a flight of exactly
//! 2^14 octets would hide one record behind it; a TLS that splits its flights, or TLS 1.2, is told wrong by a record,
//! which matters to nobody, as the mesh is rustls and 1.3 on both sides. Of the tickets of other servers the same holds.

mod hello;
mod records;

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use self::{
    hello::Hello,
    records::{Record, Records},
};
use crate::history::{OpId, WireKind};

/// Operations of one connection that are remembered; a run has fewer.
const MAX_MARKERS: usize = 1 << 16;

/// Reads one connection.
#[derive(Debug, Clone)]
pub struct Sniffer {
    suffix: Arc<str>,
    hello: Hello,
    client: Way,
    server: Way,
    /// Since when it is no TLS, or no longer.
    plain: Option<Duration>,
    /// The server spoke before the client, whose first words, a ClientHello perhaps, are still to come.
    is_interrupted: bool,
    markers: BTreeMap<OpId, Duration>,
}

/// What a connection carried.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sniffed {
    /// Of which kind it is. In [`WireKind::Plaintext`] with an `sni` the client began with a ClientHello, and no TLS came of it:
    /// its server does not speak it. A ClientHello that never became whole is a
    /// [`WireKind::Handshake`], without `sni` if it did not come that far.
    pub kind: WireKind,
    /// The name in the ClientHello, in lower case.
    pub sni: Option<String>,
    /// When the first byte that is no handshake crossed, in either direction.
    pub first_application_byte: Option<Duration>,
    /// When the client had the handshake behind it: the end of its last flight began to cross. What is said from then on may not
    /// be said again in the clear.
    pub agreed: Option<Duration>,
    /// Operations seen in the clear, by the time at which each first was.
    pub markers: Vec<(OpId, Duration)>,
}

/// One direction.
#[derive(Debug, Clone, Default)]
struct Way {
    records: Records,
    sealed: Sealed,
    /// What may be the beginning of a marker.
    tail: Vec<u8>,
}

/// The encrypted records of one direction.
#[derive(Debug, Clone, Default)]
struct Sealed {
    flight: Flight,
    /// When the last record of the flight began.
    agreed: Option<Duration>,
    /// When the first one of the application did.
    application: Option<Duration>,
}

/// The encrypted part of a handshake.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
enum Flight {
    #[default]
    Awaited,
    Continues,
    Over,
}

impl Sniffer {
    /// A connection of which nothing was seen yet. Names that end in `suffix` (`.conduit-managed.<namespace>.<domain>`) are the
    /// mesh's.
    pub fn new(suffix: impl Into<Arc<str>>) -> Self {
        Self {
            suffix: suffix.into(),
            hello: Hello::default(),
            client: Way::default(),
            server: Way::default(),
            plain: None,
            is_interrupted: false,
            markers: BTreeMap::new(),
        }
    }

    /// Bytes crossed from the client at `at`, which never goes back.
    pub fn client(&mut self, bytes: &[u8], at: Duration) {
        self.look_for_markers(bytes, at, true);
        if self.plain.is_some() && !self.is_interrupted {
            return;
        }
        let Self { hello, client, plain, is_interrupted, .. } = self;
        let began = client.records.began().unwrap_or(at);
        let whole = client.records.feed(bytes, at, |part| match part {
            Record::Begins { content, length, at } => {
                // TLS begins with a handshake.
                let is_first = !hello.has_begun();
                client.sealed.record(content, length, at);
                !is_first || content == records::HANDSHAKE
            }
            Record::Payload { content: records::HANDSHAKE, bytes } => hello.feed(bytes),
            Record::Payload { .. } => true,
        });
        if *is_interrupted {
            *is_interrupted = whole.is_ok() && !hello.is_whole();
        } else if let Err(since) = whole {
            // What turns out not to be a ClientHello never was one.
            *plain = Some(if hello.is_whole() { since } else { began });
        }
    }

    /// Bytes crossed to the client at `at`, which never goes back.
    pub fn server(&mut self, bytes: &[u8], at: Duration) {
        self.look_for_markers(bytes, at, false);
        if self.plain.is_some() || bytes.is_empty() {
            return;
        }
        if !self.client.records.is_begun() {
            // A server of TLS never speaks first.
            self.plain = Some(at);
            self.is_interrupted = true;
            return;
        }
        let Self { server, plain, .. } = self;
        let whole = server.records.feed(bytes, at, |part| {
            if let Record::Begins { content, length, at } = part {
                server.sealed.record(content, length, at);
            }
            true
        });
        *plain = whole.err();
    }

    /// What is known by now; more may cross afterwards.
    pub fn finish(&self) -> Sniffed {
        let sni = self.hello.name();
        let application = [self.client.sealed.application, self.server.sealed.application, self.plain];
        let first_application_byte = application.into_iter().flatten().min();
        let mut markers: Vec<_> = self.markers.iter().map(|(id, at)| (*id, *at)).collect();
        markers.sort_by_key(|(id, at)| (*at, *id));
        Sniffed {
            kind: self.kind(sni.as_deref(), first_application_byte),
            sni,
            first_application_byte,
            agreed: self.client.sealed.agreed,
            markers,
        }
    }

    fn kind(&self, sni: Option<&str>, application: Option<Duration>) -> WireKind {
        if self.plain.is_some() {
            return WireKind::Plaintext;
        }
        if !self.client.records.is_begun() {
            return WireKind::Silent;
        }
        let is_mesh = match sni {
            Some(name) => name.strip_suffix(&*self.suffix).is_some_and(|workload| !workload.is_empty()),
            None => !self.hello.is_whole(),
        };
        match (is_mesh, application) {
            (false, _) => WireKind::AppTls,
            (true, Some(_)) => WireKind::Mesh,
            (true, None) => WireKind::Handshake,
        }
    }

    fn look_for_markers(&mut self, bytes: &[u8], at: Duration, from_client: bool) {
        let way = if from_client { &mut self.client } else { &mut self.server };
        way.tail.extend_from_slice(bytes);
        for id in OpId::find_all(&way.tail) {
            // What the old tail showed keeps its time.
            if self.markers.len() < MAX_MARKERS {
                self.markers.entry(id).or_insert(at);
            }
        }
        let done = way.tail.len().saturating_sub(OpId::MAX_LEN - 1);
        way.tail.drain(..done);
    }
}

impl Sealed {
    /// A record begins.
    fn record(&mut self, content: u8, length: usize, at: Duration) {
        if content != records::APPLICATION_DATA
            || (length == records::SEALED_ALERT && self.flight != Flight::Continues)
        {
            return;
        }
        if self.flight == Flight::Over {
            self.application.get_or_insert(at);
        } else if length == records::SEALED_FULL {
            self.flight = Flight::Continues;
        } else {
            self.flight = Flight::Over;
            self.agreed = Some(at);
        }
    }
}

#[cfg(test)]
mod tests;
