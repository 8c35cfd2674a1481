//! The proxy through its front door: real proxies on loopback sockets, real TLS between them, and applications that
//! speak raw bytes, so that what is asserted is what crosses the wire.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "a failed expectation is a failed test")]

mod support;

mod discovery;
mod going_away;
mod http;
mod http2;
mod idle;
mod inbound;
mod jobs;
mod layering;
mod leaving;
mod malformed;
mod outbound;
mod probes;
mod shutdown;
mod stalling;
mod tap;
mod tcp;
mod telemetry;
mod tls;
mod upgrade;
