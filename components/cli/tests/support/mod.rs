//! What the tests of inject share.

use std::path::{Path, PathBuf};

use clap::Parser;
use conduit_cli::{
    args::{Cli, Command},
    inject::{Options, document, stream},
    input::Input,
    yaml::{split, value},
};
use serde_json::Value;

/// What these flags ask for.
pub(crate) fn options(flags: &[&str]) -> Options {
    let args = ["conduit", "inject", "-"].iter().chain(flags);
    let cli = Cli::try_parse_from(args).expect("the flags are sound");
    let Command::Inject(args) = cli.command else { panic!("not inject") };
    args.options(&cli.global).expect("the flags agree")
}

/// The manifests of `tests/manifests`, by name.
pub(crate) fn manifests() -> Vec<Input> {
    // Tests run in the folder of the package, or in that of the workspace.
    let directories = ["tests/manifests", "components/cli/tests/manifests"].map(Path::new);
    let directory = directories.into_iter().find(|path| path.is_dir()).expect("the manifests");
    let entries = std::fs::read_dir(directory).expect("a directory");
    let mut paths: Vec<PathBuf> = entries.map(|entry| entry.expect("an entry").path()).collect();
    paths.sort();
    let name = |path: &PathBuf| path.file_name().expect("a name").to_string_lossy().into_owned();
    paths
        .iter()
        .map(|path| Input { name: name(path), text: std::fs::read_to_string(path).expect("readable") })
        .collect()
}

/// The manifests that nothing was injected into before.
pub(crate) fn bare_manifests() -> Vec<Input> {
    manifests().into_iter().filter(|input| !input.name.contains("v050")).collect()
}

pub(crate) fn inject(text: &str, options: &Options) -> stream::Output {
    let input = Input { name: "manifest".into(), text: text.to_owned() };
    stream::transform(&[input], |text| document::inject(text, options)).expect("well-formed")
}

pub(crate) fn uninject(text: &str) -> String {
    let input = Input { name: "manifest".into(), text: text.to_owned() };
    stream::transform(&[input], document::uninject).expect("well-formed").text
}

pub(crate) fn values(text: &str) -> Vec<Value> {
    split::split(text).iter().map(|document| value::parse(document.text).expect("well-formed")).collect()
}
