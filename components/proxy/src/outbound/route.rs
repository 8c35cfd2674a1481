//! Where a connection or a request goes: to an endpoint that the destination service told, or else to where the
//! application sent it. What plain Kubernetes would have delivered is never refused for want of discovery.
//!
//! The destination service is asked about the original destination, and about the authority only where there is none.
//! v0.5.0 went by the authority first, which sends a request elsewhere than Kubernetes would whenever the two disagree:
//! behind a forward proxy, with a `Host` set by hand, or when the client of a headless Service chose its pod itself. The
//! address has the same Service, labels and identities behind it.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use conduit_net::OriginalDst;
use tokio::{
    sync::watch,
    time::{Instant, sleep_until, timeout},
};

use super::{Connection, Content, Outbound};
use crate::{
    balance::{self, Picked},
    connect::{ConnectError, Connected, Remote, Security},
    discover::{Endpoint, Endpoints, Resolution, Target},
    metrics::Labels,
    pool::LANES_MAX,
    session::Why,
};

/// Endpoints tried for one request or connection, when the first ones refuse TCP. The original destination comes after them.
const MAX_TRIES: usize = 3;

/// For an endpoint to accept when there are others: Linux sends a second SYN after this (RFC 6298, section 2.1), and one that
/// lost its first would be dialled again anyway.
const PATIENCE: Duration = Duration::from_secs(1);

/// The same for an endpoint that the service does not stand by, when Kubernetes can be asked: it is as likely gone as slow, and
/// no two pods of a cluster are that far apart. A server that speaks first may then hold its greeting back as well.
const PATIENCE_IN_DOUBT: Duration = Duration::from_millis(300);

/// Who refuses does so at once, or when a lost SYN was sent again.
const REFUSED_WITHIN: Duration = Duration::from_millis(1_500);

/// For a name that only DNS knows.
const DNS_TIMEOUT: Duration = Duration::from_secs(2);

/// HTTP's port when an authority names none.
const DEFAULT_PORT: u16 = 80;

/// What is known about where something goes.
pub(super) struct Route {
    resolution: Resolution,
    /// Where to go when nothing better is known.
    fallback: Option<SocketAddr>,
    tried: Vec<SocketAddr>,
    /// How often Kubernetes has chosen somebody who did not accept.
    lost: usize,
    /// The first who was given up for being silent, and since when: the kernel would ask again, when it has been so for a while.
    owed: Option<(Remote, Instant)>,
    /// Since when who is asked again, last of all, had been silent.
    asked_again: Option<Instant>,
    /// Which part of many endpoints is this connection's.
    share: u64,
}

/// A connection, and what it leads to.
pub(super) struct Opened {
    pub(super) remote: Remote,
    pub(super) connected: Connected,
}

impl Route {
    /// How many endpoints there are to choose from.
    pub(super) fn endpoints(&self) -> usize {
        match &self.resolution {
            Resolution::Known(endpoints) => endpoints.list.len(),
            Resolution::Pending | Resolution::Unknown => 0,
        }
    }

    /// Whether a connection that did not open, and was begun at `since`, leaves something else to try.
    pub(super) fn failed(&mut self, remote: &Remote, since: Instant, draw: u64) -> bool {
        if let Remote::Endpoint(endpoint) = remote {
            endpoint.load.connect_failed(Instant::now(), since.elapsed(), draw);
        }
        if self.asked_again.is_some() {
            return false;
        }
        if self.patience(remote).is_some_and(|patience| since.elapsed() >= patience) {
            self.owed.get_or_insert_with(|| (remote.clone(), since));
        }
        // Who cannot be reached at all is not worth another time as long.
        if self.is_chosen_by_kubernetes(remote) && since.elapsed() < REFUSED_WITHIN {
            self.lost += 1;
            if self.lost < MAX_TRIES {
                return true;
            }
        }
        self.leave_out(remote);
        self.tried.len() <= MAX_TRIES || self.owed.is_some()
    }

    /// Waits until what was chosen may be tried: who was silent is asked again when the kernel would have.
    pub(super) async fn wait(&self) {
        if let Some(since) = self.asked_again {
            sleep_until(since + PATIENCE).await;
        }
    }

