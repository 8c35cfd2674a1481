//! A small mesh in which everything but observe is a stand-in.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::Path,
    sync::Arc,
    time::Duration,
};

use bytes::Bytes;
use conduit_cluster::{Cluster, fixtures};
use conduit_identity::{
    ClientPeer, Clock as _, ControlPlane, Crypto, Identity, Pem, Store, SystemClock, Workload, WorkloadKind,
};
use conduit_k8s::owned::{
    ANNOTATION_TLS, LABEL_CONTROL_PLANE_NS, PROXY_CONTAINER, TLS_DISABLED, TLS_OPTIONAL,
};
use conduit_net::{Net, TokioNetwork};
use conduit_observe::{Bound, Config, Deps};
use conduit_proto::tap::{Event, ObserveRequest, tap_server};
use conduit_runtime::{Seed, drain, grpc};
use futures::stream::{self, BoxStream, StreamExt};
use http_body_util::{BodyExt, Empty};
use hyper::{Request, StatusCode, body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{Container, EnvVar, Namespace, Service},
};
use kube::{Api, api::PostParams};
use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use tokio::sync::{mpsc, oneshot};
use tonic::{Response, Status};

/// Nothing here takes long; what does has failed.
const PATIENCE: Duration = Duration::from_secs(20);

pub(crate) struct World {
    pub(crate) net: Net,
    pub(crate) cluster: Cluster,
    pub(crate) authority: Authority,
}

/// How the pods of a deployment were injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Injected {
    Not,
    WithoutTls,
    WithTls,
}

impl World {
    pub(crate) async fn new() -> Self {
        let clock = Arc::new(|| SystemClock.now().0);
        let cluster = Cluster::new(conduit_cluster::Config::new(clock, Seed::fixed(7)));
        let namespaces: Api<Namespace> = Api::all(cluster.client());
        namespaces.create(&PostParams::default(), &fixtures::namespace("shop")).await.unwrap();
        Self { net: TokioNetwork::shared(), cluster, authority: Authority::new() }
    }

    /// One pod of a deployment, and its service; where its proxy serves metrics and tap.
    pub(crate) async fn deploy(&self, name: &str, injected: Injected, metrics: SocketAddr, tap: SocketAddr) {
        let client = self.cluster.client();
        let deployment = inject(fixtures::deployment("shop", name), injected, metrics.port(), tap.port());
        fixtures::deploy(&client, &deployment, &[metrics.ip()]).await.unwrap();
        let services: Api<Service> = Api::namespaced(client, "shop");
        let service = fixtures::service("shop", name, &[("http", 80)]);
        services.create(&PostParams::default(), &service).await.unwrap();
    }

    /// Serves what `script` says on a metrics port.
    pub(crate) async fn metrics(&self, script: impl Fn() -> String + Send + Sync + 'static) -> SocketAddr {
        let script = Arc::new(script);
        let answer = move || std::future::ready(script());
        let router = axum::Router::new().route("/metrics", axum::routing::get(answer));
        let mut listener = self.net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let addr = listener.local_addr();
        tokio::spawn(async move {
            loop {
                let io = TokioIo::new(listener.accept().await.unwrap().io);
                let service = hyper_util::service::TowerToHyperService::new(router.clone());
                tokio::spawn(hyper::server::conn::http1::Builder::new().serve_connection(io, service));
            }
        });
        addr
    }

    pub(crate) async fn start(&self, files: Option<&Path>) -> Observe {
        let mut config = Config {
            listener: (Ipv4Addr::LOCALHOST, 0).into(),
            admin: (Ipv4Addr::LOCALHOST, 0).into(),
            files: files.map(conduit_identity::Files::in_directory),
            ..Config::default()
        };
        config.limits.interval = Duration::from_millis(20);
        self.start_with(config, self.cluster.client()).await
    }

    pub(crate) async fn start_with(&self, config: Config, client: kube::Client) -> Observe {
        let (started, bound) = oneshot::channel();
        let (trigger, watch) = drain::channel();
        let deps = Deps {
            client,
            net: self.net.clone(),
            clock: Arc::new(SystemClock),
            seed: Seed::fixed(7),
            crypto: Crypto::shipped(),
            started: Some(started),
        };
        let running = tokio::spawn(conduit_observe::run(config, deps, watch));
        Observe { net: self.net.clone(), bound: bound.await.unwrap(), trigger, running }
    }
}

