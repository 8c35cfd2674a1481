//! Each protocol and style over real sockets, undisturbed and with something in between that spoils it.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use futures::future::{BoxFuture, FutureExt};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use tokio::task::JoinHandle;

use conduit_net::{Net, TokioNetwork};
use conduit_runtime::{Seed, drain};

use self::relay::{Spoil, relay};
use super::{
    AppError, AppTls, ClientInfo, Context, ServerInfo, ServerOptions, Stream, Style, Time, client,
    request::{Method, Request},
    server,
    server::Server,
    server_first,
};
use crate::history::{OpId, OpLog, Ops, Outcome, Protocol};

mod relay;

const STYLES: [Style; 2] = [Style::Fresh, Style::Kept];

fn tls() -> AppTls {
    let name = "app.example";
    let made = rcgen::generate_simple_self_signed([name.to_owned()]).unwrap();
    let key = rustls_pki_types::PrivateKeyDer::Pkcs8(made.signing_key.serialize_der().into());
    let mut roots = RootCertStore::empty();
    roots.add(made.cert.der().clone()).unwrap();
    let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
    let server =
        ServerConfig::builder_with_provider(provider.clone()).with_safe_default_protocol_versions().unwrap();
    let client = ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions().unwrap();
    AppTls {
        client: Arc::new(client.with_root_certificates(roots).with_no_client_auth()),
        server: Arc::new(
            server.with_no_client_auth().with_single_cert(vec![made.cert.der().clone()], key).unwrap(),
        ),
        name: name.try_into().unwrap(),
    }
}

/// A server of one protocol, and a client for it.
struct World {
    net: Net,
    context: Context,
    server: SocketAddr,
    draining: drain::Trigger,
    watch: drain::Watch,
    serving: JoinHandle<()>,
}

impl World {
    async fn new(protocol: Protocol, options: ServerOptions) -> Self {
        let net = TokioNetwork::shared();
        let begun = tokio::time::Instant::now();
        let time = Time::new(move || begun.elapsed());
        let context = Context { log: OpLog::default(), time, seed: Seed::fixed(7), tls: tls() };
        let listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr();
        let (draining, watch) = drain::channel();
        let identity = ServerInfo { ip: addr.ip(), workload: "shop/web".into() };
        let server = Server::new(identity, protocol, context.clone(), options, watch.clone());
        let serving = tokio::spawn(server.listen(listener));
        Self { net, context, server: addr, draining, watch, serving }
    }

    /// Runs `stream` to its end.
    async fn run(&self, stream: Stream) -> Ops {
        let info = ClientInfo { number: 3, ip: self.server.ip() };
        let mut running = client::start(&self.net, &info, vec![stream], &self.context, &self.watch).unwrap();
        while let Some(ended) = running.join_next().await {
            ended.unwrap();
        }
        self.context.log.snapshot()
    }
}

fn stream(protocol: Protocol, style: Style, to: SocketAddr, count: u32) -> Stream {
    Stream {
        service: "shop/web".into(),
        host: to.ip().to_string(),
        protocol,
        port: to.port(),
        period: Duration::from_millis(5),
        // Later than the client's start even on a machine that is busy with other things.
        offset: Duration::from_secs(2),
        lengths: 0..=70_000,
        style,
        deadline: Duration::from_secs(20),
        count,
    }
}

fn arrivals(ops: &Ops) -> BTreeMap<OpId, usize> {
    let mut counts = BTreeMap::new();
    for arrival in &ops.arrived {
        *counts.entry(arrival.op).or_default() += 1;
    }
    counts
}

fn cases() -> impl Iterator<Item = (Protocol, Style)> {
    Protocol::ALL.into_iter().flat_map(|protocol| STYLES.map(|style| (protocol, style)))
}

#[tokio::test]
async fn every_operation_is_answered_and_arrives_once_and_intact() {
    futures::future::join_all(cases().map(|(protocol, style)| async move {
        let world = World::new(protocol, ServerOptions::default()).await;
        let (to, connections) = relay(world.net.clone(), world.server, Spoil::Nothing).await;
        let ops = world.run(stream(protocol, style, to, 20)).await;
        assert_eq!(ops.asked.len(), 20);
        for (id, op) in &ops.asked {
            assert_eq!(op.outcome, Outcome::Answered, "{id} {protocol:?} {style:?}");
        }
        assert_eq!(ops.arrived.len(), 20, "{protocol:?} {style:?}");
        assert_eq!(arrivals(&ops).len(), 20);
        assert!(ops.arrived.iter().all(|arrival| arrival.intact && arrival.workload == "shop/web"));
        assert_eq!(connections.get(), if style == Style::Kept { 1 } else { 20 }, "{protocol:?}");
    }))
    .await;
}

