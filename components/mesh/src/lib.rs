//! A whole mesh in one process, made of the real parts: what `conduit demo` shows and the simulation puts under stress.
//!
//! Each pod is its application and a real proxy, each part of the control plane is run by the same function as its
//! binary, and they meet on sockets and in a Kubernetes API that is in memory and otherwise real. Nothing here knows
//! anything of TLS: who has which certificate is decided by the CA and carried by the API, as in a cluster.
//!
//! - `builder.rs`, `mesh.rs`: a mesh, from its description to its end
//! - `deployment.rs`: what is to run; `objects.rs`: what that is in the API (pure)
//! - `launch.rs`: bringing pods up and down, as controllers and kubelet do; `sidecar.rs`: the proxy's environment
//! - `control_plane.rs`: CA, destination, observe
//! - `pod.rs`: a pod's network, in which user space does what iptables does in a cluster
//! - `preamble.rs`: how the application's side tells the sidecar where a connection was going
//! - `services.rs`: cluster DNS and kube-proxy, from the Services in the API
//! - `address.rs`: what a pod's address is on this machine
//! - `faults.rs`: what can be wrong with certificates
//! - `running.rs`: something that runs until it is told to stop, and where; `error.rs`: what can go wrong

mod address;
mod builder;
mod control_plane;
mod deployment;
mod error;
mod faults;
mod launch;
mod mesh;
mod objects;
mod pod;
mod preamble;
mod running;
mod services;
mod sidecar;

pub use address::{Addresses, Host, Hosts};
pub use builder::{Builder, PodObserver};
pub use deployment::{App, AppError, Deployment, Port, Service, Sidecar};
pub use error::Error;
pub use faults::Behind;
pub use launch::{PodEvent, RunningPod};
pub use mesh::Mesh;
pub use pod::{PodNet, Redirect};
pub use running::Processes;
pub use services::Services;
