use std::{collections::VecDeque, io, net::SocketAddr};

use conduit_identity::Loaded;
use conduit_net::{Io, Listener, Network, Resolved};
use conduit_proto::destination::{
    Endpoint as Sent, GetRequest, Snapshot, Unknown, Update, destination_server, get_request, update,
};
use conduit_runtime::{drain, grpc, metrics::Registry};
use futures::{FutureExt, StreamExt, future::BoxFuture, stream::BoxStream};
use tokio::{io::DuplexStream, sync::mpsc};
use tonic::{Request, Response, Status};

use super::*;
use crate::testing::{Authority, component, identity, store};

const WAIT: Duration = Duration::from_millis(200);
const SERVICE: &str = "10.0.0.9:8086";

/// A network on which the destination service alone is to be found, when it is there.
#[derive(Default)]
struct Wire {
    service: Mutex<Option<mpsc::UnboundedSender<DuplexStream>>>,
}

impl Network for Wire {
    fn bind(&self, _: SocketAddr) -> BoxFuture<'_, io::Result<Box<dyn Listener>>> {
        async { Err(io::ErrorKind::Unsupported.into()) }.boxed()
    }

    fn connect(&self, addr: SocketAddr) -> BoxFuture<'_, io::Result<Io>> {
        assert_eq!(addr.to_string(), SERVICE);
        let (near, far) = tokio::io::duplex(64 * 1024);
        let service = self.service.lock().clone();
        let taken = service.is_some_and(|service| service.send(far).is_ok());
        let io = if taken { Ok(Io::other(near)) } else { Err(io::ErrorKind::ConnectionRefused.into()) };
        async { io }.boxed()
    }

    fn resolve<'a>(&'a self, host: &'a str) -> BoxFuture<'a, io::Result<Resolved>> {
        assert_eq!(host, "destination.conduit");
        let addrs = vec![SERVICE.parse::<SocketAddr>().unwrap().ip()];
        async { Ok(Resolved { addrs, ttl: Duration::from_secs(5) }) }.boxed()
    }
}

/// A stream that the service was asked for, to be answered by the test.
struct Asked {
    target: String,
    answers: mpsc::UnboundedSender<Result<Update, Status>>,
}

impl Asked {
    fn endpoints(&self, addresses: &[&str]) {
        let endpoints =
            addresses.iter().map(|address| Sent { address: (*address).into(), ..Sent::default() }).collect();
        let snapshot = Snapshot { endpoints, ..Snapshot::default() };
        self.answers
            .send(Ok(Update { update: Some(update::Update::Snapshot(snapshot)), stale: false }))
            .unwrap();
    }

    fn unknown(&self) {
        self.answers
            .send(Ok(Update { update: Some(update::Update::Unknown(Unknown {})), stale: false }))
            .unwrap();
    }
}

struct Script(mpsc::UnboundedSender<Asked>);

#[tonic::async_trait]
impl destination_server::Destination for Script {
    type GetStream = BoxStream<'static, Result<Update, Status>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let GetRequest { target, context_namespace } = request.into_inner();
        assert_eq!(context_namespace, "test");
        let target = match target.unwrap() {
            get_request::Target::Authority(authority) => authority,
            get_request::Target::Address(address) => address,
        };
        let (answers, updates) = mpsc::unbounded_channel();
        self.0.send(Asked { target, answers }).map_err(|_| Status::internal("the test is over"))?;
        let updates =
            futures::stream::unfold(updates, |mut updates| async { Some((updates.recv().await?, updates)) });
        Ok(Response::new(updates.boxed()))
    }
}

/// The service, running: dropping it breaks its connections.
struct Service {
    asked: mpsc::UnboundedReceiver<Asked>,
    seen: VecDeque<Asked>,
    _connections: AbortOnDropHandle<()>,
}

impl Service {
    fn start(wire: &Arc<Wire>) -> Self {
        Self::start_with(wire, None)
    }

