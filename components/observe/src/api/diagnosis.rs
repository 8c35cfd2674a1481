//! What `conduit check`, `identity` and `diagnostics` ask.

use std::sync::Arc;

use axum::{
    Json,
    extract::State,
    http::{StatusCode, header},
    response::IntoResponse,
};
use conduit_identity::{Certificate, UnixTime};
use conduit_k8s::owned::{COMPONENT_CA, COMPONENT_DESTINATION, COMPONENT_OBSERVE, LABEL_COMPONENT};
use futures::future::join_all;

use super::{
    Api, Pairs, pairs,
    parameters::{Given, workload},
};
use crate::{
    diagnosis::{
        CertificateItem, ComponentPod, ControlPlaneState, EndpointItem, Endpoints, Identities, PodIdentity,
        Proxies, ProxyItem, VERSION,
    },
    inventory::{Inventory, Object, Pod},
    problem::Problem,
    proxies::Proxy,
    reach::Component,
    why::moment,
};

/// The parameters there are, in alphabetical order.
pub(super) const PROXIES: [&str; 1] = ["namespace"];
pub(super) const IDENTITY: [&str; 2] = ["namespace", "resource"];
pub(super) const PROXY_METRICS: [&str; 2] = ["namespace", "pod"];
pub(super) const ENDPOINTS: [&str; 2] = ["authority", "namespace"];

/// Pods of one workload whose certificates are looked at in one go.
const MAX_PODS: usize = 64;

pub(super) async fn proxies(State(api): State<Api>, parameters: Pairs) -> Result<Json<Proxies>, Problem> {
    let pairs = pairs(parameters)?;
    let namespace = Given::read(&pairs, &PROXIES)?.get("namespace");
    let inventory = api.inventory()?;
    let known = api.source.proxies().await?;
    let asked = |pod: &&Arc<Pod>| {
        pod.meshed && pod.running && namespace.is_none_or(|namespace| namespace == pod.name.namespace)
    };
    let item = |pod: &Arc<Pod>| proxy_item(pod, known.get(&pod.name));
    Ok(Json(Proxies { version: VERSION, proxies: inventory.pods.values().filter(asked).map(item).collect() }))
}

fn proxy_item(pod: &Pod, proxy: Option<&Proxy>) -> ProxyItem {
    let (kind, name) = pod.workload();
    let says = proxy.and_then(|proxy| proxy.says.clone()).unwrap_or_default();
    ProxyItem {
        namespace: pod.name.namespace.clone(),
        pod: pod.name.name.clone(),
        workload: format!("{}/{name}", kind.short()),
        ready: pod.ready,
        tls_injected: pod.tls,
        proxy_version: pod.proxy_version.clone(),
        tls: says.tls,
        since: proxy.and_then(|proxy| proxy.since).and_then(|since| moment(since.at)),
        fingerprint: says.fingerprint,
        identity: says.identity,
        not_before: says.not_before.and_then(moment),
        not_after: says.not_after.and_then(moment),
        failing: says.failing,
        destination_up: says.destination_up,
        clock_ahead_ms: proxy.and_then(|proxy| proxy.clock_ahead_ms),
        failure: proxy.and_then(|proxy| proxy.failure.clone()),
    }
}

pub(super) async fn control_plane(
    State(api): State<Api>,
    parameters: Pairs,
) -> Result<Json<ControlPlaneState>, Problem> {
    Given::read(&pairs(parameters)?, &[])?;
    let inventory = api.inventory()?;
    let namespace = &api.control_plane.namespace;
    let parts = inventory.in_namespace(namespace).filter_map(|pod| Some((component(pod)?, pod)));
    let mut parts: Vec<_> = parts.collect();
    parts.sort_by_key(|(component, pod)| (*component, &pod.name));
    let asked = parts.into_iter().take(MAX_PODS).map(async |(component, pod)| {
        component_pod(component, pod, api.reach.component(component, pod).await)
    });
    let pods = join_all(asked).await;
    let now_ms = u64::try_from(api.clock.now().0.as_millis()).unwrap_or(u64::MAX);
    let (namespace, trust_domain) = (namespace.clone(), api.control_plane.trust_domain.clone());
    Ok(Json(ControlPlaneState { version: VERSION, namespace, trust_domain, now_ms, pods }))
}

/// Which part of the control plane a pod is.
fn component(pod: &Pod) -> Option<&'static str> {
    let label = pod.labels.get(LABEL_COMPONENT)?;
    [COMPONENT_CA, COMPONENT_DESTINATION, COMPONENT_OBSERVE].into_iter().find(|known| known == label)
}

fn component_pod(component: &str, pod: &Pod, told: Result<Component, String>) -> ComponentPod {
    let (told, failure) = match told {
        Ok(told) => (told, None),
        Err(failure) => (Component::default(), Some(failure)),
    };
    ComponentPod {
        component: component.to_owned(),
        pod: pod.name.name.clone(),
        status: pod.status.clone(),
        ready: pod.ready,
        clock_ahead_ms: told.clock_ahead_ms,
        metrics: told.metrics,
        failure,
    }
}

