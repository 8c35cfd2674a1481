//! Reads the text that `/metrics` serves: OpenMetrics, and Prometheus' older format, which differs only where we do not
//! look. Nothing is copied but label values with escapes in them.
//!
//! A line that cannot be read fails the whole text: half a scrape looks like a drop of all counters in the other half.

use std::borrow::Cow;

/// One line: a number and what it is a number of.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample<'a> {
    /// The name as written, `_total` and `_bucket` included.
    pub name: &'a str,
    /// The labels in the order they were written, values unescaped.
    pub labels: Vec<(&'a str, Cow<'a, str>)>,
    /// The value; NaN and the infinities are values too.
    pub value: f64,
}

/// Every sample of `text`, in order. Comments, timestamps and exemplars are skipped.
pub fn parse(text: &str) -> impl Iterator<Item = Result<Sample<'_>, ParseError>> {
    let lines = text.split_inclusive('\n').zip(1..);
    let samples = lines.filter(|(line, _)| !line.trim().is_empty() && !line.starts_with('#'));
    samples.map(|(line, number)| {
        // Half a number is a number too: the line's end is what says that it is whole.
        let whole = line.strip_suffix('\n').ok_or("the text ends within it");
        whole.and_then(|line| sample(line.trim())).map_err(|what| ParseError { line: number, what })
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

fn sample(line: &str) -> Result<Sample<'_>, &'static str> {
    let end = line.find(|c: char| !is_name(c)).ok_or("no value")?;
    let (name, rest) = line.split_at(end);
    if name.is_empty() || name.starts_with(|c: char| c.is_ascii_digit()) {
        return Err("no metric name");
    }
    let rest = rest.trim_start();
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(inside) => labels(inside)?,
        None => (Vec::new(), rest),
    };
    // After the value: perhaps a timestamp, perhaps an exemplar behind `#`.
    let value = rest.split_ascii_whitespace().next().ok_or("no value")?;
    let value = value.parse().map_err(|_| "the value is no number")?;
    Ok(Sample { name, labels, value })
}

fn is_name(c: char) -> bool {
    c.is_ascii_alphanumeric() || c == '_' || c == ':'
}

type Label<'a> = (&'a str, Cow<'a, str>);

/// Reads labels up to the closing brace, and returns what follows it.
fn labels(mut rest: &str) -> Result<(Vec<Label<'_>>, &str), &'static str> {
    let mut labels = Vec::new();
    loop {
        rest = rest.trim_start();
        if let Some(after) = rest.strip_prefix('}') {
            return Ok((labels, after));
        }
        let end = rest.find(|c: char| !is_name(c)).filter(|end| *end > 0).ok_or("no label name")?;
        let (name, after) = rest.split_at(end);
        let after = after.trim_start().strip_prefix('=').ok_or("no = after a label name")?;
        let after = after.trim_start().strip_prefix('"').ok_or("no quote before a label value")?;
        let (value, after) = quoted(after)?;
        labels.push((name, value));
        rest = after.trim_start();
        // The older format allows a comma before the brace.
        match rest.strip_prefix(',') {
            Some(after) => rest = after,
            None if rest.starts_with('}') => {}
            None => return Err("no comma between labels"),
        }
    }
}

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

    const WHOLE: &str = "a_total{b=\"c\\\\d\\\"e\",f=\"g\"} 123456\nb 2\n# EOF";

    fn one(text: &str) -> Result<Sample<'_>, ParseError> {
        parse(text).next().unwrap()
    }

    fn pairs(sample: &Sample<'_>) -> Vec<(String, String)> {
        sample.labels.iter().map(|(name, value)| ((*name).to_owned(), value.to_string())).collect()
    }

    #[test]
    fn samples_are_read_among_comments_timestamps_and_exemplars() {
        let text = "\
# HELP response Responses.
# TYPE response counter
response_total{direction=\"inbound\",tls=\"true\"} 12 1520879607.789

up 1
latency_bucket{le=\"+Inf\", } 3 # {trace=\"a\"} 0.67 1.0
\tweird  {a = \"b\"}  +Inf
# EOF
";
        let samples: Vec<_> = parse(text).collect::<Result<_, _>>().unwrap();
        let names: Vec<_> =
            samples.iter().map(|sample| (sample.name, sample.labels.len(), sample.value)).collect();
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
        let sample = one("a{b=\"x\\\"y\\\\z\\nw\\q\",c=\"\"} 1\n").unwrap();
        assert_eq!(pairs(&sample), [("b".into(), "x\"y\\z\nw\\q".into()), ("c".into(), String::new())]);
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
            let text = format!("ok 1\n{line}\n");
            let error = parse(&text).nth(1).unwrap().unwrap_err();
            assert_eq!(error.line, 2, "{line}");
        }
    }

    fn escape(value: &str) -> String {
        value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n")
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_back(
            name in "[a-zA-Z_:][a-zA-Z0-9_:]{0,20}",
            labels in prop::collection::vec(("[a-zA-Z_][a-zA-Z0-9_]{0,8}", "(?s)[^\r]{0,20}"), 0..6),
            value in any::<f64>().prop_filter("NaN is not equal to itself", |value| !value.is_nan()),
        ) {
            let written: Vec<_> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escape(value))).collect();
            let text = format!("{name}{{{}}} {value:?}\n", written.join(","));
            let read = one(&text).unwrap();
            prop_assert_eq!(read.name, name);
            prop_assert_eq!(pairs(&read), labels);
            prop_assert_eq!(read.value, value);
        }

        #[test]
        fn no_text_makes_it_panic(text in "(?s)[a-z\"\\\\{},=#\n\t 0-9.é]{0,200}") {
            parse(&text).for_each(drop);
        }

        #[test]
        fn a_text_cut_short_never_invents_a_value(cut in 0..WHOLE.len()) {
            let whole: Vec<_> = parse(WHOLE).flatten().collect();
            let read: Vec<_> = parse(&WHOLE[..cut]).flatten().collect();
            prop_assert!(whole.len() == 2 && whole.starts_with(&read));
        }
    }
}
