//! Every crate is written out among the workspace's members: Nix reads that list, and a crate that is on none is
//! neither built nor tested by anybody.

use std::path::Path;

use crate::{Error, Finding, read, walk};

const MANIFEST: &str = "Cargo.toml";

/// # Errors
/// If the workspace's folders or a manifest cannot be read.
pub(crate) fn findings(root: &Path) -> Result<Vec<Finding>, Error> {
    let text = read(&root.join(MANIFEST))?;
    let listed = members(&text);
    let mut findings = Vec::new();
    for manifest in walk::files(root)?.iter().filter(|file| file.ends_with(MANIFEST)) {
        let folder = manifest.parent().unwrap_or(Path::new("")).to_string_lossy();
        // One that is a workspace of its own does not want to be in ours.
        if !listed.contains(&&*folder) && !is_workspace(&read(&root.join(manifest))?) {
            let remedy = format!("add \"{folder}\" to members, or nothing builds that crate");
            findings.push(Finding { file: MANIFEST.to_owned(), remedy });
        }
    }
    Ok(findings)
}

fn is_workspace(manifest: &str) -> bool {
    manifest.lines().any(|line| line.trim() == "[workspace]")
}

/// The strings in `members = [...]`.
fn members(manifest: &str) -> Vec<&str> {
    let list = manifest.split("\nmembers = [").nth(1).and_then(|rest| rest.split(']').next());
    list.unwrap_or_default().split('"').skip(1).step_by(2).collect()
}
