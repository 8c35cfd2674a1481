//! HTTP from the application: each request finds its own way.

mod way;

use std::{
    future::poll_fn,
    pin::pin,
    sync::Arc,
    task::{Context, Poll},
    time::Duration,
};

use conduit_runtime::drain;
use http::{Request, Response, StatusCode, header::HOST, request};
use hyper::body::Incoming;
use tokio::time::{Instant, timeout};

use super::{Begun, Connection, Outbound, route::Route};
use crate::{
    balance::InFlight,
    connect::{ConnectError, Remote},
    http::{
        self as serving, Version,
        activity::{Activity, Granted, UnderWay},
        body::{Body, Record, Upload},
        forward::{self, Failed, Lease, Unanswered},
        headers::{self, Tie},
        http1::{self, Ended},
    },
    pool::Lanes,
    session::{End, Exchange, Failure},
    stream::{Control, Stream},
};

/// Both ends of an upgrade stop being HTTP as soon as the answer is written.
const HANDOVER: Duration = Duration::from_secs(10);

/// How often a request that did not reach a server is sent again.
const MAX_REPLAYS: usize = 3;

/// What the requests of one connection share.
struct Balanced {
    outbound: Arc<Outbound>,
    connection: Connection,
    lanes: Arc<Lanes>,
    /// Of the client's connection, if it is HTTP/1; HTTP/2 has better ways to say what happens to a request.
    activity: Option<Arc<Activity>>,
    drain: drain::Watch,
}

/// Serves to the end of the connection.
pub(super) async fn serve(
    outbound: Arc<Outbound>,
    begun: Box<Begun>,
    version: Version,
    drain: drain::Watch,
) -> Result<(), hyper::Error> {
    let (balanced, client) = Balanced::new(outbound, begun, version, drain);
    match &balanced.activity {
        Some(activity) => serve_http1(&balanced, activity, client).await,
        None => Box::pin(serve_http2(&balanced, client)).await,
    }
}

async fn serve_http1(
    balanced: &Arc<Balanced>,
    activity: &Arc<Activity>,
    mut client: Stream,
) -> Result<(), hyper::Error> {
    // At a drain the application may be about to use its idle connection: it is told of the end with its next response.
    let mut ending = pin!(balanced.is_abandoned(|| activity.is_idle()));
    loop {
        // Boxed, so that an idle connection does not hold room for a request.
        let forward = |request| {
            let under_way = activity.begin(&request);
            Box::pin(balanced.clone().forward(request, Some(under_way)))
        };
        // Boxed, so that a sleeping connection does not hold room for a waking one.
        match Box::pin(http1::serve(client, forward, activity, ending.as_mut())).await? {
            Ended::Closed => return Ok(()),
            Ended::Asleep(asleep) => client = asleep,
            Ended::Granted(client, granted) => {
                Box::pin(balanced.tunnel(client, granted)).await;
                return Ok(());
            }
        }
        Box::pin(balanced.lanes.fall_asleep()).await;
        let others = |cx: &mut Context<'_>| {
            balanced.lanes.poll_asleep(cx);
            Poll::Pending
        };
        if !http1::sleep(&mut client, others, ending.as_mut()).await {
            http1::close(client).await;
            return Ok(());
        }
    }
}

async fn serve_http2(balanced: &Arc<Balanced>, client: Stream) -> Result<(), hyper::Error> {
    let ending = async {
        tokio::select! {
            () = balanced.drain.signaled() => {}
            () = balanced.is_abandoned(|| true) => {}
        }
    };
    let requests = balanced.clone();
    let forward = move |request| requests.clone().forward(request, None);
    serving::serve_http2(client, forward, ending).await
}

impl Balanced {
    fn new(
        outbound: Arc<Outbound>,
        begun: Box<Begun>,
        version: Version,
        drain: drain::Watch,
    ) -> (Arc<Self>, Stream) {
        let (connection, mut client) = begun.into_parts();
        let timeouts = &outbound.config.timeouts;
        let lanes = Arc::new(Lanes::new(outbound.pool.clone(), timeouts.pool_idle));
        let is_http1 = version == Version::Http1;
        let activity = is_http1.then(|| Activity::new(client.control(), timeouts.drowsy));
        (Arc::new(Self { outbound, connection, lanes, activity, drain }), client)
    }

    /// Waits until the server that the client chose itself is gone, as far as anybody knows, and `may_end` says that the client's
    /// connection may end. A server may also just close what idles, or its proxy be another one: as long as the destination
    /// service stands by it, its next connection is not the client's concern.
    async fn is_abandoned(&self, may_end: impl Fn() -> bool) {
        let is_over = |has_left: bool| move |cx: &mut Context<'_>| self.lanes.has_left(cx) == has_left;
        loop {
            until(is_over(true)).await;
            let given_up = async {
                if let (Some(original), Some(known)) = (self.connection.original, self.connection.known.get())
                {
                    let mut known = known.clone();
                    // An error means that nobody tells of it any more.
                    drop(known.wait_for(|resolution| !resolution.stands_by(original)).await);
                }
                until(|_| may_end()).await;
            };
            tokio::select! {
                biased;
                () = until(is_over(false)) => {}
                () = given_up => return,
            }
        }
    }

