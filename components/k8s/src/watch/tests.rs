use std::{collections::VecDeque, convert::Infallible, sync::Arc};

use bytes::Bytes;
use conduit_runtime::Seed;
use futures::{StreamExt, stream};
use http::{Request as HttpRequest, Response};
use http_body_util::{BodyExt, Full, StreamBody, combinators::UnsyncBoxBody};
use hyper::body::Frame;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::client::Body;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tokio::{
    sync::mpsc,
    time::{Instant, timeout},
};

use super::*;
use crate::{
    cause::News,
    logged::{self, Log},
};

/// What the API server does with one request; with the next one after the last it is silent.
enum Answer {
    Json(u16, Value),
    /// A watch that sends these and ends.
    Events(Vec<Value>),
    /// A watch that sends these and then nothing for ever.
    EventsThenSilence(Vec<Value>),
    Silence,
}

type Answered = UnsyncBoxBody<Bytes, Infallible>;

#[derive(Clone, Default)]
struct Api {
    answers: Arc<Mutex<VecDeque<Answer>>>,
    requests: Arc<Mutex<Vec<String>>>,
}

impl Api {
    fn new(answers: impl IntoIterator<Item = Answer>) -> Self {
        Self { answers: Arc::new(Mutex::new(answers.into_iter().collect())), requests: Arc::default() }
    }

    fn client(&self) -> Client {
        logged::listen();
        let api = self.clone();
        let service = tower::service_fn(move |request: HttpRequest<Body>| {
            let api = api.clone();
            let uri = request.uri().to_string();
            async move { Ok::<_, Infallible>(api.answer(uri).await) }
        });
        Client::new(service, "default")
    }

    async fn answer(&self, uri: String) -> Response<Answered> {
        self.requests.lock().push(uri);
        let answer = self.answers.lock().pop_front().unwrap_or(Answer::Silence);
        match answer {
            Answer::Json(status, value) => {
                let body = Full::from(value.to_string()).boxed_unsync();
                Response::builder().status(status).body(body).unwrap()
            }
            Answer::Events(events) => Response::new(lines(events, stream::empty())),
            Answer::EventsThenSilence(events) => Response::new(lines(events, stream::pending())),
            Answer::Silence => std::future::pending().await,
        }
    }

    /// The requests so far, reduced to what tells them apart.
    fn requests(&self) -> Vec<String> {
        let told = |uri: &String| {
            let (_, query) = uri.split_once('?').unwrap_or_default();
            let wanted = |pair: &&str| pair.starts_with("continue=") || pair.starts_with("resourceVersion=");
            let pairs: Vec<&str> = query.split('&').filter(wanted).collect();
            let verb = if query.contains("watch=true") { "watch" } else { "list" };
            format!("{verb} {}", pairs.join(" ")).trim_end().to_owned()
        };
        self.requests.lock().iter().map(told).collect()
    }
}

fn lines(
    events: Vec<Value>,
    rest: impl futures::Stream<Item = Result<Frame<Bytes>, Infallible>> + Send + 'static,
) -> Answered {
    let frames = events.into_iter().map(|event| Ok(Frame::data(Bytes::from(format!("{event}\n")))));
    StreamBody::new(stream::iter(frames).chain(rest)).boxed_unsync()
}

fn map(name: &str, version: &str) -> Value {
    json!({"metadata": {"namespace": "shop", "name": name, "resourceVersion": version}})
}

fn list(version: &str, items: Value) -> Answer {
    Answer::Json(200, json!({"metadata": {"resourceVersion": version}, "items": items}))
}

fn event(kind: &str, object: Value) -> Value {
    json!({"type": kind, "object": object})
}

