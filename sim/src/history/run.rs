//! A run, and what follows from who held what at which moment.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::IpAddr,
    time::Duration,
};

use conduit_identity::UnixTime;

use super::{Op, Ops, Reading, StatRow, TapEvent, WireConnection};

/// Within which time a proxy takes files over that changed in its pod (it reads them again on a timer, too).
pub(super) const RELOAD: Duration = Duration::from_secs(20);

/// Everything that is known of one run.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Run {
    /// What was asked, and what arrived.
    pub ops: Ops,
    /// What crossed between hosts.
    pub wire: Vec<WireConnection>,
    /// Every pod there ever was. Addresses may come back; no two pods have one at a time.
    pub pods: Vec<PodLife>,
    /// The workloads (`namespace/name`) behind each Service (`namespace/name`).
    pub services: BTreeMap<String, BTreeSet<String>>,
    /// What was broken.
    pub faults: Vec<FaultRecord>,
    /// When something else changed that Conduit needs time to follow, beyond pods, credentials and clocks.
    pub changes: Vec<Duration>,
    /// What proxies counted, in the order of time.
    pub readings: Vec<Reading>,
    /// What `stat` said.
    pub stat: Vec<StatRow>,
    /// What `tap` said.
    pub taps: Vec<TapEvent>,
    /// What a right wall clock showed at the start.
    pub epoch: UnixTime,
    /// How many seconds a right wall clock moves in a second of simulated time; 0 counts as 1.
    pub clock_speed: u32,
    /// When the run ended.
    pub ended: Duration,
}

/// A pod, from its start to its end.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PodLife {
    /// Its address.
    pub ip: IpAddr,
    /// Its name.
    pub name: String,
    /// `namespace/name` of its workload.
    pub workload: String,
    /// What stands beside the application.
    pub sidecar: Sidecar,
    /// The name that its proxy is to prove; none unless it is [`Sidecar::Tls`].
    pub identity: Option<String>,
    /// When it could first be reached.
    pub from: Duration,
    /// When it was gone; none while it is there.
    pub until: Option<Duration>,
    /// When its proxy did not run although the pod did: from, and until.
    pub outages: Vec<(Duration, Duration)>,
    /// Certificates that lay in its files, in the order of time.
    pub credentials: Vec<Held>,
    /// Roots that lay in its files.
    pub trusted: Vec<Trusted>,
    /// By how many milliseconds its clock is ahead of a right one, since when; 0 before the first.
    pub skew: Vec<(Duration, i64)>,
}

/// What stands beside an application.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sidecar {
    /// A proxy, injected with TLS.
    Tls,
    /// A proxy, injected without TLS.
    Plaintext,
    /// Nothing.
    Absent,
}

/// A certificate in the files of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Held {
    /// When it could first be read.
    pub from: Duration,
    /// When it was replaced or removed. A proxy that has loaded it keeps it until it loads another.
    pub until: Option<Duration>,
    /// The name it proves.
    pub identity: String,
    /// The fingerprint of the root it leads to.
    pub root: String,
    /// The first second at which the whole chain is valid.
    pub not_before: UnixTime,
    /// The last second at which the whole chain is valid.
    pub not_after: UnixTime,
    /// Whether the key beside it is its own.
    pub matches_key: bool,
}

/// A root in the files of a pod.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Trusted {
    /// Its fingerprint.
    pub root: String,
    /// When it could first be read.
    pub from: Duration,
    /// When it was removed.
    pub until: Option<Duration>,
}

/// Something that was broken, and for how long.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct FaultRecord {
    /// Which fault.
    pub kind: String,
    /// When it began.
    pub from: Duration,
    /// When it was over; none when it lasted.
    pub until: Option<Duration>,
    /// How often it did anything.
    pub fired: u64,
    /// Who follows the cluster may not hear of changes meanwhile.
    pub hides_changes: bool,
    /// By how much a round trip takes longer meanwhile. Which of a Service's pods an operation goes to is Conduit's to choose,
    /// so one that met this need not have met it without.
    pub slows: Duration,
}

