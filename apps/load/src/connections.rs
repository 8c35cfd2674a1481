//! Connections to the server: kept ones, as a client's pool has them, and fresh ones.

use std::io;

use bytes::Bytes;
use conduit_net::Net;
use http::{Method, Request, Response};
use http_body_util::Full;
use hyper::{body::Incoming, client::conn::http1::SendRequest};
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

/// Most connections that are kept for later requests.
const MAX_KEPT: usize = 16;

type Sender = SendRequest<Full<Bytes>>;

/// The way to one server.
pub(crate) struct Connections {
    net: Net,
    host: String,
    port: u16,
    kept: Mutex<Vec<Sender>>,
}

/// Why a request has no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum CallError {
    #[error("cannot resolve: {0}")]
    Resolve(io::Error),
    #[error("cannot connect: {0}")]
    Connect(io::Error),
    #[error("no HTTP: {0}")]
    Handshake(hyper::Error),
    #[error("broke: {0}")]
    Broken(hyper::Error),
}

impl Connections {
    pub(crate) fn new(net: Net, host: String, port: u16) -> Self {
        Self { net, host, port, kept: Mutex::default() }
    }

    /// The server's name as requests carry it.
    pub(crate) fn authority(&self) -> String {
        format!("{}:{}", self.host, self.port)
    }

    /// Sends on a kept connection, or on a new one that may be kept. A request comes back unsent when the server has closed
    /// the kept connection; what may be said twice is then said again, as every client with a pool does.
    pub(crate) async fn send_kept(
        &self,
        mut request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), CallError> {
        loop {
            let kept = self.kept.lock().pop();
            let (mut sender, is_kept) = match kept {
                Some(sender) => (sender, true),
                None => (self.open().await?, false),
            };
            let again = (is_kept && request.method() == Method::GET).then(|| request.clone());
            match sender.try_send_request(request).await {
                Ok(response) => return Ok((response, sender)),
                Err(mut unsent) => match (unsent.take_message(), again) {
                    (Some(back), _) if is_kept => request = back,
                    (_, Some(again)) => request = again,
                    _ => return Err(CallError::Broken(unsent.into_error())),
                },
            }
        }
    }

    /// Sends on a connection of its own.
    pub(crate) async fn send_fresh(
        &self,
        request: Request<Full<Bytes>>,
    ) -> Result<(Response<Incoming>, Sender), CallError> {
        let mut sender = self.open().await?;
        let response = sender.send_request(request).await.map_err(CallError::Broken)?;
        Ok((response, sender))
    }

    /// Keeps a connection whose answer has been read.
    pub(crate) fn keep(&self, sender: Sender) {
        let mut kept = self.kept.lock();
        if kept.len() < MAX_KEPT && !sender.is_closed() {
            kept.push(sender);
        }
    }

    async fn open(&self) -> Result<Sender, CallError> {
        let resolved = self.net.resolve(&self.host).await.map_err(CallError::Resolve)?;
        let mut last = io::Error::new(io::ErrorKind::NotFound, "the name has no address");
        for ip in resolved.addrs {
            match self.net.connect((ip, self.port).into()).await {
                Ok(io) => {
                    let handshake = hyper::client::conn::http1::handshake(TokioIo::new(io)).await;
                    let (sender, connection) = handshake.map_err(CallError::Handshake)?;
                    // It ends with its sender, or with its peer.
                    tokio::spawn(connection);
                    return Ok(sender);
                }
                Err(error) => last = error,
            }
        }
        Err(CallError::Connect(last))
    }
}
