//! Adding to an object, twice: to its value, which says what must come out, and to its text, where nothing but the
//! additions changes.
//!
//! Block collections get whole lines, flow collections get members. What exists but is empty, null, or an alias of
//! something shared cannot be added to: it is replaced, and what it was is handed back, for the injector to record.

use std::mem;

use serde_json::{Map, Value};

use super::swap::Swap;
use crate::yaml::{
    edit::Edit,
    emit::{self, Style},
    place,
    tree::{Content, Entry, Node, Part},
};

/// What to add at some place of an object.
#[derive(Debug, Clone)]
pub enum Graft {
    /// This value, whatever there is.
    Set(Value),
    /// These entries of a mapping, which is made if there is none.
    Merge(Vec<(String, Graft)>),
    /// These items of a sequence, which is made if there is none.
    Splice {
        /// Before the items there are.
        first: Vec<Value>,
        /// After them.
        last: Vec<Value>,
        /// In them.
        swaps: Vec<Swap>,
    },
}

impl Graft {
    /// Adds to a value.
    pub fn apply(&self, value: &mut Value) {
        match self {
            Self::Set(new) => *value = new.clone(),
            Self::Merge(grafts) => {
                let mut map = mem::take(value.as_object_mut().unwrap_or(&mut Map::new()));
                for (key, graft) in grafts {
                    graft.apply(map.entry(key.clone()).or_insert(Value::Null));
                }
                *value = Value::Object(map);
            }
            Self::Splice { first, last, swaps } => {
                let mut items = mem::take(value.as_array_mut().unwrap_or(&mut Vec::new()));
                swaps.iter().for_each(|swap| swap.apply(&mut items));
                *value = Value::Array([first.clone(), items, last.clone()].concat());
            }
        }
    }

    /// What is made where there is nothing.
    fn value(&self) -> Value {
        let mut value = Value::Null;
        self.apply(&mut value);
        value
    }
}

/// The change of a text.
#[derive(Debug, Default)]
pub struct Plan {
    /// What to do.
    pub edits: Vec<Edit>,
    /// What had to be replaced: its place as a JSON pointer, and the text from its key's colon on.
    pub replaced: Vec<(String, String)>,
}

/// The text has a shape to which nothing can be added in place.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("{0}")]
pub struct Unsupported(pub &'static str);

/// Plans adding `graft` to `part` of `text`.
///
/// # Errors
/// The text must be written anew.
pub fn plan(text: &str, part: Part<'_>, graft: &Graft, style: Style) -> Result<Plan, Unsupported> {
    let mut planner = Planner { text, style, plan: Plan::default() };
    match (graft, &part.node.content) {
        (_, Content::Alias) => return Err(Unsupported("an alias stands for a pod template")),
        (Graft::Merge(grafts), _) => planner.merge(part.header, part.node, grafts, "")?,
        _ => return Err(Unsupported("only a mapping can be added to")),
    }
    Ok(planner.plan)
}

struct Planner<'t> {
    text: &'t str,
    style: Style,
    plan: Plan,
}

