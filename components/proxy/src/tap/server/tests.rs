use std::net::SocketAddr;

use conduit_identity::{HandshakeFailure, ManualClock};
use conduit_net::{LocalAddr, PeerAddr};
use conduit_proto::tap::{Match, r#match as kinds, tap_client::TapClient};
use conduit_runtime::metrics::Registry;
use tokio::io::{DuplexStream, duplex};
use tokio_util::task::AbortOnDropHandle;
use tonic::Code;

use super::*;
use crate::{
    session::{End, Sessions, TlsStatus, Why},
    testing::{Authority, END, NOW, channel, component, identity, store},
};

struct World {
    registry: Registry,
    sessions: Sessions,
    server: Server,
    clock: ManualClock,
    root: Authority,
    trigger: Option<drain::Trigger>,
}

fn world() -> World {
    let registry = Registry::default();
    let metrics = Metrics::register(&registry, Duration::from_secs(600));
    let tap = Tap::new(100, metrics.tap.clone());
    let clock = ManualClock::at(NOW);
    let guard = Guard {
        store: store(&identity("web")),
        observe: component("observe"),
        clock: Arc::new(clock.clone()),
        handshake: Duration::from_secs(1),
    };
    let (trigger, drain) = drain::channel();
    let sessions = Sessions::new(metrics.clone(), tap.clone());
    let server = Server { tap, guard, metrics, drain };
    World { registry, sessions, server, clock, root: Authority::new(), trigger: Some(trigger) }
}

impl World {
    fn with_credentials(self) -> Self {
        self.server.guard.store.load(&self.root.issue(&identity("web"))).unwrap();
        self
    }

    /// A connection to the server.
    fn dial(&self) -> (DuplexStream, AbortOnDropHandle<()>) {
        let (near, far) = duplex(64 * 1024);
        let addr = SocketAddr::from(([10, 0, 0, 9], 4_190));
        let accepted =
            Accepted { io: Io::other(far), peer: PeerAddr(addr), local: LocalAddr(addr), original_dst: None };
        (near, AbortOnDropHandle::new(tokio::spawn(connection(accepted, self.server.clone(), || {}))))
    }

    /// A caller who presents a certificate for `caller` under `root`.
    async fn call(&self, root: &Authority, caller: &Identity) -> Call {
        let (io, task) = self.dial();
        let loaded = root.loaded(caller, &self.root);
        let (stream, _) = conduit_identity::connect(&loaded, io, &identity("web")).await.unwrap();
        Call { client: TapClient::new(channel(stream)), _task: task }
    }

    fn pass_a_request(&self) {
        let addr = SocketAddr::from(([10, 0, 0, 2], 80));
        let plain = TlsStatus::Plain(Why::NoProxyTls);
        let (head, ()) = http::Request::get("/path").body(()).unwrap().into_parts();
        let session = self.sessions.accepted(Direction::Inbound, PeerAddr(addr), addr);
        session.request(&head, &plain).end(End::Complete);
    }
}

struct Call {
    client: TapClient<grpc::Channel>,
    _task: AbortOnDropHandle<()>,
}

impl Call {
    async fn refusal(&mut self) -> Code {
        self.client.observe(request(1)).await.unwrap_err().code()
    }
}

fn request(limit: u32) -> ObserveRequest {
    let anything = kinds::Match::All(kinds::Seq { matches: Vec::new() });
    ObserveRequest { limit, r#match: Some(Match { r#match: Some(anything) }) }
}

#[tokio::test(start_paused = true)]
async fn observe_sees_requests_over_mutual_tls() {
    let world = world().with_credentials();
    let mut call = world.call(&world.root, &component("observe")).await;
    let mut events = call.client.observe(request(1)).await.unwrap().into_inner();
    world.pass_a_request();
    assert!(events.message().await.unwrap().unwrap().event.is_some());
    assert!(events.message().await.unwrap().is_some());
    assert_eq!(events.message().await.unwrap(), None, "one request was asked for, and it ended");
}

#[tokio::test(start_paused = true)]
async fn everybody_else_is_told_that_tap_is_unavailable() {
    let world = world().with_credentials();
    let (io, _task) = world.dial();
    let mut plain = Call { client: TapClient::new(channel(io)), _task };
    assert_eq!(plain.refusal().await, Code::Unavailable, "plaintext");
    let mut neighbour = world.call(&world.root, &identity("voting")).await;
    assert_eq!(neighbour.refusal().await, Code::Unavailable, "another workload");
    let mut component = world.call(&world.root, &component("destination")).await;
    assert_eq!(component.refusal().await, Code::Unavailable, "another component");
    let mut impostor = world.call(&Authority::new(), &crate::testing::component("observe")).await;
    assert_eq!(impostor.refusal().await, Code::Unavailable, "a certificate that does not verify");
    assert!(!world.server.tap.is_active());
    assert!(world.registry.encode().contains("tap_refused_total 4\n"));
}

#[tokio::test(start_paused = true)]
async fn a_caller_is_turned_away_when_its_certificate_has_expired_since_the_handshake() {
    let world = world().with_credentials();
    let mut call = world.call(&world.root, &component("observe")).await;
    drop(call.client.observe(request(1)).await.unwrap());
    world.clock.set(END + Duration::from_secs(1));
    assert_eq!(call.refusal().await, Code::Unavailable);
}

#[tokio::test(start_paused = true)]
async fn without_credentials_a_handshake_is_refused_at_once() {
    let world = world();
    let (io, _task) = world.dial();
    let caller = world.root.loaded(&component("observe"), &world.root);
    let error = conduit_identity::connect(&caller, io, &identity("web")).await.unwrap_err();
    assert_eq!(error.reason(), HandshakeFailure::Refused);
    assert!(world.registry.encode().contains("tls_refused_total{reason=\"no_config\"} 1\n"));
}

#[tokio::test(start_paused = true)]
async fn senseless_requests_are_invalid_arguments() {
    let world = world().with_credentials();
    let mut call = world.call(&world.root, &component("observe")).await;
    for senseless in [request(0), ObserveRequest { limit: 1, r#match: None }] {
        assert_eq!(call.client.observe(senseless).await.unwrap_err().code(), Code::InvalidArgument);
    }
    assert!(world.registry.encode().contains("malformed_input_total{source=\"tap\"} 2\n"));
}

#[tokio::test(start_paused = true)]
async fn a_drain_ends_taps() {
    let mut world = world().with_credentials();
    let mut call = world.call(&world.root, &component("observe")).await;
    let mut events = call.client.observe(request(10)).await.unwrap().into_inner();
    drop(world.trigger.take());
    assert_eq!(events.message().await.unwrap(), None);
}

#[tokio::test(start_paused = true)]
async fn a_caller_that_leaves_ends_its_tap() {
    let world = world().with_credentials();
    let mut call = world.call(&world.root, &component("observe")).await;
    let events = call.client.observe(request(10)).await.unwrap();
    assert!(world.server.tap.is_active());
    drop((events, call));
    while world.server.tap.is_active() {
        tokio::task::yield_now().await;
    }
}

#[tokio::test(start_paused = true)]
async fn a_silent_caller_is_not_waited_for() {
    let world = world();
    let (_io, task) = world.dial();
    timeout(2 * PATIENCE, task).await.unwrap().unwrap();
}
