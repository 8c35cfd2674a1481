//! Connections between pods, as proxies count them and as the wire shows them: `tools/wire-truth` for simulated time.

use std::{collections::BTreeSet, time::Duration};

use super::{Bounds, EDGE, told::Process, violation};
use crate::{
    check::Violation,
    history::{PodLife, Protocol, Reading, Run, WireConnection, WireKind},
};

/// How long it takes a proxy to see what a connection is, once its bytes cross: detection (2 s where a ClientHello may still
/// come), holding a greeting back (1 s), and then some.
const LATE: Duration = Duration::from_millis(3_500);

/// Labels of connections that never leave a pod.
const WITHIN: [&str; 2] = ["loopback", "internal_traffic"];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Direction {
    Inbound,
    Outbound,
}

impl Direction {
    fn label(self) -> &'static str {
        match self {
            Self::Inbound => "inbound",
            Self::Outbound => "outbound",
        }
    }

    /// The label of the connection between pods, of the two that a proxy has.
    fn side(self) -> &'static str {
        match self {
            Self::Inbound => "src",
            Self::Outbound => "dst",
        }
    }
}

/// What is counted apart.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Class {
    /// `tls="true"`.
    Mutual,
    /// Everything else that crossed, the application's own TLS included.
    Plain,
    /// `tls="app_tls"`, which is inbound only.
    AppTls,
}

impl Class {
    const ALL: [Self; 3] = [Self::Mutual, Self::Plain, Self::AppTls];

    fn name(self) -> &'static str {
        match self {
            Self::Mutual => "mutual TLS",
            Self::Plain => "plaintext",
            Self::AppTls => "the application's own TLS",
        }
    }
}

/// Compares each reading of `process`, and tells the first difference of each kind.
pub(super) fn check(run: &Run, process: &Process<'_>) -> Vec<Violation> {
    let mut violations = Vec::new();
    for direction in [Direction::Inbound, Direction::Outbound] {
        let wire = Wire::of(run, process, direction);
        let mut told = BTreeSet::new();
        for reading in &process.readings {
            for (kind, what) in wire.differences(reading) {
                if told.insert(kind) {
                    let (pod, direction) = (&process.pod.name, direction.label());
                    violations.push(violation(reading.at, format!("{pod} {direction}: {what}")));
                }
            }
        }
    }
    violations
}

/// The connections of one pod in one direction.
struct Wire<'a> {
    run: &'a Run,
    pod: &'a PodLife,
    since: Duration,
    direction: Direction,
    connections: Vec<&'a WireConnection>,
}

impl<'a> Wire<'a> {
    fn of(run: &'a Run, process: &Process<'a>, direction: Direction) -> Self {
        let Process { pod, since, .. } = *process;
        let (earliest, is_application) =
            (since.saturating_sub(EDGE), |port| Protocol::ALL.iter().any(|p| p.port() == port));
        let its_own = |connection: &&WireConnection| {
            let (client, server) = (connection.client.ip(), connection.server.ip());
            let own = if direction == Direction::Inbound { server } else { client };
            own == pod.ip
                && client != server
                && is_application(connection.server.port())
                && pod.is_alive(connection.opened)
                && connection.opened >= earliest
        };
        Self { run, pod, since, direction, connections: run.wire.iter().filter(its_own).collect() }
    }

    /// Each with what tells it from others of this direction.
    fn differences(&self, reading: &Reading) -> Vec<(String, String)> {
        let mut differences = Vec::new();
        let mut compare = |what: String, wire: Bounds, told: u64| {
            if !wire.allows(told) {
                differences.push((
                    what.clone(),
                    format!("{wire} connections of {what} on the wire, {told} in its metrics"),
                ));
            }
        };
        for class in Class::ALL {
            if class != Class::AppTls || self.direction == Direction::Inbound {
                compare(
                    class.name().to_owned(),
                    self.bounds(reading, class, |_| true),
                    self.told(reading, class),
                );
            }
        }
        if self.direction == Direction::Outbound {
            for (identity, told) in self.told_by(reading, "server_id", true) {
                let wire = self.bounds(reading, Class::Mutual, |to| to.sni.as_deref() == Some(identity));
                compare(format!("mutual TLS to {identity}"), wire, told);
            }
            for (name, told) in self.told_by(reading, "dst_pod", false) {
                // Who else has the address by now cannot be told from outside while nobody says so.
                let to = |to: &WireConnection| {
                    self.run.pods.iter().any(|pod| pod.name == name && pod.ip == to.server.ip())
                };
                // What was dialled without knowing the pod is counted without its name.
                let wire = Bounds { least: 0, ..self.bounds(reading, Class::Plain, to) };
                compare(format!("plaintext to {name}"), wire, told);
            }
        }
        differences.extend(self.unnoticed(reading));
        differences
    }

    fn bounds(&self, reading: &Reading, class: Class, also: impl Fn(&WireConnection) -> bool) -> Bounds {
        let mut bounds = Bounds::default();
        let before = self.connections.iter().filter(|connection| connection.opened <= reading.at + EDGE);
        for connection in before.filter(|connection| self.may_be(connection, class) && also(connection)) {
            bounds.add(self.must_be(connection, class) && self.is_settled(connection, reading.at));
        }
        bounds
    }

