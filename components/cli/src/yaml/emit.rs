//! New text in the style of its surroundings.

use serde::Serialize;
use serde_json::{Map, Value};

/// How block collections are laid out.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Style {
    /// What ends a line.
    pub newline: &'static str,
    /// How many columns a mapping under a key is indented.
    pub step: usize,
    /// How many columns a dash under a key is indented; 0 and `step` are both common.
    pub dash: usize,
}

/// As `kubectl` writes.
impl Default for Style {
    fn default() -> Self {
        Self { newline: "\n", step: 2, dash: 0 }
    }
}

/// A whole document in block style.
pub fn document(value: &Value) -> String {
    match value {
        Value::Object(map) if !map.is_empty() => entries(map, 0, Style::default()),
        other => format!("{}\n", inline(other)),
    }
}

/// The lines of a mapping's entries, their keys at column `indent`.
pub fn entries(map: &Map<String, Value>, indent: usize, style: Style) -> String {
    let mut out = String::new();
    for (key, value) in map {
        entry(&mut out, key, value, indent, style);
    }
    out
}

/// The lines of a sequence's items, their dashes at column `indent`.
pub fn items(values: &[Value], indent: usize, style: Style) -> String {
    let mut out = String::new();
    for value in values {
        item(&mut out, value, indent, style);
    }
    out
}

fn entry(out: &mut String, key: &str, value: &Value, indent: usize, style: Style) {
    out.push_str(&format!("{:indent$}{}:", "", string(key)));
    match value {
        Value::Object(map) if !map.is_empty() => {
            out.push_str(style.newline);
            out.push_str(&entries(map, indent + style.step, style));
        }
        Value::Array(values) if !values.is_empty() => {
            out.push_str(style.newline);
            out.push_str(&items(values, indent + style.dash, style));
        }
        Value::String(text) if is_literal(text) => literal(out, text, indent + style.step, style),
        other => out.push_str(&format!(" {}{}", inline(other), style.newline)),
    }
}

/// A text of several lines as it is.
fn literal(out: &mut String, text: &str, indent: usize, style: Style) {
    out.push_str(" |");
    out.push_str(style.newline);
    for line in text.lines() {
        let indent = if line.is_empty() { 0 } else { indent };
        out.push_str(&format!("{:indent$}{line}{}", "", style.newline));
    }
}

/// Whether a text can be a literal block scalar without any indicator: printable lines, the first of which is not
/// indented, and one newline at the end.
fn is_literal(text: &str) -> bool {
    let is_printable = |c: char| !c.is_control() || matches!(c, '\n' | '\t');
    let lines = text.strip_suffix('\n').unwrap_or_default();
    lines.contains('\n')
        && !lines.starts_with([' ', '\t', '\n', '#'])
        && !lines.ends_with('\n')
        && text.chars().all(|c| is_printable(c) && !is_hidden(c))
}

fn item(out: &mut String, value: &Value, indent: usize, style: Style) {
    let inner = indent + 2;
    let nested = match value {
        Value::Object(map) if !map.is_empty() => entries(map, inner, style),
        Value::Array(values) if !values.is_empty() => items(values, inner, style),
        other => format!("{:inner$}{}{}", "", inline(other), style.newline),
    };
    // The dash takes the place of the first line's indentation.
    out.push_str(&format!("{:indent$}- {}", "", &nested[inner..]));
}

/// A value on one line, valid inside block and flow collections alike.
pub fn inline(value: &Value) -> String {
    match value {
        Value::String(text) => string(text),
        other => json(other),
    }
}

/// A value as JSON on one line.
pub fn json(value: &Value) -> String {
    visible(&value.to_string())
}

/// A value as JSON on lines, each level indented by `unit`.
pub fn pretty_json(value: &Value, unit: &str) -> String {
    let mut text = Vec::new();
    let formatter = serde_json::ser::PrettyFormatter::with_indent(unit.as_bytes());
    let written = value.serialize(&mut serde_json::Serializer::with_formatter(&mut text, formatter));
    // Neither the value nor the buffer can fail; if they did, one line is as good.
    written.map_or_else(|_| json(value), |()| visible(&String::from_utf8_lossy(&text)))
}

