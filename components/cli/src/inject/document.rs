//! One document: injected, checked against what must come out, and back.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Options,
    graft::{self, Graft, Unsupported},
    pod,
    prune::{self, Replaced},
    rewrite,
    workload::{self, Resource},
};
use crate::yaml::{edit, emit, tree, value};

/// What became of a document.
#[derive(Debug)]
pub struct Outcome {
    /// Its text.
    pub text: String,
    /// What to say about it, a line each.
    pub report: Vec<String>,
    /// Whether there is anything in it besides comments.
    pub has_content: bool,
}

/// Why a document is refused.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {cause}")]
pub struct Refused {
    /// The line within the document, from 1.
    pub line: usize,
    /// What is wrong, and what to do where that is known.
    pub cause: String,
}

/// Adds the proxy to the pods of a document; to those that have one already, anew.
///
/// # Errors
/// The document is malformed.
pub fn inject(text: &str, options: &Options) -> Result<Outcome, Refused> {
    let document = read(text)?;
    let resources = workload::resources(&document);
    let injected = injected(&document, &resources);
    let mut bare = document.clone();
    strip_value(&mut bare, &injected);

    let obstacles: Vec<_> =
        resources.iter().map(|resource| workload::obstacle(&bare, resource, &options.ports())).collect();
    let wanted = resources.iter().zip(&obstacles).filter(|(_, obstacle)| obstacle.is_none());
    let grafts: Vec<_> = wanted.filter_map(|(resource, _)| graft(resource, options)).collect();
    let again = grafts.iter().map(|(at, _)| at.clone()).filter(|at| injected.contains(at)).collect();
    let (base, base_value) = strip(text, document.clone(), &again);
    let (added, anew) =
        if grafts.is_empty() { (text.to_owned(), None) } else { add(&base, base_value, &grafts) };

    let after = value::parse(&added).unwrap_or_default();
    let mut report = Vec::new();
    for (resource, obstacle) in resources.iter().zip(obstacles) {
        let at = resource.template().unwrap_or_default();
        let what = match obstacle {
            Some(reason) => format!("skipped: {reason}"),
            None if !injected.contains(&at) => "injected".to_owned(),
            None if document.pointer(&at) == after.pointer(&at) => "unchanged".to_owned(),
            None => "updated".to_owned(),
        };
        let is_done = !what.starts_with("skipped");
        report.push(format!("{resource} {what}"));
        if is_done {
            let anew =
                anew.map(|reason| format!("written anew, since {reason}; uninject gives the original back"));
            let warnings = warnings(resource, bare.pointer(&at), options).into_iter().chain(anew);
            report.extend(warnings.map(|warning| format!("warning: {resource}: {warning}")));
        }
    }
    Ok(Outcome { text: added, report, has_content: !document.is_null() })
}

/// Takes what [`inject`] added out of a document again.
///
/// # Errors
/// The document is malformed.
pub fn uninject(text: &str) -> Result<Outcome, Refused> {
    let document = read(text)?;
    let resources = workload::resources(&document);
    let injected = injected(&document, &resources);
    let what = |resource: &Resource| match resource.template() {
        Some(at) if injected.contains(&at) => "uninjected",
        Some(_) => "skipped: it is not injected",
        None => "skipped: not a workload",
    };
    let report = resources.iter().map(|resource| format!("{resource} {}", what(resource))).collect();
    let has_content = !document.is_null();
    Ok(Outcome { text: strip(text, document, &injected).0, report, has_content })
}

fn read(text: &str) -> Result<Value, Refused> {
    value::parse(text).map_err(|error| {
        let line = text.lines().nth(error.line - 1).unwrap_or_default();
        let is_template = line.contains("{{");
        let hint = " (this looks like a template: render it first, with helm template for instance)";
        Refused { line: error.line, cause: format!("{}{}", error.cause, if is_template { hint } else { "" }) }
    })
}

/// Where the pod templates are that have Conduit's containers.
fn injected(document: &Value, resources: &[Resource]) -> BTreeSet<String> {
    let templates = resources.iter().filter_map(Resource::template);
    templates.filter(|at| document.pointer(at).is_some_and(workload::is_injected)).collect()
}

fn graft(resource: &Resource, options: &Options) -> Option<(String, Graft)> {
    let graft = pod::addition(resource, resource.workload?, options).graft;
    Some((resource.template()?, graft))
}

