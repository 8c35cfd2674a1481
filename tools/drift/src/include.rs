//! What a source file has included when it is compiled.

use std::path::{Component, Path, PathBuf};

const MACROS: [&str; 3] = ["include_str", "include_bytes", "include"];

/// The files that `source`, a file with this `text`, includes; where they are said by a plain string.
pub(crate) fn included(source: &Path, text: &str) -> Vec<PathBuf> {
    let folder = source.parent().unwrap_or(Path::new(""));
    let starts = MACROS.iter().map(|name| format!("{name}!("));
    let mut files = Vec::new();
    for start in starts {
        let strings = text
            .split(&start)
            .skip(1)
            .filter_map(|rest| rest.trim_start().strip_prefix('"')?.split('"').next());
        files.extend(strings.map(|file| normal(&folder.join(file))));
    }
    files
}

/// `path` without `..`, as far as it does not begin with it.
fn normal(path: &Path) -> PathBuf {
    let mut normal = PathBuf::new();
    for component in path.components() {
        if component == Component::ParentDir && normal.file_name().is_some() {
            normal.pop();
        } else {
            normal.push(component);
        }
    }
    normal
}

#[cfg(test)]
mod tests {
    use std::path::{Path, PathBuf};

    use super::included;

    #[test]
    fn paths_are_from_the_file_that_includes() {
        let text =
            "const A: &str = include_str!(\"x/a.json\");\nlet b = include_bytes!(\n    \"../../b.bin\");";
        let found = included(Path::new("src/api/mod.rs"), text);
        assert_eq!(found, ["src/api/x/a.json", "b.bin"].map(PathBuf::from));
        assert_eq!(included(Path::new("src/lib.rs"), "include_str!(\"../../c\")"), [PathBuf::from("../c")]);
        assert_eq!(
            included(Path::new("src/lib.rs"), "include!(concat!(env!(\"OUT_DIR\"), \"/x.rs\"))").len(),
            0
        );
    }
}
