//! `conduit stat` on a real cluster.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{Cluster, cluster::PATIENCE, mesh, process::until};

#[test]
fn authorities_of_the_sample_application_are_all_tls() {
    let cluster = Cluster::get();
    mesh::with_emojivoto(&cluster);
    let table = until("a table of TLS 100%", PATIENCE, || {
        let table = cluster.try_conduit(&["stat", "authority", "-n", mesh::EMOJIVOTO, "-t", "10s"])?;
        let rows: Vec<&str> = table.lines().skip(1).collect();
        let is_encrypted = rows.len() >= 4 && rows.iter().all(|row| row.ends_with("100%"));
        if is_encrypted { Ok(table) } else { Err(table) }
    });
    println!("{table}");
    for service in ["emoji-svc.emojivoto:8080", "voting-svc.emojivoto:8080", "web-svc.emojivoto:80"] {
        assert!(table.contains(service), "{table}");
    }
}

#[test]
fn deployments_are_meshed_and_the_doughnut_is_found() {
    let cluster = Cluster::get();
    mesh::with_emojivoto(&cluster);
    until("voting fails now and then", PATIENCE, || {
        let text = cluster.try_conduit(&["stat", "deploy", "-n", mesh::EMOJIVOTO, "-o", "json"])?;
        let stat: serde_json::Value = serde_json::from_str(&text).map_err(|error| error.to_string())?;
        let rows = stat["rows"].as_array().cloned().unwrap_or_default();
        let row = |name: &str| rows.iter().find(|row| row["name"] == name).cloned().unwrap_or_default();
        let is_meshed = mesh::PARTS.iter().all(|part| row(part)["meshed"] == 1 && row(part)["running"] == 1);
        let success = row("voting")["success"].as_f64().unwrap_or(1.0);
        let finds = row("emoji")["success"] == 1.0 && success < 1.0 && success > 0.5;
        if is_meshed && finds { Ok(()) } else { Err(text) }
    });
}
