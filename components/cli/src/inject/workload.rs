//! Finding what can be injected in a document, and deciding whether it is.

use conduit_identity::WorkloadKind;
use conduit_k8s::owned;
use serde_json::Value;

/// Annotation with which a user keeps a workload out of the mesh.
pub const ANNOTATION_INJECT: &str = "conduit.io/inject";

/// Containers by which the sidecars of other meshes are known. Two proxies in one pod would redirect each other.
const FOREIGN_SIDECARS: [&str; 5] =
    ["istio-proxy", "linkerd-proxy", "kuma-sidecar", "consul-dataplane", "envoy-sidecar"];

/// An object of a document, alone or as an item of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Resource {
    /// Where it is, as a JSON pointer into the document.
    pub at: String,
    /// Its kind as Kubernetes writes it.
    pub kind: String,
    /// Its name; for one whose name is generated, the prefix.
    pub name: String,
    /// Whether Kubernetes makes up the rest of its name.
    pub is_generated: bool,
    /// The namespace it names.
    pub namespace: Option<String>,
    /// What it is, when Conduit injects such.
    pub workload: Option<WorkloadKind>,
}

impl Resource {
    /// Where the pod template is, the object itself for a pod.
    pub fn template(&self) -> Option<String> {
        let below = match self.workload? {
            WorkloadKind::Pod => "",
            WorkloadKind::CronJob => "/spec/jobTemplate/spec/template",
            _ => "/spec/template",
        };
        Some(format!("{}{below}", self.at))
    }
}

/// As kubectl's reports: `deployment "web"`.
impl std::fmt::Display for Resource {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self.name.as_str() {
            "" => write!(f, "{} without a name", self.kind.to_lowercase()),
            name => write!(f, "{} {name:?}", self.kind.to_lowercase()),
        }
    }
}

/// The resources of a document, those within lists one by one. A document without a kind has none.
pub fn resources(document: &Value) -> Vec<Resource> {
    let mut found = Vec::new();
    collect(document, String::new(), None, &mut found);
    found
}

fn collect(value: &Value, at: String, listed: Option<&str>, found: &mut Vec<Resource>) {
    let text = |pointer: &str| value.pointer(pointer).and_then(Value::as_str);
    // The items of a typed list need not say what they are.
    let Some(kind) = text("/kind").or(listed) else { return };
    if let (Some(items), Some(item_kind)) =
        (value.get("items").and_then(Value::as_array), kind.strip_suffix("List"))
    {
        let listed = (!item_kind.is_empty()).then_some(item_kind);
        for (index, item) in items.iter().enumerate() {
            collect(item, format!("{at}/items/{index}"), listed, found);
        }
        return;
    }
    let (name, prefix) = (text("/metadata/name"), text("/metadata/generateName"));
    found.push(Resource {
        at,
        kind: kind.to_owned(),
        name: name.or(prefix).unwrap_or_default().to_owned(),
        is_generated: name.is_none() && prefix.is_some(),
        namespace: text("/metadata/namespace").map(str::to_owned),
        workload: WorkloadKind::from_kubernetes(kind).filter(|_| is_of_kubernetes(text("/apiVersion"))),
    });
}

/// Whether the kind is Kubernetes' own: others have a `Job` too, of another shape.
fn is_of_kubernetes(api_version: Option<&str>) -> bool {
    let group = api_version.and_then(|version| version.split_once('/')).map_or("", |(group, _)| group);
    ["", "apps", "batch", "extensions"].contains(&group)
}

/// Containers that are Conduit's where inject has left its mark.
const OWN_CONTAINERS: [&str; 2] = [owned::PROXY_CONTAINER, owned::INIT_CONTAINER];
/// The marks of every release, of which a user who edits what was injected may have removed some.
const MARKS: [&str; 2] = [owned::ANNOTATION_CREATED_BY, owned::ANNOTATION_PROXY_VERSION];

/// Whether a pod template has containers that inject added.
pub fn is_injected(template: &Value) -> bool {
    let annotations = template.pointer("/metadata/annotations");
    let is_marked = MARKS.iter().any(|mark| annotations.is_some_and(|map| map.get(mark).is_some()));
    is_marked && containers(template).any(|(_, name)| OWN_CONTAINERS.contains(&name))
}

/// Why a workload stays as it is; none when it can be injected. `reserved` are the ports that the proxy needs.
pub fn obstacle(document: &Value, resource: &Resource, reserved: &[u16]) -> Option<String> {
    let Some(at) = resource.template() else { return Some("not a workload".to_owned()) };
    let Some(template) = document.pointer(&at) else { return Some("it has no pod template".to_owned()) };
    if resource.name.is_empty() {
        return Some("it has no name".to_owned());
    }
    is_disabled(document, resource, template)
        .or_else(|| unsound(template))
        .or_else(|| not_wanted(template))
        .or_else(|| foreign(template))
        .or_else(|| namesake(template))
        .or_else(|| port_conflict(template, reserved))
}

fn is_disabled(document: &Value, resource: &Resource, template: &Value) -> Option<String> {
    let disabled = wishes(document, resource, template).any(|wish| wish == "disabled");
    disabled.then(|| format!("its annotation {ANNOTATION_INJECT} is disabled"))
}

