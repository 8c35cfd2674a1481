//! Somebody who is no pod, and calls one over TLS as proxies do, with a certificate that proves nothing. Whoever is called may
//! listen, but must not say that it was who the certificate names.

use std::{
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::Duration,
};

use conduit_identity::{Identity, Workload as Identified, WorkloadKind};
use conduit_net::Network;
use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature},
};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, ServerName, UnixTime, pem::PemObject};
use tokio::{io::AsyncWriteExt, time::timeout};
use tokio_rustls::TlsConnector;

use super::{Pod, Workload, act::identified};
use crate::{crypto, world::Worldly};

/// Where it calls from. No pod has it.
const FROM: IpAddr = IpAddr::V4(Ipv4Addr::new(10, 244, 2, 2));
const CALLS: u64 = 3;
/// For one call.
const PATIENCE: Duration = Duration::from_secs(1);
/// How long its certificate has been past: longer than the error of any clock.
const PAST: Duration = Duration::from_secs(4 * 24 * 60 * 60);

/// Calls a server's first pod, at the first of its ports. How many calls became connections.
pub(super) async fn call(world: &Worldly, to: usize, is_past: bool) -> Result<u64, String> {
    let Some(ip) = world.ip(Pod::Server(to, 0)).filter(|_| world.has_conduit) else { return Ok(0) };
    let Some(config) = config(world, to, is_past).await? else { return Ok(0) };
    let called = identified(world, Workload::Server(to));
    let name = Identity::of(&called, world.stage.mesh.control_plane()).to_string();
    let name = ServerName::try_from(name).map_err(|error| error.to_string())?;
    let Some(protocol) = world.plan.servers[to].protocols.first() else { return Ok(0) };
    let network = world.stage.wire.host(FROM);
    let mut connected = 0;
    for _ in 0..CALLS {
        let call = async {
            let io = network.connect((ip, protocol.port()).into()).await?;
            // Who is called sees the certificate in what is sent with the first words, or with the last.
            TlsConnector::from(config.clone()).connect(name.clone(), io).await?.shutdown().await
        };
        // Whoever is called may be broken otherwise.
        connected += u64::from(matches!(timeout(PATIENCE, call).await, Ok(Ok(()))));
    }
    Ok(connected)
}

/// Speaks TLS with anybody, as somebody whom the mesh does not know; none as long as there is no such certificate.
async fn config(world: &Worldly, to: usize, is_past: bool) -> Result<Option<Arc<ClientConfig>>, String> {
    let mesh = &world.stage.mesh;
    let namespace = world.plan.servers[to].namespace.clone();
    let own = Identified { namespace, kind: WorkloadKind::Deployment, name: "stranger".to_owned() };
    let leaf = if is_past {
        let at = mesh.clock().now() - mesh.lifetimes().leaf - PAST;
        mesh.leaf_issued_at(&own, at).await.map_err(|error| error.to_string())?
    } else {
        Some(mesh.foreign_leaf(&own).map_err(|error| error.to_string())?)
    };
    let Some(leaf) = leaf else { return Ok(None) };
    let chain: Vec<CertificateDer<'static>> =
        CertificateDer::pem_slice_iter(leaf.chain.as_bytes()).filter_map(Result::ok).collect();
    let key = PrivateKeyDer::from_pem_slice(leaf.key.reveal().as_bytes());
    let key = key.map_err(|error| error.to_string())?;
    let told = |error: rustls::Error| error.to_string();
    let provider = crypto::deterministic().provider;
    let builder = ClientConfig::builder_with_provider(provider.clone())
        .with_protocol_versions(&[&rustls::version::TLS13])
        .map_err(told)?;
    let trusting = builder.dangerous().with_custom_certificate_verifier(Arc::new(Trusting(provider)));
    trusting.with_client_auth_cert(chain, key).map(|config| Some(Arc::new(config))).map_err(told)
}

/// Takes everybody for whom they say they are.
#[derive(Debug)]
struct Trusting(Arc<CryptoProvider>);

impl ServerCertVerifier for Trusting {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signature_verification_algorithms)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signature_verification_algorithms.supported_schemes()
    }
}
