//! The last resort: a document in which nothing can be added in place, for instance because two workloads share parts
//! of one pod template by an alias, is written anew, and what it was is kept in a comment.

use std::fmt::Write;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

use crate::yaml::{emit, value};

const MARK: &str = "# conduit.io/original: ";

/// Writes `value` in the place of the document `original`, which must be YAML.
pub(super) fn rewrite(original: &str, value: &Value) -> String {
    if value::is_json(original) {
        // JSON has no comments; it has no aliases either, so this is for shapes nobody writes.
        return format!("{value:#}\n");
    }
    let (head, rest) = head(original);
    let is_separated = original.lines().any(is_separator);
    let own = head.is_empty() && is_separated;
    let ends = original.lines().any(|line| is_marker(line, "..."));
    let body = format!("{}{}", emit::document(value), if ends { "...\n" } else { "" });
    let record = json!({"sha256": digest(&body), "separator": own, "text": rest});
    let separator = if own { "---\n" } else { "" };
    format!("{head}{separator}{MARK}{}\n{body}", emit::json(&record))
}

/// The document that [`rewrite`] replaced; none when this is no such document, or was changed since.
pub(super) fn original(document: &str) -> Option<String> {
    let (before, rest) = document.split_at(record_at(document)?);
    let (record, body) = rest.strip_prefix(MARK)?.split_once('\n')?;
    let record: Value = serde_json::from_str(record).ok()?;
    let text = record.get("text")?.as_str()?;
    let before = if record.get("separator")?.as_bool()? { before.strip_suffix("---\n")? } else { before };
    (record.get("sha256")?.as_str()? == digest(body)).then(|| format!("{before}{text}"))
}

/// A record of a document that was changed since: it tells nothing any more.
pub(super) fn without_record(document: &str) -> Option<String> {
    let at = record_at(document)?;
    let end = document[at..].find('\n').map_or(document.len(), |newline| at + newline + 1);
    Some(format!("{}{}", &document[..at], &document[end..]))
}

/// Where the record is: on the first line, or below a separator.
fn record_at(document: &str) -> Option<usize> {
    let (head, rest) = head(document);
    rest.starts_with(MARK).then_some(head.len())
}

/// A first line that is a separator and nothing else; it stays where it is.
pub(super) fn head(document: &str) -> (&str, &str) {
    let end = document.find('\n').map_or(document.len(), |newline| newline + 1);
    let (first, rest) = document.split_at(end);
    let after = first.strip_prefix("---").map(str::trim);
    if after.is_some_and(|after| after.is_empty() || after.starts_with('#')) {
        (first, rest)
    } else {
        ("", document)
    }
}

fn is_separator(line: &str) -> bool {
    is_marker(line, "---")
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r']))
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes()).iter().fold(String::new(), |mut hex, octet| {
        let _ = write!(hex, "{octet:02x}");
        hex
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_was_written_anew_is_given_back() {
        let value = json!({"a": {"b": [1]}});
        for text in [
            "a: &a\n  b: [1] # c\n",
            "---\na:\n  b: [1]",
            "--- # x\r\na: {b: [1]}\r\n...\r\n",
            "--- {a: {b: [1]}}\n",
            "%YAML 1.2\n---\na: {b: [1]}\n",
            "a: \"\u{2028}\"\n\n# end\n",
        ] {
            let new = rewrite(text, &value);
            assert_eq!(value::parse(&new), Ok(value.clone()), "{new}");
            assert_eq!(original(&new).as_deref(), Some(text));
            assert_eq!(original(&new.replace("- 1", "- 2")), None);
            assert_eq!(original(text), None);
        }
    }
}
