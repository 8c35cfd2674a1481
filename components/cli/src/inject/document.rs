//! One document: injected, checked against what must come out, and back.

use std::collections::BTreeSet;

use serde_json::Value;

use super::{
    Options,
    graft::{self, Graft, Unsupported},
    pod, probes,
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

    let obstacle = |resource: &Resource| workload::obstacle(&bare, resource, &options.ports());
    let decisions: Vec<_> = resources.iter().map(|resource| (resource, obstacle(resource))).collect();
    let wanted = decisions.iter().filter(|(_, obstacle)| obstacle.is_none());
    let grafts: Vec<_> = wanted.filter_map(|(resource, _)| graft(resource, &bare, options)).collect();
    let change = change(text, &document, &bare, &injected, &grafts);

    let mut report = Vec::new();
    for (resource, obstacle) in &decisions {
        let at = resource.template().unwrap_or_default();
        let what = match obstacle {
            Some(reason) if injected.contains(&at) => format!("uninjected: {reason}"),
            Some(reason) => format!("skipped: {reason}"),
            None if !injected.contains(&at) => "injected".to_owned(),
            None if document.pointer(&at) == change.value.pointer(&at) => "unchanged".to_owned(),
            None => "updated".to_owned(),
        };
        report.push(format!("{resource} {what}"));
        let own = if obstacle.is_none() { warnings(resource, &bare, options) } else { Vec::new() };
        let is_changed = obstacle.is_none() || injected.contains(&at);
        let anew = change.anew.filter(|_| is_changed).map(written_anew);
        report.extend(own.into_iter().chain(anew).map(|warning| format!("warning: {resource}: {warning}")));
    }
    Ok(Outcome { text: change.text, report, has_content: !document.is_null() })
}

/// The document without what an earlier inject added, and with `grafts`. Where all that comes to nothing, its text stays
/// as it is, in whatever order its parts are written.
fn change(
    text: &str,
    document: &Value,
    bare: &Value,
    injected: &BTreeSet<String>,
    grafts: &[(String, Graft)],
) -> Changed {
    let mut wanted = bare.clone();
    apply(&mut wanted, grafts);
    if wanted == *document {
        return Changed { text: text.to_owned(), value: wanted, anew: None };
    }
    let base = strip(text, document.clone(), injected);
    if grafts.is_empty() {
        return base;
    }
    let added = add(&base.text, base.value, grafts);
    Changed { anew: base.anew.or(added.anew), ..added }
}

/// Takes what [`inject`] added out of a document again.
///
/// # Errors
/// The document is malformed.
pub fn uninject(text: &str) -> Result<Outcome, Refused> {
    let document = read(text)?;
    let has_content = !document.is_null();
    let resources = workload::resources(&document);
    let injected = injected(&document, &resources);
    let stripped = strip(text, document, &injected);
    let mut report = Vec::new();
    for resource in &resources {
        match resource.template() {
            Some(at) if injected.contains(&at) => {
                report.push(format!("{resource} uninjected"));
                let anew = stripped.anew.map(written_anew);
                report.extend(anew.map(|warning| format!("warning: {resource}: {warning}")));
            }
            Some(_) => report.push(skipped(resource, "it is not injected")),
            None => report.push(skipped(resource, "not a workload")),
        }
    }
    Ok(Outcome { text: stripped.text, report, has_content })
}

fn skipped(resource: &Resource, reason: &str) -> String {
    format!("{resource} skipped: {reason}")
}

