//! Lines and columns of a text, for inserting and removing whole lines.

use std::ops::Range;

use super::{
    edit::Edit,
    tree::{Entry, Node},
};

/// Where the line of `at` begins.
pub fn line_start(text: &str, at: usize) -> usize {
    text[..at].rfind('\n').map_or(0, |newline| newline + 1)
}

/// Where the line of `at` ends, its newline included; `at` itself at the end of the text.
pub fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |newline| at + newline + 1)
}

/// Where the last line of a text range that ends at `end` ends. A block scalar's range ends with its last line.
pub fn last_line_end(text: &str, end: usize) -> usize {
    if text[..end].ends_with('\n') { end } else { line_end(text, end) }
}

/// The column of `at` when only blanks stand before it on its line.
pub fn own_column(text: &str, at: usize) -> Option<usize> {
    let before = &text[line_start(text, at)..at];
    before.bytes().all(|octet| octet == b' ').then_some(before.len())
}

/// Where the value of a `key: value` entry may begin: behind its colon.
pub fn colon_end(text: &str, entry: &Entry) -> Option<usize> {
    let rest = &text[entry.key.span.end..];
    let colon = rest.trim_start();
    colon.starts_with(':').then(|| entry.key.span.end + rest.len() - colon.len() + 1)
}

/// The range of an entry's value with the blanks, anchor and tag before it.
pub fn value_range(text: &str, entry: &Entry) -> Option<Range<usize>> {
    let start = colon_end(text, entry)?;
    Some(start..entry.value.span.end.max(start))
}

/// Where the dash of `item` stands, an item of a block sequence whose lines begin at `from`. Between the two stand blanks
/// and comments at most. None when the dash is not found there.
pub fn dash(text: &str, from: usize, item: &Node) -> Option<usize> {
    let mut at = line_start(text, item.start);
    while at >= from {
        let line = &text[at..];
        let content = line.trim_start_matches(' ');
        if content.starts_with('-') {
            return Some(at + line.len() - content.len());
        }
        at = line_start(text, at.checked_sub(1)?);
    }
    None
}

/// Past the comments that follow `at`, the start of a line, and are indented deeper than `column`: they belong to what
/// stands before them.
pub fn past_comments(text: &str, mut at: usize, column: usize) -> usize {
    for line in text[at..].split_inclusive('\n') {
        let content = line.trim_start_matches(' ');
        if !content.starts_with('#') || line.len() - content.len() <= column {
            break;
        }
        at += line.len();
    }
    at
}

/// Puts whole lines at `at`, the start of a line or the end of the text.
pub fn insert_lines(text: &str, at: usize, lines: &str, newline: &str) -> Edit {
    let unfinished = at == text.len() && !text.is_empty() && !text.ends_with('\n');
    let lines = match lines.strip_suffix(newline) {
        // A text without a final newline stays one.
        Some(lines) if unfinished => format!("{newline}{lines}"),
        _ => lines.to_owned(),
    };
    Edit::insert(at, lines)
}

/// Takes whole lines away: the opposite of [`insert_lines`].
pub fn remove_lines(text: &str, lines: Range<usize>) -> Edit {
    let unfinished = lines.end == text.len() && !text.ends_with('\n');
    if !unfinished {
        return Edit::remove(lines);
    }
    let before = &text[..lines.start];
    let kept = before.strip_suffix('\n').map_or(before, |kept| kept.strip_suffix('\r').unwrap_or(kept));
    Edit::remove(kept.len()..lines.end)
}

/// What ends the line of `at`, or lines elsewhere if it is the last one.
pub fn newline(text: &str, at: usize) -> &'static str {
    let end = line_end(text, at);
    let line = &text[..end];
    if line.ends_with("\r\n") || (!line.ends_with('\n') && text.contains("\r\n")) { "\r\n" } else { "\n" }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::yaml::{edit::apply, tree};

    #[test]
    fn lines_put_in_are_taken_out_again() {
        for (text, at) in
            [("a\nb\n", 0), ("a\nb\n", 2), ("a\nb\n", 4), ("a\nb", 3), ("a\r\nb", 4), ("a\r\nb\r\n", 3)]
        {
            let newline = newline(text, at);
            let edit = insert_lines(text, at, &format!("x{newline}y{newline}"), newline);
            let put = apply(text, vec![edit]).expect("one edit");
            let start = put.find('x').expect("x");
            let range = start..line_end(&put, put.find('y').expect("y"));
            assert_eq!(put.ends_with('\n'), text.ends_with('\n'));
            assert_eq!(apply(&put, vec![remove_lines(&put, range)]).as_deref(), Some(text));
        }
    }

    #[test]
    fn dashes_are_found_past_comments() {
        let text = "a: # - x\n# - y\n- b: 1\n  c: -2\n# z\n- # w\n\n  # -v\n  d: 1\n-\n  e\n";
        let root = tree::parse(text).expect("it is well-formed");
        let items = root.entries()[0].value.items();
        let dashes: Vec<_> = items.iter().map(|item| dash(text, line_end(text, 0), item)).collect();
        assert_eq!(dashes, ["- b", "- # w", "-\n  e"].map(|dash| text.find(dash)));
        assert_eq!(dash(text, line_start(text, items[1].start), &items[1]), None);
    }
}
