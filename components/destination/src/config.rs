//! What destination is told by its environment.

use std::{
    net::{Ipv4Addr, SocketAddr},
    path::PathBuf,
    time::Duration,
};

use conduit_identity::{ControlPlane, Files};
use conduit_k8s::{
    owned::{PORT_DESTINATION, PORT_DESTINATION_ADMIN},
    watch::Timing,
};
use conduit_runtime::env::{self, Env};

/// Everything that [`crate::run`] can be told.
#[derive(Debug, Clone)]
pub struct Config {
    /// `CONDUIT_DESTINATION_LISTENER` (tcp://0.0.0.0:8086): gRPC.
    pub listener: SocketAddr,
    /// `CONDUIT_DESTINATION_ADMIN_LISTENER` (tcp://0.0.0.0:9996): `/live`, `/ready`, `/metrics`.
    pub admin: SocketAddr,
    /// `CONDUIT_DESTINATION_CONTROL_NAMESPACE` (conduit) and `CONDUIT_DESTINATION_TRUST_DOMAIN` (svc.cluster.local):
    /// whose pods have identities.
    pub control_plane: ControlPlane,
    /// `CONDUIT_DESTINATION_DNS_ZONE` (cluster.local): what the names of Services end in.
    pub zone: String,
    /// `CONDUIT_DESTINATION_TLS_DIRECTORY`: where `tls.crt`, `tls.key` and `trust-anchors.pem` are, or will be. Without
    /// it, plaintext only.
    pub files: Option<Files>,
    /// How often the files are looked at; not from the environment.
    pub reload: Duration,
    /// `CONDUIT_DESTINATION_MAX_CONNECTIONS` (10000): one for each proxy; the rest wait.
    pub max_connections: usize,
    /// `CONDUIT_DESTINATION_MAX_STREAMS` (200000): subscriptions in all; the rest are refused for the time being.
    pub max_streams: usize,
    /// How the cluster is followed; not from the environment.
    pub timing: Timing,
    /// `CONDUIT_DESTINATION_LOG` (info): a filter as `tracing` reads it.
    pub log: Option<String>,
}

impl Default for Config {
    fn default() -> Self {
        let any = |port| SocketAddr::from((Ipv4Addr::UNSPECIFIED, port));
        Self {
            listener: any(PORT_DESTINATION),
            admin: any(PORT_DESTINATION_ADMIN),
            control_plane: ControlPlane::default(),
            zone: "cluster.local".to_owned(),
            files: None,
            reload: Duration::from_secs(5),
            max_connections: 10_000,
            max_streams: 200_000,
            timing: Timing::default(),
            log: None,
        }
    }
}

impl Config {
    /// Reads the environment; what cannot be used is reported by [`Env::finish`], and the default taken meanwhile.
    pub fn from_env(env: &mut Env) -> Self {
        let shipped = Self::default();
        let ControlPlane { namespace, trust_domain } = shipped.control_plane;
        let mut text = |name: &str| env.parse(&format!("CONDUIT_DESTINATION_{name}"), env::text);
        let control_plane = ControlPlane {
            namespace: text("CONTROL_NAMESPACE").unwrap_or(namespace),
            trust_domain: text("TRUST_DOMAIN").unwrap_or(trust_domain),
        };
        let (zone, directory, log) = (text("DNS_ZONE"), text("TLS_DIRECTORY"), text("LOG"));
        Self {
            listener: env.parse("CONDUIT_DESTINATION_LISTENER", env::listen).unwrap_or(shipped.listener),
            admin: env.parse("CONDUIT_DESTINATION_ADMIN_LISTENER", env::listen).unwrap_or(shipped.admin),
            control_plane,
            zone: zone.map_or(shipped.zone, |zone| zone.trim_matches('.').to_ascii_lowercase()),
            files: directory.map(|directory| Files::in_directory(&PathBuf::from(directory))),
            max_connections: env
                .parse("CONDUIT_DESTINATION_MAX_CONNECTIONS", at_least_one)
                .unwrap_or(shipped.max_connections),
            max_streams: env
                .parse("CONDUIT_DESTINATION_MAX_STREAMS", at_least_one)
                .unwrap_or(shipped.max_streams),
            reload: shipped.reload,
            timing: shipped.timing,
            log,
        }
    }
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
            ("CONDUIT_DESTINATION_LISTENER", "tcp://127.0.0.1:0"),
            ("CONDUIT_DESTINATION_CONTROL_NAMESPACE", "mesh"),
            ("CONDUIT_DESTINATION_DNS_ZONE", "Example.Org."),
            ("CONDUIT_DESTINATION_TLS_DIRECTORY", "/id"),
            ("CONDUIT_DESTINATION_MAX_STREAMS", "7"),
        ]);
        let config = Config::from_env(&mut env);
        assert!(env.finish().is_ok());
        assert_eq!(config.listener, "127.0.0.1:0".parse().unwrap());
        assert_eq!(config.admin.port(), PORT_DESTINATION_ADMIN);
        assert_eq!(
            config.control_plane,
            ControlPlane { namespace: "mesh".into(), ..ControlPlane::default() }
        );
        assert_eq!((config.zone.as_str(), config.max_streams), ("example.org", 7));
        assert_eq!(config.files, Some(Files::in_directory("/id".as_ref())));
    }

    #[test]
    fn what_cannot_be_used_is_reported_at_once() {
        let mut env = Env::from_pairs([
            ("CONDUIT_DESTINATION_LISTENER", "8086"),
            ("CONDUIT_DESTINATION_MAX_CONNECTIONS", "0"),
            ("CONDUIT_DESTINATION_MAX_STREAMS", "many"),
        ]);
        Config::from_env(&mut env);
        assert_eq!(env.finish().unwrap_err().0.len(), 3);
    }
}