fn is_hidden(c: char) -> bool {
    matches!(c, '\u{7f}'..='\u{9f}' | '\u{2028}' | '\u{2029}' | '\u{feff}' | '\u{fffe}' | '\u{ffff}')
}

/// A string, plain where no reader of any YAML version takes it for something else.
pub fn string(text: &str) -> String {
    if is_plain(text) { text.to_owned() } else { json(&Value::from(text)) }
}

/// What JSON leaves as it is and YAML 1.1 takes for a line break or for unprintable.
fn visible(json: &str) -> String {
    json.chars()
        .map(|c| if is_hidden(c) { format!("\\u{:04x}", u32::from(c)) } else { c.to_string() })
        .collect()
}

fn is_plain(text: &str) -> bool {
    is_word(text) || text.strip_prefix("--").is_some_and(is_word) || is_quantity(text)
}

fn is_word(text: &str) -> bool {
    let starts = |c: char| c.is_ascii_alphabetic() || c == '/';
    // `a:80` and `tcp://x` are scalars, `a:` is an entry.
    let goes_on = |c: char| c.is_ascii_alphanumeric() || "/._-:=$".contains(c);
    text.starts_with(starts) && text.chars().all(goes_on) && !text.ends_with(':') && !is_word_of_yaml(text)
}

/// `10m`, `24Mi`, `10s`; `1e3` and `0x1f` are numbers.
fn is_quantity(text: &str) -> bool {
    let unit = text.trim_start_matches(|c: char| c.is_ascii_digit());
    unit.len() < text.len() && ["m", "s", "Ki", "Mi", "Gi"].contains(&unit)
}

/// Words that some version of YAML takes for booleans, null or numbers.
fn is_word_of_yaml(text: &str) -> bool {
    let words = ["y", "n", "yes", "no", "on", "off", "true", "false", "null", "nan", "inf"];
    words.contains(&text.to_ascii_lowercase().as_str())
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;
    use crate::yaml::value;

    fn sample() -> Value {
        json!({
            "name": "web", "args": ["--a", "1", "true", "a b", "- x"], "empty": {}, "none": [], "null": null,
            "nested": [[1, 2], {"a": {"b": ["c"]}}, {}], "n": 1.5, "on": "off", "image": "conduit/proxy:0.6.0",
        })
    }

    #[test]
    fn block_style_follows_its_surroundings() {
        let styles = [Style::default(), Style { newline: "\n", step: 4, dash: 2 }];
        let text =
            styles.map(|style| entries(sample().as_object().expect("an object"), 2, style)).join("---\n");
        insta::assert_snapshot!(text);
    }

    #[test]
    fn what_is_written_is_read_back() {
        assert_eq!(value::parse(&document(&sample())), Ok(sample()));
        assert_eq!(value::parse(&format!("a: {}", pretty_json(&sample(), "  "))), Ok(json!({"a": sample()})));
    }

    proptest! {
        #[test]
        fn every_string_is_read_back(text in any::<String>(), key in any::<String>()) {
            // serde-saphyr reads `<<` as a merge key even where it is quoted.
            prop_assume!(key != "<<");
            let value = json!({key: [text]});
            prop_assert_eq!(value::parse(&document(&value)), Ok(value));
        }

        #[test]
        fn lines_are_read_back(text in "[ab:#'\" \t\\-\n]{0,20}\n{0,2}") {
            let value = json!({"a": {"b": [{"c": text}]}, "d": text});
            prop_assert_eq!(value::parse(&document(&value)), Ok(value));
        }

        #[test]
        fn every_word_is_read_back(text in "[a-zA-Z0-9:/._~+ -]{0,8}") {
            let value = json!({"key": text});
            prop_assert_eq!(value::parse(&document(&value)), Ok(value));
        }
    }
}
