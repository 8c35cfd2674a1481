//! The first page, and the same of one namespace: the graph, the connections, the workloads.

use axum::extract::{Path, State};
use maud::{Markup, html};

use super::{
    connections,
    page::{Page, Part, Root, Trouble, percent, rate},
    table,
    view::{View, WORKLOADS},
};
use crate::{
    api::Api,
    edges::{Edge, Grain},
    inventory::Object,
    kind::Kind,
    problem::Problem,
    row::{Row, Unscraped},
};

pub(super) async fn all(State(api): State<Api>) -> Result<Page, Trouble> {
    let root = Root(0);
    let view = View::of(&api).await.map_err(|problem| Trouble { root, problem })?;
    let mut edges = view.edges(Grain::Workloads);
    // Its own traffic has a page of its own.
    edges.retain(|edge| {
        edge.client.namespace != view.control_plane() && edge.server.namespace != view.control_plane()
    });
    let mut rows = view.rows(&WORKLOADS, None);
    rows.retain(|row| row.namespace != view.control_plane());
    let namespaces = view.rows(&[Kind::Namespace], None);
    let body = html! {
        (content(root, &edges, &rows, &view.samples.unscraped))
        h2 { "Namespaces" }
        div #namespaces data-live { (table::rows(root, "conduit stat namespaces", &namespaces)) }
    };
    Ok(Page {
        root,
        part: Part::Mesh,
        title: "Mesh".to_owned(),
        crumbs: Vec::new(),
        command: Some("conduit edges --all-namespaces".to_owned()),
        body,
    })
}

pub(super) async fn namespace(State(api): State<Api>, Path(name): Path<String>) -> Result<Page, Trouble> {
    let root = Root(1);
    let trouble = |problem| Trouble { root, problem };
    let view = View::of(&api).await.map_err(trouble)?;
    if !view.inventory.has(&Object::new(Kind::Namespace, &name, &name)) {
        let detail = format!("there is no namespace {name}");
        return Err(trouble(Problem::not_found("namespace", &name, detail)));
    }
    let mut edges = view.edges(Grain::Workloads);
    edges.retain(|edge| edge.client.namespace == name || edge.server.namespace == name);
    let rows = view.rows(&WORKLOADS, Some(&name));
    let unscraped: Vec<_> =
        view.samples.unscraped.iter().filter(|pod| pod.namespace == name).cloned().collect();
    let pods: Vec<_> = view.inventory.in_namespace(&name).collect();
    let body = html! {
        (content(root, &edges, &rows, &unscraped))
        h2 { "Pods" }
        div #pods data-live { (table::pods(root, pods.iter().map(|pod| &***pod))) }
    };
    Ok(Page {
        root,
        part: Part::Mesh,
        title: name.clone(),
        crumbs: vec![("Mesh".to_owned(), root.to(""))],
        command: Some(format!("conduit edges -n {name}")),
        body,
    })
}

fn content(root: Root, edges: &[Edge], rows: &[Row], unscraped: &[Unscraped]) -> Markup {
    html! {
        div #banners data-live { (banners(edges, unscraped)) }
        dl.tiles #tiles data-live { (tiles(edges, rows)) }
        div.panel #graph data-live { (connections::drawing(root, edges)) }
        h2 { "Connections" }
        div #connections data-live { (connections::table(root, edges)) }
        h2 { "Workloads" }
        div #workloads data-live { (table::rows(root, "conduit stat, by workload, within the last minute", rows)) }
    }
}

/// What somebody should know before they believe the rest.
fn banners(edges: &[Edge], unscraped: &[Unscraped]) -> Markup {
    let both_meshed = |edge: &&Edge| edge.tls < 1.0 && edge.client.meshed && edge.server.meshed;
    let clear = edges.iter().filter(both_meshed).count();
    html! {
        @if clear > 0 {
            div.banner.bad.panel role="alert" {
                strong { (clear) " of " (edges.len()) " connections between meshed workloads are not all encrypted." }
                span { "The reasons are below." }
            }
        }
        @if !unscraped.is_empty() {
            div.banner.panel role="status" {
                strong { "The numbers of " (unscraped.len()) " pods are missing: " }
                span {
                    @for pod in unscraped.iter().take(5) { (pod.namespace) "/" (pod.pod) ": " (pod.reason) "; " }
                    @if unscraped.len() > 5 { "and others" }
                }
            }
        }
    }
}

fn tiles(edges: &[Edge], rows: &[Row]) -> Markup {
    let sum = |of: fn(&Row) -> f64| rows.iter().map(of).sum::<f64>();
    let share = |part: f64, whole: f64| (whole > 0.0).then(|| part / whole);
    let responses = sum(|row| row.counts.success + row.counts.failure);
    // Not the rows' share: what goes to pods without a proxy is in no row.
    let encrypted = edges.iter().filter(|edge| edge.tls >= 1.0).count();
    let meshed: u32 = rows.iter().filter_map(|row| row.meshed).sum();
    let running: u32 = rows.iter().filter_map(|row| row.running).sum();
    let rps = sum(|row| row.rps.unwrap_or_default());
    html! {
        div.tile.panel { dt { "Encrypted connections" } dd { (encrypted) "/" (edges.len()) } }
        div.tile.panel { dt { "Pods with a proxy" } dd { (meshed) "/" (running) } }
        div.tile.panel { dt { "Success" } dd { (percent(share(sum(|row| row.counts.success), responses))) } }
        div.tile.panel { dt { "Requests a second" } dd { (rate((responses > 0.0).then_some(rps))) } }
    }
}
