//! The init container's binary: redirects the TCP connections of the pod's network namespace to the proxy beside it.
//!
//! - `args.rs`: the command line
//! - `rules.rs`: the rules as text, from flags and from what is there already
//! - `apply.rs`: which program gets the text, and what it means when that fails
//! - `child.rs`: a program with a deadline
//!
//! It ends at once, and may run again in the same namespace, with the same flags or others: what it leaves depends on the
//! last run only. UDP is not touched.

use std::{io::Write, process::ExitCode};

use clap::Parser;

use crate::{apply::Host, args::Args};

mod apply;
mod args;
mod child;
mod rules;

fn main() -> ExitCode {
    let args = Args::parse();
    let rules = args.rules().unwrap_or_else(|error| error.exit());
    if args.simulate {
        let script = rules.restore_script("");
        let text = format!(
            "# For iptables-restore --noflush, and the same for ip6tables-restore --noflush\n{script}"
        );
        return match std::io::stdout().write_all(text.as_bytes()) {
            Ok(()) => ExitCode::SUCCESS,
            Err(error) => fail(&format!("the rules cannot be written to standard output: {error}")),
        };
    }
    match apply::apply(&rules, args.backend, &Host::this()) {
        Ok(report) => {
            eprintln!("{report}");
            ExitCode::SUCCESS
        }
        Err(error) => fail(&error.to_string()),
    }
}

fn fail(message: &str) -> ExitCode {
    eprintln!("error: {message}");
    ExitCode::FAILURE
}
