//! HTTP to the application over one connection, tied to the client's: when the application closes it, the client's is
//! closed, and the other way round, as if there were nothing in between.

use std::{
    future::{Future, poll_fn},
    pin::{Pin, pin},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
    task::{Context, Poll},
    time::Duration,
};

use conduit_identity::UnixTime;
use conduit_runtime::drain;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::time::timeout;

use super::{Begun, Inbound};
use crate::{
    http::{
        self as serving, Version,
        activity::{Activity, UnderWay},
        body::{Body, Record, Upload},
        forward::{self, Failed, Http2, Unanswered},
        headers::{self, Tie},
        http1::{self, Ended},
    },
    metrics::Labels,
    session::{End, Failure, Session, TlsStatus, Why},
    stream::{Control, Stream},
    tcp,
};

/// The application's connection stops being HTTP as soon as the client's has.
const HANDOVER: Duration = Duration::from_secs(10);

/// What the requests of one connection share.
struct Tied {
    session: Session,
    source: TlsStatus,
    labels: Labels,
    application: Application,
    /// Whether the client should call somebody else next.
    leaving: Arc<AtomicBool>,
}

/// The connection to the application.
enum Application {
    Http1 {
        /// None while the connection is asleep.
        sender: Mutex<Option<http1::Sender>>,
        /// Of the client's connection.
        activity: Arc<Activity>,
        /// Of the application's.
        upstream: Control,
    },
    Http2(Http2),
}

/// Both connections, and what is known of the client's.
struct Pair {
    session: Session,
    source: TlsStatus,
    not_after: Option<UnixTime>,
    client: Stream,
    application: Stream,
}

/// Serves to the end of the connection.
pub(super) async fn serve(
    inbound: &Inbound,
    session: Session,
    begun: Box<Begun>,
    version: Version,
    drain: drain::Watch,
) -> Result<(), hyper::Error> {
    let Some(pair) = Box::pin(pair_up(inbound, session, begun)).await else { return Ok(()) };
    // Boxed once: each hand it goes through would hold room for it otherwise.
    let ending = Box::pin(expiring(inbound, drain, pair.not_after));
    match version {
        Version::Http1 => serve_http1(inbound, pair, ending).await,
        Version::Http2 => Box::pin(serve_http2(inbound, pair, ending)).await,
    }
}

/// None: the application refuses, and so did we.
async fn pair_up(inbound: &Inbound, session: Session, begun: Box<Begun>) -> Option<Box<Pair>> {
    let Begun { opening, tls: source, not_after } = *begun;
    let (client, dialled) = opening.into_streams();
    match inbound.application(&session, dialled).await {
        Some(application) => Some(Box::new(Pair { session, source, not_after, client, application })),
        None => {
            client.reset();
            None
        }
    }
}

impl Pair {
    /// What HTTP/1 needs of both.
    fn tie(mut self: Box<Self>, inbound: &Inbound) -> (Arc<Tied>, Stream, Stream) {
        let activity = Activity::new(self.client.control(), inbound.config.timeouts.drowsy);
        let (sender, upstream) = (Mutex::default(), self.application.control());
        let Self { session, source, client, application, .. } = *self;
        let tied = Application::Http1 { sender, activity, upstream }.tied(inbound, session, source);
        (tied, client, application)
    }
}

impl Application {
    fn tied(self, inbound: &Inbound, session: Session, source: TlsStatus) -> Arc<Tied> {
        let leaving = inbound.leaving.clone();
        Arc::new(Tied { session, source, labels: Labels::default(), application: self, leaving })
    }
}

/// Waits for a reason to end the connection as soon as nothing is under way.
async fn expiring(inbound: &Inbound, drain: drain::Watch, not_after: Option<UnixTime>) {
    tokio::select! {
        () = drain.signaled() => {}
        () = inbound.expiry.reached(not_after) => {}
    }
}

async fn serve_http1(
    inbound: &Inbound,
    pair: Box<Pair>,
    mut ending: Pin<Box<impl Future<Output = ()>>>,
) -> Result<(), hyper::Error> {
    let not_after = pair.not_after;
    let (tied, mut client, mut application) = pair.tie(inbound);
    loop {
        // Boxed, so that a sleeping connection does not hold room for a waking one.
        match Box::pin(serve_awake(&tied, client, application, ending.as_mut())).await? {
            Both::Closed => return Ok(()),
            Both::Granted(client, application) => {
                Box::pin(inbound.copy(&tied.session, tcp::copy(client, application), not_after)).await;
                return Ok(());
            }
            Both::Asleep(sleeping, beside) => (client, application) = (sleeping, beside),
        }
        // Whatever the application does now is its end, or makes no sense.
        let others = |cx: &mut Context<'_>| application.poll_wake(cx).map(drop);
        if !http1::sleep(&mut client, others, ending.as_mut()).await {
            Box::pin(async { tokio::join!(http1::close(client), http1::close(application)) }).await;
            return Ok(());
        }
    }
}

enum Both {
    Closed,
    Asleep(Stream, Stream),
    Granted(Stream, Stream),
}

