//! The record of one request.

use std::{net::SocketAddr, sync::Arc, time::Duration};

use http::{HeaderMap, HeaderValue, StatusCode, header, request, uri};
use tokio::time::Instant;

use super::{Direction, End, Session, TlsStatus, Why};
use crate::{
    metrics::{Class, Labels, Malformed, Route},
    tap::{Asked, Eos, Tapped},
};

/// How the kubelet's probes introduce themselves (kubernetes/pkg/probe/http).
const KUBE_PROBE: &[u8] = b"kube-probe/";

/// The trailer, or the header of a response without a body, that tells how a gRPC call ended.
const GRPC_STATUS: &str = "grpc-status";

/// The record of one request. It ends once: with the first [`Exchange::end`], or as [`End::Canceled`] when dropped.
#[derive(Debug)]
pub(crate) struct Exchange {
    session: Session,
    authority: Authority,
    /// The status of the accepted connection.
    source: TlsStatus,
    /// Where it was last meant to go; none before that is known.
    aim: Option<(SocketAddr, Labels)>,
    /// Known once it is known which connection carries the request between pods.
    route: Option<Arc<Route>>,
    began: Instant,
    response: Option<Response>,
    ended: bool,
    tapped: Tapping,
}

#[derive(Debug)]
struct Response {
    status: StatusCode,
    at: Instant,
    first_data: Option<Instant>,
    bytes: u64,
    /// From the head; the trailers' word counts more.
    grpc: Option<u16>,
}

/// What the taps have to do with a request. Boxed: almost always it is nothing.
#[derive(Debug)]
enum Tapping {
    /// Nobody taps.
    No,
    /// Somebody does, and will be asked once the request's way is known.
    Asked(Box<Asked>),
    /// Some taps want to know.
    Yes(Box<Tapped>),
}

impl Exchange {
    pub(super) fn begin(session: Session, head: &request::Parts, source: &TlsStatus) -> Self {
        let source = match is_probe(session.direction(), head, source) {
            true => TlsStatus::Plain(Why::KubeletProbe),
            false => source.clone(),
        };
        let authority = Authority::of(head);
        let tapped = match session.recorders().tap.is_active() {
            true => Tapping::Asked(Box::new(Asked::of(head, authority.as_bytes()))),
            false => Tapping::No,
        };
        let mut exchange = Self {
            session,
            authority,
            source,
            aim: None,
            route: None,
            began: Instant::now(),
            response: None,
            ended: false,
            tapped,
        };
        if exchange.session.direction() == Direction::Inbound {
            // What crossed between pods has arrived already.
            exchange.routed(&Labels::default(), &exchange.source.clone());
        }
        exchange
    }

    /// A connection to `target` is about to be looked for. If there is none, this is where the request failed to go.
    pub(crate) fn aimed(&mut self, target: SocketAddr, labels: &Labels) {
        self.aim = Some((target, labels.clone()));
    }

    /// The request is about to be sent to `target`, over a connection with status `tls`. Called again when it is
    /// replayed over another one: the last call counts.
    pub(crate) fn dispatched(&mut self, target: SocketAddr, labels: &Labels, tls: &TlsStatus) {
        if self.session.direction() == Direction::Outbound {
            self.routed(labels, tls);
        }
        self.tap(target, labels, tls);
    }

    /// The response's head arrived.
    pub(crate) fn responded(&mut self, status: StatusCode, headers: &HeaderMap) {
        let at = Instant::now();
        self.response = Some(Response { status, at, first_data: None, bytes: 0, grpc: grpc_status(headers) });
        if let Tapping::Yes(tapped) = &self.tapped {
            tapped.response(status, at - self.began);
        }
    }

    /// Bytes of the response's body arrived.
    pub(crate) fn data(&mut self, bytes: usize) {
        if let Some(response) = &mut self.response {
            response.bytes += bytes as u64;
            response.first_data.get_or_insert_with(Instant::now);
        }
    }

    /// The response's trailers arrived.
    pub(crate) fn trailers(&mut self, trailers: &HeaderMap) {
        if let Some(response) = &mut self.response {
            response.grpc = grpc_status(trailers).or(response.grpc);
        }
    }

    /// What the client sent is no HTTP.
    pub(crate) fn malformed(&self) {
        self.session.recorders().metrics.malformed(Malformed::Http);
    }