    /// How long to wait for `remote` to accept, where that is shorter than usual: as long as there is somebody else to ask, a
    /// pod that is silent, because its node has died or nothing reaches it, is not worth a whole deadline.
    pub(super) fn patience(&self, remote: &Remote) -> Option<Duration> {
        let Resolution::Known(endpoints) = &self.resolution else { return None };
        if self.asked_again.is_some() {
            return None;
        }
        if self.is_chosen_by_kubernetes(remote) {
            // It may choose another one; who is chosen last is waited for.
            return (self.lost + 1 < MAX_TRIES).then_some(PATIENCE_IN_DOUBT);
        }
        let Remote::Endpoint(endpoint) = remote else { return None };
        if self.fallback.is_some_and(|original| original == endpoint.addr) {
            return None;
        }
        if self.tried.len() + 1 >= MAX_TRIES {
            return None;
        }
        if self.has_elsewhere(endpoints) {
            return Some(PATIENCE_IN_DOUBT);
        }
        let mut others = endpoints.list.iter().map(|other| other.addr);
        others.any(|other| other != endpoint.addr && !self.tried.contains(&other)).then_some(PATIENCE)
    }

    /// The next place to try; at last, the first one that was silent.
    pub(super) fn choose(&mut self, draw: u64) -> Option<Remote> {
        let untried = self.choose_untried(draw);
        untried.or_else(|| {
            let (remote, since) = self.owed.take()?;
            self.asked_again = Some(since);
            Some(remote)
        })
    }

    fn choose_untried(&self, draw: u64) -> Option<Remote> {
        let address = |why, labels: &Labels| {
            let addr = self.fallback.filter(|addr| !self.tried.contains(addr))?;
            Some(Remote::Address { addr, labels: labels.clone(), why })
        };
        match &self.resolution {
            Resolution::Pending => address(Why::NoDiscovery, &Labels::default()),
            Resolution::Unknown => address(Why::NoIdentity, &Labels::default()),
            Resolution::Known(endpoints) => {
                // Endpoints that the service does not stand by deserve one try, not three: the rest is Kubernetes' to know.
                let enough =
                    endpoints.doubted && !self.tried.is_empty() || self.is_better_elsewhere(endpoints);
                let doubted = || address(Why::NoDiscovery, &endpoints.labels).filter(|_| enough);
                let endpoint = || {
                    (self.tried.len() < MAX_TRIES).then(|| self.choose_endpoint(endpoints, draw)).flatten()
                };
                // Whatever the service stands by: where nobody accepts, Kubernetes may know somebody who does.
                let why = if endpoints.list.is_empty() { Why::NoIdentity } else { Why::NoDiscovery };
                doubted().or_else(endpoint).or_else(|| address(why, &endpoints.labels))
            }
        }
    }

    /// Whether Kubernetes sends a connection to `remote` to one of several, as far as is known, to another one each time: it does
    /// not know yet that one of them is gone, either.
    fn is_chosen_by_kubernetes(&self, remote: &Remote) -> bool {
        let Resolution::Known(endpoints) = &self.resolution else {
            return matches!(remote, Remote::Address { .. });
        };
        // What was told of a Service and is doubted may be one endpoint of several, and where none was told there may be some.
        let are_several = endpoints.list.len() != 1 || endpoints.doubted;
        matches!(remote, Remote::Address { addr, .. } if are_several && endpoints.at(*addr).is_none())
    }

    /// Whether Kubernetes may know better than these endpoints: the service does not stand by them, and the original destination
    /// is none of them.
    fn has_elsewhere(&self, endpoints: &Endpoints) -> bool {
        let is_elsewhere = |original| endpoints.at(original).is_none() && !self.tried.contains(&original);
        endpoints.doubted && self.fallback.is_some_and(is_elsewhere)
    }

    /// Whether Kubernetes is asked at once: lately nobody accepted at any of these endpoints, and not every request is to wait
    /// for that again. One is let try as soon as an endpoint's time has come.
    fn is_better_elsewhere(&self, endpoints: &Endpoints) -> bool {
        let now = Instant::now();
        let is_failing = |endpoint: &Arc<Endpoint>| !endpoint.load.is_available(now);
        self.has_elsewhere(endpoints) && !endpoints.list.is_empty() && endpoints.list.iter().all(is_failing)
    }

    /// Whether `remote` had better be left for the original destination: the service does not stand by it, and it does not
    /// prove to be who it was. Its address may be somebody else's by now, and nothing would tell; Kubernetes knows, and
    /// there is no encryption to lose.
    pub(super) fn may_be_somebody_else(&self, remote: &Remote, is_proven: bool) -> bool {
        let Resolution::Known(endpoints) = &self.resolution else { return false };
        let has_elsewhere = self.fallback.is_some_and(|original| original != remote.addr());
        endpoints.doubted && has_elsewhere && matches!(remote, Remote::Endpoint(_)) && !is_proven
    }

