//! The label sets of the proxy's series, and what keeps their number bounded.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt::{self, Write as _},
    sync::Arc,
};

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeLabel, EncodeLabelSet, LabelSetEncoder};

use crate::session::{Direction, Side, TlsStatus};

/// Labels kept of one destination; far more than Conduit's own destination service sends.
const MAX_LABELS: usize = 32;
/// Octets kept of a destination's label value: a name in Kubernetes has at most 253.
const MAX_VALUE: usize = 256;

/// What stands for every value beyond a cap.
pub(crate) const OTHER: &str = "other";

/// Labels of a destination, as the destination service gave them: valid names, sorted, bounded. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Labels(Arc<[(Box<str>, Box<str>)]>);

impl Labels {
    /// The labels of a service and of one of its pods; where both have one, the pod's counts.
    pub(crate) fn merged(service: &BTreeMap<String, String>, pod: &BTreeMap<String, String>) -> Self {
        service.iter().chain(pod).map(|(key, value)| (key.clone(), value.clone())).collect()
    }

    /// The labels, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (&**key, &**value))
    }

    /// The value of one label.
    pub(crate) fn get(&self, key: &str) -> Option<&str> {
        let index = self.0.binary_search_by_key(&key, |(key, _)| key).ok()?;
        self.0.get(index).map(|(_, value)| &**value)
    }

    /// Whether both are the same labels, at the cost of comparing an address: a false negative costs a look-up.
    pub(crate) fn is(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        let by_name: BTreeMap<Box<str>, Box<str>> = labels
            .into_iter()
            .filter(|(key, _)| !key.is_empty())
            .map(|(key, value)| (label_name(&key).into(), shortened(&value, MAX_VALUE).into()))
            .collect();
        Self(by_name.into_iter().take(MAX_LABELS).collect())
    }
}

/// The name of a label as the exposition format allows it; behind the prefix `dst_` a digit may come first.
fn label_name(key: &str) -> String {
    let allowed = |c: char| if c.is_ascii_alphanumeric() { c } else { '_' };
    shortened(key, MAX_VALUE).chars().map(allowed).collect()
}

fn shortened(text: &str, max: usize) -> &str {
    text.get(..text.floor_char_boundary(max)).unwrap_or_default()
}

/// Who carried the bytes and under whose names: the labels that follow from a [`TlsStatus`].
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TlsLabels {
    tls: &'static str,
    reason: Option<&'static str>,
    client_id: Option<Arc<str>>,
    server_id: Option<Arc<str>>,
}

impl TlsLabels {
    /// The labels of `status`, with identities capped by `identities`.
    pub(crate) fn of(status: &TlsStatus, identities: &Cap) -> Self {
        Self {
            tls: status.label(),
            reason: status.reason(),
            client_id: status.client_id().map(|id| identities.admit(id)),
            server_id: status.server_id().map(|id| identities.admit(id)),
        }
    }

    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        label(encoder, "tls", self.tls)?;
        optional(encoder, "tls_reason", self.reason)?;
        optional(encoder, "client_id", self.client_id.as_deref())?;
        optional(encoder, "server_id", self.server_id.as_deref())
    }
}

/// The labels of a route: requests of one authority, in one direction, to one endpoint, over one kind of connection.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct RouteLabels {
    pub(crate) authority: Arc<str>,
    pub(crate) direction: Direction,
    pub(crate) dst: Labels,
    pub(crate) tls: TlsLabels,
}

impl EncodeLabelSet for RouteLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        label(encoder, "authority", &self.authority)?;
        label(encoder, "direction", self.direction.label())?;
        prefixed(encoder, "dst_", &self.dst)?;
        self.tls.encode(encoder)
    }
}

/// The labels of connections to or from one kind of peer.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct TransportLabels {
    pub(crate) direction: Direction,
    pub(crate) side: Side,
    pub(crate) dst: Labels,
    pub(crate) tls: TlsLabels,
}

