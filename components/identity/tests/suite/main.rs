//! What the crate promises, tested through its public face; one binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod files;
mod handshake;
mod names;
mod store;
mod support;