    /// With credentials it does TLS and nothing else.
    fn start_with(wire: &Arc<Wire>, credentials: Option<Loaded>) -> Self {
        let credentials = credentials.map(Arc::new);
        let (accept, mut accepted) = mpsc::unbounded_channel();
        let (asks, asked) = mpsc::unbounded_channel();
        *wire.service.lock() = Some(accept);
        let connections = spawn(async move {
            let mut served = tokio::task::JoinSet::new();
            while let Some(io) = accepted.recv().await {
                let service = destination_server::DestinationServer::new(Script(asks.clone()));
                let (trigger, drain) = drain::channel();
                let credentials = credentials.clone();
                served.spawn(async move {
                    let routes = tonic::service::Routes::new(service);
                    match credentials {
                        None => drop(grpc::serve_connection(io, routes, drain).await),
                        Some(credentials) => {
                            let Ok((io, _)) = conduit_identity::accept(&credentials, io).await else {
                                return;
                            };
                            drop(grpc::serve_connection(io, routes, drain).await);
                        }
                    }
                    drop(trigger);
                });
            }
        });
        Self { asked, seen: VecDeque::new(), _connections: connections }
    }

    async fn asked(&mut self) -> Asked {
        self.asked.recv().await.unwrap()
    }

    fn stop(self, wire: &Wire) {
        *wire.service.lock() = None;
    }
}

struct World {
    wire: Arc<Wire>,
    discover: Discover,
    registry: Registry,
    readiness: Readiness,
}

fn world(max_targets: usize) -> World {
    world_with(max_targets, Store::disabled())
}

fn world_with(max_targets: usize, store: Store) -> World {
    let (wire, registry, readiness) = (Arc::<Wire>::default(), Registry::default(), Readiness::default());
    let settings = Settings {
        destination: Destination {
            host: "destination.conduit".into(),
            port: 8086,
            identity: store.identity().map(|_| component("destination")),
        },
        namespace: "test".into(),
        control_plane: ControlPlane::default(),
        max_targets,
        handshake: Duration::from_secs(1),
    };
    let metrics = Metrics::register(&registry, Duration::from_secs(600));
    let net: Net = wire.clone();
    let discover = Discover::new(net, settings, store, metrics, readiness.clone(), &Seed::fixed(1)).unwrap();
    World { wire, discover, registry, readiness }
}

fn target(authority: &str) -> Target {
    Target::of_authority(authority, "test").unwrap()
}

fn addresses(resolution: &Resolution) -> Vec<String> {
    match resolution {
        Resolution::Known(endpoints) => {
            endpoints.list.iter().map(|endpoint| endpoint.addr.to_string()).collect()
        }
        other => vec![format!("{other:?}")],
    }
}

fn is_doubted(resolution: &Resolution) -> bool {
    matches!(resolution, Resolution::Known(endpoints) if endpoints.doubted)
}

/// Waits until the answer is the one expected.
async fn becomes(resolution: &mut watch::Receiver<Resolution>, expected: &[&str]) {
    resolution.wait_for(|known| addresses(known) == expected).await.unwrap();
}

#[tokio::test(start_paused = true)]
async fn a_target_is_asked_for_once_and_its_answer_kept_up_to_date() {
    let world = world(10);
    let mut service = Service::start(&world.wire);
    let mut first = world.discover.lookup(&target("web"));
    let mut second = world.discover.lookup(&target("WEB.test.svc:80"));
    let asked = service.asked().await;
    assert_eq!(asked.target, "web.test.svc:80");
    asked.endpoints(&["10.0.0.1:80"]);
    becomes(&mut first, &["10.0.0.1:80"]).await;
    becomes(&mut second, &["10.0.0.1:80"]).await;
    asked.endpoints(&["10.0.0.1:80", "10.0.0.2:80"]);
    becomes(&mut first, &["10.0.0.1:80", "10.0.0.2:80"]).await;
    asked.unknown();
    becomes(&mut first, &["Unknown"]).await;
    assert!(service.asked.try_recv().is_err());
    assert!(world.registry.encode().contains("destination_up{tls=\"disabled\"} 1\n"));
}

