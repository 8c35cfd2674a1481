//! The command line of Conduit.
//!
//! One file a command, each with its `Args` and its `run`; a new command is its file, a variant of
//! [`args::Command`] and a line in [`args::Command::run`].
//!
//! - `args.rs`: the root, its flags, the list of commands
//! - `output.rs`: stdout is data and may be a closed pipe, stderr is everything else
//! - `stat.rs`, `edges.rs`, `get.rs`, `tap.rs`, `top.rs`, `why.rs`, `check.rs`, `identity.rs`, `diagnostics.rs`,
//!   `dashboard.rs`: what the control plane knows, through
//!   `client.rs` and `cluster.rs`; `table.rs` lays rows out,
//!   `screen.rs` shows them live, `sse.rs` reads events, `resource.rs` what a command is about
//! - `install.rs`: the control plane as manifests; `upgrade.rs`: of one that is there; `uninstall.rs`: what there is of it in a cluster
//! - `inject.rs`, `uninject.rs`: proxies into manifests and out again; `mesh_options.rs` has the flags shared with install,
//!   `input.rs` reads files, `yaml.rs` knows text
//! - `demo.rs`: a mesh on this machine
//! - `version.rs`, `completion.rs`
//!
//! # Exit codes
//! 0 for success and for help; 1 for every error, a wrong flag included; commands whose answer can be "no" document a
//! code of their own.

use std::{ffi::OsString, process::ExitCode};

use clap::Parser;
use conduit_runtime::log;

pub mod args;
pub mod check;
pub mod client;
mod cluster;
pub mod completion;
pub mod dashboard;
pub mod demo;
pub mod diagnostics;
pub mod edges;
pub mod get;
pub mod identity;
pub mod inject;
pub mod input;
pub mod install;
pub mod mesh_options;
pub mod output;
pub mod resource;
mod screen;
pub mod sse;
pub mod stat;
pub mod table;
pub mod tap;
pub mod top;
pub mod uninject;
pub mod uninstall;
pub mod upgrade;
pub mod version;
pub mod why;
pub mod yaml;

use args::{Cli, Command};

/// Runs the command line `args`, the program's name first, and says how the process ends.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(args) {
        Ok(cli) => finish(block_on(cli)),
        Err(error) => refuse(&error),
    }
}

fn block_on(cli: Cli) -> anyhow::Result<ExitCode> {
    if cli.global.verbose {
        log::init(verbose(&cli.command));
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cli.command.run(&cli.global))
}

/// What `--verbose` shows: what we do, and of the libraries below us what went wrong. A demo is a whole mesh in one process,
/// of which a line for each connection would be too much.
fn verbose(command: &Command) -> &'static str {
    match command {
        Command::Demo(_) => "warn,conduit=info",
        _ => "warn,conduit=debug",
    }
}

fn finish(outcome: anyhow::Result<ExitCode>) -> ExitCode {
    match outcome {
        Ok(code) => code,
        // `conduit install | head` is not a failure worth a message: whoever read has seen enough.
        Err(error) if output::is_closed_pipe(&error) => ExitCode::SUCCESS,
        Err(error) => {
            output::error(&format!("{error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Help is asked for and goes to stdout; everything else clap says is a usage error.
fn refuse(error: &clap::Error) -> ExitCode {
    // Nothing is left to be done when its stream is closed.
    let _ = error.print();
    if error.use_stderr() { ExitCode::FAILURE } else { ExitCode::SUCCESS }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_is_about_us() {
        for line in [["conduit", "demo"], ["conduit", "version"]] {
            let filter = verbose(&Cli::try_parse_from(line).expect("it is sound").command);
            assert!(log::check(filter).is_ok() && filter.starts_with("warn,conduit="), "{filter}");
        }
    }
}