fn written_anew(reason: &str) -> String {
    format!("written anew, since {reason}")
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

fn graft(resource: &Resource, bare: &Value, options: &Options) -> Option<(String, Graft)> {
    let at = resource.template()?;
    let graft = pod::addition(resource, resource.workload?, bare.pointer(&at)?, options).graft;
    Some((at, graft))
}

fn warnings(resource: &Resource, bare: &Value, options: &Options) -> Vec<String> {
    let template = resource.template().and_then(|at| bare.pointer(&at));
    let (Some(kind), Some(template)) = (resource.workload, template) else { return Vec::new() };
    let own = pod::addition(resource, kind, template, options).warning;
    let own = own.into_iter().chain(probes::warning(template, options));
    own.chain(workload::warnings(bare, resource)).collect()
}

/// A document that was changed.
struct Changed {
    text: String,
    value: Value,
    /// Why its text was written anew rather than changed in place, if it was.
    anew: Option<&'static str>,
}

/// Adds grafts to the document `text`, which means `value`.
fn add(text: &str, value: Value, grafts: &[(String, Graft)]) -> Changed {
    add_in_place(text, &value, grafts).unwrap_or_else(|Unsupported(reason)| {
        let mut value = value;
        apply(&mut value, grafts);
        Changed { text: rewrite::rewrite(text, &value), value, anew: Some(reason) }
    })
}

fn apply(value: &mut Value, grafts: &[(String, Graft)]) {
    for (at, graft) in grafts {
        if let Some(template) = value.pointer_mut(at) {
            graft.apply(template);
        }
    }
}

fn add_in_place(text: &str, value: &Value, grafts: &[(String, Graft)]) -> Result<Changed, Unsupported> {
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
    match value::parse(&added) {
        Ok(value) if value == expected => {}
        Ok(_) => return Err(Unsupported("what is added in place would change the meaning of other parts")),
        Err(_) => return Err(Unsupported("with what is added in place it could not be read any more")),
    }
    let templates = grafts.iter().map(|(at, _)| at.clone()).collect();
    if strip(&added, expected.clone(), &templates).text != text {
        return Err(Unsupported("it could not be restored otherwise"));
    }
    Ok(Changed { text: added, value: expected, anew: None })
}

/// The document without what was added to these pod templates.
fn strip(text: &str, value: Value, templates: &BTreeSet<String>) -> Changed {
    if templates.is_empty() {
        return Changed { text: text.to_owned(), value, anew: None };
    }
    if let Some(original) = rewrite::original(text)
        && let Ok(value) = value::parse(&original)
    {
        return Changed { text: original, value, anew: None };
    }
    let unrecorded = rewrite::without_record(text);
    let text = unrecorded.as_deref().unwrap_or(text);
    let mut expected = value.clone();
    strip_value(&mut expected, templates);
    let in_place = strip_in_place(text, &value, templates).and_then(|stripped| {
        let is_right = value::parse(&stripped).as_ref() == Ok(&expected)
            && value::is_json(&stripped) == value::is_json(text);
        is_right.then_some(stripped).ok_or(Unsupported("what is left would mean something else"))
    });
    match in_place {
        Ok(text) => Changed { text, value: expected, anew: None },
        Err(Unsupported(reason)) => {
            let text = match value::is_json(text) {
                true => format!("{expected:#}\n"),
                false => format!("{}{}", rewrite::head(text).0, emit::document(&expected)),
            };
            Changed { text, value: expected, anew: Some(reason) }
        }
    }
}

fn strip_value(value: &mut Value, templates: &BTreeSet<String>) {
    for at in templates {
        if let Some(template) = value.pointer_mut(at) {
            let replaced = replaced(template);
            pod::removal(template, &replaced).apply(template, &replaced);
        }
    }
}

fn strip_in_place(text: &str, value: &Value, templates: &BTreeSet<String>) -> Result<String, Unsupported> {
    let root = tree::parse(text).ok_or(Unsupported("its text cannot be followed"))?;
    let mut edits = Vec::new();
    for at in templates {
        let node = root.at(at).ok_or(Unsupported("an alias stands for a pod template"))?.node;
        let template = value.pointer(at).unwrap_or(&Value::Null);
        let mut replaced = replaced(template);
        let removal = pod::removal(template, &replaced);
        if value::is_json(text) {
            replaced.values_mut().for_each(as_json);
        }
        edits.extend(prune::plan(text, node, &removal, &replaced)?);
    }
    edit::apply(text, edits).ok_or(Unsupported("the removals overlap"))
}

/// A record of YAML, in the words of the JSON into which its document was converted since.
fn as_json(record: &mut String) {
    if serde_json::from_str::<Value>(record).is_err()
        && let Ok(value) = value::parse(record)
    {
        *record = format!(" {}", emit::json(&value));
    }
}

/// What inject recorded in a pod template.
fn replaced(template: &Value) -> Replaced {
    let annotations = template.pointer("/metadata/annotations");
    let record = annotations.and_then(|map| map.get(pod::ANNOTATION_REPLACED)).and_then(Value::as_str);
    record.and_then(|record| serde_json::from_str(record).ok()).unwrap_or_default()
}
