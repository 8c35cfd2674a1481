//! One run: turmoil's hosts, stepped until the story has been told.

use std::{cell::RefCell, rc::Rc, sync::Arc, time::Duration};

use conduit_ca::Lifetimes;
use conduit_identity::ControlPlane;
use conduit_k8s::lease;
use conduit_mesh::{Addresses, Mesh, PodEvent, PodObserver};
use conduit_runtime::Seed;

use crate::{
    crypto,
    history::OpLog,
    hosts::{Machines, Order},
    time::{EPOCH, SkewedClock, Wall, elapsed},
    wire::{Trace, Wire},
};

/// How long a pod that was deleted goes on accepting, as shipped: until everybody has heard of it.
const GRACE: Duration = Duration::from_secs(5);

/// How often observe reads the proxies: at the demonstration's pace, nine of ten bytes on the wire would be metrics.
const SCRAPE_INTERVAL: Duration = Duration::from_secs(5);

/// What a world is made of, apart from what its story does.
#[derive(Clone)]
pub struct Setting {
    /// Decides everything that is not said here.
    pub seed: u64,
    /// Hosts for pods of applications.
    pub hosts: u8,
    /// How long a step is: what is shorter happens at once.
    pub tick: Duration,
    /// The shortest and the longest latency of a link, one way.
    pub latency: (Duration, Duration),
    /// How long the story may take in simulated time.
    pub limit: Duration,
    /// How long certificates live.
    pub lifetimes: Lifetimes,
    /// Whether the trace keeps its lines.
    pub keeps_trace: bool,
    /// Who hears what happens to pods.
    pub observer: Option<PodObserver>,
}

impl Default for Setting {
    fn default() -> Self {
        Self {
            seed: 0,
            hosts: 8,
            tick: Duration::from_millis(1),
            latency: (Duration::from_micros(200), Duration::from_millis(3)),
            limit: Duration::from_secs(300),
            lifetimes: Lifetimes::default(),
            keeps_trace: false,
            observer: None,
        }
    }
}

/// What a story works with. Everything in it runs on a host of its own, the cluster's.
pub struct Stage {
    /// The mesh, with a cluster and nothing in it.
    pub mesh: Mesh,
    /// The hosts of pods.
    pub machines: Machines,
    /// The network.
    pub wire: Wire,
    /// Wall clocks.
    pub wall: Wall,
    /// The clock of every machine but those that were given another.
    pub clock: SkewedClock,
    /// What applications say.
    pub log: OpLog,
    /// Randomness for the story.
    pub seed: Seed,
}

/// Why a run came to no end.
#[derive(Debug, thiserror::Error)]
#[error("the simulation of seed {seed} stopped at {at:?}: {why}")]
pub struct Stopped {
    /// Which world.
    pub seed: u64,
    /// At which simulated time.
    pub at: Duration,
    /// Why.
    pub why: String,
}

/// Tells a story in a world of its own, on this thread, and returns what it returns, with the trace.
///
/// # Errors
/// The story took longer than it may, failed, or a process panicked.
pub fn run<T, Story, Telling>(setting: &Setting, story: Story) -> Result<(T, Trace), Stopped>
where
    T: 'static,
    Story: FnOnce(Stage) -> Telling + 'static,
    Telling: Future<Output = Result<T, String>> + 'static,
{
    crypto::seed_thread(setting.seed);
    let trace = if setting.keeps_trace { Trace::kept() } else { Trace::hashed() };
    let control_plane = ControlPlane::default();
    let suffix = format!(".conduit-managed.{}.{}", control_plane.namespace, control_plane.trust_domain);
    let (low, high) = setting.latency;
    let wire = Wire::new(setting.seed, low, high, &suffix, trace);
    let machines = Machines::new(wire.clone(), setting.hosts);
    let mut sim = turmoil::Builder::new()
        .rng_seed(setting.seed)
        .epoch(std::time::UNIX_EPOCH + EPOCH.0)
        .tick_duration(setting.tick)
        .simulation_duration(setting.limit)
        .build();
    for name in machines.names() {
        let (machines, host) = (machines.clone(), name.clone());
        sim.host(name, move || {
            let running = machines.clone().run(host.clone());
            async move {
                running.await;
                Ok(())
            }
        });
    }
    let told: Rc<RefCell<Option<T>>> = Rc::default();
    let (telling, stage) = (told.clone(), (setting.clone(), machines.clone(), wire.clone()));
    sim.client("cluster", async move {
        let (setting, machines, wire) = stage;
        let result = story(set(&setting, machines, wire, control_plane).await?).await?;
        telling.borrow_mut().replace(result);
        Ok(())
    });
    let stopped = |why: String| Stopped { seed: setting.seed, at: elapsed(), why };
    loop {
        let is_over = sim.step().map_err(|error| stopped(error.to_string()))?;
        if is_over {
            break;
        }
        for order in machines.take_orders() {
            match order {
                Order::Crash(name) => sim.crash(name),
                Order::Boot(name) => sim.bounce(name),
            }
        }
    }
    let result =
        told.borrow_mut().take().ok_or_else(|| stopped("the story ended without a result".into()))?;
    Ok((result, wire.trace()))
}

async fn set(
    setting: &Setting,
    machines: Machines,
    wire: Wire,
    control_plane: ControlPlane,
) -> Result<Stage, String> {
    // The other hosts have to run before they can be told to run something.
    tokio::time::sleep(setting.tick * 2).await;
    let wall = Wall::default();
    let clock = wall.clock();
    let seed = Seed::fixed(setting.seed);
    let builder = Mesh::builder(Addresses::of(Arc::new(machines.clone())), seed.fork("mesh"))
        .clock(Arc::new(clock.clone()))
        .crypto(crypto::deterministic())
        .control_plane(control_plane)
        .lifetimes(setting.lifetimes.clone())
        .ca_lease(lease::Timing::default())
        .pull(Duration::ZERO)
        .grace(GRACE)
        .scrape_interval(SCRAPE_INTERVAL);
    let (observer, sockets) = (setting.observer.clone(), wire.clone());
    let builder = builder.observer(Arc::new(move |event| {
        // The kernel closes the sockets of a process that has ended, whatever its tasks still think.
        if let PodEvent::ProxyGone { ip, .. } | PodEvent::Ended { ip, .. } = &event {
            sockets.close_all(*ip);
        }
        if let Some(observer) = &observer {
            observer(event);
        }
    }));
    let mesh = builder.start().await.map_err(|error| error.to_string())?;
    wire.mask(mesh.volumes().to_string_lossy().as_bytes());
    Ok(Stage { mesh, machines, wire, wall, clock, log: OpLog::default(), seed: seed.fork("story") })
}
