//! Brings a plan about: sets up the mesh, lets clients ask, breaks and mends, and returns what happened.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use conduit_identity::ControlPlane;
use conduit_k8s::owned;
use conduit_mesh::{Deployment, Error, Service, Sidecar};
use conduit_net::Net;
use conduit_runtime::{Seed, drain};
use tokio::time::sleep;

use crate::{
    fault::{self, Actor, Fault, Impostor, Pod, Turn, Workload},
    history::{Reading, Run, StatRow, TapEvent},
    plan::{BEGIN, Client, DEADLINE, Plan, Server},
    probe::Probe,
    record::Recorder,
    run::{Setting, Stage, Stopped, run},
    time::{EPOCH, SkewedClock, elapsed},
    wire::Trace,
    workload::{self, AppTls, ClientInfo, Context, ServerInfo, ServerOptions, Stream, Time},
};

/// How long after its creation everything must run.
const START_LIMIT: Duration = BEGIN;
/// When something is mended again that could not be, because something else is broken as well, and how often.
const MEND_AGAIN: Duration = Duration::from_millis(500);
const MEND_TRIES: u32 = 60;
/// Over how long `stat` looks back at the end: longer than what its edges leave uncertain.
const STAT_WINDOW: Duration = Duration::from_secs(60);

/// How long `tap` is listened to, and until when: the end of operations.
const TAPPED: Duration = Duration::from_secs(4);

/// From one address to another, each.
pub(crate) type Links = Vec<(IpAddr, IpAddr)>;

/// A world that runs, and what it is to be.
pub(crate) struct Worldly {
    pub(crate) stage: Stage,
    pub(crate) plan: Plan,
    pub(crate) has_conduit: bool,
    pub(crate) context: Context,
    taps: Vec<TapEvent>,
    /// Those who stand in for a server's pod, by the server's place in the plan.
    pub(crate) impostors: BTreeMap<usize, Impostor>,
    /// Pods whose hosts have died, with their names and addresses.
    pub(crate) crashed: Vec<(Pod, String, IpAddr)>,
    /// The links that faults have broken.
    pub(crate) broken: Vec<(Fault, Links)>,
    clocks: BTreeMap<String, SkewedClock>,
    recorder: Recorder,
}

/// Runs a plan with Conduit, and returns what happened, with the trace.
///
/// # Errors
/// The world could not be brought about, or a process panicked.
pub fn with_conduit(plan: &Plan, keeps_trace: bool) -> Result<(Run, Trace), Stopped> {
    tell(plan, true, keeps_trace)
}

/// Runs the same without Conduit: the same applications, clients, network and faults, and no proxy anywhere.
///
/// # Errors
/// As [`with_conduit`].
pub fn without_conduit(plan: &Plan) -> Result<Run, Stopped> {
    tell(plan, false, false).map(|(run, _)| run)
}

fn tell(plan: &Plan, has_conduit: bool, keeps_trace: bool) -> Result<(Run, Trace), Stopped> {
    let recorder = Recorder::new(ControlPlane::default());
    let setting = Setting {
        seed: plan.seed,
        hosts: plan.hosts(),
        tick: plan.tick,
        latency: plan.latency,
        limit: plan.end() + Duration::from_secs(120),
        lifetimes: plan.lifetimes.clone(),
        keeps_trace,
        observer: Some(recorder.observer()),
    };
    let plan = plan.clone();
    run(&setting, move |stage| story(stage, plan, has_conduit, recorder))
}

async fn story(stage: Stage, plan: Plan, has_conduit: bool, recorder: Recorder) -> Result<Run, String> {
    let watching = tokio::spawn(recorder.clone().watch());
    stage.wall.run_at(plan.wall_speed);
    let tls = AppTls::of_seed(&stage.seed).map_err(|error| error.to_string())?;
    let (log, seed) = (stage.log.clone(), Seed::fixed(plan.seed).fork("workload"));
    let context = Context { log, time: Time::new(elapsed), seed, tls };
    let mut world = Worldly {
        stage,
        plan,
        has_conduit,
        context,
        taps: Vec::new(),
        impostors: BTreeMap::new(),
        crashed: Vec::new(),
        broken: Vec::new(),
        clocks: BTreeMap::new(),
        recorder,
    };
    world.start().await?;
    if elapsed() > START_LIMIT {
        return Err(format!("the world was not up before {START_LIMIT:?}"));
    }
    let mut actor = Actor::default();
    world.live(&mut actor).await?;
    let run = world.conclude(actor).await;
    watching.abort();
    Ok(run)
}

