//! What a proxy is told: a plain value, and the environment variables it is read from.
//!
//! TLS settings never make a proxy refuse to start. Whatever is missing or nonsensical among them becomes
//! [`Tls::problem`], and the proxy serves plaintext: exiting would cut the application off.

use std::{collections::BTreeSet, net::SocketAddr, path::PathBuf, time::Duration};

use conduit_identity::{ControlPlane, Files, Identity};
use conduit_runtime::env::{self, Env};

use crate::probe::{self, TcpProbe};

/// Everything a proxy is told. [`Config::default`] is what it does when it is told nothing.
#[derive(Debug, Clone)]
pub struct Config {
    /// Where it listens.
    pub listen: Listen,
    /// Where inbound connections go whose original destination is unknown.
    pub forward: Option<SocketAddr>,
    /// The namespace of its pod, in which short names are looked up.
    pub pod_namespace: String,
    /// Whose identities it believes.
    pub control_plane: ControlPlane,
    /// The destination service; without one, connections go where they were going.
    pub destination: Option<Destination>,
    /// Its own TLS.
    pub tls: Tls,
    /// How long it waits for what.
    pub timeouts: Timeouts,
    /// How much it holds at most.
    pub limits: Limits,
    /// Ports whose inbound connections are never looked into for HTTP.
    pub inbound_opaque_ports: BTreeSet<u16>,
    /// Ports whose outbound connections are never looked into for HTTP.
    pub outbound_opaque_ports: BTreeSet<u16>,
    /// The application's ports whose being open may be asked for on the admin listener.
    pub tcp_probes: BTreeSet<TcpProbe>,
    /// The uid of the proxy's pod, if the proxy is to end when everything else in the pod has: in a Job, which would not
    /// complete otherwise.
    pub end_with_pod: Option<String>,
    /// Whether `process_*` is among the metrics: true of a process of its own, false of a proxy that shares one with
    /// others or is simulated, where two runs must be equal octet for octet.
    pub process_metrics: bool,
}

/// The four listeners. Port 0 takes a free one, told by [`crate::Bound`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Listen {
    /// Connections to the application.
    pub inbound: SocketAddr,
    /// Connections from the application.
    pub outbound: SocketAddr,
    /// Tap.
    pub tap: SocketAddr,
    /// Probes and metrics.
    pub admin: SocketAddr,
}

/// The destination service.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Destination {
    /// A name or an IP address.
    pub host: String,
    /// Its port.
    pub port: u16,
    /// What it proves; none: plaintext only.
    pub identity: Option<Identity>,
}

/// A proxy's own TLS.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Tls {
    /// Who this proxy is and where its credentials are; none when TLS is disabled.
    pub own: Option<Own>,
    /// What is wrong with the settings, to be shown: it changes nothing else.
    pub problem: Option<String>,
}

/// Who a proxy is, and where its credentials are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Own {
    /// Its name.
    pub identity: Identity,
    /// Read again whenever they change.
    pub files: Files,
}

/// How long the proxy waits for what.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Timeouts {
    /// Opening a connection to the own application.
    pub inbound_connect: Duration,
    /// Opening a connection to an endpoint.
    pub outbound_connect: Duration,
    /// A TLS handshake, on either side.
    pub handshake: Duration,
    /// The first answer of the destination service about a new target.
    pub discovery: Duration,
    /// How long a client may be silent before the server is dialled, for it may be the one to speak first.
    pub silence: Duration,
    /// How long inbound holds a server's first bytes back, in case the client's TLS is only late.
    pub hold: Duration,
    /// How long the beginning of something (a ClientHello, an HTTP head) may take to become recognizable.
    pub detect: Duration,
    /// How long a pooled connection may be idle.
    pub pool_idle: Duration,
    /// How often another proxy that owes answers over HTTP/2 is asked whether it is still there.
    pub ping: Duration,
    /// After how long without a request an HTTP/1 connection gives its buffers up; it stays open.
    pub drowsy: Duration,
    /// How long connections are still accepted after the signal to stop.
    pub drain_grace: Duration,
    /// How long connections under way are then waited for.
    pub drain_deadline: Duration,
    /// How often the credentials' files are looked at.
    pub tls_poll: Duration,
    /// How long a series without traffic stays in the metrics.
    pub metrics_idle: Duration,
}

/// How much the proxy holds at most.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Connections open at once on each of inbound and outbound; further ones wait in the kernel.
    pub connections: usize,
    /// Idle HTTP/1 connections kept per endpoint.
    pub pool_idle: usize,
    /// Targets followed at the destination service.
    pub targets: usize,
    /// Events held for a tap that reads slowly.
    pub tap_events: usize,
}

