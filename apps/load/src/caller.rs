//! Requests at a steady rate, whatever becomes of those before: GET and POST, on kept and on fresh connections, in turn.

use std::{sync::Arc, time::Duration};

use conduit_runtime::drain;
use http::{Method, StatusCode};
use http_body_util::{BodyExt, Limited};
use tokio::{
    sync::Semaphore,
    task::JoinSet,
    time::{Instant, MissedTickBehavior},
};

use crate::{
    connections::Connections,
    counts::{Counts, Kind},
    exchange,
};

/// Requests under way at once; when the server is slower than the rate, the rate gives in.
const MAX_UNDER_WAY: usize = 512;
/// Most bytes of an answer.
const MAX_ANSWER: usize = 64 * 1024;

/// How fast, how long.
pub(crate) struct Pace {
    pub(crate) rate: f64,
    pub(crate) deadline: Duration,
    /// None for ever.
    pub(crate) requests: Option<u64>,
}

/// Calls until enough is said or the drain begins; ends when the last request has.
pub(crate) async fn run(connections: Connections, counts: Arc<Counts>, pace: Pace, drain: drain::Watch) {
    let connections = Arc::new(connections);
    let permits = Arc::new(Semaphore::new(MAX_UNDER_WAY));
    let mut ticks = tokio::time::interval(Duration::from_secs_f64(1.0 / pace.rate));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut under_way = JoinSet::new();
    for number in 0..pace.requests.unwrap_or(u64::MAX) {
        let permit = tokio::select! {
            biased;
            () = drain.signaled() => break,
            permit = async { ticks.tick().await; permits.clone().acquire_owned().await } => permit,
        };
        while under_way.try_join_next().is_some() {}
        let (connections, counts, deadline) = (connections.clone(), counts.clone(), pace.deadline);
        under_way.spawn(async move {
            let kind = Kind::of(number);
            let began = Instant::now();
            let outcome = tokio::time::timeout(deadline, exchange_one(&connections, number, kind)).await;
            let outcome = outcome.unwrap_or_else(|_| Err(format!("no answer within {deadline:?}")));
            if let Err(reason) = &outcome {
                tracing::warn!(number, kind = kind.name(), reason, after = ?began.elapsed(), "failed");
            }
            counts.count(kind, began.elapsed(), outcome);
            drop(permit);
        });
    }
    while under_way.join_next().await.is_some() {}
}

async fn exchange_one(connections: &Connections, number: u64, kind: Kind) -> Result<(), String> {
    let method = if kind.is_post() { Method::POST } else { Method::GET };
    let (request, expected) = exchange::request(number, &method, &connections.authority());
    let sent = match kind.is_kept() {
        true => connections.send_kept(request).await,
        false => connections.send_fresh(request).await,
    };
    let (response, sender) = sent.map_err(|error| error.to_string())?;
    let (head, body) = response.into_parts();
    let body = Limited::new(body, MAX_ANSWER).collect().await.map_err(|error| format!("cut off: {error}"))?;
    if kind.is_kept() {
        connections.keep(sender);
    }
    let body = body.to_bytes();
    match head.status {
        StatusCode::OK if body == expected => Ok(()),
        StatusCode::OK => Err("the answer to something else".to_owned()),
        status => Err(format!("status {}", status.as_u16())),
    }
}