impl Worldly {
    async fn start(&mut self) -> Result<(), String> {
        if self.has_conduit {
            for _ in 0..self.plan.ca_replicas {
                self.start_ca().await?;
            }
            for _ in 0..self.plan.destination_replicas {
                self.start_destination().await?;
            }
            self.stage.mesh.start_observe().await.map_err(told)?;
        }
        self.stage.machines.serve_control(false);
        for server in self.plan.servers.clone() {
            self.stage.mesh.namespace(&server.namespace).await.map_err(told)?;
            self.stage.mesh.service(&server.service()).await.map_err(told)?;
        }
        for at in 0..self.plan.servers.len() {
            self.start_server(at, self.plan.servers[at].replicas).await?;
        }
        for at in 0..self.plan.clients.len() {
            self.start_client(at).await?;
        }
        Ok(())
    }

    /// Starts another CA, in a pod of its own.
    pub(crate) async fn start_ca(&mut self) -> Result<(), String> {
        self.stage.machines.serve_control(true);
        let clock = Arc::new(self.stage.clock.clone());
        let started = self.stage.mesh.start_ca(clock).await.map_err(told);
        self.stage.machines.serve_control(false);
        started
    }

    /// Starts another CA, which believes that it leads.
    pub(crate) async fn start_rival_ca(&mut self) -> Result<(), String> {
        self.stage.machines.serve_control(true);
        let clock = Arc::new(self.stage.clock.clone());
        let started = self.stage.mesh.start_unrivalled_ca(clock).await.map_err(told);
        self.stage.machines.serve_control(false);
        started
    }

    /// Starts a destination service that was told another trust domain.
    pub(crate) async fn start_wrong_destination(&mut self) -> Result<(), String> {
        self.stage.machines.serve_control(true);
        let control_plane =
            ControlPlane { trust_domain: "elsewhere.local".to_owned(), ..ControlPlane::default() };
        let started = self.stage.mesh.start_destination_of(control_plane).await.map_err(told);
        self.stage.machines.serve_control(false);
        started
    }

    /// Starts another destination service, in a pod of its own.
    pub(crate) async fn start_destination(&mut self) -> Result<(), String> {
        self.stage.machines.serve_control(true);
        let started = self.stage.mesh.start_destination().await.map_err(told);
        self.stage.machines.serve_control(false);
        started
    }

    /// Starts so many pods of a server.
    pub(crate) async fn start_server(&mut self, at: usize, replicas: usize) -> Result<(), String> {
        let server = self.plan.servers[at].clone();
        let clock = self.clock(&format!("{}/{}", server.namespace, server.name), server.clock_error_ms);
        let context = self.context.clone();
        let mut deployment = server.deployment(context).replicas(replicas).clock(Arc::new(clock));
        if !self.has_conduit {
            deployment = deployment.sidecar(Sidecar::Absent);
        }
        self.stage.mesh.deploy(&[deployment]).await.map_err(told)
    }

    async fn start_client(&mut self, at: usize) -> Result<(), String> {
        let client = self.plan.clients[at].clone();
        let clock = self.clock(&format!("{}/{}", client.namespace, client.name), client.clock_error_ms);
        let number = u16::try_from(at).map_err(|error| error.to_string())?;
        let streams = client.streams(&self.plan);
        let mut deployment = client.deployment(number, streams, self.context.clone()).clock(Arc::new(clock));
        if !self.has_conduit {
            deployment = deployment.sidecar(Sidecar::Absent);
        }
        self.stage.mesh.deploy(&[deployment]).await.map_err(told)
    }

    fn clock(&mut self, workload: &str, error_ms: i64) -> SkewedClock {
        let wall = &self.stage.wall;
        let clock = self.clocks.entry(workload.to_owned()).or_insert_with(|| {
            let clock = wall.clock();
            clock.set_error_ms(error_ms);
            clock
        });
        clock.clone()
    }

    /// Lets the clocks of a workload's machines jump by so much beyond their usual error.
    pub(crate) fn set_clock(&mut self, of: Workload, by_ms: i64) {
        let (workload, usual) = match of {
            Workload::Server(at) => {
                let server = &self.plan.servers[at];
                (format!("{}/{}", server.namespace, server.name), server.clock_error_ms)
            }
            Workload::Client(at) => {
                let client = &self.plan.clients[at];
                (format!("{}/{}", client.namespace, client.name), client.clock_error_ms)
            }
        };
        if let Some(clock) = self.clocks.get(&workload) {
            clock.set_error_ms(usual + by_ms);
            self.recorder.clock(&workload, usual + by_ms);
        }
    }

