//! A destination service of which the test writes every word, and which can be stopped and started again.

use std::{collections::BTreeMap, net::SocketAddr, sync::Arc};

use conduit_identity::{Identity, Loaded};
use conduit_net::TokioNetwork;
use conduit_proto::destination::{
    Diff, Endpoint, GetRequest, Snapshot, Unknown, Update,
    destination_server::{Destination as Service, DestinationServer},
    get_request, update,
};
use conduit_runtime::{drain, grpc, serve};
use futures::{StreamExt, stream::BoxStream};
use tokio::{sync::mpsc, task::JoinHandle};
use tonic::{Request, Response, Status, service::Routes};

use super::within;

/// Dropping it stops the service and breaks its connections.
pub(crate) struct Script {
    pub(crate) addr: SocketAddr,
    asked: mpsc::UnboundedReceiver<Asked>,
    task: JoinHandle<()>,
    _drain: drain::Trigger,
}

/// A stream that a proxy opened.
pub(crate) struct Asked {
    pub(crate) target: String,
    words: mpsc::UnboundedSender<Result<Update, Status>>,
}

/// An endpoint as the service tells it.
pub(crate) fn endpoint(addr: SocketAddr, identity: Option<&Identity>, labels: &[(&str, &str)]) -> Endpoint {
    Endpoint {
        address: addr.to_string(),
        labels: pairs(labels),
        identity: identity.map(Identity::to_string).unwrap_or_default(),
    }
}

fn pairs(labels: &[(&str, &str)]) -> BTreeMap<String, String> {
    labels.iter().map(|(key, value)| ((*key).to_owned(), (*value).to_owned())).collect()
}

impl Asked {
    /// The service with these labels has these endpoints.
    pub(crate) fn snapshot(&self, labels: &[(&str, &str)], endpoints: Vec<Endpoint>) {
        let snapshot = Snapshot { service: self.target.clone(), labels: pairs(labels), endpoints };
        self.say(update::Update::Snapshot(snapshot));
    }

    /// These endpoints are new or changed, and those are gone.
    pub(crate) fn diff(&self, upsert: Vec<Endpoint>, remove: &[SocketAddr]) {
        let remove = remove.iter().map(SocketAddr::to_string).collect();
        self.say(update::Update::Diff(Diff { upsert, remove }));
    }

    pub(crate) fn unknown(&self) {
        self.say(update::Update::Unknown(Unknown {}));
    }

    /// Ends the stream.
    pub(crate) fn end(self) {
        // The proxy may have left already.
        let _ = self.words.send(Err(Status::unavailable("restarting")));
    }

    /// The service follows the cluster no more, or does again.
    pub(crate) fn stale(&self, stale: bool) {
        self.send(Update { update: None, stale });
    }

    fn say(&self, update: update::Update) {
        self.send(Update { update: Some(update), stale: false });
    }

    fn send(&self, update: Update) {
        self.words.send(Ok(update)).expect("the proxy listens");
    }
}

impl Script {
    pub(crate) async fn start() -> Self {
        Self::start_at(([127, 0, 0, 1], 0).into(), None).await
    }

    /// With credentials it does TLS and nothing else.
    pub(crate) async fn start_at(addr: SocketAddr, credentials: Option<Loaded>) -> Self {
        let listener = TokioNetwork::shared().bind(addr).await.unwrap();
        let addr = listener.local_addr();
        let credentials = credentials.map(Arc::new);
        let (asks, asked) = mpsc::unbounded_channel();
        let (_drain, watch) = drain::channel();
        let closing = watch.clone();
        let task = tokio::spawn(serve::accept_loop(listener, 100, watch, move |accepted| {
            let routes = Routes::new(DestinationServer::new(Answers(asks.clone())));
            let (drain, credentials) = (closing.clone(), credentials.clone());
            async move {
                // A proxy that leaves, or that does not believe us, is no news.
                match credentials {
                    None => drop(grpc::serve_connection(accepted.io, routes, drain).await),
                    Some(credentials) => {
                        let Ok((io, _)) = conduit_identity::accept(&credentials, accepted.io).await else {
                            return;
                        };
                        drop(grpc::serve_connection(io, routes, drain).await);
                    }
                }
            }
        }));
        Self { addr, asked, task, _drain }
    }

    /// The next stream that a proxy opens.
    pub(crate) async fn asked(&mut self) -> Asked {
        within(self.asked.recv()).await.expect("the service runs")
    }

    /// Whether no other stream was opened.
    pub(crate) fn was_asked_no_more(&mut self) -> bool {
        self.asked.try_recv().is_err()
    }

    /// Stops it; the address stays its own.
    pub(crate) async fn stop(mut self) -> SocketAddr {
        self.task.abort();
        // Its connections end with it.
        drop((&mut self.task).await);
        self.addr
    }
}

impl Drop for Script {
    fn drop(&mut self) {
        self.task.abort();
    }
}

struct Answers(mpsc::UnboundedSender<Asked>);

#[tonic::async_trait]
impl Service for Answers {
    type GetStream = BoxStream<'static, Result<Update, Status>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let target = match request.into_inner().target {
            Some(get_request::Target::Authority(target) | get_request::Target::Address(target)) => target,
            None => return Err(Status::invalid_argument("no target")),
        };
        let (words, heard) = mpsc::unbounded_channel();
        self.0.send(Asked { target, words }).map_err(|_| Status::unavailable("the test is over"))?;
        let heard = futures::stream::unfold(heard, |mut heard| async { Some((heard.recv().await?, heard)) });
        Ok(Response::new(heard.boxed()))
    }
}