impl Default for Config {
    fn default() -> Self {
        let server_first = BTreeSet::from([25, 3306]);
        Self {
            listen: Listen::default(),
            forward: None,
            pod_namespace: "default".to_owned(),
            control_plane: ControlPlane::default(),
            destination: None,
            tls: Tls::default(),
            timeouts: Timeouts::default(),
            limits: Limits::default(),
            inbound_opaque_ports: server_first.clone(),
            outbound_opaque_ports: server_first,
            tcp_probes: BTreeSet::new(),
            end_with_pod: None,
            process_metrics: false,
        }
    }
}

impl Default for Listen {
    fn default() -> Self {
        let any = |port| SocketAddr::from(([0, 0, 0, 0], port));
        let loopback = |port| SocketAddr::from(([127, 0, 0, 1], port));
        Self { inbound: any(4143), outbound: loopback(4140), tap: any(4190), admin: loopback(4191) }
    }
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            // As long as the kernel would try twice: a full backlog is a busy application, not a missing one.
            inbound_connect: Duration::from_secs(10),
            outbound_connect: Duration::from_secs(10),
            handshake: Duration::from_secs(1),
            discovery: Duration::from_millis(200),
            silence: Duration::from_millis(30),
            hold: Duration::from_millis(100),
            detect: Duration::from_secs(1),
            pool_idle: Duration::from_secs(60),
            ping: Duration::from_secs(30),
            // Longer than most pauses between the requests of a program: waking up costs some microseconds.
            drowsy: Duration::from_millis(100),
            drain_grace: Duration::from_secs(5),
            // Kubernetes ends the pod itself after its own grace period; this bound is for where nobody does.
            drain_deadline: Duration::from_secs(600),
            tls_poll: Duration::from_secs(5),
            metrics_idle: Duration::from_secs(600),
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self { connections: 20_000, pool_idle: 100, targets: 1_000, tap_events: 100 }
    }
}

impl Config {
    /// Reads the environment; what is wrong with it is reported by `env` itself. An unusable value leaves the default,
    /// so that one run reports every problem.
    pub fn from_env(env: &mut Env) -> Self {
        for (name, instead) in without_effect(env) {
            tracing::warn!(name, instead, "a variable of v0.5.0 has no effect any more");
        }
        let defaults = Self::default();
        let pod_namespace =
            env.required("CONDUIT_PROXY_POD_NAMESPACE", env::text).unwrap_or(defaults.pod_namespace);
        let tls = Tls::from_env(env, &pod_namespace);
        let control_plane = control_plane(env, tls.own.as_ref());
        let destination = destination(env, &control_plane);
        Self {
            listen: Listen::from_env(env),
            forward: env.parse("CONDUIT_PROXY_PRIVATE_FORWARD", env::listen),
            pod_namespace,
            control_plane,
            destination,
            tls,
            timeouts: Timeouts::from_env(env),
            limits: Limits::from_env(env),
            inbound_opaque_ports: env
                .parse_even_empty("CONDUIT_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", ports)
                .unwrap_or(defaults.inbound_opaque_ports),
            outbound_opaque_ports: env
                .parse_even_empty("CONDUIT_PROXY_OUTBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", ports)
                .unwrap_or(defaults.outbound_opaque_ports),
            tcp_probes: env.parse("CONDUIT_PROXY_TCP_PROBES", probe::list).unwrap_or_default(),
            end_with_pod: env.parse("CONDUIT_PROXY_END_WITH_POD", env::text),
            process_metrics: true,
        }
    }
}

impl Listen {
    fn from_env(env: &mut Env) -> Self {
        let Self { inbound, outbound, tap, admin } = Self::default();
        Self {
            inbound: env.parse("CONDUIT_PROXY_PUBLIC_LISTENER", env::listen).unwrap_or(inbound),
            outbound: env.parse("CONDUIT_PROXY_PRIVATE_LISTENER", env::listen).unwrap_or(outbound),
            tap: env.parse("CONDUIT_PROXY_CONTROL_LISTENER", env::listen).unwrap_or(tap),
            admin: env.parse("CONDUIT_PROXY_METRICS_LISTENER", env::listen).unwrap_or(admin),
        }
    }
}

