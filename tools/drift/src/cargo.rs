//! The workspace, as `cargo metadata` tells it.

use std::{path::Path, process::Command};

use serde_json::Value;

use crate::Error;

/// A member of the workspace.
pub(crate) struct Package {
    /// From the workspace's root, `components/net`.
    pub(crate) folder: String,
    pub(crate) targets: Vec<Target>,
    /// Members that it depends on.
    pub(crate) uses: Vec<Use>,
    /// The image that its program is packed into.
    pub(crate) image: Option<Image>,
}

/// `[package.metadata.image]`.
pub(crate) struct Image {
    /// The image is `conduit/<part>`.
    pub(crate) part: String,
    /// The number of the user that the program runs as.
    pub(crate) user: u64,
}

pub(crate) struct Target {
    /// Cargo's word: `lib`, `bin`, `test`, `example`, `bench`.
    pub(crate) kind: String,
    pub(crate) name: String,
    /// From the package's folder, `src/lib.rs`.
    pub(crate) root: String,
    /// Whether `cargo test` runs it.
    pub(crate) is_tested: bool,
}

/// A dependency on a member.
pub(crate) struct Use {
    pub(crate) folder: String,
    /// Whether only tests, examples and benchmarks have it.
    pub(crate) is_dev: bool,
}

impl Package {
    pub(crate) fn library(&self) -> Option<&Target> {
        self.targets.iter().find(|target| target.kind == "lib")
    }
}

/// How Bazel calls the library of the package in `folder`: `//components/net`.
pub(crate) fn label(folder: &str) -> String {
    format!("//{folder}")
}

/// The members of the workspace at `root`.
///
/// # Errors
/// If cargo cannot say.
pub(crate) fn packages(root: &Path) -> Result<Vec<Package>, Error> {
    let output = Command::new("cargo")
        .args(["metadata", "--no-deps", "--offline", "--format-version=1"])
        .current_dir(root)
        .output()
        .map_err(|error| Error::Cargo(error.to_string()))?;
    if !output.status.success() {
        return Err(Error::Cargo(String::from_utf8_lossy(&output.stderr).trim().to_owned()));
    }
    let metadata: Value =
        serde_json::from_slice(&output.stdout).map_err(|error| Error::Cargo(error.to_string()))?;
    let root = Path::new(text(&metadata["workspace_root"])?);
    list(&metadata["packages"])?.iter().map(|value| package(value, root)).collect()
}

fn package(value: &Value, root: &Path) -> Result<Package, Error> {
    let manifest = Path::new(text(&value["manifest_path"])?);
    let folder = manifest.parent().unwrap_or(root);
    let targets = list(&value["targets"])?.iter().map(|value| target(value, folder));
    // Third-party dependencies have no path.
    let uses = list(&value["dependencies"])?.iter().filter(|value| value["path"].is_string());
    Ok(Package {
        folder: relative(folder, root)?,
        targets: targets.collect::<Result<_, _>>()?,
        uses: uses.map(|value| dependency(value, root)).collect::<Result<_, _>>()?,
        image: value["metadata"].get("image").map(image).transpose()?,
    })
}

fn target(value: &Value, folder: &Path) -> Result<Target, Error> {
    let kind = list(&value["kind"])?.first().unwrap_or(&Value::Null);
    Ok(Target {
        kind: text(kind)?.to_owned(),
        name: text(&value["name"])?.to_owned(),
        root: relative(Path::new(text(&value["src_path"])?), folder)?,
        is_tested: value["test"].as_bool().unwrap_or(true),
    })
}

fn image(value: &Value) -> Result<Image, Error> {
    let user = value["user"].as_u64();
    let user = user.ok_or_else(|| Error::Cargo(format!("the image {value} lacks `user`, a number")))?;
    Ok(Image { part: text(&value["part"])?.to_owned(), user })
}

fn dependency(value: &Value, root: &Path) -> Result<Use, Error> {
    Ok(Use { folder: relative(Path::new(text(&value["path"])?), root)?, is_dev: value["kind"] == "dev" })
}

fn relative(path: &Path, base: &Path) -> Result<String, Error> {
    let below = path.strip_prefix(base).map_err(|_| {
        Error::Cargo(format!("{} is not below {}; move it there", path.display(), base.display()))
    })?;
    Ok(below.to_string_lossy().into_owned())
}

fn text(value: &Value) -> Result<&str, Error> {
    value.as_str().ok_or_else(|| Error::Cargo(format!("{value} is not a string")))
}

fn list(value: &Value) -> Result<&Vec<Value>, Error> {
    value.as_array().ok_or_else(|| Error::Cargo(format!("{value} is not a list")))
}
