//! What a pod gets, and what is taken away again.

use conduit_identity::WorkloadKind;
use conduit_k8s::owned;
use serde_json::Value;

use super::{
    container::{ending, init_container, native, proxy_container, volume},
    graft::Graft,
    owner::Owner,
    probes,
    prune::{Pattern, Prune, Replaced},
    workload::{self, Resource},
};
use crate::{inject::Options, mesh_options::Tls, version::VERSION};

/// Annotation that keeps what inject had to replace rather than add to, for `uninject`.
pub const ANNOTATION_REPLACED: &str = "conduit.io/replaced";

/// Annotation that names what inject added although it is not Conduit's own, `key=value`: it goes as long as it is that.
const ANNOTATION_ADDED: &str = "conduit.io/added";
/// kubectl's annotation: the container that is meant by `kubectl logs` and `exec` without `-c`, which is the first one
/// otherwise, hence the proxy.
const ANNOTATION_DEFAULT_CONTAINER: &str = "kubectl.kubernetes.io/default-container";

const VOLUMES: [&str; 1] = [owned::IDENTITY_VOLUME];
/// Volumes of v0.5.0, whose names a user of another version may have for their own.
const OLD_VOLUMES: [&str; 2] = ["conduit-trust-anchors", "conduit-secrets"];
/// What v0.5.0 wrote into `conduit.io/proxy-version`.
const OLD_VERSION: &str = "v0.5.";

/// The addition to the pod template of a resource.
pub struct Addition {
    /// What is added.
    pub graft: Graft,
    /// Why it is not what the flags ask for.
    pub warning: Option<String>,
}

/// What to add to `template`, the pod template of `resource`, of this kind, in which there is nothing of ours.
pub fn addition(resource: &Resource, kind: WorkloadKind, template: &Value, options: &Options) -> Addition {
    let owner = Owner::of(resource, kind, options);
    let warning = (options.flags.mesh.tls == Tls::Optional).then(|| owner.as_ref().err().cloned()).flatten();
    let owner = owner.ok();
    let tls = owner.as_ref().filter(|_| options.flags.mesh.tls == Tls::Optional);
    let (init, proxy) =
        (init_container(options), proxy_container(options, tls, &probes::told(template, options)));
    let (containers, init_containers) = if options.flags.native_sidecar {
        (vec![], vec![init, native(proxy)])
    } else {
        // Kubernetes would wait for the proxy, too.
        let proxy = if workload::ends(template) { ending(proxy) } else { proxy };
        (vec![proxy], vec![init])
    };
    let splice = |first, last, swaps| Graft::Splice { first, last, swaps };
    let mut spec = vec![("initContainers".to_owned(), splice(vec![], init_containers, vec![]))];
    let swaps = probes::asked_of_the_proxy(template, options);
    if !containers.is_empty() || !swaps.is_empty() {
        spec.push(("containers".to_owned(), splice(containers, vec![], swaps)));
    }
    if let Some(owner) = tls {
        let volumes = splice(vec![volume(&owner.workload)], vec![], vec![]);
        spec.push(("volumes".to_owned(), volumes));
    }
    let default = default_container(template, options);
    let metadata = vec![
        ("annotations".to_owned(), annotations(owner.as_ref(), tls.is_some(), default, options)),
        ("labels".to_owned(), labels(owner.as_ref(), options)),
    ];
    let graft = Graft::Merge(vec![
        ("metadata".to_owned(), Graft::Merge(metadata)),
        ("spec".to_owned(), Graft::Merge(spec)),
    ]);
    Addition { graft, warning }
}

/// The same addition with a record of what it replaces.
pub fn with_record(graft: Graft, replaced: &[(String, String)]) -> Graft {
    let record: serde_json::Map<_, _> =
        replaced.iter().map(|(at, text)| (at.clone(), Value::from(text.as_str()))).collect();
    let note =
        ("annotations".to_owned(), set(vec![(ANNOTATION_REPLACED, Value::Object(record).to_string())]));
    merged(graft, "metadata", note)
}

fn merged(graft: Graft, part: &str, note: (String, Graft)) -> Graft {
    let Graft::Merge(mut parts) = graft else { return graft };
    for (key, value) in &mut parts {
        if let (true, Graft::Merge(entries)) = (key == part, &mut *value) {
            for (key, value) in entries {
                if let (true, Graft::Merge(old), Graft::Merge(new)) = (*key == note.0, value, &note.1) {
                    old.extend(new.clone());
                }
            }
        }
    }
    Graft::Merge(parts)
}