/// Runs both connections in one task; the end of the application's ends the client's.
async fn serve_awake(
    tied: &Arc<Tied>,
    client: Stream,
    application: Stream,
    mut ending: Pin<&mut impl Future<Output = ()>>,
) -> Result<Both, hyper::Error> {
    let Application::Http1 { sender, activity, .. } = &tied.application else { return Ok(Both::Closed) };
    let (send, connection) = http1::open(application).await?;
    *sender.lock() = Some(send);
    let gone = AtomicBool::new(false);
    let ending = pin!(poll_fn(|cx| match gone.load(Relaxed) {
        true => Poll::Ready(()),
        false => ending.as_mut().poll(cx),
    }));
    // Boxed, so that an idle connection does not hold room for a request.
    let forward = |request| {
        let under_way = activity.begin(&request);
        Box::pin(tied.clone().forward(request, Some(under_way)))
    };
    let mut client = pin!(http1::serve(client, forward, activity, ending));
    let mut driver = pin!(http1::drive(connection));
    let mut driven = None;
    let ended = poll_fn(|cx| {
        if driven.is_none()
            && let Poll::Ready(end) = driver.as_mut().poll(cx)
        {
            if let Err(error) = &end {
                tracing::debug!(%error, "the connection to the application broke");
                // One that only ended has answered and does not take the rest of the request. A reset might overtake the
                // answer.
                if !error.is_incomplete_message() {
                    activity.control().arm_reset();
                }
            }
            // An upgrade that is not answered yet is no end.
            gone.store(end.is_err() || !activity.asks(), Relaxed);
            driven = Some(end);
        }
        client.as_mut().poll(cx)
    })
    .await?;
    sender.lock().take();
    if let Ended::Closed = ended {
        return Ok(Both::Closed);
    }
    let application = match driven {
        Some(end) => end?,
        None => match timeout(HANDOVER, driver).await {
            Ok(end) => end?,
            Err(_) => return Ok(Both::Closed),
        },
    };
    Ok(match ended {
        Ended::Closed => Both::Closed,
        Ended::Asleep(client) => Both::Asleep(client, application),
        Ended::Granted(client, _) => Both::Granted(client, application),
    })
}

async fn serve_http2(
    inbound: &Inbound,
    pair: Box<Pair>,
    mut ending: Pin<Box<impl Future<Output = ()>>>,
) -> Result<(), hyper::Error> {
    let Pair { session, source, client, application, .. } = *pair;
    let (sender, connection) = forward::open_http2(application, None).await?;
    let tied = Application::Http2(sender).tied(inbound, session, source);
    let forward = move |request| tied.clone().forward(request, None);
    let gone = AtomicBool::new(false);
    let ending = poll_fn(|cx| match gone.load(Relaxed) {
        true => Poll::Ready(()),
        false => ending.as_mut().poll(cx),
    });
    let mut client = pin!(serving::serve_http2(client, forward, ending));
    let mut connection = Some(Box::pin(connection));
    poll_fn(|cx| {
        if let Some(open) = &mut connection
            && let Poll::Ready(end) = open.as_mut().poll(cx)
        {
            // Dropped now: requests that still wait in it would wait for ever.
            connection = None;
            gone.store(true, Relaxed);
            if let Err(error) = end {
                tracing::debug!(%error, "the connection to the application broke");
            }
        }
        client.as_mut().poll(cx)
    })
    .await
}

impl Tied {
    async fn forward(
        self: Arc<Self>,
        request: Request<Incoming>,
        under_way: Option<UnderWay>,
    ) -> Result<Response<Body>, Failed> {
        let activity = match &self.application {
            Application::Http1 { activity, .. } => Some(activity.clone()),
            Application::Http2(_) => None,
        };
        let (head, incoming) = request.into_parts();
        let mut exchange = self.session.request(&head, &self.source);
        if !headers::target_fits(&head) {
            exchange.malformed();
            exchange.end(End::Failed(Failure::Declined));
            return Ok(forward::answer(StatusCode::BAD_REQUEST, head.version));
        }
        let grpc = headers::is_grpc(&head);
        exchange.dispatched(self.session.target(), &self.labels, &TlsStatus::Plain(Why::Loopback));
        let (request, returning) = forward::prepare(head, incoming, Tie::Tied, activity);
        match self.send(request).await {
            Ok(response) => {
                let record = Record {
                    exchange,
                    lease: None,
                    control: self.control().cloned(),
                    under_way,
                    grpc,
                    declined: None,
                };
                let mut response = returning.response(response, record);
                // HTTP/2 has a better way to say so.
                if self.control().is_some() && self.leaving.load(Relaxed) {
                    forward::make_last(&mut response);
                }
                Ok(response)
            }
            Err(unanswered) => unanswered.answer(&mut exchange, grpc, self.control()),
        }
    }

    async fn send(&self, request: Request<Upload>) -> Result<Response<Incoming>, Unanswered> {
        match &self.application {
            Application::Http1 { sender, activity, upstream } => {
                activity.sending(upstream);
                // A connection that has ended says so again when the request is sent.
                let ready = poll_fn(|cx| {
                    sender.lock().as_mut().map_or(Poll::Ready(Ok(())), |sender| sender.poll_ready(cx))
                });
                drop(ready.await);
                let answer = sender.lock().as_mut().map(|sender| sender.try_send_request(request));
                match answer {
                    Some(answer) => Ok(answer.await?),
                    None => Err(Unanswered::closed()),
                }
            }
            Application::Http2(sender) => Ok(sender.clone().try_send_request(request).await?),
        }
    }

    /// Of the client's connection, if it is HTTP/1; HTTP/2 has a better way to say that a request failed.
    fn control(&self) -> Option<&Control> {
        match &self.application {
            Application::Http1 { activity, .. } => Some(activity.control()),
            Application::Http2(_) => None,
        }
    }
}
