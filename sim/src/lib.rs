//! A deterministic simulation of a whole mesh: the real proxy, CA, destination service, observe and Kubernetes clients,
//! on simulated hosts, time and network, with everything decided by a seed.
//!
//! - `plan.rs`: what a world is and what happens to it, from a seed (pure); `fault.rs`: what can be broken
//! - `judge.rs`: a plan, run with Conduit and without, and judged
//! - `scenarios.rs`, `scenarios/`: stories with a name; `timeline.rs`: what happened in one, to be read
//! - `shrink.rs`: the smallest story in which the same thing goes wrong (pure)
//! - `world.rs`: brings a plan about, and returns what happened
//! - `run.rs`: one run; `hosts.rs`: turmoil's hosts; `wire.rs`: the network between them; `time.rs`: clocks
//! - `crypto.rs`: cryptography that follows from the seed
//! - `workload.rs`, `workload/`: the applications, which ask and answer
//! - `record.rs`: what lies in pods' files; `probe.rs`: asking pods; `sniff.rs`: what a connection carries, from its bytes
//! - `history.rs`, `history/`: what happened in a run, as values
//! - `check.rs`, `check/`: the invariants, each a function of what happened

pub mod check;
pub mod crypto;
pub mod fault;
pub mod history;
pub mod hosts;
pub mod judge;
pub mod plan;
pub mod probe;
pub mod record;
pub mod run;
pub mod scenarios;
pub mod shrink;
pub mod sniff;
#[cfg(test)]
mod testing;
pub mod time;
pub mod timeline;
pub mod wire;
pub mod workload;
pub mod world;
