//! Breaks things, and mends them.

use std::{net::IpAddr, time::Duration};

use conduit_cluster::{
    Verb,
    faults::{Effect as ApiEffect, Injected, Target},
};
use conduit_identity::{Workload as Identified, WorkloadKind};
use conduit_k8s::owned;
use conduit_mesh::{Error, RunningPod};

use super::{Damage, Fault, GENTLY, Pod, Workload, impostor, secrets, stranger};
use crate::{
    history::FaultRecord,
    time::elapsed,
    wire::{Effect, Scope},
    world::{Links, Worldly},
};

/// How long it takes until nothing is left of a pod that was cut off.
pub(super) const GONE: Duration = Duration::from_millis(100);
/// How long a host takes to boot.
const BOOT: Duration = Duration::from_millis(500);
/// How often a certificate is renewed under handshakes, and how far apart.
const RENEWALS: u32 = 5;
const RENEWAL_PERIOD: Duration = Duration::from_millis(700);
/// How much longer everything takes meanwhile, one way.
const RENEWAL_SLOWS: Duration = Duration::from_millis(120);
/// How long watches are told that they have missed something.
const MISSED: Duration = Duration::from_millis(1_500);

/// Brings faults about, and keeps the record of them.
#[derive(Default)]
pub(crate) struct Actor {
    begun: Vec<Begun>,
}

/// A fault that was begun, and what it takes to end it.
struct Begun {
    record: FaultRecord,
    rule: Option<usize>,
    api: Vec<Injected>,
}

impl Actor {
    /// Begins a fault; the result is what [`Actor::end`] wants. Without Conduit, what concerns Conduit alone is no fault.
    pub(crate) async fn begin(&mut self, world: &mut Worldly, fault: &Fault) -> Result<usize, String> {
        let slows = match fault {
            Fault::Slow { by, .. } => *by * 2,
            Fault::LateHello { by, .. } => *by,
            Fault::Renewals(_) => RENEWAL_SLOWS * 2,
            _ => Duration::ZERO,
        };
        let kind = format!("{fault:?}");
        let hides_changes = matches!(
            fault,
            Fault::ApiDown { .. }
                | Fault::ApiFails { .. }
                | Fault::StaleLists { .. }
                | Fault::WatchesCut { .. }
        );
        let record = FaultRecord { kind, from: elapsed(), until: None, fired: 0, hides_changes, slows };
        let mut begun = Begun { record, rule: None, api: Vec::new() };
        if world.has_conduit || !fault.is_of_the_mesh() {
            world.stage.wire.note(format_args!("fault {fault:?}"));
            begun.record.fired = act(world, fault, &mut begun.rule, &mut begun.api).await?;
        }
        self.begun.push(begun);
        Ok(self.begun.len() - 1)
    }

    /// Ends a fault.
    pub(crate) async fn end(
        &mut self,
        world: &mut Worldly,
        number: usize,
        fault: &Fault,
    ) -> Result<(), String> {
        let Some(begun) = self.begun.get_mut(number) else { return Ok(()) };
        if let Some(rule) = begun.rule {
            begun.record.fired += world.stage.wire.withdraw(rule);
        }
        for injected in &begun.api {
            injected.remove();
            begun.record.fired += injected.fired();
        }
        if world.has_conduit || !fault.is_of_the_mesh() {
            world.stage.wire.note(format_args!("mended {fault:?}"));
            mend(world, fault).await?;
        }
        begun.record.until = Some(elapsed());
        Ok(())
    }

    /// What was broken, and how often it did anything.
    pub(crate) fn records(self) -> Vec<FaultRecord> {
        self.begun.into_iter().map(|begun| begun.record).collect()
    }
}

