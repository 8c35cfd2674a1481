//! The recent past of every meshed pod's metrics, in memory: what makes `stat` work without a Prometheus.
//!
//! # Honest increases
//!
//! A counter says how much there was since its process began; what counts is how much it grew while we looked.
//! - The first time a pod is read, its counters are where we begin: they count nothing. Unless its process began no more
//!   than [`BIRTH_GAP`] before: then everything it ever counted is recent, and counts.
//! - A series that was not there at the last reading began at zero since: it counts in full.
//! - A counter that fell, or a process that began anew, lost its past: it counts in full, from zero.
//! - A pod that cannot be read for a while counts what it did meanwhile when it can be read again.
//! - A pod that is gone keeps counting until its last reading has left the window.
//!
//! # Bounded memory
//!
//! A pod that calls 20 services, with successes and failures of each, exposes 80 label sets, of which 60 are told apart
//! here; when all of them are busy for ten minutes on end it takes 0.5 MB (measured), most of it latencies. Taking one
//! such reading in (464 KB of text) costs 1.6 ms of a core. At its limits, [`MAX_SETS`] label sets and [`MAX_FOLDED`]
//! told apart, all of them busy, a pod takes some 25 MB. Over [`MAX_FOLDED`], series are summed without authority and
//! destination, so that totals stay true. All pods together are bounded by a number of series, of which a busy one takes
//! 4 KB; a pod that would exceed it is not read, and told of.

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
    time::Duration,
};

use conduit_identity::UnixTime;

#[cfg(doc)]
use super::reading::MAX_SETS;
use super::{
    reading::{Metric, RawKey, Reading, Set},
    trail::{Tick, Trail},
};
use crate::{
    inventory::Pod,
    kind::Kind,
    proxies::Proxy,
    quantile::{Bound, Buckets},
    query::MAX_WINDOW,
    row::Unscraped,
    samples::{Counted, Labels, Measured, PodName, Samples, Source},
};

/// How old a process may be when it is first read for all it counted to be recent.
const BIRTH_GAP: Duration = Duration::from_secs(10);
/// Label sets of one pod that are told apart.
const MAX_FOLDED: usize = 1_000;

/// The window. Times are the caller's.
#[derive(Debug)]
pub struct Window {
    max_series: usize,
    series: usize,
    pods: BTreeMap<PodKey, Past>,
    /// Since when anything is known.
    began: Option<Tick>,
}

type PodKey = (PodName, String);

impl Window {
    /// An empty window that will hold up to `max_series`.
    pub fn new(max_series: usize) -> Self {
        Self { max_series, series: 0, pods: BTreeMap::new(), began: None }
    }

    /// Takes in what `pod` served at `at`, which the wall clock calls `now`.
    ///
    /// # Errors
    /// There is no room for it; nothing of it is taken in.
    pub fn read(&mut self, pod: &Pod, at: Tick, now: UnixTime, mut reading: Reading) -> Result<(), Full> {
        let past = self.pods.entry(key(pod)).or_insert_with(|| Past::new(pod));
        // A few words, for which there is always room.
        past.proxy.take(std::mem::take(&mut reading.says), now);
        let others = self.series.saturating_sub(past.series());
        if others + past.grown.len() + reading.sets.len() > self.max_series {
            return Err(Full { max_series: self.max_series });
        }
        past.owners.clone_from(&pod.owners);
        let from = past.take(reading, at, now);
        self.series = others + past.series();
        self.began = Some(self.began.map_or(from, |began| began.min(from)));
        Ok(())
    }

    /// Notes that `pod` could not be read, and why.
    pub fn failed(&mut self, pod: &Pod, reason: String) {
        self.pods.entry(key(pod)).or_insert_with(|| Past::new(pod)).failure = Some(reason);
    }

    /// Notes which pods are still to be read, and forgets those that are not and have left every window.
    pub fn keep<'a>(&mut self, pods: impl IntoIterator<Item = &'a Pod>, now: Tick) {
        let current: BTreeSet<PodKey> = pods.into_iter().map(key).collect();
        let oldest = now.before(MAX_WINDOW);
        self.pods.retain(|key, past| {
            past.is_current = current.contains(key);
            past.is_current || past.last.is_some_and(|last| last > oldest)
        });
        self.series = self.pods.values().map(Past::series).sum();
    }

    /// How many pods and series it holds.
    pub fn size(&self) -> (usize, usize) {
        (self.pods.len(), self.series)
    }

    /// What the proxies of the pods that are still to be read said last.
    pub fn proxies(&self) -> BTreeMap<PodName, Proxy> {
        let current = self.pods.iter().filter(|(_, past)| past.is_current);
        let proxy = |past: &Past| Proxy { failure: past.failure.clone(), ..past.proxy.clone() };
        current.map(|((name, _), past)| (name.clone(), proxy(past))).collect()
    }

    /// What happened in the `window` before `now`.
    pub fn samples(&self, now: Tick, window: Duration) -> Samples {
        let start = now.before(window);
        let known = self.began.unwrap_or(now).max(start);
        let mut samples = Samples { covered: now.since(known), ..Samples::default() };
        for ((name, _), past) in &self.pods {
            past.report(name, (now, start, known), &mut samples);
        }
        samples
    }
}

