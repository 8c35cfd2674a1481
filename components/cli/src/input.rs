//! What commands that take manifests are given: files, directories, stdin.

use std::{
    fs,
    io::Read,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};

/// One file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Input {
    /// Its path, or `<stdin>`.
    pub name: String,
    /// Its text.
    pub text: String,
}

/// Reads everything that was named, directories file by file in the order of their paths.
///
/// # Errors
/// Something cannot be read, is no text, or holds no manifests.
pub fn read(names: &[String]) -> anyhow::Result<Vec<Input>> {
    if names.iter().filter(|name| *name == "-").count() > 1 {
        bail!("`-` is given twice, and stdin can be read once: name it once");
    }
    let mut inputs = Vec::new();
    for name in names {
        if name == "-" {
            inputs.push(stdin()?);
        } else if Path::new(name).is_dir() {
            let mut paths = Vec::new();
            manifests(Path::new(name), &mut paths)?;
            if paths.is_empty() {
                bail!("{name}: no *.yaml, *.yml or *.json in this directory: name another, or a file");
            }
            for path in paths {
                inputs.push(file(&path)?);
            }
        } else {
            inputs.push(file(Path::new(name))?);
        }
    }
    Ok(inputs)
}

fn stdin() -> anyhow::Result<Input> {
    let mut bytes = Vec::new();
    std::io::stdin().lock().read_to_end(&mut bytes).context("cannot read stdin")?;
    decode("<stdin>", bytes)
}

fn file(path: &Path) -> anyhow::Result<Input> {
    let name = path.display().to_string();
    let bytes = fs::read(path).with_context(|| format!("cannot read {name}"))?;
    decode(&name, bytes)
}

fn decode(name: &str, bytes: Vec<u8>) -> anyhow::Result<Input> {
    match String::from_utf8(bytes) {
        Ok(text) => Ok(Input { name: name.to_owned(), text }),
        Err(error) => {
            let good = &error.as_bytes()[..error.utf8_error().valid_up_to()];
            let line = 1 + good.iter().filter(|octet| **octet == b'\n').count();
            bail!("{name}: line {line}: not UTF-8 text: convert the file to UTF-8")
        }
    }
}

/// The manifests below a directory. Links are followed; a directory that holds itself ends with an error of the system.
fn manifests(directory: &Path, found: &mut Vec<PathBuf>) -> anyhow::Result<()> {
    let cannot = || format!("cannot read directory {}", directory.display());
    let entries = fs::read_dir(directory).with_context(cannot)?;
    let mut paths = entries
        .map(|entry| entry.map(|entry| entry.path()))
        .collect::<Result<Vec<_>, _>>()
        .with_context(cannot)?;
    paths.sort();
    for path in paths {
        let is_manifest = path
            .extension()
            .is_some_and(|extension| ["yaml", "yml", "json"].iter().any(|known| extension == *known));
        if path.is_dir() {
            manifests(&path, found)?;
        } else if is_manifest {
            found.push(path);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn directories_are_read_in_the_order_of_their_paths() {
        let directory = tempfile::tempdir().expect("a directory");
        let root = directory.path();
        fs::create_dir(root.join("b")).expect("a directory");
        for name in ["c.yaml", "b/x.json", "a.yml", "b/a.yaml", "notes.txt", "README"] {
            fs::write(root.join(name), name).expect("a file");
        }
        let inputs = read(&[root.display().to_string()]).expect("readable");
        let texts: Vec<_> = inputs.iter().map(|input| input.text.as_str()).collect();
        assert_eq!(texts, ["a.yml", "b/a.yaml", "b/x.json", "c.yaml"]);
    }

    #[test]
    fn what_cannot_be_read_is_named() {
        let directory = tempfile::tempdir().expect("a directory");
        let path = |name: &str| directory.path().join(name).display().to_string();
        fs::write(path("latin1.yaml"), b"a: 1\nb: \xe9\n").expect("a file");
        let error = |names: &[String]| format!("{:#}", read(names).expect_err("unreadable"));
        assert!(error(&[path("missing.yaml")]).contains("missing.yaml"));
        assert!(
            error(&[path("latin1.yaml")])
                .ends_with("latin1.yaml: line 2: not UTF-8 text: convert the file to UTF-8")
        );
        assert!(error(&["-".into(), "-".into()]).contains("twice"));
        let empty = tempfile::tempdir().expect("a directory");
        assert!(error(&[empty.path().display().to_string()]).contains("no *.yaml"));
    }
}