fn warnings(resource: &Resource, template: Option<&Value>, options: &Options) -> Vec<String> {
    let (Some(kind), Some(template)) = (resource.workload, template) else { return Vec::new() };
    let own = pod::addition(resource, kind, options).warning;
    own.into_iter().chain(workload::warnings(template, kind, options.flags.native_sidecar)).collect()
}

/// Adds grafts to the document `text`, which means `value`; in place, or, for a reason that is told, by writing it anew.
fn add(text: &str, value: Value, grafts: &[(String, Graft)]) -> (String, Option<&'static str>) {
    match add_in_place(text, &value, grafts) {
        Ok(added) => (added, None),
        Err(Unsupported(reason)) => {
            let mut expected = value;
            apply(&mut expected, grafts);
            (rewrite::rewrite(text, &expected), Some(reason))
        }
    }
}

fn apply(value: &mut Value, grafts: &[(String, Graft)]) {
    for (at, graft) in grafts {
        if let Some(template) = value.pointer_mut(at) {
            graft.apply(template);
        }
    }
}

fn add_in_place(text: &str, value: &Value, grafts: &[(String, Graft)]) -> Result<String, Unsupported> {
    let root = tree::parse(text).ok_or(Unsupported("its text cannot be followed"))?;
    let mut edits = Vec::new();
    let mut recorded = Vec::new();
    for (at, graft) in grafts {
        let template = root.at(at).ok_or(Unsupported("an alias stands for a pod template"))?;
        let style = graft::style(text, template.node);
        let mut graft = graft.clone();
        let mut plan = graft::plan(text, template, &graft, style)?;
        if !plan.replaced.is_empty() {
            graft = pod::with_record(graft, &plan.replaced);
            plan = graft::plan(text, template, &graft, style)?;
        }
        edits.extend(plan.edits);
        recorded.push((at.clone(), graft));
    }
    let added = edit::apply(text, edits).ok_or(Unsupported("the additions overlap"))?;
    let mut expected = value.clone();
    apply(&mut expected, &recorded);
    if value::parse(&added).as_ref() != Ok(&expected) {
        return Err(Unsupported("what is added in place would change the meaning of other parts"));
    }
    let templates = grafts.iter().map(|(at, _)| at.clone()).collect();
    let (back, _) = strip(&added, expected, &templates);
    if back == text { Ok(added) } else { Err(Unsupported("it could not be restored otherwise")) }
}

/// The document without what was added to these pod templates, and what it then means.
fn strip(text: &str, value: Value, templates: &BTreeSet<String>) -> (String, Value) {
    if templates.is_empty() {
        return (text.to_owned(), value);
    }
    if let Some(original) = rewrite::original(text)
        && let Ok(value) = value::parse(&original)
    {
        return (original, value);
    }
    let unrecorded = rewrite::without_record(text);
    let text = unrecorded.as_deref().unwrap_or(text);
    let mut expected = value.clone();
    strip_value(&mut expected, templates);
    let stripped = strip_in_place(text, &value, templates)
        .ok()
        .filter(|stripped| value::parse(stripped).as_ref() == Ok(&expected));
    // What somebody changed after injection, in a way that shares lines with it, is written anew.
    let stripped = stripped.unwrap_or_else(|| match value::is_json(text) {
        true => format!("{expected:#}\n"),
        false => format!("{}{}", rewrite::head(text).0, emit::document(&expected)),
    });
    (stripped, expected)
}

fn strip_value(value: &mut Value, templates: &BTreeSet<String>) {
    for at in templates {
        if let Some(template) = value.pointer_mut(at) {
            let replaced = replaced(template);
            pod::removal().apply(template, &replaced);
        }
    }
}

fn strip_in_place(text: &str, value: &Value, templates: &BTreeSet<String>) -> Result<String, Unsupported> {
    let root = tree::parse(text).ok_or(Unsupported("its text cannot be followed"))?;
    let mut edits = Vec::new();
    for at in templates {
        let template = root.at(at).ok_or(Unsupported("an alias stands for a pod template"))?.node;
        let replaced = value.pointer(at).map(replaced).unwrap_or_default();
        edits.extend(prune::plan(text, template, &pod::removal(), &replaced)?);
    }
    edit::apply(text, edits).ok_or(Unsupported("the removals overlap"))
}

/// What inject recorded in a pod template.
fn replaced(template: &Value) -> Replaced {
    let annotations = template.pointer("/metadata/annotations");
    let record = annotations.and_then(|map| map.get(pod::ANNOTATION_REPLACED)).and_then(Value::as_str);
    record.and_then(|record| serde_json::from_str(record).ok()).unwrap_or_default()
}
