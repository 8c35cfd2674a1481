//! Reads the text that `/metrics` serves: OpenMetrics, and Prometheus' older format, which differs only where we do not
//! look. Nothing is copied but label values with escapes in them.
//!
//! A line that cannot be read fails the whole text: half a scrape looks like a drop of all counters in the other half.

use std::borrow::Cow;

/// One line: a number and what it is a number of.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sample<'a> {
    /// The name as written, `_total` and `_bucket` included.
    pub name: &'a str,
    /// What stands between the braces, see [`labels`].
    pub labels: &'a str,
    /// The value; NaN and the infinities are values too.
    pub value: f64,
}

/// The sample on one line; none for a comment and an empty line. Timestamps and exemplars are skipped.
///
/// # Errors
/// What is missing or wrong. Labels are not looked at beyond their quotes: most lines repeat those of the line before.
pub fn sample(line: &str) -> Result<Option<Sample<'_>>, &'static str> {
    let line = line.trim();
    if line.is_empty() || line.starts_with('#') {
        return Ok(None);
    }
    let end = line.find(|c: char| !is_name(c)).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("no metric name");
    }
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => inside.split_at(closing_brace(inside)?),
        None => ("", rest),
    };
    // After the value: perhaps a timestamp, perhaps an exemplar behind `#`.
    let rest = rest.strip_prefix('}').unwrap_or(rest);
    let value = rest.split_ascii_whitespace().next().ok_or("no value")?;
    let value = value.parse().map_err(|_| "the value is no number")?;
    Ok(Some(Sample { name, labels, value }))
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

/// Where the brace is that no quotes surround.
fn closing_brace(text: &str) -> Result<usize, &'static str> {
    let (mut is_quoted, mut is_escaped) = (false, false);
    for (at, octet) in text.bytes().enumerate() {
        match octet {
            _ if is_escaped => is_escaped = false,
            b'\\' => is_escaped = is_quoted,
            b'"' => is_quoted = !is_quoted,
            b'}' if !is_quoted => return Ok(at),
            _ => {}
        }
    }
    Err("no brace behind the labels")
}

/// A label's name, and its value unescaped.
pub type Label<'a> = (&'a str, Cow<'a, str>);

/// Reads [`Sample::labels`], in the order they were written.
///
/// # Errors
/// What is missing or wrong.
pub fn labels(text: &str) -> Result<Vec<Label<'_>>, &'static str> {
    let mut labels = Vec::new();
    let mut rest = text.trim_start();
    while !rest.is_empty() {
        let end = rest.find(|c: char| !is_name(c)).filter(|end| *end > 0).ok_or("no label name")?;
        let (name, after) = rest.split_at(end);
        let after = after.trim_start().strip_prefix('=').ok_or("no = after a label name")?;
        let after = after.trim_start().strip_prefix('"').ok_or("no quote before a label value")?;
        let (value, after) = quoted(after)?;
        labels.push((name, value));
        rest = after.trim_start();
        // The older format allows a comma behind the last one.
        match rest.strip_prefix(',') {
            Some(after) => rest = after.trim_start(),
            None if rest.is_empty() => {}
            None => return Err("no comma between labels"),
        }
    }
    Ok(labels)
}

/// [`Sample::labels`] without the bucket's bound, and that bound; none when there is no such label.
pub fn bucket(text: &str) -> Option<(Cow<'_, str>, &str)> {
    // Within a value a quote has a backslash before it, so this cannot be within one. Every writer puts it last.
    let (before, bound) = text.rsplit_once("le=\"")?;
    let (bound, after) = bound.split_once('"')?;
    let is_whole_name = before.is_empty() || before.ends_with([',', ' ']);
    let before = before.trim_end_matches(' ').trim_end_matches(',');
    let after = after.trim_start_matches([',', ' ']);
    is_whole_name.then(|| match (before, after) {
        ("", rest) | (rest, "") => (Cow::Borrowed(rest), bound),
        (before, after) => (Cow::Owned(format!("{before},{after}")), bound),
    })
}

/// A line is not a sample.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line} of the metrics: {what}")]
pub struct ParseError {
    /// Which line, from 1.
    pub line: usize,
    /// What is missing or wrong there.
    pub what: &'static str,
}