impl Timeouts {
    fn from_env(env: &mut Env) -> Self {
        let mut timeouts = Self::default();
        let table: [(&str, &mut Duration); 14] = [
            ("CONDUIT_PROXY_PRIVATE_CONNECT_TIMEOUT", &mut timeouts.inbound_connect),
            ("CONDUIT_PROXY_PUBLIC_CONNECT_TIMEOUT", &mut timeouts.outbound_connect),
            ("CONDUIT_PROXY_TLS_HANDSHAKE_TIMEOUT", &mut timeouts.handshake),
            ("CONDUIT_PROXY_DISCOVERY_TIMEOUT", &mut timeouts.discovery),
            ("CONDUIT_PROXY_SERVER_FIRST_SILENCE", &mut timeouts.silence),
            ("CONDUIT_PROXY_SERVER_FIRST_HOLD", &mut timeouts.hold),
            ("CONDUIT_PROXY_DETECT_TIMEOUT", &mut timeouts.detect),
            ("CONDUIT_PROXY_OUTBOUND_ROUTER_MAX_IDLE_AGE", &mut timeouts.pool_idle),
            ("CONDUIT_PROXY_PING_INTERVAL", &mut timeouts.ping),
            ("CONDUIT_PROXY_IDLE_BUFFERS_AGE", &mut timeouts.drowsy),
            ("CONDUIT_PROXY_DRAIN_GRACE", &mut timeouts.drain_grace),
            ("CONDUIT_PROXY_DRAIN_DEADLINE", &mut timeouts.drain_deadline),
            ("CONDUIT_PROXY_TLS_POLL_INTERVAL", &mut timeouts.tls_poll),
            ("CONDUIT_PROXY_METRICS_RETAIN_IDLE", &mut timeouts.metrics_idle),
        ];
        for (name, timeout) in table {
            if let Some(value) = env.parse(name, env::duration) {
                *timeout = value;
            }
        }
        timeouts
    }
}

impl Limits {
    fn from_env(env: &mut Env) -> Self {
        let mut limits = Self::default();
        let table: [(&str, &mut usize); 4] = [
            ("CONDUIT_PROXY_MAX_CONNECTIONS", &mut limits.connections),
            ("CONDUIT_PROXY_POOL_MAX_IDLE", &mut limits.pool_idle),
            ("CONDUIT_PROXY_OUTBOUND_ROUTER_CAPACITY", &mut limits.targets),
            ("CONDUIT_PROXY_EVENT_BUFFER_CAPACITY", &mut limits.tap_events),
        ];
        for (name, limit) in table {
            if let Some(value) = env.parse(name, at_least_one) {
                *limit = value;
            }
        }
        limits
    }
}

/// Stands for our own name when the settings do not tell it: no peer ever asks for it, and no credentials prove it, so
/// that TLS stays off with the reason that the credentials give.
const UNNAMED: &str = "unnamed.conduit-managed.invalid";

impl Tls {
    fn from_env(env: &mut Env, pod_namespace: &str) -> Self {
        let mut variable = |name| env.parse(name, env::text);
        let anchors = variable("CONDUIT_PROXY_TLS_TRUST_ANCHORS");
        let cert = variable("CONDUIT_PROXY_TLS_CERT");
        let key = variable("CONDUIT_PROXY_TLS_PRIVATE_KEY");
        let template = variable("CONDUIT_PROXY_TLS_POD_IDENTITY");
        if anchors.is_none() && cert.is_none() && key.is_none() {
            return Self::default();
        }
        let mut problems = Vec::new();
        let mut path = |name, value: Option<String>| {
            if value.is_none() {
                problems.push(format!("{name} is not set"));
            }
            PathBuf::from(value.unwrap_or_default())
        };
        let files = Files {
            anchors: path("CONDUIT_PROXY_TLS_TRUST_ANCHORS", anchors),
            cert: path("CONDUIT_PROXY_TLS_CERT", cert),
            key: path("CONDUIT_PROXY_TLS_PRIVATE_KEY", key),
        };
        let identity = own_identity(template, pod_namespace).unwrap_or_else(|problem| {
            problems.push(problem);
            None
        });
        let own = identity.or_else(|| Identity::parse(UNNAMED).ok()).map(|identity| Own { identity, files });
        Self { own, problem: (!problems.is_empty()).then(|| problems.join("; ")) }
    }
}

