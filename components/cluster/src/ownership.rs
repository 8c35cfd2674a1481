//! Who owns which field.

use serde_json::Value;

/// Records that `manager` made `after` out of `before`.
pub(crate) fn updated(
    before: Option<&Value>,
    after: &mut Value,
    manager: &str,
    subresource: &str,
    now: &str,
) {
    let _ = (before, after, manager, subresource, now);
}