/// Everything that Conduit added to this pod template, whichever release it was.
pub fn removal(template: &Value, replaced: &Replaced) -> Prune {
    let keys =
        |keys: &[&'static str]| keys.iter().map(|key| (Pattern::Key(key), Prune::Whole)).collect::<Vec<_>>();
    let mut annotations = keys(&[
        owned::ANNOTATION_CREATED_BY,
        owned::ANNOTATION_PROXY_VERSION,
        owned::ANNOTATION_TLS,
        owned::ANNOTATION_OWNER,
        ANNOTATION_ADDED,
        ANNOTATION_REPLACED,
    ]);
    let default = annotation(template, ANNOTATION_DEFAULT_CONTAINER);
    if default.is_some_and(|name| annotation(template, ANNOTATION_ADDED) == Some(&added(name))) {
        annotations.extend(keys(&[ANNOTATION_DEFAULT_CONTAINER]));
    }
    let is_old = annotation(template, owned::ANNOTATION_PROXY_VERSION)
        .is_some_and(|version| version.starts_with(OLD_VERSION));
    let mut volumes = VOLUMES.to_vec();
    volumes.extend(OLD_VOLUMES.iter().filter(|_| is_old));
    let mut labels = keys(&[owned::LABEL_CONTROL_PLANE_NS]);
    labels.push((Pattern::Prefix("conduit.io/proxy-"), Prune::Whole));
    let containers = vec![owned::PROXY_CONTAINER, owned::INIT_CONTAINER];
    let swaps = probes::asked_of_the_application(template, replaced);
    Prune::Entries(vec![
        (
            Pattern::Key("metadata"),
            Prune::Entries(vec![
                (Pattern::Key("annotations"), Prune::Entries(annotations)),
                (Pattern::Key("labels"), Prune::Entries(labels)),
            ]),
        ),
        (
            Pattern::Key("spec"),
            Prune::Entries(vec![
                (Pattern::Key("initContainers"), Prune::Named(containers.clone(), vec![])),
                (Pattern::Key("containers"), Prune::Named(containers, swaps)),
                (Pattern::Key("volumes"), Prune::Named(volumes, vec![])),
            ]),
        ),
    ])
}

fn set(pairs: Vec<(&str, String)>) -> Graft {
    Graft::Merge(pairs.into_iter().map(|(key, value)| (key.to_owned(), Graft::Set(value.into()))).collect())
}

/// The container that kubectl is told to mean: the user's first, unless the user says which, or no proxy is before it.
fn default_container<'t>(template: &'t Value, options: &Options) -> Option<&'t str> {
    let is_said = annotation(template, ANNOTATION_DEFAULT_CONTAINER).is_some();
    let first = template.pointer("/spec/containers/0/name").and_then(Value::as_str);
    first.filter(|_| !is_said && !options.flags.native_sidecar)
}

fn added(default_container: &str) -> String {
    format!("{ANNOTATION_DEFAULT_CONTAINER}={default_container}")
}

fn annotation<'t>(template: &'t Value, name: &str) -> Option<&'t str> {
    template.pointer("/metadata/annotations")?.get(name)?.as_str()
}

fn annotations(owner: Option<&Owner>, tls: bool, default: Option<&str>, options: &Options) -> Graft {
    let tls = if tls { Tls::Optional } else { Tls::Disabled };
    let mut pairs = vec![(owned::ANNOTATION_CREATED_BY, format!("conduit/cli {VERSION}"))];
    if let Some(name) = default {
        pairs.push((ANNOTATION_ADDED, added(name)));
        pairs.push((ANNOTATION_DEFAULT_CONTAINER, name.to_owned()));
    }
    if let Some(owner) = owner {
        pairs.push((owned::ANNOTATION_OWNER, owned::owner_annotation(&owner.workload)));
    }
    pairs.push((owned::ANNOTATION_PROXY_VERSION, options.flags.mesh.conduit_version.clone()));
    pairs.push((owned::ANNOTATION_TLS, tls.as_str().to_owned()));
    set(pairs)
}

fn labels(owner: Option<&Owner>, options: &Options) -> Graft {
    let mut pairs = vec![(owned::LABEL_CONTROL_PLANE_NS, options.control_plane.namespace.clone())];
    if let Some(Owner { workload }) = owner
        && let Some(label) = workload.kind.proxy_label()
    {
        pairs.push((label, workload.label_value()));
    }
    set(pairs)
}