    /// Lives through the plan's time, with its faults.
    async fn live(&mut self, actor: &mut Actor) -> Result<(), String> {
        // The skew that clocks have from the beginning.
        for (workload, clock) in &self.clocks {
            self.recorder.clock_from_the_start(workload, clock.error_ms());
        }
        let mut turns: BTreeSet<_> = fault::turns(&self.plan).into_iter().collect();
        let (mut begun, mut tries) = (BTreeMap::new(), BTreeMap::new());
        while let Some((at, turn, number)) = turns.pop_first() {
            sleep(at.saturating_sub(elapsed())).await;
            let fault = self.plan.faults[number].fault.clone();
            match (turn, begun.get(&number)) {
                (Turn::Begin, _) => drop(begun.insert(number, actor.begin(self, &fault).await?)),
                (Turn::End, Some(begun)) => {
                    let Err(why) = actor.end(self, *begun, &fault).await else { continue };
                    let tries: &mut u32 = tries.entry(number).or_default();
                    *tries += 1;
                    if *tries > MEND_TRIES {
                        return Err(format!("{fault:?} cannot be mended: {why}"));
                    }
                    turns.insert((elapsed() + MEND_AGAIN, Turn::End, number));
                }
                (Turn::End, None) => {}
            }
        }
        sleep((self.plan.until - TAPPED).saturating_sub(elapsed())).await;
        self.taps = self.tap().await;
        sleep(self.plan.end().saturating_sub(elapsed())).await;
        Ok(())
    }

    /// Asks everybody for what they know, ends everything, and puts it together.
    async fn conclude(self, actor: Actor) -> Run {
        let (readings, stat) = if self.has_conduit { self.read().await } else { (Vec::new(), Vec::new()) };
        let ended = elapsed();
        let workloads = |server: &Server| BTreeSet::from([format!("{}/{}", server.namespace, server.name)]);
        let services = self.plan.servers.iter();
        let services =
            services.map(|server| (format!("{}/{}", server.namespace, server.name), workloads(server)));
        Run {
            ops: self.context.log.snapshot(),
            wire: self.stage.wire.sniffed(),
            pods: self.recorder.lives(),
            services: services.collect(),
            faults: actor.records(),
            changes: Vec::new(),
            readings,
            stat,
            taps: self.taps,
            epoch: EPOCH,
            clock_speed: self.plan.wall_speed,
            ended,
        }
    }

    /// What `tap` tells of requests, until operations end.
    async fn tap(&self) -> Vec<TapEvent> {
        let Some(observe) = self.stage.mesh.observe_addr().filter(|_| self.has_conduit) else {
            return Vec::new();
        };
        let path = "/api/v1/tap?type=pod&all_namespaces=true&max_rps=1000";
        let told = Probe::new(&self.stage.wire).listen(observe, path, TAPPED).await.unwrap_or_default();
        TapEvent::all(elapsed(), &told)
    }

    async fn read(&self) -> (Vec<Reading>, Vec<StatRow>) {
        let probe = Probe::new(&self.stage.wire);
        let mut readings = Vec::new();
        for (life, since) in self.recorder.running() {
            let at = elapsed();
            if let Some(text) = probe.get((life.ip, owned::PORT_ADMIN).into(), "/metrics").await {
                readings.push(Reading::parse(at, life.ip, since, &text));
            }
        }
        let mut stat = Vec::new();
        let Some(observe) = self.stage.mesh.observe_addr() else { return (readings, stat) };
        let window = STAT_WINDOW.as_secs();
        let path = format!("/api/v1/stat?type=deployment&all_namespaces=true&window={window}s");
        if let Some(text) = probe.get(observe, &path).await {
            stat = stat_rows(&text, elapsed());
        }
        (readings, stat)
    }

    /// The address of a pod, as long as there is one.
    pub(crate) fn ip(&self, pod: Pod) -> Option<IpAddr> {
        let name = self.name(pod)?;
        self.stage.mesh.pods().iter().find(|running| running.name() == name).map(|running| running.ip())
    }

    /// The name of a pod, as long as there is one.
    pub(crate) fn name(&self, pod: Pod) -> Option<String> {
        let (namespace, deployment, at) = match pod {
            Pod::Server(at, replica) => {
                let server = self.plan.servers.get(at)?;
                (&server.namespace, &server.name, replica)
            }
            Pod::Client(at) => {
                let client = self.plan.clients.get(at)?;
                (&client.namespace, &client.name, 0)
            }
        };
        let pods = self.stage.mesh.pods().iter();
        let mut pods = pods.filter(|pod| pod.namespace() == namespace && pod.deployment() == deployment);
        pods.nth(at).map(|pod| pod.name().to_owned())
    }

