//! As much of Starlark as `MODULE.bazel` and `BUILD.bazel` need: calls at the top level, strings, lists, `+`, and names
//! given to values. Of other words and numbers only the text is kept; anything else is refused.

use std::collections::BTreeMap;

use crate::Error;

/// `function(argument, name = argument)`.
#[derive(Clone, Debug, PartialEq)]
pub(crate) struct Call {
    /// With dots, `crate.from_cargo`.
    pub(crate) function: String,
    pub(crate) positional: Vec<Value>,
    pub(crate) named: BTreeMap<String, Value>,
}

#[derive(Clone, Debug, PartialEq)]
pub(crate) enum Value {
    Text(String),
    List(Vec<Value>),
    Call(Call),
    /// A word or a number as it is written: `True`, `2102`.
    Word(String),
}

impl Call {
    pub(crate) fn text(&self, name: &str) -> Option<&str> {
        match self.named.get(name) {
            Some(Value::Text(text)) => Some(text),
            _ => None,
        }
    }

    /// What is written, without quotes, as the value of `name`.
    pub(crate) fn word(&self, name: &str) -> Option<&str> {
        match self.named.get(name) {
            Some(Value::Text(text) | Value::Word(text)) => Some(text),
            _ => None,
        }
    }

    /// The strings of a list; none without it.
    pub(crate) fn texts(&self, name: &str) -> Vec<&str> {
        self.named.get(name).map(Value::texts).unwrap_or_default()
    }
}

impl Value {
    /// The strings in it, but not those in calls.
    pub(crate) fn texts(&self) -> Vec<&str> {
        match self {
            Self::Text(text) => vec![text],
            Self::List(items) => items.iter().flat_map(Self::texts).collect(),
            Self::Call(_) | Self::Word(_) => Vec::new(),
        }
    }

    /// `self + other`; a call stands for the list that it returns.
    fn plus(self, other: Self) -> Self {
        let items = |value| match value {
            Self::List(items) => items,
            one => vec![one],
        };
        Self::List([items(self), items(other)].concat())
    }
}

/// The calls at the top level of `text`, with names replaced by what they were given.
///
/// # Errors
/// Names `file` and the line of what is not understood.
pub(crate) fn calls(file: &str, text: &str) -> Result<Vec<Call>, Error> {
    let refuse = |(line, problem)| Error::Starlark { file: file.to_owned(), line, problem };
    let mut reader = Reader { tokens: tokens(text).map_err(refuse)?, at: 0, names: BTreeMap::new() };
    let mut calls = Vec::new();
    while reader.at < reader.tokens.len() {
        if let Value::Call(call) = reader.statement().map_err(refuse)? {
            calls.push(call);
        }
    }
    Ok(calls)
}

#[derive(Clone, Debug, PartialEq)]
enum Token {
    Text(String),
    /// A name, with its dots, or a number.
    Word(String),
    Mark(char),
}

/// The line, counted from one, and what stands there.
type Problem = (usize, String);

/// The tokens of `text`, each with its line.
fn tokens(text: &str) -> Result<Vec<(usize, Token)>, Problem> {
    let mut tokens = Vec::new();
    let mut rest = text;
    while let Some(first) = rest.chars().next() {
        let line = 1 + text[..text.len() - rest.len()].matches('\n').count();
        let length = match first {
            '#' => rest.find('\n').unwrap_or(rest.len()),
            '"' => {
                let quote = if rest.starts_with("\"\"\"") { "\"\"\"" } else { "\"" };
                let inner = &rest[quote.len()..];
                let end = inner.find(quote).ok_or((line, "a string without an end".to_owned()))?;
                tokens.push((line, Token::Text(inner[..end].to_owned())));
                end + 2 * quote.len()
            }
            _ if is_word(first) => {
                let end = rest.find(|next| !is_word(next)).unwrap_or(rest.len());
                tokens.push((line, Token::Word(rest[..end].to_owned())));
                end
            }
            '(' | ')' | '[' | ']' | ',' | '=' | '+' => {
                tokens.push((line, Token::Mark(first)));
                1
            }
            _ if first.is_whitespace() => first.len_utf8(),
            other => return Err((line, format!("`{other}`"))),
        };
        rest = &rest[length..];
    }
    Ok(tokens)
}

fn is_word(character: char) -> bool {
    character.is_alphanumeric() || matches!(character, '_' | '.')
}

struct Reader {
    tokens: Vec<(usize, Token)>,
    at: usize,
    names: BTreeMap<String, Value>,
}

