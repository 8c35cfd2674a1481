//! The command line of Conduit.
//!
//! One file a command, each with its `Args` and its `run`; a new command is its file, a variant of
//! [`args::Command`] and a line in [`args::Command::run`].
//!
//! - `args.rs`: the root, its flags, the list of commands
//! - `output.rs`: stdout is data and may be a closed pipe, stderr is everything else
//! - `stat.rs`, `get.rs`, `tap.rs`: what the control plane knows, through `client.rs` and `cluster.rs`; `table.rs` lays rows out,
//!   `sse.rs` reads events
//! - `install.rs`: the control plane as manifests
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
pub mod client;
mod cluster;
pub mod completion;
pub mod demo;
pub mod get;
pub mod inject;
pub mod input;
pub mod install;
pub mod mesh_options;
pub mod output;
pub mod sse;
pub mod stat;
pub mod table;
pub mod tap;
pub mod uninject;
pub mod version;
pub mod yaml;

use args::Cli;

/// Runs the command line `args`, the program's name first, and says how the process ends.
pub fn main(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    match Cli::try_parse_from(args) {
        Ok(cli) => finish(block_on(cli)),
        Err(error) => refuse(&error),
    }
}

fn block_on(cli: Cli) -> anyhow::Result<ExitCode> {
    if cli.global.verbose {
        log::init("debug");
    }
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    runtime.block_on(cli.command.run(&cli.global))
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
