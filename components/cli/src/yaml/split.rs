//! A stream into documents. Nothing is lost: the documents' texts, one after the other, are the stream.

use serde::de::IgnoredAny;

/// One document of a stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Document<'a> {
    /// Its text, with the separator before it and the blanks after it.
    pub text: &'a str,
    /// The line of the stream on which the text begins, from 1.
    pub line: usize,
}

/// Splits a stream of YAML documents, or of JSON objects written one after the other as `jq` does.
pub fn split(stream: &str) -> Vec<Document<'_>> {
    let ends = json_ends(stream).unwrap_or_else(|| yaml_ends(stream));
    let mut documents = Vec::new();
    let (mut start, mut line) = (0, 1);
    for end in ends.into_iter().chain([stream.len()]) {
        if end > start {
            let text = &stream[start..end];
            documents.push(Document { text, line });
            line += text.matches('\n').count();
            start = end;
        }
    }
    documents
}

/// Where the objects of a stream of JSON begin, the first one excepted; none when it is no such stream.
fn json_ends(stream: &str) -> Option<Vec<usize>> {
    if !stream.trim_start().starts_with('{') {
        return None;
    }
    let mut ends = Vec::new();
    let mut values = serde_json::Deserializer::from_str(stream).into_iter::<IgnoredAny>();
    while let Some(value) = values.next() {
        value.ok()?;
        let rest = &stream[values.byte_offset()..];
        let next = rest.trim_start();
        if !next.is_empty() {
            ends.push(stream.len() - next.len());
        }
    }
    Some(ends)
}

/// Where the documents of a stream of YAML begin, the first one excepted.
///
/// A line that starts with `---` or `...` and then ends or goes on with a blank is a marker wherever it stands: YAML 1.2
/// section 6.7 forbids it inside scalars too. So no parser is needed, and a malformed document spoils no other.
fn yaml_ends(stream: &str) -> Vec<usize> {
    let mut ends = Vec::new();
    let mut at = 0;
    // What stands before a document and belongs to it: directives.
    let mut directives_at = None;
    for line in stream.split_inclusive('\n') {
        if is_marker(line, "---") {
            ends.push(directives_at.take().unwrap_or(at));
        } else if is_marker(line, "...") {
            ends.push(at + line.len());
        } else if line.starts_with('%') && between_documents(stream, ends.last().copied(), at) {
            directives_at.get_or_insert(at);
        }
        at += line.len();
    }
    ends
}

fn is_marker(line: &str, marker: &str) -> bool {
    line.strip_prefix(marker).is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']))
}

/// Whether only blanks, comments and directives stand between the last end and `at`: elsewhere `%` is content.
fn between_documents(stream: &str, last: Option<usize>, at: usize) -> bool {
    let start = last.unwrap_or(0);
    let is_void = |line: &str| line.trim().is_empty() || line.starts_with(['#', '%']);
    stream[start..at].lines().all(is_void)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[track_caller]
    fn texts(stream: &str) -> Vec<&str> {
        let documents = split(stream);
        let whole: String = documents.iter().map(|document| document.text).collect();
        assert_eq!(whole, stream);
        documents.into_iter().map(|document| document.text).collect()
    }

    #[test]
    fn markers_split_wherever_they_stand() {
        assert_eq!(texts("a: 1\n---\nb: 2\n"), ["a: 1\n", "---\nb: 2\n"]);
        assert_eq!(texts("---\na: 1\n--- # next\nb: 2"), ["---\na: 1\n", "--- # next\nb: 2"]);
        assert_eq!(texts("---\r\na: 1\r\n---\r\n"), ["---\r\na: 1\r\n", "---\r\n"]);
        assert_eq!(texts("a: 1\n...\nb: 2\n"), ["a: 1\n...\n", "b: 2\n"]);
        assert_eq!(texts("--- {a: 1}\n---"), ["--- {a: 1}\n", "---"]);
    }

    #[test]
    fn what_looks_like_a_marker_does_not_split() {
        for whole in ["a: |\n  ---\n  b\n", "a: ---b\n", "---a: 1\n", "# ---\na: 1\n", "a: 1\n ---\n"] {
            assert_eq!(texts(whole), [whole]);
        }
    }

    #[test]
    fn directives_go_with_their_document() {
        assert_eq!(texts("%YAML 1.2\n---\na: 1\n"), ["%YAML 1.2\n---\na: 1\n"]);
        assert_eq!(
            texts("a: 1\n...\n# b\n%YAML 1.2\n---\nb: 1\n"),
            ["a: 1\n...\n", "# b\n", "%YAML 1.2\n---\nb: 1\n"]
        );
        assert_eq!(texts("---\na: |\n  x\n%: 1\n---\n"), ["---\na: |\n  x\n%: 1\n", "---\n"]);
    }

    #[test]
    fn json_objects_split_where_they_end() {
        assert_eq!(texts("{\"a\": \"}\"}\n{\"b\": 1}\n"), ["{\"a\": \"}\"}\n", "{\"b\": 1}\n"]);
        assert_eq!(texts("{\"a\":1}{\"b\":2}"), ["{\"a\":1}", "{\"b\":2}"]);
        assert_eq!(texts("{\n\"a\": 1\n}"), ["{\n\"a\": 1\n}"]);
        assert_eq!(texts("{a: 1}\n---\n{b: 2}\n"), ["{a: 1}\n", "---\n{b: 2}\n"]);
    }

    #[test]
    fn documents_know_their_lines() {
        let lines = |stream| split(stream).iter().map(|document| document.line).collect::<Vec<_>>();
        assert_eq!(lines("# a\na: 1\n---\nb: 1\n---\n"), [1, 3, 5]);
        assert_eq!(lines("{}\n\n{}"), [1, 3]);
        assert!(lines("").is_empty());
    }
}