/// Breaks something; how often it did anything at once.
async fn act(
    world: &mut Worldly,
    fault: &Fault,
    rule: &mut Option<usize>,
    api: &mut Vec<Injected>,
) -> Result<u64, String> {
    let any = Target::any;
    match fault {
        Fault::Partition { a, b, is_one_way } => Ok(cut(world, fault, between(world, *a, *b, *is_one_way))),
        Fault::CutOff(pod) => Ok(cut(world, fault, to_control(world, *pod))),
        Fault::Crash(pod) => crash(world, *pod),
        Fault::Reset { to, after_bytes, are_answers, times } => {
            let effect = if *are_answers { Effect::ResetAfterAnswers } else { Effect::ResetAfter };
            *rule = order(world, *to, effect(*after_bytes), *times);
            Ok(0)
        }
        Fault::BlackHole { to, times } => {
            *rule = order(world, *to, Effect::Swallow, *times);
            Ok(0)
        }
        Fault::Handshakes { to, after_bytes, are_reset, times } => {
            let effect = if *are_reset { Effect::ResetMeshAfter } else { Effect::StallMeshAfter };
            *rule = order(world, *to, effect(*after_bytes), *times);
            Ok(0)
        }
        Fault::LateHello { to, by, times } => {
            *rule = order(world, *to, Effect::DelayFirst(*by), *times);
            Ok(0)
        }
        Fault::Slow { a, b, by } => Ok(slow(world, fault, between(world, *a, *b, false), *by)),
        Fault::CaDown => stop_ca(world).await,
        Fault::CaCutOff => Ok(cut(world, fault, to_api(world, owned::COMPONENT_CA))),
        Fault::AnotherCa => {
            world.start_ca().await?;
            Ok(1)
        }
        Fault::RivalCa => {
            world.start_rival_ca().await?;
            Ok(1)
        }
        Fault::ApiFails { code, times } => {
            // 410 is an answer to those who watch.
            let target = if *code == 410 { any().verb(Verb::Watch) } else { any() };
            let faults = world.stage.mesh.cluster().faults();
            api.push(faults.inject(target, ApiEffect::fail(*code), *times));
            if *code == 410 {
                faults.cut_watches(&any());
            }
            Ok(0)
        }
        Fault::StaleLists { events } => {
            let faults = world.stage.mesh.cluster().faults();
            api.push(faults.inject_always(any(), ApiEffect::StaleList { events: *events }));
            // Who watches lists again only when told that it has missed something.
            let missed = faults.inject(any().verb(Verb::Watch), ApiEffect::fail(410), u64::MAX);
            faults.cut_watches(&any());
            tokio::time::sleep(MISSED).await;
            missed.remove();
            Ok(0)
        }
        Fault::WatchesCut { is_compacted } => {
            if *is_compacted {
                world.stage.mesh.cluster().compact();
            }
            Ok(count(world.stage.mesh.cluster().faults().cut_watches(&any())))
        }
        Fault::ApiDown { is_silent } => {
            let faults = world.stage.mesh.cluster().faults();
            if *is_silent {
                faults.black_hole()
            } else {
                faults.down()
            }
            Ok(1)
        }
        Fault::Secret { of, damage } => {
            stop_ca(world).await?;
            let (victim, other) = (identified(world, *of), other_than(world, *of));
            Box::pin(secrets::damage(&world.stage.mesh, &victim, &other, *damage)).await
        }
        Fault::SecretDeleted(of) => {
            secrets::remove(&world.stage.mesh, &identified(world, *of)).await.map(u64::from)
        }
        Fault::NoBundle(of) => {
            stop_ca(world).await?;
            secrets::remove_bundle(&world.stage.mesh, &identified(world, *of).namespace).await
        }
        Fault::OldBundle(of) => {
            stop_ca(world).await?;
            secrets::replace_bundle(&world.stage.mesh, &identified(world, *of).namespace).await
        }
        Fault::Renewals(of) => renew(world, *of).await,
        Fault::ClockJump { of, by_ms } => {
            world.set_clock(*of, *by_ms);
            Ok(1)
        }
        Fault::DestinationDown => Ok(count(world.stage.mesh.kill_component(owned::COMPONENT_DESTINATION))),
        Fault::DestinationWrong => {
            stop_destination(world).await;
            world.start_wrong_destination().await?;
            Ok(1)
        }
        Fault::DestinationForgets { events } => {
            stop_destination(world).await;
            let faults = world.stage.mesh.cluster().faults();
            let endpoints = any().resource("endpointslices");
            api.push(faults.inject_always(endpoints.clone(), ApiEffect::StaleList { events: *events }));
            // A watch would tell what the list has left out.
            api.push(faults.inject_always(endpoints.verb(Verb::Watch), ApiEffect::fail(500)));
            world.start_destination().await?;
            Ok(0)
        }
        Fault::DestinationCutOff => {
            let cut = cut(world, fault, to_api(world, owned::COMPONENT_DESTINATION));
            tokio::time::sleep(super::UNNOTICED).await;
            Ok(cut)
        }
        Fault::DestinationSlow(by) => {
            slow_destination(world, *by);
            Ok(1)
        }
        Fault::ProxyRestart { pod, is_graceful } => restart_proxy(world, *pod, *is_graceful).await,
        Fault::Impostor { of, shows } => impostor::begin(world, *of, *shows).await,
        Fault::Stranger { to, is_past } => Box::pin(stranger::call(world, *to, *is_past)).await,
        Fault::Rollout(server) => roll_out(world, *server).await,
        Fault::Takeover { from, to } => take_over(world, *from, *to).await,
    }
}