/// The longest line: label values are names, and names are short.
const MAX_LINE: usize = 64 * 1024;

/// Cuts a text that arrives in pieces into lines.
#[derive(Debug, Default)]
pub struct Lines {
    rest: Vec<u8>,
    number: usize,
}

impl Lines {
    /// Hands each line that `bytes` completes to `each`, without its end.
    ///
    /// # Errors
    /// The first line that is no UTF-8, is too long, or that `each` refuses.
    pub fn feed(
        &mut self,
        bytes: &[u8],
        mut each: impl FnMut(&str) -> Result<(), &'static str>,
    ) -> Result<(), ParseError> {
        let mut bytes = bytes;
        while let Some(end) = bytes.iter().position(|octet| *octet == b'\n') {
            let (line, after) = (&bytes[..end], &bytes[end + 1..]);
            self.number += 1;
            let told = match self.rest.is_empty() {
                true => std::str::from_utf8(line).map_err(|_| NOT_TEXT).and_then(&mut each),
                false => {
                    self.rest.extend_from_slice(line);
                    std::str::from_utf8(&self.rest).map_err(|_| NOT_TEXT).and_then(&mut each)
                }
            };
            told.map_err(|what| ParseError { line: self.number, what })?;
            self.rest.clear();
            bytes = after;
        }
        if self.rest.len() + bytes.len() > MAX_LINE {
            return Err(ParseError { line: self.number + 1, what: "it is too long" });
        }
        self.rest.extend_from_slice(bytes);
        Ok(())
    }

    /// Says whether the text is whole: half a number is a number too, so it is the line's end that tells.
    ///
    /// # Errors
    /// The text ends within a line that is no comment. (`# EOF` comes without a line end from some.)
    pub fn finish(self) -> Result<(), ParseError> {
        match self.rest.first() {
            None | Some(b'#') => Ok(()),
            Some(_) => Err(ParseError { line: self.number + 1, what: "the text ends within it" }),
        }
    }
}

const NOT_TEXT: &str = "it is not UTF-8";

