//! What a world is, and what happens to it: pure values, drawn from a seed or written by hand.

use std::{iter, ops::RangeInclusive, time::Duration};

use conduit_ca::Lifetimes;
use conduit_mesh::Sidecar;
use conduit_runtime::Seed;
use rand::{RngExt, rngs::StdRng};

use crate::{
    check::GREETING,
    fault::{Fault, Planned, Pod, Workload, over},
    history::Protocol,
    workload::Style,
};

/// When operations begin: by then everything runs.
pub const BEGIN: Duration = Duration::from_secs(8);
/// When the first fault may begin, and when the last one must be over.
pub const FAULTS: (Duration, Duration) = (Duration::from_secs(12), Duration::from_secs(26));
/// The longest that anything takes to follow the end of the last fault.
pub const SETTLE: Duration = Duration::from_secs(20);
/// How long the world goes on after that, so that there is something to look at.
pub const CALM: Duration = Duration::from_secs(6);
/// How long operations under way at the end may take.
const LAST: Duration = Duration::from_secs(6);

/// Where workloads are.
const NAMESPACES: [&str; 2] = ["shop", "bank"];

/// A world and its story in a few numbers: what is generated and made smaller.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketch {
    /// Decides whatever is not said here.
    pub seed: u64,
    /// How many servers, at least one.
    pub servers: usize,
    /// How many clients, at least one.
    pub clients: usize,
    /// What is broken.
    pub faults: Vec<Sketched>,
}

/// A fault in a few numbers.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Sketched {
    /// Decides which one it is.
    pub draw: u64,
    /// How long after the first moment at which something may break it begins.
    pub after: Duration,
    /// How long it lasts, at most to the last such moment.
    pub lasts: Duration,
}

impl Sketched {
    fn draw(rng: &mut StdRng) -> Self {
        Self {
            draw: rng.random(),
            after: Duration::from_millis(rng.random_range(0..6_000)),
            lasts: Duration::from_millis(rng.random_range(500..8_000)),
        }
    }
}

/// A world and its story.
#[derive(Debug, Clone)]
pub struct Plan {
    /// Decides whatever is not said here: latencies, payloads, keys, jitter.
    pub seed: u64,
    /// Simulated time moves in steps of this.
    pub tick: Duration,
    /// The shortest and the longest latency of a link, one way.
    pub latency: (Duration, Duration),
    /// Who answers.
    pub servers: Vec<Server>,
    /// Who asks.
    pub clients: Vec<Client>,
    /// How many CAs contend for the Lease.
    pub ca_replicas: usize,
    /// How many destination services there are.
    pub destination_replicas: usize,
    /// What is broken, and when.
    pub faults: Vec<Planned>,
    /// When the last operation may begin.
    pub until: Duration,
    /// Wall-clock seconds for each simulated one.
    pub wall_speed: u32,
    /// How long certificates live, by wall clocks.
    pub lifetimes: Lifetimes,
}

/// A Deployment with a Service of the same name.
#[derive(Debug, Clone, PartialEq)]
pub struct Server {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// What it speaks, each on its own port.
    pub protocols: Vec<Protocol>,
    /// How many pods.
    pub replicas: usize,
    /// Whether and how it is injected.
    pub sidecar: Sidecar,
    /// Whether its Service has no address of its own.
    pub is_headless: bool,
    /// Idle connections are closed after at most this.
    pub close_idle: Option<Duration>,
    /// How long a server that speaks first takes to.
    pub greeting_delay: Duration,
    /// How wrong its machines' clocks are, in milliseconds.
    pub clock_error_ms: i64,
}

/// A Deployment of one pod that asks.
#[derive(Debug, Clone, PartialEq)]
pub struct Client {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Whether and how it is injected.
    pub sidecar: Sidecar,
    /// How wrong its machine's clock is, in milliseconds.
    pub clock_error_ms: i64,
    /// What it asks.
    pub asks: Vec<Asks>,
}

