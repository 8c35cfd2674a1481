//! The sidecar: everything that enters or leaves an application's pod passes through it, encrypted and authenticated
//! where both ends can, and unharmed where they cannot.
//!
//! In the order a connection travels:
//!
//! - `config.rs`: what the proxy is told; `lifecycle.rs`: its listeners and its end
//! - `accept.rs`: one task per connection
//! - `inbound.rs`, `outbound.rs`: the two directions
//! - `opening.rs`: who speaks first; `detect.rs`: what is spoken (pure)
//! - `http.rs`, `http/*`: HTTP, a `forward` per request; `tcp.rs`: everything else
//! - `discover.rs`: where it goes; `balance.rs`: to which endpoint (pure)
//! - `pool.rs`: connections kept; `connect.rs`: connections opened, with TLS or with a reason
//! - `stream.rs`: a connection as such; `expiry.rs`: when its certificates end
//! - `probe.rs`: whether a port of the application opens, for the kubelet
//! - `session.rs`: what happened to it, for `metrics.rs`, `tap.rs` and the logs alike
//!
//! Outbound: `accept` → `outbound` refuses loops, hears the first bytes → `http` serves them, each request: authority →
//! `discover` → `balance` → `pool` or `connect` → send, stream, record; or `tcp` copies them. Inbound: `accept` →
//! `inbound` terminates TLS that is for us → `http` over one connection tied to the client's, or `tcp`.
//!
//! What holds:
//!
//! - A wait on a peer has a deadline, or is one that the application would have without us.
//! - A byte of the application goes out in plaintext only before TLS was agreed on, never after.
//! - A request is sent again only if no server can have looked at it.
//! - What a session's status says is what crossed the wire.
//!
//! Deliberately absent: policy (nobody is refused for want of TLS), timeouts on requests, retries of what failed.

mod accept;
mod balance;
#[doc(hidden)]
pub mod bench;
mod config;
mod connect;
pub mod detect;
mod discover;
mod expiry;
mod http;
mod inbound;
mod lifecycle;
mod metrics;
mod opening;
mod outbound;
mod pool;
pub mod probe;
mod session;
mod stream;
mod tap;
mod tcp;
#[cfg(test)]
mod testing;
mod trust;

pub use config::{Config, Destination, Limits, Listen, Own, Timeouts, Tls};
pub use lifecycle::{Bound, Deps, Error, run};
