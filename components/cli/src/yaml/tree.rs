//! Where in the text each part of a document stands. The parser is the one that `value.rs` reads with, so both see
//! the same document.

use std::ops::Range;

use granit_parser::{Event, Parser, ScalarStyle, Span, StructureStyle};

/// A part of a document.
#[derive(Debug, Clone)]
pub struct Node {
    /// Its text, without anchor and tag. A block collection begins at its first entry and ends with its last; a block
    /// scalar begins after its header; an absent value is empty and stands somewhere near its key.
    pub span: Range<usize>,
    /// Where its text begins, anchor and tag included.
    pub start: usize,
    /// Whether it has an anchor, so that it may be used elsewhere too.
    pub anchored: bool,
    /// What it is.
    pub content: Content,
}

/// What a node is.
#[derive(Debug, Clone)]
pub enum Content {
    /// A scalar: its text once escapes are resolved.
    Scalar {
        /// The text.
        text: String,
        /// Whether it is written without quotes or block, hence may be null.
        plain: bool,
        /// Whether it is a block scalar (`|` or `>`).
        block: bool,
    },
    /// An alias.
    Alias,
    /// A sequence.
    Sequence {
        /// Whether it is written in brackets.
        flow: bool,
        /// Its items.
        items: Vec<Node>,
    },
    /// A mapping.
    Mapping {
        /// Whether it is written in braces.
        flow: bool,
        /// Its entries.
        entries: Vec<Entry>,
    },
}

/// An entry of a mapping.
#[derive(Debug, Clone)]
pub struct Entry {
    /// Its key.
    pub key: Node,
    /// Its value.
    pub value: Node,
}

/// A node with the entry whose value it is, if it is one's.
#[derive(Debug, Clone, Copy)]
pub struct Part<'t> {
    /// The entry.
    pub header: Option<&'t Entry>,
    /// The node.
    pub node: &'t Node,
}

/// Reads the text of one document; none when it has no content or is malformed, which `value::parse` explains.
pub fn parse(text: &str) -> Option<Node> {
    let options = granit_parser::options! { emit_anchor_events: true, emit_comments: false };
    let mut builder = Builder { text, ..Builder::default() };
    for event in Parser::new_from_str_with_options(text, options) {
        let (event, span) = event.ok()?;
        builder.take(event, &span)?;
    }
    builder.root
}

impl Node {
    /// The part at a JSON pointer whose keys need no escapes; none when an alias is on the way.
    pub fn at(&self, pointer: &str) -> Option<Part<'_>> {
        let root = Part { header: None, node: self };
        pointer.split('/').skip(1).try_fold(root, |part, step| match step.parse::<usize>() {
            Ok(index) if !part.node.items().is_empty() => {
                part.node.items().get(index).map(|node| Part { header: None, node })
            }
            _ => part.node.entry(step).map(|entry| Part { header: Some(entry), node: &entry.value }),
        })
    }

    /// The entry of a mapping with this key; none for anything but a mapping.
    pub fn entry(&self, key: &str) -> Option<&Entry> {
        self.entries().iter().find(|entry| entry.key_text() == Some(key))
    }

    /// The entries of a mapping; none for anything else.
    pub fn entries(&self) -> &[Entry] {
        if let Content::Mapping { entries, .. } = &self.content { entries } else { &[] }
    }

    /// The items of a sequence; none for anything else.
    pub fn items(&self) -> &[Node] {
        if let Content::Sequence { items, .. } = &self.content { items } else { &[] }
    }

    /// Whether it is a collection in braces or brackets.
    pub fn is_flow(&self) -> bool {
        matches!(self.content, Content::Sequence { flow: true, .. } | Content::Mapping { flow: true, .. })
    }

    /// Whether it holds nothing: null in any spelling, or a collection without members.
    pub fn is_empty(&self) -> bool {
        match &self.content {
            // The spellings of null of YAML 1.1 and 1.2, the absent value among them.
            Content::Scalar { text, plain, .. } => {
                *plain && matches!(text.as_str(), "" | "~" | "null" | "Null" | "NULL")
            }
            Content::Alias => false,
            Content::Sequence { items, .. } => items.is_empty(),
            Content::Mapping { entries, .. } => entries.is_empty(),
        }
    }
}

impl Entry {
    /// The key, where it is a scalar.
    pub fn key_text(&self) -> Option<&str> {
        if let Content::Scalar { text, .. } = &self.key.content { Some(text) } else { None }
    }

    /// Where the entry's text ends.
    pub fn end(&self) -> usize {
        self.key.span.end.max(self.value.span.end)
    }
}

/// Builds nodes from the parser's events, without recursion.
#[derive(Default)]
struct Builder<'a> {
    text: &'a str,
    root: Option<Node>,
    open: Vec<Open>,
}

/// A collection whose end has not been met.
struct Open {
    node: Node,
    key: Option<Node>,
}

