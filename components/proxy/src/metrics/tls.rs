//! What TLS does and what it comes to: handshakes, fallbacks, refusals, reloads, credentials.

use std::{collections::BTreeMap, fmt, io, sync::Arc, time::Duration};

use conduit_identity::{HandshakeFailure, ReloadResult, Store, Unusable};
use conduit_runtime::metrics::Registry;
use parking_lot::Mutex;
use prometheus_client::{
    encoding::{EncodeLabelSet, EncodeMetric, LabelSetEncoder, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::Counter},
};

use super::{
    counters::Counters,
    histogram::Histogram,
    labels::{label, optional},
};
use crate::session::Direction;

const SUCCESS: &str = "success";

/// What is counted of TLS. Cloning shares.
#[derive(Debug, Clone)]
pub(crate) struct Tls {
    handshakes: Arc<[Handshakes; 2]>,
    fallbacks: Counters<{ HandshakeFailure::ALL.len() }>,
    refusals: Counters<{ Unusable::ALL.len() }>,
    reloads: Reloads,
    outlived: Counter,
}

impl Tls {
    pub(super) fn register(registry: &Registry) -> Self {
        let tls = Self {
            handshakes: Arc::default(),
            fallbacks: Counters::new("reason", HandshakeFailure::ALL.map(HandshakeFailure::label)),
            refusals: Counters::new("reason", Unusable::ALL.map(Unusable::label)),
            reloads: Reloads::default(),
            outlived: Counter::default(),
        };
        let total = HandshakeTotals(Arc::clone(&tls.handshakes));
        registry.register("tls_handshake", "Handshakes, by their result.", total);
        let durations = HandshakeDurations(Arc::clone(&tls.handshakes));
        registry.register(
            "tls_handshake_duration_ms",
            "Milliseconds a handshake took, by its result.",
            durations,
        );
        let help = "Connections that went on in plaintext after a failed handshake, by the reason.";
        registry.register("tls_fallback", help, tls.fallbacks.clone());
        let help = "Handshakes for this proxy refused for want of usable credentials, by the reason.";
        registry.register("tls_refused", help, tls.refusals.clone());
        registry.register(
            "tls_config_reload",
            "Looks at the credentials' files that had news.",
            tls.reloads.clone(),
        );
        let help = "1 while the credentials' files are not usable as they are; the labels say why, as those of reloads do.";
        registry.register("tls_config_failing", help, Failing(tls.reloads.clone()));
        let help = "Streams still open when a certificate of their connection expired: they are not cut.";
        registry.register("tls_outlived_streams", help, tls.outlived.clone());
        tls
    }

    /// A handshake ended.
    pub(crate) fn handshake(
        &self,
        direction: Direction,
        result: Result<(), HandshakeFailure>,
        took: Duration,
    ) {
        let [inbound, outbound] = &*self.handshakes;
        let handshakes = match direction {
            Direction::Inbound => inbound,
            Direction::Outbound => outbound,
        };
        handshakes.by_result(result.err()).observe(took);
    }

    /// A connection goes on in plaintext because a handshake failed.
    pub(crate) fn fallback(&self, reason: HandshakeFailure) {
        self.fallbacks.inc(reason.label());
    }

    /// A handshake for this proxy was refused: it holds no usable credentials.
    pub(crate) fn refused(&self, reason: Unusable) {
        self.refusals.inc(reason.label());
    }

    /// The credentials' files were looked at and had news.
    pub(crate) fn reload(&self, result: &ReloadResult) {
        self.reloads.count(result);
    }

    /// A stream outlives the certificates of its connection.
    pub(crate) fn outlived(&self) {
        self.outlived.inc();
    }
}

/// Registers what is known of the credentials in `store`, read whenever the metrics are.
pub(super) fn register_credentials(registry: &Registry, store: &Store) {
    let gauge = |value: fn(&Store) -> Option<f64>| CredentialsGauge { store: store.clone(), value };
    let help = "When the certificate held begins to be valid, in seconds since 1970.";
    registry.register(
        "tls_certificate_not_before_seconds",
        help,
        gauge(|store| store.held().map(|held| held.not_before().0.as_secs_f64())),
    );
    let help = "When the certificate held stops being valid, in seconds since 1970.";
    registry.register(
        "tls_certificate_not_after_seconds",
        help,
        gauge(|store| store.held().map(|held| held.not_after().0.as_secs_f64())),
    );
    let help = "1 when TLS can be done now; the label says why not otherwise.";
    registry.register("tls_usable", help, Usable(store.clone()));
    let help = "1 for the certificate held: the SHA-256 of it, and whom it proves this proxy to be.";
    registry.register("tls_certificate_info", help, CertificateInfo(store.clone()));
}

