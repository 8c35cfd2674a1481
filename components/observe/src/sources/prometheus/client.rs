//! Asks a Prometheus server over plain HTTP, one connection a question.

use std::{fmt, str::FromStr, time::Duration};

use bytes::Bytes;
use conduit_net::Net;
use http_body_util::{BodyExt, Full, Limited};
use hyper::{Request, StatusCode, client::conn::http1, header};
use hyper_util::rt::TokioIo;
use serde::{Deserialize, de::DeserializeOwned};
use tokio::time::timeout;

/// For one question, from resolving the name to the last byte of the answer.
const DEADLINE: Duration = Duration::from_secs(10);
/// Octets of an answer. One series is about 400 octets: room for 80,000 of them, 26 of which are one histogram.
const MAX_ANSWER: usize = 32 << 20;

/// Where a Prometheus is.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Url {
    host: String,
    port: u16,
    /// What its paths begin with, without a slash at the end.
    prefix: String,
}

/// Not the address of a Prometheus.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("expected http://HOST[:PORT][/PATH] of a Prometheus, such as http://prometheus.monitoring:9090: {0}")]
pub struct InvalidUrl(&'static str);

impl FromStr for Url {
    type Err = InvalidUrl;

    fn from_str(text: &str) -> Result<Self, InvalidUrl> {
        let uri: http::Uri = text.parse().map_err(|_| InvalidUrl("this is no URL"))?;
        match uri.scheme_str() {
            Some("http") => {}
            Some("https") => return Err(InvalidUrl("only plain HTTP is spoken, not https")),
            _ => return Err(InvalidUrl("it does not begin with http://")),
        }
        let authority = uri.authority().ok_or(InvalidUrl("the host is missing"))?;
        if authority.as_str().contains('@') {
            return Err(InvalidUrl("it is asked without a user or a password"));
        }
        if uri.query().is_some() {
            return Err(InvalidUrl("there is nothing to ask in it"));
        }
        let host = authority.host().trim_matches(['[', ']']).to_owned();
        let prefix = uri.path().trim_end_matches('/').to_owned();
        Ok(Self { host, port: authority.port_u16().unwrap_or(80), prefix })
    }
}

impl fmt::Display for Url {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.host.contains(':') {
            true => write!(f, "http://[{}]:{}{}", self.host, self.port, self.prefix),
            false => write!(f, "http://{}:{}{}", self.host, self.port, self.prefix),
        }
    }
}

/// Why Prometheus told nothing.
#[derive(Debug, thiserror::Error)]
pub enum AskError {
    /// It took too long.
    #[error("Prometheus at {url} did not answer within {DEADLINE:?}")]
    Slow {
        /// Where.
        url: Url,
    },
    /// There is nobody.
    #[error("Prometheus at {url} cannot be reached: {source}")]
    Unreachable {
        /// Where.
        url: Url,
        /// Why not.
        source: std::io::Error,
    },
    /// The exchange broke.
    #[error("Prometheus at {url} broke off: {source}")]
    Broken {
        /// Where.
        url: Url,
        /// How.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// It answered that it cannot.
    #[error("Prometheus at {url} declined: {status} {reason}")]
    Declined {
        /// Where.
        url: Url,
        /// With this status.
        status: StatusCode,
        /// In its words, shortened.
        reason: String,
    },
    /// It answered something else.
    #[error("what answers at {url} is no Prometheus: {source}")]
    Unreadable {
        /// Where.
        url: Url,
        /// What is wrong with it.
        source: serde_json::Error,
    },
}

/// One server.
pub(super) struct Client {
    url: Url,
    net: Net,
}

/// The body of an answer.
#[derive(Debug, Deserialize)]
struct Reply<T> {
    data: Data<T>,
}

#[derive(Debug, Deserialize)]
struct Data<T> {
    result: T,
}

#[derive(Debug, Deserialize)]
struct Refusal {
    error: String,
}

impl Client {
    pub(super) fn new(url: Url, net: Net) -> Self {
        Self { url, net }
    }

    /// What time it is to Prometheus, in seconds since 1970.
    pub(super) async fn now(&self) -> Result<f64, AskError> {
        let (_, seconds): (f64, String) = self.ask("time()".to_owned(), None).await?;
        seconds.parse().map_err(|_| self.unreadable(serde::de::Error::custom("time() is no number")))
    }

    /// The answer to `question` as of `now`.
    pub(super) async fn query<T: DeserializeOwned>(&self, question: String, now: f64) -> Result<T, AskError> {
        self.ask(question, Some(now)).await
    }

    async fn ask<T: DeserializeOwned>(&self, question: String, now: Option<f64>) -> Result<T, AskError> {
        let exchange = timeout(DEADLINE, self.exchange(&question, now)).await;
        let (status, body) = exchange.map_err(|_| AskError::Slow { url: self.url.clone() })??;
        if status == StatusCode::OK {
            let reply: Reply<T> = serde_json::from_slice(&body).map_err(|source| self.unreadable(source))?;
            return Ok(reply.data.result);
        }
        let reason = match serde_json::from_slice::<Refusal>(&body) {
            Ok(Refusal { error }) => error,
            Err(_) => String::from_utf8_lossy(&body).into_owned(),
        };
        let reason = reason.chars().filter(|c| !c.is_control()).take(256).collect();
        Err(AskError::Declined { url: self.url.clone(), status, reason })
    }

