//! HTTP from the application: each request finds its own way.

use std::sync::Arc;

use conduit_runtime::drain;
use http::{Request, Response, StatusCode, header::HOST, request};
use hyper::body::Incoming;
use tokio::time::Instant;

use super::{
    Connection, Outbound,
    route::{Opened, Route},
};
use crate::{
    balance::InFlight,
    connect::{ConnectError, Connected, Remote, Security},
    http::{
        self as serving, Handover, Version,
        body::{Body, Record, Upload},
        forward::{self, Failed, Lease, Unanswered},
        headers::{self, Tie},
    },
    pool::{Idle, KeyRef, Lanes, Shared},
    session::{End, Exchange, Failure, TlsStatus},
    stream::{Resetter, Stream},
};

/// How often a request that did not reach a server is sent again.
const MAX_REPLAYS: usize = 3;

/// What the requests of one connection share.
struct Balanced {
    outbound: Arc<Outbound>,
    connection: Connection,
    version: Version,
    lanes: Arc<Lanes>,
    /// Of the client's connection; HTTP/2 has a better way to say that a request failed.
    resetter: Option<Resetter>,
    handover: Handover,
    drain: drain::Watch,
}

/// An upstream connection for one request.
enum Way {
    Http1(Lease),
    Http2(Shared),
}

/// Serves to the end of the connection.
pub(super) async fn serve(
    outbound: Arc<Outbound>,
    connection: Connection,
    mut client: Stream,
    version: Version,
    drain: drain::Watch,
) -> Result<(), hyper::Error> {
    let resetter = (version == Version::Http1).then(|| client.resetter());
    let lanes = Arc::new(Lanes::new(outbound.pool.clone(), outbound.config.timeouts.pool_idle));
    let handover = Handover::default();
    let session = connection.session.clone();
    let balanced = Balanced {
        outbound: outbound.clone(),
        connection,
        version,
        lanes,
        resetter,
        handover: handover.clone(),
        drain: drain.clone(),
    };
    let balanced = Arc::new(balanced);
    let forward = move |request| {
        let balanced = Arc::clone(&balanced);
        async move { balanced.forward(request).await }
    };
    let ending = async {
        match version {
            // The application may be about to use its idle connection: it is told with the next response.
            Version::Http1 => std::future::pending().await,
            Version::Http2 => drain.signaled().await,
        }
    };
    serving::serve(client, version, forward, ending).await?;
    let upgraded = handover.lock().take();
    if let Some(upgraded) = upgraded
        && let not_after = upgraded.not_after
        && let Ok((client, server)) = upgraded.streams().await
    {
        outbound.copy(&session, client, server, not_after).await;
    }
    Ok(())
}

impl Balanced {
    async fn forward(self: Arc<Self>, request: Request<Incoming>) -> Result<Response<Body>, Failed> {
        let (head, incoming) = request.into_parts();
        let mut exchange = self.connection.session.request(&head, &self.connection.source);
        let (version, grpc) = (head.version, headers::is_grpc(&head));
        if !headers::target_fits(&head) {
            exchange.end(End::Failed(Failure::Declined));
            return Ok(forward::answer(StatusCode::BAD_REQUEST, version));
        }
        let authority = authority(&head);
        let route = self.outbound.route(&self.connection, &authority).await;
        let (request, returning) = forward::prepare(head, incoming, Tie::Loose, self.handover.clone());
        match self.send(request, &authority, route, &mut exchange).await {
            Ok((response, lease)) => {
                let record = Record { exchange, lease, resetter: self.resetter.clone(), grpc };
                let mut response = returning.response(response, record);
                if self.version == Version::Http1 && self.drain.is_signaled() {
                    forward::make_last(&mut response);
                }
                Ok(response)
            }
            Err(Unsent::Nowhere) => {
                exchange.end(End::Failed(Failure::NoEndpoints));
                Ok(forward::answer(StatusCode::SERVICE_UNAVAILABLE, version))
            }
            Err(Unsent::Connect(error)) => {
                exchange.end(End::Failed(error.failure()));
                tracing::debug!(%error, authority, "a request cannot be delivered");
                self.resetter.iter().for_each(Resetter::arm);
                Err(Failed::unsent(error.failure()))
            }
            Err(Unsent::Unanswered(unanswered)) => {
                unanswered.answer(&mut exchange, grpc, self.resetter.as_ref())
            }
        }
    }