impl Reader {
    /// `NAME = value`, or a value.
    fn statement(&mut self) -> Result<Value, Problem> {
        let Some(name) = self.name_given() else { return self.value() };
        let value = self.value()?;
        // A call's result has no meaning here, but the call is one of those asked for.
        self.names.insert(name, value.clone());
        Ok(value)
    }

    /// Reads `NAME =`, if that is next.
    fn name_given(&mut self) -> Option<String> {
        let [(_, Token::Word(name)), (_, Token::Mark('=')), ..] = &self.tokens[self.at..] else {
            return None;
        };
        let name = name.clone();
        self.at += 2;
        Some(name)
    }

    fn value(&mut self) -> Result<Value, Problem> {
        let mut value = self.operand()?;
        while self.skip('+') {
            value = value.plus(self.operand()?);
        }
        Ok(value)
    }

    fn operand(&mut self) -> Result<Value, Problem> {
        match self.next() {
            Some(Token::Text(text)) => Ok(Value::Text(text)),
            Some(Token::Mark('[')) => Ok(Value::List(self.until(']', Self::value)?)),
            Some(Token::Word(function)) if self.skip('(') => self.call(function),
            Some(Token::Word(name)) => Ok(self.names.get(&name).cloned().unwrap_or(Value::Word(name))),
            other => Err((self.line(), format!("{other:?} where a value should be"))),
        }
    }

    fn call(&mut self, function: String) -> Result<Value, Problem> {
        let arguments = self.until(')', |reader| Ok((reader.name_given(), reader.value()?)))?;
        let mut call = Call { function, positional: Vec::new(), named: BTreeMap::new() };
        for (name, value) in arguments {
            match name {
                Some(name) => drop(call.named.insert(name, value)),
                None => call.positional.push(value),
            }
        }
        Ok(Value::Call(call))
    }

    /// What `item` reads, time and again, between commas until `end`.
    fn until<T>(
        &mut self,
        end: char,
        item: impl Fn(&mut Self) -> Result<T, Problem>,
    ) -> Result<Vec<T>, Problem> {
        let mut items = Vec::new();
        while !self.skip(end) {
            items.push(item(self)?);
            if !self.skip(',') && !self.is_next(end) {
                return Err((self.line(), format!("neither `,` nor `{end}` after a value")));
            }
        }
        Ok(items)
    }

    fn next(&mut self) -> Option<Token> {
        let token = self.tokens.get(self.at)?.1.clone();
        self.at += 1;
        Some(token)
    }

    fn skip(&mut self, mark: char) -> bool {
        let is_next = self.is_next(mark);
        self.at += usize::from(is_next);
        is_next
    }

    fn is_next(&self, mark: char) -> bool {
        self.tokens.get(self.at).is_some_and(|(_, token)| *token == Token::Mark(mark))
    }

    /// The line of what was read last.
    fn line(&self) -> usize {
        self.tokens.get(self.at.saturating_sub(1)).map_or(1, |(line, _)| *line)
    }
}

#[cfg(test)]
mod tests {
    use super::{Value, calls};

    #[test]
    fn names_sums_and_globs_are_read() {
        let text = r#"
"""What it is."""

load("//tools:x.bzl", "rule")

A = ["a"]

rule(
    name = "n",  # "not this"
    data = A + ["b"] + glob(["c/*"], exclude = ["c/d"]),
    is_odd = True,
    user = 7,
)
"#;
        let calls = calls("BUILD.bazel", text).unwrap();
        assert_eq!(calls.iter().map(|call| call.function.as_str()).collect::<Vec<_>>(), ["load", "rule"]);
        assert_eq!(calls[1].text("name"), Some("n"));
        assert_eq!((calls[1].word("is_odd"), calls[1].word("user")), (Some("True"), Some("7")));
        assert_eq!(calls[1].texts("data"), ["a", "b"]);
        let Value::List(items) = &calls[1].named["data"] else { panic!("not a list") };
        let Value::Call(glob) = &items[2] else { panic!("not a call") };
        assert_eq!((glob.positional[0].texts(), glob.texts("exclude")), (vec!["c/*"], vec!["c/d"]));
    }

    #[test]
    fn what_is_not_understood_is_named_with_its_line() {
        for (text, expected) in [
            ("a(\n  {})", "BUILD:2: `{`"),
            ("a(b = \"c", "BUILD:1: a string without an end"),
            ("a(b\n  c)", "BUILD:1: neither `,` nor `)` after a value"),
            ("\na(b = )", "BUILD:2: Some(Mark(')')) where a value should be"),
            ("a(", "BUILD:1: None where a value should be"),
        ] {
            let error = calls("BUILD", text).unwrap_err().to_string();
            assert!(error.starts_with(expected), "{error}");
        }
    }
}
