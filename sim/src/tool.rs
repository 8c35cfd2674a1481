//! The command line of the simulation.
//!
//! - `tool/args.rs`: what can be asked for; bad values are refused before anything runs
//! - `tool/replay.rs`: one world; `tool/sweep.rs`: many, side by side; `tool/compare.rs`: one, in two processes
//! - `tool/speed.rs`: how fast a world goes by
//! - `tool/shrinking.rs`: how little of a story it takes
//! - `tool/report.rs`: what is printed; `tool/log.rs`: what processes log
//!
//! Exit codes: 0 when nothing is violated, 1 when something is, 2 for what was asked wrongly.
#![allow(clippy::print_stdout, clippy::print_stderr, reason = "what it prints is the result")]

mod args;
mod compare;
mod log;
mod replay;
mod report;
mod shrinking;
mod speed;
mod sweep;

use std::process::ExitCode;

use sim::scenarios;

pub(crate) use args::Cli;
use args::Command;

/// Does what was asked for.
pub(crate) fn run(cli: Cli) -> ExitCode {
    let done = match cli.command {
        Command::Run(args) => replay::run(&args),
        Command::Sweep(args) => sweep::run(&args),
        Command::Compare(args) => compare::run(&args.story),
        Command::Trace(args) => compare::trace(&args),
        Command::Speed => speed::run(),
        Command::List => {
            list();
            Ok(true)
        }
    };
    match done {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::from(1),
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::from(2)
        }
    }
}

fn list() {
    let width = scenarios::all().iter().map(|scenario| scenario.name.len()).max().unwrap_or_default();
    for scenario in scenarios::all() {
        println!("{:width$}  {}", scenario.name, scenario.about);
    }
}
