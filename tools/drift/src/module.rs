//! What Bazel is told of the whole workspace: its members, its toolchain, its flags.

use std::{collections::BTreeSet, path::Path};

use crate::{
    Error, Finding,
    cargo::Package,
    read,
    starlark::{self, Call},
};

const MODULE: &str = "MODULE.bazel";
const BAZELRC: &str = ".bazelrc";

/// # Errors
/// If one of the files is missing.
pub(crate) fn findings(root: &Path, packages: &[Package]) -> Result<Vec<Finding>, Error> {
    let calls = starlark::calls(MODULE, &read(&root.join(MODULE))?)?;
    let module = manifests(&calls, packages)
        .into_iter()
        .chain(toolchain(&calls, &read(&root.join("rust-toolchain.toml"))?));
    let flags = flags(&read(&root.join(".cargo/config.toml"))?, &read(&root.join(BAZELRC))?);
    let at = |file: &str, remedy| Finding { file: file.to_owned(), remedy };
    Ok(module
        .map(|remedy| at(MODULE, remedy))
        .chain(flags.into_iter().map(|remedy| at(BAZELRC, remedy)))
        .collect())
}

fn manifests(calls: &[Call], packages: &[Package]) -> Vec<String> {
    let listed: Vec<&str> = texts(calls, "crate.from_cargo", "manifests");
    let members = packages.iter().map(|package| format!("//{}:Cargo.toml", package.folder));
    let expected: Vec<String> = std::iter::once("//:Cargo.toml".to_owned()).chain(members).collect();
    let missing = expected.iter().filter(|manifest| !listed.contains(&manifest.as_str()));
    let surplus = listed.iter().filter(|listed| !expected.iter().any(|manifest| manifest == *listed));
    missing
        .map(|manifest| format!("add \"{manifest}\" to the manifests of crate.from_cargo: it is a member of the workspace"))
        .chain(surplus.map(|manifest| {
            format!("remove \"{manifest}\" from the manifests of crate.from_cargo: it is no member of the workspace")
        }))
        .collect()
}

fn toolchain(calls: &[Call], toolchain: &str) -> Option<String> {
    let channel =
        toolchain.lines().find_map(|line| line.strip_prefix("channel = "))?.trim().trim_matches('"');
    let versions = texts(calls, "rust.toolchain", "versions");
    (versions != [channel]).then(|| {
        format!("set versions of rust.toolchain to [\"{channel}\"], the channel of rust-toolchain.toml")
    })
}

fn texts<'c>(calls: &'c [Call], function: &str, argument: &str) -> Vec<&'c str> {
    let named = calls.iter().filter(|call| call.function == function);
    named.flat_map(|call| call.texts(argument)).collect()
}

/// The `--cfg` flags in Cargo's configuration that Bazel's lacks, for what is built or for the tools that build it.
fn flags(config: &str, bazelrc: &str) -> Vec<String> {
    let mut remedies = Vec::new();
    for cfg in cfgs(config) {
        for setting in ["extra_rustc_flag", "extra_exec_rustc_flag"] {
            let flag = format!("--@rules_rust//rust/settings:{setting}=--cfg={cfg}");
            let is_set = |line: &str| line.replace('\'', "").ends_with(&flag);
            if !bazelrc.lines().any(is_set) {
                remedies.push(format!("add '{flag}': .cargo/config.toml has it"));
            }
        }
    }
    remedies
}

/// What follows a `--cfg` in the `rustflags` of Cargo's configuration, each once. An array of TOML's on one line is one
/// of JSON's.
fn cfgs(config: &str) -> BTreeSet<String> {
    let arrays = config.lines().filter_map(|line| line.strip_prefix("rustflags = "));
    let flags = arrays.flat_map(|array| serde_json::from_str::<Vec<String>>(array).unwrap_or_default());
    let flags: Vec<String> = flags.collect();
    flags.windows(2).filter(|pair| pair[0] == "--cfg").map(|pair| pair[1].clone()).collect()
}
