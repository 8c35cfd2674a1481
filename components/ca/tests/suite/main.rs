//! What the authority promises; one binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod authority;
mod controller;
mod objects;
mod reconcile;
mod rotation;
mod world;
