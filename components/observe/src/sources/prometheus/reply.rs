//! What Prometheus' answers mean: from vectors to [`Samples`]. Pure.

use std::{collections::BTreeMap, sync::Arc, time::Duration};

use serde::Deserialize;

use super::promql::OWNERS;
use crate::{
    inventory::Inventory,
    kind::Kind,
    proxies::Proxy,
    quantile::{Bound, Buckets},
    row::Unscraped,
    samples::{Counted, Labels, Measured, PodName, Samples, Source},
};

/// One number for each set of labels.
pub(super) type Vector = Vec<Sample>;
/// Several numbers for each set of labels, with their times.
pub(super) type Matrix = Vec<Series>;

type Metric = BTreeMap<String, String>;

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Sample {
    metric: Metric,
    value: (f64, String),
}

#[derive(Debug, Clone, Deserialize)]
pub(super) struct Series {
    metric: Metric,
    values: Vec<(f64, String)>,
}

/// Everything that was asked about one window.
#[derive(Debug, Clone, Default)]
pub(super) struct Answers {
    /// When, in seconds since 1970.
    pub(super) now: f64,
    pub(super) window: Duration,
    pub(super) scrapes: Matrix,
    pub(super) known: Vector,
    pub(super) births: Vector,
    pub(super) responses: Vector,
    pub(super) latencies: Vector,
    pub(super) closes: Vector,
    pub(super) open: Vector,
    pub(super) received: Vector,
    pub(super) sent: Vector,
    /// How long ago responses and closes last grew.
    pub(super) ages: [Vector; 2],
}

/// How one pod was read.
#[derive(Debug, Clone, Copy, Default)]
struct Scrapes {
    first: Option<f64>,
    last: Option<f64>,
    /// Whether the last attempt failed.
    failed: bool,
}

impl Answers {
    /// What happened, and what is missing of it.
    pub(super) fn samples(self, inventory: &Inventory) -> Samples {
        let pods = self.pods();
        let sources: BTreeMap<PodName, Duration> = pods
            .iter()
            .filter_map(|(name, scrapes)| Some((name.clone(), self.covered(name, scrapes)?)))
            .collect();
        let mut samples = Samples {
            covered: sources.values().copied().max().unwrap_or_default(),
            sources: sources.keys().cloned().collect(),
            unscraped: unscraped(&pods, inventory, self.now),
            ..Samples::default()
        };
        let readers = Readers { sources, inventory };
        let [answered, closed] = self.ages.map(ages);
        let count = |vector: Vector, ages: &BTreeMap<Metric, Duration>| readers.counted(vector, ages);
        samples.responses = count(self.responses, &answered);
        samples.connections = count(self.closes, &closed);
        let now = BTreeMap::new();
        samples.connections.extend(count(self.open, &now));
        samples.received = count(self.received, &now);
        samples.sent = count(self.sent, &now);
        samples.latencies = readers.measured(self.latencies);
        samples
    }

    fn pods(&self) -> BTreeMap<PodName, Scrapes> {
        let mut pods: BTreeMap<PodName, Scrapes> = BTreeMap::new();
        for Series { metric, values } in &self.scrapes {
            let Some(name) = pod(metric) else { continue };
            let pod = pods.entry(name).or_default();
            for (at, up) in values {
                pod.failed = up != "1";
                if !pod.failed {
                    pod.first = Some(pod.first.map_or(*at, |first| first.min(*at)));
                    pod.last = Some(pod.last.map_or(*at, |last| last.max(*at)));
                }
            }
        }
        pods
    }

    /// For how long it is known what the pod did in the window; none when it was not read in it.
    fn covered(&self, name: &PodName, scrapes: &Scrapes) -> Option<Duration> {
        let (first, last) = (scrapes.first?, scrapes.last?);
        let of = |vector: &Vector| {
            vector.iter().find(|sample| pod(&sample.metric).as_ref() == Some(name)).cloned()
        };
        if of(&self.known).is_some() {
            return Some(self.window);
        }
        let start = self.now - self.window.as_secs_f64();
        let born =
            of(&self.births).and_then(|sample| number(&sample)).filter(|born| *born >= start - BIRTH_GAP);
        let begin = born.map_or(first, |born| born.max(start));
        // What it did since it was last read is not known yet.
        Duration::try_from_secs_f64(last - begin).ok()
    }
}

/// What each proxy says of itself, and which of them cannot be read.
pub(super) fn proxies(up: &Vector, said: &Vector) -> BTreeMap<PodName, Proxy> {
    let mut proxies: BTreeMap<PodName, Proxy> = BTreeMap::new();
    for sample in said {
        let (Some(name), Some(value)) = (pod(&sample.metric), number(sample)) else { continue };
        let says = proxies.entry(name).or_default().says.get_or_insert_default();
        let label = |name: &str| sample.metric.get(name).map(String::as_str);
        says.note(label("__name__").unwrap_or_default(), value, label);
    }
    for sample in up.iter().filter(|sample| number(sample) == Some(0.0)) {
        if let Some(name) = pod(&sample.metric) {
            proxies.entry(name).or_default().failure = Some(NOT_SCRAPED.to_owned());
        }
    }
    proxies
}