#[tokio::test]
async fn an_answer_with_another_byte_is_wrong() {
    // What TLS carries cannot be changed without breaking it.
    futures::future::join_all(cases().filter(|case| case.0 != Protocol::AppTls).map(
        |(protocol, style)| async move {
            let world = World::new(protocol, ServerOptions::default()).await;
            let (to, _) = relay(world.net.clone(), world.server, Spoil::Answers).await;
            let spoiled = Stream { lengths: 500..=5000, ..stream(protocol, style, to, 10) };
            let ops = world.run(spoiled.clone()).await;
            let mut wrong = 0;
            for (id, op) in &ops.asked {
                let asked = Request::draw(&world.context.seed, *id, spoiled.protocol, &spoiled.lengths);
                let is_http = matches!(protocol, Protocol::Http1 | Protocol::Http2);
                match &op.outcome {
                    Outcome::Wrong(_) => wrong += 1,
                    Outcome::Answered if is_http && asked.method == Method::Head => {}
                    // Others' bytes are changed only once on a connection, and it is not given up for them.
                    Outcome::Answered if style == Style::Kept && protocol != Protocol::Http1 => {}
                    other => panic!("{id} {protocol:?} {style:?}: {other:?}"),
                }
            }
            assert!(wrong > 0, "{protocol:?} {style:?}");
            assert!(ops.arrived.iter().all(|arrival| arrival.intact));
        },
    ))
    .await;
}

#[tokio::test]
async fn a_request_with_another_byte_arrives_not_intact_and_its_answer_is_wrong() {
    futures::future::join_all(cases().filter(|case| case.0 != Protocol::AppTls).map(
        |(protocol, style)| async move {
            let world = World::new(protocol, ServerOptions::default()).await;
            let (to, _) = relay(world.net.clone(), world.server, Spoil::Requests).await;
            let ops = world.run(Stream { lengths: 500..=5000, ..stream(protocol, style, to, 10) }).await;
            assert!(ops.arrived.iter().any(|arrival| !arrival.intact), "{protocol:?} {style:?}");
            for arrival in &ops.arrived {
                let is_wrong = matches!(ops.asked[&arrival.op].outcome, Outcome::Wrong(_));
                assert_eq!(is_wrong, !arrival.intact, "{protocol:?} {style:?} {}", arrival.op);
            }
        },
    ))
    .await;
}

