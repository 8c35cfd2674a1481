//! The vote-bot: a person who never tires. It looks at the list, then votes, again and again; every so many votes it
//! wants the doughnut.

use std::{sync::Arc, time::Duration};

use conduit_net::Net;
use conduit_runtime::drain;
use http::StatusCode;
use tokio::{sync::Semaphore, task::JoinSet, time::MissedTickBehavior};

use crate::{
    Authority, Tally,
    http_client::{Answer, GetError, HttpClient},
    votes::{DOUGHNUT, DOUGHNUT_REFUSAL, SHORTCODES},
};

/// How long the web server may take: longer than all the calls that it makes for us.
const CALL_DEADLINE: Duration = Duration::from_secs(12);
/// Visits under way at once; when the web server is slower than the wanted rate, the rate gives in.
const MAX_VISITS: usize = 256;
/// Each visit is two requests: the list and a vote.
const REQUESTS_PER_VISIT: f64 = 2.0;
/// One vote in six is for the doughnut, so that five sixths, 83.33 %, of the votes succeed.
pub const DOUGHNUT_EVERY: u64 = 6;

/// Whom the vote-bot visits and how often.
#[derive(Debug, Clone)]
pub struct Config {
    /// The web server, such as `web-svc.emojivoto:80`.
    pub web: Authority,
    /// Requests a second, more than 0.
    pub rps: f64,
    /// Counts the requests.
    pub tally: Tally,
}

/// Votes until the drain, then waits for the visits under way.
pub async fn run(net: Net, config: Config, drain: drain::Watch) {
    let bot = Arc::new(Bot { web: HttpClient::new(net, config.web, CALL_DEADLINE), tally: config.tally });
    let permits = Arc::new(Semaphore::new(MAX_VISITS));
    let mut ticks =
        tokio::time::interval(Duration::from_secs_f64(REQUESTS_PER_VISIT / config.rps.max(0.001)));
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    let mut visits = JoinSet::new();
    for number in 0_u64.. {
        let permit = tokio::select! {
            biased;
            () = drain.signaled() => break,
            permit = async { ticks.tick().await; permits.clone().acquire_owned().await } => permit,
        };
        while visits.try_join_next().is_some() {}
        let bot = bot.clone();
        visits.spawn(async move {
            bot.visit(number).await;
            drop(permit);
        });
    }
    while visits.join_next().await.is_some() {}
}

struct Bot {
    web: HttpClient,
    tally: Tally,
}

impl Bot {
    async fn visit(&self, number: u64) {
        self.judge("/api/list", false, self.web.get("/api/list").await);
        let choice = choice(number);
        let path = format!("/api/vote?choice={choice}");
        self.judge(&path, choice == DOUGHNUT, self.web.get(&path).await);
    }

    /// Counts what became of a request. The doughnut's error is the right answer to a vote for it, and only that error:
    /// any other one, and a success, come from somewhere else than the voting service.
    fn judge(&self, path: &str, is_doughnut: bool, answered: Result<Answer, GetError>) {
        match answered {
            Ok(answer) if !is_doughnut && answer.status.is_success() => self.tally.succeeded(),
            Ok(answer) if is_doughnut && is_refusal(&answer) => self.tally.refused(),
            Ok(answer) => {
                let body = String::from_utf8_lossy(&answer.body[..answer.body.len().min(200)]).into_owned();
                tracing::warn!(path, status = %answer.status, body, "the wrong answer");
                self.tally.failed();
            }
            Err(error) => {
                tracing::warn!(path, %error, "no answer");
                self.tally.failed();
            }
        }
    }
}

fn is_refusal(answer: &Answer) -> bool {
    answer.status == StatusCode::INTERNAL_SERVER_ERROR
        && String::from_utf8_lossy(&answer.body).contains(DOUGHNUT_REFUSAL)
}

/// What the vote of visit `number` is for: the doughnut at the end of every round, the others in turn.
fn choice(number: u64) -> &'static str {
    if number % DOUGHNUT_EVERY == DOUGHNUT_EVERY - 1 {
        return DOUGHNUT;
    }
    let others = SHORTCODES.len() as u64 - 1;
    let votes_for_others = number - number / DOUGHNUT_EVERY;
    SHORTCODES[1 + (votes_for_others % others) as usize]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_vote_in_six_is_for_the_doughnut_and_everybody_else_gets_some() {
        let votes: Vec<&str> = (0..60).map(choice).collect();
        assert_eq!(votes.iter().filter(|vote| **vote == DOUGHNUT).count(), 10);
        assert!(SHORTCODES.iter().all(|shortcode| votes.contains(shortcode)));
    }
}
