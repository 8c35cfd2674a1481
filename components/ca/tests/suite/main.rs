//! What the authority promises; one binary, so that it links once.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod authority;
mod controller;
mod faults;
mod objects;
mod real;
mod reconcile;
mod rotation;
mod running;
mod world;