impl EncodeLabelSet for TransportLabels {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        label(encoder, "direction", self.direction.label())?;
        label(encoder, "peer", self.side.label())?;
        prefixed(encoder, "dst_", &self.dst)?;
        self.tls.encode(encoder)
    }
}

/// One label more than `0` has.
#[derive(Debug, Clone, Copy)]
pub(crate) struct And<'a, L>(pub(crate) &'a L, pub(crate) &'static str, pub(crate) &'a str);

impl<L: EncodeLabelSet> EncodeLabelSet for And<'_, L> {
    fn encode(&self, encoder: &mut LabelSetEncoder<'_>) -> fmt::Result {
        self.0.encode(encoder)?;
        label(encoder, self.1, self.2)
    }
}

/// Encodes one label; values are escaped.
pub(crate) fn label(encoder: &mut LabelSetEncoder<'_>, key: &str, value: &str) -> fmt::Result {
    (key, value).encode(encoder.encode_label())
}

/// Encodes a label that a series may lack.
pub(crate) fn optional(encoder: &mut LabelSetEncoder<'_>, key: &str, value: Option<&str>) -> fmt::Result {
    value.map_or(Ok(()), |value| label(encoder, key, value))
}

fn prefixed(encoder: &mut LabelSetEncoder<'_>, prefix: &str, labels: &Labels) -> fmt::Result {
    for (name, text) in labels.iter() {
        let mut label = encoder.encode_label();
        let mut key = label.encode_label_key()?;
        key.write_str(prefix)?;
        key.write_str(name)?;
        let mut value = key.encode_label_value()?;
        value.write_str(text)?;
        value.finish()?;
    }
    Ok(())
}

/// Bounds how many different values of a label exist at a time, for labels whose values others choose.
#[derive(Debug)]
pub(crate) struct Cap {
    max: usize,
    known: Mutex<BTreeSet<Arc<str>>>,
    other: Arc<str>,
}

impl Cap {
    /// At most `max` values.
    pub(crate) fn new(max: usize) -> Self {
        Self { max, known: Mutex::default(), other: OTHER.into() }
    }

    /// `value`, or [`OTHER`] when that would be one too many.
    pub(crate) fn admit(&self, value: &str) -> Arc<str> {
        let mut known = self.known.lock();
        if let Some(value) = known.get(value) {
            return Arc::clone(value);
        }
        if known.len() >= self.max {
            return Arc::clone(&self.other);
        }
        let value: Arc<str> = value.into();
        known.insert(Arc::clone(&value));
        value
    }

    /// Forgets the values that no series has any more.
    pub(crate) fn forget_unused(&self) {
        self.known.lock().retain(|value| Arc::strong_count(value) > 1);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn labels(pairs: &[(&str, &str)]) -> Labels {
        pairs.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
    }

    #[test]
    fn names_are_made_valid_and_everything_is_bounded() {
        let long = "é".repeat(MAX_VALUE);
        let given = labels(&[("pod-template/hash", "1"), ("", "x"), ("pod", &long)]);
        assert_eq!(given.get("pod_template_hash"), Some("1"));
        assert_eq!(given.get("pod").unwrap().len(), MAX_VALUE);
        assert_eq!(given.iter().count(), 2);
        let many = (0..100).map(|n| (format!("label{n}"), String::new())).collect::<Labels>();
        assert_eq!(many.iter().count(), MAX_LABELS);
    }

    #[test]
    fn beyond_the_cap_values_are_other_until_old_ones_are_unused() {
        let cap = Cap::new(2);
        let (a, b) = (cap.admit("a"), cap.admit("b"));
        assert_eq!((&*a, &*b, &*cap.admit("c")), ("a", "b", OTHER));
        assert!(Arc::ptr_eq(&a, &cap.admit("a")));
        drop(b);
        cap.forget_unused();
        assert_eq!(&*cap.admit("c"), "c");
        assert_eq!(&*cap.admit("b"), OTHER);
    }
}
