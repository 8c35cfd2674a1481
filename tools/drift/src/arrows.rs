//! A library's visibility is the list of those who depend on it, so that a new arrow is seen by whoever reviews it.

use std::collections::BTreeSet;

use crate::{
    Finding,
    build::{Build, Target},
    cargo::Package,
};

pub(crate) fn findings(package: &Package, packages: &[Package], build: &Build) -> Vec<Finding> {
    let libraries = build.targets.iter().filter(|target| target.macro_name() == "crate_library");
    let remedies = libraries.flat_map(|library| differences(library, &users(package, packages)));
    remedies.map(|remedy| Finding { file: build.file.clone(), remedy }).collect()
}

/// The folders of the packages that depend on `package`.
fn users<'p>(package: &Package, packages: &'p [Package]) -> BTreeSet<&'p str> {
    let uses = |user: &&Package| user.uses.iter().any(|used| used.folder == package.folder);
    packages.iter().filter(uses).map(|user| user.folder.as_str()).collect()
}

fn differences(library: &Target, users: &BTreeSet<&str>) -> Vec<String> {
    let name = library.name();
    let listed = library.labels("visibility");
    let scope = |user: &str| format!("//{user}:__pkg__");
    let missing = users.iter().filter(|user| !listed.contains(&scope(user).as_str()));
    let surplus = listed.iter().filter(|listed| !users.iter().any(|user| scope(user) == **listed));
    let add = |user: &&str| {
        format!(
            "add \"{}\" to visibility of \"{name}\" if the arrows of docs/ARCHITECTURE.md allow it; \
             if not, take the dependency out of {user}/Cargo.toml",
            scope(user)
        )
    };
    let remove = |listed: &&str| {
        format!("remove \"{listed}\" from visibility of \"{name}\": nothing there depends on it")
    };
    missing.map(add).chain(surplus.map(remove)).collect()
}
