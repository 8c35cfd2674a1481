//! An HTTP/1.1 client for one named server: keeps connections alive, resolves the name for each new one.

use std::{fmt, io, str::FromStr, time::Duration};

use bytes::Bytes;
use conduit_net::{Io, Net, Network};
use http::{Request, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::client::conn::http1::SendRequest;
use hyper_util::rt::TokioIo;
use parking_lot::Mutex;

/// Most bytes of an answer; the parts' own answers have a few KiB.
const MAX_ANSWER_BYTES: usize = 1024 * 1024;
/// Connections kept for later calls.
const MAX_IDLE: usize = 64;

/// A server's name as clients write it: `host:port`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Authority {
    text: String,
    host: String,
    port: u16,
}

/// Not a server's name.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{0:?} is no server's name; write host:port, such as web-svc.emojivoto:80")]
pub struct BadAuthority(String);

impl FromStr for Authority {
    type Err = BadAuthority;

    fn from_str(text: &str) -> Result<Self, BadAuthority> {
        let parsed = || {
            let authority: http::uri::Authority = text.parse().ok()?;
            let host = authority.host();
            (!host.is_empty() && !text.contains('@')).then_some(())?;
            Some(Self { text: text.to_owned(), host: host.to_owned(), port: authority.port_u16()? })
        };
        parsed().ok_or_else(|| BadAuthority(text.to_owned()))
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.text)
    }
}

impl Authority {
    /// As it was written; what requests carry.
    pub(crate) fn as_str(&self) -> &str {
        &self.text
    }

    /// Opens a connection to the first of the name's addresses that takes one.
    pub(crate) async fn connect(&self, net: &dyn Network) -> io::Result<Io> {
        let mut last = io::Error::new(io::ErrorKind::NotFound, format!("{self} has no address"));
        for ip in net.resolve(&self.host).await?.addrs {
            match net.connect((ip, self.port).into()).await {
                Ok(io) => return Ok(io),
                Err(error) => last = error,
            }
        }
        Err(last)
    }
}

/// Calls one server. Shared by reference; calls run side by side, each on a connection of its own.
pub(crate) struct HttpClient {
    net: Net,
    server: Authority,
    deadline: Duration,
    idle: Mutex<Vec<SendRequest<Empty<Bytes>>>>,
}

/// What the server said.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub(crate) enum GetError {
    #[error("cannot connect to {server}: {source}")]
    Connect { server: Authority, source: io::Error },
    #[error("the exchange with {server} broke: {source}")]
    Broken { server: Authority, source: Box<dyn std::error::Error + Send + Sync> },
    #[error("{server} did not answer within {after:?}")]
    Late { server: Authority, after: Duration },
}

impl HttpClient {
    /// A client of `server`, each of whose calls ends within `deadline`.
    pub(crate) fn new(net: Net, server: Authority, deadline: Duration) -> Self {
        Self { net, server, deadline, idle: Mutex::default() }
    }

    /// Gets `path` (with its query), all of it.
    pub(crate) async fn get(&self, path: &str) -> Result<Answer, GetError> {
        match tokio::time::timeout(self.deadline, self.exchange(path)).await {
            Ok(answered) => answered,
            Err(_) => Err(GetError::Late { server: self.server.clone(), after: self.deadline }),
        }
    }

    async fn exchange(&self, path: &str) -> Result<Answer, GetError> {
        let mut request = Request::get(path)
            .header(header::HOST, self.server.as_str())
            .header(header::USER_AGENT, "emojivoto")
            .body(Empty::new())
            .map_err(|error| self.broken(error))?;
        loop {
            let idle = self.idle.lock().pop();
            let (mut sender, reused) = match idle {
                Some(sender) => (sender, true),
                None => (self.open().await?, false),
            };
            match sender.try_send_request(request).await {
                Ok(response) => {
                    let (head, body) = response.into_parts();
                    let body = Limited::new(body, MAX_ANSWER_BYTES).collect().await;
                    let body = body.map_err(|error| self.broken(error))?.to_bytes();
                    self.keep(sender);
                    return Ok(Answer { status: head.status, body });
                }
                // The server closed a kept connection in the meantime: the request comes back unsent.
                Err(mut unsent) => match unsent.take_message() {
                    Some(back) if reused => request = back,
                    _ => return Err(self.broken(unsent.into_error())),
                },
            }
        }
    }

    async fn open(&self) -> Result<SendRequest<Empty<Bytes>>, GetError> {
        let io = self.server.connect(&*self.net).await;
        let io = io.map_err(|source| GetError::Connect { server: self.server.clone(), source })?;
        let (sender, connection) = hyper::client::conn::http1::handshake(TokioIo::new(io))
            .await
            .map_err(|error| self.broken(error))?;
        tokio::spawn(async move {
            if let Err(error) = connection.await {
                tracing::debug!(%error, "a connection broke");
            }
        });
        Ok(sender)
    }

    fn keep(&self, sender: SendRequest<Empty<Bytes>>) {
        let mut idle = self.idle.lock();
        if idle.len() < MAX_IDLE && !sender.is_closed() {
            idle.push(sender);
        }
    }

    fn broken(&self, source: impl Into<Box<dyn std::error::Error + Send + Sync>>) -> GetError {
        GetError::Broken { server: self.server.clone(), source: source.into() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_are_named_with_their_port() {
        let authority: Authority = "web-svc.emojivoto:80".parse().unwrap();
        assert_eq!((authority.host.as_str(), authority.port), ("web-svc.emojivoto", 80));
        for text in
            ["", "web-svc", ":80", "web-svc:", "web-svc:70000", "a@web-svc:80", "web svc:80", "http://web:80"]
        {
            assert_eq!(text.parse::<Authority>(), Err(BadAuthority(text.to_owned())));
        }
    }
}
