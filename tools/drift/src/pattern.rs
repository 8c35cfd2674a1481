//! Bazel's globs: `*` within a folder's name or a file's, `**` for folders.

/// Whether `pattern` matches the whole of `path`.
pub(crate) fn matches(pattern: &str, path: &str) -> bool {
    let pattern: Vec<&str> = pattern.split('/').collect();
    let path: Vec<&str> = path.split('/').collect();
    segments(&pattern, &path)
}

fn segments(pattern: &[&str], path: &[&str]) -> bool {
    match (pattern, path) {
        ([], []) => true,
        (["**", rest @ ..], _) => (0..=path.len()).any(|skipped| segments(rest, &path[skipped..])),
        ([first, rest @ ..], [name, below @ ..]) => segment(first, name) && segments(rest, below),
        _ => false,
    }
}

fn segment(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((start, rest)) => name.strip_prefix(start).is_some_and(|name| {
            (0..=name.len()).any(|skipped| name.is_char_boundary(skipped) && segment(rest, &name[skipped..]))
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::matches;

    #[test]
    fn globs_match_as_bazels_do() {
        for (pattern, path, expected) in [
            ("a/b.yml", "a/b.yml", true),
            ("a/b.yml", "a/b", false),
            ("a/*.yml", "a/b.yml", true),
            ("a/*.yml", "a/c/b.yml", false),
            ("a/**/*.yml", "a/b.yml", true),
            ("a/**/*.yml", "a/c/d/b.yml", true),
            ("**/x__*.snap", "x__y.snap", true),
            ("**", "a/b", true),
            ("*é*", "aéb", true),
            ("a*", "b", false),
        ] {
            assert_eq!(matches(pattern, path), expected, "{pattern} {path}");
        }
    }
}