    /// Sends to one endpoint after the other, as long as it is certain that none has looked at the request.
    async fn send(
        &self,
        mut request: Request<Upload>,
        authority: &str,
        mut route: Route,
        exchange: &mut Exchange,
    ) -> Result<(Response<Incoming>, Option<Lease>), Unsent> {
        let mut refused = None;
        let mut replays = 0;
        loop {
            let Some(remote) = route.choose(self.outbound.draw()) else {
                return Err(refused.map_or(Unsent::Nowhere, Unsent::Connect));
            };
            exchange.aimed(remote.addr(), remote.labels());
            let mut way = match self.way(&remote, authority).await {
                Ok(way) if route.is_somebody_else(&remote, way.tls()) => {
                    route.leave_out(&remote);
                    continue;
                }
                Ok(way) => way,
                Err(error) if route.failed(&remote, self.outbound.draw()) => {
                    refused = Some(error);
                    continue;
                }
                Err(error) => return Err(Unsent::Connect(error)),
            };
            exchange.dispatched(remote.addr(), remote.labels(), way.tls());
            let again = way.keep_for_replay(&request);
            let in_flight = start(&remote);
            match way.send(request).await {
                Ok(response) => {
                    in_flight.inspect_answered();
                    return Ok((response, way.into_lease()));
                }
                Err(unanswered) => {
                    in_flight.inspect_failed();
                    request = replayable(unanswered, again, &mut replays).map_err(Unsent::Unanswered)?;
                }
            }
        }
    }

    /// A connection to `remote`: one that is there, or a new one.
    async fn way(&self, remote: &Remote, authority: &str) -> Result<Way, ConnectError> {
        let security = self.outbound.connector.security(remote, self.connection.session.peer().ip());
        let key = KeyRef { addr: remote.addr(), security: &security, authority };
        match self.version {
            Version::Http1 => {
                if let Some(idle) = self.lanes.take(key) {
                    return Ok(Way::Http1(Lease { lanes: self.lanes.clone(), key: key.to_key(), idle }));
                }
                let opened = self.open(remote, &security).await?;
                self.lease(opened, authority).await.map(Way::Http1)
            }
            Version::Http2 => {
                let place = self.lanes.shared(key);
                let shared = place.get_or_try_init(|| self.share(remote, &security)).await?;
                Ok(Way::Http2(shared.clone()))
            }
        }
    }

    async fn lease(&self, opened: Opened, authority: &str) -> Result<Lease, ConnectError> {
        let Opened { remote, connected: Connected { stream, tls, not_after } } = opened;
        let (sender, connection) = forward::open_http1(stream).await.map_err(broken)?;
        run(connection);
        let security = Security::of(&tls);
        let key = KeyRef { addr: remote.addr(), security: &security, authority }.to_key();
        let idle = Idle { sender, tls: Arc::new(tls), not_after };
        Ok(Lease { lanes: self.lanes.clone(), key, idle })
    }

    async fn share(&self, remote: &Remote, security: &Security) -> Result<Shared, ConnectError> {
        let Opened { connected: Connected { stream, tls, not_after }, .. } =
            self.open(remote, security).await?;
        let (sender, connection) = forward::open_http2(stream).await.map_err(broken)?;
        run(connection);
        Ok(Shared { sender, tls: Arc::new(tls), not_after })
    }

    async fn open(&self, remote: &Remote, security: &Security) -> Result<Opened, ConnectError> {
        let connected = match self.take_spare(remote, security) {
            Some(spare) => spare,
            None => self.outbound.connector.open(remote, security).await?,
        };
        if let Remote::Endpoint(endpoint) = remote {
            endpoint.load.connected();
        }
        Ok(Opened { remote: remote.clone(), connected })
    }

