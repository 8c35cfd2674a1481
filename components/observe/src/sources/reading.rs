//! One reading of one proxy's metrics: the few families that rows are made of.

use std::collections::BTreeMap;

use super::text::{self, Lines, ParseError};
use crate::quantile::Bound;

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
}

impl Metric {
    fn of(name: &str) -> Option<Self> {
        match name {
            "response_total" => Some(Self::Responses),
            "response_latency_ms_bucket" => Some(Self::Latency),
            "tcp_close_total" => Some(Self::Closes),
            "tcp_open_connections" => Some(Self::Open),
            _ => None,
        }
    }
}

/// A label set of one metric, all labels but `le`, sorted: two orders of the same labels are one series.
pub type RawKey = (Metric, Vec<(Box<str>, Box<str>)>);

/// The metrics of one proxy, read while they arrive.
#[derive(Debug, Default)]
pub struct Reading {
    lines: Lines,
    /// By label set, counts by upper bound; what is no histogram has the one bound infinity.
    pub(super) sets: BTreeMap<RawKey, BTreeMap<Bound, f64>>,
    /// When the proxy's process began, in seconds since 1970.
    pub(super) process_start: Option<f64>,
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
        let Self { lines, sets, process_start } = self;
        lines.feed(bytes, |line| {
            let name = line.split(['{', ' ']).next().unwrap_or_default();
            let metric = Metric::of(name);
            if metric.is_none() && name != "process_start_time_seconds" {
                return Ok(());
            }
            let Some(sample) = text::parse(line)? else { return Ok(()) };
            match metric {
                Some(metric) => add(sets, metric, &sample),
                None => {
                    *process_start = Some(sample.value);
                    Ok(())
                }
            }
        })?;
        if self.sets.len() > MAX_SETS { Err(Unreadable::TooMuch) } else { Ok(()) }
    }

    /// The reading, if it is whole.
    ///
    /// # Errors
    /// The text was cut short.
    pub fn finish(mut self) -> Result<Self, Unreadable> {
        std::mem::take(&mut self.lines).finish()?;
        Ok(self)
    }
}

fn add(
    sets: &mut BTreeMap<RawKey, BTreeMap<Bound, f64>>,
    metric: Metric,
    sample: &text::Sample<'_>,
) -> Result<(), &'static str> {
    if !(sample.value >= 0.0 && sample.value.is_finite()) {
        return Err("this is no count");
    }
    let mut bound = Bound::new(f64::INFINITY);
    let mut labels = Vec::with_capacity(sample.labels.len());
    for (name, value) in &sample.labels {
        match *name {
            "le" => bound = value.parse().ok().and_then(Bound::new),
            name => labels.push((name.into(), value.as_ref().into())),
        }
    }
    labels.sort_unstable();
    let bound = bound.ok_or("its bucket has no bound")?;
    *sets.entry((metric, labels)).or_default().entry(bound).or_default() += sample.value;
    Ok(())
}
