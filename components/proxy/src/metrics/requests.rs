//! Requests and responses: `request_total`, `response_total`, `response_latency_ms`.
//!
//! A [`Route`] is resolved once per connection and kind of request; counting on it is a few relaxed atomics.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use arc_swap::ArcSwap;
use http::StatusCode;
use prometheus_client::{
    encoding::{EncodeLabelSet, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::MetricType,
};

use super::{
    histogram::Histogram,
    labels::{OTHER, RouteLabels, label, optional},
    table::{Face, Series, Table},
};

/// Kinds of response that one route tells apart: far more than statuses in use, and an application may invent some.
const MAX_CLASSES: usize = 64;

/// The highest status code that gRPC defines (UNAUTHENTICATED).
const MAX_GRPC_STATUS: u16 = 16;

pub(super) type Routes = Table<RouteLabels, Route>;

/// Registers the families that routes show.
pub(super) fn register(registry: &conduit_runtime::metrics::Registry, routes: &Routes) {
    let face = |metric_type, encode| Face { table: routes.clone(), metric_type, encode };
    registry.register(
        "request",
        "Requests that began.",
        face(MetricType::Counter, |encoder, labels, route| {
            encoder
                .encode_family(labels)?
                .encode_counter::<NoLabelSet, _, u64>(&route.requests.load(Relaxed), None)
        }),
    );
    registry.register(
        "response",
        "Responses that ended, and requests that ended without one.",
        face(MetricType::Counter, |encoder, labels, route| {
            route.each_class(labels, encoder, |encoder, responses| {
                encoder.encode_counter::<NoLabelSet, _, u64>(&responses.total.load(Relaxed), None)
            })
        }),
    );
    registry.register(
        "response_latency_ms",
        "Milliseconds from a request's arrival to the first data of its response.",
        face(MetricType::Histogram, |encoder, labels, route| {
            route.each_class(labels, encoder, |encoder, responses| responses.latency.encode(encoder))
        }),
    );
}

/// How a response counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Class {
    /// Whether the server did what it was asked.
    pub(crate) success: bool,
    /// The status of the response; none without a response.
    pub(crate) status: Option<u16>,
    /// The status of the call, where it was a gRPC call.
    pub(crate) grpc: Option<u16>,
    /// What kept the response from being whole.
    pub(crate) failure: Option<&'static str>,
}

impl Class {
    /// The class of a response that arrived whole: gRPC's word counts where there is one.
    pub(crate) fn complete(status: StatusCode, grpc: Option<u16>) -> Self {
        let success = grpc.map_or(!status.is_server_error(), |code| code == 0);
        Self { success, status: Some(status.as_u16()), grpc, failure: None }
    }

    /// The class of a request that ended otherwise, for which `failure` is the word.
    pub(crate) fn failed(status: Option<StatusCode>, failure: &'static str) -> Self {
        Self {
            success: false,
            status: status.map(|status| status.as_u16()),
            grpc: None,
            failure: Some(failure),
        }
    }

    /// What stands for the classes beyond [`MAX_CLASSES`].
    fn other(self) -> Self {
        Self { success: self.success, status: None, grpc: None, failure: Some(OTHER) }
    }
}

/// Requests of one authority, in one direction, to one endpoint, over one kind of connection.
#[derive(Debug, Default)]
pub(crate) struct Route {
    requests: AtomicU64,
    /// Few, and in the order of first appearance.
    classes: ArcSwap<Vec<(Class, Arc<Responses>)>>,
}

#[derive(Debug, Default)]
struct Responses {
    total: AtomicU64,
    latency: Histogram,
}

impl Route {
    /// A request began.
    pub(crate) fn request(&self) {
        self.requests.fetch_add(1, Relaxed);
    }

    /// A request ended, `latency` after its arrival having had its first data.
    pub(crate) fn response(&self, class: Class, latency: Duration) {
        let responses = find(&self.classes.load(), class).unwrap_or_else(|| self.add(class));
        responses.total.fetch_add(1, Relaxed);
        responses.latency.observe(latency);
    }

    fn add(&self, class: Class) -> Arc<Responses> {
        let mut added = Arc::default();
        self.classes.rcu(|classes| {
            let full = classes.len() >= MAX_CLASSES && find(classes, class).is_none();
            let class = if full { class.other() } else { class };
            match find(classes, class) {
                Some(known) => {
                    added = known;
                    Arc::clone(classes)
                }
                None => {
                    let mut more = Vec::clone(classes);
                    more.push((class, Arc::clone(&added)));
                    Arc::new(more)
                }
            }
        });
        added
    }

    fn each_class(
        &self,
        labels: &RouteLabels,
        encoder: &mut MetricEncoder<'_>,
        mut each: impl FnMut(&mut MetricEncoder<'_>, &Responses) -> fmt::Result,
    ) -> fmt::Result {
        let mut classes = Vec::clone(&self.classes.load());
        classes.sort_by_key(|(class, _)| *class);
        classes.iter().try_for_each(|(class, responses)| {
            each(&mut encoder.encode_family(&ResponseLabels { route: labels, class: *class })?, responses)
        })
    }
}

fn find(classes: &[(Class, Arc<Responses>)], class: Class) -> Option<Arc<Responses>> {
    classes.iter().find(|(known, _)| *known == class).map(|(_, responses)| Arc::clone(responses))
}

impl Series for Route {
    fn activity(&self) -> u64 {
        let responses =
            self.classes.load().iter().map(|(_, responses)| responses.total.load(Relaxed)).sum::<u64>();
        self.requests.load(Relaxed).wrapping_add(responses)
    }
}

struct ResponseLabels<'a> {
    route: &'a RouteLabels,
    class: Class,
}

impl EncodeLabelSet for ResponseLabels<'_> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.route.encode(encoder)?;
        label(encoder, "classification", classification(self.class.success))?;
        optional(encoder, "status_code", self.class.status.map(|code| code.to_string()).as_deref())?;
        let grpc =
            self.class.grpc.map(|code| if code <= MAX_GRPC_STATUS { code.to_string() } else { OTHER.into() });
        optional(encoder, "grpc_status_code", grpc.as_deref())?;
        optional(encoder, "failure", self.class.failure)
    }
}

/// The value of the `classification` label.
pub(super) const fn classification(success: bool) -> &'static str {
    if success { "success" } else { "failure" }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn classification_follows_grpc_then_http() {
        let table = [
            (200, None, true),
            (304, None, true),
            (400, None, true),
            (418, None, true),
            (500, None, false),
            (504, None, false),
            (200, Some(0), true),
            (200, Some(13), false),
            (500, Some(0), true),
        ];
        for (status, grpc, success) in table {
            let class = Class::complete(StatusCode::from_u16(status).unwrap(), grpc);
            assert_eq!(class.success, success, "{status} {grpc:?}");
        }
        assert!(!Class::failed(None, "refused").success);
    }

    #[test]
    fn a_class_is_one_series_however_often_it_comes() {
        let route = Route::default();
        let class = Class::complete(StatusCode::OK, None);
        for _ in 0..3 {
            route.response(class, Duration::from_millis(2));
        }
        let classes = route.classes.load();
        assert_eq!(classes.len(), 1);
        assert_eq!((classes[0].1.total.load(Relaxed), classes[0].1.latency.count()), (3, 3));
    }

    #[test]
    fn invented_statuses_are_bounded() {
        let route = Route::default();
        for status in 100..999 {
            route.response(Class::complete(StatusCode::from_u16(status).unwrap(), None), Duration::ZERO);
        }
        assert!(route.classes.load().len() <= MAX_CLASSES + 2);
        assert_eq!(route.activity(), 899);
    }
}
