//! What the proxies counted between two ends.

use std::{sync::Arc, time::Duration};

use super::{Facts, Question, Seen};
use crate::{
    hop::Hop,
    inventory::{Object, Pod},
    kind::Kind,
    query::DEFAULT_WINDOW,
    samples::Counted,
};

/// How far back the latest is: a few readings of every proxy.
pub(crate) const LATEST: Duration = Duration::from_secs(10);

/// The counts of the latest look back that has any; of connections only where there are no responses, because an idle one
/// tells of the time when it was opened.
pub(super) fn between(question: &Question, to: Option<&[Arc<Pod>]>, facts: &Facts<'_>) -> Seen {
    let [latest, all] = facts.samples;
    let looks = [
        (LATEST, &latest.responses, false),
        (DEFAULT_WINDOW, &all.responses, false),
        (LATEST, &latest.connections, true),
        (DEFAULT_WINDOW, &all.connections, true),
    ];
    let counting = Counting { question, to, facts };
    let mut seen = Seen::default();
    for (window, samples, connections) in looks {
        let window_ms = u64::try_from(window.as_millis()).unwrap_or(u64::MAX);
        seen = counting.count(samples, Seen { window_ms, connections, ..Seen::default() });
        if seen.total() > 0.0 {
            break;
        }
    }
    seen
}

struct Counting<'a> {
    question: &'a Question,
    to: Option<&'a [Arc<Pod>]>,
    facts: &'a Facts<'a>,
}

impl Counting<'_> {
    fn count(&self, samples: &[Counted], mut seen: Seen) -> Seen {
        for sample in samples.iter().filter(|sample| self.is_meant(sample)) {
            let tls = sample.labels.get("tls").unwrap_or("unknown");
            match tls {
                // Probes are not traffic, and what never left its pod has not crossed anything.
                "kubelet_probe" | "internal_traffic" | "loopback" => {}
                "true" => seen.encrypted += sample.count,
                "app_tls" => seen.app_tls += sample.count,
                _ => {
                    let reason = sample.labels.get("tls_reason");
                    let why = reason.map_or_else(|| tls.to_owned(), |reason| format!("{tls} ({reason})"));
                    *seen.plaintext.entry(why).or_default() += sample.count;
                }
            }
        }
        seen
    }

    fn is_meant(&self, sample: &Counted) -> bool {
        let Some(hop) = Hop::read(&sample.source, &sample.labels, self.facts.inventory) else { return false };
        // Of the two connections that a proxy has for each one of the application, the one between pods.
        let between_pods = if hop.is_inbound { "src" } else { "dst" };
        if sample.labels.get("peer").is_some_and(|peer| peer != between_pods) {
            return false;
        }
        let from = &self.question.from;
        match (&self.question.to, hop.is_inbound) {
            (None, true) => hop.server(from.kind).as_ref() == Some(from),
            (None, false) => hop.client(from.kind).as_ref() == Some(from),
            (Some(_), true) => false,
            (Some(to), false) => {
                hop.client(from.kind).as_ref() == Some(from) && self.reaches(&hop, sample, to)
            }
        }
    }

    /// Whether a hop leads to `to`. Where discovery did not say which pod it was, the name that the client used tells.
    fn reaches(&self, hop: &Hop<'_>, sample: &Counted, to: &Object) -> bool {
        if let Some(server) = hop.server(to.kind) {
            return server == *to;
        }
        if sample.labels.get("dst_pod").is_some() {
            return false;
        }
        let behind = |service: &Object| {
            let mut pods = self.facts.inventory.behind(&service.namespace, &service.name);
            pods.any(|pod| self.to.into_iter().flatten().any(|wanted| wanted.name == pod.name))
        };
        hop.server(Kind::Service).as_ref().is_some_and(behind)
    }
}