fn gone() -> Value {
    json!({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired", "message": "too old"})
}

/// What is followed from `api`, each event in short.
fn follow(api: &Api) -> (mpsc::UnboundedReceiver<String>, Health) {
    let source = Source::<ConfigMap>::namespaced(api.client(), "shop");
    let follow = Follow::new(source, Timing::default(), &Seed::fixed(1));
    let health = follow.health();
    let (told, events) = mpsc::unbounded_channel();
    let on = move |event: Event<String>| {
        let text = match event {
            Event::Listed(all) => format!("listed {}", all.into_values().collect::<Vec<_>>().join(" ")),
            Event::Applied(key, version) => format!("applied {key} {version}"),
            Event::Deleted(key) => format!("deleted {key}"),
        };
        drop(told.send(text.trim_end().to_owned()));
    };
    let convert = |object: ConfigMap| {
        let meta = object.metadata;
        format!("{}@{}", meta.name.unwrap_or_default(), meta.resource_version.unwrap_or_default())
    };
    tokio::spawn(follow.run(convert, on));
    (events, health)
}

async fn take(events: &mut mpsc::UnboundedReceiver<String>, count: usize) -> Vec<String> {
    let mut taken = Vec::new();
    while taken.len() < count {
        let next = timeout(Duration::from_secs(3600), events.recv()).await;
        taken.push(next.expect("an event within an hour").expect("the following never ends"));
    }
    taken
}

#[tokio::test(start_paused = true)]
async fn a_list_in_pages_is_told_whole_and_in_order_and_watched_from_its_version() {
    let api = Api::new([
        Answer::Json(
            200,
            json!({"metadata": {"resourceVersion": "4", "continue": "more"}, "items": [map("b", "2")]}),
        ),
        list("5", json!([map("a", "1")])),
        Answer::EventsThenSilence(vec![
            event("ADDED", map("c", "6")),
            event("MODIFIED", map("a", "7")),
            event("DELETED", map("b", "8")),
        ]),
    ]);
    let (mut events, health) = follow(&api);
    health.synced().await;
    assert_eq!(
        take(&mut events, 4).await,
        ["listed a@1 b@2", "applied shop/c c@6", "applied shop/a a@7", "deleted shop/b"]
    );
    assert_eq!(api.requests(), ["list", "list continue=more", "watch resourceVersion=5"]);
}

#[tokio::test(start_paused = true)]
async fn a_watch_resumes_where_the_last_one_ended() {
    let bookmark = json!({
        "kind": "ConfigMap", "apiVersion": "v1", "metadata": {"resourceVersion": "90"},
    });
    let api = Api::new([
        list("5", json!([])),
        Answer::EventsThenSilence(vec![event("ADDED", map("a", "6"))]),
        Answer::Events(vec![event("BOOKMARK", bookmark)]),
        Answer::Events(vec![event("ADDED", map("b", "91"))]),
    ]);
    let (mut events, _) = follow(&api);
    assert_eq!(take(&mut events, 3).await, ["listed", "applied shop/a a@6", "applied shop/b b@91"]);
    assert_eq!(
        api.requests(),
        ["list", "watch resourceVersion=5", "watch resourceVersion=6", "watch resourceVersion=90"]
    );
}

#[tokio::test(start_paused = true)]
async fn a_version_that_is_too_old_leads_to_a_new_list() {
    let api = Api::new([
        list("5", json!([map("a", "1")])),
        Answer::Events(vec![event("ERROR", gone())]),
        list("50", json!([])),
        Answer::Json(410, gone()),
        list("60", Value::Null),
    ]);
    let (mut events, health) = follow(&api);
    assert_eq!(take(&mut events, 3).await, ["listed a@1", "listed", "listed"]);
    assert_eq!(health.failures(), 2);
}

#[tokio::test(start_paused = true)]
async fn an_object_that_cannot_be_read_hides_no_other() {
    let odd = json!({"metadata": {"namespace": "shop", "name": "odd"}, "data": 7});
    let api = Api::new([
        list("5", json!([odd, map("a", "1")])),
        Answer::EventsThenSilence(vec![event("ADDED", odd.clone()), event("ADDED", map("b", "6"))]),
    ]);
    let (mut events, _) = follow(&api);
    assert_eq!(take(&mut events, 2).await, ["listed a@1", "applied shop/b b@6"]);
}

#[tokio::test(start_paused = true)]
async fn a_silent_api_server_is_asked_again() {
    let api = Api::new([
        Answer::Silence,
        list("5", json!([])),
        Answer::Silence,
        Answer::Events(vec![event("ADDED", map("a", "6"))]),
    ]);
    let start = Instant::now();
    let (mut events, health) = follow(&api);
    assert_eq!(take(&mut events, 2).await, ["listed", "applied shop/a a@6"]);
    assert_eq!(api.requests()[1..], ["list", "watch resourceVersion=5", "watch resourceVersion=5"]);
    assert_eq!(health.failures(), 2);
    assert!(start.elapsed() < 3 * Timing::default().answer, "{:?}", start.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_list_is_made_anew_when_it_is_old() {
    let watches = (0..200).map(|_| Answer::EventsThenSilence(Vec::new()));
    let api = Api::new([list("5", json!([]))]);
    api.answers.lock().extend(watches);
    let start = Instant::now();
    let (mut events, _) = follow(&api);
    take(&mut events, 1).await;
    while api.requests().iter().filter(|request| *request == "list").count() < 2 {
        tokio::time::sleep(Duration::from_secs(60)).await;
    }
    let age = start.elapsed();
    assert!((30..34).contains(&(age.as_secs() / 60)), "{age:?}");
}

#[tokio::test(start_paused = true)]
async fn an_error_of_the_api_server_is_not_the_end_of_a_position() {
    let busy = |code: u16| Answer::Json(code, json!({"kind": "Status", "status": "Failure", "code": code}));
    let api = Api::new([list("5", json!([])), busy(503), busy(429), busy(500), list("9", json!([]))]);
    let (mut events, _) = follow(&api);
    take(&mut events, 2).await;
    let watch = "watch resourceVersion=5";
    assert_eq!(api.requests()[..5], ["list", watch, watch, watch, "list"], "only 500 doubts the version");
}

#[tokio::test(start_paused = true)]
async fn what_is_not_served_is_told_to_who_can_ask_otherwise() {
    let missing =
        || Answer::Json(404, json!({"kind": "Status", "status": "Failure", "code": 404, "message": "no"}));
    let api = Api::new([missing(), list("5", json!([]))]);
    let (told, mut events) = mpsc::unbounded_channel();
    let on = move |event| {
        told.send(matches!(event, Event::Listed(_))).ok();
    };
    tokio::spawn(crate::slices::follow(
        api.client(),
        Timing::default(),
        Seed::fixed(1),
        Health::default(),
        News::default(),
        on,
    ));
    assert_eq!(events.recv().await, Some(true));
    let paths: Vec<String> =
        api.requests.lock().iter().map(|uri| uri.split('?').next().unwrap().to_owned()).collect();
    assert_eq!(
        paths[..2],
        ["/apis/discovery.k8s.io/v1/endpointslices", "/apis/discovery.k8s.io/v1beta1/endpointslices"]
    );
}

fn forbidden(code: u16) -> Answer {
    Answer::Json(
        code,
        json!({"kind": "Status", "status": "Failure", "code": code, "reason": "Forbidden", "message": "not\n  for you"}),
    )
}

#[tokio::test(start_paused = true)]
async fn a_failure_that_lasts_is_one_line_and_a_reminder_every_few_minutes() {
    let (log, _guard) = Log::start();
    let api = Api::new((0..20_000).map(|_| forbidden(403)));
    let (_events, health) = follow(&api);
    tokio::time::sleep(Duration::from_secs(60)).await;
    let expected = "WARN conduit_k8s::watch::follow: cannot follow the cluster; what was seen of it stays in use \
                    path=\"/api/v1/namespaces/shop/configmaps\" \
                    cause=the API server declines: 403 Forbidden: not for you";
    assert_eq!(log.lines(), [expected]);
    api.answers.lock().clear();
    api.answers.lock().extend((0..20_000).map(|_| Answer::Json(500, json!({"code": 500}))));
    tokio::time::sleep(Duration::from_secs(59 * 60)).await;
    assert!((2..=14).contains(&log.lines().len()), "{:#?}", log.lines());
    assert!(log.lines()[1].contains("500"), "{:#?}", log.lines());
    assert!(health.failures() > 300 && health.last_error().is_some(), "{}", health.failures());

    api.answers.lock().clear();
    api.answers.lock().extend([list("5", json!([])), Answer::EventsThenSilence(Vec::new())]);
    tokio::time::sleep(Duration::from_secs(20)).await;
    assert!(log.lines().last().unwrap().contains("following the cluster again"), "{:#?}", log.lines());
    assert_eq!(health.last_error(), None);
}

#[tokio::test(start_paused = true)]
async fn who_may_list_and_not_watch_lists_at_the_pace_of_retries_and_says_so_once() {
    let (log, _guard) = Log::start();
    let api = Api::new((0..1000).flat_map(|_| [list("5", json!([map("a", "1")])), forbidden(403)]));
    let (mut events, _) = follow(&api);
    tokio::time::sleep(Duration::from_secs(240)).await;
    let lists = api.requests().iter().filter(|request| *request == "list").count();
    assert!((20..60).contains(&lists), "{lists} lists in four minutes");
    assert_eq!(log.lines().len(), 1, "{:#?}", log.lines());
    assert_eq!(take(&mut events, 1).await, ["listed a@1"]);
}

#[tokio::test(start_paused = true)]
async fn what_no_api_server_serves_is_told_once() {
    let (log, _guard) = Log::start();
    let api = Api::new((0..1000).map(|_| Answer::Json(404, json!({"code": 404}))));
    let _events = follow(&api);
    tokio::time::sleep(Duration::from_secs(240)).await;
    assert_eq!(log.lines().len(), 1, "{:#?}", log.lines());
}

#[tokio::test(start_paused = true)]
async fn that_nobody_answers_is_one_line_of_all_that_share_their_news() {
    let (log, _guard) = Log::start();
    let (api, news) = (Api::new([]), News::default());
    for namespace in ["shop", "office"] {
        let source = Source::<ConfigMap>::namespaced(api.client(), namespace);
        let follow = Follow::new(source, Timing::default(), &Seed::fixed(1)).telling(news.clone());
        tokio::spawn(follow.run(|map| map, |_| {}));
    }
    tokio::time::sleep(Duration::from_secs(120)).await;
    let expected = "WARN conduit_k8s::watch::follow: cannot follow the cluster; what was seen of it stays in use \
                    cause=no API server: no answer within 15s";
    assert_eq!(log.lines(), [expected]);
}
