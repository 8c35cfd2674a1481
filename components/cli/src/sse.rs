//! Server-sent events, read from the body of an answer while it comes.

use std::{collections::VecDeque, time::Duration};

use anyhow::{anyhow, bail};
use http_body_util::BodyExt;
use hyper::body::Incoming;
use tokio::time::timeout;

/// How long the server may be silent. It sends a comment every few seconds when there is nothing to tell.
const SILENCE: Duration = Duration::from_secs(30);
/// The longest event.
const MAX_EVENT: usize = 1 << 20;

/// One event.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Event {
    /// Its type, empty when it names none.
    pub name: String,
    /// What it carries.
    pub data: String,
}

/// The events of an answer.
pub struct Events {
    body: Incoming,
    parser: Parser,
}

impl Events {
    /// Reads `body`.
    pub fn new(body: Incoming) -> Self {
        Self { body, parser: Parser::default() }
    }

    /// The next event; none when the server has ended the stream in order. Cancel safe.
    ///
    /// # Errors
    /// The connection broke, the server fell silent, or it sends something else.
    pub async fn next(&mut self) -> anyhow::Result<Option<Event>> {
        loop {
            if let Some(event) = self.parser.events.pop_front() {
                return Ok(Some(event));
            }
            let frame = timeout(SILENCE, self.body.frame()).await;
            match frame.map_err(|_| anyhow!("the stream fell silent for {SILENCE:?}"))? {
                Some(Ok(frame)) => self.parser.feed(frame.data_ref().map_or(&[], |data| data))?,
                Some(Err(error)) => bail!("the stream broke off: {error}"),
                None => return Ok(None),
            }
        }
    }
}

/// Bytes to events.
#[derive(Debug, Default)]
struct Parser {
    line: Vec<u8>,
    event: Event,
    events: VecDeque<Event>,
}

impl Parser {
    fn feed(&mut self, bytes: &[u8]) -> anyhow::Result<()> {
        for octet in bytes {
            match octet {
                b'\n' => {
                    let line = std::mem::take(&mut self.line);
                    self.line(String::from_utf8_lossy(&line).trim_end_matches('\r'));
                }
                octet => self.line.push(*octet),
            }
            if self.line.len() + self.event.data.len() > MAX_EVENT {
                bail!("an event of the stream is over {MAX_EVENT} octets");
            }
        }
        Ok(())
    }

    fn line(&mut self, line: &str) {
        let (field, value) = line.split_once(':').unwrap_or((line, ""));
        let value = value.strip_prefix(' ').unwrap_or(value);
        match field {
            "" if line.is_empty() => {
                let event = std::mem::take(&mut self.event);
                if event != Event::default() {
                    self.events.push_back(event);
                }
            }
            "event" => value.clone_into(&mut self.event.name),
            "data" => {
                if !self.event.data.is_empty() {
                    self.event.data.push('\n');
                }
                self.event.data.push_str(value);
            }
            // A comment, or a field that means nothing here.
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str =
        ": hello\n\nevent: error\ndata: {\"a\":1}\n\ndata: one\ndata: two\r\n\r\nid: 7\n\ndata: cut";

    fn expected() -> Vec<Event> {
        let event = |name: &str, data: &str| Event { name: name.to_owned(), data: data.to_owned() };
        vec![event("error", "{\"a\":1}"), event("", "one\ntwo")]
    }

    #[test]
    fn events_are_read_and_comments_skipped() {
        let mut parser = Parser::default();
        parser.feed(TEXT.as_bytes()).unwrap();
        assert_eq!(parser.events, expected());
    }

    #[test]
    fn an_event_without_end_is_refused() {
        let mut parser = Parser::default();
        assert!(parser.feed(&vec![b'x'; MAX_EVENT + 1]).is_err());
    }

    proptest! {
        #[test]
        fn it_does_not_matter_how_the_bytes_are_cut(cuts in prop::collection::vec(0..TEXT.len(), 0..8)) {
            let mut parser = Parser::default();
            let mut cuts = cuts;
            cuts.extend([0, TEXT.len()]);
            cuts.sort_unstable();
            for pair in cuts.windows(2) {
                parser.feed(&TEXT.as_bytes()[pair[0]..pair[1]]).unwrap();
            }
            prop_assert_eq!(parser.events, expected());
        }
    }
}