/// What the annotation says, of the pod template and of the object.
fn wishes<'d>(
    document: &'d Value,
    resource: &Resource,
    template: &'d Value,
) -> impl Iterator<Item = &'d Value> {
    [Some(template), document.pointer(&resource.at)].into_iter().flatten().filter_map(|object| {
        object.pointer("/metadata/annotations").and_then(|map| map.get(ANNOTATION_INJECT))
    })
}

/// What the API server would refuse anyway, and what must have its usual type to be added to.
fn unsound(template: &Value) -> Option<String> {
    let at = |pointer: &str| template.pointer(pointer).filter(|value| !value.is_null());
    if at("/spec/containers").and_then(Value::as_array).is_none_or(Vec::is_empty) {
        return Some("it has no containers".to_owned());
    }
    let wrong = |pointers: &[&'static str], is_right: fn(&Value) -> bool| {
        pointers.iter().copied().find(|pointer| at(pointer).is_some_and(|value| !is_right(value)))
    };
    wrong(&["/metadata", "/metadata/labels", "/metadata/annotations"], Value::is_object)
        .map(|pointer| (pointer, "mapping"))
        .or_else(|| {
            wrong(&["/spec/initContainers", "/spec/volumes"], Value::is_array)
                .map(|pointer| (pointer, "list"))
        })
        .map(|(pointer, kind)| format!("its {} is not a {kind}", pointer[1..].replace('/', ".")))
}

fn not_wanted(template: &Value) -> Option<String> {
    if template.pointer("/spec/hostNetwork").and_then(Value::as_bool) == Some(true) {
        return Some("it uses the network of its node (hostNetwork)".to_owned());
    }
    if is_windows(template) {
        return Some("its pods run on Windows, for which there is no proxy".to_owned());
    }
    let component =
        template.pointer("/metadata/labels").and_then(|labels| labels.get(owned::LABEL_COMPONENT));
    component.map(|_| "the control plane has no proxies".to_owned())
}

fn is_windows(template: &Value) -> bool {
    let selector = template.pointer("/spec/nodeSelector");
    let selected = ["kubernetes.io/os", "beta.kubernetes.io/os"].map(|label| selector?.get(label));
    let said = [template.pointer("/spec/os/name")].into_iter().chain(selected);
    said.flatten().any(|os| os.as_str() == Some("windows"))
}

/// What is called as something of ours and is none of it: a pod cannot have two of one name.
fn namesake(template: &Value) -> Option<String> {
    let container = containers(template).find(|(_, name)| OWN_CONTAINERS.contains(name));
    if let Some((_, name)) = container {
        return Some(format!("it has a container {name:?} that inject did not add: give it another name"));
    }
    let mut volumes = template.pointer("/spec/volumes").and_then(Value::as_array)?.iter();
    let name = owned::IDENTITY_VOLUME;
    volumes
        .any(|volume| volume.get("name").and_then(Value::as_str) == Some(name))
        .then(|| format!("it has a volume {name:?} that inject did not add: give it another name"))
}

fn foreign(template: &Value) -> Option<String> {
    let (_, name) = containers(template).find(|(_, name)| FOREIGN_SIDECARS.contains(name))?;
    Some(format!("it has another mesh's sidecar, {name}"))
}

fn port_conflict(template: &Value, reserved: &[u16]) -> Option<String> {
    containers(template).find_map(|(container, name)| {
        let ports = container.get("ports").and_then(Value::as_array)?;
        let ports = ports.iter().filter_map(|port| port.get("containerPort").and_then(Value::as_u64));
        let taken =
            ports.into_iter().find(|port| reserved.iter().any(|reserved| u64::from(*reserved) == *port))?;
        Some(format!(
            "container {name:?} listens on port {taken}, which the proxy needs: choose another for the proxy"
        ))
    })
}

/// Whether the pods come to an end by themselves, unlike those of a Deployment.
pub(super) fn ends(template: &Value) -> bool {
    let policy = template.pointer("/spec/restartPolicy").and_then(Value::as_str);
    matches!(policy, Some("Never" | "OnFailure"))
}

/// What is injected and yet not meshed, or not as one might expect.
pub fn warnings(document: &Value, resource: &Resource) -> Vec<String> {
    let template = resource.template().and_then(|at| document.pointer(&at));
    let Some(template) = template else { return Vec::new() };
    let mut warnings = Vec::new();
    let unknown = wishes(document, resource, template).find(|wish| *wish != "enabled");
    if let Some(wish) = unknown {
        warnings.push(format!(
            "its annotation {ANNOTATION_INJECT} is {wish}, which means nothing: write \"disabled\" to leave it out"
        ));
    }
    let is_udp = |port: &&Value| port.get("protocol").and_then(Value::as_str) == Some("UDP");
    let ports =
        containers(template).filter_map(|(container, _)| container.get("ports").and_then(Value::as_array));
    let udp: Vec<String> = ports
        .flatten()
        .filter(is_udp)
        .filter_map(|port| port.get("containerPort").map(Value::to_string))
        .collect();
    if !udp.is_empty() {
        warnings.push(format!("UDP is not meshed: port {}", udp.join(", ")));
    }
    warnings
}

/// Every container of a pod template with its name.
fn containers(template: &Value) -> impl Iterator<Item = (&Value, &str)> {
    ["/spec/initContainers", "/spec/containers"]
        .into_iter()
        .filter_map(|pointer| template.pointer(pointer).and_then(Value::as_array))
        .flatten()
        .filter_map(|container| Some((container, container.get("name")?.as_str()?)))
}
