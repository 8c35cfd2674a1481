//! What kubelet and operators ask every Conduit process: `/live`, `/ready`, and `/metrics`, in gzip where it is asked for;
//! and paths that one process has for itself.
//!
//! `/live` fails only when the process cannot do its work any more, `/ready` as long as something awaited has not
//! happened. Neither depends on TLS, the CA or the network: they would take a working application out of its Service.

use std::{convert::Infallible, fmt::Write as _, sync::Arc, time::Duration};

use bytes::Bytes;
use conduit_net::{Accepted, Listener, LocalAddr};
use futures::future::{BoxFuture, FutureExt, ready};
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::Full;
use hyper::service::service_fn;
use hyper_util::rt::{TokioIo, TokioTimer};

use crate::{
    drain, gzip,
    metrics::Registry,
    ready::Readiness,
    serve::{self, Seat},
};

/// Connections open at once; probes and a scraper or two need a handful. Beyond, the one that was idle the longest goes:
/// whoever holds many must not keep the kubelet out.
const MAX_CONNECTIONS: usize = 256;
/// How long a request's head may take to arrive, which also bounds an idle connection.
const HEAD_TIMEOUT: Duration = Duration::from_secs(5);

/// What the admin server tells.
#[derive(Clone)]
pub struct Admin {
    /// Behind `/ready`.
    pub readiness: Readiness,
    /// Behind `/metrics`.
    pub registry: Registry,
    /// Behind `/live`.
    pub live: Arc<dyn Fn() -> bool + Send + Sync>,
    /// Paths of this process's own.
    pub own: Option<Own>,
}

/// The answer to a GET of a path that only this process has, given where the request came in; none when it has no such path.
/// Whoever answers bounds its time.
pub type Own =
    Arc<dyn Fn(&str, LocalAddr) -> Option<BoxFuture<'static, Response<Full<Bytes>>>> + Send + Sync>;

impl Admin {
    /// An admin server that is live as long as it answers.
    pub fn new(readiness: Readiness, registry: Registry) -> Self {
        Self { readiness, registry, live: Arc::new(|| true), own: None }
    }

    fn answer<B>(&self, request: &Request<B>, local: LocalAddr) -> BoxFuture<'static, Response<Full<Bytes>>> {
        if request.method() != Method::GET && request.method() != Method::HEAD {
            let mut response = text(StatusCode::METHOD_NOT_ALLOWED, "only GET is served here\n");
            response.headers_mut().insert(header::ALLOW, HeaderValue::from_static("GET, HEAD"));
            return ready(response).boxed();
        }
        let path = request.uri().path();
        if let Some(answer) = self.own.as_ref().and_then(|own| own(path, local)) {
            return answer;
        }
        let response = match path {
            "/live" | "/ping" => self.live(),
            "/ready" => self.ready(),
            "/metrics" => self.metrics(request.headers()),
            _ => text(StatusCode::NOT_FOUND, "not found; this server has /live, /ready and /metrics\n"),
        };
        ready(response).boxed()
    }

    fn live(&self) -> Response<Full<Bytes>> {
        match (self.live)() {
            true => text(StatusCode::OK, "ok\n"),
            false => text(StatusCode::SERVICE_UNAVAILABLE, "a worker has stopped turning\n"),
        }
    }

    fn ready(&self) -> Response<Full<Bytes>> {
        let pending = self.readiness.pending();
        let status = if pending.is_empty() { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
        let mut body = match pending.is_empty() {
            true => "ok\n".to_owned(),
            false => format!("waiting for {}\n", pending.join(", ")),
        };
        for (name, note) in self.readiness.notes() {
            // Writing to a String cannot fail.
            let _ = writeln!(body, "{name}: {note}");
        }
        text(status, body)
    }

    /// Compressed for who wants it, as Prometheus does.
    fn metrics(&self, headers: &HeaderMap) -> Response<Full<Bytes>> {
        let plain = self.registry.encode();
        let compressed = gzip::is_wanted(headers).then(|| gzip::compress(plain.as_bytes()));
        let (body, is_compressed) = match compressed {
            Some(Ok(compressed)) => (Bytes::from(compressed), true),
            _ => (Bytes::from(plain), false),
        };
        let mut response = text(StatusCode::OK, body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(Registry::CONTENT_TYPE));
        headers.insert(header::VARY, HeaderValue::from_static("accept-encoding"));
        if is_compressed {
            headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("gzip"));
        }
        response
    }
}

/// Serves until the drain begins, and what is under way to its end.
pub async fn serve(listener: Box<dyn Listener>, admin: Admin, drain: drain::Watch) {
    let closing = drain.clone();
    serve::accept_crowd(listener, MAX_CONNECTIONS, drain, move |accepted, seat| {
        connection(accepted, seat, admin.clone(), closing.clone())
    })
    .await;
}

