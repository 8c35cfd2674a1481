//! One entry of a mapping in the place of another, within an item of a list: where inject must replace rather than add.
//! It is the same both ways, but that what is put back is put back as it was written.

use serde_json::{Map, Value};

use super::graft::{Unsupported, gap, in_flow, pointer};
use crate::yaml::{
    edit::Edit,
    emit::{self, Style},
    place,
    tree::{Content, Node},
    value,
};

/// What stands in the place of what.
#[derive(Debug, Clone)]
pub struct Swap {
    /// The name of the item.
    pub item: String,
    /// The key in it whose mapping has the entry.
    pub within: &'static str,
    /// The key that goes.
    pub from: &'static str,
    /// The key that comes.
    pub to: &'static str,
    /// Its value.
    pub value: Value,
    /// How the new entry was written once, if it was.
    pub text: Option<String>,
}

/// A swap in a text.
pub(super) struct Swapped {
    pub(super) edit: Edit,
    /// Where the new entry is, below the list.
    pub(super) at: String,
    /// The entry that went.
    pub(super) old: String,
}

impl Swap {
    /// Swaps in the items of a list.
    pub(super) fn apply(&self, items: &mut [Value]) {
        let mine = items.iter_mut().filter(|item| name(item) == Some(&self.item));
        for item in mine {
            if let Some(Value::Object(map)) = item.get_mut(self.within)
                && map.contains_key(self.from)
            {
                *map = std::mem::take(map).into_iter().map(|entry| self.entry(entry)).collect();
            }
        }
    }

    fn entry(&self, (key, value): (String, Value)) -> (String, Value) {
        if key == self.from { (self.to.to_owned(), self.value.clone()) } else { (key, value) }
    }

    /// Plans it in the text of a list. None where an alias stands for the mapping: what it stands for is changed where it is
    /// written, and whether that is right shows in the end.
    ///
    /// # Errors
    /// The text must be written anew.
    pub(super) fn plan(
        &self,
        text: &str,
        items: &[Node],
        style: Style,
    ) -> Result<Option<Swapped>, Unsupported> {
        let is_mine = |item: &&Node| matches!(item.entry("name").map(|entry| &entry.value.content), Some(Content::Scalar { text, .. }) if *text == self.item);
        let item = items.iter().find(is_mine).ok_or(Unsupported("an alias stands for a container"))?;
        let mapping = &item.entry(self.within).ok_or(Unsupported("a probe is merged from elsewhere"))?.value;
        if matches!(mapping.content, Content::Alias) {
            return Ok(None);
        }
        let entry = mapping.entry(self.from).ok_or(Unsupported("a probe is merged from elsewhere"))?;
        // The range of a block scalar holds the newline behind it.
        let end = text[..entry.end()].trim_end_matches(['\r', '\n']).len();
        let range = entry.key.start..end;
        let new = match mapping.is_flow() {
            true => self.member(text, gap(text, mapping.entries()[0].key.start), style),
            false => {
                let column = place::own_column(text, range.start);
                let column = column.ok_or(Unsupported("a key does not begin its line"))?;
                self.lines(column, Style { newline: place::newline(text, range.start), ..style })
            }
        };
        let at = pointer(&pointer(&pointer("", &self.item), self.within), self.to);
        Ok(Some(Swapped { old: text[range.clone()].to_owned(), edit: Edit { range, text: new }, at }))
    }

    fn as_map(&self) -> Map<String, Value> {
        Map::from_iter([(self.to.to_owned(), self.value.clone())])
    }

    /// The new entry as a member of a flow collection.
    fn member(&self, document: &str, gap: &str, style: Style) -> String {
        let is_json = value::is_json(document);
        let fits = |text: &&String| {
            let braced = format!("{{{text}}}");
            (!is_json || value::is_json(&braced))
                && value::parse(&braced).map_or_else(
                    |_| !is_json && entry(self.to, text).is_none(),
                    |value| value == Value::Object(self.as_map()),
                )
        };
        match self.text.as_ref().filter(fits) {
            Some(text) => text.clone(),
            None => format!("{}: {}", Value::from(self.to), in_flow(&self.value, gap, style.step)),
        }
    }

    /// The new entry as lines, its key at `column`, without the blanks before it and the newline behind it.
    fn lines(&self, column: usize, style: Style) -> String {
        let fits = |text: &&String| match value::parse(&format!("{:column$}{text}\n", "")) {
            Ok(value) => value == Value::Object(self.as_map()),
            // What an alias stands for cannot be read alone; other indentation than this place has can.
            Err(_) => entry(self.to, text).is_none(),
        };
        if let Some(text) = self.text.as_ref().filter(fits) {
            return text.clone();
        }
        let lines = emit::entries(&self.as_map(), column, style);
        lines[column..].trim_end_matches(['\r', '\n']).to_owned()
    }
}

/// The value of an entry with the key `to` that was written as `text`, wherever that was; none when it cannot be read alone.
pub(super) fn entry(to: &str, text: &str) -> Option<Value> {
    let read = |text: &str| match value::parse(text) {
        Ok(Value::Object(mut map)) if map.len() == 1 => map.shift_remove(to),
        _ => None,
    };
    read(&format!("{{{text}}}")).or_else(|| read(text))
}

fn name(item: &Value) -> Option<&str> {
    item.get("name")?.as_str()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::yaml::{edit, tree};

    fn swap(text: Option<&str>) -> Swap {
        Swap {
            item: "a".into(),
            within: "p",
            from: "new",
            to: "old",
            value: json!({"x": 1}),
            text: text.map(str::to_owned),
        }
    }

    fn put(document: &str, swap: &Swap) -> String {
        let root = tree::parse(document).expect("it is well-formed");
        let items = root.entry("l").expect("the list").value.items();
        let swapped = swap.plan(document, items, Style::default()).expect("it can be").expect("no alias");
        let put = edit::apply(document, vec![swapped.edit]).expect("one edit");
        let mut expected = value::parse(document).expect("it is well-formed");
        swap.apply(expected["l"].as_array_mut().expect("the list"));
        assert_eq!(value::parse(&put).as_ref(), Ok(&expected), "{put}");
        put
    }

    #[test]
    fn what_was_written_in_another_style_is_put_back_in_this_one() {
        let block = "l:\n- name: a\n  p:\n    new: 1 # kept\n    z: 2\n";
        let (flow, json) =
            ("l: [{name: a, p: {z: 2, new: 1}}]\n", "{\"l\": [{\"name\": \"a\", \"p\": {\"new\": 1}}]}");
        let deep = "old: # why\n        x: 1";
        assert_eq!(
            put(block, &swap(Some(deep))),
            "l:\n- name: a\n  p:\n    old: # why\n        x: 1 # kept\n    z: 2\n"
        );
        let shallow = "old:\n  x: 1";
        for text in [Some(shallow), None] {
            assert_eq!(
                put(block, &swap(text)),
                "l:\n- name: a\n  p:\n    old:\n      x: 1 # kept\n    z: 2\n"
            );
        }
        assert_eq!(put(flow, &swap(Some("'old': {x: 1}"))), "l: [{name: a, p: {z: 2, 'old': {x: 1}}}]\n");
        assert_eq!(put(flow, &swap(Some(deep))), "l: [{name: a, p: {z: 2, \"old\": {\"x\":1}}}]\n");
        for text in [Some("old: {x: 1}"), Some(deep), None] {
            assert_eq!(put(json, &swap(text)), "{\"l\": [{\"name\": \"a\", \"p\": {\"old\": {\"x\":1}}}]}");
        }
    }
}
