//! What Conduit adds on top of `kube`: a client over any [`conduit_net::Network`], the names Conduit owns, and the few
//! patterns that every component needs in the same way.
//!
//! - `client.rs`: [`kube::Client`] over a [`conduit_net::Net`], every request with a deadline
//! - `kubeconfig.rs`: which cluster is meant, and what is wrong with its description
//! - `owned.rs`: labels, annotations, object names and ports that Conduit owns
//! - `owner.rs`: from a pod to the workload it belongs to, and whether it is meshed (pure)
//! - `watch.rs`: [`watch::follow`], list and watch for ever, with our own backoff
//! - `cache.rs`: [`cache::Cache`], an ordered copy of what `follow` sees, with change notification
//! - `slices.rs`: EndpointSlices in whichever version the cluster serves
//! - `lease.rs`: leadership by a Lease
//! - `cause.rs`: why the API server was of no use, told once
//!
//! Invariants: nothing here waits for the API server without a deadline; nothing is queued, a reader that is slow sees
//! the latest state; whatever is handed out in bulk is ordered by namespace and name.
//!
//! Deliberately absent: `kube::runtime` (its reflector store has a random order and its watcher no deadline for a
//! list), streaming lists (a 1.20 API server never ends them), and discovery (a 404 tells the same at less cost).

pub mod cache;
pub mod cause;
pub mod client;
pub mod kubeconfig;
pub mod lease;
#[cfg(test)]
mod logged;
pub mod owned;
pub mod owner;
pub mod slices;
pub mod watch;

pub use owner::{injected_tls, is_meshed};
