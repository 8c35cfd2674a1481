//! How the authority is configured. The defaults are what is shipped; lifetimes are configuration so that a simulation
//! and a demonstration can live through years.

use std::{net::SocketAddr, time::Duration};

use conduit_identity::ControlPlane;
use conduit_k8s::{lease, owned, watch};
use conduit_runtime::env::{self, Env};
use tokio::sync::oneshot;

const HOUR: Duration = Duration::from_secs(60 * 60);
const DAY: Duration = Duration::from_secs(24 * 60 * 60);

/// Everything [`crate::run`] wants to know.
#[derive(Debug)]
pub struct Config {
    /// Whose pods get certificates, and what their names end in.
    pub control_plane: ControlPlane,
    /// Where `/live`, `/ready` and `/metrics` are served.
    pub admin: SocketAddr,
    /// What this replica is called in the Lease: the pod's name.
    pub holder: String,
    /// How leadership is timed; none when there is no other replica to yield to.
    pub lease: Option<lease::Timing>,
    /// How the cluster is watched.
    pub watch: watch::Timing,
    /// What certificates live for.
    pub lifetimes: Lifetimes,
    /// How often everything is looked at although nothing has changed: certificates come due by themselves.
    pub interval: Duration,
    /// Writes under way at once.
    pub concurrency: usize,
    /// Told once, when the admin server listens.
    pub on_started: Option<oneshot::Sender<Bound>>,
}

/// Where a running authority listens.
#[derive(Debug, Clone, Copy)]
pub struct Bound {
    /// The admin server.
    pub admin: SocketAddr,
}

/// What certificates live for, and when they are replaced.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Lifetimes {
    /// A root's, from its making on.
    pub root: Duration,
    /// An issuer's, from its making on.
    pub issuer: Duration,
    /// A leaf's, from its issuing on.
    pub leaf: Duration,
    /// How far back every certificate begins: for clocks that are behind ours.
    pub backdate: Duration,
    /// A leaf is renewed when it has this much left.
    pub renew_left: Duration,
    /// How far around [`Lifetimes::renew_left`] renewals are spread.
    pub renew_jitter: Duration,
    /// After which part of their life, in percent, roots and issuers are replaced.
    pub renew_percent: u32,
    /// How long a new root is in every bundle before anything is issued from it: kubelets take a minute or two to carry
    /// a bundle into running pods, and a node that is away for a while takes longer.
    pub publish: Duration,
}

impl Default for Lifetimes {
    fn default() -> Self {
        Self {
            root: 3650 * DAY,
            issuer: 365 * DAY,
            leaf: 26 * HOUR,
            backdate: HOUR,
            renew_left: 14 * HOUR,
            renew_jitter: HOUR / 2,
            renew_percent: 70,
            publish: HOUR,
        }
    }
}

impl Config {
    /// The shipped configuration of a single replica for `control_plane`, its admin server at `admin`.
    pub fn new(control_plane: ControlPlane, admin: SocketAddr) -> Self {
        Self {
            control_plane,
            admin,
            holder: owned::COMPONENT_CA.to_owned(),
            lease: None,
            watch: watch::Timing::default(),
            lifetimes: Lifetimes::default(),
            interval: Duration::from_secs(10),
            concurrency: 16,
            on_started: None,
        }
    }

    /// The configuration of the binary, whose variables are:
    ///
    /// | variable | meaning | default |
    /// |---|---|---|
    /// | `CONDUIT_CA_CONTROL_PLANE_NAMESPACE` | the control plane's namespace | `conduit` |
    /// | `CONDUIT_CA_TRUST_DOMAIN` | what identities end in | `svc.cluster.local` |
    /// | `CONDUIT_CA_POD_NAME` | this replica's name; it must differ between replicas | required |
    /// | `CONDUIT_CA_LOG` | what is logged, in tracing's syntax | `info` |
    /// | `CONDUIT_CA_ADMIN_ADDR` | where `/live`, `/ready`, `/metrics` are served | `tcp://0.0.0.0:9997` |
    /// | `CONDUIT_CA_ROOT_LIFETIME` | a root's life | `3650d` |
    /// | `CONDUIT_CA_ISSUER_LIFETIME` | an issuer's life | `365d` |
    /// | `CONDUIT_CA_LEAF_LIFETIME` | a workload certificate's life | `26h` |
    /// | `CONDUIT_CA_LEAF_RENEW_LEFT` | what it has left when it is renewed | `14h` |
    ///
    /// What is wrong with them is left in `env` to report.
    pub fn from_env(env: &mut Env) -> Self {
        let mut text = |name: &str| env.parse(name, env::text);
        let fallback = ControlPlane::default();
        let control_plane = ControlPlane {
            namespace: text("CONDUIT_CA_CONTROL_PLANE_NAMESPACE").unwrap_or(fallback.namespace),
            trust_domain: text("CONDUIT_CA_TRUST_DOMAIN").unwrap_or(fallback.trust_domain),
        };
        let everywhere = SocketAddr::from(([0, 0, 0, 0], owned::PORT_CA_ADMIN));
        let admin = env.parse("CONDUIT_CA_ADMIN_ADDR", env::listen).unwrap_or(everywhere);
        let holder = env.required("CONDUIT_CA_POD_NAME", env::text).unwrap_or_default();
        Self {
            holder,
            lease: Some(lease::Timing::default()),
            lifetimes: Lifetimes::from_env(env),
            ..Self::new(control_plane, admin)
        }
    }
}

impl Lifetimes {
    fn from_env(env: &mut Env) -> Self {
        let shipped = Self::default();
        let mut duration = |name: &str, default: Duration, at_least: Duration| {
            let parser = |value: &str| match env::duration(value)? {
                long if long > at_least => Ok(long),
                _ => Err(format!("must be over {} s", at_least.as_secs())),
            };
            env.parse(name, parser).unwrap_or(default)
        };
        let renew_left = duration("CONDUIT_CA_LEAF_RENEW_LEFT", shipped.renew_left, Duration::ZERO);
        let leaf = duration("CONDUIT_CA_LEAF_LIFETIME", shipped.leaf, renew_left);
        let issuer = duration("CONDUIT_CA_ISSUER_LIFETIME", shipped.issuer, 4 * leaf);
        let root = duration("CONDUIT_CA_ROOT_LIFETIME", shipped.root, issuer);
        // Half an hour for the shipped lifetimes, and the same share of others.
        let renew_jitter = shipped.renew_jitter.min((leaf - renew_left.min(leaf)) / 24);
        Self { root, issuer, leaf, renew_left, renew_jitter, ..shipped }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_binary_is_configured_by_its_pods_name_alone() {
        let mut env = Env::from_pairs([("CONDUIT_CA_POD_NAME", "ca-1")]);
        let config = Config::from_env(&mut env);
        env.finish().unwrap();
        assert_eq!((config.holder.as_str(), config.admin.port()), ("ca-1", 9997));
        assert_eq!(config.lifetimes, Lifetimes::default());
    }

    #[test]
    fn lifetimes_that_contradict_each_other_are_reported_together() {
        let mut env = Env::from_pairs([
            ("CONDUIT_CA_POD_NAME", "ca-1"),
            ("CONDUIT_CA_LEAF_LIFETIME", "10h"),
            ("CONDUIT_CA_ISSUER_LIFETIME", "20h"),
        ]);
        Config::from_env(&mut env);
        assert_eq!(env.finish().unwrap_err().0.len(), 2, "a leaf of 10 h has never 14 h left");
    }
}
