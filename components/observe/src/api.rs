//! The HTTP API: read-only JSON, for the CLI and the browser alike.
//!
//! It is plain HTTP inside the cluster. Whoever is outside reaches it through the API server's port-forward or service
//! proxy, which authenticate and encrypt; what it tells is what the proxies' metrics tell on every pod's port 4191. Tap
//! tells more, and asks who is there: see `authorize.rs`.

use std::{sync::Arc, time::Duration};

use axum::{
    Json, Router,
    extract::{Query as Parameters, State, rejection::QueryRejection},
    http::{StatusCode, Uri},
    routing::get,
};
use conduit_identity::{Clock, ControlPlane};
use conduit_runtime::drain;
use serde::{Deserialize, Serialize};
use tokio::sync::watch;

use crate::{
    authorize::Authorizer,
    dashboard,
    inventory::{Inventory, Object},
    kind::Kind,
    problem::Problem,
    query::{Invalid, Query},
    reach::Reach,
    request,
    row::Stat,
    sources::Source,
    stat,
    tap::Taps,
};

mod diagnosis;
mod edges;
mod parameters;
mod tap;
mod why;

/// What the API answers from.
#[derive(Clone)]
pub struct Api {
    /// Where samples come from.
    pub source: Source,
    /// What runs in the cluster.
    pub inventory: watch::Receiver<Arc<Inventory>>,
    /// Whose API it is.
    pub control_plane: ControlPlane,
    /// The wall clock.
    pub clock: Arc<dyn Clock>,
    /// Live requests.
    pub(crate) taps: Taps,
    /// Who may have those; everybody without.
    pub(crate) authorizer: Option<Authorizer>,
    /// Single pods, asked now.
    pub(crate) reach: Reach,
    /// Ends streams.
    pub(crate) drain: drain::Watch,
}

impl Api {
    /// Everything below `/api/v1`, and the dashboard.
    pub fn router(self) -> Router {
        Router::new()
            .route("/api/v1/stat", get(stat))
            .route("/api/v1/edges", get(edges::edges))
            .route("/api/v1/tap", get(tap::tap))
            .route("/api/v1/why", get(why::why))
            .route("/api/v1/proxies", get(diagnosis::proxies))
            .route("/api/v1/control-plane", get(diagnosis::control_plane))
            .route("/api/v1/identity", get(diagnosis::identity))
            .route("/api/v1/proxy-metrics", get(diagnosis::proxy_metrics))
            .route("/api/v1/endpoints", get(diagnosis::endpoints))
            .route("/api/v1/pods", get(pods))
            .route("/api/v1/version", get(version))
            .route("/api/v1/openapi.json", get(openapi))
            .merge(dashboard::routes())
            .method_not_allowed_fallback(method_not_allowed)
            .fallback(not_found)
            .with_state(self)
    }

    /// What runs in the cluster, once that is known.
    pub(crate) fn inventory(&self) -> Result<Arc<Inventory>, Problem> {
        let inventory = self.inventory.borrow().clone();
        match inventory.is_known {
            true => Ok(inventory),
            false => Err(Problem::new(
                StatusCode::SERVICE_UNAVAILABLE,
                "not ready",
                "the cluster's pods are not known yet; try again in a few seconds",
            )),
        }
    }
}

/// The parameters of a request, in the order they were given.
pub(crate) type Pairs = Result<Parameters<Vec<(String, String)>>, QueryRejection>;

pub(crate) fn pairs(parameters: Pairs) -> Result<Vec<(String, String)>, Problem> {
    let unreadable = |error: QueryRejection| Invalid::new("parameter", "", &error.body_text());
    Ok(parameters.map_err(unreadable)?.0)
}

async fn stat(State(api): State<Api>, parameters: Pairs) -> Result<Json<Stat>, Problem> {
    let query = request::stat(&pairs(parameters)?)?;
    let inventory = api.inventory()?;
    must_exist(&query, &inventory)?;
    let samples = api.source.samples(query.window).await?;
    let in_scope = |namespace: &str| query.namespace.as_ref().is_none_or(|asked| asked == namespace);
    Ok(Json(Stat {
        version: Stat::VERSION,
        window_ms: milliseconds(query.window),
        covered_ms: milliseconds(samples.covered),
        rows: stat::rows(&query, &samples, &inventory),
        unscraped: samples.unscraped.into_iter().filter(|pod| in_scope(&pod.namespace)).collect(),
    }))
}

