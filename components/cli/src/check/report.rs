//! What came of the checks, as a table, in short, or as JSON.

use std::fmt::Write as _;

use serde::Serialize;

use super::catalogue::{Category, Check};

/// What came of one check.
#[derive(Debug, PartialEq, Eq)]
pub struct Outcome {
    /// Which check.
    pub check: Check,
    /// How it went.
    pub grade: Grade,
    /// What is wrong, if something is.
    pub detail: Option<String>,
    /// What to do about it.
    pub hint: Option<String>,
}

/// How a check went.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Grade {
    /// All is well.
    Success,
    /// Nothing is broken yet, or it may be meant so.
    Warning,
    /// Something is broken.
    Error,
}

impl Outcome {
    /// All is well.
    pub fn ok(check: Check) -> Self {
        Self { check, grade: Grade::Success, detail: None, hint: None }
    }

    /// It did not pass.
    pub fn not(check: Check, grade: Grade, detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { check, grade, detail: Some(detail.into()), hint: Some(hint.into()) }
    }
}

/// The worst that came of them; what came of none is well.
pub fn worst(outcomes: &[Outcome]) -> Grade {
    outcomes.iter().map(|outcome| outcome.grade).max().unwrap_or(Grade::Success)
}

/// The table that users know from other meshes.
pub fn table(outcomes: &[Outcome]) -> String {
    let mut text = String::new();
    for (category, outcomes) in by_category(outcomes) {
        let heading = category.as_str();
        // Writing to a String cannot fail.
        let _ = writeln!(text, "{heading}\n{}", "-".repeat(heading.len()));
        outcomes.iter().for_each(|outcome| text.push_str(&lines(outcome)));
        text.push('\n');
    }
    let _ = writeln!(text, "Status check results are {}", sign(worst(outcomes)));
    text
}

/// Only what did not pass.
pub fn short(outcomes: &[Outcome]) -> String {
    outcomes.iter().filter(|outcome| outcome.grade != Grade::Success).map(lines).collect()
}

fn lines(outcome: &Outcome) -> String {
    let mut text = format!("{} {}\n", sign(outcome.grade), outcome.check.description);
    for line in outcome.detail.iter().chain(&outcome.hint).flat_map(|text| text.lines()) {
        let _ = writeln!(text, "    {line}");
    }
    if outcome.grade != Grade::Success {
        let _ = writeln!(text, "    see docs/CHECKS.md#{}", outcome.check.id);
    }
    text
}

const fn sign(grade: Grade) -> &'static str {
    match grade {
        Grade::Success => "√",
        Grade::Warning => "‼",
        Grade::Error => "×",
    }
}

/// In the order of the outcomes.
fn by_category(outcomes: &[Outcome]) -> Vec<(Category, Vec<&Outcome>)> {
    let mut categories: Vec<(Category, Vec<&Outcome>)> = Vec::new();
    for outcome in outcomes {
        match categories.last_mut().filter(|(category, _)| *category == outcome.check.category) {
            Some((_, outcomes)) => outcomes.push(outcome),
            None => categories.push((outcome.check.category, vec![outcome])),
        }
    }
    categories
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct Json<'a> {
    version: u32,
    success: bool,
    categories: Vec<JsonCategory<'a>>,
}

#[derive(Serialize)]
#[serde(rename_all = "camelCase")]
struct JsonCategory<'a> {
    category_name: &'a str,
    checks: Vec<JsonCheck<'a>>,
}

#[derive(Serialize)]
struct JsonCheck<'a> {
    id: &'a str,
    description: &'a str,
    result: Grade,
    #[serde(skip_serializing_if = "Option::is_none")]
    error: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    hint: Option<&'a str>,
    #[serde(skip_serializing_if = "Option::is_none")]
    docs: Option<String>,
}

impl<'a> JsonCheck<'a> {
    fn of(outcome: &'a Outcome) -> Self {
        let Outcome { check, grade, detail, hint } = outcome;
        Self {
            id: check.id,
            description: check.description,
            result: *grade,
            error: detail.as_deref(),
            hint: hint.as_deref(),
            docs: (*grade != Grade::Success).then(|| format!("docs/CHECKS.md#{}", check.id)),
        }
    }
}

/// For programs; fields of other meshes' checks have the same names.
///
/// # Errors
/// Never in practice: it is strings.
pub fn json(outcomes: &[Outcome]) -> serde_json::Result<String> {
    let categories = by_category(outcomes).into_iter().map(|(category, outcomes)| JsonCategory {
        category_name: category.as_str(),
        checks: outcomes.into_iter().map(JsonCheck::of).collect(),
    });
    let success = worst(outcomes) != Grade::Error;
    let report = Json { version: 1, success, categories: categories.collect() };
    Ok(serde_json::to_string_pretty(&report)? + "\n")
}
