//! All documents of all files: transformed, or all refused.

use std::process::ExitCode;

use anyhow::bail;

use super::document::{Outcome, Refused};
use crate::{input::Input, output, yaml::split};

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
    if several && !text.is_empty() {
        if !all.is_empty() && !all.ends_with('\n') {
            all.push('\n');
        }
        if !text.starts_with("---") {
            all.push_str("---\n");
        }
    }
    all.push_str(text);
}
