//! What is to go wrong with connections that are opened from now on.

use std::{net::IpAddr, time::Duration};

/// What goes wrong with a connection.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Effect {
    /// It is reset at both ends once it has carried so many bytes, both directions together.
    ResetAfter(u64),
    /// It is reset at both ends once it has carried so many bytes of the server.
    ResetAfterAnswers(u64),
    /// It is accepted, and nothing that is sent on it arrives anywhere.
    Swallow,
    /// What the client says first arrives so much later.
    DelayFirst(Duration),
    /// If it begins with a ClientHello for a name of the mesh, it is reset at both ends once it has carried so many bytes.
    ResetMeshAfter(u64),
    /// If it begins with a ClientHello for a name of the mesh, nothing arrives any more once it has carried so many bytes.
    StallMeshAfter(u64),
}

/// Which connections a rule is for; what is not said does not matter.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Scope {
    /// From this host.
    pub from: Option<IpAddr>,
    /// To this host.
    pub to: Option<IpAddr>,
    /// To this port.
    pub port: Option<u16>,
}

/// A rule, and how often it has done what it says.
#[derive(Debug, Clone)]
pub(super) struct Rule {
    pub(super) id: usize,
    pub(super) scope: Scope,
    pub(super) effect: Effect,
    /// Connections it still is for.
    pub(super) left: u32,
    pub(super) fired: u64,
}

impl Rule {
    pub(super) fn is_for(&self, from: IpAddr, to: IpAddr, port: u16) -> bool {
        let Scope { from: a, to: b, port: p } = self.scope;
        self.left > 0
            && from != to
            && a.is_none_or(|a| a == from)
            && b.is_none_or(|b| b == to)
            && p.is_none_or(|p| p == port)
    }
}

/// What one connection has been chosen for.
#[derive(Debug, Clone, Copy)]
pub(super) struct Fate {
    pub(super) rule: usize,
    pub(super) effect: Effect,
}
