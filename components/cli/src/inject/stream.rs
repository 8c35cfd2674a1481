//! All documents of all files: transformed, or all refused.

use std::process::ExitCode;

use anyhow::bail;

use super::document::{Outcome, Refused};
use crate::{
    input::Input,
    output,
    yaml::{split, value},
};

/// What comes out.
#[derive(Debug, Default)]
pub struct Output {
    /// For stdout.
    pub text: String,
    /// For stderr, a line each.
    pub report: Vec<String>,
}

impl Output {
    /// Prints it.
    ///
    /// # Errors
    /// Stdout cannot be written.
    pub fn print(self) -> anyhow::Result<ExitCode> {
        output::stdout(&self.text)?;
        if self.report.is_empty() {
            output::note("note: there is no Kubernetes object in it");
        }
        self.report.iter().for_each(|line| output::note(line));
        Ok(ExitCode::SUCCESS)
    }
}

/// Transforms every document.
///
/// # Errors
/// Every document that is malformed, with its file, its number among the documents that have content, its line and the
/// cause.
pub fn transform(
    inputs: &[Input],
    mut transform: impl FnMut(&str) -> Result<Outcome, Refused>,
) -> anyhow::Result<Output> {
    let (mut output, mut refused) = (Output::default(), Vec::new());
    for input in inputs {
        let mut text = String::new();
        let mut number = 1;
        for document in split::split(&input.text) {
            match transform(document.text) {
                Ok(outcome) => {
                    number += usize::from(outcome.has_content);
                    text.push_str(&outcome.text);
                    output.report.extend(outcome.report);
                }
                Err(error) => {
                    let line = document.line + error.line - 1;
                    refused.push(format!("{}: document {number}, line {line}: {}", input.name, error.cause));
                    number += 1;
                }
            }
        }
        join(&mut output.text, &text, inputs.len() > 1);
    }
    if refused.is_empty() { Ok(output) } else { bail!("{}", refused.join("\nerror: ")) }
}

/// Adds the documents of one file. A single file stays as it is; several are set apart, and readers told at once that
/// this is YAML, even if it begins with a JSON object.
fn join(all: &mut String, text: &str, several: bool) {
    if !several {
        all.push_str(text);
        return;
    }
    // It marks the beginning of a file, and many readers take it for content anywhere else.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    if text.is_empty() {
        return;
    }
    if !all.is_empty() && !all.ends_with('\n') {
        *all = finished(all);
    }
    if has_directives(text) {
        // Directives may follow the explicit end of a document only; in front of all others they need nothing.
        all.push_str(if all.is_empty() { "" } else { "...\n" });
    } else if !text.starts_with("---") {
        all.push_str("---\n");
    }
    all.push_str(text);
}

fn has_directives(text: &str) -> bool {
    let mut lines = text.lines().skip_while(|line| line.trim().is_empty() || line.starts_with('#'));
    lines.next().is_some_and(|line| line.starts_with('%'))
}

/// How many block scalars from the end are tried: the last one in sight is the one, unless others look like it.
const TRIES: usize = 16;

/// A text with the newline that it lacks. A block scalar that ended with the file has no newline at its end, and must be
/// told so when one follows.
fn finished(text: &str) -> String {
    let plain = format!("{text}\n");
    let start = split::split(text).last().map_or(0, |last| text.len() - last.text.len());
    let meant = value::parse(&text[start..]);
    let means_the_same = |text: &String| value::parse(&text[start..]) == meant;
    if means_the_same(&plain) {
        return plain;
    }
    let headers = text[start..].rmatch_indices(['|', '>']).take(TRIES);
    let mut stripped = headers.map(|(at, _)| without_final_newline(&plain, start + at + 1));
    stripped.find(means_the_same).unwrap_or(plain)
}

/// The text with the block scalar stripped whose header goes on at `at`, behind its `|` or `>`.
fn without_final_newline(text: &str, at: usize) -> String {
    let (before, after) = text.split_at(at);
    let rest = after.trim_start_matches(['+', '-', '1', '2', '3', '4', '5', '6', '7', '8', '9']);
    let indentation: String =
        after[..after.len() - rest.len()].chars().filter(char::is_ascii_digit).collect();
    format!("{before}{indentation}-{rest}")
}