const NOT_SCRAPED: &str = "Prometheus cannot scrape it; see the targets of its job conduit-proxy";

/// As in the question about increases.
const BIRTH_GAP: f64 = 10.0;

/// Pods that run with a proxy, and of which Prometheus knows nothing, or nothing new.
fn unscraped(pods: &BTreeMap<PodName, Scrapes>, inventory: &Inventory, now: f64) -> Vec<Unscraped> {
    let is_read =
        |name: &PodName| pods.get(name).is_some_and(|scrapes| !scrapes.failed && scrapes.last.is_some());
    let meshed = inventory.pods.values().filter(|pod| pod.running && pod.metrics().is_some());
    let missing = meshed.filter(|pod| !is_read(&pod.name)).map(|pod| {
        let scrapes = pods.get(&pod.name).copied().unwrap_or_default();
        let reason = match scrapes.failed {
            true => NOT_SCRAPED,
            false => "Prometheus does not scrape it as the job conduit-proxy",
        };
        Unscraped {
            namespace: pod.name.namespace.clone(),
            pod: pod.name.name.clone(),
            reason: reason.to_owned(),
            since_ms: scrapes.last.map(|last| milliseconds(now - last)),
        }
    });
    missing.collect()
}

/// Who counted.
struct Readers<'a> {
    sources: BTreeMap<PodName, Duration>,
    inventory: &'a Inventory,
}

impl Readers<'_> {
    fn counted(&self, vector: Vector, ages: &BTreeMap<Metric, Duration>) -> Vec<Counted> {
        let counted = vector.into_iter().filter_map(|sample| {
            let count = number(&sample).filter(|count| *count > 0.0 && count.is_finite())?;
            let source = Arc::new(self.source(&sample.metric)?);
            let ago = ages.get(&sample.metric).copied().unwrap_or_default();
            Some(Counted { source, labels: kept(&sample.metric), count, ago })
        });
        counted.collect()
    }

    fn measured(&self, vector: Vector) -> Vec<Measured> {
        let mut sets: BTreeMap<Metric, Buckets> = BTreeMap::new();
        for mut sample in vector {
            let bound = sample.metric.remove("le").and_then(|bound| Bound::new(bound.parse().ok()?));
            if let (Some(bound), Some(count)) = (bound, number(&sample)) {
                sets.entry(sample.metric).or_default().insert(bound, count);
            }
        }
        let is_busy = |(_, buckets): &(Metric, Buckets)| buckets.values().any(|count| *count > 0.0);
        let measured = sets.into_iter().filter(is_busy).filter_map(|(metric, buckets)| {
            let source = Arc::new(self.source(&metric)?);
            Some(Measured { source, labels: kept(&metric), buckets: apart(buckets) })
        });
        measured.collect()
    }

    /// The pod that the labels name, if it was read in the window.
    fn source(&self, metric: &Metric) -> Option<Source> {
        let pod = pod(metric)?;
        let covered = *self.sources.get(&pod)?;
        let owners = match self.inventory.pods.get(&pod) {
            Some(known) => known.owners.clone(),
            // It is gone, but what it did is not.
            None => {
                let owner = |kind: Kind| Some((kind, metric.get(kind.metric_label())?.clone()));
                OWNERS.into_iter().filter_map(owner).chain([(Kind::Pod, pod.name.clone())]).collect()
            }
        };
        Some(Source { pod, owners, covered })
    }
}

/// Counts by bucket: Prometheus has each bucket include the ones below it.
fn apart(buckets: Buckets) -> Buckets {
    let mut below = 0.0;
    let own = |(bound, count): (Bound, f64)| {
        let own = (count - below).max(0.0);
        below = count.max(below);
        (bound, own)
    };
    buckets.into_iter().map(own).collect()
}

fn ages(vector: Vector) -> BTreeMap<Metric, Duration> {
    let age = |sample: Sample| {
        let age = Duration::try_from_secs_f64(number(&sample)?).ok()?;
        Some((sample.metric, age))
    };
    vector.into_iter().filter_map(age).collect()
}

fn kept(metric: &Metric) -> Labels {
    Labels::collect(metric.iter().map(|(name, value)| (name, value.as_str())))
}

fn pod(metric: &Metric) -> Option<PodName> {
    Some(PodName::new(metric.get("namespace")?, metric.get("pod")?))
}

fn number(sample: &Sample) -> Option<f64> {
    sample.value.1.parse().ok()
}