/// Operations of one kind, one after the other.
#[derive(Debug, Clone, PartialEq)]
pub struct Asks {
    /// Which server: its place in [`Plan::servers`].
    pub server: usize,
    /// What is spoken.
    pub protocol: Protocol,
    /// How connections are used.
    pub style: Style,
    /// From one start to the next.
    pub period: Duration,
    /// From [`BEGIN`] to the first start.
    pub offset: Duration,
    /// Between how many bytes payloads have.
    pub lengths: RangeInclusive<usize>,
}

/// The steps of time that the worlds of seeds draw from. Small ones tell more orders of things apart and take longer: at 2 ms
/// most of a world's cost is that of steps in which nothing happens.
const TICKS: [Duration; 10] = {
    let [fine, middle, coarse] =
        [Duration::from_millis(2), Duration::from_millis(5), Duration::from_millis(10)];
    [fine, middle, middle, coarse, coarse, coarse, coarse, coarse, coarse, coarse]
};

/// How long a client waits for an answer.
pub const DEADLINE: Duration = Duration::from_secs(5);

impl Plan {
    /// A quiet world of one meshed client and one meshed server, to be changed: the beginning of every scenario.
    pub fn quiet(seed: u64) -> Self {
        Self {
            seed,
            tick: Duration::from_millis(1),
            latency: (Duration::from_micros(200), Duration::from_millis(2)),
            servers: vec![Server::new("shop", "server", &[Protocol::Http1])],
            clients: vec![Client::new("shop", "client").asks(0, Protocol::Http1, Style::Fresh)],
            ca_replicas: 1,
            destination_replicas: 1,
            faults: Vec::new(),
            until: BEGIN + Duration::from_secs(10),
            wall_speed: 1,
            lifetimes: Lifetimes::default(),
        }
    }

    /// The world of a seed.
    pub fn of_seed(seed: u64) -> Self {
        let mut rng = Seed::fixed(seed).fork("sketch").rng();
        // Large worlds take long, and most of what goes wrong does with a few Services.
        let servers = [2, 2, 3, 3, 3, 4, 4, 4, 6, 8][rng.random_range(0..10)];
        let clients = rng.random_range(1..=3);
        let faults = (0..rng.random_range(1..=3)).map(|_| Sketched::draw(&mut rng)).collect();
        Self::of_sketch(&Sketch { seed, servers, clients, faults })
    }

    /// The world of a sketch.
    pub fn of_sketch(sketch: &Sketch) -> Self {
        let seed = Seed::fixed(sketch.seed).fork("plan");
        let mut rng = seed.rng();
        let low = Duration::from_micros(rng.random_range(100..1_500));
        let mut plan = Self {
            tick: TICKS[seed.fork("tick").rng().random_range(0..TICKS.len())],
            latency: (low, low + Duration::from_micros(rng.random_range(0..6_000))),
            ca_replicas: [0, 1, 1, 1, 1, 1, 1, 1, 2, 2][rng.random_range(0..10)],
            destination_replicas: 1 + usize::from(rng.random_bool(0.25)),
            ..Self::quiet(sketch.seed)
        };
        // Each has randomness of its own, so that a world with fewer is otherwise the same.
        let servers = (0..sketch.servers).map(|number| {
            let name = format!("server-{number}");
            Server::draw(&name, &mut seed.fork(&name).rng())
        });
        plan.servers = servers.collect();
        let clients = (0..sketch.clients).map(|number| {
            let name = format!("client-{number}");
            Client::draw(&name, &plan.servers, &mut seed.fork(&name).rng())
        });
        plan.clients = clients.collect();
        let faults = sketch.faults.iter().flat_map(|sketched| {
            let fault = Planned::draw(&plan, sketched);
            let change = fault.draw_change(&plan, sketched);
            iter::once(fault).chain(change)
        });
        plan.faults = faults.collect();
        if plan.ca_replicas == 0 {
            plan.faults.push(Planned { from: FAULTS.0, until: FAULTS.0, fault: Fault::AnotherCa });
        }
        plan.faults.sort_by_key(|planned| planned.from);
        plan.until = over(&plan).max(FAULTS.1) + SETTLE + CALM;
        plan
    }

