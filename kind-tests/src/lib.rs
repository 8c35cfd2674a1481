//! Conduit on a real Kubernetes, driven as its users drive it: by `conduit` and `kubectl`, through manifests.
//!
//! `kind-tests/run` builds what is needed, finds a cluster and runs the files of `tests/` one after the other. Each file can
//! run alone: it installs the control plane if there is none, and leaves it for the next.
//!
//! - `process.rs`: programs with a deadline
//! - `cluster.rs`: the cluster, `kubectl` and `conduit`
//! - `mesh.rs`: the control plane and the sample application in it
//! - `load.rs`: a server and its caller; `counts.rs`: what became of the requests
//! - `faults.rs`: a mesh that is broken and mended under load
//! - `asked.rs`: what `conduit` answers to those who want to know
//! - `wire.rs`: what crossed between pods, as a capture on the node shows it; `packets.rs` reads captures
//!
//! Nothing here measures time to judge it: deadlines are generous, and a slow machine is no failure.

#![allow(clippy::unwrap_used, clippy::expect_used, reason = "helpers of tests fail as tests do")]

pub mod asked;
pub mod cluster;
pub mod counts;
pub mod faults;
pub mod load;
pub mod mesh;
pub mod packets;
pub mod process;
pub mod wire;

pub use cluster::Cluster;
