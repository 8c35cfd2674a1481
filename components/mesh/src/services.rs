//! The cluster's names and virtual addresses, as cluster DNS and kube-proxy make them from Services and Endpoints.

use std::{
    collections::BTreeMap,
    io,
    net::{IpAddr, SocketAddr},
    sync::Arc,
    time::Duration,
};

use conduit_identity::{Clock, ManualClock, UnixTime};
use conduit_k8s::{
    cache::{Cache, without_managed_fields},
    watch::{Follow, ObjectKey, Source, Timing},
};
use conduit_net::{Net, Resolved};
use conduit_runtime::Seed;
use k8s_openapi::api::core::v1::{Endpoints, Service, ServicePort};
use kube::Client;
use parking_lot::Mutex;

/// How long cluster DNS lets an answer be kept.
const TTL: Duration = Duration::from_secs(5);
/// The value of `clusterIP` that asks for no virtual address.
const HEADLESS: &str = "None";

/// The Services of a cluster. Cloning shares.
#[derive(Clone)]
pub struct Services {
    services: Cache<Service>,
    endpoints: Cache<Endpoints>,
    clock: Arc<dyn Clock>,
}

/// How long a turn lasts for whoever connects once.
const TURN: Duration = Duration::from_secs(1);

/// Whose turn it is behind each Service's port, as one client sees it. That depends on the time and on what the client did just
/// now: what it did before, and what others do, makes no difference, or whoever asked once more would end up elsewhere from
/// then on.
#[derive(Debug, Default)]
pub(crate) struct Turns(Mutex<BTreeMap<SocketAddr, (u128, u128)>>);

impl Turns {
    /// One of `among` in turn; none when there is none.
    fn next(&self, service: SocketAddr, among: &[SocketAddr], now: UnixTime) -> Option<SocketAddr> {
        let turn = now.0.as_millis() / TURN.as_millis();
        let mut turns = self.0.lock();
        let before = turns.get(&service).filter(|(last, _)| *last == turn);
        let times = before.map_or(0, |(_, times)| times + 1);
        turns.insert(service, (turn, times));
        let place = (turn + times).checked_rem(among.len() as u128)?;
        among.get(usize::try_from(place).ok()?).copied()
    }
}

/// What kube-proxy makes of a destination.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Translated {
    /// It is no Service's address.
    NotAService,
    /// A ready endpoint of the Service.
    Endpoint(SocketAddr),
    /// The Service has none for this port, or no such port.
    NoEndpoint,
}

/// What a name means.
#[derive(Debug, Clone, PartialEq, Eq)]
enum Meaning {
    Addresses(Vec<IpAddr>),
    Alias(String),
    NotHere,
}

impl Services {
    /// Follows the Services of the cluster behind `client`: the caller runs the future for as long as they are to be
    /// followed.
    pub fn follow(
        client: &Client,
        clock: Arc<dyn Clock>,
        seed: &Seed,
    ) -> (Self, impl Future<Output = ()> + Send + 'static) {
        let services = Follow::new(Source::<Service>::all(client.clone()), Timing::default(), seed);
        let endpoints = Follow::new(Source::<Endpoints>::all(client.clone()), Timing::default(), seed);
        let (services, follow_services) = Cache::new(services, without_managed_fields);
        let (endpoints, follow_endpoints) = Cache::new(endpoints, without_managed_fields);
        let following = async move {
            tokio::join!(follow_services, follow_endpoints);
        };
        (Self { services, endpoints, clock }, following)
    }

    /// Services that never change at a time that stands still, for tests and for networks without a cluster.
    pub fn fixed(
        services: impl IntoIterator<Item = Service>,
        endpoints: impl IntoIterator<Item = Endpoints>,
    ) -> Self {
        let (services, endpoints) = (Cache::fixed(services), Cache::fixed(endpoints));
        Self { services, endpoints, clock: Arc::new(ManualClock::at(UnixTime::default())) }
    }

    /// Waits until everything has been seen once; the caller owns the deadline.
    pub async fn synced(&self) {
        tokio::join!(self.services.synced(), self.endpoints.synced());
    }

    /// Waits until the Service is known; the caller owns the deadline.
    pub(crate) async fn know(&self, namespace: &str, name: &str) {
        let key = ObjectKey::new(namespace, name);
        let mut changes = self.services.changes();
        loop {
            changes.mark_unchanged();
            if self.services.get(&key).is_some() {
                return;
            }
            // The sender lives in the cache that we hold.
            drop(changes.changed().await);
        }
    }