async fn connection(accepted: Accepted, seat: Seat, admin: Admin, drain: drain::Watch) {
    let local = accepted.local;
    let service = service_fn(move |request: Request<hyper::body::Incoming>| {
        seat.used();
        let response = admin.answer(&request, local);
        async move { Ok::<_, Infallible>(response.await) }
    });
    let mut server = hyper::server::conn::http1::Builder::new();
    server.timer(TokioTimer::new()).header_read_timeout(HEAD_TIMEOUT).auto_date_header(false);
    let mut connection = std::pin::pin!(server.serve_connection(TokioIo::new(accepted.io), service));
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = drain.signaled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, peer = %accepted.peer, "an admin connection broke");
    }
}

/// An answer of words.
pub fn text(status: StatusCode, body: impl Into<Bytes>) -> Response<Full<Bytes>> {
    let mut response = Response::new(Full::new(body.into()));
    *response.status_mut() = status;
    let plain = HeaderValue::from_static("text/plain; charset=utf-8");
    response.headers_mut().insert(header::CONTENT_TYPE, plain);
    response
}

#[cfg(test)]
mod tests {
    use conduit_net::TokioNetwork;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    async fn get(path: &str, readiness: &Readiness) -> String {
        String::from_utf8(ask(path, "", readiness).await).unwrap()
    }

    async fn ask(path: &str, fields: &str, readiness: &Readiness) -> Vec<u8> {
        let net = TokioNetwork::shared();
        let listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr();
        let (_trigger, drain) = drain::channel();
        let admin = Admin::new(readiness.clone(), Registry::default());
        let _server = tokio::spawn(serve(listener, admin, drain));
        let mut io = net.connect(addr).await.unwrap();
        io.write_all(format!("GET {path} HTTP/1.0\r\n{fields}\r\n").as_bytes()).await.unwrap();
        let mut answer = Vec::new();
        io.read_to_end(&mut answer).await.unwrap();
        answer
    }

    #[tokio::test]
    async fn ready_names_what_is_awaited_and_shows_notes() {
        let readiness = Readiness::default();
        let guard = readiness.guard("inbound listener");
        readiness.note("tls", "no_config: tls.crt is not there yet");
        let waiting = get("/ready", &readiness).await;
        assert!(waiting.starts_with("HTTP/1.0 503"), "{waiting}");
        assert!(
            waiting.ends_with("waiting for inbound listener\ntls: no_config: tls.crt is not there yet\n")
        );
        guard.ready();
        let ready = get("/ready", &readiness).await;
        assert!(ready.starts_with("HTTP/1.0 200"), "{ready}");
    }

    #[tokio::test]
    async fn metrics_are_open_metrics_and_unknown_paths_are_not_found() {
        let readiness = Readiness::default();
        let metrics = get("/metrics", &readiness).await;
        assert!(
            metrics.contains("application/openmetrics-text") && metrics.ends_with("# EOF\n"),
            "{metrics}"
        );
        assert!(get("/", &readiness).await.starts_with("HTTP/1.0 404"));
        assert!(get("/live", &readiness).await.starts_with("HTTP/1.0 200"));
    }

    #[tokio::test]
    async fn who_holds_every_connection_keeps_no_probe_out() {
        let net = TokioNetwork::shared();
        let listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let addr = listener.local_addr();
        let (_trigger, drain) = drain::channel();
        let admin = Admin::new(Readiness::default(), Registry::default());
        let _server = tokio::spawn(serve(listener, admin, drain));
        let mut silent = Vec::new();
        for _ in 0..MAX_CONNECTIONS + 2 {
            silent.push(net.connect(addr).await.unwrap());
        }
        // Half a request is no more than silence.
        silent[2].write_all(b"GET /live HTTP/1.1\r\n").await.unwrap();
        let mut probe = net.connect(addr).await.unwrap();
        probe.write_all(b"GET /live HTTP/1.0\r\n\r\n").await.unwrap();
        let mut answer = String::new();
        let answered = tokio::time::timeout(HEAD_TIMEOUT / 2, probe.read_to_string(&mut answer)).await;
        answered.expect("it is answered before the silent ones are given up").unwrap();
        assert!(answer.ends_with("ok\n"), "{answer}");
    }

    #[tokio::test]
    async fn metrics_are_compressed_for_who_asks_for_it() {
        let readiness = Readiness::default();
        let plain = get("/metrics", &readiness).await;
        assert!(plain.contains("vary: accept-encoding") && !plain.contains("content-encoding"), "{plain}");
        let refused = ask("/metrics", "Accept-Encoding: gzip;q=0\r\n", &readiness).await;
        assert_eq!(String::from_utf8(refused).unwrap(), plain);

        let answer = ask("/metrics", "Accept-Encoding: deflate, gzip\r\n", &readiness).await;
        let at = answer.windows(4).position(|four| four == b"\r\n\r\n").unwrap() + 4;
        let head = std::str::from_utf8(&answer[..at]).unwrap();
        assert!(head.contains("content-encoding: gzip\r\n"), "{head}");
        assert!(head.contains(&format!("content-length: {}\r\n", answer.len() - at)), "{head}");
        let mut text = String::new();
        std::io::Read::read_to_string(&mut flate2::read::GzDecoder::new(&answer[at..]), &mut text).unwrap();
        assert!(plain.ends_with(&text) && text.ends_with("# EOF\n"), "{text}");
    }
}
