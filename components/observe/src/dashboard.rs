//! The dashboard: the mesh in a browser, rendered here, without anything from elsewhere. Every page shows what the API tells,
//! and the command that tells the same; a script asks for the page again and puts what changed in its place. Without
//! scripts it is as true, and reloaded by hand.
//!
//! # Map
//! - `mesh.rs`: the first page, and each namespace's; `workload.rs`, `pod.rs`, `control_plane.rs`: the others
//! - `view.rs`: what all of them are rendered from
//! - `page.rs`: the frame of a page; `connections.rs`, `graph.rs`, `table.rs`, `tap.rs`, `reason.rs`: its parts

use axum::{
    Router,
    http::{HeaderValue, header},
    response::{IntoResponse, Response},
    routing::get,
};

use crate::api::Api;

mod connections;
mod control_plane;
mod graph;
mod mesh;
mod page;
mod pod;
mod reason;
mod table;
mod tap;
mod view;
mod workload;

/// Every page, and what they load.
pub(crate) fn routes() -> Router<Api> {
    Router::new()
        .route("/", get(mesh::all))
        .route("/namespaces/{namespace}", get(mesh::namespace))
        .route("/workloads/{namespace}/{kind}/{name}", get(workload::page))
        .route("/pods/{namespace}/{name}", get(pod::page))
        .route("/control-plane", get(control_plane::page))
        .route(
            "/assets/style.css",
            get(|| asset("text/css; charset=utf-8", include_str!("dashboard/style.css"))),
        )
        .route(
            "/assets/live.js",
            get(|| asset("text/javascript; charset=utf-8", include_str!("dashboard/live.js"))),
        )
        .route("/assets/icon.svg", get(|| asset("image/svg+xml", include_str!("dashboard/icon.svg"))))
}

async fn asset(kind: &'static str, content: &'static str) -> Response {
    let headers = [
        (header::CONTENT_TYPE, HeaderValue::from_static(kind)),
        (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
        // Another version of it may be behind the same address tomorrow.
        (header::CACHE_CONTROL, HeaderValue::from_static("no-cache")),
    ];
    (headers, content).into_response()
}
