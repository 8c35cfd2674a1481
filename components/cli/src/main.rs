//! `conduit`: the command line of the mesh.

use std::process::ExitCode;

fn main() -> ExitCode {
    conduit_cli::main(std::env::args_os())
}