    /// Leaves `remote` out of what is still chosen from.
    pub(super) fn leave_out(&mut self, remote: &Remote) {
        self.tried.push(remote.addr());
    }

    fn choose_endpoint(&self, endpoints: &Endpoints, draw: u64) -> Option<Remote> {
        // The client of a headless Service chose its pod itself.
        if let Some(chosen) = self.fallback.and_then(|original| endpoints.at(original)) {
            return (!self.tried.contains(&chosen.addr)).then(|| Remote::Endpoint(chosen.clone()));
        }
        if self.tried.is_empty() && endpoints.list.len() <= LANES_MAX {
            return pick(&endpoints.list, |endpoint| endpoint, draw).map(Remote::Endpoint);
        }
        let untried = |endpoint: &&Arc<Endpoint>| !self.tried.contains(&endpoint.addr);
        let own: Vec<_> = share_of(&endpoints.list, self.share).filter(untried).collect();
        let all = || endpoints.list.iter().filter(untried).collect::<Vec<_>>();
        let picked = pick(&own, |endpoint| endpoint, draw);
        picked.or_else(|| pick(&all(), |endpoint| endpoint, draw)).map(Remote::Endpoint)
    }
}

/// One of `candidates`; none when there are none.
fn pick<T>(candidates: &[T], endpoint: impl Fn(&T) -> &Arc<Endpoint>, draw: u64) -> Option<Arc<Endpoint>> {
    let now = Instant::now();
    match balance::pick(candidates, |candidate| &*endpoint(candidate).load, now, draw) {
        Picked::Available(index) => {
            let picked = candidates.get(index).map(|c| endpoint(c).clone());
            picked.inspect(|endpoint| endpoint.load.on_trial(now, PATIENCE))
        }
        Picked::AllFailing(index) => candidates.get(index).map(|c| endpoint(c).clone()),
        Picked::Nothing => None,
    }
}

/// As many of `endpoints` as a connection keeps connections to: those from a place on that `share` tells, which moves little
/// when there is one endpoint more.
fn share_of(endpoints: &[Arc<Endpoint>], share: u64) -> impl Iterator<Item = &Arc<Endpoint>> {
    let start = ((u128::from(share) * endpoints.len() as u128) >> 64) as usize;
    let (before, after) = endpoints.split_at(start);
    after.iter().chain(before).take(LANES_MAX)
}

impl Outbound {
    /// What is known about where a request for `authority` goes, after a short wait for the destination service when it
    /// is asked for the first time.
    pub(super) async fn route(&self, connection: &Connection, authority: &str) -> Route {
        let original = connection.original;
        let resolution = match original {
            Some(original) => {
                let known = || self.known(Target::of_address(OriginalDst(original)));
                // The requests of one connection share its destination, and one look-up.
                current(connection.known.get_or_init(known).await)
            }
            None => match Target::of_authority(authority, &self.config.pod_namespace) {
                Some(target) => current(&self.known(target).await),
                None => Resolution::Unknown,
            },
        };
        let fallback = match (original, &resolution) {
            (Some(original), _) => Some(original),
            (None, Resolution::Known(_)) => None,
            (None, _) => self.look_up(authority).await,
        };
        Route {
            resolution,
            fallback,
            tried: Vec::new(),
            lost: 0,
            owed: None,
            asked_again: None,
            share: connection.share,
        }
    }

    async fn known(&self, target: Target) -> watch::Receiver<Resolution> {
        self.discover.resolve(&target, self.config.timeouts.discovery).await
    }

    /// Opens a connection for opaque bytes that were going to `original`.
    pub(super) async fn open_original(
        &self,
        connection: &Connection,
        original: SocketAddr,
        content: Content,
    ) -> Result<Opened, ConnectError> {
        let mut route = self.route(connection, "").await;
        let mut last = ConnectError::Refused;
        while let Some(remote) = route.choose(self.draw()) {
            let security = match self.connector.security(&remote, connection.session.peer().ip()) {
                Security::Plain(_) if content == Content::Tls => Security::Plain(Why::AppTls),
                security => security,
            };
            if route.may_be_somebody_else(&remote, security.is_proof()) {
                route.leave_out(&remote);
                continue;
            }
            route.wait().await;
            let since = Instant::now();
            match self.connector.open(&remote, &security, route.patience(&remote)).await {
                Ok(connected) if route.may_be_somebody_else(&remote, connected.tls.is_proof()) => {
                    route.leave_out(&remote);
                    continue;
                }
                Ok(connected) => {
                    remote.connected();
                    return Ok(Opened { remote, connected });
                }
                Err(error) => last = error,
            }
            if !route.failed(&remote, since, self.draw()) {
                break;
            }
        }
        tracing::debug!(%original, error = %last, "no endpoint can be reached");
        Err(last)
    }