    /// Adds a fault.
    #[must_use]
    pub fn fault(mut self, from: Duration, until: Duration, fault: Fault) -> Self {
        self.faults.push(Planned { from, until, fault });
        self.until = self.until.max(over(&self) + SETTLE + CALM);
        self
    }

    /// A client, and a server that it asks.
    pub(crate) fn draw_pair(&self, rng: &mut StdRng) -> Option<(usize, usize)> {
        let clients = self.clients.iter().enumerate();
        let pairs: Vec<_> = clients
            .flat_map(|(client, asking)| asking.asks.iter().map(move |asks| (client, asks.server)))
            .collect();
        draw(&pairs, rng)
    }

    /// One of a server's pods.
    pub(crate) fn draw_pod(&self, server: usize, rng: &mut StdRng) -> Pod {
        Pod::Server(server, rng.random_range(0..self.servers[server].replicas.max(1)))
    }

    /// A workload that was injected with TLS.
    pub(crate) fn draw_with_tls(&self, rng: &mut StdRng) -> Option<Workload> {
        draw(&self.workloads(|sidecar| sidecar == Sidecar::Tls), rng)
    }

    /// A pod that has a proxy.
    pub(crate) fn draw_meshed_pod(&self, rng: &mut StdRng) -> Option<Pod> {
        Some(match draw(&self.workloads(|sidecar| sidecar != Sidecar::Absent), rng)? {
            Workload::Server(server) => self.draw_pod(server, rng),
            Workload::Client(client) => Pod::Client(client),
        })
    }

    fn workloads(&self, is_meant: fn(Sidecar) -> bool) -> Vec<Workload> {
        let servers = self.servers.iter().map(|server| server.sidecar).enumerate();
        let servers = servers.map(|(at, sidecar)| (Workload::Server(at), sidecar));
        let clients = self.clients.iter().map(|client| client.sidecar).enumerate();
        let clients = clients.map(|(at, sidecar)| (Workload::Client(at), sidecar));
        let all = servers.chain(clients).filter(|(_, sidecar)| is_meant(*sidecar));
        all.map(|(workload, _)| workload).collect()
    }

    /// Hosts that the world needs: those of its pods, and some for pods that replace others.
    pub fn hosts(&self) -> u8 {
        let pods = self.clients.len() + self.servers.iter().map(|server| server.replicas).sum::<usize>();
        u8::try_from(pods + 2).unwrap_or(u8::MAX)
    }

    /// When the run is over.
    pub fn end(&self) -> Duration {
        self.until + LAST
    }
}

impl Server {
    /// One pod, meshed, of a server that speaks `protocols`.
    pub fn new(namespace: &str, name: &str, protocols: &[Protocol]) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            protocols: protocols.to_vec(),
            replicas: 1,
            sidecar: Sidecar::Tls,
            is_headless: false,
            close_idle: None,
            greeting_delay: Duration::ZERO,
            clock_error_ms: 0,
        }
    }

    /// Injected otherwise.
    #[must_use]
    pub fn sidecar(mut self, sidecar: Sidecar) -> Self {
        self.sidecar = sidecar;
        self
    }

    /// So many pods.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    fn draw(name: &str, rng: &mut StdRng) -> Self {
        let namespace = NAMESPACES[rng.random_range(0..NAMESPACES.len())];
        let protocols: Vec<Protocol> = Protocol::ALL.into_iter().filter(|_| rng.random_bool(0.4)).collect();
        let protocols = if protocols.is_empty() { vec![Protocol::Http1] } else { protocols };
        let longest = u64::try_from(GREETING.as_millis()).unwrap_or(u64::MAX);
        let delay = if rng.random_bool(0.5) { 0 } else { rng.random_range(0..longest) };
        let greeting_delay = Duration::from_millis(delay);
        Self {
            replicas: rng.random_range(1..=4),
            sidecar: sidecar(rng),
            is_headless: rng.random_bool(0.2),
            // Well below the shortest period, and only where answers are quick: a close that crosses with a request is the
            // application's own race.
            close_idle: (greeting_delay.is_zero() && rng.random_bool(0.5))
                .then(|| Duration::from_millis(rng.random_range(60..100))),
            greeting_delay,
            clock_error_ms: clock_error(rng),
            ..Self::new(namespace, name, &protocols)
        }
    }
}

