//! What the sniffer knows of a connection between hosts.

use std::{net::SocketAddr, time::Duration};

use super::connection::Side;
use crate::{
    history::{WireConnection, WireKind},
    sniff::Sniffer,
    time::elapsed,
};

/// A connection between hosts, as it is seen from outside.
pub(super) struct Record {
    pub(super) client: SocketAddr,
    pub(super) server: SocketAddr,
    opened: Duration,
    pub(super) closed: Option<Duration>,
    bytes: (u64, u64),
    broken: Option<Duration>,
    /// It is not only a link that was cut: nothing makes it whole again.
    is_lost: bool,
    whole: Option<Duration>,
    pub(super) is_late: bool,
    sniffer: Sniffer,
}

impl Record {
    pub(super) fn new(client: SocketAddr, server: SocketAddr, mesh_suffix: &str, now: Duration) -> Self {
        Self {
            client,
            server,
            opened: now,
            closed: None,
            bytes: (0, 0),
            broken: None,
            is_lost: false,
            whole: None,
            is_late: false,
            sniffer: Sniffer::new(mesh_suffix),
        }
    }

    pub(super) fn sniff(&mut self, side: Side, bytes: &[u8], now: Duration) {
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
    pub(super) fn cut(&mut self) {
        self.broken.get_or_insert_with(elapsed);
        self.whole = None;
    }

    /// What was sent meanwhile is sent again.
    pub(super) fn mend(&mut self) {
        self.whole = self.broken.filter(|_| !self.is_lost).map(|_| elapsed());
    }

    /// It is over.
    pub(super) fn lose(&mut self) {
        if !std::mem::replace(&mut self.is_lost, true) {
            (self.broken, self.whole) = (Some(elapsed()), None);
        }
    }

    /// Whether it begins with a ClientHello, whole by now, for a name of the mesh.
    pub(super) fn is_of_the_mesh(&self) -> bool {
        let sniffed = self.sniffer.finish();
        matches!(sniffed.kind, WireKind::Handshake | WireKind::Mesh) && sniffed.sni.is_some()
    }

    pub(super) fn told(&self, id: u64) -> WireConnection {
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
            agreed: sniffed.agreed,
            bytes: self.bytes,
            markers: sniffed.markers,
            broken_by_fault: self.broken,
            whole_since: self.whole,
            is_late: self.is_late,
        }
    }
}