/// Reads a label value up to its closing quote, and returns what follows it.
fn quoted(text: &str) -> Result<(Cow<'_, str>, &str), &'static str> {
    let mut value = String::new();
    let mut rest = text;
    loop {
        let at = rest.find(['"', '\\']).ok_or("a label value without an end")?;
        let (before, from) = rest.split_at(at);
        if let Some(after) = from.strip_prefix('"') {
            if value.is_empty() {
                return Ok((Cow::Borrowed(before), after));
            }
            value.push_str(before);
            return Ok((Cow::Owned(value), after));
        }
        value.push_str(before);
        let escaped = from[1..].chars().next().ok_or("a label value without an end")?;
        match escaped {
            'n' => value.push('\n'),
            '"' | '\\' => value.push(escaped),
            // OpenMetrics, section "escaping": any other backslash stands for itself.
            other => value.extend(['\\', other]),
        }
        rest = &from[1 + escaped.len_utf8()..];
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const WHOLE: &str = "a_total{b=\"c\\\\d\\\"é\",f=\"g\"} 123456\nb 2\n# EOF";

    type Owned = (String, Vec<(String, String)>, f64);

    /// Name, labels and value of every sample, the text arriving in pieces that end at `cuts`.
    fn read(text: &[u8], cuts: &[usize]) -> Result<Vec<Owned>, ParseError> {
        let mut samples = Vec::new();
        let mut lines = Lines::default();
        let mut cuts: Vec<usize> = cuts.iter().map(|cut| cut.min(&text.len()).to_owned()).collect();
        cuts.extend([0, text.len()]);
        cuts.sort_unstable();
        for piece in cuts.windows(2) {
            lines.feed(&text[piece[0]..piece[1]], |line| {
                if let Some(sample) = sample(line)? {
                    samples.push((sample.name.to_owned(), pairs(sample.labels)?, sample.value));
                }
                Ok(())
            })?;
        }
        lines.finish().map(|()| samples)
    }

    fn pairs(text: &str) -> Result<Vec<(String, String)>, &'static str> {
        Ok(labels(text)?.into_iter().map(|(name, value)| (name.to_owned(), value.into_owned())).collect())
    }

    #[test]
    fn samples_are_read_among_comments_timestamps_and_exemplars() {
        let text = "\
# HELP response Responses.
# TYPE response counter
response_total{direction=\"inbound\",tls=\"true\"} 12 1520879607.789

up 1
latency_bucket{le=\"+Inf\", } 3 # {trace=\"a\"} 0.67 1.0
\tweird  {a = \"b\"}  +Inf\r
# EOF
";
        let samples = read(text.as_bytes(), &[]).unwrap();
        let names: Vec<_> =
            samples.iter().map(|(name, labels, value)| (&**name, labels.len(), *value)).collect();
        let expected = [
            ("response_total", 2, 12.0),
            ("up", 0, 1.0),
            ("latency_bucket", 1, 3.0),
            ("weird", 1, f64::INFINITY),
        ];
        assert_eq!(names, expected);
    }

    #[test]
    fn escapes_are_undone() {
        let line = r#"a{b="x\"y\\z\nw\q}",c=""} 1"#;
        let found = pairs(sample(line).unwrap().unwrap().labels).unwrap();
        assert_eq!(found, [("b".into(), "x\"y\\z\nw\\q}".into()), ("c".into(), String::new())]);
    }

    #[test]
    fn a_bucket_is_told_apart_from_its_labels_wherever_its_bound_is_written() {
        let cases = [
            (r#"a="b",le="0.5""#, Some((r#"a="b""#, "0.5"))),
            (r#"le="+Inf""#, Some(("", "+Inf"))),
            (r#"le="1",a="b""#, Some((r#"a="b""#, "1"))),
            (r#"a="b", le="1", c="d","#, Some((r#"a="b",c="d","#, "1"))),
            (r#"a="le=\"1\"",le="2""#, Some((r#"a="le=\"1\"""#, "2"))),
            (r#"a="b",role="1""#, None),
            (r#"a="b""#, None),
            (r#"le="1"#, None),
        ];
        for (text, expected) in cases {
            let found = bucket(text);
            assert_eq!(found.as_ref().map(|(labels, bound)| (&**labels, *bound)), expected, "{text}");
        }
    }

    #[test]
    fn a_line_that_is_no_sample_is_an_error_with_its_number() {
        for line in [
            "a",
            "a{",
            "a{b",
            "a{b=",
            "a{b=\"",
            "a{b=\"c\\",
            "a{b=\"c\"",
            "a{b=\"c\" d=\"e\"} 1",
            "a{} ",
            "a x",
            "1a 1",
            "{} 1",
            "a{1",
        ] {
            let error = read(format!("ok 1\n{line}\n").as_bytes(), &[]).unwrap_err();
            assert_eq!(error.line, 2, "{line}");
        }
        assert_eq!(read(b"ok 1\na\xff 1\n", &[]).unwrap_err().what, NOT_TEXT);
        assert!(read(&vec![b'a'; MAX_LINE + 1], &[]).is_err());
    }

    fn escape(value: &str) -> String {
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
            labels in prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,8}", "(?s).{0,20}"), 0..6),
            value in any::<f64>().prop_filter("NaN is not equal to itself", |value| !value.is_nan()),
            cuts in prop::collection::vec(0usize..400, 0..4),
        ) {
            let written: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
            let text = format!("{name}{{{}}} {value:?}\n", written.join(","));
            prop_assert_eq!(read(text.as_bytes(), &cuts), Ok(vec![(name, labels, value)]));
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s)[a-z\"\\\\{},=#\n\t 0-9.é]{0,200}") {
            drop(read(text.as_bytes(), &[]));
        }

        #[test]
        fn a_text_cut_short_never_invents_a_value(cut in 0..WHOLE.len()) {
            let whole = read(WHOLE.as_bytes(), &[]).unwrap();
            prop_assert_eq!(whole.len(), 2);
            if let Ok(samples) = read(&WHOLE.as_bytes()[..cut], &[]) {
                prop_assert!(whole.starts_with(&samples));
            }
        }
    }
}
