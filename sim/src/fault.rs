//! What can be broken, as values; `fault/act.rs` breaks it.
//!
//! Each fault is counted: one that never did anything proves nothing, and a scenario whose fault never fired fails.

use std::{collections::BTreeSet, fmt, time::Duration};

use conduit_mesh::Sidecar;
use conduit_runtime::Seed;
use rand::{RngExt, rngs::StdRng};

use crate::plan::{FAULTS, Plan, Sketched};

mod act;
mod impostor;
mod secrets;
mod stranger;

pub(crate) use act::Actor;
pub(crate) use impostor::Impostor;

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
        /// Only the pod's own bytes count: what it answers to has arrived, and its answer is lost.
        are_answers: bool,
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
    /// One more CA believes that it leads, whoever else does.
    RivalCa,
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
    WatchesCut {
        /// It forgets what was before, as it does every few minutes: who was behind has to list again.
        is_compacted: bool,
    },
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
    /// A workload's Secret is deleted, and a CA is there to see it.
    SecretDeleted(Workload),
    /// The CA is down, and the trust bundle of a workload's namespace is gone; the CA comes back.
    NoBundle(Workload),
    /// The CA is down, and the trust bundle of a workload's namespace holds a root of which nothing is, and no other; the CA
    /// comes back.
    OldBundle(Workload),
    /// A workload's certificate is replaced by another one again and again, while handshakes with its pods take long.
    Renewals(Workload),
    /// The clocks of a workload's machines jump, and jump back.
    ClockJump {
        /// Whose.
        of: Workload,
        /// By how many milliseconds.
        by_ms: i64,
    },
    /// The destination service is killed, and started again.
    DestinationDown,
    /// The destination service is killed, and another one tells names of another trust domain.
    DestinationWrong,
    /// The destination service is killed, and another one begins with endpoints as they were so many changes ago.
    DestinationForgets {
        /// How many changes it misses.
        events: usize,
    },
    /// Nothing passes between destination services and the API server.
    DestinationCutOff,
    /// Everything between pods and the destination service takes longer.
    DestinationSlow(Duration),
    /// A pod's sidecar is restarted.
    ProxyRestart {
        /// Whose.
        pod: Pod,
        /// It may let go of what is under way first.
        is_graceful: bool,
    },
    /// A server's pod is gone, and somebody else at its address accepts every handshake of the mesh.
    Impostor {
        /// Whose pod goes.
        of: usize,
        /// With what it tries to pass for it.
        shows: Shown,
    },
    /// Somebody who is no pod calls a server's pod over TLS, with a certificate that proves nothing.
    Stranger {
        /// Whose pod is called.
        to: usize,
        /// The certificate is past; otherwise it is from a root that nobody trusts.
        is_past: bool,
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
    /// They are past.
    Expired,
    /// They begin tomorrow.
    NotYetValid,
}

/// What an impostor shows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Shown {
    /// A certificate that is good, for another name.
    AnotherName,
    /// One of the name it was asked for, which is past.
    Expired,
    /// One of the name it was asked for, from a root that nobody trusts.
    Untrusted,
}

impl Shown {
    /// Each.
    pub const ALL: [Self; 3] = [Self::AnotherName, Self::Expired, Self::Untrusted];
}

impl Damage {
    /// Each.
    pub const ALL: [Self; 7] = [
        Self::Removed,
        Self::Truncated,
        Self::KeyMismatch,
        Self::Swapped,
        Self::WrongRoot,
        Self::Expired,
        Self::NotYetValid,
    ];
}

impl fmt::Display for Planned {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:.1} to {:.1} s: {:?}", self.from.as_secs_f64(), self.until.as_secs_f64(), self.fault)
    }
}

/// How long a pod takes that is replaced: the new one's start, and the old one's grace and end.
const REPLACED: Duration = Duration::from_secs(11);
/// How long a sidecar takes that is restarted.
const RESTARTED: Duration = Duration::from_secs(1);
/// How long a sidecar that is restarted gently may go on with what is under way, and a pod that is replaced.
const GENTLY: Duration = Duration::from_secs(5);
/// How long a destination service takes to notice that it hears nothing of the API server: what is replaced sooner, nobody
/// could know of.
const UNNOTICED: Duration = Duration::from_secs(8);
/// How long a CA waits for a Lease that its predecessor could not give up, and a look at it.
const LEASE: Duration = Duration::from_secs(18);

