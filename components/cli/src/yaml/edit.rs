//! Replacing ranges of a text, all at once.

use std::ops::Range;

/// One replacement.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Edit {
    /// What goes; empty for a pure insertion.
    pub range: Range<usize>,
    /// What comes.
    pub text: String,
}

impl Edit {
    /// Puts `text` at `at`.
    pub fn insert(at: usize, text: String) -> Self {
        Self { range: at..at, text }
    }

    /// Takes `range` away.
    pub fn remove(range: Range<usize>) -> Self {
        Self { range, text: String::new() }
    }
}

/// The text after the edits; none when two of them overlap. Insertions at one place keep their order.
pub fn apply(text: &str, mut edits: Vec<Edit>) -> Option<String> {
    edits.sort_by_key(|edit| (edit.range.start, edit.range.end));
    let mut out = String::with_capacity(text.len() + edits.iter().map(|edit| edit.text.len()).sum::<usize>());
    let mut at = 0;
    for Edit { range, text: new } in edits {
        out.push_str(text.get(at..range.start)?);
        out.push_str(&new);
        at = range.end;
    }
    out.push_str(text.get(at..)?);
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn edits_apply_in_order_of_place() {
        let edits = vec![
            Edit::insert(3, "x".into()),
            Edit::remove(0..1),
            Edit::insert(3, "y".into()),
            Edit { range: 4..5, text: "E".into() },
        ];
        assert_eq!(apply("abcde", edits).as_deref(), Some("bcxydE"));
    }

    #[test]
    fn edits_that_overlap_are_refused() {
        assert_eq!(apply("abcde", vec![Edit::remove(0..3), Edit::remove(2..4)]), None);
    }
}