/// A table of something that does not exist would look like one without traffic.
fn must_exist(query: &Query, inventory: &Inventory) -> Result<(), Problem> {
    let ([kind], Some(name)) = (&query.kinds[..], &query.name) else { return Ok(()) };
    let namespace = match kind {
        Kind::Namespace => name,
        _ => query.namespace.as_ref().unwrap_or(name),
    };
    if inventory.has(&Object::new(*kind, namespace, name)) {
        return Ok(());
    }
    let detail = match kind {
        Kind::Namespace => format!("there is no namespace {name}"),
        _ => format!(
            "there is no {kind} {name} in the namespace {namespace}; name another, or another namespace"
        ),
    };
    Err(Problem::not_found("name", name, detail))
}

/// The pods of a namespace, or of all.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Pods {
    /// Of this schema.
    pub version: u32,
    /// By namespace and name.
    pub pods: Vec<PodItem>,
}

/// One pod.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodItem {
    /// Its namespace.
    pub namespace: String,
    /// Its name.
    pub name: String,
    /// Its phase, or `Terminating`.
    pub status: String,
    /// Its address.
    pub ip: Option<String>,
    /// The workload it belongs to, as `kind/name`; none for a bare pod.
    pub owner: Option<String>,
    /// Whether it has a proxy of this control plane.
    pub meshed: bool,
    /// Whether that proxy was injected with TLS.
    pub tls: bool,
}

async fn pods(State(api): State<Api>, parameters: Pairs) -> Result<Json<Pods>, Problem> {
    let mut namespace = None;
    for (name, value) in pairs(parameters)? {
        match name.as_str() {
            "namespace" if value.is_empty() => {}
            "namespace" => namespace = Some(value),
            _ => return Err(Invalid::new("parameter", &name, "no such parameter; there is namespace").into()),
        }
    }
    let inventory = api.inventory()?;
    let asked = |pod: &&Arc<crate::inventory::Pod>| {
        namespace.as_ref().is_none_or(|namespace| *namespace == pod.name.namespace)
    };
    let item = |pod: &Arc<crate::inventory::Pod>| PodItem {
        namespace: pod.name.namespace.clone(),
        name: pod.name.name.clone(),
        status: pod.status.clone(),
        ip: pod.ip.map(|ip| ip.to_string()),
        owner: owner(pod),
        meshed: pod.meshed,
        tls: pod.tls,
    };
    Ok(Json(Pods { version: Stat::VERSION, pods: inventory.pods.values().filter(asked).map(item).collect() }))
}

fn owner(pod: &crate::inventory::Pod) -> Option<String> {
    let (kind, name) = pod.workload();
    (kind != Kind::Pod).then(|| format!("{kind}/{name}"))
}

/// Who answers.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Version {
    /// The version of the control plane.
    pub version: String,
    /// The namespace it runs in.
    pub namespace: String,
}

async fn version(State(api): State<Api>) -> Json<Version> {
    Json(Version { version: env!("CARGO_PKG_VERSION").to_owned(), namespace: api.control_plane.namespace })
}

/// What this API is, for programs that write clients.
pub const OPENAPI: &str = include_str!("api/openapi.json");

async fn openapi() -> impl axum::response::IntoResponse {
    ([(axum::http::header::CONTENT_TYPE, "application/json")], OPENAPI)
}

async fn not_found(uri: Uri) -> Problem {
    let detail = format!(
        "there is nothing at {}; /api/v1/openapi.json lists what there is, such as /api/v1/stat",
        uri.path()
    );
    Problem::new(StatusCode::NOT_FOUND, "not found", detail)
}

