//! What a server presents in a handshake, whatever it is worth: for showing it to people. Nothing is sent over such a
//! connection, so that nothing is lost when the certificate is a wrong one.

use std::sync::{Arc, Mutex, PoisonError};

use rustls::{
    ClientConfig, DigitallySignedStruct, SignatureScheme,
    client::{
        Resumption,
        danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    },
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    version::TLS13,
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime as RustlsTime};
use tokio::io::{AsyncRead, AsyncWrite};
use tokio_rustls::TlsConnector;
use x509_parser::{
    certificate::X509Certificate, extensions::GeneralName, public_key::PublicKey, x509::SubjectPublicKeyInfo,
};

use crate::{
    Crypto, Fingerprint, HandshakeError, Identity, TrustBundle, UnixTime,
    tls::ALPN,
    verify::{Judge, Role},
};

/// What a server presented.
#[derive(Debug, Clone)]
pub struct Presented {
    /// Its certificate, then those of its issuers, as they were sent.
    pub chain: Vec<Certificate>,
    /// What keeps the chain from being accepted under the roots and at the moment that were given; none when nothing does.
    /// Not judged without roots.
    pub distrust: Option<String>,
    /// The one identity that the certificate is for, whoever issued it; none when it has several names, or none.
    pub identity: Option<Identity>,
}

/// A certificate, as far as people ask about it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its DNS names.
    pub dns_names: Vec<String>,
    /// Its URIs, such as `spiffe://...`.
    pub uris: Vec<String>,
    /// Its serial number, in hexadecimal digits.
    pub serial: String,
    /// The first moment at which it is valid.
    pub not_before: UnixTime,
    /// The last one.
    pub not_after: UnixTime,
    /// The kind of its public key, such as `EC P-256`.
    pub key: String,
    /// Which certificate it is.
    pub fingerprint: Fingerprint,
}

/// Does a handshake with whoever is at the other end of `io` as if it were to be `server`, and tells what it presents. The
/// server has proved that it holds the key of the first certificate. The caller owns the deadline.
///
/// # Errors
/// The handshake came to nothing: the server holds nothing, or speaks no TLS.
pub async fn inspect<T>(
    io: T,
    server: &Identity,
    trust: Option<&TrustBundle>,
    now: UnixTime,
    crypto: &Crypto,
) -> Result<Presented, HandshakeError>
where
    T: AsyncRead + AsyncWrite + Unpin,
{
    let seen = Arc::new(Witness { signatures: crypto.signatures(), chain: Mutex::default() });
    let mut config = ClientConfig::builder_with_provider(crypto.provider.clone())
        .with_protocol_versions(&[&TLS13])
        .map_err(HandshakeError::from_rustls)?
        .dangerous()
        .with_custom_certificate_verifier(seen.clone())
        .with_no_client_auth();
    config.alpn_protocols = vec![ALPN.to_vec()];
    config.resumption = Resumption::disabled();
    let name = server.server_name().map_err(HandshakeError::from_name)?;
    let stream =
        TlsConnector::from(Arc::new(config)).connect(name, io).await.map_err(HandshakeError::from_io)?;
    drop(stream);
    let chain = std::mem::take(&mut *seen.chain.lock().unwrap_or_else(PoisonError::into_inner));
    Ok(presented(&chain, trust, now, crypto))
}

fn presented(
    chain: &[CertificateDer<'static>],
    trust: Option<&TrustBundle>,
    now: UnixTime,
    crypto: &Crypto,
) -> Presented {
    let described: Vec<Certificate> = chain.iter().filter_map(|der| Certificate::read(der)).collect();
    let identity = described.first().and_then(|leaf| match &leaf.dns_names[..] {
        [name] => Identity::parse(name).ok(),
        _ => None,
    });
    let distrust = trust.zip(chain.split_first()).and_then(|(trust, (leaf, issuers))| {
        let judge = Judge { trust: trust.clone(), signatures: crypto.signatures() };
        let judged = judge.verify(leaf, issuers, now.for_rustls(), Role::Server);
        judged.err().map(|error| match error {
            webpki::Error::UnknownIssuer => "it leads to none of the trusted roots".to_owned(),
            webpki::Error::CertExpired { .. } => "a certificate of the chain has expired".to_owned(),
            webpki::Error::CertNotValidYet { .. } => "a certificate of the chain is not valid yet".to_owned(),
            other => other.to_string(),
        })
    });
    Presented { chain: described, distrust, identity }
}

impl Certificate {
    /// Reads one; none when it is no certificate.
    pub fn read(der: &[u8]) -> Option<Self> {
        let (_, certificate) = x509_parser::parse_x509_certificate(der).ok()?;
        let (not_before, not_after) = crate::verify::validity(der).ok()?;
        let (dns_names, uris) = names(&certificate);
        Some(Self {
            subject: certificate.subject().to_string(),
            issuer: certificate.issuer().to_string(),
            dns_names,
            uris,
            serial: certificate.raw_serial().iter().map(|octet| format!("{octet:02x}")).collect(),
            not_before,
            not_after,
            key: key(certificate.public_key()),
            fingerprint: Fingerprint::of(der),
        })
    }
}

fn names(certificate: &X509Certificate<'_>) -> (Vec<String>, Vec<String>) {
    let (mut dns, mut uris) = (Vec::new(), Vec::new());
    let names = certificate.subject_alternative_name().ok().flatten();
    for name in names.iter().flat_map(|names| &names.value.general_names) {
        match name {
            GeneralName::DNSName(name) => dns.push((*name).to_owned()),
            GeneralName::URI(uri) => uris.push((*uri).to_owned()),
            _ => {}
        }
    }
    (dns, uris)
}

fn key(info: &SubjectPublicKeyInfo<'_>) -> String {
    /// RFC 8410 section 3.
    const ED25519: &str = "1.3.101.112";
    match info.parsed() {
        Ok(PublicKey::EC(point)) => format!("EC P-{}", point.key_size()),
        Ok(PublicKey::RSA(key)) => format!("RSA {}", key.key_size()),
        _ if info.algorithm.algorithm.to_id_string() == ED25519 => "Ed25519".to_owned(),
        _ => info.algorithm.algorithm.to_id_string(),
    }
}

/// Remembers the certificates, and asks only that their holder has the key.
#[derive(Debug)]
struct Witness {
    signatures: WebPkiSupportedAlgorithms,
    chain: Mutex<Vec<CertificateDer<'static>>>,
}

impl ServerCertVerifier for Witness {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        _server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        _now: RustlsTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let chain = std::iter::once(end_entity).chain(intermediates).map(|der| der.clone().into_owned());
        *self.chain.lock().unwrap_or_else(PoisonError::into_inner) = chain.collect();
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.signatures)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.signatures)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.signatures.supported_schemes()
    }
}
