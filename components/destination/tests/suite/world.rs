//! A cluster, a destination service in front of it, and a proxy's side of a stream.

use std::{
    collections::BTreeMap,
    net::{IpAddr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use conduit_cluster::{Cluster, SliceVersion, fixtures};
use conduit_destination::{Bound, Config, Deps};
use conduit_identity::{Crypto, Files, ManualClock, UnixTime};
use conduit_net::{Io, Net, TokioNetwork};
use conduit_proto::destination::{
    GetRequest, Update, destination_client::DestinationClient, get_request::Target, update,
};
use conduit_runtime::{Seed, drain, grpc};
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, PodTemplateSpec},
};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    sync::oneshot,
    task::JoinHandle,
    time::timeout,
};

/// How long anything may take before a test fails.
pub(crate) const SOON: Duration = Duration::from_secs(20);
/// The moment at which the tests take place.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
/// The identity of the Deployment "web" in the namespace "shop".
pub(crate) const WEB: &str = "web.deployment.shop.conduit-managed.conduit.svc.cluster.local";

pub(crate) struct World {
    pub(crate) cluster: Cluster,
    /// Reaches the API server past all networks.
    pub(crate) client: kube::Client,
    pub(crate) net: Net,
    api: SocketAddr,
    _background: Vec<AbortOnDrop>,
    _drain: drain::Trigger,
}

pub(crate) struct AbortOnDrop(JoinHandle<()>);

impl Drop for AbortOnDrop {
    fn drop(&mut self) {
        self.0.abort();
    }
}

fn spawn(future: impl Future<Output = ()> + Send + 'static) -> AbortOnDrop {
    AbortOnDrop(tokio::spawn(future))
}

impl World {
    pub(crate) async fn new() -> Self {
        Self::serving(SliceVersion::V1).await
    }

    pub(crate) async fn serving(slices: SliceVersion) -> Self {
        let config = conduit_cluster::Config {
            slices,
            ..conduit_cluster::Config::new(Arc::new(|| NOW.0), Seed::fixed(1))
        };
        let (cluster, net) = (Cluster::new(config), TokioNetwork::shared());
        let (trigger, drain) = drain::channel();
        let serving = cluster.serve(&net, loopback(), drain.clone()).await.unwrap();
        let controllers = cluster.clone();
        let background =
            vec![spawn(serving.server), spawn(async move { controllers.run_controllers(drain).await })];
        let client = cluster.client();
        let namespace = fixtures::namespace("shop");
        kube::Api::all(client.clone()).create(&Default::default(), &namespace).await.unwrap();
        Self { cluster, client, net, api: serving.addr, _background: background, _drain: trigger }
    }

    pub(crate) async fn destination(&self) -> Destination {
        self.destination_with(|_| {}, ManualClock::at(NOW)).await
    }

    /// A destination service of this cluster, on ports of its own.
    pub(crate) async fn destination_with(
        &self,
        configure: impl FnOnce(&mut Config),
        clock: ManualClock,
    ) -> Destination {
        let client = conduit_k8s::client::plain(self.net.clone(), self.api, "conduit").unwrap();
        Destination::start(client, configure, clock).await
    }

    /// Deploys "web", injected with TLS, with a pod at each address, and its Service on port 80.
    pub(crate) async fn deploy_web(&self, ips: &[&str]) -> fixtures::Deployed {
        let service = fixtures::service("shop", "web", &[("http", 80)]);
        kube::Api::namespaced(self.client.clone(), "shop")
            .create(&Default::default(), &service)
            .await
            .unwrap();
        let ips: Vec<IpAddr> = ips.iter().map(|ip| ip.parse().unwrap()).collect();
        fixtures::deploy(&self.client, &injected(fixtures::deployment("shop", "web")), &ips).await.unwrap()
    }

    pub(crate) fn api<K>(&self) -> kube::Api<K>
    where
        K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>,
    {
        kube::Api::namespaced(self.client.clone(), "shop")
    }
}

