//! The web server: a page for people and an API for the page and the vote-bot, from what emoji and voting answer.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use bytes::Bytes;
use conduit_net::{Listener, Net};
use conduit_runtime::drain;
use http::{Method, Request, Response, StatusCode};
use http_body_util::Full;
use hyper::body::Incoming;
use serde_json::json;
use tokio::time::MissedTickBehavior;
use tonic::Status;

use crate::{
    Authority, Tally,
    contract::{
        FindByShortcodeRequest, ListAllRequest, ResultsRequest, emoji_service_client::EmojiServiceClient,
        voting_service_client::VotingServiceClient,
    },
    http_client::HttpClient,
    http_server::{self, answer, json},
    page,
    rpc::{self, BindError, Channel, within},
    votes,
};

/// How long a call to emoji or voting may take: far longer than it ever should, so that what is seen failing failed.
const CALL_DEADLINE: Duration = Duration::from_secs(5);

/// Where the web server listens and whom it asks.
#[derive(Debug, Clone)]
pub struct Config {
    /// HTTP; 80 in a cluster, as seen by clients of the Service.
    pub listen: SocketAddr,
    /// The emoji service, such as `emoji-svc.emojivoto:8080`.
    pub emoji: Authority,
    /// The emoji service's status, such as `emoji-svc.emojivoto:8888`.
    pub emoji_status: Authority,
    /// The voting service, such as `voting-svc.emojivoto:8080`.
    pub voting: Authority,
    /// How often the emoji service's status is asked for.
    pub poll_every: Duration,
    /// Counts those polls.
    pub polls: Tally,
}

/// A web server that listens and does not answer yet.
pub struct Web {
    listener: Box<dyn Listener>,
    backends: Arc<Backends>,
    poller: Poller,
}

/// The web server cannot start.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The address cannot be bound.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// A backend's name cannot be written into a request.
    #[error("a backend's name is not usable: {0}")]
    Name(#[from] http::Error),
}

/// Listens.
///
/// # Errors
/// The address cannot be bound, or a backend's name is not usable.
pub async fn bind(net: &Net, config: Config) -> Result<Web, Error> {
    let backends = Backends {
        emoji: EmojiServiceClient::new(rpc::channel(net.clone(), &config.emoji)?),
        voting: VotingServiceClient::new(rpc::channel(net.clone(), &config.voting)?),
    };
    let poller = Poller {
        client: HttpClient::new(net.clone(), config.emoji_status, CALL_DEADLINE),
        every: config.poll_every,
        tally: config.polls,
    };
    Ok(Web { listener: rpc::bind(net, config.listen).await?, backends: Arc::new(backends), poller })
}

impl Web {
    /// Where it listens, with the real port.
    pub fn addr(&self) -> SocketAddr {
        self.listener.local_addr()
    }

    /// Answers until the drain, and what is under way to its end.
    pub async fn run(self, drain: drain::Watch) {
        let backends = self.backends;
        let server = http_server::serve(self.listener, drain.clone(), move |request| {
            let backends = backends.clone();
            async move { backends.answer(request).await }
        });
        tokio::join!(server, self.poller.run(drain));
    }
}

struct Backends {
    emoji: EmojiServiceClient<Channel>,
    voting: VotingServiceClient<Channel>,
}

impl Backends {
    async fn answer(&self, request: Request<Incoming>) -> Response<Full<Bytes>> {
        if request.method() != Method::GET {
            return answer(StatusCode::METHOD_NOT_ALLOWED, "text/plain", "only GET is served here\n");
        }
        let answered = match request.uri().path() {
            "/" => Ok(answer(StatusCode::OK, "text/html; charset=utf-8", page::HTML)),
            "/api/list" => self.list().await,
            "/api/vote" => self.vote(request.uri().query().and_then(choice)).await,
            "/api/leaderboard" => self.leaderboard().await,
            _ => Ok(answer(StatusCode::NOT_FOUND, "text/plain", "not found\n")),
        };
        // Whatever a backend says that is not an answer is our failure in the eyes of our client.
        answered.unwrap_or_else(|status| {
            let problem = json!({"error": status.message(), "code": status.code().to_string()});
            json(StatusCode::INTERNAL_SERVER_ERROR, &problem)
        })
    }

