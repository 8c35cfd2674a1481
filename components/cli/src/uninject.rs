//! `conduit uninject`: manifests as they were before `conduit inject`.

use std::process::ExitCode;

use crate::{
    args::Global,
    inject::{document, stream},
    input,
};

/// Take the proxy out of Kubernetes manifests again
#[derive(Debug, clap::Args)]
#[command(
    after_help = "Gives back the very bytes that inject was given, if its output was not changed since.

Examples:
  conduit uninject app-injected.yml
  kubectl get deploy -o yaml | conduit uninject - | kubectl apply -f -"
)]
pub struct Args {
    /// Files and directories of manifests, YAML or JSON; `-` is stdin
    #[arg(value_name = "FILE", required = true)]
    files: Vec<String>,
}

/// Prints the manifests without what inject added, and reports to stderr.
///
/// # Errors
/// Something cannot be read, or is malformed; nothing has been printed then.
pub async fn run(args: Args, _: &Global) -> anyhow::Result<ExitCode> {
    let inputs = input::read(&args.files)?;
    stream::transform(&inputs, document::uninject)?.print()
}