/// A Deployment as `conduit inject --tls=optional` leaves it.
pub(crate) fn injected(mut deployment: Deployment) -> Deployment {
    let name = deployment.metadata.name.clone().unwrap();
    let template: &mut PodTemplateSpec = &mut deployment.spec.as_mut().unwrap().template;
    let metadata = template.metadata.as_mut().unwrap();
    let labels = metadata.labels.get_or_insert_default();
    labels.insert("conduit.io/control-plane-ns".into(), "conduit".into());
    labels.insert("conduit.io/proxy-deployment".into(), name);
    metadata.annotations.get_or_insert_default().insert("conduit.io/tls".into(), "optional".into());
    let proxy = Container {
        name: "conduit-proxy".into(),
        image: Some("conduit/proxy:test".into()),
        ..Container::default()
    };
    template.spec.as_mut().unwrap().containers.insert(0, proxy);
    deployment
}

pub(crate) fn files(directory: &Path) -> Files {
    Files::in_directory(directory)
}

fn loopback() -> SocketAddr {
    SocketAddr::from(([127, 0, 0, 1], 0))
}

/// A running destination service.
pub(crate) struct Destination {
    pub(crate) bound: Bound,
    net: Net,
    trigger: Option<drain::Trigger>,
    running: AbortOnDrop,
}

impl Destination {
    /// One of whatever cluster `client` reaches, on ports of its own.
    pub(crate) async fn start(
        client: kube::Client,
        configure: impl FnOnce(&mut Config),
        clock: ManualClock,
    ) -> Self {
        let mut config = Config { listener: loopback(), admin: loopback(), ..Config::default() };
        config.timing.retry_min = Duration::from_millis(10);
        config.timing.retry_max = Duration::from_millis(50);
        config.reload = Duration::from_millis(20);
        configure(&mut config);
        let (started, bound) = oneshot::channel();
        let net = TokioNetwork::shared();
        let deps = Deps {
            client,
            net: net.clone(),
            clock: Arc::new(clock),
            seed: Seed::fixed(2),
            crypto: Crypto::shipped(),
            started: Some(started),
        };
        let (trigger, watch) = drain::channel();
        let running = conduit_destination::run(config, deps, watch);
        let running = tokio::spawn(async move { running.await.unwrap() });
        let bound = timeout(SOON, bound).await.unwrap().unwrap();
        Self { bound, net, trigger: Some(trigger), running: AbortOnDrop(running) }
    }

    /// Drains it; true when everything ended by itself.
    pub(crate) async fn drain(mut self) -> bool {
        let drained = self.trigger.take().unwrap().drain(SOON).await;
        timeout(SOON, &mut self.running.0).await.unwrap().unwrap();
        drained
    }

    pub(crate) async fn connect(&self) -> Io {
        self.net.connect(self.bound.grpc).await.unwrap()
    }

    /// A client without TLS.
    pub(crate) fn client(&self) -> DestinationClient<grpc::Channel> {
        DestinationClient::new(self.channel())
    }

    /// A connection without TLS.
    pub(crate) fn channel(&self) -> grpc::Channel {
        let (net, addr) = (self.net.clone(), self.bound.grpc);
        let connect: grpc::Connect = Arc::new(move || {
            let net = net.clone();
            Box::pin(async move { Ok(Box::new(net.connect(addr).await?) as Box<dyn grpc::Transport>) })
        });
        grpc::Channel::new("destination", connect).unwrap()
    }

    pub(crate) async fn authority(&self, authority: &str) -> Watching {
        Watching::open(self.client(), Target::Authority(authority.into())).await.unwrap()
    }

    pub(crate) async fn address(&self, address: &str) -> Watching {
        Watching::open(self.client(), Target::Address(address.into())).await.unwrap()
    }

    /// Asks the admin server.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let mut io = self.net.connect(self.bound.admin).await.unwrap();
        io.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes()).await.unwrap();
        let mut answer = String::new();
        timeout(SOON, io.read_to_string(&mut answer)).await.unwrap().unwrap();
        answer
    }
}

