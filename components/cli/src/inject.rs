//! `conduit inject`: the manifests it is given, with a proxy in every pod that they make.
//!
//! - `workload.rs`: what can be injected in a document, and whether it is
//! - `pod.rs`: what a pod gets
//! - `graft.rs`, `prune.rs`: adding it to text and taking it away again
//! - `document.rs`: one document, checked against what must come out
//! - `rewrite.rs`: the last resort, a document written anew with its original inside
//! - `stream.rs`: all documents of all files
//!
//! Invariants: what is not injected stays byte for byte; what is injected differs by the additions only, means what was
//! meant and what was added, and `uninject` gives its bytes back: each is checked for every document, not assumed.

use std::process::ExitCode;

use conduit_identity::ControlPlane;
use conduit_k8s::owned;

use crate::{
    args::{Global, namespace},
    input,
    proxy_options::{ProxyOptions, port},
};

pub mod document;
pub mod graft;
pub mod pod;
pub mod prune;
mod rewrite;
pub mod stream;
pub mod workload;

/// Add the proxy to Kubernetes manifests
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the manifests with a proxy in every pod that they make; everything else in them stays as it is.
What was done to each resource is told on stderr. A workload is left out if it uses its node's network
or has the annotation conduit.io/inject: disabled.

Examples:
  conduit inject --tls=optional app.yml | kubectl apply -f -
  kubectl get deploy -o yaml | conduit inject --tls=optional - | kubectl apply -f -
  conduit inject manifests/ | kubectl apply -f -"
)]
pub struct Args {
    /// Files and directories of manifests, YAML or JSON; `-` is stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
    #[command(flatten)]
    options: InjectOptions,
    #[command(flatten)]
    proxy: ProxyOptions,
}

/// Flags about how a pod is injected.
#[derive(Debug, Clone, clap::Args)]
struct InjectOptions {
    /// Namespace of manifests that name none, where it matters: for names of over 63 characters
    #[arg(long, short = 'n', value_name = "NAMESPACE", value_parser = namespace)]
    namespace: Option<String>,
    /// Port on which the proxy takes what others send to the pod
    #[arg(long, value_name = "PORT", default_value_t = owned::PORT_INBOUND, value_parser = port())]
    inbound_port: u16,
    /// Port on which the proxy takes what the pod sends
    #[arg(long, value_name = "PORT", default_value_t = owned::PORT_OUTBOUND, value_parser = port())]
    outbound_port: u16,
    /// Ports of the pod that are reached without the proxy
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port())]
    skip_inbound_ports: Vec<u16>,
    /// Ports of others that the pod reaches without the proxy
    #[arg(long, value_name = "PORTS", value_delimiter = ',', value_parser = port())]
    skip_outbound_ports: Vec<u16>,
    /// Run the proxy as an init container that keeps running (Kubernetes 1.29 or later): Jobs then end by themselves
    #[arg(long)]
    native_sidecar: bool,
    /// CPU that the proxy asks for
    #[arg(long, value_name = "QUANTITY", default_value = "10m", value_parser = quantity)]
    proxy_cpu_request: String,
    /// Memory that the proxy asks for
    #[arg(long, value_name = "QUANTITY", default_value = "24Mi", value_parser = quantity)]
    proxy_memory_request: String,
}

/// Everything that decides how a pod is injected.
#[derive(Debug, Clone)]
#[allow(missing_docs, reason = "they are the flags of the same names")]
pub struct Options {
    pub proxy: ProxyOptions,
    pub control_namespace: String,
    pub namespace: Option<String>,
    pub inbound_port: u16,
    pub outbound_port: u16,
    pub skip_inbound_ports: Vec<u16>,
    pub skip_outbound_ports: Vec<u16>,
    pub native_sidecar: bool,
    pub proxy_cpu_request: String,
    pub proxy_memory_request: String,
}

impl Args {
    /// What the flags say.
    ///
    /// # Errors
    /// Two listeners of the proxy have the same port.
    pub fn options(&self, global: &Global) -> anyhow::Result<Options> {
        let options = Options {
            proxy: self.proxy.clone(),
            control_namespace: global.conduit_namespace.clone(),
            namespace: self.options.namespace.clone(),
            inbound_port: self.options.inbound_port,
            outbound_port: self.options.outbound_port,
            skip_inbound_ports: self.options.skip_inbound_ports.clone(),
            skip_outbound_ports: self.options.skip_outbound_ports.clone(),
            native_sidecar: self.options.native_sidecar,
            proxy_cpu_request: self.options.proxy_cpu_request.clone(),
            proxy_memory_request: self.options.proxy_memory_request.clone(),
        };
        let flags = ["--inbound-port", "--outbound-port", "--control-port", "--metrics-port"];
        let ports = options.ports();
        for (index, port) in ports.iter().enumerate() {
            if let Some(other) = ports[..index].iter().position(|earlier| earlier == port) {
                anyhow::bail!(
                    "{} and {} are both {port}: give each a port of its own",
                    flags[other],
                    flags[index]
                );
            }
        }
        Ok(options)
    }
}

impl Options {
    /// The ports that the proxy listens on.
    pub fn ports(&self) -> [u16; 4] {
        [self.inbound_port, self.outbound_port, self.proxy.control_port, self.proxy.metrics_port]
    }

    /// Whose mesh the pods join.
    pub fn control_plane(&self) -> ControlPlane {
        self.proxy.control_plane(&self.control_namespace)
    }
}

/// Prints the injected manifests, and reports to stderr.
///
/// # Errors
/// Something cannot be read, or is malformed; nothing has been printed then.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let options = args.options(global)?;
    let inputs = input::read(&args.files)?;
    stream::transform(&inputs, |text| document::inject(text, &options))?.print()
}

/// A quantity of Kubernetes' resource model, as far as requests use it.
fn quantity(value: &str) -> Result<String, String> {
    let number = value.trim_end_matches(|c: char| c.is_ascii_alphabetic());
    let suffix = &value[number.len()..];
    let number_is_sound = number.starts_with(|c: char| c.is_ascii_digit())
        && number.bytes().all(|octet| octet.is_ascii_digit() || octet == b'.')
        && number.matches('.').count() <= 1;
    if number_is_sound && ["", "m", "k", "M", "G", "Ki", "Mi", "Gi"].contains(&suffix) {
        Ok(value.to_owned())
    } else {
        Err("not a quantity: use a number with or without a unit, such as 100m or 64Mi".to_owned())
    }
}