async fn mend(world: &mut Worldly, fault: &Fault) -> Result<(), String> {
    match fault {
        Fault::Partition { .. } | Fault::CutOff(_) | Fault::CaCutOff | Fault::DestinationCutOff => {
            let links = links_of(world, fault);
            links.into_iter().for_each(|(a, b)| world.stage.wire.mend(a, b));
        }
        Fault::Slow { .. } => {
            let links = links_of(world, fault);
            links.into_iter().for_each(|(a, b)| world.stage.wire.slow(a, b, Duration::ZERO));
        }
        Fault::Crash(pod) => revive(world, *pod).await?,
        Fault::CaDown | Fault::NoBundle(_) | Fault::OldBundle(_) => world.start_ca().await?,
        Fault::Secret { of, damage } => {
            if *damage == Damage::WrongRoot {
                secrets::remove(&world.stage.mesh, &identified(world, *of)).await?;
            }
            world.start_ca().await?;
        }
        Fault::ApiDown { .. } => world.stage.mesh.cluster().faults().up(),
        Fault::ClockJump { of, .. } => world.set_clock(*of, 0),
        Fault::DestinationDown => world.start_destination().await?,
        Fault::DestinationWrong => {
            stop_destination(world).await;
            world.start_destination().await?;
        }
        Fault::Renewals(of) => slow_peers(world, *of, Duration::ZERO),
        Fault::Impostor { of, .. } => impostor::end(world, *of).await?,
        Fault::Takeover { .. } if world.has_conduit => world.start_destination().await?,
        Fault::DestinationSlow(_) => slow_destination(world, Duration::ZERO),
        _ => {}
    }
    Ok(())
}

fn count(n: usize) -> u64 {
    n as u64
}

fn order(world: &Worldly, to: Pod, effect: Effect, times: u32) -> Option<usize> {
    let to = Some(world.ip(to)?);
    Some(world.stage.wire.order(Scope { to, ..Scope::default() }, effect, times))
}

/// Lets nothing pass from one of each pair of addresses to the other; whether there are any.
fn cut(world: &mut Worldly, fault: &Fault, links: Links) -> u64 {
    links.iter().for_each(|(a, b)| world.stage.wire.cut(*a, *b));
    remember(world, fault, links)
}

fn slow(world: &mut Worldly, fault: &Fault, links: Links, by: Duration) -> u64 {
    links.iter().for_each(|(a, b)| world.stage.wire.slow(*a, *b, by));
    remember(world, fault, links)
}

fn remember(world: &mut Worldly, fault: &Fault, links: Links) -> u64 {
    let is_any = !links.is_empty();
    world.broken.push((fault.clone(), links));
    u64::from(is_any)
}

/// The links that a fault broke, whoever is at their ends by now.
fn links_of(world: &mut Worldly, fault: &Fault) -> Links {
    let at = world.broken.iter().position(|(broken, _)| broken == fault);
    at.map(|at| world.broken.remove(at).1).unwrap_or_default()
}

