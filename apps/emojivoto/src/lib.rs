//! Emojivoto, the sample application: a page where people vote for emoji, in four parts that talk HTTP and gRPC to
//! each other, with one bug to be found. It knows nothing of the mesh; the demo, the simulation and the tests against
//! a cluster all run exactly this.
//!
//! ```text
//! vote-bot ──HTTP──▶ web:80 ──gRPC──▶ emoji:8080      which emoji there are
//!                      │ ├────HTTP──▶ emoji:8888      a status, asked about once a second
//!                      │ └────gRPC──▶ voting:8080     counts; a vote for the doughnut always fails
//! ```
//!
//! - `web.rs`, `emoji.rs`, `voting.rs`, `vote_bot.rs`: the four parts; each binds in `bind` and works in `run`
//! - `page.rs`: what `web` shows to people
//! - `votes.rs`: the emoji, and which RPC votes for which
//! - `http_client.rs`, `http_server.rs`: HTTP/1.1 on any network
//! - `rpc.rs`: gRPC clients by name, gRPC servers on a listener
//! - `tally.rs`: what was tried and what became of it
//! - `main.rs`: the parts as one binary configured by its environment; `emojivoto.yml` deploys it
//!
//! Peers are named, never addressed: every new connection resolves its name again. Every call has a deadline.

pub mod emoji;
mod http_client;
mod http_server;
mod page;
mod rpc;
mod tally;
pub mod vote_bot;
mod votes;
pub mod voting;
pub mod web;

pub use http_client::{Authority, BadAuthority};
pub use rpc::BindError;
pub use tally::{Counted, Tally};
pub use votes::{DOUGHNUT, DOUGHNUT_REFUSAL, SHORTCODES};

/// The gRPC contract between the parts.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
mod contract {
    include!("gen/emojivoto.v1.rs");
}
