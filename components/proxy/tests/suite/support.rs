//! Pods with real proxies on loopback addresses, in a world that stands in for iptables, kube-proxy and the control plane.

pub(crate) mod app;
pub(crate) mod authority;
pub(crate) mod destination;
pub(crate) mod frames;
pub(crate) mod path;
pub(crate) mod pod;
pub(crate) mod script;
pub(crate) mod web;
pub(crate) mod world;

use std::time::Duration;

pub(crate) use app::{Client, serve};
pub(crate) use authority::{Authority, HOUR, NOW, identity};
pub(crate) use pod::Pod;
pub(crate) use world::{Wire, World};

/// For what must happen. Long enough for a loaded machine, and never waited for when it does happen.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// Waits for what must happen.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(PATIENCE, future).await.expect("it happens in time")
}

/// Waits until `condition` holds.
pub(crate) async fn eventually(mut condition: impl AsyncFnMut() -> bool) {
    within(async {
        while !condition().await {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    })
    .await;
}