fn between(world: &Worldly, a: Pod, b: Pod, is_one_way: bool) -> Links {
    let (Some(a), Some(b)) = (world.ip(a), world.ip(b)) else { return Links::new() };
    if is_one_way { vec![(a, b)] } else { vec![(a, b), (b, a)] }
}

fn control_ips(world: &Worldly) -> Vec<IpAddr> {
    let mesh = &world.stage.mesh;
    let components = [owned::COMPONENT_CA, owned::COMPONENT_DESTINATION, owned::COMPONENT_OBSERVE];
    let ips = components.into_iter().flat_map(|name| mesh.component_ips(name));
    ips.chain([mesh.api_addr().ip()]).collect()
}

fn to_control(world: &Worldly, pod: Pod) -> Links {
    let Some(ip) = world.ip(pod) else { return Links::new() };
    control_ips(world).into_iter().flat_map(|control| [(ip, control), (control, ip)]).collect()
}

/// Between the replicas of a component of the control plane and the API server.
fn to_api(world: &Worldly, component: &str) -> Links {
    let (replicas, api) = (world.stage.mesh.component_ips(component), world.stage.mesh.api_addr().ip());
    replicas.into_iter().flat_map(|replica| [(replica, api), (api, replica)]).collect()
}

/// Replaces a certificate by another one while handshakes last longer than that takes.
async fn renew(world: &mut Worldly, of: Workload) -> Result<u64, String> {
    slow_peers(world, of, RENEWAL_SLOWS);
    let mut renewed = 0;
    for _ in 0..RENEWALS {
        if world.has_conduit {
            // The CA makes another one at once. An API that is broken as well may refuse.
            let removed = secrets::remove(&world.stage.mesh, &identified(world, of)).await;
            renewed += u64::from(removed.unwrap_or(false));
        }
        tokio::time::sleep(RENEWAL_PERIOD).await;
    }
    Ok(renewed)
}

/// Slows everything between the pods of a workload and all others.
fn slow_peers(world: &Worldly, of: Workload, by: Duration) {
    let workload = identified(world, of);
    let pods = world.stage.mesh.pods();
    let is_of =
        |pod: &&RunningPod| pod.namespace() == workload.namespace && pod.deployment() == workload.name;
    for own in pods.iter().filter(is_of) {
        for other in pods.iter().filter(|other| other.ip() != own.ip()) {
            world.stage.wire.slow(own.ip(), other.ip(), by);
            world.stage.wire.slow(other.ip(), own.ip(), by);
        }
    }
}

fn slow_destination(world: &Worldly, by: Duration) {
    for control in world.stage.mesh.component_ips(owned::COMPONENT_DESTINATION) {
        for pod in world.stage.mesh.pods() {
            world.stage.wire.slow(control, pod.ip(), by);
        }
    }
}

/// Not killed: clients have to find the next one.
async fn stop_destination(world: &mut Worldly) {
    // The API may refuse to delete the pod; the process is stopped all the same.
    drop(world.stage.mesh.stop_component(owned::COMPONENT_DESTINATION, Duration::from_secs(1)).await);
}

async fn stop_ca(world: &mut Worldly) -> Result<u64, String> {
    let running = world.stage.mesh.component_ips(owned::COMPONENT_CA).len();
    // The API may refuse to delete the pod; the process is stopped all the same.
    drop(world.stage.mesh.stop_component(owned::COMPONENT_CA, Duration::from_secs(1)).await);
    Ok(count(running))
}

fn crash(world: &mut Worldly, pod: Pod) -> Result<u64, String> {
    let (Some(name), Some(ip)) = (world.name(pod), world.ip(pod)) else { return Ok(0) };
    world.stage.machines.crash(ip);
    world.stage.mesh.kill_pod(&name).map_err(told)?;
    world.crashed.push((pod, name, ip));
    Ok(1)
}

