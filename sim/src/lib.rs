//! A deterministic simulation of a whole mesh.
//!
//! - `history.rs`: what happened in a run, as values
pub mod history;
