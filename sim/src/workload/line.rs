//! A stream's connections to its Service.

use http::uri::Authority;
use parking_lot::Mutex;
use tokio_rustls::TlsConnector;

use conduit_net::{Io, Net};

use super::{
    AppTls, Style,
    http_client::{Http1, Http2},
    opaque,
    request::{Problem, Request},
    server_first, websocket,
    wire::{Wire, reuse, wire},
};
use crate::history::{OpLog, Protocol};

/// How one stream reaches its Service.
pub(super) struct Line {
    pub(super) net: Net,
    pub(super) tls: AppTls,
    pub(super) host: String,
    pub(super) port: u16,
    pub(super) authority: Authority,
    pub(super) protocol: Protocol,
    pub(super) style: Style,
    /// Is told of requests that come back.
    pub(super) log: OpLog,
    /// The kept connection of protocols with one operation at a time. The lock is the queue, and it is a fair one.
    pub(super) one: tokio::sync::Mutex<Option<One>>,
    /// Only one operation opens the connection that all share; the others wait for it.
    pub(super) opening: tokio::sync::Mutex<()>,
    /// The kept connection of HTTP/2 and gRPC, and how many there have been.
    pub(super) shared: Mutex<(u64, Option<Http2>)>,
}

/// A connection that carries one operation at a time.
pub(super) enum One {
    Http1(Http1),
    Wire(Wire),
}

impl Line {
    /// Asks once. Dropping the future ends the connection on which the answer was awaited, or, when others share it, has
    /// the next operation open another.
    pub(super) async fn ask(&self, request: &Request) -> Result<(), Problem> {
        let multiplexes = matches!(self.protocol, Protocol::Http2 | Protocol::Grpc);
        match (self.style, multiplexes) {
            (Style::Fresh, false) => self.talk(&mut self.open(request).await?, request).await,
            (Style::Kept, false) => self.queue(request).await,
            (Style::Fresh, true) => {
                let mut connection = Http2::open(self.connect().await?).await?;
                connection.ask(self.protocol, request, &self.authority).await
            }
            (Style::Kept, true) => self.share(request).await,
        }
    }

    async fn queue(&self, request: &Request) -> Result<(), Problem> {
        let mut slot = self.one.lock().await;
        // It is put back only after a good answer: after anything else nobody knows what is still to come on it.
        if let Some(mut kept) = slot.take() {
            match self.talk_again(&mut kept, request).await {
                Err(Problem::Unsent(_)) => self.log.hand_back(request.id),
                result => {
                    *slot = result.is_ok().then_some(kept);
                    return result;
                }
            }
        }
        let mut fresh = self.open(request).await?;
        let result = self.talk(&mut fresh, request).await;
        *slot = result.is_ok().then_some(fresh);
        result
    }

    async fn talk_again(&self, kept: &mut One, request: &Request) -> Result<(), Problem> {
        if let One::Wire(wire) = kept {
            reuse(wire).await?;
        }
        self.talk(kept, request).await
    }

    async fn talk(&self, connection: &mut One, request: &Request) -> Result<(), Problem> {
        let last = self.style == Style::Fresh;
        match connection {
            One::Http1(connection) => connection.ask(request, &self.authority, last).await,
            One::Wire(wire) => match self.protocol {
                Protocol::ServerFirst => server_first::ask(wire, request, last).await,
                Protocol::WebSocket => websocket::ask(wire, request, last).await,
                _ => opaque::ask(wire, request, last).await,
            },
        }
    }

    async fn share(&self, request: &Request) -> Result<(), Problem> {
        let (mut using, reused) = self.shared().await?;
        let result = using.ask(request).await;
        if !(reused && matches!(result, Err(Problem::Unsent(_)))) {
            return result;
        }
        drop(using);
        self.log.hand_back(request.id);
        self.shared().await?.0.ask(request).await
    }

    /// The connection that all share, opened if there is none, and whether it was there before.
    async fn shared(&self) -> Result<(Using<'_>, bool), Problem> {
        let _opening = self.opening.lock().await;
        let (number, kept) = self.shared.lock().clone();
        if let Some(connection) = kept.filter(Http2::is_open) {
            return Ok((Using { line: self, number, connection, answered: false }, true));
        }
        let connection = Http2::open(self.connect().await?).await?;
        *self.shared.lock() = (number + 1, Some(connection.clone()));
        Ok((Using { line: self, number: number + 1, connection, answered: false }, false))
    }

    async fn open(&self, request: &Request) -> Result<One, Problem> {
        let io = self.connect().await?;
        Ok(match self.protocol {
            Protocol::Http1 => One::Http1(Http1::open(io).await?),
            Protocol::ServerFirst => One::Wire(server_first::open(io).await?),
            Protocol::WebSocket => One::Wire(websocket::open(io, self.authority.as_str(), request).await?),
            Protocol::AppTls => {
                let connector = TlsConnector::from(self.tls.client.clone());
                One::Wire(wire(connector.connect(self.tls.name.clone(), io).await?))
            }
            Protocol::Opaque | Protocol::Http2 | Protocol::Grpc => One::Wire(wire(io)),
        })
    }

    async fn connect(&self) -> Result<Io, Problem> {
        let resolved = self.net.resolve(&self.host).await;
        let resolved =
            resolved.map_err(|error| Problem::Failed(format!("resolving {}: {error}", self.host)))?;
        let ip =
            resolved.addrs.first().ok_or_else(|| Problem::Failed(format!("{} has no address", self.host)))?;
        let io = self.net.connect((*ip, self.port).into()).await;
        io.map_err(|error| Problem::Failed(format!("connecting to {ip}: {error}")))
    }
}

/// One operation's use of the shared connection. If it had no answer, the connection is given up: a connection into which
/// everything vanishes looks open for ever.
struct Using<'a> {
    line: &'a Line,
    number: u64,
    connection: Http2,
    answered: bool,
}

impl Using<'_> {
    async fn ask(&mut self, request: &Request) -> Result<(), Problem> {
        let result = self.connection.ask(self.line.protocol, request, &self.line.authority).await;
        self.answered = result.is_ok();
        result
    }
}

impl Drop for Using<'_> {
    fn drop(&mut self) {
        let mut shared = self.line.shared.lock();
        if !self.answered && shared.0 == self.number {
            shared.1 = None;
        }
    }
}
