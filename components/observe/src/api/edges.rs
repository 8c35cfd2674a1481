//! `/api/v1/edges`: who talks to whom, and whether that is encrypted.

use axum::{Json, extract::State};

use super::{Api, Pairs, milliseconds, pairs};
use crate::{
    edges::{self, Edge, Edges, End, Seen},
    problem::Problem,
    query::MAX_WINDOW,
    request,
};

pub(super) async fn edges(State(api): State<Api>, parameters: Pairs) -> Result<Json<Edges>, Problem> {
    let query = request::edges(&pairs(parameters)?)?;
    let inventory = api.inventory()?;
    let (now, before) = (api.source.samples(query.window).await?, api.source.samples(MAX_WINDOW).await?);
    let seen = Seen {
        now: &now,
        before: &before,
        inventory: &inventory,
        control_plane: &api.control_plane,
        grain: query.grain,
    };
    let in_scope = |end: &End| query.namespace.as_ref().is_none_or(|asked| *asked == end.namespace);
    let mut edges = edges::edges(&seen);
    edges.retain(|Edge { client, server, .. }| in_scope(client) || in_scope(server));
    Ok(Json(Edges {
        version: Edges::VERSION,
        window_ms: milliseconds(query.window),
        covered_ms: milliseconds(now.covered),
        edges,
        unscraped: now.unscraped,
    }))
}
