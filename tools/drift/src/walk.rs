//! The files that people have written, below a folder.

use std::{
    fs,
    path::{Path, PathBuf},
};

use crate::Error;

/// The files below `folder`, from there and in order. Left out are what Cargo, Bazel, Nix and insta make, and names that
/// begin with a dot.
///
/// # Errors
/// If a folder cannot be read.
pub(crate) fn files(folder: &Path) -> Result<Vec<PathBuf>, Error> {
    let mut files = Vec::new();
    walk(folder, Path::new(""), &mut files)?;
    files.sort();
    Ok(files)
}

fn walk(folder: &Path, below: &Path, files: &mut Vec<PathBuf>) -> Result<(), Error> {
    let path = folder.join(below);
    let refuse = |source| Error::Read { path: path.clone(), source };
    for entry in fs::read_dir(&path).map_err(refuse)? {
        let entry = entry.map_err(refuse)?;
        let file = below.join(entry.file_name());
        let kind = entry.file_type().map_err(refuse)?;
        if is_made(&entry.file_name().to_string_lossy()) {
            continue;
        } else if kind.is_dir() {
            walk(folder, &file, files)?;
        } else if kind.is_file() {
            // Not a link: those into Bazel's and Nix's results would lead out of the workspace.
            files.push(file);
        }
    }
    Ok(())
}

fn is_made(name: &str) -> bool {
    name == "target" || name.starts_with('.') || name.ends_with(".snap.new")
}
