//! Live requests, for whoever may see them.

/// Where sessions offer what happens. Cheap to clone.
#[derive(Debug, Clone, Default)]
pub(crate) struct Tap {}
