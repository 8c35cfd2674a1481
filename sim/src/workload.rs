//! The applications of the simulated mesh: servers and clients of every [`Protocol`] that write down what was asked, what
//! arrived and what came back.
//!
//! - `payload.rs`: the bytes of an operation and of its answer, from the operation's name alone
//! - `request.rs`: what a client asks in one operation, drawn from the seed
//! - `server.rs`: the listening side, and what each connection has of it
//! - `client.rs`: the asking side, which starts operations by the clock alone; `line.rs`: its connections to one Service
//! - `http.rs`: messages of HTTP and gRPC; `http_server.rs`, `http_client.rs`: the two ends of their connections
//! - `wire.rs`: the other connections, and what is read from them; `opaque.rs`, `server_first.rs`, `websocket.rs`: both
//!   ends of what they carry; the application's own TLS carries what `opaque.rs` speaks
//!
//! An application knows nothing of Conduit. It decides nothing by what other connections or operations do, except where
//! operations share one kept connection. Every wait has a bound, every buffer too, and whatever a peer does is an outcome.

use std::{fmt, sync::Arc, time::Duration};

use rustls::{ClientConfig, ServerConfig};
use rustls_pki_types::ServerName;

use conduit_runtime::Seed;

use crate::history::OpLog;

mod app_tls;
mod client;
mod http;
mod http_client;
mod http_server;
mod line;
mod opaque;
mod payload;
mod request;
mod server;
mod server_first;
#[cfg(test)]
mod tests;
mod websocket;
mod wire;

pub use client::{ClientInfo, Stream, Style, client};
pub use payload::{MAX_PAYLOAD, answer, payload};
pub use server::{ServerInfo, ServerOptions, server};

/// Why an application ended by itself.
pub type AppError = Box<dyn std::error::Error + Send + Sync>;

/// How long an application goes on with what is under way after it was told to stop.
pub const DRAIN_LIMIT: Duration = Duration::from_secs(5);

/// Simulated time since the start of the run.
#[derive(Clone)]
pub struct Time(Arc<dyn Fn() -> Duration + Send + Sync>);

impl Time {
    /// The clock that `now` reads; it must run with tokio's.
    pub fn new(now: impl Fn() -> Duration + Send + Sync + 'static) -> Self {
        Self(Arc::new(now))
    }

    /// Time since the start of the run.
    pub fn now(&self) -> Duration {
        (self.0)()
    }
}

impl fmt::Debug for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Time({:?})", self.now())
    }
}

/// The applications' own TLS, which is not the mesh's: its randomness is the simulation's to decide.
#[derive(Debug, Clone)]
pub struct AppTls {
    /// What clients trust.
    pub client: Arc<ClientConfig>,
    /// What servers show.
    pub server: Arc<ServerConfig>,
    /// The name that clients ask for and servers show.
    pub name: ServerName<'static>,
}

/// What all applications of a run have in common. Cloning shares.
#[derive(Debug, Clone)]
pub struct Context {
    /// Where they write down what happens.
    pub log: OpLog,
    /// Their clock.
    pub time: Time,
    /// Where their randomness comes from; each forks it by its address or its operations' names.
    pub seed: Seed,
    /// What [`Protocol::AppTls`](crate::history::Protocol::AppTls) is spoken with.
    pub tls: AppTls,
}