pub(super) async fn identity(State(api): State<Api>, parameters: Pairs) -> Result<Json<Identities>, Problem> {
    let pairs = pairs(parameters)?;
    let given = Given::read(&pairs, &IDENTITY)?;
    let namespace = given.must("namespace", "say in which namespace")?;
    let text = given.must("resource", "say which pod")?;
    let (kind, name) = workload("resource", text)?;
    let inventory = api.inventory()?;
    must_exist("resource", &Object::new(kind, namespace, &name), &inventory)?;
    let pods = inventory.pods_of(kind, Some(namespace), Some(&name));
    if pods.is_empty() {
        let detail = format!("{text} has no running pod in the namespace {namespace}");
        return Err(Problem::not_found("resource", text, detail));
    }
    let asked = pods.iter().take(MAX_PODS).map(async |pod| pod_identity(&api, pod).await);
    Ok(Json(Identities { version: VERSION, pods: join_all(asked).await }))
}

async fn pod_identity(api: &Api, pod: &Pod) -> PodIdentity {
    let nothing = PodIdentity {
        namespace: pod.name.namespace.clone(),
        pod: pod.name.name.clone(),
        expected: pod.identity.as_ref().map(ToString::to_string),
        chain: Vec::new(),
        trusted: None,
        name_matches: false,
        problem: None,
    };
    match api.reach.identity(pod).await {
        Ok((presented, has_roots)) => PodIdentity {
            chain: presented.chain.iter().map(certificate).collect(),
            trusted: has_roots.then_some(presented.distrust.is_none()),
            name_matches: presented.identity.is_some() && presented.identity == pod.identity,
            problem: presented.distrust,
            ..nothing
        },
        Err(problem) => PodIdentity { problem: Some(problem), ..nothing },
    }
}

fn certificate(certificate: &Certificate) -> CertificateItem {
    let time = |at: UnixTime| moment(at).unwrap_or_else(|| at.to_string());
    CertificateItem {
        subject: certificate.subject.clone(),
        issuer: certificate.issuer.clone(),
        dns_names: certificate.dns_names.clone(),
        uris: certificate.uris.clone(),
        serial: certificate.serial.clone(),
        not_before: time(certificate.not_before),
        not_after: time(certificate.not_after),
        key: certificate.key.clone(),
        fingerprint: certificate.fingerprint.to_string(),
    }
}

/// The metrics of one proxy, as they are.
pub(super) async fn proxy_metrics(
    State(api): State<Api>,
    parameters: Pairs,
) -> Result<impl IntoResponse, Problem> {
    let pairs = pairs(parameters)?;
    let given = Given::read(&pairs, &PROXY_METRICS)?;
    let namespace = given.must("namespace", "say in which namespace")?;
    let name = given.must("pod", "say which pod")?;
    let inventory = api.inventory()?;
    let wanted = crate::samples::PodName::new(namespace, name);
    let Some(pod) = inventory.pods.get(&wanted) else {
        return Err(absent("pod", &Object::new(crate::kind::Kind::Pod, namespace, name)));
    };
    let Some(addr) = pod.metrics() else {
        let detail =
            format!("the pod {name} has no proxy of this control plane that could be asked; inject it");
        return Err(Problem::not_found("pod", name, detail));
    };
    let text =
        api.reach.metrics(addr).await.map_err(|why| bad_gateway(&format!("the proxy of {name}"), &why))?;
    Ok(([(header::CONTENT_TYPE, "text/plain; charset=utf-8")], text))
}

pub(super) async fn endpoints(State(api): State<Api>, parameters: Pairs) -> Result<Json<Endpoints>, Problem> {
    let pairs = pairs(parameters)?;
    let given = Given::read(&pairs, &ENDPOINTS)?;
    let authority = given.must("authority", "say which authority, such as web-svc.emojivoto:80")?;
    let namespace = given.must("namespace", "say from which namespace")?;
    let inventory = api.inventory()?;
    let own = inventory.in_namespace(&api.control_plane.namespace);
    let mut ready = own.filter(|pod| pod.ready && component(pod) == Some(COMPONENT_DESTINATION));
    let Some(pod) = ready.next() else {
        let detail = format!("no pod of {COMPONENT_DESTINATION} is ready in {}", api.control_plane.namespace);
        return Err(Problem::new(StatusCode::SERVICE_UNAVAILABLE, "not ready", detail));
    };
    let answer = api.reach.endpoints(pod, &api.control_plane, authority, namespace).await;
    let answer = answer.map_err(|why| bad_gateway(&pod.name.name, &why))?;
    let item = |endpoint: conduit_proto::destination::Endpoint| EndpointItem {
        address: endpoint.address,
        identity: Some(endpoint.identity).filter(|identity| !identity.is_empty()),
        labels: endpoint.labels,
    };
    Ok(Json(Endpoints {
        version: VERSION,
        authority: authority.to_owned(),
        namespace: namespace.to_owned(),
        answered_by: pod.name.name.clone(),
        known: answer.known,
        service: answer.service,
        endpoints: answer.endpoints.into_iter().map(item).collect(),
    }))
}

fn bad_gateway(who: &str, why: &str) -> Problem {
    Problem::new(StatusCode::BAD_GATEWAY, "no answer", format!("{who} cannot be asked: {why}"))
}

/// An answer about something that does not exist would look like one about something that does nothing.
pub(super) fn must_exist(parameter: &str, object: &Object, inventory: &Inventory) -> Result<(), Problem> {
    if inventory.has(object) { Ok(()) } else { Err(absent(parameter, object)) }
}

fn absent(parameter: &str, Object { kind, namespace, name }: &Object) -> Problem {
    let detail =
        format!("there is no {kind} {name} in the namespace {namespace}; name another, or another namespace");
    Problem::not_found(parameter, name, detail)
}
