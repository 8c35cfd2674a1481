//! What `conduit` answers to those who want to know, as JSON, with its exit code.

use serde_json::Value;

use crate::{Cluster, cluster::PATIENCE, process::until};

/// The answer of `conduit ARGS -o json`, and its exit code.
///
/// # Panics
/// What it prints is no JSON.
#[track_caller]
pub fn answer(cluster: &Cluster, args: &[&str]) -> (Option<i32>, Value) {
    let output = cluster.conduit_fed(&[args, &["-o", "json"]].concat(), "");
    let json = serde_json::from_str(&output.stdout);
    (
        output.code,
        json.unwrap_or_else(|error| panic!("{args:?}: {error}: {}{}", output.stdout, output.stderr)),
    )
}

/// Waits until `conduit why` ends with this code: 0 encrypted, 3 in plaintext.
///
/// # Panics
/// It says something else for too long.
#[track_caller]
pub fn until_why(cluster: &Cluster, ends: &[&str], namespace: &str, code: i32) -> Value {
    let args = [&["why"], ends, &["-n", namespace, "-o", "json"]].concat();
    until(&format!("{args:?} ends with {code}"), PATIENCE, || {
        let output = cluster.conduit_fed(&args, "");
        let said = format!("{:?}: {}{}", output.code, output.stdout, output.stderr);
        let why = serde_json::from_str(&output.stdout).map_err(|_| said.clone())?;
        if output.code == Some(code) { Ok(why) } else { Err(said) }
    })
}

/// The share of TLS and the reasons of plaintext on the edge between two workloads of a namespace, over the last ten seconds;
/// the client `?` is whoever has no proxy.
///
/// # Errors
/// There is no such edge, or no answer.
pub fn edge(
    cluster: &Cluster,
    namespace: &str,
    client: &str,
    server: &str,
) -> Result<(f64, Vec<String>), String> {
    let text = cluster.try_conduit(&["edges", "-n", namespace, "-t", "10s", "-o", "json"])?;
    let edges: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    let is_end = |end: &Value, name: &str| end["name"] == if name == "?" { "" } else { name };
    let found = edges["edges"].as_array().into_iter().flatten();
    let mut found = found.filter(|edge| is_end(&edge["client"], client) && is_end(&edge["server"], server));
    let edge = found.next().ok_or_else(|| format!("no edge {client} → {server}: {text}"))?;
    let reasons = edge["plaintext"].as_object().into_iter().flatten().map(|(reason, _)| reason.clone());
    Ok((edge["tls"].as_f64().ok_or_else(|| text.clone())?, reasons.collect()))
}

/// Waits until the edge has this share of TLS, and these reasons for the rest.
///
/// # Panics
/// It has others for too long.
#[track_caller]
pub fn until_edge(cluster: &Cluster, namespace: &str, ends: (&str, &str), tls: f64, reasons: &[&str]) {
    until(&format!("{ends:?} with {tls} of TLS"), PATIENCE, || {
        let (share, why) = edge(cluster, namespace, ends.0, ends.1)?;
        let is_so = (share - tls).abs() < 1e-9 && why == reasons;
        if is_so { Ok(()) } else { Err(format!("{share} {why:?}")) }
    });
}