/// A stream, and what a client makes of it.
pub(crate) struct Watching {
    stream: tonic::Streaming<Update>,
    /// Messages received.
    pub(crate) messages: usize,
    /// The service has said that it does not follow the cluster.
    pub(crate) is_stale: bool,
    /// None before the first message; else none for "unknown", or the endpoints by address.
    view: Option<Option<BTreeMap<String, String>>>,
}

impl Watching {
    pub(crate) async fn open<T>(
        mut client: DestinationClient<T>,
        target: Target,
    ) -> Result<Self, tonic::Status>
    where
        T: tonic::client::GrpcService<tonic::body::Body>,
        T::Error: Into<Box<dyn std::error::Error + Send + Sync>>,
        T::ResponseBody: http_body::Body<Data = bytes::Bytes> + Send + 'static,
        <T::ResponseBody as http_body::Body>::Error: Into<Box<dyn std::error::Error + Send + Sync>> + Send,
    {
        let request = GetRequest { target: Some(target), context_namespace: "shop".into() };
        let stream = timeout(SOON, client.get(request)).await.unwrap()?.into_inner();
        Ok(Self { stream, messages: 0, is_stale: false, view: None })
    }

    /// Waits until the view is as wanted: "unknown", or "address pod identity" of each endpoint.
    pub(crate) async fn until(&mut self, wanted: &[&str]) {
        let reached = async {
            while self.told() != wanted {
                assert!(self.more().await, "the stream ended at {:?}", self.told());
            }
        };
        if timeout(SOON, reached).await.is_err() {
            panic!("wanted {wanted:?}, got {:?}", self.told());
        }
    }

    /// Waits for the next message; false at the end of the stream.
    pub(crate) async fn more(&mut self) -> bool {
        let update = match timeout(SOON, self.stream.message()).await.expect("a message") {
            Ok(Some(update)) => update,
            Ok(None) | Err(_) => return false,
        };
        self.messages += 1;
        self.hear(update);
        true
    }

    fn hear(&mut self, update: Update) {
        self.is_stale = update.stale;
        let known = |endpoint: conduit_proto::destination::Endpoint| {
            let pod = endpoint.labels.get("pod").cloned().unwrap_or_else(|| "-".into());
            let identity = if endpoint.identity.is_empty() { "-" } else { &endpoint.identity };
            (endpoint.address, format!("{pod} {identity}"))
        };
        match update.update {
            // Of the service itself.
            None => {}
            Some(update::Update::Unknown(_)) => self.view = Some(None),
            Some(update::Update::Snapshot(snapshot)) => {
                self.view = Some(Some(snapshot.endpoints.into_iter().map(known).collect()));
            }
            Some(update::Update::Diff(diff)) => {
                let view = self.view.as_mut().and_then(Option::as_mut).expect("a diff follows a snapshot");
                diff.remove.iter().for_each(|address| drop(view.remove(address)));
                view.extend(diff.upsert.into_iter().map(known));
            }
        }
    }

    /// Waits until the service says whether it follows the cluster.
    pub(crate) async fn until_stale(&mut self, is_stale: bool) {
        while self.is_stale != is_stale {
            assert!(self.more().await, "the stream ended at {:?}", self.told());
        }
    }

    /// Whether nothing is told of endpoints for a while. For what must not happen: a failure is never a matter of timing.
    pub(crate) async fn is_silent(&mut self) -> bool {
        let of_endpoints = async {
            loop {
                match self.stream.message().await {
                    Ok(Some(update @ Update { update: None, .. })) => self.hear(update),
                    _ => return,
                }
            }
        };
        timeout(Duration::from_millis(200), of_endpoints).await.is_err()
    }

    pub(crate) fn told(&self) -> Vec<String> {
        match &self.view {
            None => Vec::new(),
            Some(None) => vec!["unknown".to_owned()],
            Some(Some(endpoints)) => {
                endpoints.iter().map(|(address, endpoint)| format!("{address} {endpoint}")).collect()
            }
        }
    }
}
