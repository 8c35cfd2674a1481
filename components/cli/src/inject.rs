//! `conduit inject`: the manifests it is given, with a proxy in every pod that they make.
//!
//! - `options.rs`: how
//! - `workload.rs`: what can be injected in a document, and whether it is
//! - `pod.rs`: what a pod gets, `container.rs`: what runs and is mounted in it, `owner.rs`: whose pod it is
//! - `probes.rs`: the probes that would reach the proxy instead of the application
//! - `graft.rs`, `prune.rs`, `swap.rs`: adding it to text and taking it away again
//! - `document.rs`: one document, checked against what must come out
//! - `rewrite.rs`: the last resort, a document written anew with its original inside
//! - `stream.rs`: all documents of all files
//!
//! Invariants: what is not injected stays byte for byte; what is injected differs by the additions only, means what was
//! meant and what was added, and `uninject` gives its bytes back: each is checked for every document, not assumed.

use std::process::ExitCode;

use crate::{args::Global, input};

pub mod container;
pub mod document;
pub mod graft;
pub mod options;
mod owner;
pub mod pod;
mod probes;
pub mod prune;
mod rewrite;
pub mod stream;
mod swap;
pub mod workload;

pub use options::{Flags, Options};

/// Add the proxy to Kubernetes manifests
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Prints the manifests with a proxy in every pod that they make; everything else stays as it is.
What was done to each resource is told on stderr.

A workload is left out, and loses the proxy it has, if it uses its node's network, runs on Windows
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
    flags: Flags,
}

impl Args {
    /// What the flags say.
    ///
    /// # Errors
    /// They contradict each other.
    pub fn options(&self, global: &Global) -> anyhow::Result<Options> {
        Options::new(self.flags.clone(), &global.conduit_namespace)
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
