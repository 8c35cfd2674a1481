//! Every file of a package besides Rust is declared to Bazel, by who includes it or by who reads it.

use std::path::{Path, PathBuf};

use crate::{
    Error, Finding,
    build::{Build, Target},
    cargo::Package,
    include, read, walk,
};

/// What holds files that are read at run time.
const DATA: [&str; 2] = ["data", "test_data"];

/// # Errors
/// If the package's files cannot be read.
pub(crate) fn findings(root: &Path, package: &Package, build: &Build) -> Result<Vec<Finding>, Error> {
    let folder = root.join(&package.folder);
    let files = own(walk::files(&folder)?);
    let mut remedies = Vec::new();
    for file in &files {
        if file.extension().is_some_and(|extension| extension == "rs") {
            let text = read(&folder.join(file))?;
            remedies.extend(
                include::included(file, &text).iter().filter_map(|other| undeclared(build, file, other)),
            );
        }
    }
    let unread = files.iter().filter(|file| !is_known(file) && !is_declared(build, file));
    remedies.extend(unread.map(|file| {
        format!(
            "{} is declared nowhere: add it to data of the test that reads it, to test_data of the library whose \
             tests do, or to compile_data of what includes it",
            file.display()
        )
    }));
    Ok(remedies.into_iter().map(|remedy| Finding { file: build.file.clone(), remedy }).collect())
}

/// `files` without those of crates that lie inside the package, which are no part of it.
fn own(files: Vec<PathBuf>) -> Vec<PathBuf> {
    let manifests = files.iter().filter(|file| file.ends_with("Cargo.toml")).filter_map(|file| file.parent());
    let inner: Vec<PathBuf> =
        manifests.filter(|folder| *folder != Path::new("")).map(Path::to_owned).collect();
    files.into_iter().filter(|file| !inner.iter().any(|folder| file.starts_with(folder))).collect()
}

/// Whether Bazel or Cargo reads it by itself, or nobody does but people.
fn is_known(file: &Path) -> bool {
    let known = ["rs", "md"].map(Some).contains(&file.extension().and_then(|extension| extension.to_str()));
    known || ["Cargo.toml", "BUILD.bazel"].map(Path::new).contains(&file)
}

fn is_declared(build: &Build, file: &Path) -> bool {
    let file = file.to_string_lossy();
    let declares = |target: &Target, attribute: &&str| target.declares(attribute, &file);
    build
        .targets
        .iter()
        .any(|target| DATA.iter().chain(&["compile_data"]).any(|attribute| declares(target, attribute)))
}

/// What to do about `source`'s including `other`, if Bazel does not know.
fn undeclared(build: &Build, source: &Path, other: &Path) -> Option<String> {
    if other.starts_with("..") {
        return Some(format!(
            "{} includes {}, outside of its package, where neither Bazel nor Nix sees it: move it into the package",
            source.display(),
            other.display()
        ));
    }
    let is_inside = source.starts_with("src");
    let includes = |target: &&Target| target.root().starts_with("src/") == is_inside;
    let is_source = other.starts_with("src") && other.extension().is_some_and(|extension| extension == "rs");
    let file = other.to_string_lossy();
    if is_source || build.targets.iter().filter(includes).any(|target| target.declares("compile_data", &file))
    {
        return None;
    }
    let of = build.targets.iter().find(includes).map_or("its target", Target::name);
    Some(format!("add \"{file}\" to compile_data of \"{of}\": {} includes it", source.display()))
}
