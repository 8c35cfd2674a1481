//! The metrics of connections and requests.

use std::{collections::BTreeMap, sync::Arc};

/// Labels of a destination, as the destination service gave them, sorted by key. Cheap to clone.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub(crate) struct Labels(Arc<BTreeMap<String, String>>);

impl Labels {
    /// The labels, by key.
    pub(crate) fn iter(&self) -> impl Iterator<Item = (&str, &str)> {
        self.0.iter().map(|(key, value)| (key.as_str(), value.as_str()))
    }
}

impl FromIterator<(String, String)> for Labels {
    fn from_iter<I: IntoIterator<Item = (String, String)>>(labels: I) -> Self {
        Self(Arc::new(labels.into_iter().collect()))
    }
}

/// What sessions record to. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Metrics {}

impl Metrics {
    /// Registers the metrics of sessions.
    pub(crate) fn register(registry: &conduit_runtime::metrics::Registry) -> Self {
        let _ = registry;
        Self {}
    }
}
