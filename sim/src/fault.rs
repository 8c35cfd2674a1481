//! What can be broken, as values; `fault/act.rs` breaks it.
//!
//! Each fault is counted: one that never did anything proves nothing, and a scenario whose fault never fired fails.

use std::{fmt, time::Duration};

use rand::{RngExt, rngs::StdRng};

use crate::plan::{FAULTS, Plan};

mod act;
mod secrets;

pub(crate) use act::Actor;

/// A fault and its time.
#[derive(Debug, Clone, PartialEq)]
pub struct Planned {
    /// When it begins.
    pub from: Duration,
    /// When it is over.
    pub until: Duration,
    /// What it is.
    pub fault: Fault,
}

/// A pod of an application: a server's, by the places of the server in the plan and of the pod in the server, or a client's.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pod {
    /// A server's pod.
    Server(usize, usize),
    /// A client's pod.
    Client(usize),
}

/// A Deployment: a server or a client, by its place in the plan.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Workload {
    /// A server.
    Server(usize),
    /// A client.
    Client(usize),
}

/// What can be broken.
#[derive(Debug, Clone, PartialEq)]
pub enum Fault {
    /// Nothing passes between two pods, in one direction or both.
    Partition {
        /// One of them.
        a: Pod,
        /// The other.
        b: Pod,
        /// Only from the first to the second.
        is_one_way: bool,
    },
    /// Nothing passes between a pod and the control plane.
    CutOff(Pod),
    /// A pod's host dies, and boots again.
    Crash(Pod),
    /// Connections to a pod are reset at their nth byte.
    Reset {
        /// Which pod.
        to: Pod,
        /// After how many bytes, both directions together.
        after_bytes: u64,
        /// How many connections.
        times: u32,
    },
    /// Connections to a pod are accepted, and swallow everything.
    BlackHole {
        /// Which pod.
        to: Pod,
        /// How many connections.
        times: u32,
    },
    /// Handshakes of the mesh with a pod come to nothing; everything else with it goes on.
    Handshakes {
        /// Which pod.
        to: Pod,
        /// After how many bytes, both directions together: a ClientHello has about 1,500, a whole handshake about 4,000.
        after_bytes: u64,
        /// They are reset; otherwise both ends wait for ever.
        are_reset: bool,
        /// How many connections.
        times: u32,
    },
    /// Everything between two pods takes longer.
    Slow {
        /// One of them.
        a: Pod,
        /// The other.
        b: Pod,
        /// So much, one way.
        by: Duration,
    },
    /// The first bytes of clients of a pod come late.
    LateHello {
        /// Which pod.
        to: Pod,
        /// So late.
        by: Duration,
        /// How many connections.
        times: u32,
    },
    /// The CA is down, and comes back.
    CaDown,
    /// Nothing passes between CAs and the API server.
    CaCutOff,
    /// One more CA contends for the Lease.
    AnotherCa,
    /// The API server answers with an error.
    ApiFails {
        /// 409, 410, 429, 500.
        code: u16,
        /// To how many requests.
        times: u64,
    },
    /// Lists of the API server are old.
    StaleLists {
        /// By so many changes.
        events: usize,
    },
    /// Every watch of the API server breaks.
    WatchesCut,
    /// The API server cannot be reached, or answers nothing.
    ApiDown {
        /// It accepts, and answers nothing.
        is_silent: bool,
    },
    /// The CA is down, and a workload's Secret is damaged; the CA comes back.
    Secret {
        /// Whose.
        of: Workload,
        /// How.
        damage: Damage,
    },
    /// The CA is down, and the trust bundle of a workload's namespace is gone; the CA comes back.
    NoBundle(Workload),
    /// The clocks of a workload's machines jump, and jump back.
    ClockJump {
        /// Whose.
        of: Workload,
        /// By how many milliseconds.
        by_ms: i64,
    },
    /// The destination service is killed, and started again.
    DestinationDown,
    /// Everything between pods and the destination service takes longer.
    DestinationSlow(Duration),
    /// A pod's sidecar is restarted.
    ProxyRestart {
        /// Whose.
        pod: Pod,
        /// It may let go of what is under way first.
        is_graceful: bool,
    },
    /// Every pod of a server is replaced by another; addresses are used again.
    Rollout(usize),
    /// A pod is replaced by one of another server while the destination service is down, which gets its address.
    Takeover {
        /// Whose pod goes.
        from: usize,
        /// Whose pod comes.
        to: usize,
    },
}

