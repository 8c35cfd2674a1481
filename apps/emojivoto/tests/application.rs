//! The four parts together on real sockets.

#![allow(clippy::unwrap_used, reason = "a test")]

use std::time::Duration;

use conduit_emojivoto::{Counted, Tally, emoji, vote_bot, voting, web};
use conduit_net::{Io, Net, TokioNetwork};
use conduit_runtime::drain;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

const DEADLINE: Duration = Duration::from_secs(30);

struct Application {
    net: Net,
    web: std::net::SocketAddr,
    polls: Tally,
}

/// Starts emoji, voting and web on ports of their own; returns once all of them listen.
async fn application(drain: drain::Watch) -> Application {
    let net = TokioNetwork::shared();
    let any = "127.0.0.1:0".parse().unwrap();
    let emoji = emoji::bind(&net, &emoji::Config { grpc: any, status: any }).await.unwrap();
    let voting = voting::bind(&net, &voting::Config { grpc: any }).await.unwrap();
    let polls = Tally::default();
    let config = web::Config {
        listen: any,
        emoji: emoji.grpc_addr().to_string().parse().unwrap(),
        emoji_status: emoji.status_addr().to_string().parse().unwrap(),
        voting: voting.grpc_addr().to_string().parse().unwrap(),
        poll_every: Duration::from_millis(10),
        polls: polls.clone(),
    };
    let web = web::bind(&net, config).await.unwrap();
    let address = web.addr();
    tokio::spawn(emoji.run(drain.clone()));
    tokio::spawn(voting.run(drain.clone()));
    tokio::spawn(web.run(drain.clone()));
    Application { net, web: address, polls }
}

async fn get(app: &Application, path: &str) -> String {
    let mut io: Io = app.net.connect(app.web).await.unwrap();
    let request = format!("GET {path} HTTP/1.1\r\nhost: web-svc\r\nconnection: close\r\n\r\n");
    io.write_all(request.as_bytes()).await.unwrap();
    let mut answer = String::new();
    io.read_to_string(&mut answer).await.unwrap();
    answer
}

async fn until(what: &str, holds: impl Fn() -> bool) {
    let waiting = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(5)).await;
        }
    };
    tokio::time::timeout(DEADLINE, waiting)
        .await
        .unwrap_or_else(|_| panic!("not within {DEADLINE:?}: {what}"));
}

#[tokio::test]
async fn a_vote_counts_and_the_doughnut_fails() {
    let (_trigger, drain) = drain::channel();
    let app = application(drain).await;
    assert!(get(&app, "/").await.contains("Vote for your favourite"));
    assert!(get(&app, "/api/list").await.contains(r#"{"shortcode":":rocket:","unicode":"🚀"}"#));
    assert!(get(&app, "/api/vote?choice=:rocket:").await.starts_with("HTTP/1.1 200"));
    assert!(get(&app, "/api/vote?choice=%3Arocket%3A").await.starts_with("HTTP/1.1 200"));
    assert!(get(&app, "/api/vote?choice=:cat:").await.starts_with("HTTP/1.1 200"));
    let doughnut = get(&app, "/api/vote?choice=:doughnut:").await;
    assert!(doughnut.starts_with("HTTP/1.1 500") && doughnut.contains("cannot be voted for"), "{doughnut}");
    let board = get(&app, "/api/leaderboard").await;
    assert!(
        board.ends_with(r#"[{"shortcode":":rocket:","votes":2},{"shortcode":":cat:","votes":1}]"#),
        "{board}"
    );
}

#[tokio::test]
async fn nonsense_is_the_clients_mistake() {
    let (_trigger, drain) = drain::channel();
    let app = application(drain).await;
    assert!(get(&app, "/api/vote").await.starts_with("HTTP/1.1 400"));
    assert!(get(&app, "/api/vote?choice=:nothing:").await.starts_with("HTTP/1.1 400"));
    assert!(get(&app, "/elsewhere").await.starts_with("HTTP/1.1 404"));
}

#[tokio::test]
async fn the_bot_is_refused_once_in_six_votes_and_a_drain_ends_everything() {
    let (trigger, drain) = drain::channel();
    let app = application(drain).await;
    let tally = Tally::default();
    let web = app.web.to_string().parse().unwrap();
    let bot = vote_bot::Config { web, rps: 1000.0, tally: tally.clone() };
    let (stop_bot, bot_drain) = drain::channel();
    tokio::spawn(vote_bot::run(app.net.clone(), bot, bot_drain));
    until("two refusals", || tally.counted().refused >= 2).await;
    until("a poll of the status", || app.polls.counted().succeeded > 0).await;
    assert!(stop_bot.drain(DEADLINE).await, "the bot did not end");
    assert!(trigger.drain(DEADLINE).await, "something did not end");
    let Counted { succeeded, refused, failed } = tally.counted();
    assert_eq!(failed, 0);
    // Of twelve requests, six list, five vote and one is refused.
    assert!((refused * 11..=(refused + 1) * 11).contains(&succeeded), "{succeeded} beside {refused}");
}

#[tokio::test]
async fn a_web_server_that_is_not_there_is_counted_as_failures() {
    let (trigger, drain) = drain::channel();
    let net = TokioNetwork::shared();
    let nobody = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap().local_addr();
    let tally = Tally::default();
    let bot =
        vote_bot::Config { web: nobody.to_string().parse().unwrap(), rps: 1000.0, tally: tally.clone() };
    tokio::spawn(vote_bot::run(net, bot, drain));
    until("two failures", || tally.counted().failed >= 2).await;
    assert!(trigger.drain(DEADLINE).await);
    assert_eq!((tally.counted().succeeded, tally.counted().refused), (0, 0));
}