/// The identity is a template in which inject leaves the pod's namespace open.
fn own_identity(template: Option<String>, pod_namespace: &str) -> Result<Option<Identity>, String> {
    let template = template.ok_or("CONDUIT_PROXY_TLS_POD_IDENTITY is not set")?;
    let name = template.replace("$CONDUIT_PROXY_POD_NAMESPACE", pod_namespace).to_ascii_lowercase();
    match Identity::parse(&name) {
        Ok(identity) => Ok(Some(identity)),
        Err(error) => Err(format!("CONDUIT_PROXY_TLS_POD_IDENTITY: {error}")),
    }
}

/// The control plane is named by its variables, or else by our own identity, which ends in it.
fn control_plane(env: &mut Env, own: Option<&Own>) -> ControlPlane {
    let from_identity = own
        .and_then(|own| own.identity.as_str().split_once(".conduit-managed."))
        .and_then(|(_, control_plane)| control_plane.split_once('.'));
    let mut control_plane = ControlPlane::default();
    if let Some((namespace, trust_domain)) = from_identity {
        control_plane =
            ControlPlane { namespace: namespace.to_owned(), trust_domain: trust_domain.to_owned() };
    }
    if let Some(namespace) = env.parse("CONDUIT_PROXY_CONTROLLER_NAMESPACE", env::text) {
        control_plane.namespace = namespace;
    }
    if let Some(trust_domain) = env.parse("CONDUIT_PROXY_TRUST_DOMAIN", env::text) {
        control_plane.trust_domain = trust_domain;
    }
    control_plane
}

fn destination(env: &mut Env, control_plane: &ControlPlane) -> Option<Destination> {
    let named = env.parse("CONDUIT_PROXY_TLS_CONTROLLER_IDENTITY", env::text);
    let (host, port) = env.parse("CONDUIT_PROXY_CONTROL_URL", env::target)?;
    // A name that is none leaves plaintext, which needs no proof; it is no reason to stop.
    let identity = match named {
        Some(name) => Identity::parse(&name.to_ascii_lowercase()).ok(),
        None => Some(Identity::of(&control_plane.component("destination"), control_plane)),
    };
    Some(Destination { host, port, identity })
}

/// Variables that v0.5.0 read and this proxy has no use for, and what takes their place.
const RETIRED: [(&str, &str); 6] = [
    (
        "CONDUIT_PROXY_BIND_TIMEOUT",
        "a slow answer is an answer; CONDUIT_PROXY_PUBLIC_CONNECT_TIMEOUT bounds connecting",
    ),
    (
        "CONDUIT_PROXY_INBOUND_ROUTER_CAPACITY",
        "inbound keeps no routes; CONDUIT_PROXY_MAX_CONNECTIONS bounds connections",
    ),
    (
        "CONDUIT_PROXY_INBOUND_ROUTER_MAX_IDLE_AGE",
        "a connection to the application lives as long as its client's",
    ),
    (
        "CONDUIT_PROXY_DNS_MIN_TTL",
        "names are looked up when a connection is opened, and kept as long as DNS says",
    ),
    (
        "CONDUIT_PROXY_DNS_MAX_TTL",
        "names are looked up when a connection is opened, and kept as long as DNS says",
    ),
    ("CONDUIT_RESOLV_CONF", "names are resolved as /etc/resolv.conf says"),
];

fn without_effect(env: &Env) -> impl Iterator<Item = (&'static str, &'static str)> {
    RETIRED.into_iter().filter(|(name, _)| env.is_set(name))
}

fn ports(value: &str) -> Result<BTreeSet<u16>, String> {
    let port = |text: &str| {
        text.trim().parse().map_err(|_| "expected ports separated by commas, such as 25,3306".to_owned())
    };
    value.split(',').filter(|text| !text.trim().is_empty()).map(port).collect()
}

