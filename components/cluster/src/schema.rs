//! How lists merge: which lists are maps in disguise, and by which fields their items are told apart. What the Go types
//! say in `patchMergeKey` and `listMapKeys`, for the kinds we serve.

/// How a list behaves under a strategic merge patch and under server-side apply.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum ListKind {
    /// Replaced as a whole.
    Atomic,
    /// A set of scalars.
    Set,
    /// Items are told apart by these fields. A strategic merge patch looks at the first alone.
    Map(&'static [&'static str]),
}

/// The kind of the list at the end of `path`, a chain of field names from the object's root in which list items leave
/// no trace.
pub(crate) fn list_kind(path: &[&str]) -> ListKind {
    let Some((&field, parents)) = path.split_last() else { return ListKind::Atomic };
    let parent = parents.last().copied().unwrap_or_default();
    match (parent, field) {
        ("metadata", "ownerReferences") => ListKind::Map(&["uid"]),
        ("metadata", "finalizers") | ("spec", "finalizers") => ListKind::Set,
        (_, "containers" | "initContainers" | "ephemeralContainers") => ListKind::Map(&["name"]),
        ("containers" | "initContainers" | "ephemeralContainers", "env") => ListKind::Map(&["name"]),
        ("containers" | "initContainers" | "ephemeralContainers", "volumeMounts") => {
            ListKind::Map(&["mountPath"])
        }
        ("containers" | "initContainers" | "ephemeralContainers", "volumeDevices") => {
            ListKind::Map(&["devicePath"])
        }
        ("containers" | "initContainers" | "ephemeralContainers", "ports") => {
            ListKind::Map(&["containerPort", "protocol"])
        }
        ("spec", "volumes") => ListKind::Map(&["name"]),
        ("spec", "hostAliases") => ListKind::Map(&["ip"]),
        ("spec", "topologySpreadConstraints") => ListKind::Map(&["topologyKey", "whenUnsatisfiable"]),
        (_, "imagePullSecrets") => ListKind::Map(&["name"]),
        ("", "secrets") => ListKind::Map(&["name"]),
        ("status", "conditions") => ListKind::Map(&["type"]),
        ("status", "podIPs" | "hostIPs") => ListKind::Map(&["ip"]),
        // A Service's, told from a container's by its parent.
        ("spec", "ports") => ListKind::Map(&["port", "protocol"]),
        _ => ListKind::Atomic,
    }
}

/// Whether the object at the end of `path` is owned and replaced as a whole.
pub(crate) fn is_atomic_map(path: &[&str]) -> bool {
    matches!(
        path,
        [
            ..,
            "selector"
                | "matchLabels"
                | "nodeSelector"
                | "resourceFieldRef"
                | "fieldRef"
                | "secretKeyRef"
                | "configMapKeyRef"
        ] | [.., "roleRef" | "involvedObject" | "targetRef" | "claimRef"]
    )
}

/// The default of a key field that an item may leave out.
pub(crate) fn key_default(key: &str) -> Option<&'static str> {
    (key == "protocol").then_some("TCP")
}
