//! Conduit's HTTP API, wherever it is: at an address, in a demo on this machine, or in a cluster behind the API
//! server's port-forward.

use std::time::Duration;

use anyhow::{Context, anyhow};
use bytes::Bytes;
use conduit_k8s::{
    kubeconfig::{self, Choice},
    owned::{COMPONENT_OBSERVE, PORT_OBSERVE},
};
use conduit_net::{Net, TokioNetwork};
use conduit_observe::{
    demo_file::{Demo, Place},
    problem::Problem,
};
use http::{Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Empty, Limited};
use hyper::{body::Incoming, client::conn::http1};
use hyper_util::rt::TokioIo;
use k8s_openapi::api::core::v1::Pod;
use kube::{Api, api::Portforwarder};
use serde::de::DeserializeOwned;
use tokio::{
    io::{AsyncRead, AsyncWrite},
    time::timeout,
};

use crate::{args::Global, cluster, output, sse::Events};

/// How long a demo on this machine may take to accept a connection.
const DEMO_DEADLINE: Duration = Duration::from_secs(1);
/// How long opening a connection may take, through an API server perhaps.
const CONNECT_DEADLINE: Duration = Duration::from_secs(15);
/// How long an answer may take.
const ANSWER_DEADLINE: Duration = Duration::from_secs(15);
/// Octets of an answer: some hundred thousand rows.
const MAX_ANSWER: usize = 64 << 20;

/// A way to the API.
pub struct Client {
    net: Net,
    target: Target,
    namespace: String,
}

enum Target {
    /// Plain HTTP to an address.
    Address(String),
    /// A pod of a cluster.
    Pod { pods: Box<Api<Pod>>, name: String },
}

impl Client {
    /// Finds the API: at `--api-addr`; else in the cluster that `--kubeconfig` or `--context` names; else in a demo
    /// that runs on this machine; else in the cluster of the current context.
    ///
    /// # Errors
    /// There is none, or none that can be reached; the message says what was tried.
    pub async fn find(global: &Global) -> anyhow::Result<Self> {
        let net = TokioNetwork::shared();
        if let Some(client) = Self::without_kubernetes(&net, global).await {
            return Ok(client);
        }
        let cluster::Found { pods, name, namespace } = cluster::observe_pod(&net, global).await?;
        Ok(Self { net, target: Target::Pod { pods: Box::new(pods), name }, namespace })
    }

    /// The API at `--api-addr`, or in a demo that runs on this machine unless a cluster was named.
    pub(crate) async fn without_kubernetes(net: &Net, global: &Global) -> Option<Self> {
        if let Some(addr) = &global.api_addr {
            return Some(Self::at(net.clone(), addr.clone()));
        }
        if global.kubeconfig.is_some() || global.context.is_some() {
            return None;
        }
        let demo = running_demo(net, &Place::of_user()).await?;
        tell_of_demo(&demo).await;
        let namespace = demo.namespace.unwrap_or_else(|| "default".to_owned());
        Some(Self { namespace, ..Self::at(net.clone(), demo.api_addr) })
    }

    /// The API at `addr`, `host:port`.
    pub fn at(net: Net, addr: String) -> Self {
        Self { net, target: Target::Address(addr), namespace: "default".to_owned() }
    }

    /// The namespace of commands that name none: the context's, as with kubectl.
    pub fn default_namespace(&self) -> &str {
        &self.namespace
    }

    /// Asks for `path`, and reads the answer as JSON.
    ///
    /// # Errors
    /// The API cannot be reached, declines (its reason is the message), or answers something else.
    pub async fn get<T: DeserializeOwned>(
        &self,
        path: &str,
        parameters: &[(&str, String)],
    ) -> anyhow::Result<T> {
        let body = self.bytes(path, parameters).await?;
        serde_json::from_slice(&body).context("the answer is not what this version of conduit expects")
    }

