//! `conduit install`: the control plane as Kubernetes manifests.
//!
//! - `manifest.rs`: everything, in the order of its making
//! - `component.rs`: what the components have in common: account, rights, Deployment, Service, disruption budget
//! - `record.rs`: what was chosen, for `upgrade` to choose it again
//! - `prometheus.rs`: the bundled Prometheus, for those who ask for it
//!
//! Nothing here talks to a cluster, and nothing is random: the same flags print the same bytes.

use std::{fmt, process::ExitCode};

use conduit_identity::ControlPlane;
use conduit_observe::sources::prometheus::{InvalidUrl, Url};

use crate::{
    args::Global,
    mesh_options::{MeshOptions, image, log_filter},
    output,
};

mod component;
pub mod manifest;
mod prometheus;
pub mod record;

/// Print the manifests of the control plane
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  conduit install --tls=optional | kubectl apply -f -
  conduit install --tls=optional --ha | kubectl apply -f -
  conduit upgrade | kubectl apply -f -
  conduit uninstall | kubectl delete -f -")]
pub struct Args {
    #[command(flatten)]
    flags: Flags,
    #[command(flatten)]
    ignored: Ignored,
}

/// The flags of install.
#[derive(Debug, Clone, clap::Args)]
pub struct Flags {
    /// What is shared with inject.
    #[command(flatten)]
    pub mesh: MeshOptions,
    /// Survive the loss of a node: three replicas of the certificate authority and of the destination service, two of the API,
    /// spread over nodes
    #[arg(
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = false,
        default_missing_value = "true",
        action = clap::ArgAction::Set,
        hide_default_value = true,
        hide_possible_values = true
    )]
    pub ha: bool,
    /// The oldest Kubernetes that the manifests are for, from 1.20 on
    #[arg(long, value_name = "VERSION", default_value = "1.21", value_parser = KubeVersion::parse)]
    pub kube_version: KubeVersion,
    /// Replicas of the certificate authority and of the destination service; more than one of anything has a disruption
    /// budget [default with --ha: 3]
    #[arg(long, value_name = "NUMBER", default_value = "1", default_value_if("ha", "true", "3"), value_parser = replicas)]
    pub controller_replicas: u16,
    /// Replicas of the API that the other commands ask [default with --ha: 2]
    #[arg(long, value_name = "NUMBER", default_value = "1", default_value_if("ha", "true", "2"), value_parser = replicas)]
    pub web_replicas: u16,
    /// Replicas of a Prometheus of its own; without one, Conduit keeps the last minutes itself
    #[arg(long, value_name = "NUMBER", default_value_t = 0, value_parser = replicas_or_none)]
    pub prometheus_replicas: u16,
    /// Image of that Prometheus
    #[arg(long, value_name = "IMAGE", default_value = "prom/prometheus:v2.55.1", value_parser = image)]
    pub prometheus_image: String,
    /// Address of a Prometheus that observe takes its numbers from, which scrapes the proxies as the bundled one does;
    /// without it, observe reads them itself
    #[arg(long, value_name = "URL", value_parser = prometheus_url)]
    pub prometheus_url: Option<Url>,
    /// What the control plane logs
    #[arg(long, value_name = "FILTER", default_value = "info", value_parser = controller_log_level)]
    pub controller_log_level: String,
}

/// A version of Kubernetes, as far as manifests depend on it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct KubeVersion {
    /// The second number; the first is 1.
    minor: u16,
}

impl KubeVersion {
    /// The oldest that Conduit runs on: it has EndpointSlices and seccomp profiles in pods.
    const OLDEST: Self = Self { minor: 20 };
    /// From here on disruption budgets are stable.
    const WITH_POLICY_V1: Self = Self { minor: 21 };