#[tokio::test(start_paused = true)]
async fn what_is_known_outlives_the_service_and_its_first_word_after_a_restart_replaces_it() {
    let world = world(10);
    let mut service = Service::start(&world.wire);
    let mut known = world.discover.lookup(&target("web"));
    service.asked().await.endpoints(&["10.0.0.1:80"]);
    becomes(&mut known, &["10.0.0.1:80"]).await;
    service.stop(&world.wire);
    tokio::time::sleep(Duration::from_secs(3_600)).await;
    assert_eq!(addresses(&known.borrow()), ["10.0.0.1:80"]);
    assert!(is_doubted(&known.borrow()));
    assert!(world.registry.encode().contains("destination_up 0\n"));
    assert!(world.readiness.notes()[0].1.starts_with("not reachable"), "{:?}", world.readiness.notes());

    let mut service = Service::start(&world.wire);
    let asked = service.asked().await;
    asked.endpoints(&["10.0.0.2:80"]);
    becomes(&mut known, &["10.0.0.2:80"]).await;
    assert!(!is_doubted(&known.borrow()));
    assert_eq!(world.readiness.notes()[0].1, "connected in plaintext: disabled");
}

#[tokio::test(start_paused = true)]
async fn a_stream_that_the_service_ends_is_asked_for_again() {
    let world = world(10);
    let mut service = Service::start(&world.wire);
    let mut known = world.discover.lookup(&target("web"));
    let asked = service.asked().await;
    asked.endpoints(&["10.0.0.1:80"]);
    asked.answers.send(Err(Status::unavailable("restarting"))).unwrap();
    becomes(&mut known, &["10.0.0.1:80"]).await;
    let asked = service.asked().await;
    asked.endpoints(&["10.0.0.2:80"]);
    becomes(&mut known, &["10.0.0.2:80"]).await;
    assert!(world.registry.encode().contains("discovery_interrupted_total 1\n"));
}

#[tokio::test(start_paused = true)]
async fn a_service_that_does_not_answer_delays_a_target_once() {
    let world = world(10);
    let mut service = Service::start(&world.wire);
    let start = Instant::now();
    let resolution = world.discover.resolve(&target("web"), WAIT).await;
    assert!(matches!(*resolution.borrow(), Resolution::Pending));
    assert_eq!(start.elapsed(), WAIT);
    for _ in 0..10 {
        world.discover.resolve(&target("web"), WAIT).await;
    }
    assert_eq!(start.elapsed(), WAIT);
    let asked = service.asked().await;
    asked.endpoints(&["10.0.0.1:80"]);
    let mut resolution = world.discover.resolve(&target("web"), WAIT).await;
    becomes(&mut resolution, &["10.0.0.1:80"]).await;
}

#[tokio::test(start_paused = true)]
async fn an_answer_in_time_is_waited_for() {
    let world = world(10);
    let mut service = Service::start(&world.wire);
    let answer = spawn(async move {
        let asked = service.asked().await;
        sleep(WAIT / 2).await;
        asked.endpoints(&["10.0.0.1:80"]);
        service.seen.push_back(asked);
        std::future::pending::<()>().await;
    });
    let resolution = world.discover.resolve(&target("web"), WAIT).await;
    assert_eq!(addresses(&resolution.borrow()), ["10.0.0.1:80"]);
    drop(answer);
}

#[tokio::test(start_paused = true)]
async fn a_service_out_of_reach_delays_nobody_and_is_used_when_it_is_back() {
    let world = world(10);
    let start = Instant::now();
    world.discover.resolve(&target("web"), WAIT).await;
    world.discover.resolve(&target("other"), WAIT).await;
    assert!(start.elapsed() < Duration::from_millis(5), "{:?}", start.elapsed());
    let mut service = Service::start(&world.wire);
    let mut known = world.discover.lookup(&target("web"));
    loop {
        let asked = service.asked().await;
        asked.endpoints(&["10.0.0.1:80"]);
        service.seen.push_back(asked);
        if service.seen.len() == 2 {
            break;
        }
    }
    becomes(&mut known, &["10.0.0.1:80"]).await;
}