    /// Whether a pod has a sidecar.
    pub(crate) fn is_meshed(&self, pod: Pod) -> bool {
        let name = self.name(pod);
        let mut pods = self.stage.mesh.pods().iter();
        pods.any(|running| Some(running.name()) == name.as_deref() && running.sidecar() != Sidecar::Absent)
    }

    /// The names of a server's pods.
    pub(crate) fn pods_of(&self, at: usize) -> Vec<String> {
        let server = &self.plan.servers[at];
        let pods = self.stage.mesh.pods().iter();
        let own = pods.filter(|pod| pod.namespace() == server.namespace && pod.deployment() == server.name);
        own.map(|pod| pod.name().to_owned()).collect()
    }
}

fn told(error: Error) -> String {
    error.to_string()
}

/// The rows of an answer of `stat`; none when it makes no sense.
fn stat_rows(text: &str, at: Duration) -> Vec<StatRow> {
    let answer: serde_json::Value = serde_json::from_str(text).unwrap_or_default();
    let rows = answer["rows"].as_array().cloned().unwrap_or_default();
    let row = |row: serde_json::Value| StatRow {
        at,
        window: STAT_WINDOW,
        kind: row["kind"].as_str().unwrap_or_default().to_owned(),
        name: format!(
            "{}/{}",
            row["namespace"].as_str().unwrap_or_default(),
            row["name"].as_str().unwrap_or_default()
        ),
        tls: row["tls"].as_f64(),
        success: row["success"].as_f64(),
    };
    rows.into_iter().map(row).collect()
}

impl Server {
    fn service(&self) -> Service {
        let service = Service::new(&self.namespace, &self.name);
        let service = if self.is_headless { service.headless() } else { service };
        let port = |service: Service, protocol: &crate::history::Protocol| {
            service.port(protocol.name(), protocol.port(), protocol.port())
        };
        self.protocols.iter().fold(service, port)
    }

    fn deployment(&self, context: Context) -> Deployment {
        let server = self.clone();
        let app = move |net: Net, drain: drain::Watch| {
            let (server, context) = (server.clone(), context.clone());
            async move {
                let workload = format!("{}/{}", server.namespace, server.name);
                let info = ServerInfo { ip: own_ip(&net).await?, workload };
                let options =
                    ServerOptions { close_idle: server.close_idle, greeting_delay: server.greeting_delay };
                workload::server(net, info, server.protocols, context, options, drain).await
            }
        };
        let deployment = Deployment::new(&self.namespace, &self.name, app).sidecar(self.sidecar);
        let ports = self.protocols.iter();
        ports.fold(deployment, |deployment, protocol| deployment.port(protocol.name(), protocol.port()))
    }
}

impl Client {
    fn deployment(&self, number: u16, streams: Vec<Stream>, context: Context) -> Deployment {
        let app = move |net: Net, drain: drain::Watch| {
            let (streams, context) = (streams.clone(), context.clone());
            async move {
                let info = ClientInfo { number, ip: own_ip(&net).await? };
                workload::client(net, info, streams, context, drain).await
            }
        };
        Deployment::new(&self.namespace, &self.name, app).sidecar(self.sidecar)
    }

    fn streams(&self, plan: &Plan) -> Vec<Stream> {
        let stream = |asks: &crate::plan::Asks| {
            let server = &plan.servers[asks.server];
            let offset = BEGIN + asks.offset;
            let count = plan.until.saturating_sub(offset).as_millis() / asks.period.as_millis().max(1);
            Stream {
                service: format!("{}/{}", server.namespace, server.name),
                host: format!("{}.{}", server.name, server.namespace),
                protocol: asks.protocol,
                port: asks.protocol.port(),
                period: asks.period,
                offset,
                lengths: asks.lengths.clone(),
                style: asks.style,
                deadline: DEADLINE,
                count: u32::try_from(count).unwrap_or(u32::MAX),
            }
        };
        self.asks.iter().map(stream).collect()
    }
}

/// The address of the pod that `net` is: that of whatever it listens on.
async fn own_ip(net: &Net) -> Result<IpAddr, workload::AppError> {
    Ok(net.bind((Ipv4Addr::LOCALHOST, 0).into()).await?.local_addr().ip())
}
