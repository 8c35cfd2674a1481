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
    let read = serde_saphyr::from_str_with_options::<Option<Value>>(text, options(text.len()));
    // JSON is not quite a part of YAML: keys may be longer, for one.
    if read.as_ref().is_err_and(|error| !is_duplicate(error))
        && is_json(text)
        && let Ok(value) = serde_json::from_str(text)
    {
        return Ok(value);
    }
    let mut value = read.map_err(|error| refused(text, &error))?.unwrap_or_default();
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

/// How deep collections may be nested: what the parser behind `tree.rs` takes too. Schemas of CRDs are some 70 deep.
const MAX_DEPTH: usize = 255;

/// What aliases may add to the text: parts, and octets of scalars.
const MAX_ALIASED: usize = 1_000_000;
const MAX_ALIASED_OCTETS: usize = 64 << 20;

/// The options for a text of so many octets. What stands in the text is in memory already and has no other bound: a list
/// of all Deployments of a cluster has millions of parts. What aliases make of it has one.
fn options(octets: usize) -> serde_saphyr::Options {
    // An octet may be a key and the value that it lacks; empty text makes events too.
    let parts = octets.saturating_mul(2).saturating_add(16);
    serde_saphyr::options! {
        // `defaultMode: 0644` is 420 to Kubernetes.
        legacy_octal_numbers: true,
        with_snippet: false,
        budget: serde_saphyr::budget! {
            // The file is the user's own: one with many aliases is not an attack.
            enforce_alias_anchor_ratio: false,
            max_depth: MAX_DEPTH,
            max_nodes: parts.saturating_add(MAX_ALIASED),
            max_events: parts.saturating_mul(2).saturating_add(MAX_ALIASED),
            max_aliases: parts,
            max_anchors: parts,
            max_merge_keys: parts,
            // An escape of two octets stands for up to three.
            max_total_scalar_bytes: parts.saturating_add(MAX_ALIASED_OCTETS),
        },
    }
}

fn is_duplicate(error: &serde_saphyr::Error) -> bool {
    matches!(innermost(error), serde_saphyr::Error::DuplicateMappingKey { .. })
}

/// What went wrong, without where it is shown and which alias led there.
fn innermost(mut error: &serde_saphyr::Error) -> &serde_saphyr::Error {
    use serde_saphyr::Error::{AliasError, WithSnippet};
    while let AliasError { error: inner, .. } | WithSnippet { error: inner, .. } = error {
        error = inner;
    }
    error
}

fn refused(text: &str, error: &serde_saphyr::Error) -> ParseError {
    let error = error.without_snippet();
    let position = |get: fn(&serde_saphyr::Location) -> u64| {
        error.location().map_or(1, |location| usize::try_from(get(&location)).unwrap_or(1))
    };
    let (line, column) = (position(serde_saphyr::Location::line), position(serde_saphyr::Location::column));
    let cause = in_own_words(error).unwrap_or_else(|| cause(&error.to_string()));
    match misplaced_tab(text, line).filter(|_| cause.contains("tab")) {
        Some((line, column)) => ParseError { line, column, cause: "a tab: indent by blanks".to_owned() },
        None => ParseError { line, column, cause },
    }
}

/// Where a line from `line` on is indented by a tab, which the reader tells at the beginning of what the tab is in.
fn misplaced_tab(text: &str, line: usize) -> Option<(usize, usize)> {
    let mut lines = text.lines().enumerate().skip(line - 1);
    lines.find_map(|(index, line)| {
        let content = line.trim_start();
        let tab = line[..line.len() - content.len()].find('\t');
        tab.filter(|_| !content.is_empty()).map(|tab| (index + 1, tab + 1))
    })
}

/// What to say where the reader speaks to its programmer, or of limits of ours.
fn in_own_words(error: &serde_saphyr::Error) -> Option<String> {
    use serde_saphyr::{Error, budget::BudgetBreach};
    match innermost(error) {
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            Some(format!("nested over {MAX_DEPTH} levels deep, which no manifest is: make it flatter"))
        }
        // The text itself breaches nothing else.
        Error::Budget { .. }
        | Error::AliasReplayCounterOverflow { .. }
        | Error::AliasReplayLimitExceeded { .. }
        | Error::AliasReplayStackDepthExceeded { .. } => {
            Some("its aliases stand for more than is read at once: write some of it out".to_owned())
        }
        Error::RecursiveReferencesRequireWeakTypes { .. } => {
            Some("an alias stands for something that it is in itself".to_owned())
        }
        Error::NonFiniteFloat { .. } => {
            Some("a number that JSON does not have: quote it if it is text".to_owned())
        }
        _ => None,
    }
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
    match text.split(" at line ").next().unwrap_or(text) {
        "expected string scalar" => "a key is a list or a mapping".to_owned(),
        text => text.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Map, json};

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
    fn size_alone_refuses_nothing() {
        let many = format!("a: [{}]\n", "0,".repeat(300_000));
        assert_eq!(parse(&many).map(|value| value["a"].as_array().map(Vec::len)), Ok(Some(300_000)));
        let void = format!("{{{}}}", (0..1000).map(|key| format!("{key},")).collect::<String>());
        assert_eq!(parse(&void).map(|value| value.as_object().map(Map::len)), Ok(Some(1000)));
        let deep = format!("a: {}{}\n", "[".repeat(200), "]".repeat(200));
        assert!(parse(&deep).is_ok());
        let blocks: String = (0..200).map(|depth| format!("{:depth$}a:\n", "")).collect();
        assert!(parse(&blocks).is_ok());
    }

    #[test]
    fn what_is_more_than_can_be_read_is_told_in_words_of_ours() {
        let bomb = (1..9).fold("a0: &a0 [x,x,x,x,x,x,x,x]\n".to_owned(), |text, level| {
            let before = format!("*a{},", level - 1).repeat(8);
            format!("{text}a{level}: &a{level} [{before}]\n")
        });
        let deep: String = (0..300).map(|depth| format!("{:depth$}a:\n", "")).collect();
        let error = |text: &str| parse(text).expect_err("too much").cause;
        assert!(error(&bomb).contains("aliases"), "{}", error(&bomb));
        assert!(error(&deep).contains("255 levels"), "{}", error(&deep));
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
                "a: b\n c: d\n",
                "a: b\n\tc: d\n",
                "a:\n  b: 1\n  \tc: d\n",
                "a: .inf\n",
                "? {a: 1}\n: b\n",
                "a: &a [*a]\n"
            ]
            .map(error)
            .join("\n")
        );
    }
}