/// How long it takes at most to mend something.
const MENDED: Duration = Duration::from_secs(1);

/// What is done to a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(crate) enum Turn {
    /// It begins.
    Begin,
    /// It ends.
    End,
}

/// What is done to the faults of a plan, by their places in it, and when: one after the other, each with the time that it takes,
/// with Conduit or without. What has to wait lasts as long as it was planned to.
pub(crate) fn turns(plan: &Plan) -> Vec<(Duration, Turn, usize)> {
    let begins = plan.faults.iter().enumerate().map(|(number, planned)| (planned.from, Turn::Begin, number));
    let mut waiting: BTreeSet<(Duration, Turn, usize)> = begins.collect();
    let (mut turns, mut free) = (Vec::new(), Duration::ZERO);
    while let Some((at, turn, number)) = waiting.pop_first() {
        let Planned { from, until, fault } = &plan.faults[number];
        let at = at.max(free);
        turns.push((at, turn, number));
        free = at + fault.takes(turn, plan);
        if turn == Turn::Begin {
            waiting.insert((at + until.saturating_sub(*from), Turn::End, number));
        }
    }
    turns
}

/// When nothing of what is broken in `plan` goes on any more.
pub(crate) fn over(plan: &Plan) -> Duration {
    let keeps_lease = plan.faults.iter().any(|planned| planned.fault.keeps_lease());
    let ends = turns(plan).into_iter().map(|(at, turn, number)| {
        let fault = &plan.faults[number].fault;
        let issued = if keeps_lease && fault.wants_certificates() { LEASE } else { Duration::ZERO };
        at + fault.takes(turn, plan) + issued
    });
    ends.max().unwrap_or_default()
}

impl Planned {
    /// A fault of a world.
    pub(crate) fn draw(plan: &Plan, sketched: &Sketched) -> Self {
        let mut rng = Seed::fixed(sketched.draw).fork("fault").rng();
        let from = (FAULTS.0 + sketched.after).min(FAULTS.1);
        let fault = (0..TRIES).find_map(|_| Fault::draw(plan, &mut rng)).unwrap_or(Fault::CaDown);
        Self { from, until: (from + sketched.lasts).min(FAULTS.1), fault }
    }

    /// Something that changes meanwhile, of which nobody may hear now: what is known matters where it is old.
    pub(crate) fn draw_change(&self, plan: &Plan, sketched: &Sketched) -> Option<Self> {
        let mut rng = Seed::fixed(sketched.draw).fork("change").rng();
        let fault = match self.fault {
            Fault::Secret { of: Workload::Server(server), .. }
            | Fault::SecretDeleted(Workload::Server(server)) => Fault::Rollout(server),
            Fault::ApiFails { .. }
            | Fault::StaleLists { .. }
            | Fault::WatchesCut { .. }
            | Fault::ApiDown { .. }
            | Fault::DestinationDown
            | Fault::DestinationSlow(_)
            | Fault::DestinationForgets { .. }
            | Fault::DestinationCutOff => {
                let (client, server) = plan.draw_pair(&mut rng)?;
                match plan.clients[client].sidecar {
                    Sidecar::Tls | Sidecar::Plaintext if rng.random_bool(0.5) => {
                        Fault::ProxyRestart { pod: Pod::Client(client), is_graceful: false }
                    }
                    _ => Fault::Rollout(server),
                }
            }
            _ => return None,
        };
        // Pods are replaced one after the other, which takes a world's time.
        if matches!(fault, Fault::Rollout(server) if plan.servers[server].replicas > 2) {
            return None;
        }
        let from = self.from + (self.until - self.from) / 4;
        rng.random_bool(0.5).then_some(Self { from, until: from, fault })
    }
}

/// How many kinds of faults are drawn until one is possible in a world.
const TRIES: u32 = 50;

impl Fault {
    /// How many kinds [`Fault::draw`] knows.
    const KINDS: u32 = 31;