/// Durations by result; the first is for success.
#[derive(Debug, Default)]
struct Handshakes([Histogram; HandshakeFailure::ALL.len() + 1]);

impl Handshakes {
    fn by_result(&self, failure: Option<HandshakeFailure>) -> &Histogram {
        let index = HandshakeFailure::ALL.iter().position(|known| Some(*known) == failure);
        &self.0[index.map_or(0, |index| index + 1)]
    }

    fn iter(&self) -> impl Iterator<Item = (&'static str, &Histogram)> {
        let results = [SUCCESS].into_iter().chain(HandshakeFailure::ALL.map(HandshakeFailure::label));
        results.zip(&self.0)
    }
}

fn each(
    handshakes: &[Handshakes; 2],
    mut each: impl FnMut([(&str, &str); 2], &Histogram) -> fmt::Result,
) -> fmt::Result {
    let directions = [Direction::Inbound, Direction::Outbound];
    directions.iter().zip(handshakes).try_for_each(|(direction, handshakes)| {
        handshakes.iter().try_for_each(|(result, durations)| {
            each([("direction", direction.label()), ("result", result)], durations)
        })
    })
}

#[derive(Debug)]
struct HandshakeTotals(Arc<[Handshakes; 2]>);

impl EncodeMetric for HandshakeTotals {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        each(&self.0, |labels, durations| {
            encoder.encode_family(&labels)?.encode_counter::<NoLabelSet, _, u64>(&durations.count(), None)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }
}

#[derive(Debug)]
struct HandshakeDurations(Arc<[Handshakes; 2]>);

impl EncodeMetric for HandshakeDurations {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        each(&self.0, |labels, durations| match durations.count() {
            0 => Ok(()),
            _ => durations.encode(&mut encoder.encode_family(&labels)?),
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Histogram
    }

    fn is_empty(&self) -> bool {
        self.0.iter().flat_map(Handshakes::iter).all(|(_, durations)| durations.count() == 0)
    }
}

/// Reloads by class; there are three files and a dozen classes, and they change every few hours.
#[derive(Debug, Clone, Default)]
struct Reloads(Arc<Mutex<Counted>>);

#[derive(Debug, Default)]
struct Counted {
    counts: BTreeMap<ReloadLabels, u64>,
    /// The last one, unless it succeeded.
    failing: Option<ReloadLabels>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
struct ReloadLabels {
    status: &'static str,
    path: Option<String>,
    errno: Option<String>,
}

impl Reloads {
    fn count(&self, result: &ReloadResult) {
        let (path, errno) = match result {
            ReloadResult::Unreadable(error) => {
                (Some(error.path.display().to_string()), Some(errno(&error.source)))
            }
            ReloadResult::Reloaded | ReloadResult::Rejected(_) => (None, None),
        };
        let labels = ReloadLabels { status: result.status(), path, errno };
        let mut counted = self.0.lock();
        let is_failure = !matches!(result, ReloadResult::Reloaded);
        counted.failing = is_failure.then(|| labels.clone());
        *counted.counts.entry(labels).or_default() += 1;
    }
}

/// The name of an error as the C library spells it, where it is one that reading a file meets.
fn errno(error: &io::Error) -> String {
    match error.kind() {
        io::ErrorKind::NotFound => "ENOENT".into(),
        io::ErrorKind::PermissionDenied => "EACCES".into(),
        io::ErrorKind::IsADirectory => "EISDIR".into(),
        io::ErrorKind::NotADirectory => "ENOTDIR".into(),
        io::ErrorKind::FileTooLarge => "EFBIG".into(),
        io::ErrorKind::StaleNetworkFileHandle => "ESTALE".into(),
        io::ErrorKind::InvalidInput => "EINVAL".into(),
        _ => error.raw_os_error().map_or_else(|| "other".into(), |code| code.to_string()),
    }
}

impl EncodeMetric for Reloads {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.lock().counts.iter().try_for_each(|(labels, count)| {
            encoder.encode_family(labels)?.encode_counter::<NoLabelSet, _, u64>(count, None)
        })
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Counter
    }