#[tokio::test(start_paused = true)]
async fn idle_targets_are_forgotten_and_held_ones_are_not() {
    let world = world(10);
    let mut service = Service::start(&world.wire);
    let held = world.discover.lookup(&target("held"));
    drop(world.discover.lookup(&target("idle")));
    let streams = [service.asked().await, service.asked().await];
    tokio::time::sleep(3 * IDLE).await;
    let closed: Vec<_> =
        streams.iter().filter(|asked| asked.answers.is_closed()).map(|asked| asked.target.as_str()).collect();
    assert_eq!(closed, ["idle.test.svc:80"]);
    assert!(world.registry.encode().contains("discovery_targets 1\n"));
    drop(held);
    tokio::time::sleep(3 * IDLE).await;
    assert!(streams.iter().all(|asked| asked.answers.is_closed()));
}

#[tokio::test(start_paused = true)]
async fn targets_are_bounded_the_oldest_unheld_goes_first() {
    let world = world(2);
    let _service = Service::start(&world.wire);
    let held = world.discover.lookup(&target("held"));
    drop(world.discover.lookup(&target("old")));
    let other = world.discover.lookup(&target("new"));
    assert!(world.registry.encode().contains("discovery_declined_total 0\n"));
    let start = Instant::now();
    let declined = world.discover.resolve(&target("one-too-many"), WAIT).await;
    assert!(matches!(*declined.borrow(), Resolution::Pending));
    assert_eq!(start.elapsed(), Duration::ZERO, "nobody will answer");
    assert!(world.registry.encode().contains("discovery_declined_total 1\n"));
    drop((held, other));
}

#[tokio::test(start_paused = true)]
async fn what_the_service_knows_nothing_of_makes_room_though_it_is_held() {
    let world = world(3);
    let mut service = Service::start(&world.wire);
    let mut held = Vec::new();
    for name in ["meshed", "outside-1", "outside-2"] {
        held.push(world.discover.lookup(&target(name)));
        let asked = service.asked().await;
        match name {
            "meshed" => asked.endpoints(&["10.0.0.1:80"]),
            _ => asked.unknown(),
        }
        held.last_mut().unwrap().changed().await.unwrap();
        service.seen.push_back(asked);
        tokio::time::sleep(Duration::from_millis(1)).await;
    }
    let mut new = world.discover.lookup(&target("new"));
    service.asked().await.endpoints(&["10.0.0.2:80"]);
    becomes(&mut new, &["10.0.0.2:80"]).await;
    assert!(matches!(*held[1].borrow(), Resolution::Unknown), "its connections go on as before");
    let followed: Vec<_> = service.seen.iter().map(|asked| !asked.answers.is_closed()).collect();
    assert_eq!(followed, [true, false, true], "the oldest that leads nowhere went");
}

#[tokio::test(start_paused = true)]
async fn everything_ends_with_the_last_clone() {
    let world = world(10);
    let mut service = Service::start(&world.wire);
    drop(world.discover.lookup(&target("web")));
    let asked = service.asked().await;
    drop(world.discover);
    asked.answers.closed().await;
}

#[tokio::test(start_paused = true)]
async fn without_a_service_nothing_is_ever_waited_for() {
    let start = Instant::now();
    let resolution = Discover::disabled().resolve(&target("web"), WAIT).await;
    assert!(matches!(*resolution.borrow(), Resolution::Pending));
    assert_eq!(start.elapsed(), Duration::ZERO);
}

fn note(world: &World) -> String {
    world.readiness.notes()[0].1.clone()
}