fn at_least_one(value: &str) -> Result<usize, String> {
    env::number(value).and_then(|number| match number {
        0 => Err("expected a number of at least 1".to_owned()),
        _ => Ok(number),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const TLS: [(&str, &str); 4] = [
        ("CONDUIT_PROXY_TLS_TRUST_ANCHORS", "/id/trust-anchors.pem"),
        ("CONDUIT_PROXY_TLS_CERT", "/id/tls.crt"),
        ("CONDUIT_PROXY_TLS_PRIVATE_KEY", "/id/tls.key"),
        (
            "CONDUIT_PROXY_TLS_POD_IDENTITY",
            "web.deployment.$CONDUIT_PROXY_POD_NAMESPACE.conduit-managed.mesh.example.org",
        ),
    ];

    fn read<'a>(pairs: impl IntoIterator<Item = (&'a str, &'a str)>) -> (Config, Result<(), env::Invalid>) {
        let mut env = Env::from_pairs([("CONDUIT_PROXY_POD_NAMESPACE", "shop")].into_iter().chain(pairs));
        let config = Config::from_env(&mut env);
        (config, env.finish())
    }

    #[test]
    fn without_settings_tls_is_disabled_and_the_ports_are_those_of_the_release() {
        let (config, problems) = read([]);
        problems.unwrap();
        assert_eq!(config.tls, Tls::default());
        assert_eq!(config.listen.inbound, "0.0.0.0:4143".parse().unwrap());
        assert_eq!(config.inbound_opaque_ports, BTreeSet::from([25, 3306]));
        assert_eq!(config.destination, None);
    }

    #[test]
    fn the_own_name_tells_the_namespace_and_the_control_plane() {
        let (config, problems) = read(TLS);
        problems.unwrap();
        assert_eq!(config.tls.problem, None);
        let own = config.tls.own.unwrap();
        assert_eq!(own.identity.as_str(), "web.deployment.shop.conduit-managed.mesh.example.org");
        assert!(own.identity.belongs_to(&config.control_plane));
    }

    #[test]
    fn no_tls_setting_is_a_reason_not_to_start() {
        for broken in 0..TLS.len() {
            let without =
                TLS.iter().copied().enumerate().filter(|(index, _)| *index != broken).map(|(_, pair)| pair);
            let (config, problems) = read(without);
            problems.unwrap();
            assert!(config.tls.own.is_some() && config.tls.problem.unwrap().contains("is not set"));
        }
        let nonsense = TLS.map(|(name, _)| (name, "not a name, nor a path \u{1f9ed}"));
        let (config, problems) = read(nonsense);
        problems.unwrap();
        assert!(config.tls.own.is_some() && config.tls.problem.is_some());
    }

    #[test]
    fn every_other_bad_value_is_reported_at_once() {
        let (_, problems) = read([
            ("CONDUIT_PROXY_PUBLIC_LISTENER", "4143"),
            ("CONDUIT_PROXY_DRAIN_GRACE", "soon"),
            ("CONDUIT_PROXY_OUTBOUND_ROUTER_CAPACITY", "0"),
            ("CONDUIT_PROXY_TCP_PROBES", "8080/1,http/1"),
            ("CONDUIT_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", "25,x"),
        ]);
        assert_eq!(problems.unwrap_err().0.len(), 5);
    }

    #[test]
    fn an_empty_list_of_ports_is_a_list() {
        let (config, problems) = read([
            ("CONDUIT_PROXY_INBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", ""),
            ("CONDUIT_PROXY_OUTBOUND_PORTS_DISABLE_PROTOCOL_DETECTION", " "),
        ]);
        problems.unwrap();
        assert!(config.inbound_opaque_ports.is_empty() && config.outbound_opaque_ports.is_empty());
    }

    #[test]
    fn variables_of_the_release_that_have_no_effect_are_named_and_are_no_reason_not_to_start() {
        let pairs = RETIRED.map(|(name, _)| (name, "nonsense"));
        let named: Vec<_> = without_effect(&Env::from_pairs(pairs)).map(|(name, _)| name).collect();
        assert_eq!(named, RETIRED.map(|(name, _)| name));
        assert_eq!(without_effect(&Env::from_pairs([("CONDUIT_PROXY_BIND_TIMEOUT", "")])).count(), 0);
        read(pairs).1.unwrap();
    }

    /// The variables are documented where their readers look for them.
    #[test]
    fn every_variable_is_in_the_documents_table() {
        let (code, document) = (include_str!("config.rs"), include_str!("../VARIABLES.md"));
        let variables = code
            .split('"')
            .filter(|text| text.starts_with("CONDUIT_") && text.len() > 8 && !text.contains(' '));
        let missing: Vec<_> = variables.filter(|name| !document.contains(&format!("`{name}`"))).collect();
        assert!(missing.is_empty(), "{missing:?}");
    }

    #[test]
    fn the_destination_service_is_known_by_the_control_planes_name() {
        let (config, problems) = read(
            TLS.into_iter()
                .chain([("CONDUIT_PROXY_CONTROL_URL", "tcp://destination.mesh.svc.cluster.local:8086")]),
        );
        problems.unwrap();
        let destination = config.destination.unwrap();
        assert_eq!(destination.port, 8086);
        assert_eq!(
            destination.identity.unwrap().as_str(),
            "destination.deployment.mesh.conduit-managed.mesh.example.org"
        );
    }
}
