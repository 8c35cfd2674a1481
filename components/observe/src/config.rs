//! What observe is told by its environment.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use conduit_identity::{ControlPlane, Files};
use conduit_k8s::{
    owned::{PORT_OBSERVE, PORT_OBSERVE_ADMIN},
    watch::Timing,
};
use conduit_runtime::env::{self, Env};

use crate::sources::{
    prometheus::{InvalidUrl, Url},
    scrape::Limits,
};

/// Everything that [`crate::run`] can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CONDUIT_OBSERVE_LISTENER` (tcp://0.0.0.0:8085): the HTTP API.
    pub listener: SocketAddr,
    /// `CONDUIT_OBSERVE_ADMIN_LISTENER` (tcp://0.0.0.0:9995): `/live`, `/ready`, `/metrics`.
    pub admin: SocketAddr,
    /// `CONDUIT_OBSERVE_CONTROL_NAMESPACE` (conduit) and `CONDUIT_OBSERVE_TRUST_DOMAIN` (svc.cluster.local): whose
    /// pods these are.
    pub control_plane: ControlPlane,
    /// `CONDUIT_OBSERVE_TLS_DIRECTORY`: where `tls.crt`, `tls.key` and `trust-anchors.pem` are. Tap needs them; without
    /// it there is none.
    pub files: Option<Files>,
    /// `CONDUIT_OBSERVE_TLS_POLL_INTERVAL` (5s): how often those are looked at.
    pub reload: Duration,
    /// `CONDUIT_OBSERVE_SCRAPE_INTERVAL` (2s), `_SCRAPE_DEADLINE` (1500ms), `_SCRAPE_CONCURRENCY` (32), `_MAX_PODS`
    /// (1000) and `_MAX_SERIES` (100000).
    pub limits: Limits,
    /// `CONDUIT_OBSERVE_AUTHORIZE_TAP` (true): whether who taps from elsewhere than this pod's loopback, where port-forwards
    /// end, has to show a token with the right to forward ports to this namespace's pods.
    pub authorize_tap: bool,
    /// `CONDUIT_OBSERVE_PROMETHEUS_URL`: the Prometheus that numbers come from; without it, the proxies are read here.
    pub prometheus: Option<Url>,
    /// How the cluster is followed; not from the environment.
    pub timing: Timing,
    /// `CONDUIT_OBSERVE_LOG` (info): a filter as `tracing` reads it.
    pub log: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self {
            listener: any(PORT_OBSERVE),
            admin: any(PORT_OBSERVE_ADMIN),
            control_plane: ControlPlane::default(),
            files: None,
            reload: Duration::from_secs(5),
            limits: Limits::default(),
            authorize_tap: true,
            prometheus: None,
            timing: Timing::default(),
            log: None,
        }
    }
}

impl Config {
    /// Reads the environment; what cannot be used is reported by [`Env::finish`], and the default taken meanwhile.
    pub fn from_env(env: &mut Env) -> Self {
        let mut config = Self::default();
        let Self {
            listener,
            admin,
            control_plane,
            files,
            reload,
            limits,
            prometheus,
            authorize_tap,
            log,
            ..
        } = &mut config;
        set(listener, env.parse("CONDUIT_OBSERVE_LISTENER", env::listen));
        set(admin, env.parse("CONDUIT_OBSERVE_ADMIN_LISTENER", env::listen));
        set(&mut control_plane.namespace, env.parse("CONDUIT_OBSERVE_CONTROL_NAMESPACE", env::text));
        set(&mut control_plane.trust_domain, env.parse("CONDUIT_OBSERVE_TRUST_DOMAIN", env::text));
        set(reload, env.parse("CONDUIT_OBSERVE_TLS_POLL_INTERVAL", positive));
        set(&mut limits.interval, env.parse("CONDUIT_OBSERVE_SCRAPE_INTERVAL", positive));
        set(&mut limits.deadline, env.parse("CONDUIT_OBSERVE_SCRAPE_DEADLINE", positive));
        set(&mut limits.concurrency, env.parse("CONDUIT_OBSERVE_SCRAPE_CONCURRENCY", at_least_one));
        set(&mut limits.max_pods, env.parse("CONDUIT_OBSERVE_MAX_PODS", at_least_one));
        set(&mut limits.max_series, env.parse("CONDUIT_OBSERVE_MAX_SERIES", at_least_one));
        set(authorize_tap, env.parse("CONDUIT_OBSERVE_AUTHORIZE_TAP", truth));
        let directory = env.parse("CONDUIT_OBSERVE_TLS_DIRECTORY", env::text);
        *files = directory.map(|directory| Files::in_directory(&PathBuf::from(directory)));
        *prometheus = env.parse("CONDUIT_OBSERVE_PROMETHEUS_URL", url);
        *log = env.parse("CONDUIT_OBSERVE_LOG", env::text);
        config
    }
}

fn set<T>(field: &mut T, value: Option<T>) {
    if let Some(value) = value {
        *field = value;
    }
}

fn truth(value: &str) -> Result<bool, String> {
    value.parse().map_err(|_| "expected true or false".to_owned())
}

fn url(value: &str) -> Result<Url, String> {
    value.parse().map_err(|error: InvalidUrl| error.to_string())
}

fn positive(value: &str) -> Result<Duration, String> {
    let duration = env::duration(value)?;
    if duration.is_zero() { Err("expected more than nothing".to_owned()) } else { Ok(duration) }
}

fn at_least_one(value: &str) -> Result<usize, String> {
    let number = env::number(value)?;
    if number == 0 { Err("expected at least 1".to_owned()) } else { Ok(number) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_environment_sets_what_it_names_and_nothing_else() {
        let mut env = Env::from_pairs([
            ("CONDUIT_OBSERVE_LISTENER", "tcp://127.0.0.1:0"),
            ("CONDUIT_OBSERVE_SCRAPE_INTERVAL", "1s"),
            ("CONDUIT_OBSERVE_TLS_DIRECTORY", "/id"),
            ("CONDUIT_OBSERVE_PROMETHEUS_URL", "http://prometheus:9090"),
        ]);
        let config = Config::from_env(&mut env);
        assert!(env.finish().is_ok());
        assert_eq!(config.listener, "127.0.0.1:0".parse().unwrap());
        assert_eq!(config.admin.port(), PORT_OBSERVE_ADMIN);
        assert_eq!(config.limits.interval, Duration::from_secs(1));
        assert_eq!(config.prometheus, "http://prometheus:9090".parse().ok());
        assert_eq!(config.files, Some(Files::in_directory("/id".as_ref())));
    }

    #[test]
    fn what_cannot_be_used_is_reported_at_once() {
        let mut env = Env::from_pairs([
            ("CONDUIT_OBSERVE_SCRAPE_INTERVAL", "0"),
            ("CONDUIT_OBSERVE_SCRAPE_CONCURRENCY", "0"),
            ("CONDUIT_OBSERVE_LISTENER", "8085"),
            ("CONDUIT_OBSERVE_PROMETHEUS_URL", "prometheus:9090"),
        ]);
        Config::from_env(&mut env);
        assert_eq!(env.finish().unwrap_err().0.len(), 4);
    }
}
