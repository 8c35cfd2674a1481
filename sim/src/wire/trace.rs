//! The trace of a run: a line for everything that crosses between hosts, with a hash of its bytes, and for everything
//! that is done to the world.

use std::{fmt, time::Duration};

use super::link::mix;

/// Lines, or only their number and hash. Cloning copies.
#[derive(Debug, Clone, Default)]
pub struct Trace {
    lines: Option<Vec<String>>,
    count: u64,
    hash: u64,
    masked: Vec<u8>,
}

impl Trace {
    /// A trace that keeps its lines.
    pub fn kept() -> Self {
        Self { lines: Some(Vec::new()), ..Self::default() }
    }

    /// A trace that keeps only what it takes to compare it.
    pub fn hashed() -> Self {
        Self::default()
    }

    /// The lines, if they were kept.
    pub fn lines(&self) -> &[String] {
        self.lines.as_deref().unwrap_or_default()
    }

    /// How many lines there were, and a hash of them all.
    pub fn sum(&self) -> (u64, u64) {
        (self.count, self.hash)
    }

    /// Leaves `text` out of the hashes of what servers say: the directory of this run's files, which is another in each run and
    /// is told in metrics. It is always of one length, and a page of metrics is written in one piece.
    pub(super) fn mask(&mut self, text: &[u8]) {
        self.masked = text.to_vec();
    }

    pub(super) fn line(&mut self, at: Duration, line: fmt::Arguments<'_>) {
        let line = format!("{:>10.6} {line}", at.as_secs_f64());
        self.count += 1;
        self.hash = mix(self.hash ^ fnv(line.as_bytes()));
        if let Some(lines) = &mut self.lines {
            lines.push(line);
        }
    }

    pub(super) fn segment(&mut self, at: Duration, id: u64, is_clients: bool, bytes: &[u8], is_within: bool) {
        if !is_within {
            let hash = if is_clients { fnv(bytes) } else { self.masked_hash(bytes) };
            let arrow = arrow(is_clients);
            self.line(at, format_args!("#{id} {arrow} {} {hash:016x}", bytes.len()));
        }
    }
}

impl Trace {
    fn masked_hash(&self, bytes: &[u8]) -> u64 {
        let Some(first) = self.masked.first() else { return fnv(bytes) };
        let mut bytes = bytes.to_vec();
        let mut from = 0;
        while let Some(found) = bytes[from..].iter().position(|byte| byte == first) {
            let at = from + found;
            if bytes[at..].starts_with(&self.masked) {
                bytes[at..at + self.masked.len()].fill(0);
            }
            from = at + 1;
        }
        fnv(&bytes)
    }
}

pub(super) fn arrow(is_clients: bool) -> &'static str {
    if is_clients { ">" } else { "<" }
}

/// FNV-1a, 64 bits: the same on every machine, unlike the standard library's.
fn fnv(bytes: &[u8]) -> u64 {
    bytes
        .iter()
        .fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(*byte)).wrapping_mul(0x0100_0000_01b3))
}