impl Client {
    /// A meshed client that asks for nothing.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            sidecar: Sidecar::Tls,
            clock_error_ms: 0,
            asks: Vec::new(),
        }
    }

    /// Injected otherwise.
    #[must_use]
    pub fn sidecar(mut self, sidecar: Sidecar) -> Self {
        self.sidecar = sidecar;
        self
    }

    /// Asks a server, by its place in the plan, five times a second.
    #[must_use]
    pub fn asks(mut self, server: usize, protocol: Protocol, style: Style) -> Self {
        let (period, offset) =
            (Duration::from_millis(200), Duration::from_millis(20 * self.asks.len() as u64));
        self.asks.push(Asks { server, protocol, style, period, offset, lengths: 0..=2_000 });
        self
    }

    fn draw(name: &str, servers: &[Server], rng: &mut StdRng) -> Self {
        let namespace = NAMESPACES[rng.random_range(0..NAMESPACES.len())];
        let mut asks = Vec::new();
        for (place, server) in servers.iter().enumerate() {
            for protocol in &server.protocols {
                if rng.random_bool(0.6) {
                    asks.push(Asks::draw(place, server, *protocol, rng));
                }
            }
        }
        if asks.is_empty() {
            let place = rng.random_range(0..servers.len());
            asks.push(Asks::draw(place, &servers[place], servers[place].protocols[0], rng));
        }
        Self { sidecar: sidecar(rng), clock_error_ms: clock_error(rng), asks, ..Self::new(namespace, name) }
    }
}

/// How long a greeting may be held back because its client may be about to speak TLS.
const GREETING_HELD: Duration = Duration::from_secs(1);

impl Asks {
    fn draw(place: usize, server: &Server, protocol: Protocol, rng: &mut StdRng) -> Self {
        let shortest = if protocol == Protocol::ServerFirst { 450 } else { 250 };
        let style = if rng.random_bool(0.5) { Style::Fresh } else { Style::Kept };
        let period = Duration::from_millis(rng.random_range(shortest..1_200));
        // Whatever idles after a greeting that was held back must be closed before the next operation begins.
        let is_held =
            protocol == Protocol::ServerFirst && style == Style::Kept && server.close_idle.is_some();
        Self {
            server: place,
            protocol,
            style,
            period: period + if is_held { GREETING_HELD } else { Duration::ZERO },
            offset: Duration::from_millis(rng.random_range(0..1_000)),
            lengths: 0..=if rng.random_bool(0.2) { 40_000 } else { 1_500 },
        }
    }
}

fn draw<T: Copy>(from: &[T], rng: &mut StdRng) -> Option<T> {
    (!from.is_empty()).then(|| from[rng.random_range(0..from.len())])
}

fn sidecar(rng: &mut StdRng) -> Sidecar {
    match rng.random_range(0..10) {
        0 => Sidecar::Plaintext,
        1 | 2 => Sidecar::Absent,
        _ => Sidecar::Tls,
    }
}

/// Most clocks are right to some milliseconds, and some are wrong by minutes; all of them within what certificates allow.
fn clock_error(rng: &mut StdRng) -> i64 {
    if rng.random_bool(0.8) { rng.random_range(-50..50) } else { rng.random_range(-1_200_000..1_200_000) }
}