#[tokio::test]
async fn a_server_that_dies_in_its_answer_is_a_failure_and_nothing_is_asked_twice() {
    futures::future::join_all(cases().map(|(protocol, style)| async move {
        let world = World::new(protocol, ServerOptions::default()).await;
        let (to, _) = relay(world.net.clone(), world.server, Spoil::Cut { after: 30_000 }).await;
        // The first connection is cut in its first or second long answer, and so is each after it.
        let cut = Stream {
            lengths: 20_000..=20_000,
            period: Duration::from_millis(50),
            ..stream(protocol, style, to, 8)
        };
        let cut = if style == Style::Fresh { Stream { lengths: 40_000..=40_000, ..cut } } else { cut };
        let ops = world.run(cut).await;
        let failed = |outcome: &Outcome| matches!(outcome, Outcome::Failed(_));
        assert!(ops.asked.values().any(|op| failed(&op.outcome)), "{protocol:?} {style:?}");
        assert!(
            ops.asked.values().all(|op| failed(&op.outcome) || op.outcome == Outcome::Answered),
            "{protocol:?} {style:?}: {:?}",
            ops.asked
        );
        assert!(arrivals(&ops).values().all(|count| *count == 1), "{protocol:?} {style:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_kept_connection_that_the_server_closed_is_replaced() {
    let options = ServerOptions { close_idle: Some(Duration::from_millis(1)), ..ServerOptions::default() };
    futures::future::join_all(Protocol::ALL.map(|protocol| {
        let options = options.clone();
        async move {
            let world = World::new(protocol, options).await;
            let (to, connections) = relay(world.net.clone(), world.server, Spoil::Nothing).await;
            let slow = Stream {
                period: Duration::from_millis(300),
                lengths: 0..=1000,
                ..stream(protocol, Style::Kept, to, 4)
            };
            let ops = world.run(slow).await;
            assert!(
                ops.asked.values().all(|op| op.outcome == Outcome::Answered),
                "{protocol:?}: {:?}",
                ops.asked
            );
            assert_eq!(arrivals(&ops).into_values().collect::<Vec<_>>(), [1; 4]);
            assert_eq!(connections.get(), 4, "{protocol:?}");
        }
    }))
    .await;
}

#[tokio::test]
async fn silence_is_a_failure_at_the_deadline() {
    let net = TokioNetwork::shared();
    let listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let silent = listener.local_addr();
    futures::future::join_all(cases().map(|(protocol, style)| async move {
        let world = World::new(protocol, ServerOptions::default()).await;
        let short = Stream { deadline: Duration::from_millis(50), ..stream(protocol, style, silent, 1) };
        let ops = world.run(short).await;
        let outcomes: Vec<_> = ops.asked.values().map(|op| op.outcome.clone()).collect();
        assert_eq!(outcomes, [Outcome::Failed("no answer within 50ms".into())], "{protocol:?}");
    }))
    .await;
}

#[tokio::test]
async fn a_port_on_which_nobody_listens_is_a_failure() {
    let world = World::new(Protocol::Opaque, ServerOptions::default()).await;
    let listener = world.net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
    let gone = listener.local_addr();
    drop(listener);
    let ops = world.run(stream(Protocol::Opaque, Style::Fresh, gone, 1)).await;
    let outcome = &ops.asked.values().next().unwrap().outcome;
    assert!(matches!(outcome, Outcome::Failed(why) if why.starts_with("connecting")), "{outcome:?}");
}

#[tokio::test]
async fn a_client_that_starts_late_begins_with_what_is_still_to_come() {
    let world = World::new(Protocol::Opaque, ServerOptions::default()).await;
    let behind = Time::new(|| Duration::from_secs(100));
    let context = Context { time: behind, ..world.context.clone() };
    let world = World { context, ..world };
    // Operation 9 is due at 100 s, the last one that is.
    let late = Stream {
        period: Duration::from_secs(10),
        offset: Duration::from_secs(10),
        ..stream(Protocol::Opaque, Style::Fresh, world.server, 10)
    };
    let ops = world.run(late).await;
    assert_eq!(ops.asked.keys().map(|id| id.number).collect::<Vec<_>>(), [9]);
}

#[tokio::test]
async fn a_draining_server_answers_who_is_there_and_then_ends() {
    let world = World::new(Protocol::ServerFirst, ServerOptions::default()).await;
    let io = world.net.connect(world.server).await.unwrap();
    let mut greeted = server_first::open(io).await.unwrap();
    let World { draining, watch, serving, context, .. } = world;
    drop(watch);
    let drained = tokio::spawn(draining.drain(Duration::from_secs(20)));
    let request =
        Request::draw(&context.seed, OpId { client: 1, stream: 2, number: 3 }, Protocol::Opaque, &(10..=10));
    server_first::ask(&mut greeted, &request, false).await.unwrap();
    // It is kept, but a draining server keeps nobody.
    assert!(drained.await.unwrap());
    serving.await.unwrap();
}

#[tokio::test]
async fn applications_end_with_the_drain_and_not_before() {
    let World { net, context, server: addr, draining, watch, .. } =
        World::new(Protocol::Opaque, ServerOptions::default()).await;
    let info = ClientInfo { number: 1, ip: addr.ip() };
    let identity = ServerInfo { ip: addr.ip(), workload: "shop/web".into() };
    let asking: BoxFuture<'static, Result<(), AppError>> =
        client(net.clone(), info, vec![], context.clone(), watch.clone()).boxed();
    let serving: BoxFuture<'static, Result<(), AppError>> =
        server(net, identity, vec![], context, ServerOptions::default(), watch).boxed();
    // Without a port it has nothing to do.
    serving.await.unwrap();
    let mut asking = tokio::spawn(asking);
    assert!(futures::poll!(&mut asking).is_pending());
    assert!(draining.drain(Duration::from_secs(20)).await);
    asking.await.unwrap().unwrap();
}
