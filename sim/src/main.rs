//! `sim`: replays a seed or a named scenario, sweeps many seeds, and compares two runs of one.

mod tool;

use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    tool::run(tool::Cli::parse())
}
