//! A pod: an address, an application, and perhaps a proxy.

use std::{
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use conduit_identity::{Crypto, Files};
use conduit_net::{Net, TokioNetwork};
use conduit_proxy::{Bound, Config, Deps, Destination, Listen, Own, Tls, run};
use conduit_runtime::{Seed, drain};
use tempfile::TempDir;
use tokio::{io::AsyncReadExt, io::AsyncWriteExt, sync::oneshot, task::JoinHandle};

use super::{Client, World, identity, within};

pub(crate) struct Pod {
    pub(crate) ip: IpAddr,
    /// As its application sees it.
    pub(crate) net: Net,
    pub(crate) proxy: Option<Proxy>,
}

pub(crate) struct Proxy {
    pub(crate) bound: Bound,
    /// Where its credentials are.
    pub(crate) files: TempDir,
    pub(crate) trigger: Option<drain::Trigger>,
    pub(crate) task: JoinHandle<Result<(), conduit_proxy::Error>>,
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Pod {
    /// A pod without a proxy at 127.1.0.`host`.
    pub(crate) fn plain(world: &World, host: u8) -> Self {
        let ip = IpAddr::from([127, 1, 0, host]);
        Self { ip, net: Arc::new(world.net(ip, false)), proxy: None }
    }

    /// A meshed pod that was not injected with TLS.
    pub(crate) async fn without_tls(world: &World, host: u8) -> Self {
        Self::with(world, host, |config| config.tls = Tls::default()).await
    }

    /// A meshed pod of the workload `owner`, with credentials.
    pub(crate) async fn meshed(world: &World, host: u8, owner: &str) -> Self {
        let pod = Self::without_credentials(world, host, owner).await;
        world.authority.issue(&identity(owner)).write(pod.proxy().files.path());
        pod.until_tls_is("true").await;
        pod
    }

    /// A meshed pod of the workload `owner`, before its credentials come.
    pub(crate) async fn without_credentials(world: &World, host: u8, owner: &str) -> Self {
        let name = identity(owner);
        Self::with(world, host, |config| {
            let files = config.tls.own.take().expect("set by the caller").files;
            config.tls.own = Some(Own { identity: name, files });
        })
        .await
    }

    pub(crate) async fn with(world: &World, host: u8, adjust: impl FnOnce(&mut Config)) -> Self {
        let mut pod = Self::plain(world, host);
        let files = TempDir::new().unwrap();
        let any_port = SocketAddr::new(pod.ip, 0);
        let own = Own { identity: identity("unnamed"), files: Files::in_directory(files.path()) };
        let mut config = Config {
            listen: Listen { inbound: any_port, outbound: any_port, tap: any_port, admin: any_port },
            pod_namespace: "shop".to_owned(),
            destination: Some(Destination {
                host: world.destination.addr.ip().to_string(),
                port: world.destination.addr.port(),
                identity: None,
            }),
            tls: Tls { own: Some(own), problem: None },
            ..Config::default()
        };
        config.timeouts.tls_poll = Duration::from_millis(10);
        config.timeouts.drain_grace = Duration::ZERO;
        // A loaded machine is not a broken peer.
        config.timeouts.discovery = Duration::from_secs(5);
        adjust(&mut config);
        let (started, bound) = oneshot::channel();
        let deps = Deps {
            net: Arc::new(world.net(pod.ip, true)),
            clock: Arc::new(world.clock.clone()),
            seed: Seed::fixed(host.into()),
            crypto: Crypto::shipped(),
            started: Some(started),
        };
        let (trigger, watch) = drain::channel();
        let task = tokio::spawn(run(config, deps, watch));
        let bound = within(bound).await.unwrap();
        world.redirect(pod.ip, bound.inbound, bound.outbound, &[bound.tap, bound.admin]);
        pod.proxy = Some(Proxy { bound, files, trigger: Some(trigger), task });
        pod
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        self.proxy.as_ref().expect("the pod is meshed")
    }

    /// Connects as the pod's application does.
    pub(crate) async fn connect(&self, to: SocketAddr) -> Client {
        Client::new(within(self.net.connect(to)).await.unwrap())
    }

    /// The body of a path of the admin server.
    pub(crate) async fn admin(&self, path: &str) -> String {
        let mut io = within(TokioNetwork::shared().connect(self.proxy().bound.admin)).await.unwrap();
        within(io.write_all(format!("GET {path} HTTP/1.0\r\n\r\n").as_bytes())).await.unwrap();
        let mut answer = String::new();
        within(io.read_to_string(&mut answer)).await.unwrap();
        answer.split_once("\r\n\r\n").map(|(_, body)| body.to_owned()).unwrap_or_default()
    }

    /// The sum of all series of `name` that have all of `labels`.
    pub(crate) async fn metric(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        let metrics = self.admin("/metrics").await;
        metrics
            .lines()
            .filter(|line| line.strip_prefix(name).is_some_and(|rest| rest.starts_with(['{', ' '])))
            .filter(|line| labels.iter().all(|(key, value)| line.contains(&format!("{key}=\"{value}\""))))
            .filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok())
            .sum()
    }

    /// Waits until the metric has the value.
    pub(crate) async fn until_metric(&self, name: &str, labels: &[(&str, &str)], value: f64) {
        let reached = async {
            while self.metric(name, labels).await != value {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
        };
        if tokio::time::timeout(super::PATIENCE, reached).await.is_err() {
            panic!("{name}{labels:?} does not become {value}:\n{}", self.admin("/metrics").await);
        }
    }

    /// Waits until `/ready` says so about TLS.
    pub(crate) async fn until_tls_is(&self, state: &str) {
        let expected = format!("tls: {state}");
        super::eventually(async || {
            self.admin("/ready").await.lines().any(|line| line.starts_with(&expected))
        })
        .await;
    }
}
