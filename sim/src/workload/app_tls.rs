//! The applications' own certificate.

use std::sync::Arc;

use conduit_runtime::Seed;
use rand::Rng;
use rcgen::{CertificateParams, KeyPair, PKCS_ED25519, SerialNumber};
use rustls::{ClientConfig, RootCertStore, ServerConfig};
use rustls_pki_types::{PrivateKeyDer, PrivatePkcs8KeyDer, ServerName};

use super::{AppError, AppTls};
use crate::crypto;

/// What the applications' server is called: no name of the mesh.
const NAME: &str = "database.example";
/// An Ed25519 key in PKCS#8 is this and the 32 octets of the key (RFC 8410, section 7).
const PKCS8: [u8; 16] = [0x30, 0x2e, 2, 1, 0, 0x30, 5, 6, 3, 0x2b, 0x65, 0x70, 4, 0x22, 4, 0x20];

impl AppTls {
    /// A key and a certificate that follow from `seed`, which are valid for as long as rcgen's are: for ever.
    ///
    /// # Errors
    /// The certificate cannot be made.
    pub fn of_seed(seed: &Seed) -> Result<Self, AppError> {
        let mut key = [0; 32];
        seed.fork("application's TLS").rng().fill_bytes(&mut key);
        let pkcs8 = PrivatePkcs8KeyDer::from([&PKCS8[..], &key].concat());
        let pair = KeyPair::from_pkcs8_der_and_sign_algo(&pkcs8, &PKCS_ED25519)?;
        let mut params = CertificateParams::new([NAME.to_owned()])?;
        params.serial_number = Some(SerialNumber::from(1));
        let certificate = params.self_signed(&pair)?.der().clone();
        let mut roots = RootCertStore::empty();
        roots.add(certificate.clone())?;
        let provider = crypto::deterministic().provider;
        let client = ClientConfig::builder_with_provider(provider.clone())
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_root_certificates(roots)
            .with_no_client_auth();
        let mut server = ServerConfig::builder_with_provider(provider)
            .with_protocol_versions(&[&rustls::version::TLS13])?
            .with_no_client_auth()
            .with_single_cert(vec![certificate], PrivateKeyDer::from(pkcs8))?;
        // A ticket would be one more thing to draw.
        server.send_tls13_tickets = 0;
        Ok(Self { client: Arc::new(client), server: Arc::new(server), name: ServerName::try_from(NAME)? })
    }
}