    /// Waits until every Service of `namespace` that selects pods by the label `app` has `ip` among its ready
    /// endpoints; the caller owns the deadline.
    pub(crate) async fn include(&self, namespace: &str, app: &str, ip: IpAddr) {
        let mut changes = self.endpoints.changes();
        loop {
            changes.mark_unchanged();
            let selected = |service: &Service| {
                let selector = service.spec.as_ref().and_then(|spec| spec.selector.as_ref());
                selector.and_then(|selector| selector.get("app")).is_some_and(|value| value == app)
            };
            let services = self.services.snapshot();
            let mut waiting = services.iter().filter(|(key, service)| {
                key.namespace == namespace && selected(service) && !self.ready_addresses(key).contains(&ip)
            });
            if waiting.next().is_none() {
                return;
            }
            // The sender lives in the cache that we hold.
            drop(changes.changed().await);
        }
    }

    /// Where a connection to `address` ends up. Endpoints take turns.
    pub(crate) fn translate(&self, address: SocketAddr, turns: &Turns) -> Translated {
        let services = self.services.snapshot();
        let ip = address.ip().to_string();
        let found = services.iter().find(|(_, service)| cluster_ip(service) == Some(ip.as_str()));
        let Some((key, service)) = found else { return Translated::NotAService };
        let Some(port) = port_of(service, address.port()) else { return Translated::NoEndpoint };
        let next = turns.next(address, &self.ready(key, port), self.clock.now());
        next.map_or(Translated::NoEndpoint, Translated::Endpoint)
    }

    /// Looks `host` up for a pod of `namespace`; what is no name of the cluster is asked of `outside`.
    pub(crate) async fn resolve(&self, host: &str, namespace: &str, outside: &Net) -> io::Result<Resolved> {
        if host.trim_matches(['[', ']']).parse::<IpAddr>().is_ok() {
            return outside.resolve(host).await;
        }
        match self.meaning(host, namespace) {
            Meaning::Addresses(addrs) if addrs.is_empty() => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} has no ready endpoint")))
            }
            Meaning::Addresses(addrs) => Ok(Resolved { addrs, ttl: TTL }),
            Meaning::Alias(other) => outside.resolve(&other).await,
            Meaning::NotHere if is_of_the_cluster(host) => {
                Err(io::Error::new(io::ErrorKind::NotFound, format!("{host} is no Service of the cluster")))
            }
            Meaning::NotHere => outside.resolve(host).await,
        }
    }

    fn meaning(&self, host: &str, namespace: &str) -> Meaning {
        let Some(key) = service_named(host, namespace) else { return Meaning::NotHere };
        let Some(service) = self.services.get(&key) else { return Meaning::NotHere };
        if let Some(alias) = service.spec.as_ref().and_then(|spec| spec.external_name.clone()) {
            return Meaning::Alias(alias);
        }
        match cluster_ip(&service) {
            Some(HEADLESS) | None => Meaning::Addresses(self.ready_addresses(&key)),
            Some(ip) => Meaning::Addresses(ip.parse().into_iter().collect()),
        }
    }

    fn ready_addresses(&self, key: &ObjectKey) -> Vec<IpAddr> {
        let endpoints = self.endpoints.get(key);
        let subsets =
            endpoints.as_ref().and_then(|endpoints| endpoints.subsets.as_deref()).unwrap_or_default();
        let addresses = subsets.iter().flat_map(|subset| subset.addresses.iter().flatten());
        let mut found: Vec<IpAddr> = addresses.filter_map(|address| address.ip.parse().ok()).collect();
        found.sort();
        found.dedup();
        found
    }

    fn ready(&self, key: &ObjectKey, port: &ServicePort) -> Vec<SocketAddr> {
        let endpoints = self.endpoints.get(key);
        let subsets =
            endpoints.as_ref().and_then(|endpoints| endpoints.subsets.as_deref()).unwrap_or_default();
        let mut ready = Vec::new();
        for subset in subsets {
            let ports = subset.ports.as_deref().unwrap_or_default();
            let Some(target) = ports.iter().find(|target| target.name == port.name) else { continue };
            let Ok(target) = u16::try_from(target.port) else { continue };
            let addresses = subset.addresses.iter().flatten().filter_map(|address| address.ip.parse().ok());
            ready.extend(addresses.map(|ip: IpAddr| SocketAddr::new(ip, target)));
        }
        ready
    }
}

fn cluster_ip(service: &Service) -> Option<&str> {
    service.spec.as_ref()?.cluster_ip.as_deref().filter(|ip| !ip.is_empty())
}

fn port_of(service: &Service, port: u16) -> Option<&ServicePort> {
    let ports = service.spec.as_ref()?.ports.as_deref()?;
    ports.iter().find(|known| known.port == i32::from(port))
}