/// A stretch of time, its ends included.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Window {
    /// Its first moment.
    pub from: Duration,
    /// Its last moment.
    pub until: Duration,
}

impl Window {
    /// Whether `at` is in it.
    pub fn contains(self, at: Duration) -> bool {
        self.from <= at && at <= self.until
    }
}

impl PodLife {
    /// Whether it was there at `at`.
    pub fn is_alive(&self, at: Duration) -> bool {
        is_within(self.from, self.until, at)
    }
}

impl Run {
    /// The pod that had the address `ip` at `at`.
    pub fn pod(&self, ip: IpAddr, at: Duration) -> Option<&PodLife> {
        self.pods.iter().find(|pod| pod.ip == ip && pod.is_alive(at))
    }

    /// Whether one of the pods behind `op`'s Service had the address `ip` at some time.
    pub fn is_behind(&self, op: &Op, ip: IpAddr) -> bool {
        let workloads = self.services.get(&op.service);
        self.pods.iter().any(|pod| pod.ip == ip && workloads.is_some_and(|all| all.contains(&pod.workload)))
    }

    /// Whether `op` may have travelled on `connection`: from its client to a pod behind its Service, on its protocol's port,
    /// and open while it was under way.
    pub fn met(&self, op: &Op, connection: &WireConnection) -> bool {
        let ended = op.ended.unwrap_or(op.started + op.deadline);
        connection.client.ip() == op.client
            && connection.server.port() == op.protocol.port()
            && connection.opened <= ended
            && connection.closed.is_none_or(|closed| op.started <= closed)
            && self.is_behind(op, connection.server.ip())
    }

    /// What the clock of `pod` showed at `at`, in milliseconds since 1970.
    pub fn wall_ms(&self, pod: &PodLife, at: Duration) -> i128 {
        let skew = pod.skew.iter().rfind(|(since, _)| *since <= at).map_or(0, |(_, skew)| *skew);
        let passed = at.as_millis() * u128::from(self.clock_speed.max(1));
        signed(self.epoch.0.as_millis()) + signed(passed) + i128::from(skew)
    }

    /// Whether the clock of `judge` shows a moment at which `held` is valid.
    pub fn is_valid_at(&self, held: &Held, judge: &PodLife, at: Duration) -> bool {
        let now = self.wall_ms(judge, at);
        let (begins, ends) = (held.not_before.0.as_millis(), held.not_after.0.as_millis());
        signed(begins) <= now && now <= signed(ends)
    }

    /// Whether the proxy of `pod` may trust `root` at `at`. Roots that left the files are still trusted until the proxy has
    /// read the new files, and for as long as those are no use to it.
    pub fn may_trust(&self, pod: &PodLife, root: &str, at: Duration) -> bool {
        pod.trusted.iter().filter(|trusted| trusted.root == root && trusted.from <= at).any(|trusted| {
            let Some(left) = trusted.until else { return true };
            let Some(read_by) = at.checked_sub(RELOAD) else { return true };
            let news = pod.credentials.iter().map(|held| held.from);
            let news = news.chain(pod.trusted.iter().map(|trusted| trusted.from)).chain([left]);
            !news.filter(|news| (left..=read_by).contains(news)).any(|news| self.holds_usable(pod, news))
        })
    }

    /// Whether what lies in the files of `pod` at `at` is of use to its proxy.
    pub fn holds_usable(&self, pod: &PodLife, at: Duration) -> bool {
        self.usable(pod, at).is_some()
    }