async fn method_not_allowed() -> Problem {
    Problem::new(StatusCode::METHOD_NOT_ALLOWED, "read-only", "use GET: nothing here can be changed")
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

#[cfg(test)]
mod tests {
    use serde_json::Value;

    use super::*;
    use crate::{
        edges::{Edge, Edges, End, Side},
        row::{Bytes, Counts, Latency, Row, Unscraped},
    };

    fn document() -> Value {
        serde_json::from_str(OPENAPI).unwrap()
    }

    fn parameters(path: &str) -> Vec<String> {
        let document = document();
        let parameters = document["paths"][path]["get"]["parameters"].as_array().unwrap();
        let mut names: Vec<_> =
            parameters.iter().map(|known| known["name"].as_str().unwrap().to_owned()).collect();
        names.sort();
        names
    }

    #[test]
    fn every_parameter_is_documented() {
        assert_eq!(parameters("/api/v1/stat"), request::PARAMETERS);
        assert_eq!(parameters("/api/v1/edges"), request::EDGES_PARAMETERS);
        assert_eq!(parameters("/api/v1/tap"), crate::tap::PARAMETERS);
        assert_eq!(parameters("/api/v1/why"), why::PARAMETERS);
        assert_eq!(parameters("/api/v1/proxies"), diagnosis::PROXIES);
        assert_eq!(parameters("/api/v1/identity"), diagnosis::IDENTITY);
        assert_eq!(parameters("/api/v1/proxy-metrics"), diagnosis::PROXY_METRICS);
        assert_eq!(parameters("/api/v1/endpoints"), diagnosis::ENDPOINTS);
    }

    /// The names of an object's fields, as `schema` documents them and as `value` has them.
    fn same_fields(schema: &Value, value: &Value) {
        let names = |value: &Value| {
            let mut names: Vec<_> = value.as_object().unwrap().keys().cloned().collect();
            names.sort();
            names
        };
        assert_eq!(names(&schema["properties"]), names(value));
    }

    #[test]
    fn every_field_of_an_answer_is_documented() {
        let row = Row {
            kind: Kind::Pod,
            namespace: String::new(),
            name: String::new(),
            meshed: None,
            running: None,
            success: None,
            rps: None,
            latency_ms: Latency::default(),
            bytes: Bytes::default(),
            tls: None,
            counts: Counts::default(),
            plaintext: [("disabled".to_owned(), 1.0)].into(),
            peers: ["a".to_owned()].into(),
        };
        let missing =
            Unscraped { namespace: String::new(), pod: String::new(), reason: String::new(), since_ms: None };
        let stat = Stat {
            version: 1,
            window_ms: 1,
            covered_ms: 1,
            rows: vec![row.clone()],
            unscraped: vec![missing.clone()],
        };
        let schemas = &document()["components"]["schemas"];
        same_fields(&schemas["Stat"], &serde_json::to_value(&stat).unwrap());
        same_fields(&schemas["Row"], &serde_json::to_value(&row).unwrap());
        same_fields(&schemas["Row"]["properties"]["counts"], &serde_json::to_value(row.counts).unwrap());
        same_fields(&schemas["Unscraped"], &serde_json::to_value(&missing).unwrap());
    }

    #[test]
    fn every_field_of_a_diagnosis_is_documented() {
        use crate::diagnosis::{ComponentPod, ControlPlaneState, Endpoints, Identities, Proxies, ProxyItem};
        let schemas = &document()["components"]["schemas"];
        let same = |name: &str, value: Value| same_fields(&schemas[name], &value);
        let text = String::new;
        let items = [
            ("ProxyItem", serde_json::to_value(ProxyItem::default())),
            ("Proxies", serde_json::to_value(Proxies { version: 1, proxies: Vec::new() })),
            ("ComponentPod", serde_json::to_value(ComponentPod::default())),
            (
                "ControlPlane",
                serde_json::to_value(ControlPlaneState {
                    version: 1,
                    namespace: text(),
                    trust_domain: text(),
                    now_ms: 1,
                    pods: Vec::new(),
                }),
            ),
            ("Identities", serde_json::to_value(Identities { version: 1, pods: Vec::new() })),
            (
                "Endpoints",
                serde_json::to_value(Endpoints {
                    version: 1,
                    authority: text(),
                    namespace: text(),
                    answered_by: text(),
                    known: false,
                    service: None,
                    endpoints: Vec::new(),
                }),
            ),
        ];
        items.into_iter().for_each(|(name, value)| same(name, value.unwrap()));
    }

    #[test]
    fn every_field_of_an_edge_is_documented() {
        let end =
            End { kind: None, namespace: String::new(), name: String::new(), meshed: false, identity: None };
        let edge = Edge {
            client: end.clone(),
            server: end.clone(),
            tls: 1.0,
            rps: None,
            connections: 1.0,
            plaintext: [("disabled".to_owned(), 1.0)].into(),
            since_ms: None,
            told_by: [Side::Client].into(),
        };
        let unscraped = vec![Unscraped {
            namespace: String::new(),
            pod: String::new(),
            reason: String::new(),
            since_ms: None,
        }];
        let edges = Edges { version: 1, window_ms: 1, covered_ms: 1, edges: vec![edge.clone()], unscraped };
        let schemas = &document()["components"]["schemas"];
        same_fields(&schemas["Edges"], &serde_json::to_value(&edges).unwrap());
        same_fields(&schemas["Edge"], &serde_json::to_value(&edge).unwrap());
        same_fields(&schemas["End"], &serde_json::to_value(&end).unwrap());
    }
}