/// The one that crashed, whichever has its place in the server by now.
async fn revive(world: &mut Worldly, pod: Pod) -> Result<(), String> {
    let Some(at) = world.crashed.iter().position(|(crashed, ..)| *crashed == pod) else { return Ok(()) };
    let (_, name, ip) = world.crashed.remove(at);
    world.stage.machines.boot(ip);
    tokio::time::sleep(BOOT).await;
    world.stage.mesh.revive_pod(&name).await.map_err(told)
}

async fn restart_proxy(world: &mut Worldly, pod: Pod, is_graceful: bool) -> Result<u64, String> {
    let (Some(name), Some(ip)) = (world.name(pod), world.ip(pod)) else { return Ok(0) };
    if !world.is_meshed(pod) || world.stage.machines.is_down(ip) {
        return Ok(0);
    }
    let deadline = if is_graceful { GENTLY } else { Duration::ZERO };
    let mut restarted = world.stage.mesh.restart_sidecar(&name, deadline).await;
    if matches!(restarted, Err(Error::NotStarted { .. })) {
        // The old one has its ports until its host has had a turn. A kubelet tries again, too.
        tokio::time::sleep(GONE).await;
        restarted = world.stage.mesh.restart_sidecar(&name, deadline).await;
    }
    match restarted {
        // It runs; the API may be what does not hear of it.
        Ok(()) | Err(Error::Refused { .. }) => Ok(1),
        Err(error) => Err(told(error)),
    }
}

async fn roll_out(world: &mut Worldly, server: usize) -> Result<u64, String> {
    let mut replaced = 0;
    for name in world.pods_of(server) {
        let ip = world.stage.mesh.pods().iter().find(|pod| pod.name() == name).map(|pod| pod.ip());
        // Where the API is broken as well, a rollout stops, as it does in a cluster.
        if world.stage.mesh.replace_pod(&name, GENTLY).await.is_ok() {
            replaced += 1;
        }
        tokio::time::sleep(GONE).await;
        if let Some(ip) = ip.filter(|ip| !is_taken(world, *ip)) {
            world.stage.machines.give_back(ip);
        }
    }
    Ok(replaced)
}

/// Whether somebody is at an address: a pod, or one who stands in for it.
fn is_taken(world: &Worldly, ip: IpAddr) -> bool {
    world.stage.mesh.pods().iter().any(|pod| pod.ip() == ip)
        || world.impostors.values().any(|impostor| impostor.ip == ip)
}

async fn take_over(world: &mut Worldly, from: usize, to: usize) -> Result<u64, String> {
    if world.has_conduit {
        world.stage.mesh.kill_component(owned::COMPONENT_DESTINATION);
    }
    let pods = world.pods_of(from);
    // A server without a pod would answer nobody, whatever else happens.
    let Some(name) = pods.first().filter(|_| pods.len() > 1) else { return Ok(0) };
    let ip = world.ip(Pod::Server(from, 0));
    // Not gently: clients have to find somebody else at the address.
    world.stage.mesh.stop_pod(name, Duration::ZERO).await.map_err(told)?;
    // Its processes are gone when their host has had a turn.
    tokio::time::sleep(GONE).await;
    if let Some(ip) = ip.filter(|ip| !is_taken(world, *ip)) {
        world.stage.machines.give_back(ip);
    }
    world.start_server(to, 1).await?;
    Ok(1)
}

pub(super) fn identified(world: &Worldly, of: Workload) -> Identified {
    let (namespace, name) = match of {
        Workload::Server(at) => {
            let server = &world.plan.servers[at];
            (&server.namespace, &server.name)
        }
        Workload::Client(at) => {
            let client = &world.plan.clients[at];
            (&client.namespace, &client.name)
        }
    };
    Identified { namespace: namespace.clone(), kind: WorkloadKind::Deployment, name: name.clone() }
}

/// Another workload, to take a certificate from.
pub(super) fn other_than(world: &Worldly, of: Workload) -> Identified {
    let servers = (0..world.plan.servers.len()).map(Workload::Server);
    let clients = (0..world.plan.clients.len()).map(Workload::Client);
    let other = servers.chain(clients).find(|other| *other != of).unwrap_or(of);
    identified(world, other)
}

pub(super) fn told(error: Error) -> String {
    error.to_string()
}