/// The window holds as much as it may.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("there is no room for it: {max_series} series of other pods are held")]
pub struct Full {
    max_series: usize,
}

fn key(pod: &Pod) -> PodKey {
    (pod.name.clone(), pod.uid.clone())
}

/// One pod's past.
#[derive(Debug)]
struct Past {
    owners: BTreeMap<Kind, String>,
    process_start: Option<f64>,
    /// Since when everything it did is counted: since ever, when it was read from its birth on.
    since: Tick,
    /// When it was last read.
    last: Option<Tick>,
    failure: Option<String>,
    proxy: Proxy,
    is_current: bool,
    /// The counters as last read.
    counters: BTreeMap<RawKey, Vec<f64>>,
    /// What they grew by, summed over the labels that rows do not need.
    grown: BTreeMap<(Metric, Labels), Grown>,
    /// Gauges as last read, summed likewise.
    gauges: BTreeMap<Labels, f64>,
}

#[derive(Debug)]
struct Grown {
    bounds: Arc<[Bound]>,
    trail: Trail,
}

impl Past {
    fn new(pod: &Pod) -> Self {
        Self {
            owners: pod.owners.clone(),
            process_start: None,
            since: Tick(0),
            last: None,
            failure: None,
            proxy: Proxy::default(),
            is_current: true,
            counters: BTreeMap::new(),
            grown: BTreeMap::new(),
            gauges: BTreeMap::new(),
        }
    }

    /// How much it holds.
    fn series(&self) -> usize {
        self.counters.len() + self.grown.len()
    }

    /// Takes in a reading, and returns since when it tells anything.
    fn take(&mut self, reading: Reading, at: Tick, now: UnixTime) -> Tick {
        let restarted = self.last.is_some() && reading.process_start != self.process_start;
        let born = self.last.is_none().then(|| birth(reading.process_start, at, now)).flatten();
        let counts_in_full = self.last.is_some() || born.is_some();
        if self.last.is_none() && born.is_none() {
            self.since = at;
        }
        let before = std::mem::take(&mut self.counters);
        self.gauges.clear();
        for (raw, Set { labels, counts }) in reading.sets {
            let labels = self.fold(raw.0, labels);
            if raw.0 == Metric::Open {
                *self.gauges.entry(labels).or_default() += counts.iter().map(|(_, count)| count).sum::<f64>();
                continue;
            }
            let bounds: Vec<Bound> = counts.iter().map(|(bound, _)| *bound).collect();
            let values = apart(raw.0, counts.into_iter().map(|(_, count)| count));
            let known = before.get(&raw).filter(|known| !restarted && known.len() == values.len());
            if known.is_some() || counts_in_full {
                let grown = self.grown.entry((raw.0, labels)).or_insert_with(|| Grown::new(&bounds));
                grown.note(at, &bounds, &values, known.map_or(&[], Vec::as_slice));
            }
            self.counters.insert(raw, values);
        }
        self.grown.retain(|_, grown| !grown.trail.is_idle(at));
        self.process_start = reading.process_start;
        (self.last, self.failure) = (Some(at), None);
        born.unwrap_or(at)
    }

    /// The labels that a set with the labels `kept` is summed up under.
    fn fold(&self, metric: Metric, mut kept: Labels) -> Labels {
        if metric == Metric::Latency {
            // Latencies are summed over how the response ended and who asked: a histogram takes 26 times the room.
            kept.retain(|name| !matches!(name, "classification" | "client_id" | "server_id"));
        }
        let key = (metric, kept);
        let is_over = self.grown.len() >= MAX_FOLDED && !self.grown.contains_key(&key);
        let (_, mut kept) = key;
        if is_over {
            kept.retain(|name| matches!(name, "direction" | "tls" | "classification" | "peer"));
        }
        kept
    }

    /// For how long it is known what the pod did after `start`, of which anything is known from `known` on.
    fn covered(&self, now: Tick, start: Tick, known: Tick) -> Duration {
        let begin = self.since.max(known);
        // Nothing is known yet of what a running pod did since its last reading. Where the past goes back beyond `start`,
        // the first reading after it makes up for that: it tells of as much from before. One that is gone did nothing more.
        let lags = begin > start && self.is_current;
        self.last.filter(|_| lags).unwrap_or(now).since(begin)
    }

