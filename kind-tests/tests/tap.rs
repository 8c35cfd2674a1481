//! `conduit tap` on a real cluster.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{Cluster, cluster::PATIENCE, mesh, process::until};

#[test]
fn requests_are_seen_as_they_happen_with_tls_on_them() {
    let cluster = Cluster::get();
    mesh::with_emojivoto(&cluster);
    let lines = until("requests of web", PATIENCE, || {
        let args = ["tap", "deploy/web", "-n", mesh::EMOJIVOTO, "--max-rps", "10", "--max-events", "20"];
        let text = cluster.try_conduit(&args)?;
        if text.contains("tls=true") { Ok(text) } else { Err(text) }
    });
    println!("{lines}");
    let requests: Vec<&str> = lines.lines().filter(|line| line.starts_with("req ")).collect();
    assert!(!requests.is_empty() && requests.iter().all(|line| line.contains("tls=true")), "{lines}");
    assert!(lines.contains(":path=/api/"), "{lines}");
}
