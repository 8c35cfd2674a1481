//! `/api/v1/tap`: server-sent events. An event without a name is a [`TapEvent`](crate::tap::event::TapEvent), `error`
//! a [`PodError`](crate::tap::event::PodError), `end` the orderly end of the stream with its reason. A stream that ends
//! without `end` was lost.

use std::{convert::Infallible, time::Duration};

use axum::{
    Extension,
    extract::State,
    http::{HeaderMap, header},
    response::sse::{Event, KeepAlive, Sse},
};
use futures::{Stream, stream};
use serde::Serialize;

use super::{Api, Pairs, pairs};
use crate::{
    problem::Problem,
    server::Peer,
    tap::{Item, TapQuery},
};

/// How often a comment is sent when there is nothing to tell, so that both ends notice a broken connection.
const KEEP_ALIVE: Duration = Duration::from_secs(5);

/// Why a stream ends.
#[derive(Debug, Serialize)]
struct End {
    reason: &'static str,
}

pub(super) async fn tap(
    State(api): State<Api>,
    Extension(Peer(peer)): Extension<Peer>,
    headers: HeaderMap,
    parameters: Pairs,
) -> Result<Sse<impl Stream<Item = Result<Event, Infallible>>>, Problem> {
    if let Some(authorizer) = &api.authorizer {
        authorizer.check(peer, headers.get(header::AUTHORIZATION)).await?;
    }
    let query = TapQuery::read(&pairs(parameters)?)?;
    api.inventory()?;
    let open = api.taps.open(query)?;
    let drain = api.drain.clone();
    let events = stream::unfold(Some((open, drain)), async |state| {
        let (mut open, drain) = state?;
        let item = tokio::select! {
            biased;
            () = drain.signaled() => None,
            item = open.next() => item,
        };
        let (name, event) = match &item {
            Some(Item::Event(event)) => (None, Event::default().json_data(event)),
            Some(Item::Error(error)) => (Some("error"), Event::default().json_data(error)),
            None => (Some("end"), Event::default().json_data(End { reason: "observe is shutting down" })),
        };
        // Structs of strings and numbers always serialize.
        let event = event.unwrap_or_default();
        let event = name.map_or(event.clone(), |name| event.event(name));
        Some((Ok(event), item.is_some().then_some((open, drain))))
    });
    Ok(Sse::new(events).keep_alive(KeepAlive::new().interval(KEEP_ALIVE)))
}