/// What is wrong with a Secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Damage {
    /// It is gone.
    Removed,
    /// Its certificate is cut off in the middle.
    Truncated,
    /// Its key is another workload's.
    KeyMismatch,
    /// Certificate and key are another workload's.
    Swapped,
    /// They are from a root that nobody trusts.
    WrongRoot,
}

impl Damage {
    /// Each.
    pub const ALL: [Self; 5] =
        [Self::Removed, Self::Truncated, Self::KeyMismatch, Self::Swapped, Self::WrongRoot];
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} to {:.1} s: {:?}", self.from.as_secs_f64(), self.until.as_secs_f64(), self.fault)
    }
}

/// How long a pod takes that is replaced: the new one's start, and the old one's grace and end.
const REPLACED: Duration = Duration::from_secs(11);

impl Planned {
    /// When nothing of it goes on any more: some faults take their time.
    pub fn over(&self, plan: &Plan) -> Duration {
        let pods = match &self.fault {
            Fault::Rollout(server) => plan.servers.get(*server).map_or(1, |server| server.replicas),
            Fault::Takeover { .. } | Fault::ProxyRestart { .. } => 1,
            _ => 0,
        };
        self.until.max(self.from + REPLACED * u32::try_from(pods).unwrap_or(u32::MAX))
    }

    /// A fault of a world.
    pub(crate) fn draw(plan: &Plan, rng: &mut StdRng) -> Self {
        let (first, last) = FAULTS;
        let from = first + Duration::from_millis(rng.random_range(0..6_000));
        let lasts = Duration::from_millis(rng.random_range(500..8_000));
        Self { from, until: (from + lasts).min(last), fault: Fault::draw(plan, rng) }
    }
}

impl Fault {
    /// How many kinds [`Fault::draw`] knows.
    const KINDS: u32 = 21;

    fn draw(plan: &Plan, rng: &mut StdRng) -> Self {
        let server = rng.random_range(0..plan.servers.len());
        let replica = rng.random_range(0..plan.servers[server].replicas);
        let to = Pod::Server(server, replica);
        let client = Pod::Client(rng.random_range(0..plan.clients.len()));
        let times = rng.random_range(1..12);
        let of = if rng.random_bool(0.6) {
            Workload::Server(server)
        } else {
            Workload::Client(rng.random_range(0..plan.clients.len()))
        };
        let either = if rng.random_bool(0.5) { to } else { client };
        match rng.random_range(0..Self::KINDS) {
            0 => Self::Partition { a: client, b: to, is_one_way: rng.random_bool(0.5) },
            1 => Self::CutOff(either),
            2 => Self::Crash(to),
            3 => Self::Reset { to, after_bytes: rng.random_range(1..6_000), times },
            4 => Self::BlackHole { to, times },
            5 => Self::Slow { a: client, b: to, by: Duration::from_millis(rng.random_range(1..300)) },
            6 => Self::LateHello { to, by: Duration::from_millis(rng.random_range(0..1_000)), times },
            7 => Self::CaDown,
            8 => Self::AnotherCa,
            9 => {
                let code = [409, 410, 429, 500][rng.random_range(0..4)];
                Self::ApiFails { code, times: rng.random_range(1..40) }
            }
            10 => Self::StaleLists { events: rng.random_range(1..30) },
            11 => Self::WatchesCut,
            12 => Self::ApiDown { is_silent: rng.random_bool(0.5) },
            13 | 14 => Self::Secret { of, damage: Damage::ALL[rng.random_range(0..Damage::ALL.len())] },
            15 => Self::NoBundle(of),
            16 => {
                let hours = rng.random_range(-40..40_i64);
                Self::ClockJump { of, by_ms: hours * 3_600_000 }
            }
            17 => Self::DestinationDown,
            18 => Self::DestinationSlow(Duration::from_millis(rng.random_range(50..800))),
            19 => Self::ProxyRestart { pod: either, is_graceful: rng.random_bool(0.7) },
            _ if rng.random_bool(0.6) => Self::Rollout(server),
            _ => {
                let other = (server + 1 + rng.random_range(0..plan.servers.len() - 1)) % plan.servers.len();
                Self::Takeover { from: server, to: other }
            }
        }
    }

    /// Whether it concerns Conduit alone: the run without Conduit has nothing of the kind.
    pub fn is_of_the_mesh(&self) -> bool {
        !matches!(
            self,
            Self::Partition { .. }
                | Self::Crash(_)
                | Self::Reset { .. }
                | Self::BlackHole { .. }
                | Self::Slow { .. }
                | Self::LateHello { .. }
                | Self::Rollout(_)
                | Self::Takeover { .. }
        )
    }
}