    /// Whether the proxy has counted it by `at`, whatever it is.
    fn is_settled(&self, connection: &WireConnection, at: Duration) -> bool {
        let told_by_bytes =
            connection.first_application_byte.unwrap_or(connection.opened).max(connection.opened);
        connection.opened >= self.since + EDGE
            && told_by_bytes + LATE <= at
            && connection.broken_by_fault.is_none()
    }

    fn may_be(&self, connection: &WireConnection, class: Class) -> bool {
        let (kind, for_the_proxy) = (connection.kind, self.is_for_the_proxy(connection));
        let is_inbound = self.direction == Direction::Inbound;
        // A ClientHello that is not the proxy's is the application's to answer, or was cut off and may have been passed on.
        let passed_on = kind == WireKind::Handshake
            && (connection.sni.is_none() || (is_inbound && !for_the_proxy))
            || kind == WireKind::Mesh && is_inbound && !for_the_proxy;
        match class {
            Class::Mutual => matches!(kind, WireKind::Mesh | WireKind::Handshake) && for_the_proxy,
            Class::Plain => {
                let is_fallback = kind == WireKind::Plaintext && (is_inbound || !for_the_proxy);
                is_fallback || passed_on || matches!(kind, WireKind::AppTls | WireKind::Silent)
            }
            Class::AppTls => {
                kind == WireKind::AppTls
                    || passed_on
                    || (kind == WireKind::Plaintext && connection.sni.is_some())
            }
        }
    }

    /// Whether it can be nothing else, and is counted for sure.
    fn must_be(&self, connection: &WireConnection, class: Class) -> bool {
        match (class, connection.kind) {
            (Class::Mutual, WireKind::Mesh) => self.is_for_the_proxy(connection),
            (Class::Plain, WireKind::Plaintext) => connection.sni.is_none(),
            (Class::Plain | Class::AppTls, WireKind::AppTls) => true,
            _ => false,
        }
    }

    /// Whether its ClientHello is for a proxy: of this pod, or of the one it goes to.
    fn is_for_the_proxy(&self, connection: &WireConnection) -> bool {
        connection.sni.as_ref().is_some_and(|name| match self.direction {
            Direction::Inbound => self.pod.identity.as_ref() == Some(name),
            Direction::Outbound => name.contains(".conduit-managed."),
        })
    }

    fn told(&self, reading: &Reading, class: Class) -> u64 {
        let labels = [("direction", self.direction.label()), ("peer", self.direction.side())];
        let of = |tls: &str| reading.total("tcp_open_total", &[labels[0], labels[1], ("tls", tls)]);
        match class {
            Class::Mutual => of("true"),
            Class::AppTls => of("app_tls"),
            Class::Plain => {
                let all = reading.total("tcp_open_total", &labels);
                WITHIN.iter().map(|tls| of(tls)).fold(all.saturating_sub(of("true")), u64::saturating_sub)
            }
        }
    }

    /// What is told by the values of `key`, of connections that are mutual TLS or not.
    fn told_by<'r>(&self, reading: &'r Reading, key: &str, mutual: bool) -> Vec<(&'r str, u64)> {
        let counters = reading.counters.iter().filter(|counter| {
            let tls = counter.label("tls").unwrap_or_default();
            counter.name == "tcp_open_total"
                && counter.label("direction") == Some(self.direction.label())
                && counter.label("peer") == Some(self.direction.side())
                && (tls == "true") == mutual
                && !WITHIN.contains(&tls)
        });
        let values: BTreeSet<&str> = counters.clone().filter_map(|counter| counter.label(key)).collect();
        // Beyond a cap, identities are `other`, and the rest is not complete.
        let values = if values.contains("other") { BTreeSet::new() } else { values };
        let sum = |value| counters.clone().filter(|c| c.label(key) == Some(value)).map(|c| c.value).sum();
        values.into_iter().map(|value| (value, sum(value))).collect()
    }

    /// Handshakes that came to an end at this proxy, and that it does not count as succeeded, failed or refused.
    fn unnoticed(&self, reading: &Reading) -> Option<(String, String)> {
        if self.direction == Direction::Outbound {
            // An outbound handshake ends uncounted when the application leaves.
            return None;
        }
        let is_over = |connection: &&&WireConnection| {
            let closed = connection.closed.is_some_and(|closed| closed + LATE <= reading.at);
            let is_tls = matches!(connection.kind, WireKind::Mesh | WireKind::Handshake);
            closed && is_tls && self.is_for_the_proxy(connection) && self.is_settled(connection, reading.at)
        };
        let wire = self.connections.iter().filter(is_over).count() as u64;
        let told = reading.total("tls_handshake_total", &[("direction", "inbound")]);
        let told = told + reading.total("tls_refused_total", &[]);
        let what = || format!("{wire} handshakes were over on the wire, {told} are in its metrics");
        (told < wire).then(|| ("handshakes".to_owned(), what()))
    }
}
