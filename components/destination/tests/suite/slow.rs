//! A client that reads slowly.

use std::sync::Arc;

use conduit_net::Io;
use conduit_proto::destination::{destination_client::DestinationClient, get_request::Target};
use futures::future::BoxFuture;
use http::{Request, Response, Uri};
use hyper::{body::Incoming, client::conn::http2::SendRequest};
use hyper_util::rt::{TokioExecutor, TokioIo};
use k8s_openapi::api::core::v1::Service;
use kube::api::{Patch, PatchParams, PostParams};
use parking_lot::Mutex;
use serde_json::{Value, json};
use tonic::body::Body;

use crate::world::{Watching, World};

/// Bytes that the client takes before it has read any.
const WINDOW: u32 = 16 * 1024;
const ENDPOINTS: u8 = 250;
const UPDATES: u8 = 60;

/// A gRPC client whose windows hold one or two messages.
#[derive(Clone)]
struct Narrow(Arc<Mutex<SendRequest<Body>>>);

impl Narrow {
    async fn open(io: Io) -> Self {
        let (sender, connection) = hyper::client::conn::http2::Builder::new(TokioExecutor::new())
            .initial_stream_window_size(WINDOW)
            .initial_connection_window_size(WINDOW)
            .handshake(TokioIo::new(io))
            .await
            .unwrap();
        tokio::spawn(async move { connection.await.ok() });
        Self(Arc::new(Mutex::new(sender)))
    }
}

impl tower::Service<Request<Body>> for Narrow {
    type Response = Response<Incoming>;
    type Error = hyper::Error;
    type Future = BoxFuture<'static, Result<Response<Incoming>, hyper::Error>>;

    fn poll_ready(&mut self, _: &mut std::task::Context<'_>) -> std::task::Poll<Result<(), hyper::Error>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let path = request.uri().path_and_query().cloned().unwrap();
        let uri = Uri::builder().scheme("http").authority("destination").path_and_query(path).build();
        *request.uri_mut() = uri.unwrap();
        Box::pin(self.0.lock().send_request(request))
    }
}

/// A slice of a Service without pods: every endpoint at 10.<n>.0.x.
fn slice(n: u8) -> Value {
    let endpoint = |x: u8| json!({"addresses": [format!("10.{n}.0.{x}")], "conditions": {"ready": true}});
    json!({
        "apiVersion": "discovery.k8s.io/v1", "kind": "EndpointSlice",
        "metadata": {"name": "legacy-x", "namespace": "shop", "labels": {"kubernetes.io/service-name": "legacy"}},
        "addressType": "IPv4",
        "ports": [{"name": "", "port": 80}],
        "endpoints": (0..ENDPOINTS).map(endpoint).collect::<Vec<_>>(),
    })
}

#[tokio::test]
async fn a_slow_reader_skips_to_the_latest_state() {
    let world = World::new().await;
    let service: Service = serde_json::from_value(json!({
        "metadata": {"name": "legacy", "namespace": "shop"}, "spec": {"ports": [{"port": 80}]},
    }))
    .unwrap();
    world.api::<Service>().create(&PostParams::default(), &service).await.unwrap();
    let slices = world.api::<k8s_openapi::api::discovery::v1::EndpointSlice>();
    slices.create(&PostParams::default(), &serde_json::from_value(slice(0)).unwrap()).await.unwrap();

    let destination = world.destination().await;
    let narrow = DestinationClient::new(Narrow::open(destination.connect().await).await);
    let mut slow = Watching::open(narrow, Target::Authority("legacy".into())).await.unwrap();
    let mut quick = destination.authority("legacy").await;
    let all = |n: u8| {
        let mut all: Vec<String> = (0..ENDPOINTS).map(|x| format!("10.{n}.0.{x}:80 - -")).collect();
        all.sort();
        all
    };
    let strings = |all: &[String]| all.iter().map(String::as_str).collect::<Vec<_>>().join("\n");
    for n in 1..=UPDATES {
        let patch = Patch::Merge(slice(n));
        slices.patch("legacy-x", &PatchParams::default(), &patch).await.unwrap();
        while strings(&quick.told()) != strings(&all(n)) {
            assert!(quick.more().await);
        }
    }
    while strings(&slow.told()) != strings(&all(UPDATES)) {
        assert!(slow.more().await);
    }
    assert!(quick.messages > usize::from(UPDATES), "{}", quick.messages);
    assert!(slow.messages < 20, "{} messages were kept for a reader that did not read", slow.messages);
    assert!(slow.is_silent().await);
}