    /// None when the world has nobody whom that kind could concern: a workload without a proxy has no certificate to lose.
    fn draw(plan: &Plan, rng: &mut StdRng) -> Option<Self> {
        let (asking, server) = plan.draw_pair(rng)?;
        let (to, client) = (plan.draw_pod(server, rng), Pod::Client(asking));
        let times = rng.random_range(1..12);
        Some(match rng.random_range(0..Self::KINDS) {
            0 => Self::Partition { a: client, b: to, is_one_way: rng.random_bool(0.5) },
            1 => Self::CutOff(plan.draw_meshed_pod(rng)?),
            2 => Self::Crash(to),
            3 => {
                let (after_bytes, are_answers) = (rng.random_range(1..6_000), rng.random_bool(0.5));
                Self::Reset { to, after_bytes, are_answers, times }
            }
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
            11 => Self::WatchesCut { is_compacted: rng.random_bool(0.5) },
            12 => Self::ApiDown { is_silent: rng.random_bool(0.5) },
            13 | 14 => {
                let damage = Damage::ALL[rng.random_range(0..Damage::ALL.len())];
                Self::Secret { of: plan.draw_with_tls(rng)?, damage }
            }
            15 => Self::NoBundle(plan.draw_with_tls(rng)?),
            16 => {
                let hours = rng.random_range(-40..40_i64);
                Self::ClockJump { of: plan.draw_with_tls(rng)?, by_ms: hours * 3_600_000 }
            }
            17 => Self::DestinationDown,
            18 => Self::DestinationSlow(Duration::from_millis(rng.random_range(50..800))),
            19 => Self::ProxyRestart { pod: plan.draw_meshed_pod(rng)?, is_graceful: rng.random_bool(0.7) },
            20 => Self::Rollout(server),
            // A server that loses its only pod is as dead without Conduit.
            21 if plan.servers.len() > 1 && plan.servers[server].replicas > 1 => {
                let other = (server + 1 + rng.random_range(0..plan.servers.len() - 1)) % plan.servers.len();
                Self::Takeover { from: server, to: other }
            }
            21 | 22 => Self::RivalCa,
            23 => Self::OldBundle(plan.draw_with_tls(rng)?),
            24 => Self::Renewals(plan.draw_with_tls(rng)?),
            25 => Self::DestinationWrong,
            26 => Self::DestinationForgets { events: rng.random_range(1..8) },
            27 => Self::DestinationCutOff,
            28 => {
                let meshed = plan.servers[server].sidecar == Sidecar::Tls;
                meshed.then_some(Self::Stranger { to: server, is_past: rng.random_bool(0.5) })?
            }
            29 => Self::SecretDeleted(plan.draw_with_tls(rng)?),
            _ => {
                let meshed = plan.servers[server].sidecar == Sidecar::Tls;
                let shows = Shown::ALL[rng.random_range(0..Shown::ALL.len())];
                meshed.then_some(Self::Impostor { of: server, shows })?
            }
        })
    }

    /// How long it takes at most to bring it about, or to mend it.
    fn takes(&self, turn: Turn, plan: &Plan) -> Duration {
        if turn != Turn::Begin {
            return if *self == Self::DestinationWrong { MENDED * 2 } else { MENDED };
        }
        match self {
            Self::Rollout(server) => {
                let comes =
                    |planned: &&Planned| matches!(planned.fault, Self::Takeover { to, .. } if to == *server);
                let more = plan.faults.iter().filter(comes).count();
                let pods = plan.servers.get(*server).map_or(1, |server| server.replicas) + more;
                REPLACED * u32::try_from(pods).unwrap_or(u32::MAX)
            }
            Self::Takeover { .. } => REPLACED,
            Self::ProxyRestart { is_graceful, .. } => {
                RESTARTED + if *is_graceful { GENTLY } else { Duration::ZERO }
            }
            Self::StaleLists { .. } => Duration::from_secs(2),
            Self::Renewals(_) => Duration::from_secs(4),
            Self::DestinationWrong | Self::DestinationForgets { .. } => Duration::from_secs(1),
            Self::DestinationCutOff => UNNOTICED,
            _ => Duration::ZERO,
        }
    }

    /// Whether a CA may be unable to give its Lease up.
    fn keeps_lease(&self) -> bool {
        matches!(
            self,
            Self::ApiFails { .. } | Self::ApiDown { .. } | Self::StaleLists { .. } | Self::CaCutOff
        )
    }

    /// Whether certificates have to be issued once it is over.
    fn wants_certificates(&self) -> bool {
        matches!(
            self,
            Self::Secret { .. }
                | Self::SecretDeleted(_)
                | Self::NoBundle(_)
                | Self::OldBundle(_)
                | Self::Renewals(_)
        )
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
                | Self::Impostor { .. }
                | Self::Renewals(_)
                | Self::Rollout(_)
                | Self::Takeover { .. }
        )
    }
}
