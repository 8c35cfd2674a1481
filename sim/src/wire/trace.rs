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
            let (arrow, hash) = (arrow(is_clients), fnv(bytes));
            self.line(at, format_args!("#{id} {arrow} {} {hash:016x}", bytes.len()));
        }
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