impl Builder<'_> {
    /// None when the events make no single document.
    fn take(&mut self, event: Event<'_>, span: &Span) -> Option<()> {
        let range = span.byte_range()?;
        let start =
            span.tag_start.and_then(|tag| tag.byte_offset()).map_or(range.start, |tag| tag.min(range.start));
        let node =
            |anchor: usize, content| Node { span: range.clone(), start, anchored: anchor != 0, content };
        match event {
            Event::Scalar(text, style, anchor, _) => {
                let plain = style == ScalarStyle::Plain;
                let block = matches!(style, ScalarStyle::Literal | ScalarStyle::Folded);
                let mut scalar = node(anchor, Content::Scalar { text: text.into_owned(), plain, block });
                if block {
                    scalar.span.end = self.end_of_block(&scalar.span)?;
                }
                self.add(scalar)
            }
            Event::Alias(_) => self.add(node(0, Content::Alias)),
            Event::SequenceStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                self.open(node(anchor, Content::Sequence { flow, items: Vec::new() }))
            }
            Event::MappingStart(style, anchor, _) => {
                let flow = style == StructureStyle::Flow;
                self.open(node(anchor, Content::Mapping { flow, entries: Vec::new() }))
            }
            Event::SequenceEnd | Event::MappingEnd => self.close(range.end),
            Event::Anchor(..) => self.anchor(range.start),
            _ => Some(()),
        }
    }

    /// The parser counts the indentation of the line after a block scalar to it.
    fn end_of_block(&self, span: &Range<usize>) -> Option<usize> {
        let text = self.text.get(span.clone())?;
        let blank = text.len() - text.trim_end_matches([' ', '\t']).len();
        let whole_lines = text[..text.len() - blank].ends_with('\n');
        Some(if whole_lines { span.end - blank } else { span.end })
    }

    fn open(&mut self, node: Node) -> Option<()> {
        self.open.push(Open { node, key: None });
        Some(())
    }

    fn close(&mut self, end: usize) -> Option<()> {
        let mut node = self.open.pop()?.node;
        node.span.end = match &node.content {
            Content::Sequence { flow: false, items } => {
                items.last().map_or(node.span.end, |item| item.span.end)
            }
            Content::Mapping { flow: false, entries } => entries.last().map_or(node.span.end, Entry::end),
            _ => end,
        };
        self.add(node)
    }

    fn add(&mut self, node: Node) -> Option<()> {
        let Some(Open { node: parent, key }) = self.open.last_mut() else {
            // A second root is a second document, and only one is asked for.
            return self.root.replace(node).is_none().then_some(());
        };
        match &mut parent.content {
            Content::Sequence { items, .. } => items.push(node),
            Content::Mapping { entries, .. } => match key.take() {
                Some(key) => entries.push(Entry { key, value: node }),
                None => *key = Some(node),
            },
            _ => return None,
        }
        Some(())
    }

    /// An anchor is told after the node it stands before.
    fn anchor(&mut self, start: usize) -> Option<()> {
        let node = self.latest()?;
        node.start = node.start.min(start);
        Some(())
    }

    fn latest(&mut self) -> Option<&mut Node> {
        let Some(Open { node, key }) = self.open.last_mut() else { return self.root.as_mut() };
        let is_new = match &node.content {
            Content::Sequence { items, .. } => items.is_empty(),
            Content::Mapping { entries, .. } => entries.is_empty() && key.is_none(),
            _ => true,
        };
        if is_new {
            return Some(node);
        }
        match &mut node.content {
            Content::Sequence { items, .. } => items.last_mut(),
            Content::Mapping { entries, .. } => match key {
                Some(key) => Some(key),
                None => entries.last_mut().map(|entry| &mut entry.value),
            },
            _ => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_found_where_they_stand() {
        let text = "a: &x # anchored\r\n  b: [1, !!str 2]\r\n  c:\r\n  - |\r\n    é\r\n\r\nd: \"q\"\r\n";
        let root = parse(text).expect("it is well-formed");
        let a = &root.entry("a").expect("a").value;
        let slice = |node: &Node| &text[node.start..node.span.end];
        assert!(a.anchored && slice(a).starts_with("&x"));
        let items = a.entry("b").expect("b").value.items();
        assert_eq!((slice(&items[0]), slice(&items[1])), ("1", "!!str 2"));
        assert_eq!(slice(&a.entry("b").expect("b").value), "[1, !!str 2]");
        assert_eq!(slice(&a.entry("c").expect("c").value.items()[0]), "é\r\n\r\n");
        assert_eq!(slice(&root.entry("d").expect("d").value), "\"q\"");
    }

    #[test]
    fn nulls_of_every_spelling_are_empty_and_quoted_ones_are_not() {
        let root = parse(
            "[~, null, Null, NULL, {}, [], 'null', \"~\", '', nul, *a, 0]".replace("*a, ", "").as_str(),
        );
        let empty: Vec<bool> = root.expect("it is well-formed").items().iter().map(Node::is_empty).collect();
        assert_eq!(empty, [true, true, true, true, true, true, false, false, false, false, false]);
    }
}
