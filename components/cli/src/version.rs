//! `conduit version`: of this program, and of the control plane it finds.

use std::{process::ExitCode, time::Duration};

use anyhow::anyhow;
use conduit_observe::api;
use tokio::time::timeout;

use crate::{args::Global, client::Client, output};

/// The version of this program, and of what it installs and injects unless told otherwise.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

/// How long the control plane is looked for. Its version is nice to know, no more.
const DEADLINE: Duration = Duration::from_secs(5);

/// Print the version of this program and of the control plane
#[derive(Debug, clap::Args)]
pub struct Args {
    /// Print the versions only
    #[arg(long)]
    short: bool,
    /// Print the version of this program only, without looking for a control plane
    #[arg(long)]
    client: bool,
}

/// Prints the versions. A control plane that cannot be asked is "unavailable", and stderr says why.
///
/// # Errors
/// Stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let label = |name: &str, version: &str| match args.short {
        true => format!("{version}\n"),
        false => format!("{name} version: {version}\n"),
    };
    output::stdout(&label("Client", VERSION))?;
    if args.client {
        return Ok(ExitCode::SUCCESS);
    }
    let server = timeout(DEADLINE, server(global)).await;
    let server = server.unwrap_or_else(|_| Err(anyhow!("no answer within {DEADLINE:?}")));
    output::stdout(&label("Server", server.as_deref().unwrap_or("unavailable")))?;
    if let Err(error) = server {
        output::note(&format!("note: {error:#}"));
    }
    Ok(ExitCode::SUCCESS)
}

async fn server(global: &Global) -> anyhow::Result<String> {
    let version: api::Version = Client::find(global).await?.get("/api/v1/version", &[]).await?;
    Ok(version.version)
}
