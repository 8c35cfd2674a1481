//! The control plane, and the sample application in its mesh.

use std::{fs, path::PathBuf};

use serde_json::Value;

use crate::{
    cluster::{Cluster, PATIENCE},
    process::until,
};

/// The namespace of the control plane.
pub const CONTROL_PLANE: &str = "conduit";
/// Its Deployments.
pub const COMPONENTS: [&str; 3] = ["ca", "destination", "observe"];
/// The namespace of the sample application.
pub const EMOJIVOTO: &str = "emojivoto";
/// Its Deployments.
pub const PARTS: [&str; 4] = ["emoji", "voting", "web", "vote-bot"];

/// A file of the workspace.
///
/// # Panics
/// There is none.
#[track_caller]
pub fn file(path: &str) -> String {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("..").join(path);
    fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()))
}

/// The sample application's manifests, as they are in the repository.
pub fn emojivoto() -> String {
    file("apps/emojivoto/emojivoto.yml")
}

/// Installs the control plane, as the documents say, unless it is there.
pub fn install(cluster: &Cluster) {
    let manifests = cluster.conduit(&["install", "--tls=optional"]);
    cluster.apply(&manifests);
    cluster.rolled_out(CONTROL_PLANE, &COMPONENTS);
}

/// Installs the control plane and the sample application in its mesh, and waits until it encrypts everything.
pub fn with_emojivoto(cluster: &Cluster) {
    install(cluster);
    cluster.apply(&cluster.inject(&emojivoto(), &["--tls=optional"]));
    cluster.rolled_out(EMOJIVOTO, &PARTS);
    until("all of emojivoto is TLS", PATIENCE, || {
        let rows = authorities(cluster)?;
        let open: Vec<&Value> = rows.iter().filter(|row| row["tls"] != 1.0).collect();
        if rows.len() >= 4 && open.is_empty() { Ok(()) } else { Err(format!("{rows:#?}")) }
    });
}

/// The rows of `conduit stat authority -n emojivoto` over the last ten seconds.
///
/// # Errors
/// There is no answer yet.
pub fn authorities(cluster: &Cluster) -> Result<Vec<Value>, String> {
    let text = cluster.try_conduit(&["stat", "authority", "-n", EMOJIVOTO, "-t", "10s", "-o", "json"])?;
    let stat: Value = serde_json::from_str(&text).map_err(|error| format!("{error}: {text}"))?;
    Ok(stat["rows"].as_array().cloned().unwrap_or_default())
}
