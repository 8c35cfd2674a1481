//! Taking away what was grafted: from the value of an object, which says what must come out, and from its text, where
//! everything else stays as it is.

use std::{collections::BTreeMap, ops::Range};

use serde_json::Value;

use super::{
    graft::{Unsupported, pointer},
    swap::Swap,
};
use crate::yaml::{
    edit::Edit,
    emit::Style,
    place,
    tree::{Content, Entry, Node},
    value,
};

/// What to take away at some place of an object.
#[derive(Debug, Clone)]
pub enum Prune {
    /// All of it.
    Whole,
    /// From the entries of a mapping whose keys match, and the mapping itself if nothing else is in it.
    Entries(Vec<(Pattern, Prune)>),
    /// The items of a sequence that have one of these names, and the sequence itself if nothing else is in it. In what
    /// stays, entries are swapped.
    Named(Vec<&'static str>, Vec<Swap>),
}

/// Which keys are meant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Pattern {
    /// This one.
    Key(&'static str),
    /// Those that start with this.
    Prefix(&'static str),
}

/// What grafting had replaced, by JSON pointer: the text from the key's colon on.
pub type Replaced = BTreeMap<String, String>;

impl Pattern {
    fn matches(self, key: &str) -> bool {
        match self {
            Self::Key(exact) => key == exact,
            Self::Prefix(prefix) => key.starts_with(prefix),
        }
    }
}

impl Prune {
    /// Takes away from a value.
    pub fn apply(&self, value: &mut Value, replaced: &Replaced) {
        self.apply_at(value, replaced, "");
    }

    /// Whether nothing is left. What had been replaced is put back; of an alias what it stood for is there anyway.
    fn apply_at(&self, value: &mut Value, replaced: &Replaced, at: &str) -> bool {
        let gone = match (self, &mut *value) {
            (Self::Whole, _) => true,
            (Self::Entries(prunes), Value::Object(map)) => {
                let mut pruned = false;
                map.retain(|key, value| {
                    let gone = find(prunes, key)
                        .is_some_and(|prune| prune.apply_at(value, replaced, &pointer(at, key)));
                    pruned |= gone;
                    !gone
                });
                pruned && map.is_empty()
            }
            (Self::Named(names, swaps), Value::Array(items)) => {
                let before = items.len();
                items.retain(|item| !is_named(item, names));
                swaps.iter().for_each(|swap| swap.apply(items));
                items.len() < before && items.is_empty()
            }
            _ => false,
        };
        match replaced.get(at) {
            Some(text) if gone => {
                // An alias of an empty mapping cannot be read alone; what is there means the same.
                if !text.trim_start().starts_with('*')
                    && let Ok(old) = value::parse(text)
                {
                    *value = old;
                }
                false
            }
            _ => gone,
        }
    }
}

fn find<'p>(prunes: &'p [(Pattern, Prune)], key: &str) -> Option<&'p Prune> {
    prunes.iter().find(|(pattern, _)| pattern.matches(key)).map(|(_, prune)| prune)
}

fn is_named(item: &Value, names: &[&str]) -> bool {
    item.get("name").and_then(Value::as_str).is_some_and(|name| names.contains(&name))
}

/// Plans taking `prune` away from `node`, a part of `text`.
///
/// # Errors
/// The text must be written anew.
pub fn plan(text: &str, node: &Node, prune: &Prune, replaced: &Replaced) -> Result<Vec<Edit>, Unsupported> {
    match (Planner { text, replaced }).node(node, prune, "")? {
        Outcome::Edits(edits) => Ok(edits),
        Outcome::Gone => Err(Unsupported("nothing would be left")),
    }
}

struct Planner<'t> {
    text: &'t str,
    replaced: &'t Replaced,
}

/// What becomes of a node.
enum Outcome {
    /// These edits, which may be none.
    Edits(Vec<Edit>),
    /// Nothing of it is left; whoever holds it takes it away.
    Gone,
}