impl Planner<'_> {
    /// Adds entries to a mapping that has some; `header` is the entry whose value it is.
    fn merge(
        &mut self,
        header: Option<&Entry>,
        mapping: &Node,
        grafts: &[(String, Graft)],
        at: &str,
    ) -> Result<(), Unsupported> {
        let mut new = Map::new();
        for (key, graft) in grafts {
            match mapping.entry(key) {
                Some(entry) => self.graft(mapping, entry, graft, &pointer(at, key))?,
                None => drop(new.insert(key.clone(), graft.value())),
            }
        }
        if new.is_empty() {
            return Ok(());
        }
        if mapping.is_flow() {
            self.add_members(mapping, &new)
        } else {
            self.add_entries(header, mapping, &new)
        }
    }

    fn graft(&mut self, parent: &Node, entry: &Entry, graft: &Graft, at: &str) -> Result<(), Unsupported> {
        let value = &entry.value;
        match (graft, &value.content) {
            (Graft::Set(_), Content::Scalar { .. }) => self.replace(parent, entry, graft, at),
            _ if value.is_empty() => self.replace(parent, entry, graft, at),
            (Graft::Merge(_), Content::Alias) => self.replace(parent, entry, graft, at),
            (Graft::Merge(grafts), Content::Mapping { .. }) => self.merge(Some(entry), value, grafts, at),
            (Graft::Splice { first, last, swaps }, Content::Sequence { flow, items }) => {
                self.swap(items, swaps, at)?;
                match flow {
                    true => self.splice_flow(items, first, last),
                    false => self.splice_block(entry, items, first, last),
                }
            }
            (_, Content::Alias) => Err(Unsupported("an alias stands for a list or a scalar")),
            _ => Err(Unsupported("something is not of its usual type")),
        }
    }

    /// New entries of a mapping in braces go before its first one.
    fn add_members(&mut self, mapping: &Node, new: &Map<String, Value>) -> Result<(), Unsupported> {
        let first = mapping.entries().first().ok_or(Unsupported("a mapping is empty"))?.key.start;
        let gap = self.gap(first);
        let members =
            new.iter().map(|(key, value)| format!("{},{gap}", self.member(key, value, gap))).collect();
        self.plan.edits.push(Edit::insert(first, members));
        Ok(())
    }

    /// New entries of a block mapping go below the line of its key, above whatever comments its first entry has.
    fn add_entries(
        &mut self,
        header: Option<&Entry>,
        mapping: &Node,
        new: &Map<String, Value>,
    ) -> Result<(), Unsupported> {
        let header = header.ok_or(Unsupported("the object itself lacks a part"))?;
        let at = self.below(header, mapping)?;
        let column = mapping.entries().iter().find_map(|entry| place::own_column(self.text, entry.key.start));
        let column = column.ok_or(Unsupported("no entry of a mapping begins its line"))?;
        let style = self.style_at(header);
        self.insert_lines(at, &emit::entries(new, column, style), style);
        Ok(())
    }

    /// Puts the additions in the place of a value that cannot hold them.
    fn replace(&mut self, parent: &Node, entry: &Entry, graft: &Graft, at: &str) -> Result<(), Unsupported> {
        let value = &entry.value;
        if value.anchored {
            return Err(Unsupported("what must be replaced has an anchor"));
        }
        let range = place::value_range(self.text, entry).ok_or(Unsupported("a key has no colon"))?;
        let merged = matches!(value.content, Content::Alias).then(|| &self.text[value.span.clone()]);
        let new = graft.value();
        self.plan.replaced.push((at.to_owned(), self.text[range.clone()].to_owned()));
        if parent.is_flow() || matches!(graft, Graft::Set(_)) {
            let gap = if parent.is_flow() { self.gap(parent.entries()[0].key.start) } else { " " };
            let text = if parent.is_flow() { self.flow(&new, merged, gap) } else { emit::inline(&new) };
            self.plan.edits.push(Edit { range, text: format!(" {text}") });
            return Ok(());
        }
        let column = place::own_column(self.text, entry.key.start);
        let column = column.ok_or(Unsupported("a key does not begin its line"))?;
        let style = self.style_at(entry);
        let lines = match &new {
            Value::Object(map) => {
                let column = column + style.step;
                let merge = merged.map(|alias| format!("{:column$}<<: {alias}{}", "", style.newline));
                emit::entries(map, column, style) + &merge.unwrap_or_default()
            }
            Value::Array(items) => emit::items(items, column + style.dash, style),
            _ => return Err(Unsupported("something is not of its usual type")),
        };
        let end = place::last_line_end(self.text, range.end);
        self.plan.edits.push(Edit::remove(range));
        self.insert_lines(end, &lines, style);
        Ok(())
    }

    fn splice_flow(&mut self, items: &[Node], first: &[Value], last: &[Value]) -> Result<(), Unsupported> {
        let (Some(head), Some(tail)) = (items.first(), items.last()) else {
            return Err(Unsupported("a list is empty"));
        };
        let gap = self.gap(head.start);
        let before: String =
            first.iter().map(|value| format!("{},{gap}", self.in_flow(value, gap))).collect();
        let after: String = last.iter().map(|value| format!(",{gap}{}", self.in_flow(value, gap))).collect();
        self.plan.edits.push(Edit::insert(head.start, before));
        self.plan.edits.push(Edit::insert(tail.span.end, after));
        Ok(())
    }

    fn splice_block(
        &mut self,
        header: &Entry,
        items: &[Node],
        first: &[Value],
        last: &[Value],
    ) -> Result<(), Unsupported> {
        let (Some(head), Some(tail)) = (items.first(), items.last()) else {
            return Err(Unsupported("a list is empty"));
        };
        let below = place::line_end(self.text, header.key.span.end);
        let dash = place::dash(self.text, below, head).ok_or(Unsupported("a list shares a line"))?;
        let column = place::own_column(self.text, dash).ok_or(Unsupported("a list is indented by tabs"))?;
        let style = self.style_at(header);
        if !first.is_empty() {
            self.insert_lines(below, &emit::items(first, column, style), style);
        }
        if !last.is_empty() {
            let end = place::last_line_end(self.text, tail.span.end);
            let at = place::past_comments(self.text, end, column);
            self.insert_lines(at, &emit::items(last, column, style), style);
        }
        Ok(())
    }

    /// Where the lines below a key begin, if its value does not begin on the key's own line.
    fn below(&self, header: &Entry, value: &Node) -> Result<usize, Unsupported> {
        let at = place::line_end(self.text, header.key.span.end);
        let first = value.entries().first().map_or(value.start, |entry| entry.key.start);
        if first < at { Err(Unsupported("a mapping begins on the line of its key")) } else { Ok(at) }
    }

    fn style_at(&self, entry: &Entry) -> Style {
        Style { newline: place::newline(self.text, entry.key.start), ..self.style }
    }

    fn insert_lines(&mut self, at: usize, lines: &str, style: Style) {
        self.plan.edits.push(place::insert_lines(self.text, at, lines, style.newline));
    }

    fn swap(&mut self, items: &[Node], swaps: &[Swap], at: &str) -> Result<(), Unsupported> {
        for swap in swaps {
            if let Some(swapped) = swap.plan(self.text, items, self.style)? {
                self.plan.edits.push(swapped.edit);
                self.plan.replaced.push((format!("{at}{}", swapped.at), swapped.old));
            }
        }
        Ok(())
    }

    fn gap(&self, first: usize) -> &str {
        gap(self.text, first)
    }

    fn member(&self, key: &str, value: &Value, gap: &str) -> String {
        format!("{}: {}", Value::from(key), self.in_flow(value, gap))
    }

    fn in_flow(&self, value: &Value, gap: &str) -> String {
        in_flow(value, gap, self.style.step)
    }

    fn flow(&self, value: &Value, merged: Option<&str>, gap: &str) -> String {
        match (value, merged) {
            (Value::Object(map), Some(alias)) => {
                let members = map.iter().map(|(key, value)| format!("{}, ", self.member(key, value, " ")));
                format!("{{{}<<: {alias}}}", members.collect::<String>())
            }
            _ => self.in_flow(value, gap),
        }
    }
}

