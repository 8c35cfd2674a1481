#![allow(clippy::print_stdout, reason = "placeholder")]
//! Conduit.
fn main() {}
