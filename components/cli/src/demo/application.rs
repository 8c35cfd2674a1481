//! Emojivoto as Deployments and Services of the mesh: what `apps/emojivoto/emojivoto.yml` is in a cluster.

use std::{net::SocketAddr, time::Duration};

use conduit_emojivoto::{Authority, BadAuthority, Counted, Tally, emoji, vote_bot, voting, web};
use conduit_mesh::{Deployment, Service, Sidecar};

/// Where it runs.
pub(super) const NAMESPACE: &str = "emojivoto";
/// The Deployment whose end is the end of the traffic.
pub(super) const VOTE_BOT: &str = "vote-bot";
/// The Deployments.
pub(super) const PARTS: [&str; 4] = ["emoji", "voting", "web", VOTE_BOT];

/// How often web asks for emoji's status.
const POLL_EVERY: Duration = Duration::from_secs(1);

/// The application, and what became of its requests.
pub(super) struct Application {
    has_tls: bool,
    unmeshed: Vec<String>,
    rps: f64,
    servers: Servers,
    votes: Tally,
    polls: Tally,
}

/// How the parts know each other.
#[derive(Clone)]
struct Servers {
    emoji: Authority,
    emoji_status: Authority,
    voting: Authority,
    web: Authority,
}

impl Application {
    pub(super) fn new(has_tls: bool, unmeshed: &[String], rps: f64) -> Result<Self, BadAuthority> {
        let servers = Servers {
            emoji: "emoji-svc.emojivoto:8080".parse()?,
            emoji_status: "emoji-svc.emojivoto:8888".parse()?,
            voting: "voting-svc.emojivoto:8080".parse()?,
            web: "web-svc.emojivoto:80".parse()?,
        };
        let (votes, polls) = (Tally::default(), Tally::default());
        Ok(Self { has_tls, unmeshed: unmeshed.to_owned(), rps, servers, votes, polls })
    }

    /// The parts in an order in which each finds those that it calls.
    pub(super) fn deployments(&self) -> Vec<Deployment> {
        let parts = [self.emoji(), self.voting(), self.web(), self.vote_bot()];
        parts.into_iter().zip(PARTS).map(|(part, name)| part.sidecar(self.sidecar(name))).collect()
    }

    /// All requests of the vote-bot and all of web's polls, so far.
    pub(super) fn counted(&self) -> Counted {
        let (votes, polls) = (self.votes.counted(), self.polls.counted());
        Counted {
            succeeded: votes.succeeded + polls.succeeded,
            refused: votes.refused + polls.refused,
            failed: votes.failed + polls.failed,
        }
    }

    fn sidecar(&self, name: &str) -> Sidecar {
        match (self.unmeshed.iter().any(|unmeshed| unmeshed == name), self.has_tls) {
            (true, _) => Sidecar::Absent,
            (false, true) => Sidecar::Tls,
            (false, false) => Sidecar::Plaintext,
        }
    }

    fn emoji(&self) -> Deployment {
        let part = Deployment::new(NAMESPACE, "emoji", |net, drain| async move {
            let config = emoji::Config { grpc: any(8080), status: any(8888) };
            emoji::bind(&net, &config).await?.run(drain).await;
            Ok(())
        });
        part.label("emoji-svc").port("grpc", 8080).port("http-status", 8888)
    }

    fn voting(&self) -> Deployment {
        let part = Deployment::new(NAMESPACE, "voting", |net, drain| async move {
            voting::bind(&net, &voting::Config { grpc: any(8080) }).await?.run(drain).await;
            Ok(())
        });
        part.label("voting-svc").port("grpc", 8080)
    }

    fn web(&self) -> Deployment {
        let (servers, polls) = (self.servers.clone(), self.polls.clone());
        let part = Deployment::new(NAMESPACE, "web", move |net, drain| {
            let config = web::Config {
                listen: any(8080),
                emoji: servers.emoji.clone(),
                emoji_status: servers.emoji_status.clone(),
                voting: servers.voting.clone(),
                poll_every: POLL_EVERY,
                polls: polls.clone(),
            };
            async move {
                web::bind(&net, config).await?.run(drain).await;
                Ok(())
            }
        });
        part.label("web-svc").port("http", 8080)
    }

    fn vote_bot(&self) -> Deployment {
        let (web, rps, tally) = (self.servers.web.clone(), self.rps, self.votes.clone());
        Deployment::new(NAMESPACE, VOTE_BOT, move |net, drain| {
            let config = vote_bot::Config { web: web.clone(), rps, tally: tally.clone() };
            async move {
                vote_bot::run(net, config, drain).await;
                Ok(())
            }
        })
    }
}

/// The Services.
pub(super) fn services() -> [Service; 3] {
    [
        Service::new(NAMESPACE, "emoji-svc").port("grpc", 8080, 8080).port("http-status", 8888, 8888),
        Service::new(NAMESPACE, "voting-svc").port("grpc", 8080, 8080),
        Service::new(NAMESPACE, "web-svc").port("http", 80, 8080),
    ]
}

fn any(port: u16) -> SocketAddr {
    ([0, 0, 0, 0], port).into()
}
