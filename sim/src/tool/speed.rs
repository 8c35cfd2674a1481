//! How fast a world goes by.

use std::time::Instant;

use sim::{
    history::Protocol,
    plan::{Client, Plan, Server},
    workload::Style,
    world,
};

/// Six pods, all meshed: two servers of two pods each, and two clients of both.
fn six_pods() -> Plan {
    let client = |name| {
        let client = Client::new("shop", name);
        client.asks(0, Protocol::Http1, Style::Kept).asks(1, Protocol::Grpc, Style::Fresh)
    };
    Plan {
        servers: vec![
            Server::new("shop", "web", &[Protocol::Http1]).replicas(2),
            Server::new("shop", "api", &[Protocol::Grpc]).replicas(2),
        ],
        clients: vec![client("one"), client("another")],
        until: std::time::Duration::from_secs(60),
        ..Plan::quiet(1)
    }
}

/// Runs it with Conduit, on one thread, and prints how long that takes.
///
/// # Errors
/// The run comes to no end.
#[allow(clippy::disallowed_methods, reason = "it is about real time, outside of any world")]
pub(super) fn run() -> anyhow::Result<bool> {
    let begun = Instant::now();
    let (run, _) = world::with_conduit(&six_pods(), false)?;
    let (simulated, took) = (run.ended.as_secs_f64(), begun.elapsed().as_secs_f64());
    println!("{simulated:.0} s of a world of six pods in {took:.1} s: {:.0} times as fast", simulated / took);
    Ok(true)
}
