//! Asking a single pod something, when somebody wants to know: its certificate, its metrics, or what the destination
//! service would tell a proxy. Every question has a deadline, and few are under way at a time.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc, time::Duration};

use conduit_identity::{Clock, ControlPlane, Crypto, HandshakeError, Identity, Presented, Store, UnixTime};
use conduit_k8s::owned::{
    COMPONENT_CA, COMPONENT_DESTINATION, COMPONENT_OBSERVE, PORT_CA_ADMIN, PORT_DESTINATION,
    PORT_DESTINATION_ADMIN, PORT_OBSERVE_ADMIN,
};
use conduit_net::Net;
use conduit_proto::destination::{
    Diff, Endpoint, GetRequest, Snapshot, Update, destination_client::DestinationClient, get_request::Target,
    update,
};
use conduit_runtime::grpc::{self, Transport};
use futures::FutureExt;
use tokio::{
    sync::{Semaphore, SemaphorePermit},
    time::timeout,
};

use crate::{
    inventory::Pod,
    proxies,
    sources::{scrape, text},
};

/// How long a pod may take to answer.
const DEADLINE: Duration = Duration::from_millis(1_500);
/// Questions under way at a time, whoever asks them.
const CONCURRENCY: usize = 16;
/// Octets of one pod's metrics that are handed on.
const MAX_METRICS: usize = 32 << 20;
/// Octets of the metrics of a part of the control plane: it has no series by workload.
const MAX_COMPONENT: usize = 1 << 20;
/// Metrics without labels that are kept of one.
const MAX_GAUGES: usize = 128;

/// How pods are asked. Cloning shares.
#[derive(Clone)]
pub(crate) struct Reach {
    net: Net,
    store: Store,
    crypto: Crypto,
    clock: Arc<dyn Clock>,
    slots: Arc<Semaphore>,
}

/// What a part of the control plane tells of itself.
#[derive(Debug, Default)]
pub(crate) struct Component {
    pub(crate) clock_ahead_ms: Option<i64>,
    pub(crate) metrics: BTreeMap<String, f64>,
}

/// What the destination service answered.
#[derive(Debug, Default)]
pub(crate) struct Answer {
    pub(crate) known: bool,
    pub(crate) service: Option<String>,
    pub(crate) endpoints: Vec<Endpoint>,
}

impl Reach {
    /// Asks over `net`, judging by what `store` trusts and by `clock`.
    pub(crate) fn new(net: Net, store: Store, crypto: Crypto, clock: Arc<dyn Clock>) -> Self {
        Self { net, store, crypto, clock, slots: Arc::new(Semaphore::new(CONCURRENCY)) }
    }

    /// What the proxy of `pod` serves in a handshake; and whether there are roots to judge it by. The handshake is done on
    /// the port for tap, which the proxy answers itself, with the same credentials as it does the application's.
    pub(crate) async fn identity(&self, pod: &Pod) -> Result<(Presented, bool), String> {
        let ip = pod.ip.ok_or("it has no address yet")?;
        let Some(expected) = pod.identity.as_ref() else {
            return Err(match (pod.meshed, pod.tls) {
                (false, _) => "it has no proxy of this control plane".to_owned(),
                (true, false) => "its proxy was injected without TLS".to_owned(),
                (true, true) => "whose pod it is cannot be confirmed".to_owned(),
            });
        };
        let addr = SocketAddr::new(ip, pod.tap_port);
        let trust = self.store.held().map(|held| held.trust().clone());
        let look = async {
            let io =
                self.net.connect(addr).await.map_err(|error| format!("{addr} cannot be reached: {error}"))?;
            let now = self.clock.now();
            conduit_identity::inspect(io, expected, trust.as_ref(), now, &self.crypto)
                .await
                .map_err(|error| unserved(&error))
        };
        self.within(addr, look).await.map(|presented| (presented, trust.is_some()))
    }

    /// The metrics of the proxy of `pod`, as they are.
    pub(crate) async fn metrics(&self, addr: SocketAddr) -> Result<Vec<u8>, String> {
        let text =
            async { scrape::text(&self.net, addr, MAX_METRICS).await.map_err(|error| error.to_string()) };
        self.within(addr, text).await
    }

    /// What a pod of the control plane tells of itself.
    pub(crate) async fn component(&self, name: &str, pod: &Pod) -> Result<Component, String> {
        let ip = pod.ip.ok_or("it has no address yet")?;
        let port = admin_port(name).ok_or("it is no part of the control plane")?;
        let addr = SocketAddr::new(ip, port);
        let text =
            async { scrape::text(&self.net, addr, MAX_COMPONENT).await.map_err(|error| error.to_string()) };
        let text = self.within(addr, text).await?;
        Ok(Component::read(&String::from_utf8_lossy(&text), self.clock.now()))
    }

