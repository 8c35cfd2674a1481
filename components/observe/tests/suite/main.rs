//! Observe as a process sees itself: a cluster's API, pods with proxies, and the HTTP API in front.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod api;
mod support;
mod tap;
