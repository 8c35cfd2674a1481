//! Calls go down the crate's map, and never up.

use std::{fs, path::Path};

/// From the top down; what stands in one line may use each other.
const MAP: &[&[&str]] = &[
    &["lib", "main", "wait_ready", "bench"],
    &["lifecycle"],
    &["trust"],
    &["inbound", "outbound"],
    &["accept", "expiry"],
    &["http", "pool"],
    &["tcp", "detect"],
    &["opening"],
    &["connect"],
    &["discover"],
    &["balance", "stream"],
    &["session"],
    &["metrics", "tap"],
    &["config"],
    &["probe"],
];

/// Where two files need each other's types only: a session holds its recorders, which are told in its terms.
const TYPES_ONLY: &[(&str, &str)] = &[("metrics", "session"), ("tap", "session")];

#[test]
fn no_file_uses_one_above_it() {
    let source = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let mut upward = Vec::new();
    for entry in fs::read_dir(&source).unwrap() {
        visit(&entry.unwrap().path(), &source, &mut upward);
    }
    assert!(upward.is_empty(), "{upward:#?}");
}

fn visit(path: &Path, source: &Path, upward: &mut Vec<String>) {
    if path.is_dir() {
        return fs::read_dir(path).unwrap().for_each(|entry| visit(&entry.unwrap().path(), source, upward));
    }
    let module = module_of(path.strip_prefix(source).unwrap());
    let text = fs::read_to_string(path).unwrap();
    let text = text.split("#[cfg(test)]").next().unwrap();
    if module == "lib" || is_test(path) {
        return;
    }
    for used in used_modules(text) {
        let allowed =
            level(&used) >= level(&module) || TYPES_ONLY.contains(&(module.as_str(), used.as_str()));
        if !allowed {
            upward.push(format!("{module} uses {used}"));
        }
    }
}

/// Whether it is compiled for tests only, as the file says that it is a module of.
fn is_test(path: &Path) -> bool {
    let name = path.file_stem().unwrap().to_str().unwrap();
    let parent = fs::read_to_string(path.parent().unwrap().with_extension("rs")).unwrap_or_default();
    parent.contains(&format!("#[cfg(test)]\nmod {name};"))
}

fn module_of(path: &Path) -> String {
    let first = path.iter().next().unwrap().to_str().unwrap();
    first.trim_end_matches(".rs").to_owned()
}

fn level(module: &str) -> usize {
    MAP.iter().position(|row| row.contains(&module)).unwrap_or_else(|| panic!("{module} is not on the map"))
}

/// The modules in `use crate::a::…`, `use crate::{a::…, b::…}` and `crate::a::…`.
fn used_modules(text: &str) -> Vec<String> {
    let mut used = Vec::new();
    for (at, _) in text.match_indices("crate::") {
        let rest = &text[at + "crate::".len()..];
        match rest.strip_prefix('{') {
            Some(list) => used.extend(top_level_names(list)),
            None => used.extend(name(rest)),
        }
    }
    used
}

fn top_level_names(list: &str) -> Vec<String> {
    let (mut depth, mut names, mut expects) = (0, Vec::new(), true);
    for (at, character) in list.char_indices() {
        match character {
            '{' => depth += 1,
            '}' if depth == 0 => break,
            '}' => depth -= 1,
            ',' if depth == 0 => expects = true,
            character if expects && depth == 0 && character.is_alphabetic() => {
                names.extend(name(&list[at..]));
                expects = false;
            }
            _ => {}
        }
    }
    names
}

fn name(text: &str) -> Option<String> {
    let end = text.find(|character: char| !character.is_alphanumeric() && character != '_')?;
    let name = &text[..end];
    (!name.is_empty() && name.starts_with(|first: char| first.is_lowercase())).then(|| name.to_owned())
}
