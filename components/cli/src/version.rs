//! `conduit version`: of this program.

use std::process::ExitCode;

use crate::{args::Global, output};

/// The version of this program, and of what it installs and injects unless told otherwise.
pub const VERSION: &str = env!("CARGO_PKG_VERSION");

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

/// Prints the versions.
///
/// # Errors
/// Stdout cannot be written.
pub async fn run(args: Args, _: &Global) -> anyhow::Result<ExitCode> {
    let Args { short, client: _ } = args;
    output::stdout(&if short { format!("{VERSION}\n") } else { format!("Client version: {VERSION}\n") })?;
    Ok(ExitCode::SUCCESS)
}
