//! A pod's network: its application's connections pass through its own sidecar without either of them knowing.
//!
//! ```text
//! application ──connect(anywhere)──▶ AppNet ──preamble──▶ pod:4140 ─┐
//!                                                                  proxy ──▶ other pods, from the pod's address
//! others ──▶ pod:8080, pod:4143 ──────── one inbound listener ─────┘  └──▶ pod:8080 is the application's own listener
//! ```
//!
//! - `pod/app_net.rs`: what the application gets: everything it opens goes to the sidecar, everything it listens on
//!   lives on a private port
//! - `pod/proxy_net.rs`: what the sidecar gets: the redirected listeners, and a way out
//! - `pod/ports.rs`: which of the application's ports are where
//!
//! In a cluster, iptables does this. The differences: a port on which the application does not listen is refused by the
//! kernel, not by the sidecar; and the preamble is on the wire of the pod's own loopback.

mod app_net;
mod ports;
mod proxy_net;

use std::{collections::BTreeSet, net::IpAddr, sync::Arc};

use conduit_net::Net;
use tokio::sync::watch;

use crate::{
    address::Host,
    running::Processes,
    services::{Services, Turns},
};
use app_net::AppNet;
use ports::Ports;
use proxy_net::ProxyNet;

/// Ports on which the sidecar takes redirected connections.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Redirect {
    /// What others send to the pod.
    pub inbound: u16,
    /// What the application sends.
    pub outbound: u16,
}

impl Default for Redirect {
    fn default() -> Self {
        Self { inbound: conduit_k8s::owned::PORT_INBOUND, outbound: conduit_k8s::owned::PORT_OUTBOUND }
    }
}

/// The network of one pod.
#[derive(Clone)]
pub struct PodNet {
    pod: Arc<Pod>,
    redirect: Option<Redirect>,
}

/// What both ends of a pod share.
struct Pod {
    host: Host,
    namespace: String,
    services: Services,
    turns: Turns,
    ports: Ports,
}

impl PodNet {
    /// A pod with a sidecar, in `namespace`.
    pub fn meshed(host: Host, namespace: &str, services: Services, redirect: Redirect) -> Self {
        Self::new(host, namespace, services, Some(redirect))
    }

    /// A pod without a sidecar: its application uses the pod's address itself.
    pub fn unmeshed(host: Host, namespace: &str, services: Services) -> Self {
        Self::new(host, namespace, services, None)
    }

    fn new(host: Host, namespace: &str, services: Services, redirect: Option<Redirect>) -> Self {
        let namespace = namespace.to_owned();
        Self {
            pod: Arc::new(Pod {
                host,
                namespace,
                services,
                turns: Turns::default(),
                ports: Ports::default(),
            }),
            redirect,
        }
    }

    /// The pod's address.
    pub fn ip(&self) -> IpAddr {
        self.pod.host.ip()
    }

    /// Where its processes run.
    pub(crate) fn processes(&self) -> &dyn Processes {
        self.pod.host.processes()
    }

    /// What the application uses.
    pub fn app(&self) -> Net {
        Arc::new(AppNet { pod: self.pod.clone(), redirect: self.redirect })
    }

    /// What the sidecar uses. Without a sidecar there is nothing to redirect, and it is an ordinary network.
    pub fn proxy(&self) -> Net {
        Arc::new(ProxyNet { pod: self.pod.clone(), redirect: self.redirect })
    }

    /// The ports on which the application listens, as they come and go.
    pub fn listening(&self) -> watch::Receiver<BTreeSet<u16>> {
        self.pod.ports.listening()
    }
}

#[cfg(test)]
mod tests;