    /// Adds what happened after `start`; `known` is from when on anything is known.
    fn report(&self, name: &PodName, (now, start, known): (Tick, Tick, Tick), samples: &mut Samples) {
        let recent = self.last.filter(|last| *last > start);
        if let Some(reason) = self.failure.as_ref().filter(|_| self.is_current) {
            samples.unscraped.push(Unscraped {
                namespace: name.namespace.clone(),
                pod: name.name.clone(),
                reason: reason.clone(),
                since_ms: self
                    .last
                    .map(|last| u64::try_from(now.since(last).as_millis()).unwrap_or(u64::MAX)),
            });
        }
        if recent.is_none() {
            return;
        }
        samples.sources.insert(name.clone());
        let covered = self.covered(now, start, known);
        let source = Arc::new(Source { pod: name.clone(), owners: self.owners.clone(), covered });
        for ((metric, labels), grown) in &self.grown {
            let buckets = grown.since(start);
            let count: f64 = buckets.values().sum();
            if count == 0.0 {
                continue;
            }
            let (source, labels) = (source.clone(), labels.clone());
            let ago = grown.trail.last().map_or(Duration::ZERO, |last| now.since(last));
            let counts = match metric {
                Metric::Latency => {
                    samples.latencies.push(Measured { source, labels, buckets });
                    continue;
                }
                Metric::Responses => &mut samples.responses,
                // What closed within the window was open in it, and so is what is open now.
                Metric::Closes | Metric::Open => &mut samples.connections,
                Metric::Received => &mut samples.received,
                Metric::Sent => &mut samples.sent,
            };
            counts.push(Counted { source, labels, count, ago });
        }
        for (labels, count) in self.gauges.iter().filter(|(_, count)| self.is_current && **count > 0.0) {
            samples.connections.push(Counted {
                source: source.clone(),
                labels: labels.clone(),
                count: *count,
                ago: Duration::ZERO,
            });
        }
    }
}

impl Grown {
    fn new(bounds: &[Bound]) -> Self {
        Self { bounds: bounds.into(), trail: Trail::default() }
    }

    /// Adds what each value grew by since `before`; all of it when it fell, or was not there.
    fn note(&mut self, at: Tick, bounds: &[Bound], values: &[f64], before: &[f64]) {
        let reset = values.iter().zip(before).any(|(value, before)| value < before);
        for (i, (bound, value)) in bounds.iter().zip(values).enumerate() {
            let before = before.get(i).filter(|_| !reset).copied().unwrap_or_default();
            // Label sets that are summed up together have the same bounds, unless one of them is of another version.
            let is_same = self.bounds.get(i) == Some(bound);
            let above = || self.bounds.iter().position(|known| known >= bound);
            let cell = is_same.then_some(i).or_else(above).unwrap_or(self.bounds.len() - 1);
            self.trail.add(at, u8::try_from(cell).unwrap_or(u8::MAX), whole(value - before));
        }
    }

    fn since(&self, start: Tick) -> Buckets {
        // Empty ones too: a quantile lies between its own bucket's bound and the next lower one's.
        let mut buckets: Buckets = self.bounds.iter().map(|bound| (*bound, 0.0)).collect();
        for (cell, delta) in self.trail.since(start) {
            if let Some(bound) = self.bounds.get(usize::from(cell)) {
                *buckets.entry(*bound).or_default() += f64::from(delta);
            }
        }
        buckets
    }
}

/// When a process began that is first read at `at`, if that was recent.
fn birth(process_start: Option<f64>, at: Tick, now: UnixTime) -> Option<Tick> {
    let age = now.0.checked_sub(Duration::try_from_secs_f64(process_start?).ok()?).unwrap_or_default();
    (age <= BIRTH_GAP).then(|| at.before(age))
}

/// Counts by bucket: a histogram's text has each bucket include the ones below it.
fn apart(metric: Metric, counts: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut below = 0.0;
    let mut own = |count: f64| {
        let own = (count - below).max(0.0);
        below = count;
        own
    };
    match metric {
        Metric::Latency => counts.map(&mut own).collect(),
        _ => counts.collect(),
    }
}

/// A count of things as a number of 32 bits, which an increase between two readings does not exceed; one of bytes may,
/// when there were more than 4 GiB, and is then counted as that.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "float casts saturate")]
fn whole(count: f64) -> u32 {
    count.round() as u32
}

#[cfg(test)]
mod tests;