    async fn list(&self) -> Result<Response<Full<Bytes>>, Status> {
        let mut emoji = self.emoji.clone();
        let listed = within(CALL_DEADLINE, emoji.list_all(ListAllRequest {})).await?.list;
        let list: Vec<_> = listed
            .iter()
            .map(|emoji| json!({"shortcode": emoji.shortcode, "unicode": emoji.unicode}))
            .collect();
        Ok(json(StatusCode::OK, &list.into()))
    }

    async fn vote(&self, choice: Option<String>) -> Result<Response<Full<Bytes>>, Status> {
        let Some(shortcode) = choice else {
            return Ok(json(
                StatusCode::BAD_REQUEST,
                &json!({"error": "say what you vote for: ?choice=:joy:"}),
            ));
        };
        let mut emoji = self.emoji.clone();
        let wanted = FindByShortcodeRequest { shortcode: shortcode.clone() };
        if within(CALL_DEADLINE, emoji.find_by_shortcode(wanted)).await?.emoji.is_none() {
            return Ok(json(StatusCode::BAD_REQUEST, &json!({"error": format!("there is no {shortcode}")})));
        }
        let mut voting = self.voting.clone();
        within(CALL_DEADLINE, votes::vote(&mut voting, &shortcode)).await?;
        Ok(json(StatusCode::OK, &json!({"voted": shortcode})))
    }

    async fn leaderboard(&self) -> Result<Response<Full<Bytes>>, Status> {
        let mut voting = self.voting.clone();
        let results = within(CALL_DEADLINE, voting.results(ResultsRequest {})).await?.results;
        let rows: Vec<_> = results
            .iter()
            .map(|result| json!({"shortcode": result.shortcode, "votes": result.votes}))
            .collect();
        Ok(json(StatusCode::OK, &rows.into()))
    }
}

/// The `choice` of a query, percent-decoded.
fn choice(query: &str) -> Option<String> {
    let value = query.split('&').find_map(|pair| pair.strip_prefix("choice="))?;
    percent_decode(value).filter(|choice| !choice.is_empty())
}

fn percent_decode(text: &str) -> Option<String> {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let Some((first, after)) = rest.split_first() {
        rest = after;
        if *first != b'%' {
            bytes.push(*first);
            continue;
        }
        let digits = std::str::from_utf8(rest.get(..2)?).ok()?;
        bytes.push(u8::from_str_radix(digits, 16).ok()?);
        rest = &rest[2..];
    }
    String::from_utf8(bytes).ok()
}

/// Asks for the emoji service's status, again and again.
struct Poller {
    client: HttpClient,
    every: Duration,
    tally: Tally,
}

impl Poller {
    async fn run(self, drain: drain::Watch) {
        let mut ticks = tokio::time::interval(self.every);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                _ = ticks.tick() => {}
            }
            match self.client.get("/status").await {
                Ok(answer) if answer.status.is_success() => self.tally.succeeded(),
                Ok(answer) => {
                    tracing::warn!(status = %answer.status, "the emoji service says that it is not well");
                    self.tally.failed();
                }
                Err(error) => {
                    tracing::warn!(%error, "the emoji service's status is not known");
                    self.tally.failed();
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_choice_is_found_in_any_encoding_of_the_query() {
        for (query, expected) in [
            ("choice=:joy:", Some(":joy:")),
            ("a=b&choice=%3Ajoy%3a", Some(":joy:")),
            ("choice=", None),
            ("choice=%3", None),
            ("choice=%zz", None),
            ("choice=%ff", None),
            ("other=:joy:", None),
        ] {
            assert_eq!(choice(query).as_deref(), expected, "{query}");
        }
    }
}
