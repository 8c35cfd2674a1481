//! Every target of Cargo's is one of Bazel's, made by the right macro, and depends on the same crates.

use crate::{
    Finding,
    build::{Build, MACROS, Target},
    cargo::{self, Package, label},
};

pub(crate) fn findings(package: &Package, build: &Build) -> Vec<Finding> {
    let mut remedies = Vec::new();
    for target in &package.targets {
        match counterpart(target, build) {
            Some(found) => remedies.extend(differences(package, target, found)),
            None => remedies.push(addition(package, target)),
        }
    }
    let is_stale = |found: &&Target| {
        !package.targets.iter().any(|target| target.root == found.root() && is_made_by(target, found))
    };
    remedies.extend(build.targets.iter().filter(is_stale).map(removal));
    let finding = |remedy| Finding { file: build.file.clone(), remedy };
    remedies.into_iter().map(finding).collect()
}

fn counterpart<'b>(target: &cargo::Target, build: &'b Build) -> Option<&'b Target> {
    build.targets.iter().find(|found| found.root() == target.root && is_made_by(target, found))
}

fn is_made_by(target: &cargo::Target, found: &Target) -> bool {
    macro_of(target) == Some(found.macro_name())
}

fn macro_of(target: &cargo::Target) -> Option<&'static str> {
    MACROS.iter().find(|(kind, _)| *kind == target.kind).map(|(_, name)| *name)
}

fn addition(package: &Package, target: &cargo::Target) -> String {
    let cargo::Target { kind, name, root, .. } = target;
    let Some(macro_name) = macro_of(target) else {
        return format!(
            "Cargo has a {kind} at {root}, which no macro of tools/bazel/crate.bzl builds: \
             write one and tell it to tools/drift/src/build.rs"
        );
    };
    let (named, about) = match kind.as_str() {
        "lib" => (folder_name(package), format!(", crate_name = \"{name}\"")),
        "bin" => (name.as_str(), String::new()),
        "test" => (&*format!("{name}_test"), format!(", crate_root = \"{root}\"")),
        _ => (name.as_str(), format!(", crate_root = \"{root}\"")),
    };
    let deps = expected(package, target);
    format!("add {macro_name}(name = \"{named}\"{about}, deps = {deps:?}): Cargo has a {kind} at {root}")
}

fn removal(found: &Target) -> String {
    format!("remove {} \"{}\": Cargo has nothing at {}", found.macro_name(), found.name(), found.root())
}

fn differences(package: &Package, target: &cargo::Target, found: &Target) -> Vec<String> {
    let mut remedies = labels(found, "deps", &expected(package, target));
    if has_unit_tests(package, target) {
        remedies.extend(labels(found, "test_deps", &uses(package, |is_dev| is_dev)));
    }
    if found.cargo_name().is_some_and(|name| name != target.name) {
        let attribute = if target.kind == "lib" { "crate_name" } else { "binary_name" };
        remedies.push(format!("set {attribute} of \"{}\" to \"{}\", as in Cargo", found.name(), target.name));
    }
    remedies.extend(tag(target, found));
    remedies
}

/// Whether the target's macro makes one of the tests inside it: a program has them in its library, if there is one.
fn has_unit_tests(package: &Package, target: &cargo::Target) -> bool {
    target.kind == "lib" || (target.kind == "bin" && package.library().is_none())
}

/// Bazel runs by itself what Cargo does, except for what needs Cargo.
fn tag(target: &cargo::Target, found: &Target) -> Option<String> {
    let name = found.name();
    let is_to_run = target.is_tested && !found.has_tag("needs-cargo");
    if target.kind != "test" || is_to_run != found.has_tag("manual") {
        None
    } else if is_to_run {
        Some(format!("remove the tag \"manual\" from \"{name}\": `cargo test` runs it"))
    } else {
        Some(format!("add the tag \"manual\" to \"{name}\": `cargo test` does not run it, or it needs Cargo"))
    }
}

/// What `attribute` lacks of `expected`, and has beyond it.
fn labels(found: &Target, attribute: &str, expected: &[String]) -> Vec<String> {
    let name = found.name();
    let present = found.labels(attribute);
    let missing = expected.iter().filter(|label| !present.contains(&label.as_str()));
    let surplus = present.iter().filter(|present| !expected.iter().any(|label| label == *present));
    missing
        .map(|label| format!("add \"{label}\" to {attribute} of \"{name}\": Cargo.toml has it"))
        .chain(
            surplus.map(|label| {
                format!("remove \"{label}\" from {attribute} of \"{name}\": Cargo.toml has it not")
            }),
        )
        .collect()
}

/// The crates of this workspace that Cargo hands to `target`.
fn expected(package: &Package, target: &cargo::Target) -> Vec<String> {
    let has_dev = !matches!(target.kind.as_str(), "lib" | "bin");
    let mut labels = uses(package, |is_dev| has_dev || !is_dev);
    if target.kind != "lib" && package.library().is_some() {
        labels.push(format!(":{}", folder_name(package)));
    }
    labels
}

fn uses(package: &Package, is_wanted: impl Fn(bool) -> bool) -> Vec<String> {
    let wanted = package.uses.iter().filter(|used| is_wanted(used.is_dev));
    wanted.map(|used| label(&used.folder)).collect()
}

fn folder_name(package: &Package) -> &str {
    package.folder.rsplit('/').next().unwrap_or(&package.folder)
}
