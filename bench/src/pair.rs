//! Two real proxies between a client and a server, as two pods have them: the client's sends what it is given to the
//! server's over mutual TLS, because a scripted destination service says who answers there.

use std::{net::SocketAddr, path::Path, pin::Pin};

use anyhow::Context;
use conduit_identity::{ControlPlane, Identity, Workload, WorkloadKind};
use conduit_net::Net;
use conduit_proto::destination::{
    Endpoint, GetRequest, Snapshot, Update,
    destination_server::{Destination, DestinationServer},
    update,
};
use conduit_runtime::{drain, grpc};
use futures::{Stream, StreamExt};
use tonic::{Request, Response, Status};

use crate::{certificates, process::Proxy};

/// The authority that the client asks for.
pub(crate) const AUTHORITY: &str = "server.bench:80";

/// The pair and what they need to live.
pub(crate) struct Pair {
    /// The client's proxy.
    pub(crate) outbound: Proxy,
    /// The server's proxy.
    pub(crate) inbound: Proxy,
    /// Where the client connects.
    pub(crate) entrance: SocketAddr,
    _files: tempfile::TempDir,
    _drain: drain::Trigger,
}

impl Pair {
    /// Starts both in front of `server`; without `tls` they speak plaintext to each other.
    pub(crate) async fn start(
        net: &Net,
        binary: &Path,
        server: SocketAddr,
        tls: bool,
    ) -> anyhow::Result<Self> {
        let control = ControlPlane::default();
        let workloads = ["client", "server"].map(workload);
        let [client_id, server_id] = workloads.each_ref().map(|workload| Identity::of(workload, &control));
        let files = tempfile::tempdir()?;
        certificates::write(files.path(), &workloads, &control)?;

        let ports = Ports::free(net).await?;
        let (drain, watch) = drain::channel();
        let identity = if tls { server_id.as_str().to_owned() } else { String::new() };
        let destination =
            serve(net, Scripted { address: ports.inbound.to_string(), identity }, watch).await?;

        let env = |name: &str, own: [SocketAddr; 4], identity: &Identity| {
            let [public, private, control, metrics] = own.map(|addr| format!("tcp://{addr}"));
            let mut env = vec![
                ("CONDUIT_PROXY_LOG", "warn".to_owned()),
                ("CONDUIT_PROXY_PUBLIC_LISTENER", public),
                ("CONDUIT_PROXY_PRIVATE_LISTENER", private),
                ("CONDUIT_PROXY_CONTROL_LISTENER", control),
                ("CONDUIT_PROXY_METRICS_LISTENER", metrics),
                ("CONDUIT_PROXY_PRIVATE_FORWARD", format!("tcp://{server}")),
                ("CONDUIT_PROXY_CONTROL_URL", format!("tcp://{destination}")),
                ("CONDUIT_PROXY_POD_NAMESPACE", "bench".to_owned()),
                ("CONDUIT_PROXY_CONTROLLER_NAMESPACE", "conduit".to_owned()),
            ];
            if tls {
                let file = |file: &str| files.path().join(name).join(file).display().to_string();
                env.extend([
                    ("CONDUIT_PROXY_TLS_TRUST_ANCHORS", file("trust-anchors.pem")),
                    ("CONDUIT_PROXY_TLS_CERT", file("tls.crt")),
                    ("CONDUIT_PROXY_TLS_PRIVATE_KEY", file("tls.key")),
                    ("CONDUIT_PROXY_TLS_POD_IDENTITY", identity.as_str().to_owned()),
                ]);
            }
            env
        };
        let [unused, tap_client, tap_server, unused_too] =
            [ports.spare[0], ports.spare[1], ports.spare[2], ports.spare[3]];
        let inbound_env = env("server", [ports.inbound, unused, tap_server, ports.admin[1]], &server_id);
        let outbound_env =
            env("client", [unused_too, ports.outbound, tap_client, ports.admin[0]], &client_id);
        let inbound =
            Proxy::start(net, binary, &inbound_env, ports.admin[1]).await.context("the server's proxy")?;
        let outbound =
            Proxy::start(net, binary, &outbound_env, ports.admin[0]).await.context("the client's proxy")?;
        Ok(Self { outbound, inbound, entrance: ports.outbound, _files: files, _drain: drain })
    }
}

fn workload(name: &str) -> Workload {
    Workload { namespace: "bench".into(), kind: WorkloadKind::Deployment, name: name.into() }
}

/// Ports that were free a moment ago: the proxies bind them themselves, as they do in a pod.
struct Ports {
    inbound: SocketAddr,
    outbound: SocketAddr,
    admin: [SocketAddr; 2],
    spare: [SocketAddr; 4],
}

impl Ports {
    async fn free(net: &Net) -> anyhow::Result<Self> {
        let mut held = Vec::new();
        let mut addrs = [SocketAddr::from(([127, 0, 0, 1], 0)); 8];
        // An address of its own, as a pod has: a proxy speaks no TLS to itself.
        addrs[0].set_ip([127, 0, 0, 2].into());
        for addr in &mut addrs {
            let listener = net.bind(*addr).await?;
            *addr = listener.local_addr();
            held.push(listener);
        }
        let [inbound, outbound, a, b, c, d, e, f] = addrs;
        Ok(Self { inbound, outbound, admin: [a, b], spare: [c, d, e, f] })
    }
}

struct Scripted {
    address: String,
    identity: String,
}

#[tonic::async_trait]
impl Destination for Scripted {
    type GetStream = Pin<Box<dyn Stream<Item = Result<Update, Status>> + Send>>;

    async fn get(&self, _: Request<GetRequest>) -> Result<Response<Self::GetStream>, Status> {
        let endpoint = Endpoint {
            address: self.address.clone(),
            labels: Default::default(),
            identity: self.identity.clone(),
        };
        let snapshot =
            Snapshot { service: AUTHORITY.into(), labels: Default::default(), endpoints: vec![endpoint] };
        let update = Update { update: Some(update::Update::Snapshot(snapshot)), stale: false };
        Ok(Response::new(futures::stream::iter([Ok(update)]).chain(futures::stream::pending()).boxed()))
    }
}

async fn serve(net: &Net, scripted: Scripted, drain: drain::Watch) -> anyhow::Result<SocketAddr> {
    let mut listener = net.bind(([127, 0, 0, 1], 0).into()).await?;
    let addr = listener.local_addr();
    let routes = tonic::service::Routes::new(DestinationServer::new(scripted));
    tokio::spawn(async move {
        while let Ok(accepted) = listener.accept().await {
            tokio::spawn(grpc::serve_connection(accepted.io, routes.clone(), drain.clone()));
        }
    });
    Ok(addr)
}