/// The blanks before the first member of a flow collection; members are set apart by the same.
pub(super) fn gap(text: &str, first: usize) -> &str {
    let before = &text[..first];
    let gap = &before[before.trim_end_matches([' ', '\t', '\r', '\n']).len()..];
    if gap.is_empty() { " " } else { gap }
}

/// A value as a member of a flow collection whose members are set apart by `gap`; its own are indented by `step` more.
pub(super) fn in_flow(value: &Value, gap: &str, step: usize) -> String {
    let Some((before, indent)) = gap.rsplit_once('\n') else { return emit::json(value) };
    let newline = if before.ends_with('\r') { "\r\n" } else { "\n" };
    let unit = if indent.contains('\t') { "\t".to_owned() } else { " ".repeat(step) };
    emit::pretty_json(value, &unit).replace('\n', &format!("{newline}{indent}"))
}

/// The style of a pod template, or of a pod: that of its containers.
pub fn style(text: &str, node: &Node) -> Style {
    let column = |at| place::own_column(text, at);
    let found = Style::default();
    let Some((spec, containers)) =
        node.entry("spec").and_then(|spec| Some((spec, spec.value.entry("containers")?)))
    else {
        return found;
    };
    let key = column(containers.key.start);
    let step = || key?.checked_sub(column(spec.key.start)?).filter(|step| *step > 0);
    let dash = || {
        let below = place::line_end(text, containers.key.span.end);
        let dash = place::dash(text, below, containers.value.items().first()?)?;
        column(dash)?.checked_sub(key?)
    };
    Style { step: step().unwrap_or(found.step), dash: dash().unwrap_or(found.dash), ..found }
}

/// The JSON pointer (RFC 6901) of `key` below `at`.
pub fn pointer(at: &str, key: &str) -> String {
    format!("{at}/{}", key.replace('~', "~0").replace('/', "~1"))
}