fn inject(mut deployment: Deployment, injected: Injected, metrics: u16, tap: u16) -> Deployment {
    let tls = match injected {
        Injected::Not => return deployment,
        Injected::WithoutTls => TLS_DISABLED,
        Injected::WithTls => TLS_OPTIONAL,
    };
    let template = &mut deployment.spec.as_mut().unwrap().template;
    let meta = template.metadata.as_mut().unwrap();
    let namespace = ControlPlane::default().namespace;
    meta.labels.as_mut().unwrap().insert(LABEL_CONTROL_PLANE_NS.to_owned(), namespace);
    meta.annotations.get_or_insert_default().insert(ANNOTATION_TLS.to_owned(), tls.to_owned());
    let listener = |name: &str, port| EnvVar {
        name: name.to_owned(),
        value: Some(format!("tcp://0.0.0.0:{port}")),
        ..EnvVar::default()
    };
    let env = vec![
        listener("CONDUIT_PROXY_METRICS_LISTENER", metrics),
        listener("CONDUIT_PROXY_CONTROL_LISTENER", tap),
    ];
    let proxy = Container {
        name: PROXY_CONTAINER.to_owned(),
        image: Some("conduit/proxy".to_owned()),
        env: Some(env),
        ..Container::default()
    };
    template.spec.as_mut().unwrap().containers.push(proxy);
    deployment
}

/// A running observe.
pub(crate) struct Observe {
    net: Net,
    pub(crate) bound: Bound,
    pub(crate) trigger: drain::Trigger,
    pub(crate) running: tokio::task::JoinHandle<Result<(), conduit_observe::Error>>,
}

impl Observe {
    pub(crate) async fn request(
        &self,
        addr: SocketAddr,
        method: &str,
        path: &str,
    ) -> hyper::Response<Incoming> {
        let io = TokioIo::new(self.net.connect(addr).await.unwrap());
        let (mut sender, connection) = http1::handshake(io).await.unwrap();
        tokio::spawn(connection);
        let request = Request::builder().method(method).uri(path).header("host", "observe");
        sender.send_request(request.body(Empty::<Bytes>::new()).unwrap()).await.unwrap()
    }

    pub(crate) async fn get(&self, path: &str) -> (StatusCode, serde_json::Value) {
        let response = self.request(self.bound.api, "GET", path).await;
        let status = response.status();
        let body = response.into_body().collect().await.unwrap().to_bytes();
        (status, serde_json::from_slice(&body).unwrap())
    }

    /// Asks until the answer is such.
    pub(crate) async fn until(
        &self,
        path: &str,
        holds: impl Fn(&serde_json::Value) -> bool,
    ) -> serde_json::Value {
        let asking = async {
            loop {
                let (_, answer) = self.get(path).await;
                if holds(&answer) {
                    return answer;
                }
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        };
        tokio::time::timeout(PATIENCE, asking).await.unwrap_or_else(|_| panic!("{path} never answered so"))
    }

    /// Waits until observe knows the cluster.
    pub(crate) async fn ready(&self) {
        self.until("/api/v1/pods", |answer| answer["pods"].as_array().is_some()).await;
    }

    /// Reads server-sent events.
    pub(crate) async fn events(&self, path: &str) -> Events {
        let response = self.request(self.bound.api, "GET", path).await;
        assert_eq!(response.status(), StatusCode::OK);
        assert_eq!(response.headers()["content-type"], "text/event-stream");
        Events { body: response.into_body(), text: String::new() }
    }
}

pub(crate) struct Events {
    body: Incoming,
    text: String,
}

impl Events {
    /// The name and the data of the next event; none when the stream has ended.
    pub(crate) async fn next(&mut self) -> Option<(String, serde_json::Value)> {
        loop {
            if let Some((event, rest)) = self.text.split_once("\n\n") {
                let field = |name: &str| {
                    let line = event.lines().find_map(|line| line.strip_prefix(name));
                    line.map(|value| value.trim_start().to_owned())
                };
                let found = field("data:")
                    .map(|data| (field("event:").unwrap_or_default(), serde_json::from_str(&data).unwrap()));
                self.text = rest.to_owned();
                match found {
                    Some(event) => return Some(event),
                    None => continue,
                }
            }
            let frame = tokio::time::timeout(PATIENCE, self.body.frame()).await.expect("an event in time")?;
            self.text.push_str(std::str::from_utf8(frame.unwrap().data_ref().unwrap()).unwrap());
        }
    }
}

/// A certificate authority.
pub(crate) struct Authority {
    issuer: Issuer<'static, KeyPair>,
    anchors: String,
}

impl Authority {
    fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let anchors = params.self_signed(&key).unwrap().pem();
        Self { issuer: Issuer::new(params, key), anchors }
    }

