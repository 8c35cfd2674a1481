//! HTTP to the application over one connection, tied to the client's: when the application closes it, the client's is
//! closed, and the other way round, as if there were nothing in between.

use std::{
    future::{Future, poll_fn},
    pin::pin,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use conduit_identity::UnixTime;
use conduit_runtime::drain;
use http::{Request, Response, StatusCode};
use hyper::body::Incoming;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::{Begun, Inbound};
use crate::{
    http::{
        self as serving, Handover, Version,
        body::{Body, Record, Upload},
        forward::{self, Failed, Http1, Http2, Unanswered},
        headers::{self, Tie},
    },
    metrics::Labels,
    session::{End, Failure, Session, TlsStatus, Why},
    stream::{Resetter, Stream},
};

/// What the requests of one connection share.
struct Tied {
    session: Session,
    source: TlsStatus,
    labels: Labels,
    /// Of the client's connection; HTTP/2 has a better way to say that a request failed.
    resetter: Option<Resetter>,
    application: Application,
    handover: Handover,
    /// A request that asks for an upgrade is under way: the end of HTTP is not the end of the connection.
    upgrading: AtomicBool,
}

/// The connection to the application.
enum Application {
    /// One request at a time, as they come.
    Http1(Mutex<Http1>),
    Http2(Http2),
}

/// Serves to the end of the connection.
pub(super) async fn serve(
    inbound: &Inbound,
    session: Session,
    begun: Begun,
    version: Version,
    drain: drain::Watch,
) -> Result<(), hyper::Error> {
    let Begun { opening, tls: source, not_after } = begun;
    let (mut client, server) = opening.into_streams();
    let Some(server) = inbound.application(&session, server).await else {
        client.reset();
        return Ok(());
    };
    let resetter = client.resetter();
    let handover = Handover::default();
    let tied = |application, resetter| Tied {
        session: session.clone(),
        source,
        labels: Labels::default(),
        resetter,
        application,
        handover: handover.clone(),
        upgrading: AtomicBool::new(false),
    };
    let ending = expiring(inbound, drain, not_after);
    match version {
        Version::Http1 => {
            let (sender, connection) = forward::open_http1(server).await?;
            let tied = tied(Application::Http1(Mutex::new(sender)), Some(resetter.clone()));
            side_by_side((client, version), tied, (connection, resetter), ending).await?;
        }
        Version::Http2 => {
            let (sender, connection) = forward::open_http2(server).await?;
            let tied = tied(Application::Http2(sender), None);
            side_by_side((client, version), tied, (connection, resetter), ending).await?;
        }
    }
    let upgraded = handover.lock().take();
    if let Some(upgraded) = upgraded
        && let Ok((client, server)) = upgraded.streams().await
    {
        inbound.copy(&session, client, server, not_after).await;
    }
    Ok(())
}

/// Waits for a reason to end the connection as soon as nothing is under way.
async fn expiring(inbound: &Inbound, drain: drain::Watch, not_after: Option<UnixTime>) {
    tokio::select! {
        () = drain.signaled() => {}
        () = inbound.expiry.reached(not_after) => {}
    }
}

/// Runs both connections in one task, each until it ends; the end of the application's ends the client's.
async fn side_by_side(
    (client, version): (Stream, Version),
    tied: Tied,
    (application, resetter): (impl Future<Output = Result<(), hyper::Error>>, Resetter),
    ending: impl Future<Output = ()>,
) -> Result<(), hyper::Error> {
    let tied = Arc::new(tied);
    let (handover, upgrading) = (tied.handover.clone(), Arc::clone(&tied));
    let (application_ended, application_end) = oneshot::channel::<()>();
    let forward = move |request| {
        let tied = Arc::clone(&tied);
        async move { tied.forward(request).await }
    };
    let ending = async {
        tokio::select! {
            () = ending => {}
            _ = application_end => {}
        }
    };
    let mut client = pin!(serving::serve(client, version, forward, ending));
    let mut application = pin!(async {
        let ended = application.await;
        if let Err(error) = &ended {
            tracing::debug!(%error, "the connection to the application broke");
            resetter.arm();
        }
        // Dropping it tells the client's connection.
        (ended.is_ok() && upgrading.upgrading.load(Relaxed)).then_some(application_ended)
    });
    tokio::select! {
        ended = client.as_mut() => {
            let is_upgraded = handover.lock().is_some();
            if is_upgraded {
                application.await;
            }
            ended
        }
        _untold = application.as_mut() => client.await,
    }
}

impl Tied {
    async fn forward(&self, request: Request<Incoming>) -> Result<Response<Body>, Failed> {
        let (head, incoming) = request.into_parts();
        let mut exchange = self.session.request(&head, &self.source);
        if !headers::target_fits(&head) {
            exchange.end(End::Failed(Failure::Declined));
            return Ok(forward::answer(StatusCode::BAD_REQUEST, head.version));
        }
        let grpc = headers::is_grpc(&head);
        exchange.dispatched(self.session.target(), &self.labels, &TlsStatus::Plain(Why::Loopback));
        let (request, returning) = forward::prepare(head, incoming, Tie::Tied, self.handover.clone());
        self.upgrading.store(returning.asks(), Relaxed);
        match self.send(request).await {
            Ok(response) => {
                self.upgrading.store(returning.is_granted(&response), Relaxed);
                let record = Record { exchange, lease: None, resetter: self.resetter.clone(), grpc };
                Ok(returning.response(response, record))
            }
            Err(unanswered) => unanswered.answer(&mut exchange, grpc, self.resetter.as_ref()),
        }
    }

    async fn send(&self, request: Request<Upload>) -> Result<Response<Incoming>, Unanswered> {
        match &self.application {
            Application::Http1(sender) => {
                // A connection that has ended says so again when the request is sent.
                drop(poll_fn(|cx| sender.lock().poll_ready(cx)).await);
                let answer = sender.lock().try_send_request(request);
                Ok(answer.await?)
            }
            Application::Http2(sender) => Ok(sender.clone().try_send_request(request).await?),
        }
    }
}