    async fn exchange(&self, question: &str, now: Option<f64>) -> Result<(StatusCode, Bytes), AskError> {
        let broken = |source: Box<dyn std::error::Error + Send + Sync>| AskError::Broken {
            url: self.url.clone(),
            source,
        };
        let io =
            self.connect().await.map_err(|source| AskError::Unreachable { url: self.url.clone(), source })?;
        let (mut sender, connection) =
            http1::handshake(TokioIo::new(io)).await.map_err(|error| broken(error.into()))?;
        let exchange = async {
            let request = Request::post(format!("{}/api/v1/query", self.url.prefix))
                .header(header::HOST, format!("{}:{}", self.url.host, self.url.port))
                .header(header::CONTENT_TYPE, "application/x-www-form-urlencoded")
                .header(header::CONNECTION, "close")
                .body(Full::new(Bytes::from(form(question, now))))
                .map_err(|error| broken(error.into()))?;
            let response = sender.send_request(request).await.map_err(|error| broken(error.into()))?;
            let status = response.status();
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await.map_err(broken)?;
            Ok((status, body.to_bytes()))
        };
        // The connection is driven only as long as its one exchange takes; how it ends shows there.
        let drive = async {
            drop(connection.await);
            std::future::pending::<()>().await;
        };
        tokio::select! {
            biased;
            result = exchange => result,
            () = drive => Err(AskError::Slow { url: self.url.clone() }),
        }
    }

    async fn connect(&self) -> std::io::Result<conduit_net::Io> {
        let addrs = match self.url.host.parse() {
            Ok(ip) => vec![ip],
            Err(_) => self.net.resolve(&self.url.host).await?.addrs,
        };
        let mut last = std::io::ErrorKind::NotFound.into();
        for ip in addrs {
            match self.net.connect((ip, self.url.port).into()).await {
                Ok(io) => return Ok(io),
                Err(error) => last = error,
            }
        }
        Err(last)
    }

    fn unreadable(&self, source: serde_json::Error) -> AskError {
        AskError::Unreadable { url: self.url.clone(), source }
    }
}

/// The question as a form of HTML has it.
fn form(question: &str, now: Option<f64>) -> String {
    let mut text = "query=".to_owned();
    for octet in question.bytes() {
        match octet {
            b'0'..=b'9' | b'A'..=b'Z' | b'a'..=b'z' | b'-' | b'.' | b'_' => text.push(char::from(octet)),
            other => text += &format!("%{other:02X}"),
        }
    }
    match now {
        Some(now) => text + &format!("&time={now}"),
        None => text,
    }
}

#[cfg(test)]
mod tests {
    use conduit_net::TokioNetwork;
    use tokio::io::{AsyncReadExt, AsyncWriteExt};

    use super::*;

    #[test]
    fn urls_are_read_and_written() {
        for (text, read) in [
            ("http://prometheus.monitoring:9090", "http://prometheus.monitoring:9090"),
            ("http://prometheus/", "http://prometheus:80"),
            ("http://a:1/team/prom/", "http://a:1/team/prom"),
            ("http://[fd00::1]:9090", "http://[fd00::1]:9090"),
        ] {
            assert_eq!(text.parse::<Url>().unwrap().to_string(), read);
        }
    }

    #[test]
    fn what_is_no_url_of_a_prometheus_is_refused_with_an_example() {
        for text in
            ["", "prometheus:9090", "/x", "https://a", "ftp://a", "http://u:p@a", "http://a?x=1", "http://"]
        {
            let error = text.parse::<Url>().unwrap_err().to_string();
            assert!(error.contains("http://prometheus.monitoring:9090"), "{text}: {error}");
        }
    }

    #[test]
    fn questions_are_escaped() {
        assert_eq!(form("up{a=\"b\"} + 1", Some(1.5)), "query=up%7Ba%3D%22b%22%7D%20%2B%201&time=1.5");
    }

    /// A client of a server that answers `answer`, whatever is asked.
    async fn client(answer: &'static str) -> Client {
        let net = TokioNetwork::shared();
        let mut listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let url = format!("http://{}", listener.local_addr()).parse().unwrap();
        tokio::spawn(async move {
            let mut io = listener.accept().await.unwrap().io;
            let mut head = [0; 4096];
            drop(io.read(&mut head).await);
            drop(io.write_all(answer.as_bytes()).await);
            drop(io.shutdown().await);
        });
        Client::new(url, net)
    }

    #[tokio::test]
    async fn failures_say_where_and_why() {
        let cases = [
            ("HTTP/1.1 200 OK\r\ncontent-length: 2\r\n\r\nhi", "is no Prometheus"),
            ("HTTP/1.1 400 Bad Request\r\ncontent-length: 15\r\n\r\n{\"error\":\"oops\"}", "declined: 400"),
            ("HTTP/1.1 422 X\r\ncontent-length: 16\r\n\r\n{\"error\":\"oops\"}", "oops"),
            ("", "broke off"),
        ];
        for (answer, expected) in cases {
            let client = client(answer).await;
            let error = client.now().await.unwrap_err().to_string();
            assert!(error.contains(expected) && error.contains(&client.url.to_string()), "{error}");
        }
        let nobody = Client::new("http://127.0.0.1:1".parse().unwrap(), TokioNetwork::shared());
        assert!(nobody.now().await.unwrap_err().to_string().contains("cannot be reached"));
    }
}
