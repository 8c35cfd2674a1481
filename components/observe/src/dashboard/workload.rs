//! One workload: its traffic, whom it talks to, its pods, and live requests.

use axum::extract::{Path, State};
use maud::html;

use super::{
    connections,
    page::{Page, Part, Root, Trouble},
    table, tap,
    view::{View, WORKLOADS},
};
use crate::{
    api::Api,
    edges::{End, Grain},
    inventory::Object,
    kind::Kind,
    problem::Problem,
};

pub(super) async fn page(
    State(api): State<Api>,
    Path((namespace, kind, name)): Path<(String, String, String)>,
) -> Result<Page, Trouble> {
    let root = Root(3);
    let trouble = |problem| Trouble { root, problem };
    let view = View::of(&api).await.map_err(trouble)?;
    let missing = || {
        let detail = format!("there is no {kind} {name} in the namespace {namespace}");
        trouble(Problem::not_found("name", &name, detail))
    };
    let kind: Kind = kind.parse().ok().filter(|kind| WORKLOADS.contains(kind)).ok_or_else(missing)?;
    if !view.inventory.has(&Object::new(kind, &namespace, &name)) {
        return Err(missing());
    }
    let is_it = |end: &End| end.kind == Some(kind) && end.namespace == namespace && end.name == name;
    let mut edges = view.edges(Grain::Workloads);
    edges.retain(|edge| is_it(&edge.client) || is_it(&edge.server));
    let rows: Vec<_> = view.row(kind, &namespace, &name).into_iter().collect();
    let pods = view.inventory.pods_of(kind, Some(&namespace), Some(&name));
    let resource = format!("{}/{name}", kind.short());
    let body = html! {
        div #row data-live { (table::rows(root, "What arrives, within the last minute", &rows)) }
        h2 { "Connections" }
        div.panel #graph data-live { (connections::drawing(root, &edges)) }
        div #connections data-live { (connections::table(root, &edges)) }
        h2 { "Pods" }
        div #pods data-live { (table::pods(root, pods.iter().map(|pod| &**pod))) }
        (tap::section(
            &root.to(&format!("api/v1/tap?type={resource}&namespace={namespace}&max_rps=10")),
            &format!("conduit tap {resource} -n {namespace}"),
        ))
    };
    Ok(Page {
        root,
        part: Part::Mesh,
        title: format!("{} {name}", kind.as_str()),
        crumbs: crumbs(root, &namespace),
        command: Some(format!("conduit stat {resource} -n {namespace}")),
        body,
    })
}

/// The mesh, and the namespace.
pub(super) fn crumbs(root: Root, namespace: &str) -> Vec<(String, String)> {
    let within = root.to(&format!("namespaces/{namespace}"));
    vec![("Mesh".to_owned(), root.to("")), (namespace.to_owned(), within)]
}
