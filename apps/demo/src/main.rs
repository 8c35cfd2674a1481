//! `conduit demo` as a program of its own, for whoever runs before reading: `nix run .#demo`, `bazel run //:demo`.

use std::{ffi::OsString, process::ExitCode};

fn main() -> ExitCode {
    let command = ["conduit", "demo"].map(OsString::from);
    conduit_cli::main(command.into_iter().chain(std::env::args_os().skip(1)))
}
