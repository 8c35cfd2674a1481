//! What every Conduit process needs and no Conduit process should write twice.
//!
//! - `env.rs`: the environment as a typed table that reports every bad value at once
//! - `log.rs`: tracing to stderr
//! - `metrics.rs`: the registry behind `/metrics`
//! - `ready.rs`: what must have happened before a process says it is ready
//! - `admin.rs`: `/live`, `/ready` and `/metrics`; `gzip.rs`: the last of them, compressed
//! - `drain.rs`: shutting down in two phases, without losing what is under way
//! - `serve.rs`: the accept loop, in which nothing waits for a peer; `serve/crowd.rs`: the same where strangers may crowd
//! - `grpc.rs`: gRPC over any [`conduit_net::Network`]; the only file that says tower
//! - `backoff.rs`, `seed.rs`: jitter and randomness, both from a seed
//! - `signal.rs`: SIGTERM and SIGINT; `files.rs`: the number of open files

pub mod admin;
mod backoff;
pub mod drain;
pub mod env;
pub mod files;
pub mod grpc;
mod gzip;
pub mod log;
pub mod metrics;
pub mod ready;
mod seed;
pub mod serve;
pub mod signal;

pub use backoff::Backoff;
pub use seed::Seed;