    /// Asks the destination service in `pod` as a proxy in `namespace` would.
    pub(crate) async fn endpoints(
        &self,
        pod: &Pod,
        control_plane: &ControlPlane,
        authority: &str,
        namespace: &str,
    ) -> Result<Answer, String> {
        let addr = SocketAddr::new(pod.ip.ok_or("it has no address yet")?, PORT_DESTINATION);
        let identity = Identity::of(&control_plane.component(COMPONENT_DESTINATION), control_plane);
        let dialer = self.clone();
        let connect = move || {
            let (dialer, identity) = (dialer.clone(), identity.clone());
            async move { dialer.dial(addr, &identity).await }.boxed()
        };
        let asked = async {
            let channel = grpc::Channel::new(&addr.to_string(), Arc::new(connect));
            let mut client = DestinationClient::new(channel.map_err(|error| error.to_string())?);
            let request = GetRequest {
                target: Some(Target::Authority(authority.to_owned())),
                context_namespace: namespace.to_owned(),
            };
            let declined = |status: tonic::Status| status.message().to_owned();
            let mut updates = client.get(request).await.map_err(declined)?.into_inner();
            let first = updates.message().await.map_err(declined)?;
            first.map(Answer::of).ok_or_else(|| "it ended without an answer".to_owned())
        };
        self.within(addr, asked).await
    }

    /// TLS where both ends can, plaintext otherwise, as proxies do.
    async fn dial(&self, addr: SocketAddr, identity: &Identity) -> std::io::Result<Box<dyn Transport>> {
        if let Ok(loaded) = self.store.current() {
            let io = self.net.connect(addr).await?;
            if let Ok((stream, _)) = conduit_identity::connect(&loaded, io, identity).await {
                return Ok(Box::new(stream));
            }
        }
        Ok(Box::new(self.net.connect(addr).await?))
    }

    async fn within<T>(
        &self,
        addr: SocketAddr,
        asked: impl Future<Output = Result<T, String>>,
    ) -> Result<T, String> {
        let asked = async {
            let _slot: Option<SemaphorePermit<'_>> = self.slots.acquire().await.ok();
            asked.await
        };
        // Who waits for a slot waits no longer than who has one.
        let late = || format!("{addr} did not answer within {DEADLINE:?}");
        timeout(DEADLINE, asked).await.unwrap_or_else(|_| Err(late()))
    }
}

fn unserved(error: &HandshakeError) -> String {
    use conduit_identity::HandshakeFailure as F;
    match error.reason() {
        F::Refused => "its proxy holds no certificate that it can use".to_owned(),
        _ => error.to_string(),
    }
}

fn admin_port(component: &str) -> Option<u16> {
    match component {
        COMPONENT_CA => Some(PORT_CA_ADMIN),
        COMPONENT_DESTINATION => Some(PORT_DESTINATION_ADMIN),
        COMPONENT_OBSERVE => Some(PORT_OBSERVE_ADMIN),
        _ => None,
    }
}

impl Component {
    fn read(metrics: &str, now: UnixTime) -> Self {
        let samples = metrics.lines().filter_map(|line| text::sample(line).ok().flatten());
        let bare = samples.filter(|sample| sample.labels.is_empty() && sample.value.is_finite());
        let metrics: BTreeMap<String, f64> =
            bare.take(MAX_GAUGES).map(|sample| (sample.name.to_owned(), sample.value)).collect();
        let time = metrics.get("process_time_seconds").copied();
        let time = time.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).map(UnixTime);
        Self { clock_ahead_ms: time.map(|time| proxies::ahead_ms(time, now)), metrics }
    }
}

impl Answer {
    fn of(update: Update) -> Self {
        let text = |text: String| Some(text).filter(|text| !text.is_empty());
        match update.update {
            Some(update::Update::Snapshot(Snapshot { service, endpoints, .. })) => {
                Self { known: true, service: text(service), endpoints }
            }
            Some(update::Update::Diff(Diff { upsert, .. })) => {
                Self { known: true, service: None, endpoints: upsert }
            }
            Some(update::Update::Unknown(_)) | None => Self::default(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn of_metrics_only_what_has_no_labels_is_kept() {
        let text = "# HELP a b\na 1\nb{c=\"d\"} 2\ne NaN\nprocess_time_seconds 103.5\nnonsense\n";
        let component = Component::read(text, UnixTime::from_secs(100));
        assert_eq!(component.clock_ahead_ms, Some(3_500));
        assert_eq!(
            component.metrics.keys().map(String::as_str).collect::<Vec<_>>(),
            ["a", "process_time_seconds"]
        );
        let many: String = (0..1_000).map(|n| format!("m{n} 1\n")).collect();
        assert_eq!(Component::read(&many, UnixTime::default()).metrics.len(), MAX_GAUGES);
    }
}