fn milliseconds(seconds: f64) -> u64 {
    Duration::try_from_secs_f64(seconds)
        .map_or(0, |duration| u64::try_from(duration.as_millis()).unwrap_or(u64::MAX))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing;

    const NOW: f64 = 1_000.0;

    fn metric(labels: &str) -> Metric {
        let pairs = labels.split_whitespace().map(|pair| pair.split_once('=').unwrap());
        pairs.map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
    }

    fn sample(labels: &str, value: &str) -> Sample {
        Sample { metric: metric(labels), value: (NOW, value.to_owned()) }
    }

    fn scraped(labels: &str, values: &[(f64, &str)]) -> Series {
        let values = values.iter().map(|(at, up)| (*at, (*up).to_owned())).collect();
        Series { metric: metric(labels), values }
    }

    /// A pod that was read all along.
    fn answers() -> Answers {
        Answers {
            now: NOW,
            window: Duration::from_secs(60),
            scrapes: vec![scraped("namespace=shop pod=web-1", &[(950.0, "1"), (990.0, "1")])],
            known: vec![sample("namespace=shop pod=web-1", "1")],
            ..Answers::default()
        }
    }

    #[test]
    fn counts_belong_to_the_pod_that_the_labels_name() {
        let responses = vec![
            sample("namespace=shop pod=web-1 deployment=web direction=inbound tls=true", "7"),
            sample("namespace=shop pod=stranger direction=inbound", "7"),
        ];
        let samples = Answers { responses, ..answers() }.samples(&Inventory::default());
        let [counted] = &samples.responses[..] else { panic!("one count: {samples:?}") };
        assert_eq!((counted.count, counted.labels.get("tls")), (7.0, Some("true")));
        assert_eq!(counted.source.covered, Duration::from_secs(60));
        assert_eq!(counted.source.owners[&Kind::Deployment], "web");
        assert_eq!(samples.sources, [PodName::new("shop", "web-1")].into());
    }

    #[test]
    fn proxies_say_through_prometheus_what_they_say_themselves() {
        let said = vec![sample("__name__=tls_usable namespace=shop pod=web-1 tls=expired", "0")];
        let up = vec![sample("namespace=shop pod=web-1", "1"), sample("namespace=shop pod=api-1", "0")];
        let proxies = proxies(&up, &said);
        let web = &proxies[&PodName::new("shop", "web-1")];
        assert_eq!(web.says.as_ref().and_then(|says| says.tls.as_deref()), Some("expired"));
        assert_eq!(web.failure, None);
        let api = &proxies[&PodName::new("shop", "api-1")];
        assert!(api.says.is_none() && api.failure.as_ref().is_some_and(|why| why.contains("cannot scrape")));
    }

    #[test]
    fn buckets_are_taken_apart() {
        let bucket =
            |le: &str, count| sample(&format!("namespace=shop pod=web-1 direction=inbound le={le}"), count);
        let latencies = vec![bucket("+Inf", "9"), bucket("1.0", "2"), bucket("5.0", "8")];
        let samples = Answers { latencies, ..answers() }.samples(&Inventory::default());
        let [measured] = &samples.latencies[..] else { panic!("one histogram") };
        assert_eq!(measured.buckets.values().copied().collect::<Vec<_>>(), [2.0, 6.0, 1.0]);
    }

    #[test]
    fn a_pod_that_came_in_the_window_is_covered_from_its_birth_or_its_first_reading() {
        let covered = |births: Vector| {
            let answers = Answers { births, known: Vec::new(), ..answers() };
            answers.samples(&Inventory::default()).covered
        };
        assert_eq!(covered(Vec::new()), Duration::from_secs(40));
        assert_eq!(covered(vec![sample("namespace=shop pod=web-1", "945")]), Duration::from_secs(45));
        assert_eq!(covered(vec![sample("namespace=shop pod=web-1", "5")]), Duration::from_secs(40));
    }

    #[test]
    fn pods_that_prometheus_cannot_tell_of_are_named() {
        let mut inventory = Inventory::default();
        for name in ["web", "api", "db"] {
            let pod = testing::pod("shop", name, 1);
            let pod = crate::inventory::Pod { ip: Some("10.0.0.1".parse().unwrap()), ..pod };
            inventory.pods.insert(pod.name.clone(), Arc::new(pod));
        }
        let mut answers = answers();
        answers.scrapes.push(scraped("namespace=shop pod=api-1", &[(950.0, "1"), (990.0, "0")]));
        let unscraped = answers.samples(&inventory).unscraped;
        let told: Vec<_> = unscraped.iter().map(|pod| (pod.pod.as_str(), pod.since_ms)).collect();
        assert_eq!(told, [("api-1", Some(50_000)), ("db-1", None)]);
        assert!(
            unscraped[0].reason.contains("cannot scrape") && unscraped[1].reason.contains("does not scrape")
        );
    }

    #[test]
    fn what_last_grew_long_ago_is_known_to_have() {
        let labels = "namespace=shop pod=web-1 direction=inbound tls=true";
        let responses = vec![sample(labels, "7")];
        let ages = [vec![sample(labels, "45")], Vec::new()];
        let samples = Answers { responses, ages, ..answers() }.samples(&Inventory::default());
        assert_eq!(samples.responses[0].ago, Duration::from_secs(45));
    }
}