    fn is_empty(&self) -> bool {
        self.0.lock().counts.is_empty()
    }
}

/// What was wrong when the files were last looked at and had news.
#[derive(Debug)]
struct Failing(Reloads);

impl EncodeMetric for Failing {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        match &self.0.0.lock().failing {
            Some(labels) => encoder.encode_family(labels)?.encode_gauge(&1_i64),
            None => Ok(()),
        }
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.0.lock().failing.is_none()
    }
}

impl EncodeLabelSet for ReloadLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        label(encoder, "status", self.status)?;
        optional(encoder, "path", self.path.as_deref())?;
        optional(encoder, "errno", self.errno.as_deref())
    }
}

#[derive(Debug)]
struct CredentialsGauge {
    store: Store,
    value: fn(&Store) -> Option<f64>,
}

impl EncodeMetric for CredentialsGauge {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        (self.value)(&self.store).map_or(Ok(()), |value| encoder.encode_gauge(&value))
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        (self.value)(&self.store).is_none()
    }
}

#[derive(Debug)]
struct Usable(Store);

impl EncodeMetric for Usable {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let (label, value) = match self.0.current() {
            Ok(_) => ("true", 1_i64),
            Err(reason) => (reason.label(), 0),
        };
        encoder.encode_family(&[("tls", label)])?.encode_gauge(&value)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }
}

#[derive(Debug)]
struct CertificateInfo(Store);

impl EncodeMetric for CertificateInfo {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        let Some(held) = self.0.held() else { return Ok(()) };
        let labels =
            [("fingerprint", held.fingerprint().to_string()), ("identity", held.identity().to_string())];
        encoder.encode_family(&labels)?.encode_gauge(&1_i64)
    }

    fn metric_type(&self) -> MetricType {
        MetricType::Gauge
    }

    fn is_empty(&self) -> bool {
        self.0.held().is_none()
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use conduit_identity::ReadError;

    use super::*;

    #[test]
    fn handshakes_fallbacks_and_reloads_are_counted_by_result() {
        let registry = Registry::default();
        let tls = Tls::register(&registry);
        tls.handshake(Direction::Inbound, Ok(()), Duration::from_millis(3));
        tls.handshake(Direction::Outbound, Err(HandshakeFailure::Timeout), Duration::from_secs(1));
        tls.fallback(HandshakeFailure::Timeout);
        tls.refused(Unusable::NoConfig);
        assert!(!registry.encode().contains("tls_config_failing"));
        let source = io::Error::from(io::ErrorKind::NotFound);
        tls.reload(&ReloadResult::Unreadable(ReadError { path: PathBuf::from("/tls/tls.crt"), source }));
        let failing = "tls_config_failing{status=\"io_error\",path=\"/tls/tls.crt\",errno=\"ENOENT\"} 1\n";
        assert!(registry.encode().contains(failing));
        tls.reload(&ReloadResult::Reloaded);
        let text = registry.encode();
        for expected in [
            "tls_handshake_total{direction=\"inbound\",result=\"success\"} 1\n",
            "tls_handshake_total{direction=\"outbound\",result=\"timeout\"} 1\n",
            "tls_handshake_total{direction=\"outbound\",result=\"success\"} 0\n",
            "tls_handshake_duration_ms_bucket{le=\"3.0\",direction=\"inbound\",result=\"success\"} 1\n",
            "tls_fallback_total{reason=\"timeout\"} 1\n",
            "tls_refused_total{reason=\"no_config\"} 1\n",
            "tls_config_reload_total{status=\"io_error\",path=\"/tls/tls.crt\",errno=\"ENOENT\"} 1\n",
            "tls_config_reload_total{status=\"reloaded\"} 1\n",
        ] {
            assert!(text.contains(expected), "{expected} is not in\n{text}");
        }
        assert!(!text.contains(failing), "{text}");
    }

    #[test]
    fn a_store_without_credentials_says_why_and_shows_no_expiry() {
        let registry = Registry::default();
        register_credentials(&registry, &Store::disabled());
        let text = registry.encode();
        assert!(text.contains("tls_usable{tls=\"disabled\"} 0\n"), "{text}");
        assert!(!text.contains("not_after") && !text.contains("certificate_info"), "{text}");
    }
}