/// The Service that a pod of `namespace` means by `host`, by the search path of its resolver.
fn service_named(host: &str, namespace: &str) -> Option<ObjectKey> {
    let host = host.trim_end_matches('.').to_ascii_lowercase();
    let short = host.strip_suffix(".cluster.local").unwrap_or(&host);
    let labels: Vec<&str> = short.split('.').collect();
    match labels[..] {
        [service] if short.len() == host.len() => Some(ObjectKey::new(namespace, service)),
        [service, namespace] if short.len() == host.len() => Some(ObjectKey::new(namespace, service)),
        [service, namespace, "svc"] => Some(ObjectKey::new(namespace, service)),
        _ => None,
    }
}

/// Whether no resolver outside can know `host`.
fn is_of_the_cluster(host: &str) -> bool {
    let host = host.trim_end_matches('.');
    host.ends_with(".cluster.local") || host.ends_with(".svc")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn service(name: &str, spec: serde_json::Value) -> Service {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "spec": spec}))
            .unwrap()
    }

    fn endpoints(name: &str, subsets: serde_json::Value) -> Endpoints {
        serde_json::from_value(json!({"metadata": {"name": name, "namespace": "shop"}, "subsets": subsets}))
            .unwrap()
    }

    fn shop() -> Services {
        let ports = json!([{"name": "http", "port": 80}, {"name": "admin", "port": 81}]);
        Services::fixed(
            [
                service("web", json!({"clusterIP": "10.96.0.1", "ports": ports})),
                service("db", json!({"clusterIP": "None", "ports": [{"port": 5432}]})),
                service("idle", json!({"clusterIP": "10.96.0.2", "ports": [{"port": 80}]})),
                service("elsewhere", json!({"type": "ExternalName", "externalName": "192.0.2.7"})),
            ],
            [
                endpoints(
                    "web",
                    json!([{
                        "addresses": [{"ip": "127.16.0.1"}, {"ip": "127.16.0.2"}],
                        "notReadyAddresses": [{"ip": "127.16.0.3"}],
                        "ports": [{"name": "http", "port": 8080}, {"name": "other", "port": 1}],
                    }]),
                ),
                endpoints("db", json!([{"addresses": [{"ip": "127.16.0.9"}], "ports": [{"port": 5432}]}])),
            ],
        )
    }

    #[test]
    fn a_virtual_address_leads_to_ready_endpoints_in_turn() {
        let shop = shop();
        let (one, another) = (Turns::default(), Turns::default());
        let to = |address: &str| shop.translate(address.parse().unwrap(), &one);
        let endpoint = |address: &str| Translated::Endpoint(address.parse().unwrap());
        assert_eq!(to("10.96.0.1:80"), endpoint("127.16.0.1:8080"));
        assert_eq!(to("10.96.0.1:80"), endpoint("127.16.0.2:8080"));
        assert_eq!(to("10.96.0.1:80"), endpoint("127.16.0.1:8080"));
        let first = shop.translate("10.96.0.1:80".parse().unwrap(), &another);
        assert_eq!(first, endpoint("127.16.0.1:8080"), "each client has turns of its own");
        let among = ["127.16.0.1:1", "127.16.0.2:1"].map(|address| address.parse().unwrap());
        let at = |millis| Turns::default().next(among[0], &among, UnixTime(Duration::from_millis(millis)));
        let places = [0, 999, 1_000, 1_999, 2_000].map(|millis| at(millis).unwrap());
        assert_eq!(places, [among[0], among[0], among[1], among[1], among[0]], "and time goes on for all");
        assert_eq!(to("10.96.0.1:81"), Translated::NoEndpoint);
        assert_eq!(to("10.96.0.1:9"), Translated::NoEndpoint);
        assert_eq!(to("10.96.0.2:80"), Translated::NoEndpoint);
        assert_eq!(to("127.16.0.1:8080"), Translated::NotAService);
    }

    #[tokio::test]
    async fn names_mean_what_cluster_dns_says() {
        let shop = shop();
        let outside = conduit_net::TokioNetwork::shared();
        for (host, namespace, expected) in [
            ("web", "shop", "10.96.0.1"),
            ("web.shop", "other", "10.96.0.1"),
            ("Web.shop.svc", "other", "10.96.0.1"),
            ("web.shop.svc.cluster.local.", "other", "10.96.0.1"),
            ("db.shop", "shop", "127.16.0.9"),
            ("elsewhere", "shop", "192.0.2.7"),
            ("10.1.2.3", "shop", "10.1.2.3"),
        ] {
            let resolved = shop.resolve(host, namespace, &outside).await.unwrap();
            assert_eq!(resolved.addrs, [expected.parse::<IpAddr>().unwrap()], "{host}");
        }
        let missing = shop.resolve("nothing.shop.svc.cluster.local", "shop", &outside).await.unwrap_err();
        assert_eq!(missing.kind(), io::ErrorKind::NotFound);
    }
}