    /// It is over.
    pub(crate) fn end(&mut self, end: End) {
        if std::mem::replace(&mut self.ended, true) {
            return;
        }
        if self.route.is_none() {
            // It went nowhere: what carried it is the client's own connection.
            let labels = self.aim.as_ref().map(|(_, labels)| labels.clone()).unwrap_or_default();
            self.routed(&labels, &self.source.clone());
        }
        let now = Instant::now();
        if let Some(route) = &self.route {
            route.response(self.class(end), self.latency(now));
        }
        self.end_tap(end, now);
    }

    fn routed(&mut self, labels: &Labels, tls: &TlsStatus) {
        let session = &self.session.inner;
        let metrics = &self.session.recorders().metrics;
        let route = session.routes.get(metrics, session.direction, self.authority.as_bytes(), labels, tls);
        if self.route.is_none() {
            // A replay is the same request.
            route.request();
        }
        self.route = Some(route);
    }

    fn class(&self, end: End) -> Class {
        let status = self.response.as_ref().map(|response| response.status);
        match (end, &self.response) {
            // A client that has seen the head and leaves (a watch, an event stream) ends the response its own way.
            (End::Complete | End::Canceled, Some(response)) => {
                Class::complete(response.status, response.grpc)
            }
            (End::Complete, None) => Class::failed(None, "closed"),
            (End::Canceled, None) => Class::failed(None, "canceled"),
            (End::Reset(_), _) => Class::failed(status, "reset"),
            (End::Failed(failure), _) => Class::failed(status, failure.label()),
        }
    }

    fn latency(&self, now: Instant) -> Duration {
        let first_data = self.response.as_ref().and_then(|response| response.first_data);
        first_data.unwrap_or(now) - self.began
    }

    fn tap(&mut self, target: SocketAddr, labels: &Labels, tls: &TlsStatus) {
        let Tapping::Asked(asked) = &self.tapped else { return };
        let tapped =
            self.session.recorders().tap.ask(asked, &self.session, &self.source, target, labels, tls);
        self.tapped = tapped.map_or(Tapping::No, |tapped| Tapping::Yes(Box::new(tapped)));
    }

    fn end_tap(&mut self, end: End, now: Instant) {
        // What was never dispatched is shown as it was going.
        let (target, labels) = self.aim.take().unwrap_or_else(|| (self.session.target(), Labels::default()));
        self.tap(target, &labels, &self.source.clone());
        let Tapping::Yes(tapped) = std::mem::replace(&mut self.tapped, Tapping::No) else { return };
        let since_response = self.response.as_ref().map(|response| now - response.at);
        let bytes = self.response.as_ref().map_or(0, |response| response.bytes);
        let grpc = self.response.as_ref().and_then(|response| response.grpc);
        let eos = match (end, grpc) {
            (End::Reset(reason), _) => Some(Eos::Reset(reason.into())),
            (_, Some(code)) => Some(Eos::Grpc(code.into())),
            (End::Canceled, None) => Some(Eos::Reset(h2::Reason::CANCEL.into())),
            (End::Failed(_), None) => Some(Eos::Reset(h2::Reason::INTERNAL_ERROR.into())),
            (End::Complete, None) => None,
        };
        tapped.end(now - self.began, since_response, bytes, eos);
    }
}

impl Drop for Exchange {
    fn drop(&mut self) {
        self.end(End::Canceled);
    }
}

/// A plaintext request from outside that says it is a probe.
fn is_probe(direction: Direction, head: &request::Parts, source: &TlsStatus) -> bool {
    direction == Direction::Inbound
        && matches!(source, TlsStatus::Plain(_))
        && head.headers.get(header::USER_AGENT).is_some_and(|agent| agent.as_bytes().starts_with(KUBE_PROBE))
}

fn grpc_status(headers: &HeaderMap) -> Option<u16> {
    headers.get(GRPC_STATUS)?.to_str().ok()?.parse().ok()
}

/// What a request names as its server, as the client spelt it: shared with the request, not copied.
#[derive(Debug)]
enum Authority {
    Uri(uri::Authority),
    Host(HeaderValue),
    None,
}

impl Authority {
    fn of(head: &request::Parts) -> Self {
        match (head.uri.authority(), head.headers.get(header::HOST)) {
            (Some(authority), _) => Self::Uri(authority.clone()),
            (None, Some(host)) => Self::Host(host.clone()),
            (None, None) => Self::None,
        }
    }

    fn as_bytes(&self) -> &[u8] {
        match self {
            Self::Uri(authority) => authority.as_str().as_bytes(),
            Self::Host(host) => host.as_bytes(),
            Self::None => &[],
        }
    }
}

#[cfg(test)]
mod tests;
