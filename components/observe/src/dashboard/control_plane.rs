//! The control plane: its pods and their traffic.

use axum::extract::State;
use maud::html;

use super::{
    connections,
    page::{Page, Part, Root, Trouble},
    table,
    view::{View, WORKLOADS},
};
use crate::{api::Api, edges::Grain};

pub(super) async fn page(State(api): State<Api>) -> Result<Page, Trouble> {
    let root = Root(0);
    let view = View::of(&api).await.map_err(|problem| Trouble { root, problem })?;
    let namespace = view.control_plane();
    let pods: Vec<_> = view.inventory.in_namespace(namespace).collect();
    let rows = view.rows(&WORKLOADS, Some(namespace));
    let mut edges = view.edges(Grain::Workloads);
    edges.retain(|edge| edge.client.namespace == namespace || edge.server.namespace == namespace);
    let body = html! {
        div.panel {
            dl.facts {
                dt { "Version" } dd { (env!("CARGO_PKG_VERSION")) }
                dt { "Namespace" } dd { (namespace) }
            }
        }
        h2 { "Pods" }
        div #pods data-live { (table::pods(root, pods.iter().map(|pod| &***pod))) }
        h2 { "Workloads" }
        div #workloads data-live { (table::rows(root, "What arrives, within the last minute", &rows)) }
        h2 { "Connections" }
        div #connections data-live { (connections::table(root, &edges)) }
    };
    Ok(Page {
        root,
        part: Part::ControlPlane,
        title: "Control plane".to_owned(),
        crumbs: Vec::new(),
        command: Some("conduit check".to_owned()),
        body,
    })
}