#[tokio::test(start_paused = true)]
async fn the_connection_is_encrypted_when_both_ends_can() {
    let (root, own) = (Authority::new(), store(&identity("web")));
    own.load(&root.issue(&identity("web"))).unwrap();
    let world = world_with(10, own);
    let mut service = Service::start_with(&world.wire, Some(root.loaded(&component("destination"), &root)));
    let mut known = world.discover.lookup(&target("web"));
    let asked = service.asked().await;
    asked.endpoints(&["10.0.0.1:80"]);
    becomes(&mut known, &["10.0.0.1:80"]).await;
    assert_eq!(note(&world), "connected over TLS");
    assert!(world.registry.encode().contains("destination_up{tls=\"true\"} 1\n"));
}

#[tokio::test(start_paused = true)]
async fn whoever_proves_another_name_is_asked_in_plaintext_and_it_shows() {
    let (root, own) = (Authority::new(), store(&identity("web")));
    own.load(&root.issue(&identity("web"))).unwrap();
    let world = world_with(10, own);
    let mut service = Service::start_with(&world.wire, Some(root.loaded(&identity("impostor"), &root)));
    let known = world.discover.resolve(&target("web"), WAIT).await;
    assert!(matches!(*known.borrow(), Resolution::Pending));
    assert!(service.asked.try_recv().is_err());
    assert_eq!(note(&world), "connected in plaintext: handshake_failed, wrong_name");
    assert!(world.registry.encode().contains("tls_fallback_total{reason=\"wrong_name\"} "));
}

#[tokio::test(start_paused = true)]
async fn streams_move_to_tls_when_our_credentials_arrive_and_nothing_is_forgotten() {
    let (root, own) = (Authority::new(), store(&identity("web")));
    let world = world_with(10, own.clone());
    let mut service = Service::start(&world.wire);
    let mut known = world.discover.lookup(&target("web"));
    let asked = service.asked().await;
    asked.endpoints(&["10.0.0.1:80"]);
    becomes(&mut known, &["10.0.0.1:80"]).await;
    assert_eq!(note(&world), "connected in plaintext: no_config");

    let mut secure = Service::start_with(&world.wire, Some(root.loaded(&component("destination"), &root)));
    own.load(&root.issue(&identity("web"))).unwrap();
    let asked_again = secure.asked().await;
    assert_eq!(addresses(&known.borrow()), ["10.0.0.1:80"]);
    assert_eq!(note(&world), "connected over TLS");
    asked_again.endpoints(&["10.0.0.2:80"]);
    becomes(&mut known, &["10.0.0.2:80"]).await;
    assert!(asked.answers.is_closed());
}

#[tokio::test(start_paused = true)]
async fn streams_move_to_tls_when_the_service_has_learnt_it() {
    let (root, own) = (Authority::new(), store(&identity("web")));
    own.load(&root.issue(&identity("web"))).unwrap();
    let world = world_with(10, own);
    let mut service = Service::start(&world.wire);
    let _known = world.discover.lookup(&target("web"));
    let _asked = service.asked().await;
    assert!(note(&world).starts_with("connected in plaintext: handshake_failed"), "{}", note(&world));
    let mut secure = Service::start_with(&world.wire, Some(root.loaded(&component("destination"), &root)));
    let start = Instant::now();
    let _asked_again = secure.asked().await;
    assert!(start.elapsed() < Duration::from_secs(60), "{:?}", start.elapsed());
    assert_eq!(note(&world), "connected over TLS");
}

#[tokio::test(start_paused = true)]
async fn a_service_that_swallows_handshakes_is_asked_in_plaintext_after_the_deadline() {
    let (root, own) = (Authority::new(), store(&identity("web")));
    own.load(&root.issue(&identity("web"))).unwrap();
    let world = world_with(10, own);
    let (accept, mut accepted) = mpsc::unbounded_channel();
    *world.wire.service.lock() = Some(accept);
    let _known = world.discover.lookup(&target("web"));
    let _silent = accepted.recv().await.unwrap();
    let mut plain = accepted.recv().await.unwrap();
    let mut preface = [0; 3];
    tokio::io::AsyncReadExt::read_exact(&mut plain, &mut preface).await.unwrap();
    assert_eq!(&preface, b"PRI");
    assert_eq!(note(&world), "connected in plaintext: handshake_failed, timeout");
}