    /// Parses `1.30`, also as API servers tell it: `v1.30.4`, `v1.30.4-gke.100`.
    pub(crate) fn parse(value: &str) -> Result<Self, String> {
        let expected = || "not a version of Kubernetes: use one such as 1.30".to_owned();
        let mut parts = value.strip_prefix('v').unwrap_or(value).split(['.', '-', '+']);
        let (major, minor) = (parts.next(), parts.next().and_then(|minor| minor.parse().ok()));
        let version = match (major, minor) {
            (Some("1"), Some(minor)) => Self { minor },
            _ => return Err(expected()),
        };
        let is_old = version < Self::OLDEST;
        if is_old {
            Err(format!("Conduit needs Kubernetes 1.{} or later", Self::OLDEST.minor))
        } else {
            Ok(version)
        }
    }
}

impl KubeVersion {
    /// The API version of disruption budgets.
    fn policy(self) -> &'static str {
        if self >= Self::WITH_POLICY_V1 { "policy/v1" } else { "policy/v1beta1" }
    }
}

impl fmt::Display for KubeVersion {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "1.{}", self.minor)
    }
}

/// Flags that v0.5.0 had here, for the proxies of its control plane, which has none now.
#[derive(Debug, clap::Args)]
struct Ignored {
    #[arg(long, hide = true)]
    init_image: Option<String>,
    #[arg(long, hide = true)]
    proxy_image: Option<String>,
    #[arg(long, hide = true)]
    proxy_uid: Option<String>,
    #[arg(long, hide = true)]
    proxy_log_level: Option<String>,
    #[arg(long, hide = true)]
    proxy_bind_timeout: Option<String>,
    #[arg(long, hide = true)]
    control_port: Option<String>,
    #[arg(long, hide = true)]
    metrics_port: Option<String>,
}

/// Everything that decides what is installed.
#[derive(Debug, Clone)]
pub struct Options {
    /// What the user asked for.
    pub flags: Flags,
    /// What the control plane is called.
    pub control_plane: ControlPlane,
}

impl Args {
    /// What the flags say.
    pub fn options(&self, global: &Global) -> Options {
        let control_plane = self.flags.mesh.control_plane(&global.conduit_namespace);
        Options { flags: self.flags.clone(), control_plane }
    }
}

impl Ignored {
    fn given(&self) -> Vec<&'static str> {
        let flags = [
            ("--init-image", &self.init_image),
            ("--proxy-image", &self.proxy_image),
            ("--proxy-uid", &self.proxy_uid),
            ("--proxy-log-level", &self.proxy_log_level),
            ("--proxy-bind-timeout", &self.proxy_bind_timeout),
            ("--control-port", &self.control_port),
            ("--metrics-port", &self.metrics_port),
        ];
        flags.into_iter().filter(|(_, value)| value.is_some()).map(|(name, _)| name).collect()
    }
}

/// Prints the manifests.
///
/// # Errors
/// Stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    output::stdout(&manifest::render(&args.options(global)))?;
    for flag in args.ignored.given() {
        output::note(&format!(
            "note: {flag} changes nothing here: the control plane has no proxies; give it to inject"
        ));
    }
    Ok(ExitCode::SUCCESS)
}

fn prometheus_url(value: &str) -> Result<Url, String> {
    value.parse().map_err(|error: InvalidUrl| error.to_string())
}

fn replicas(value: &str) -> Result<u16, String> {
    let number = replicas_or_none(value).ok().filter(|number| *number > 0);
    number.ok_or_else(|| "not a number of replicas: use 1 to 100".to_owned())
}

fn replicas_or_none(value: &str) -> Result<u16, String> {
    let number = value.parse().ok().filter(|number| *number <= 100);
    number.ok_or_else(|| "not a number of replicas: use 0 to 100".to_owned())
}

/// A log filter, or one of the levels of v0.5.0.
fn controller_log_level(value: &str) -> Result<String, String> {
    match value {
        "panic" | "fatal" => Ok("error".to_owned()),
        "warning" => Ok("warn".to_owned()),
        other => log_filter(other),
    }
}
