//! One pod: who it is, what arrives, whom it talks to, and live requests.

use axum::extract::{Path, State};
use maud::{Markup, html};

use super::{
    connections,
    page::{Page, Part, Root, Trouble},
    table, tap,
    view::View,
    workload::crumbs,
};
use crate::{
    api::Api,
    edges::{End, Grain},
    inventory::Pod,
    kind::Kind,
    problem::Problem,
    samples::PodName,
};

pub(super) async fn page(
    State(api): State<Api>,
    Path((namespace, name)): Path<(String, String)>,
) -> Result<Page, Trouble> {
    let root = Root(2);
    let trouble = |problem| Trouble { root, problem };
    let view = View::of(&api).await.map_err(trouble)?;
    let Some(pod) = view.inventory.pods.get(&PodName::new(&namespace, &name)) else {
        let detail =
            format!("there is no pod {name} in the namespace {namespace}; it may have been replaced");
        return Err(trouble(Problem::not_found("name", &name, detail)));
    };
    let is_it = |end: &End| end.kind == Some(Kind::Pod) && end.namespace == namespace && end.name == name;
    let mut edges = view.edges(Grain::Pods);
    edges.retain(|edge| is_it(&edge.client) || is_it(&edge.server));
    let rows: Vec<_> = view.row(Kind::Pod, &namespace, &name).into_iter().collect();
    let unscraped = view.samples.unscraped.iter().find(|pod| pod.namespace == namespace && pod.pod == name);
    let body = html! {
        div.panel #facts data-live { (facts(root, pod, unscraped.map(|pod| pod.reason.as_str()))) }
        h2 { "Traffic" }
        div #row data-live { (table::rows(root, "What arrives, within the last minute", &rows)) }
        h2 { "Connections" }
        div #connections data-live { (connections::table(root, &edges)) }
        @if pod.meshed {
            (tap::section(
                &root.to(&format!("api/v1/tap?type=pod/{name}&namespace={namespace}&max_rps=10")),
                &format!("conduit tap po/{name} -n {namespace}"),
            ))
        }
    };
    Ok(Page {
        root,
        part: Part::Mesh,
        title: format!("pod {name}"),
        crumbs: crumbs(root, &namespace),
        command: Some(format!("conduit stat po/{name} -n {namespace}")),
        body,
    })
}

fn facts(root: Root, pod: &Pod, unscraped: Option<&str>) -> Markup {
    let (kind, owner) = pod.workload();
    let workload = format!("workloads/{}/{}/{owner}", pod.name.namespace, kind.as_str());
    html! {
        dl.facts {
            dt { "Status" } dd { (pod.status) }
            dt { "Address" } dd { (pod.ip.map_or_else(|| "none yet".to_owned(), |ip| ip.to_string())) }
            @if kind != Kind::Pod {
                dt { "Belongs to" } dd { a href=(root.to(&workload)) { (kind.as_str()) " " (owner) } }
            }
            dt { "Proxy" } dd { (table::proxy(pod)) }
            @if let Some(identity) = &pod.identity { dt { "Identity" } dd { code { (identity.as_str()) } } }
            @if let Some(reason) = unscraped { dt { "Not read" } dd.open { (reason) } }
        }
    }
}
