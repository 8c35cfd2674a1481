//! An application that answers HTTP as its caller asks for, and clients that speak each form of it.

use std::{convert::Infallible, net::SocketAddr, time::Duration};

use bytes::Bytes;
use conduit_net::Io;
use http::{HeaderMap, HeaderValue, Request, Response, StatusCode, Version};
use http_body_util::{BodyExt, Full, combinators::BoxBody};
use hyper::{
    body::Incoming,
    client::conn::{http1, http2},
    service::service_fn,
};
use hyper_util::{
    rt::{TokioExecutor, TokioIo},
    server::conn::auto,
};

use super::{Pod, serve, within};

/// Serves an application in `pod`. It answers with `name`, and
///
/// - `/status/504` with that status,
/// - `/delay/40` after so many milliseconds,
/// - `/grpc/13` with that `grpc-status` as a trailer,
/// - `/hang` never.
pub(crate) async fn web(pod: &Pod, name: &'static str) -> SocketAddr {
    serve(pod, move |client| async move {
        let service =
            service_fn(move |request| async move { Ok::<_, Infallible>(answer(&request, name).await) });
        let server = auto::Builder::new(TokioExecutor::new());
        // A client that leaves is no news.
        drop(server.serve_connection(TokioIo::new(client.io), service).await);
    })
    .await
}

async fn answer(request: &Request<Incoming>, name: &'static str) -> Response<BoxBody<Bytes, Infallible>> {
    let body = Full::new(Bytes::from_static(name.as_bytes()));
    let mut response = Response::new(body.clone().boxed());
    match request.uri().path().trim_start_matches('/').split_once('/') {
        Some(("status", code)) => {
            let status: StatusCode = code.parse().unwrap();
            *response.status_mut() = status;
            if status == StatusCode::NOT_MODIFIED {
                *response.body_mut() = Full::default().boxed();
            }
        }
        Some(("delay", ms)) => tokio::time::sleep(Duration::from_millis(ms.parse().unwrap())).await,
        Some(("grpc", code)) => {
            let trailers = HeaderMap::from_iter([("grpc-status".parse().unwrap(), code.parse().unwrap())]);
            *response.body_mut() = body.with_trailers(async { Some(Ok(trailers)) }).boxed();
        }
        _ if request.uri().path() == "/hang" => std::future::pending().await,
        _ => {}
    }
    response
}

/// The forms of HTTP that a client may speak.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Form {
    Http1,
    /// HTTP/1 with the whole URI in its request line.
    Absolute,
    Http2,
}

impl Form {
    pub(crate) const ALL: [Self; 3] = [Self::Http1, Self::Absolute, Self::Http2];
}

/// A client on one connection.
pub(crate) struct Browser {
    form: Form,
    authority: &'static str,
    sender: Sender,
    /// Sent with each request.
    pub(crate) headers: HeaderMap,
}

enum Sender {
    Http1(http1::SendRequest<Full<Bytes>>),
    Http2(http2::SendRequest<Full<Bytes>>),
}

impl Browser {
    /// Connects as the application of `pod` does.
    pub(crate) async fn open(pod: &Pod, to: SocketAddr, form: Form, authority: &'static str) -> Self {
        Self::on(pod.connect(to).await.io, form, authority).await
    }

    pub(crate) async fn on(io: Io, form: Form, authority: &'static str) -> Self {
        let io = TokioIo::new(io);
        let sender = if form == Form::Http2 {
            let (sender, connection) = within(http2::handshake(TokioExecutor::new(), io)).await.unwrap();
            tokio::spawn(connection);
            Sender::Http2(sender)
        } else {
            let (sender, connection) = within(http1::handshake(io)).await.unwrap();
            tokio::spawn(connection);
            Sender::Http1(sender)
        };
        Self { form, authority, sender, headers: HeaderMap::new() }
    }

    /// Asks for `path`: the status and the body.
    pub(crate) async fn get(&mut self, path: &str) -> (u16, String) {
        self.try_get(path).await.unwrap()
    }

    pub(crate) async fn try_get(&mut self, path: &str) -> Result<(u16, String), hyper::Error> {
        let absolute = format!("http://{}{path}", self.authority);
        let mut request = Request::new(Full::default());
        *request.uri_mut() = if self.form == Form::Http1 { path.parse() } else { absolute.parse() }.unwrap();
        *request.headers_mut() = self.headers.clone();
        if self.form == Form::Http2 {
            *request.version_mut() = Version::HTTP_2;
        } else {
            request.headers_mut().insert("host", HeaderValue::from_static(self.authority));
        }
        let response = within(async {
            match &mut self.sender {
                Sender::Http1(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
                Sender::Http2(sender) => {
                    sender.ready().await?;
                    sender.send_request(request).await
                }
            }
        })
        .await?;
        let status = response.status().as_u16();
        let body = within(response.into_body().collect()).await?.to_bytes();
        Ok((status, String::from_utf8_lossy(&body).into_owned()))
    }
}
