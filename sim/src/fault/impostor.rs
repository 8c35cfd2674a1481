//! Somebody at a pod's address who accepts every handshake of the mesh, with whatever certificate can be had, and writes
//! down what is said then. Everything else is turned away.

use std::{io, net::IpAddr, sync::Arc, time::Duration};

use conduit_identity::Workload as Identified;
use conduit_k8s::owned;
use conduit_net::{Io, Listener, Network};
use k8s_openapi::api::core::v1::Secret;
use kube::Api;
use rustls::ServerConfig;
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use tokio::{io::AsyncReadExt, time::timeout};
use tokio_rustls::TlsAcceptor;
use tokio_util::task::AbortOnDropHandle;

use super::{
    Pod, Shown, Workload,
    act::{GONE, identified, other_than, told},
    secrets,
};
use crate::{
    crypto,
    history::{Arrival, OpId, Protocol},
    time::elapsed,
    workload::Context,
    world::Worldly,
};

/// How long it listens to one client.
const PATIENCE: Duration = Duration::from_secs(5);
/// How long a client may take for its handshake. Who waits for the first word of a server waits in vain, and is turned away like
/// all who speak in plaintext.
const HANDSHAKE: Duration = Duration::from_millis(500);
/// How much of it.
const MAX_HEARD: usize = 1 << 16;

/// One who listens, until dropped.
pub(crate) struct Impostor {
    /// Whose place it has.
    pod: String,
    pub(super) ip: IpAddr,
    _listening: Vec<AbortOnDropHandle<()>>,
}

/// Ends a server's first pod, and puts somebody else in its place. How many those are.
pub(super) async fn begin(world: &mut Worldly, of: usize, shows: Shown) -> Result<u64, String> {
    let pod = Pod::Server(of, 0);
    let (Some(name), Some(ip)) = (world.name(pod), world.ip(pod)) else { return Ok(0) };
    if world.impostors.contains_key(&of) {
        return Ok(0);
    }
    let certificate = if world.has_conduit { certificate(world, of, shows).await? } else { None };
    world.stage.mesh.kill_pod(&name).map_err(told)?;
    tokio::time::sleep(GONE).await;
    world.stage.wire.close_all(ip);
    let mut listening = Vec::new();
    for protocol in world.plan.servers[of].protocols.clone() {
        let bound = world.stage.wire.host(ip).bind((ip, protocol.port()).into()).await;
        let listener = bound.map_err(|error| error.to_string())?;
        let accepting = accept(listener, ip, protocol, certificate.clone(), world.context.clone());
        listening.push(AbortOnDropHandle::new(tokio::spawn(accepting)));
    }
    world.impostors.insert(of, Impostor { pod: name, ip, _listening: listening });
    Ok(u64::from(certificate.is_some() || !world.has_conduit))
}

/// Gives the place back to the pod.
pub(super) async fn end(world: &mut Worldly, of: usize) -> Result<(), String> {
    let Some(impostor) = world.impostors.remove(&of) else { return Ok(()) };
    let (pod, ip) = (impostor.pod.clone(), impostor.ip);
    drop(impostor);
    tokio::time::sleep(GONE).await;
    match world.stage.mesh.revive_pod(&pod).await {
        // It was replaced meanwhile, and nobody else could have the address.
        Err(conduit_mesh::Error::NoSuchPod { .. }) => {
            world.stage.machines.give_back(ip);
            Ok(())
        }
        revived => revived.map_err(told),
    }
}

async fn accept(
    mut listener: Box<dyn Listener>,
    ip: IpAddr,
    protocol: Protocol,
    certificate: Option<Arc<ServerConfig>>,
    context: Context,
) {
    while let Ok(accepted) = listener.accept().await {
        let Some(certificate) = certificate.clone() else { continue };
        let context = context.clone();
        tokio::spawn(async move {
            // What becomes of a client that it cannot deceive is of no interest.
            let heard = timeout(PATIENCE, deceive(certificate, accepted.io)).await;
            let Ok(Ok(heard)) = heard else { return };
            for op in OpId::find_all(&heard) {
                let (at, workload) = (elapsed(), "an impostor".to_owned());
                context.log.arrive(Arrival { op, server: ip, workload, protocol, at, intact: true });
            }
        });
    }
}

/// What a client says once it has accepted the certificate.
async fn deceive(certificate: Arc<ServerConfig>, io: Io) -> io::Result<Vec<u8>> {
    let accepting = TlsAcceptor::from(certificate).accept(io);
    let mut tls = timeout(HANDSHAKE, accepting).await.map_err(io::Error::from)??;
    let mut heard = Vec::new();
    // It says nothing, so that its client goes on until it gives up.
    while heard.len() < MAX_HEARD {
        let listened = timeout(Duration::from_secs(1), tls.read_buf(&mut heard)).await;
        if !matches!(listened, Ok(Ok(1..))) {
            break;
        }
    }
    Ok(heard)
}

/// What it shows; none as long as there is no such certificate.
async fn certificate(world: &Worldly, of: usize, shows: Shown) -> Result<Option<Arc<ServerConfig>>, String> {
    let (mesh, own) = (&world.stage.mesh, identified(world, Workload::Server(of)));
    let leaf = match shows {
        Shown::AnotherName => return stolen(world, &other_than(world, Workload::Server(of))).await,
        Shown::Expired => mesh.leaf_issued_at(&own, secrets::past(mesh)).await.map_err(told)?,
        Shown::Untrusted => Some(mesh.foreign_leaf(&own).map_err(told)?),
    };
    leaf.map(|leaf| config(leaf.chain.as_bytes(), leaf.key.reveal().as_bytes())).transpose()
}

async fn stolen(world: &Worldly, from: &Identified) -> Result<Option<Arc<ServerConfig>>, String> {
    let api: Api<Secret> = Api::namespaced(world.stage.mesh.client(), &from.namespace);
    let secret = api.get_opt(&from.secret_name()).await.map_err(|error| error.to_string())?;
    let data = secret.and_then(|secret| secret.data).unwrap_or_default();
    let (chain, key) = (data.get(owned::SECRET_CERT_KEY), data.get(owned::SECRET_PRIVATE_KEY));
    chain.zip(key).map(|(chain, key)| config(&chain.0, &key.0)).transpose()
}

fn config(chain: &[u8], key: &[u8]) -> Result<Arc<ServerConfig>, String> {
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(chain).filter_map(Result::ok).collect();
    let key = PrivateKeyDer::from_pem_slice(key).map_err(|error| error.to_string())?;
    let told = |error: rustls::Error| error.to_string();
    let builder = ServerConfig::builder_with_provider(crypto::deterministic().provider);
    let builder = builder.with_protocol_versions(&[&rustls::version::TLS13]).map_err(told)?;
    let mut config = builder.with_no_client_auth().with_single_cert(chain, key).map_err(told)?;
    config.send_tls13_tickets = 0;
    Ok(Arc::new(config))
}