    /// Where DNS says that `authority` is: for clients that use the proxy as an HTTP proxy.
    async fn look_up(&self, authority: &str) -> Option<SocketAddr> {
        let authority: http::uri::Authority = authority.parse().ok()?;
        let found = timeout(DNS_TIMEOUT, self.net.resolve(authority.host())).await.ok()?.ok()?;
        let ip = found.addrs.first()?;
        Some(SocketAddr::new(*ip, authority.port_u16().unwrap_or(DEFAULT_PORT)))
    }
}

fn current(known: &watch::Receiver<Resolution>) -> Resolution {
    known.borrow().clone()
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;
    use crate::balance::Load;

    fn endpoint(number: u16) -> Arc<Endpoint> {
        let [high, low] = number.to_be_bytes();
        Arc::new(Endpoint {
            addr: ([10, 0, high, low], 80).into(),
            identity: None,
            labels: Labels::default(),
            version: 1,
            load: Arc::new(Load::new(Instant::now())),
        })
    }

    fn chosen(list: Vec<Arc<Endpoint>>, share: u64) -> BTreeSet<SocketAddr> {
        let endpoints = Endpoints { list, ..Endpoints::default() };
        let resolution = Resolution::Known(Arc::new(endpoints));
        let mut route = Route {
            resolution,
            fallback: None,
            tried: Vec::new(),
            lost: 0,
            owed: None,
            asked_again: None,
            share,
        };
        let draw = |number: u64| number.wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (0..20_000).filter_map(|number| Some(route.choose(draw(number))?.addr())).collect()
    }

    const SERVICE: ([u8; 4], u16) = ([10, 96, 0, 1], 80);

    fn to_service(list: Vec<Arc<Endpoint>>, doubted: bool) -> Route {
        let resolution = Resolution::Known(Arc::new(Endpoints { list, doubted, ..Endpoints::default() }));
        Route {
            resolution,
            fallback: Some(SERVICE.into()),
            tried: Vec::new(),
            lost: 0,
            owed: None,
            asked_again: None,
            share: 0,
        }
    }

    #[tokio::test(start_paused = true)]
    async fn the_only_endpoint_is_not_waited_for_long_when_kubernetes_may_know_better() {
        let mut route = to_service(vec![endpoint(1)], true);
        let remote = route.choose(0).unwrap();
        assert_eq!((remote.addr(), route.patience(&remote)), (endpoint(1).addr, Some(PATIENCE_IN_DOUBT)));
        let believed = to_service(vec![endpoint(1)], false);
        assert_eq!(believed.patience(&remote), None);
        let mut pod = to_service(vec![endpoint(1)], true);
        pod.fallback = Some(endpoint(1).addr);
        assert_eq!(pod.patience(&remote), None);
    }

    #[tokio::test(start_paused = true)]
    async fn doubted_endpoints_that_fail_are_passed_by_until_their_time_has_come() {
        let gone = endpoint(1);
        let mut first = to_service(vec![gone.clone()], true);
        let remote = first.choose(0).unwrap();
        assert!(first.failed(&remote, Instant::now(), 0));
        assert_eq!(first.choose(0).unwrap().addr(), SERVICE.into());
        // The next request does not wait for it, unless the service stands by it.
        let next = |doubted| to_service(vec![gone.clone()], doubted).choose(0).unwrap().addr();
        assert_eq!((next(true), next(false)), (SERVICE.into(), gone.addr));
        tokio::time::advance(Duration::from_secs(11)).await;
        // One finds out whether it is back; the others do not wait with it.
        assert_eq!((next(true), next(true)), (gone.addr, SERVICE.into()));
    }

    #[tokio::test(start_paused = true)]
    async fn kubernetes_is_asked_where_no_endpoint_accepts() {
        let addresses = |number: u16| (0..number).map(endpoint).collect::<Vec<_>>();
        for (endpoints, tried) in [(1, 1), (3, 3), (5, MAX_TRIES)] {
            let mut route = to_service(addresses(endpoints), false);
            for _ in 0..tried {
                let remote = route.choose(0).unwrap();
                assert!(matches!(remote, Remote::Endpoint(_)), "{remote:?}");
                assert!(route.failed(&remote, Instant::now(), 0));
            }
            let chosen = if endpoints > 1 { MAX_TRIES } else { 1 };
            for number in 1..=chosen {
                let last = route.choose(0).unwrap();
                assert!(matches!(last, Remote::Address { why: Why::NoDiscovery, .. }), "{number}: {last:?}");
                let goes_on = route.failed(&last, Instant::now(), 0);
                assert!(goes_on || number == chosen);
            }
            assert!(route.choose(0).is_none());
        }
    }

    #[tokio::test(start_paused = true)]
    async fn kubernetes_is_asked_again_where_a_doubted_endpoint_may_be_one_of_several() {
        let mut route = to_service(vec![endpoint(1)], true);
        for expected in [endpoint(1).addr, SERVICE.into(), SERVICE.into(), SERVICE.into()] {
            let remote = route.choose(0).unwrap();
            assert_eq!(remote.addr(), expected);
            route.failed(&remote, Instant::now(), 0);
        }
        assert!(route.choose(0).is_none());
    }

    #[tokio::test(start_paused = true)]
    async fn kubernetes_is_asked_again_where_nothing_is_known() {
        for resolution in
            [Resolution::Pending, Resolution::Unknown, Resolution::Known(Arc::new(Endpoints::default()))]
        {
            let mut route = Route { resolution, ..to_service(Vec::new(), false) };
            for _ in 0..MAX_TRIES {
                let remote = route.choose(0).unwrap();
                assert_eq!(remote.addr(), SERVICE.into());
                route.failed(&remote, Instant::now(), 0);
            }
            assert!(route.choose(0).is_none());
        }
        let mut unreachable = Route { resolution: Resolution::Unknown, ..to_service(Vec::new(), false) };
        let (remote, since) = (unreachable.choose(0).unwrap(), Instant::now());
        tokio::time::advance(REFUSED_WITHIN).await;
        unreachable.failed(&remote, since, 0);
        assert!(unreachable.choose(0).is_none(), "it is not waited for three times");
    }

    #[tokio::test(start_paused = true)]
    async fn kubernetes_is_asked_again_for_somebody_who_is_silent_and_waited_for_at_last() {
        let mut route = to_service((0..3).map(endpoint).collect(), true);
        let endpoint = route.choose(0).unwrap();
        assert!(route.failed(&endpoint, Instant::now(), 0));
        for patience in [Some(PATIENCE_IN_DOUBT), Some(PATIENCE_IN_DOUBT), None] {
            let service = route.choose(0).unwrap();
            assert_eq!((service.addr(), route.patience(&service)), (SERVICE.into(), patience));
            assert!(route.failed(&service, Instant::now(), 0));
        }
        assert!(matches!(route.choose(0).unwrap(), Remote::Endpoint(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn who_was_given_up_for_being_silent_is_asked_again_when_the_kernel_would_have() {
        let mut route = to_service(vec![endpoint(1)], true);
        let begun = Instant::now();
        let silent = route.choose(0).unwrap();
        tokio::time::advance(PATIENCE_IN_DOUBT).await;
        assert!(route.failed(&silent, begun, 0));
        for _ in 0..MAX_TRIES {
            let refusing = route.choose(0).unwrap();
            assert_eq!(refusing.addr(), SERVICE.into());
            assert!(route.failed(&refusing, Instant::now(), 0));
        }
        let again = route.choose(0).unwrap();
        assert_eq!((again.addr(), route.patience(&again)), (endpoint(1).addr, None));
        route.wait().await;
        assert_eq!(begun.elapsed(), PATIENCE);
        assert!(!route.failed(&again, Instant::now(), 0));
        assert!(route.choose(0).is_none());
    }

    // Paused, so that all cost the same.
    #[tokio::test(start_paused = true)]
    async fn a_connection_has_a_lasting_share_of_many_endpoints_and_all_of_few() {
        assert_eq!(chosen((0..100).map(endpoint).collect(), u64::MAX / 3).len(), 100);
        for share in [0, u64::MAX / 3, u64::MAX] {
            let before = chosen((0..1_000).map(endpoint).collect(), share);
            let after = chosen((0..1_001).map(endpoint).collect(), share);
            assert_eq!((before.len(), after.len()), (LANES_MAX, LANES_MAX));
            assert!(before.intersection(&after).count() >= LANES_MAX - 1, "{share}");
        }
        let shares = (0..50).map(|share| chosen((0..1_000).map(endpoint).collect(), share * (u64::MAX / 50)));
        assert_eq!(shares.flatten().collect::<BTreeSet<_>>().len(), 1_000, "somebody uses each");
    }
}
