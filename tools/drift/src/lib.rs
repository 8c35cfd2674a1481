//! Cargo is the truth about this workspace: its members, what they depend on, their targets, the version. Bazel has
//! to be told some of it again, in files that only somebody with Bazel would find wrong. This finds them wrong with
//! nothing but cargo, as a test, and says what to change.
//!
//! - `cargo.rs`: the workspace, from `cargo metadata`
//! - `starlark.rs`: as much of Bazel's language as its files here need
//! - `build.rs`: what a `BUILD.bazel` declares
//! - `members.rs`, `module.rs`, `targets.rs`, `arrows.rs`, `files.rs`, `images.rs`: the comparisons, each a list of findings
//! - `walk.rs`, `include.rs`, `pattern.rs`: what files there are, what they include, what globs match
//!
//! Absent on purpose: the version and the edition, which Bazel reads from `Cargo.toml`; `flake.nix`, which reads
//! members and programs from the manifests; third-party dependencies, which `all_crate_deps` takes from there; the
//! sources, data and programs that a target lacks, for which Bazel's sandbox fails by itself.

use std::{
    fmt, fs, io,
    path::{Path, PathBuf},
};

mod arrows;
mod build;
mod cargo;
mod files;
mod images;
mod include;
mod members;
mod module;
mod pattern;
mod starlark;
mod targets;
mod walk;

/// Why the files could not be compared.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A file that every workspace has is missing or not text.
    #[error("{} cannot be read: {source}", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the file system said.
        source: io::Error,
    },
    /// `cargo metadata` did not start, failed, or said something else than it used to.
    #[error("cargo metadata failed: {0}; run it in this folder to see why")]
    Cargo(String),
    /// A Starlark file is not of the form that is understood here.
    #[error("{file}:{line}: {problem}; drift reads only calls, strings, lists and names given to them")]
    Starlark {
        /// The file, from the workspace's root.
        file: String,
        /// Counted from one.
        line: usize,
        /// What stands there.
        problem: String,
    },
}

/// Something to change.
#[derive(Clone, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub struct Finding {
    /// The file to change, from the workspace's root.
    pub file: String,
    /// What to change in it, and why.
    pub remedy: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.file, self.remedy)
    }
}

/// All that has drifted in the workspace at `root`, in the order of files.
///
/// # Errors
/// If the workspace cannot be read; what is read and wrong is a finding.
pub fn findings(root: &Path) -> Result<Vec<Finding>, Error> {
    let packages = cargo::packages(root)?;
    let mut findings = members::findings(root)?;
    findings.extend(module::findings(root, &packages)?);
    for package in &packages {
        let build = build::read(root, &package.folder)?;
        findings.extend(targets::findings(package, &build));
        findings.extend(arrows::findings(package, &packages, &build));
        findings.extend(files::findings(root, package, &build)?);
        findings.extend(images::findings(package, &build));
    }
    findings.sort();
    Ok(findings)
}

fn read(path: &Path) -> Result<String, Error> {
    fs::read_to_string(path).map_err(|source| Error::Read { path: path.to_owned(), source })
}