impl Planner<'_> {
    fn node(&self, node: &Node, prune: &Prune, at: &str) -> Result<Outcome, Unsupported> {
        match (prune, &node.content) {
            (Prune::Whole, _) => Ok(Outcome::Gone),
            (Prune::Entries(prunes), Content::Mapping { entries, .. }) => {
                self.entries(node, entries, prunes, at)
            }
            (Prune::Named(names, swaps), Content::Sequence { items, .. }) => {
                self.items(node, items, names, swaps)
            }
            (_, Content::Alias) => Err(Unsupported("something is an alias")),
            _ => Ok(Outcome::Edits(Vec::new())),
        }
    }

    fn entries(
        &self,
        mapping: &Node,
        entries: &[Entry],
        prunes: &[(Pattern, Prune)],
        at: &str,
    ) -> Result<Outcome, Unsupported> {
        let (mut edits, mut gone) = (Vec::new(), Vec::new());
        for entry in entries {
            let outcome = self.entry(mapping, entry, prunes, at)?;
            gone.push(matches!(outcome, Outcome::Gone));
            if let Outcome::Edits(more) = outcome {
                edits.extend(more);
            }
        }
        if all_gone(&gone) {
            return Ok(Outcome::Gone);
        }
        let members: Vec<_> = entries.iter().map(|entry| (entry.key.start, entry.end())).collect();
        if mapping.is_flow() {
            edits.extend(without_members(&members, &gone));
        } else {
            let gone = members.iter().zip(&gone).filter(|(_, gone)| **gone);
            let lines = gone.map(|((start, end), _)| self.lines(*start, *end)).collect::<Result<_, _>>()?;
            edits.extend(self.without_lines(lines));
        }
        Ok(Outcome::Edits(edits))
    }

    fn entry(
        &self,
        mapping: &Node,
        entry: &Entry,
        prunes: &[(Pattern, Prune)],
        at: &str,
    ) -> Result<Outcome, Unsupported> {
        if self.is_merged_alias(entry, at) {
            return Ok(Outcome::Gone);
        }
        let Some((key, prune)) = entry.key_text().and_then(|key| Some((key, find(prunes, key)?))) else {
            return Ok(Outcome::Edits(Vec::new()));
        };
        let at = pointer(at, key);
        let outcome = self.node(&entry.value, prune, &at)?;
        match (outcome, self.replaced.get(&at)) {
            (Outcome::Gone, Some(old)) => Ok(Outcome::Edits(self.put_back(mapping, entry, old)?)),
            (outcome, _) => Ok(outcome),
        }
    }

    /// Whether this entry is what grafting made of the alias that stood for the whole mapping.
    fn is_merged_alias(&self, entry: &Entry, at: &str) -> bool {
        let alias =
            matches!(entry.value.content, Content::Alias).then(|| &self.text[entry.value.span.clone()]);
        let replaced = self.replaced.get(at).map(|old| old.trim());
        entry.key_text() == Some("<<") && alias.is_some() && alias == replaced
    }

    fn put_back(&self, mapping: &Node, entry: &Entry, old: &str) -> Result<Vec<Edit>, Unsupported> {
        let range = place::value_range(self.text, entry).ok_or(Unsupported("a key has no colon"))?;
        let in_lines = !mapping.is_flow()
            && !entry.value.is_flow()
            && !matches!(entry.value.content, Content::Scalar { .. });
        if !in_lines {
            return Ok(vec![Edit { range, text: old.to_owned() }]);
        }
        let lines = place::line_end(self.text, range.start)..place::last_line_end(self.text, range.end);
        Ok(vec![Edit::insert(range.start, old.to_owned()), place::remove_lines(self.text, lines)])
    }

    fn items(
        &self,
        sequence: &Node,
        items: &[Node],
        names: &[&str],
        swaps: &[Swap],
    ) -> Result<Outcome, Unsupported> {
        let gone: Vec<_> = items.iter().map(|item| has_name(item, names)).collect();
        if all_gone(&gone) {
            return Ok(Outcome::Gone);
        }
        let mut edits = Vec::new();
        for swap in swaps {
            edits.extend(swap.plan(self.text, items, Style::default())?.map(|swapped| swapped.edit));
        }
        let members: Vec<_> = items.iter().map(|item| (item.start, item.span.end)).collect();
        if sequence.is_flow() {
            edits.extend(without_members(&members, &gone));
            return Ok(Outcome::Edits(edits));
        }
        let mut lines = Vec::new();
        for (item, _) in items.iter().zip(&gone).filter(|(_, gone)| **gone) {
            let dash = place::dash(self.text, 0, item).ok_or(Unsupported("a list has no dash"))?;
            lines.push(self.lines(dash, item.span.end)?);
        }
        edits.extend(self.without_lines(lines));
        Ok(Outcome::Edits(edits))
    }

    /// The lines of something that begins at `start`.
    fn lines(&self, start: usize, end: usize) -> Result<Range<usize>, Unsupported> {
        place::own_column(self.text, start)
            .ok_or(Unsupported("what must go shares a line with what stays"))?;
        Ok(place::line_start(self.text, start)..place::last_line_end(self.text, end))
    }

    /// Takes lines away, in one go where they touch.
    fn without_lines(&self, lines: Vec<Range<usize>>) -> Vec<Edit> {
        let mut runs: Vec<Range<usize>> = Vec::new();
        for range in lines {
            match runs.last_mut() {
                Some(run) if run.end == range.start => run.end = range.end,
                _ => runs.push(range),
            }
        }
        runs.into_iter().map(|run| place::remove_lines(self.text, run)).collect()
    }
}

fn has_name(item: &Node, names: &[&str]) -> bool {
    match item.entry("name").map(|entry| &entry.value.content) {
        Some(Content::Scalar { text, .. }) => names.contains(&text.as_str()),
        _ => false,
    }
}

fn all_gone(gone: &[bool]) -> bool {
    !gone.is_empty() && gone.iter().all(|gone| *gone)
}

/// Takes members of a flow collection away, each with the comma that set it apart. Some must stay.
fn without_members(members: &[(usize, usize)], gone: &[bool]) -> Vec<Edit> {
    let mut edits = Vec::new();
    let mut index = 0;
    while index < members.len() {
        let run = gone[index..].iter().take_while(|gone| **gone).count();
        match (index.checked_sub(1), members.get(index + run)) {
            _ if run == 0 => index += 1,
            (_, Some(next)) => edits.push(Edit::remove(members[index].0..next.0)),
            (Some(before), None) => edits.push(Edit::remove(members[before].1..members[index + run - 1].1)),
            (None, None) => {}
        }
        index += run;
    }
    edits
}
