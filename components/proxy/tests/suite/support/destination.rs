//! A destination service that says what it is told.

use std::{
    collections::{BTreeMap, BTreeSet},
    net::SocketAddr,
    pin::Pin,
};

use conduit_identity::Identity;
use conduit_net::TokioNetwork;
use conduit_proto::destination::{
    Endpoint, GetRequest, Snapshot, Unknown, Update,
    destination_server::{Destination as Service, DestinationServer},
    get_request::Target,
    update,
};
use conduit_proto::lifecycle::{
    AwaitEndRequest, AwaitEndResponse,
    lifecycle_server::{Lifecycle, LifecycleServer},
};
use conduit_runtime::{drain, grpc, serve};
use futures::{Stream, StreamExt};
use tokio::sync::watch;
use tonic::{Request, Response, Status, service::Routes};

pub(crate) struct Destination {
    pub(crate) addr: SocketAddr,
    known: watch::Sender<BTreeMap<String, Option<Vec<Endpoint>>>>,
    ended: watch::Sender<BTreeSet<String>>,
    _drain: drain::Trigger,
}

impl Destination {
    pub(crate) async fn start() -> Self {
        let listener = TokioNetwork::shared().bind(([127, 0, 0, 1], 0).into()).await.unwrap();
        let addr = listener.local_addr();
        let (known, ended) = (watch::Sender::default(), watch::Sender::default());
        let (_drain, watch) = drain::channel();
        let script = Script { known: known.subscribe(), ended: ended.subscribe() };
        let closing = watch.clone();
        tokio::spawn(serve::accept_loop(listener, 100, watch, move |accepted| {
            let lifecycle = LifecycleServer::new(script.clone());
            let routes = Routes::new(DestinationServer::new(script.clone())).add_service(lifecycle);
            let drain = closing.clone();
            async move {
                // A proxy that leaves is no news.
                let _ = grpc::serve_connection(accepted.io, routes, drain).await;
            }
        }));
        Self { addr, known, ended, _drain }
    }

    /// `target` (an authority or an address) is a service with these endpoints.
    pub(crate) fn tell(&self, target: impl ToString, endpoints: &[(SocketAddr, Option<&Identity>)]) {
        let endpoints = endpoints
            .iter()
            .map(|(addr, identity)| Endpoint {
                address: addr.to_string(),
                labels: BTreeMap::from([("pod".to_owned(), addr.ip().to_string())]).into_iter().collect(),
                identity: identity.map(|identity| identity.to_string()).unwrap_or_default(),
            })
            .collect();
        self.known.send_modify(|known| drop(known.insert(target.to_string(), Some(endpoints))));
    }

    /// The application of the pod with this uid has ended.
    pub(crate) fn end(&self, uid: &str) {
        self.ended.send_modify(|ended| {
            ended.insert(uid.to_owned());
        });
    }

    /// The service does not answer about `target`.
    pub(crate) fn be_silent_about(&self, target: impl ToString) {
        self.known.send_modify(|known| drop(known.insert(target.to_string(), None)));
    }
}

#[derive(Clone)]
struct Script {
    known: watch::Receiver<BTreeMap<String, Option<Vec<Endpoint>>>>,
    ended: watch::Receiver<BTreeSet<String>>,
}

#[tonic::async_trait]
impl Service for Script {
    type GetStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let target = match request.into_inner().target {
            Some(Target::Authority(target) | Target::Address(target)) => target,
            None => return Err(Status::invalid_argument("no target")),
        };
        let changes = tokio_stream::wrappers::WatchStream::new(self.known.clone());
        let updates = changes.filter_map(move |known| {
            let update = match known.get(&target) {
                Some(None) => None,
                Some(Some(endpoints)) => Some(update::Update::Snapshot(Snapshot {
                    service: target.clone(),
                    labels: [("service".to_owned(), "web".to_owned())].into_iter().collect(),
                    endpoints: endpoints.clone(),
                })),
                None => Some(update::Update::Unknown(Unknown {})),
            };
            std::future::ready(update.map(|update| Ok(Update { update: Some(update), stale: false })))
        });
        Ok(Response::new(Box::pin(updates)))
    }
}

#[tonic::async_trait]
impl Lifecycle for Script {
    async fn await_end(
        &self,
        request: Request<AwaitEndRequest>,
    ) -> Result<Response<AwaitEndResponse>, Status> {
        let AwaitEndRequest { pod_uid } = request.into_inner();
        let ended = self.ended.clone().wait_for(|ended| ended.contains(&pod_uid)).await.map(drop);
        ended.map(|()| Response::new(AwaitEndResponse {})).map_err(|_| Status::unavailable("gone"))
    }
}
