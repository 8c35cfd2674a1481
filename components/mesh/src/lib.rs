//! A whole mesh in one process, made of the real parts.
//!
//! - `address.rs`: what a pod's address is on this machine
//! - `pod.rs`: a pod's network, in which user space does what iptables does in a cluster
//! - `preamble.rs`: how the application's side tells the sidecar where a connection was going
//! - `services.rs`: cluster DNS and kube-proxy, from the Services in the API

mod address;
mod pod;
mod preamble;
mod services;

pub use address::{Addresses, Host};
pub use pod::{PodNet, Redirect};
pub use services::Services;