    pub(crate) fn issue(&self, identity: &Identity) -> Pem {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(vec![identity.to_string()]).unwrap();
        let usages = [rcgen::ExtendedKeyUsagePurpose::ServerAuth, rcgen::ExtendedKeyUsagePurpose::ClientAuth];
        params.extended_key_usages = usages.to_vec();
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        let (chain, key) = (chain.into_bytes(), key.serialize_pem().into_bytes());
        Pem { chain, key, anchors: self.anchors.clone().into_bytes() }
    }

    /// Writes the credentials of observe as a pod finds them.
    pub(crate) fn mount(&self) -> TempDir {
        let directory = tempfile::tempdir().unwrap();
        let control_plane = ControlPlane::default();
        let pem = self.issue(&Identity::of(&control_plane.component("observe"), &control_plane));
        for (name, text) in
            [("tls.crt", &pem.chain), ("tls.key", &pem.key), ("trust-anchors.pem", &pem.anchors)]
        {
            std::fs::write(directory.path().join(name), text).unwrap();
        }
        directory
    }
}

pub(crate) fn identity(deployment: &str) -> Identity {
    let workload = Workload {
        namespace: "shop".to_owned(),
        kind: WorkloadKind::Deployment,
        name: deployment.to_owned(),
    };
    Identity::of(&workload, &ControlPlane::default())
}

/// A proxy's tap port: tells the events it is given, to observe only.
pub(crate) struct Proxy {
    pub(crate) addr: SocketAddr,
    /// What it was asked for.
    pub(crate) asked: mpsc::UnboundedReceiver<ObserveRequest>,
}

impl World {
    /// A proxy of the deployment `name`, which answers each question with `events`, for ever or to their end.
    pub(crate) async fn proxy(&self, name: &str, events: Vec<Event>, ends: bool) -> Proxy {
        let store = Store::new(identity(name), Crypto::shipped(), Arc::new(SystemClock));
        store.load(&self.authority.issue(&identity(name))).unwrap();
        let mut listener = self.net.bind((Ipv4Addr::LOCALHOST, 0).into()).await.unwrap();
        let addr = listener.local_addr();
        let (told, asked) = mpsc::unbounded_channel();
        tokio::spawn(async move {
            loop {
                let io = listener.accept().await.unwrap().io;
                let (store, events, told) = (store.clone(), events.clone(), told.clone());
                tokio::spawn(async move {
                    let Ok((io, peer)) = conduit_identity::accept(&store.current().unwrap(), io).await else {
                        return;
                    };
                    let control_plane = ControlPlane::default();
                    let observe = Identity::of(&control_plane.component("observe"), &control_plane);
                    let admits = matches!(peer, ClientPeer::Verified { identity, .. } if identity == observe);
                    let service = tap_server::TapServer::new(Script { events, ends, admits, told });
                    let (_trigger, drain) = drain::channel();
                    drop(grpc::serve_connection(io, tonic::service::Routes::new(service), drain).await);
                });
            }
        });
        Proxy { addr, asked }
    }
}

struct Script {
    events: Vec<Event>,
    ends: bool,
    admits: bool,
    told: mpsc::UnboundedSender<ObserveRequest>,
}

#[tonic::async_trait]
impl tap_server::Tap for Script {
    type ObserveStream = BoxStream<'static, Result<Event, Status>>;

    async fn observe(
        &self,
        request: tonic::Request<ObserveRequest>,
    ) -> Result<Response<Self::ObserveStream>, Status> {
        if !self.admits {
            return Err(Status::unavailable("who are you?"));
        }
        drop(self.told.send(request.into_inner()));
        let events = stream::iter(self.events.clone().into_iter().map(Ok));
        Ok(Response::new(match self.ends {
            true => events.boxed(),
            false => events.chain(stream::pending()).boxed(),
        }))
    }
}