    /// The connection that was dialled ahead, if it is the one that is wanted first; it is closed otherwise.
    fn take_spare(&self, remote: &Remote, security: &Security) -> Option<Connected> {
        let spare = self.connection.spare.lock().take()?;
        let is_wanted = spare.addr == remote.addr() && spare.security == *security;
        let stream = spare.stream.filter(|_| is_wanted)?;
        Some(Connected { stream, tls: spare.tls, not_after: spare.not_after })
    }
}

/// Why a request is not answered.
enum Unsent {
    /// There is no endpoint, and no original destination.
    Nowhere,
    Connect(ConnectError),
    Unanswered(Unanswered),
}

impl Way {
    fn tls(&self) -> &TlsStatus {
        match self {
            Self::Http1(lease) => &lease.idle.tls,
            Self::Http2(shared) => &shared.tls,
        }
    }

    /// A copy of a request without a body, where the peer may prove that it did not look at it.
    fn keep_for_replay(&self, request: &Request<Upload>) -> Option<Request<Upload>> {
        match self {
            Self::Http2(_) if request.body().0.is_none() => {
                let mut again = Request::new(Upload(None));
                *again.method_mut() = request.method().clone();
                *again.uri_mut() = request.uri().clone();
                *again.version_mut() = request.version();
                *again.headers_mut() = request.headers().clone();
                Some(again)
            }
            _ => None,
        }
    }

    /// Waiting is bounded by the client's patience, not by ours: a slow answer is an answer.
    async fn send(&mut self, request: Request<Upload>) -> Result<Response<Incoming>, Unanswered> {
        Ok(match self {
            Self::Http1(lease) => lease.idle.sender.try_send_request(request).await?,
            Self::Http2(shared) => shared.sender.try_send_request(request).await?,
        })
    }

    fn into_lease(self) -> Option<Lease> {
        match self {
            Self::Http1(lease) => Some(lease),
            Self::Http2(_) => None,
        }
    }
}

/// The request, if it may be sent again.
fn replayable(
    mut unanswered: Unanswered,
    again: Option<Request<Upload>>,
    replays: &mut usize,
) -> Result<Request<Upload>, Unanswered> {
    let request =
        unanswered.unsent.take().map(|unsent| *unsent).or(again.filter(|_| unanswered.is_unprocessed));
    match request {
        Some(request) if *replays < MAX_REPLAYS => {
            *replays += 1;
            Ok(request)
        }
        _ => Err(unanswered),
    }
}

struct Started(Option<InFlight>);

fn start(remote: &Remote) -> Started {
    Started(match remote {
        Remote::Endpoint(endpoint) => Some(endpoint.load.start(Instant::now())),
        Remote::Address { .. } => None,
    })
}

impl Started {
    fn inspect_answered(self) {
        if let Some(in_flight) = self.0 {
            in_flight.answered(Instant::now());
        }
    }

    fn inspect_failed(self) {
        if let Some(in_flight) = self.0 {
            in_flight.failed(Instant::now());
        }
    }
}

/// What the request names as its host; empty when it names none.
fn authority(head: &request::Parts) -> Box<str> {
    let of_uri = head.uri.authority().map(|authority| authority.as_str());
    let of_host = || head.headers.get(HOST).and_then(|host| host.to_str().ok());
    of_uri.or_else(of_host).unwrap_or_default().into()
}

/// Runs a connection until it ends: when the peer closes it, or when nobody holds its sender any more.
fn run(connection: impl Future<Output = Result<(), hyper::Error>> + Send + 'static) {
    tokio::spawn(async move {
        if let Err(error) = connection.await {
            tracing::debug!(%error, "an upstream connection broke");
        }
    });
}

/// hyper failed before a byte was sent, which a connection that has just opened does only when it breaks.
fn broken(error: hyper::Error) -> ConnectError {
    ConnectError::Unreachable(std::io::Error::other(error))
}
