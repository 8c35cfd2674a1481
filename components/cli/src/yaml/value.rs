//! What a document means, as `kubectl` takes it: YAML 1.1 booleans and octals, merge keys, JSON as JSON.

use serde_json::Value;

use super::tree::{self, Content};

/// Why a document cannot be read.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}, column {column}: {cause}")]
pub struct ParseError {
    /// The line within the document's text, from 1.
    pub line: usize,
    /// The column, from 1.
    pub column: usize,
    /// What is wrong there.
    pub cause: String,
}

/// Reads one document. A document without content is null.
///
/// # Errors
/// It is malformed: a key that appears twice, a misplaced tab, an unknown alias. The user must correct it.
pub fn parse(text: &str) -> Result<Value, ParseError> {
    let read = serde_saphyr::from_str_with_options::<Option<Value>>(text, options());
    // JSON is not quite a part of YAML: keys may be longer, for one.
    if read.as_ref().is_err_and(|error| !is_duplicate(error))
        && is_json(text)
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    let mut value = read.map_err(|error| refused(&error))?.unwrap_or_default();
    if !text.ends_with('\n') {
        end_without_newline(text, &mut value);
    }
    Ok(value)
}

/// A block scalar that ends a file without a newline has none for `kubectl` (and libyaml), and one for our reader.
fn end_without_newline(text: &str, mut value: &mut Value) {
    let Some(root) = tree::parse(text) else { return };
    let mut node = &root;
    loop {
        match (&node.content, value) {
            (Content::Sequence { flow: false, items }, Value::Array(values)) => {
                let (Some(last), Some(last_value)) = (items.last(), values.last_mut()) else { return };
                (node, value) = (last, last_value);
            }
            (Content::Mapping { flow: false, entries }, Value::Object(values)) => {
                let last = entries.last().and_then(|entry| Some((entry, values.get_mut(entry.key_text()?)?)));
                let Some((last, last_value)) = last else { return };
                (node, value) = (&last.value, last_value);
            }
            (Content::Scalar { block: true, .. }, Value::String(text)) if text.ends_with('\n') => {
                text.pop();
                return;
            }
            _ => return,
        }
    }
}

/// Whether a document is meant as JSON; text that goes into it must then be JSON too.
pub fn is_json(text: &str) -> bool {
    text.trim_start().starts_with('{') && serde_json::from_str::<serde::de::IgnoredAny>(text).is_ok()
}

fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        // `defaultMode: 0644` is 420 to Kubernetes.
        legacy_octal_numbers: true,
        with_snippet: false,
        // The file is the user's own: one with many aliases is not an attack, and one that is harms nobody else. The
        // other limits of the reader stay, so that memory is bounded.
        budget: serde_saphyr::budget! { enforce_alias_anchor_ratio: false },
    }
}

fn is_duplicate(error: &serde_saphyr::Error) -> bool {
    matches!(error.without_snippet(), serde_saphyr::Error::DuplicateMappingKey { .. })
}

fn refused(error: &serde_saphyr::Error) -> ParseError {
    let error = error.without_snippet();
    let position = |get: fn(&serde_saphyr::Location) -> u64| {
        error.location().map_or(1, |location| usize::try_from(get(&location)).unwrap_or(1))
    };
    let (line, column) = (position(serde_saphyr::Location::line), position(serde_saphyr::Location::column));
    ParseError { line, column, cause: cause(&error.to_string()) }
}

/// The reader's message without its own mention of the place, and without advice for its programmers.
fn cause(message: &str) -> String {
    let first = message.lines().next().unwrap_or_default();
    let text = first.strip_prefix("error: ").unwrap_or(first);
    let text = match text.split_once(": ") {
        Some((place, rest)) if place.starts_with("line ") => rest,
        _ => text,
    };
    let text = text.split(", set DuplicateKeyPolicy").next().unwrap_or(text);
    text.split(" at line ").next().unwrap_or(text).to_owned()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn values_are_those_kubernetes_reads() {
        let text = "a: 0644\nb: yes\nc: 'yes'\nd: 1.5\ne: ~\nf: 2024-01-01\ng: 12e3\n1: x\n";
        let expected = json!({"a": 420, "b": true, "c": "yes", "d": 1.5, "e": null, "f": "2024-01-01", "g": 12000.0, "1": "x"});
        assert_eq!(parse(text), Ok(expected));
    }

    #[test]
    fn json_is_read_whatever_yaml_says_of_it() {
        let key = "k".repeat(2000);
        let text = format!("{{\n\t\"{key}\": \"\\ud83d\\ude00\\/\u{7f}\",\t\"n\": 1e3}}");
        assert_eq!(parse(&text), Ok(json!({key: "😀/\u{7f}", "n": 1000.0})));
    }

    #[test]
    fn merge_keys_are_merged() {
        let text = "a: &a {x: 1, y: 2}\nb:\n  <<: *a\n  y: 3\n";
        assert_eq!(parse(text), Ok(json!({"a": {"x": 1, "y": 2}, "b": {"x": 1, "y": 3}})));
    }

    #[test]
    fn the_end_of_the_file_ends_a_block_scalar() {
        assert_eq!(parse("a:\n- |\n  x\n- b: |\n    y"), Ok(json!({"a": ["x\n", {"b": "y"}]})));
        assert_eq!(parse("a: |+\n  x\n"), Ok(json!({"a": "x\n"})));
        assert_eq!(parse("a: x"), Ok(json!({"a": "x"})));
    }

    #[test]
    fn a_document_without_content_is_null() {
        for text in ["", "\n", "# only a comment\n", "---\n", "--- # nothing\n...\n"] {
            assert_eq!(parse(text), Ok(Value::Null), "{text:?}");
        }
    }

    #[test]
    fn what_is_malformed_is_said_with_its_place() {
        let error =
            |text| parse(text).map_or_else(|error| error.to_string(), |value| format!("read as {value}"));
        insta::assert_snapshot!(
            [
                "a: 1\na: 2\n",
                "a: 1\n\tb: 2\n",
                "a: *b\n",
                "a: [1, 2\n",
                "a: b: c\n",
                "{{ .Values.x }}: 1\n",
                "a: \"x\n",
                "{\"a\": 1,}x",
                "{\"a\": 1, \"a\": 2}",
                "a: b\n c: d\n"
            ]
            .map(error)
            .join("\n")
        );
    }
}
