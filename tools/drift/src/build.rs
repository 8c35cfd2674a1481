//! What a `BUILD.bazel` declares: calls of the macros in `tools/bazel/crate.bzl`.

use std::path::Path;

use crate::{
    Error, pattern,
    starlark::{self, Call, Value},
};

/// The macro for each kind of Cargo target.
pub(crate) const MACROS: [(&str, &str); 5] = [
    ("lib", "crate_library"),
    ("bin", "crate_binary"),
    ("test", "crate_test"),
    ("example", "crate_example"),
    ("bench", "crate_example"),
];

pub(crate) struct Build {
    /// From the workspace's root.
    pub(crate) file: String,
    pub(crate) targets: Vec<Target>,
    pub(crate) images: Vec<Image>,
}

/// One call of `image`, in `tools/bazel/image.bzl`.
pub(crate) struct Image {
    pub(crate) part: String,
    /// As it is written.
    pub(crate) user: String,
}

/// One call of a macro.
pub(crate) struct Target {
    call: Call,
}

/// Reads the `BUILD.bazel` of `folder`; one that is missing declares nothing.
///
/// # Errors
/// If it is not of the form that is understood.
pub(crate) fn read(root: &Path, folder: &str) -> Result<Build, Error> {
    let file = format!("{folder}/BUILD.bazel");
    let path = root.join(&file);
    let text = if path.exists() { crate::read(&path)? } else { String::new() };
    let calls = starlark::calls(&file, &text)?;
    let images = calls.iter().filter(|call| call.function == "image").map(image).collect();
    let is_ours = |call: &Call| MACROS.iter().any(|(_, name)| *name == call.function);
    let targets = calls.into_iter().filter(is_ours).map(|call| Target { call }).collect();
    Ok(Build { file, targets, images })
}

fn image(call: &Call) -> Image {
    let word = |name| call.word(name).unwrap_or_default().to_owned();
    Image { part: word("part"), user: word("user") }
}

impl Target {
    pub(crate) fn macro_name(&self) -> &str {
        &self.call.function
    }

    pub(crate) fn name(&self) -> &str {
        self.call.text("name").unwrap_or_default()
    }

    /// The file that Rust starts from, from the package's folder.
    pub(crate) fn root(&self) -> &str {
        match self.macro_name() {
            "crate_library" => "src/lib.rs",
            "crate_binary" => "src/main.rs",
            _ => self.call.text("crate_root").unwrap_or_default(),
        }
    }

    /// What Cargo would call it.
    pub(crate) fn cargo_name(&self) -> Option<&str> {
        match self.macro_name() {
            "crate_library" => self.call.text("crate_name"),
            "crate_binary" => self.call.text("binary_name").or(self.call.text("name")),
            _ => None,
        }
    }

    pub(crate) fn labels(&self, attribute: &str) -> Vec<&str> {
        self.call.texts(attribute)
    }

    pub(crate) fn has_tag(&self, tag: &str) -> bool {
        self.labels("tags").contains(&tag)
    }

    /// Whether `attribute` names `file`, or a glob in it does.
    pub(crate) fn declares(&self, attribute: &str, file: &str) -> bool {
        self.call.named.get(attribute).is_some_and(|value| names(value, file))
    }
}

fn names(value: &Value, file: &str) -> bool {
    match value {
        Value::Text(text) => text == file,
        Value::List(items) => items.iter().any(|item| names(item, file)),
        Value::Call(glob) => {
            let matches =
                |patterns: Vec<&str>| patterns.iter().any(|pattern| pattern::matches(pattern, file));
            let included =
                glob.positional.iter().chain(glob.named.get("include")).any(|value| matches(value.texts()));
            glob.function == "glob" && included && !matches(glob.texts("exclude"))
        }
        Value::Word(_) => false,
    }
}
