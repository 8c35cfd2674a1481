//! The same seed gives the same trace, line by line.

use std::time::Duration;

use super::{Invariant, Violation};

/// Lines before the first difference that are shown.
const CONTEXT: usize = 3;

/// Compares the traces of two runs of one seed. What they have in common before the first difference is shown with it.
pub fn check(once: &str, again: &str) -> Vec<Violation> {
    let (mut first, mut second) = (once.lines(), again.lines());
    let mut same: Vec<&str> = Vec::new();
    loop {
        match (first.next(), second.next()) {
            (None, None) if once == again => return Vec::new(),
            // The same lines, and another end: what was not written to the end.
            (None, None) => return vec![differs(&same, "(ends otherwise)", "(ends otherwise)")],
            (one, other) if one == other => same.extend(one),
            (one, other) => return vec![differs(&same, one.unwrap_or("(ends)"), other.unwrap_or("(ends)"))],
        }
    }
}

fn differs(same: &[&str], once: &str, again: &str) -> Violation {
    let line = same.len() + 1;
    let context: String =
        same[same.len().saturating_sub(CONTEXT)..].iter().map(|line| format!("\n    {line}")).collect();
    let what = format!("two runs of one seed differ in line {line}:{context}\n  - {once}\n  + {again}");
    Violation { invariant: Invariant::Determinism, at: Duration::ZERO, what }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn equal_traces_are_right() {
        assert_eq!(check("", ""), []);
        assert_eq!(check("a\nb\n", "a\nb\n"), []);
    }

    #[test]
    fn the_first_difference_is_shown_with_what_precedes_it() {
        let violations = check("1\n2\n3\n4\nfive\n6", "1\n2\n3\n4\nFIVE\nsix");
        let expected = "two runs of one seed differ in line 5:\n    2\n    3\n    4\n  - five\n  + FIVE";
        assert_eq!(violations.iter().map(|v| v.what.as_str()).collect::<Vec<_>>(), [expected]);
    }

    #[test]
    fn a_trace_that_ends_sooner_or_otherwise_differs() {
        assert!(check("1\n2", "1").first().unwrap().what.ends_with("line 2:\n    1\n  - 2\n  + (ends)"));
        assert!(check("1", "1\n2").first().unwrap().what.ends_with("line 2:\n    1\n  - (ends)\n  + 2"));
        assert_eq!(check("1", "1\n").len(), 1);
    }
}
