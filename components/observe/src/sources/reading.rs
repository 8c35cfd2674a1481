//! One reading of one proxy's metrics: the few families that rows are made of.

use std::{borrow::Cow, collections::BTreeMap};

use super::text::{self, Lines, ParseError};
use crate::{
    proxies::{self, Says},
    quantile::Bound,
    samples::Labels,
};

/// Label sets that one pod may expose of the metrics read here.
pub const MAX_SETS: usize = 8_000;

/// What is read of a proxy's metrics.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Metric {
    /// Responses that ended.
    Responses,
    /// Their times to the first byte, a histogram.
    Latency,
    /// Connections that ended.
    Closes,
    /// Connections that are open, a gauge.
    Open,
    /// Bytes that came over connections.
    Received,
    /// Bytes that went over connections.
    Sent,
}

impl Metric {
    fn of(name: &str) -> Option<Self> {
        match name {
            "response_total" => Some(Self::Responses),
            "response_latency_ms_bucket" => Some(Self::Latency),
            "tcp_close_total" => Some(Self::Closes),
            "tcp_open_connections" => Some(Self::Open),
            "tcp_read_bytes_total" => Some(Self::Received),
            "tcp_write_bytes_total" => Some(Self::Sent),
            _ => None,
        }
    }
}

/// A label set of one metric, all labels but `le`, as it is written. A proxy writes the same set the same way for as
/// long as it lives.
pub type RawKey = (Metric, Box<str>);

/// What one label set counts.
#[derive(Debug, Default)]
pub(super) struct Set {
    /// The labels that matter.
    pub(super) labels: Labels,
    /// Counts by upper bound, ascending; what is no histogram has the one bound infinity.
    pub(super) counts: Vec<(Bound, f64)>,
}

/// The metrics of one proxy, read while they arrive.
#[derive(Debug, Default)]
pub struct Reading {
    lines: Lines,
    /// The set of the last line: a histogram is 26 lines of one set.
    current: Option<(RawKey, Set)>,
    pub(super) sets: BTreeMap<RawKey, Set>,
    /// When the proxy's process began, in seconds since 1970.
    pub(super) process_start: Option<f64>,
    /// What the proxy says of its credentials.
    pub(super) says: Says,
}

/// What a pod served cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Unreadable {
    /// It is not text that a proxy writes.
    #[error(transparent)]
    Text(#[from] ParseError),
    /// More than is kept for one pod.
    #[error("over {MAX_SETS} label sets")]
    TooMuch,
}

impl Reading {
    /// Reads some more.
    ///
    /// # Errors
    /// It is not what a proxy serves, or too much of it: half a reading looks like a fall of all the other counters, so
    /// it must not be used.
    pub fn feed(&mut self, bytes: &[u8]) -> Result<(), Unreadable> {
        let mut lines = std::mem::take(&mut self.lines);
        lines.feed(bytes, |line| self.line(line))?;
        self.lines = lines;
        if self.sets.len() > MAX_SETS { Err(Unreadable::TooMuch) } else { Ok(()) }
    }

    /// The reading, if it is whole.
    ///
    /// # Errors
    /// The text was cut short.
    pub fn finish(mut self) -> Result<Self, Unreadable> {
        std::mem::take(&mut self.lines).finish()?;
        self.store();
        self.sets.values_mut().for_each(|set| set.counts.sort_unstable_by_key(|(bound, _)| *bound));
        if self.sets.len() > MAX_SETS { Err(Unreadable::TooMuch) } else { Ok(self) }
    }

    fn line(&mut self, line: &str) -> Result<(), &'static str> {
        let name = line.split(['{', ' ']).next().unwrap_or_default();
        let metric = Metric::of(name);
        if proxies::METRICS.contains(&name) {
            return self.says(line);
        }
        if metric.is_none() && name != "process_start_time_seconds" {
            return Ok(());
        }
        let Some(sample) = text::sample(line)? else { return Ok(()) };
        let Some(metric) = metric else {
            self.process_start = Some(sample.value);
            return Ok(());
        };
        if !(sample.value >= 0.0 && sample.value.is_finite()) {
            return Err("this is no count");
        }
        let (labels, bound) = match metric {
            Metric::Latency => {
                let (labels, bound) = text::bucket(sample.labels).ok_or("a bucket without a bound")?;
                (labels, bound.parse().map_err(|_| "a bucket's bound is no number")?)
            }
            _ => (Cow::Borrowed(sample.labels), f64::INFINITY),
        };
        let bound = Bound::new(bound).ok_or("a bucket's bound is no number")?;
        self.set(metric, &labels)?.counts.push((bound, sample.value));
        Ok(())
    }

    fn says(&mut self, line: &str) -> Result<(), &'static str> {
        let Some(sample) = text::sample(line)? else { return Ok(()) };
        let labels = text::labels(sample.labels)?;
        let label = |wanted: &str| labels.iter().find(|(name, _)| *name == wanted).map(|(_, value)| &**value);
        self.says.note(sample.name, sample.value, label);
        Ok(())
    }

    fn set(&mut self, metric: Metric, labels: &str) -> Result<&mut Set, &'static str> {
        if self.current.as_ref().is_some_and(|((of, known), _)| (*of, &**known) != (metric, labels)) {
            self.store();
        }
        let current = match self.current.take() {
            Some(current) => current,
            None => {
                let key = (metric, labels.into());
                // One that was interrupted goes on.
                let set = self.sets.remove(&key).map_or_else(
                    || Ok(Set { labels: Labels::collect(text::labels(labels)?), ..Set::default() }),
                    Ok::<_, &'static str>,
                )?;
                (key, set)
            }
        };
        Ok(&mut self.current.insert(current).1)
    }

    fn store(&mut self) {
        self.sets.extend(self.current.take());
    }
}