    /// The certificate in the files of `pod` that its proxy can use at `at`: for its own name, with its key, from a root that
    /// lies beside it, and valid by the pod's own clock.
    pub fn usable<'a>(&self, pod: &'a PodLife, at: Duration) -> Option<&'a Held> {
        let trusts =
            |root: &str| pod.trusted.iter().any(|trusted| trusted.root == root && trusted.is_there(at));
        pod.credentials.iter().find(|held| {
            pod.sidecar == Sidecar::Tls
                && is_within(held.from, held.until, at)
                && held.matches_key
                && Some(&held.identity) == pod.identity.as_ref()
                && trusts(&held.root)
                && self.is_valid_at(held, pod, at)
        })
    }

    /// Whether `a` and `b` can do TLS with each other at `at`: both hold what the other believes, by both clocks.
    pub fn can_be_mutual(&self, a: &PodLife, b: &PodLife, at: Duration) -> bool {
        let believes = |judge: &PodLife, held: &Held| {
            let root = judge.trusted.iter().any(|trusted| trusted.root == held.root && trusted.is_there(at));
            root && self.is_valid_at(held, judge, at)
        };
        match (self.usable(a, at), self.usable(b, at)) {
            (Some(of_a), Some(of_b)) => believes(b, of_a) && believes(a, of_b),
            _ => false,
        }
    }

    /// When the last fault was over; the run's end when one lasted.
    pub fn last_fault_ended(&self) -> Duration {
        self.faults.iter().map(|fault| fault.until.unwrap_or(self.ended)).max().unwrap_or_default()
    }

    /// The stretches in which everything is settled: `after` since the last fault was over and anything changed (a pod, a
    /// certificate, a root, a clock, an expiry), and up to the next.
    pub fn settled(&self, after: Duration) -> Vec<Window> {
        let mut disturbed: Vec<(Duration, Duration)> = self.changed().map(|at| (at, at)).collect();
        disturbed.extend(
            self.faults.iter().map(|fault| (fault.from, fault.until.unwrap_or(self.ended).max(fault.from))),
        );
        disturbed.retain(|(from, _)| *from <= self.ended);
        disturbed.sort_unstable();
        let (mut windows, mut calm) = (Vec::new(), after);
        for (from, until) in disturbed {
            if calm < from {
                windows.push(Window { from: calm, until: from });
            }
            calm = calm.max(until + after);
        }
        if calm < self.ended {
            windows.push(Window { from: calm, until: self.ended });
        }
        windows
    }

    fn changed(&self) -> impl Iterator<Item = Duration> {
        self.changes.iter().copied().chain(self.pods.iter().flat_map(|pod| {
            let files = pod.credentials.iter().map(|held| (held.from, held.until));
            let files = files.chain(pod.trusted.iter().map(|trusted| (trusted.from, trusted.until)));
            let spans = files.chain([(pod.from, pod.until)]);
            let spans = spans.chain(pod.outages.iter().map(|(from, until)| (*from, Some(*until))));
            let moments = spans.flat_map(|(from, until)| [Some(from), until]).flatten();
            let clocks = pod.skew.iter().map(|(since, _)| *since);
            let shown = self.pods.iter().flat_map(|other| &other.credentials);
            moments.chain(clocks).chain(shown.flat_map(|held| self.crossings(pod, held)))
        }))
    }

    /// When the clock of `pod`, as it goes between two settings, passes an end of `held`.
    fn crossings(&self, pod: &PodLife, held: &Held) -> Vec<Duration> {
        let settings = [(Duration::ZERO, 0)].into_iter().chain(pod.skew.iter().copied());
        let speed = i128::from(self.clock_speed.max(1));
        let ends = [held.not_before, held.not_after].map(|end| signed(end.0.as_millis()));
        let crossing = |(since, skew): (Duration, i64), end: i128| {
            let passed = end - signed(self.epoch.0.as_millis()) - i128::from(skew);
            let at = Duration::from_millis(u64::try_from(passed / speed).ok()?);
            // What another setting overtakes is calm that is not used, no harm.
            (passed >= 0 && at >= since).then_some(at)
        };
        settings.flat_map(|setting| ends.map(|end| crossing(setting, end))).flatten().collect()
    }
}

impl Trusted {
    /// Whether it lies in the files at `at`.
    pub fn is_there(&self, at: Duration) -> bool {
        is_within(self.from, self.until, at)
    }
}

fn is_within(from: Duration, until: Option<Duration>, at: Duration) -> bool {
    from <= at && until.is_none_or(|until| at < until)
}

/// Milliseconds of a `Duration` fit into 75 bits.
fn signed(ms: u128) -> i128 {
    i128::try_from(ms).unwrap_or(i128::MAX)
}

#[cfg(test)]
mod tests;
