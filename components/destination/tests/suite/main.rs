//! The destination service on real loopback sockets, in front of an API server that speaks HTTP.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod answers;
mod endings;
mod outages;
mod real;
mod slow;
mod tls;
mod world;
