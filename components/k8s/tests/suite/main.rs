//! The client on real sockets, and everything against a real API server.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod client;
mod real;