    /// The connection is not HTTP any more.
    async fn tunnel(&self, client: Stream, granted: Granted) {
        let Some(upstream) = granted.upstream else { return };
        match timeout(HANDOVER, upstream).await {
            Ok(Ok(server)) => {
                self.outbound.copy(&self.connection.session, client, server, granted.not_after).await;
            }
            _ => client.reset(),
        }
    }

    async fn forward(
        self: Arc<Self>,
        request: Request<Incoming>,
        under_way: Option<UnderWay>,
    ) -> Result<Response<Body>, Failed> {
        let (head, incoming) = request.into_parts();
        let mut exchange = self.connection.session.request(&head, &self.connection.source);
        let (version, grpc) = (head.version, headers::is_grpc(&head));
        if !headers::target_fits(&head) {
            exchange.malformed();
            exchange.end(End::Failed(Failure::Declined));
            return Ok(forward::answer(StatusCode::BAD_REQUEST, version));
        }
        let authority = authority(&head);
        let route = self.outbound.route(&self.connection, &authority).await;
        let (request, returning) = forward::prepare(head, incoming, Tie::Loose, self.activity.clone());
        match self.send(request, &authority, route, &mut exchange).await {
            Ok((response, lease)) => {
                let record = Record {
                    exchange,
                    lease,
                    control: self.control().cloned(),
                    under_way,
                    grpc,
                    declined: None,
                };
                // Who chose the server itself is told what the server says of its connection.
                let is_last = self.lanes.is_chosen() && headers::is_last(response.headers());
                let mut response = returning.response(response, record);
                if self.activity.is_some() && (is_last || self.drain.is_signaled()) {
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
                self.control().into_iter().for_each(Control::arm_reset);
                Err(Failed::unsent(error.failure()))
            }
            Err(Unsent::Unanswered(unanswered)) => unanswered.answer(&mut exchange, grpc, self.control()),
        }
    }

    fn control(&self) -> Option<&Control> {
        self.activity.as_ref().map(|activity| activity.control())
    }

    /// Sends to one endpoint after the other, as long as it is certain that none has looked at the request.
    async fn send(
        &self,
        mut request: Request<Upload>,
        authority: &str,
        mut route: Route,
        exchange: &mut Exchange,
    ) -> Result<(Response<Incoming>, Option<Lease>), Unsent> {
        self.lanes.make_room(route.endpoints());
        let mut refused = None;
        let mut replays = 0;
        loop {
            let Some(remote) = route.choose(self.outbound.draw()) else {
                return Err(refused.map_or(Unsent::Nowhere, Unsent::Connect));
            };
            exchange.aimed(remote.addr(), remote.labels());
            let security = self.outbound.connector.security(&remote, self.connection.session.peer().ip());
            if route.may_be_somebody_else(&remote, security.is_proof()) {
                route.leave_out(&remote);
                continue;
            }
            route.wait().await;
            let since = Instant::now();
            let mut way = match self.way(&remote, &security, authority, route.patience(&remote)).await {
                Ok(way) if route.may_be_somebody_else(&remote, way.tls().is_proof()) => {
                    route.leave_out(&remote);
                    continue;
                }
                Ok(way) => way,
                Err(error) if route.failed(&remote, since, self.outbound.draw()) => {
                    refused = Some(error);
                    continue;
                }
                Err(error) => return Err(Unsent::Connect(error)),
            };
            exchange.dispatched(remote.addr(), remote.labels(), way.tls());
            let again = way.keep_for_replay(&request);
            let in_flight = start(&remote);
            if let (Some(activity), Some(upstream)) = (&self.activity, way.control()) {
                activity.sending(upstream);
            }
            self.lanes.ask(self.connection.original == Some(remote.addr()));
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
}

/// Why a request is not answered.
enum Unsent {
    /// There is no endpoint, and no original destination.
    Nowhere,
    Connect(ConnectError),
    Unanswered(Unanswered),
}

/// The request, if it may be sent again.
fn replayable(
    mut unanswered: Unanswered,
    again: Option<Request<Upload>>,
    replays: &mut usize,
) -> Result<Request<Upload>, Unanswered> {
    if *replays == MAX_REPLAYS {
        return Err(unanswered);
    }
    *replays += 1;
    match unanswered.unsent.take() {
        Some(unsent) => Ok(*unsent),
        None => again.filter(|_| unanswered.is_unprocessed).ok_or(unanswered),
    }
}

async fn until(mut is_so: impl FnMut(&mut Context<'_>) -> bool) {
    poll_fn(|cx| if is_so(cx) { Poll::Ready(()) } else { Poll::Pending }).await;
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