    /// Asks for `path`, and reads the answer as it is.
    ///
    /// # Errors
    /// As [`Client::get`].
    pub async fn bytes(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Bytes> {
        let answer = async {
            let response = self.send(path, parameters).await?;
            let body = Limited::new(response.into_body(), MAX_ANSWER).collect().await;
            Ok(body.map_err(|error| anyhow!("the answer broke off: {error}"))?.to_bytes())
        };
        timeout(ANSWER_DEADLINE, answer).await.map_err(|_| anyhow!("no answer within {ANSWER_DEADLINE:?}"))?
    }

    /// Asks for `path`, and reads the answer as events while they come.
    ///
    /// # Errors
    /// As [`Client::get`]; what goes wrong later shows in the events.
    pub async fn events(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Events> {
        let response = timeout(ANSWER_DEADLINE, self.send(path, parameters)).await;
        Ok(Events::new(response.map_err(|_| anyhow!("no answer within {ANSWER_DEADLINE:?}"))??.into_body()))
    }

    async fn send(&self, path: &str, parameters: &[(&str, String)]) -> anyhow::Result<Response<Incoming>> {
        let Connection { io, forward } = self.connect_in_time().await?;
        let (mut sender, connection) = http1::handshake(TokioIo::new(io)).await?;
        tokio::spawn(async move {
            // How it ends shows in the answer. The forward lives as long as the connection on it.
            let _ = connection.await;
            drop(forward);
        });
        let request = Request::get(format!("{path}{}", query(parameters)))
            .header(header::HOST, self.authority())
            .header(header::CONNECTION, "close")
            .body(Empty::<Bytes>::new())?;
        let response = sender.send_request(request).await?;
        if response.status() == StatusCode::OK { Ok(response) } else { Err(declined(response).await) }
    }

    fn authority(&self) -> &str {
        match &self.target {
            Target::Address(addr) => addr,
            Target::Pod { .. } => COMPONENT_OBSERVE,
        }
    }

    /// Where it is, unless it is in a cluster.
    pub(crate) fn address(&self) -> Option<&str> {
        match &self.target {
            Target::Address(addr) => Some(addr),
            Target::Pod { .. } => None,
        }
    }

    /// Opens a connection to it.
    ///
    /// # Errors
    /// It cannot be reached, or not in time.
    pub(crate) async fn connect_in_time(&self) -> anyhow::Result<Connection> {
        timeout(CONNECT_DEADLINE, self.connect()).await.map_err(|_| anyhow!("no connection in time"))?
    }

    async fn connect(&self) -> anyhow::Result<Connection> {
        match &self.target {
            Target::Address(addr) => {
                let io = dial(&self.net, addr).await.with_context(|| format!("cannot reach {addr}"))?;
                Ok(Connection { io, forward: None })
            }
            Target::Pod { pods, name } => {
                let failed = || format!("cannot forward a port to the pod {name}");
                let mut forward = pods.portforward(name, &[PORT_OBSERVE]).await.with_context(failed)?;
                let io = forward.take_stream(PORT_OBSERVE).with_context(failed)?;
                Ok(Connection { io: Box::new(io), forward: Some(forward) })
            }
        }
    }
}

pub(crate) trait Stream: AsyncRead + AsyncWrite + Send + Unpin {}
impl<T: AsyncRead + AsyncWrite + Send + Unpin> Stream for T {}

/// A connection to the API.
pub(crate) struct Connection {
    pub(crate) io: Box<dyn Stream>,
    /// What keeps it open.
    pub(crate) forward: Option<Portforwarder>,
}

async fn dial(net: &Net, addr: &str) -> anyhow::Result<Box<dyn Stream>> {
    let (host, port) = addr.rsplit_once(':').context("write host:port")?;
    let port: u16 = port.parse().context("write host:port")?;
    let mut last = None;
    for ip in net.resolve(host).await?.addrs {
        match net.connect((ip, port).into()).await {
            Ok(io) => return Ok(Box::new(io)),
            Err(error) => last = Some(error),
        }
    }
    Err(last.map_or_else(|| anyhow!("the name has no address"), Into::into))
}

/// The demo that runs on this machine, if one does. A file that a killed one left behind is worth a note, no more.
async fn running_demo(net: &Net, place: &Place) -> Option<Demo> {
    let ignored = |why: String| {
        output::note(&format!("note: ignoring {}: {why}", place.path().display()));
        None
    };
    let demo = match place.read() {
        Ok(demo) => demo?,
        Err(error) => return ignored(error.to_string()),
    };
    match answers(net, &demo).await {
        true => Some(demo),
        false => ignored(format!("the demo at {} does not answer; it may have been killed", demo.api_addr)),
    }
}

/// Whether something listens where a demo says that it does.
pub(crate) async fn answers(net: &Net, demo: &Demo) -> bool {
    matches!(timeout(DEMO_DEADLINE, dial(net, &demo.api_addr)).await, Ok(Ok(_)))
}

/// A demo goes before the cluster of the current context, and whoever has both should know which one it is.
async fn tell_of_demo(demo: &Demo) {
    let choice = Choice { path: None, context: None };
    if let Ok(Ok(kubeconfig::Found { origin, .. })) = timeout(DEMO_DEADLINE, kubeconfig::find(&choice)).await
    {
        let pid = demo.pid;
        output::note(&format!(
            "note: asking the demo that runs here as process {pid}, not {origin}; --context or --kubeconfig asks a cluster"
        ));
    }
}

/// What the API said when it declined.
async fn declined(response: Response<Incoming>) -> anyhow::Error {
    let status = response.status();
    let body = Limited::new(response.into_body(), 64 << 10).collect().await;
    let problem = body.ok().and_then(|body| serde_json::from_slice::<Problem>(&body.to_bytes()).ok());
    match problem {
        Some(Problem { detail, parameter: Some(parameter), value: Some(value), .. })
            if !value.is_empty() && !detail.contains(&value) =>
        {
            anyhow!("{} {value:?}: {detail}", argument(&parameter))
        }
        Some(Problem { detail, .. }) => anyhow!(detail),
        None => anyhow!("the API answered {status}"),
    }
}

/// What the command line calls a parameter of the API.
fn argument(parameter: &str) -> String {
    match parameter {
        "type" | "name" => "RESOURCE".to_owned(),
        "window" => "--time-window".to_owned(),
        // One that an older API does not know is the value here.
        "parameter" => parameter.to_owned(),
        other => format!("--{}", other.replace('_', "-")),
    }
}

/// Parameters as a query string; empty without any.
fn query(parameters: &[(&str, String)]) -> String {
    let mut query = String::new();
    for (name, value) in parameters {
        query.push(if query.is_empty() { '?' } else { '&' });
        query.push_str(name);
        query.push('=');
        for octet in value.bytes() {
            match octet {
                // RFC 3986 section 2.3.
                b'a'..=b'z' | b'A'..=b'Z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                    query.push(octet.into())
                }
                _ => query.push_str(&format!("%{octet:02X}")),
            }
        }
    }
    query
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parameters_survive_the_query_string() {
        let parameters = [("type", "au/web svc:80".to_owned()), ("path", "/a?b=c&d=é".to_owned())];
        assert_eq!(query(&parameters), "?type=au%2Fweb%20svc%3A80&path=%2Fa%3Fb%3Dc%26d%3D%C3%A9");
        assert_eq!(query(&[]), "");
    }

    #[test]
    fn parameters_are_told_as_the_command_line_calls_them() {
        use clap::CommandFactory;
        let command = crate::args::Cli::command();
        for (name, parameters) in [
            ("stat", &conduit_observe::request::PARAMETERS[..]),
            ("tap", &["authority", "max_rps", "method", "path", "scheme", "tls", "to", "to_namespace"][..]),
        ] {
            let command = command.find_subcommand(name).unwrap();
            for parameter in parameters {
                let argument = argument(parameter);
                let is_known =
                    |arg: &clap::Arg| arg.get_long().is_some_and(|long| argument == format!("--{long}"));
                assert!(argument == "RESOURCE" || command.get_arguments().any(is_known), "{name} {argument}");
            }
        }
    }

    #[tokio::test]
    async fn a_stale_demo_is_ignored() {
        let temp = tempfile::tempdir().unwrap();
        let place = Place::new(Some(temp.path()), temp.path(), None);
        let net = TokioNetwork::shared();
        assert!(running_demo(&net, &place).await.is_none());
        let listener = net.bind("127.0.0.1:0".parse().unwrap()).await.unwrap();
        let demo = Demo { api_addr: listener.local_addr().to_string(), pid: 1, started: 1, namespace: None };
        place.write(&demo).unwrap();
        assert_eq!(running_demo(&net, &place).await, Some(demo));
        drop(listener);
        assert!(running_demo(&net, &place).await.is_none());
    }
}
