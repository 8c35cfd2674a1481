//! Judging certificates: our own when they are loaded, a server's during the handshake, a client's after it.
//!
//! A client's certificate never fails a handshake. In TLS 1.3 a client has finished, and may have sent application bytes,
//! before the server judges it: refusing then would turn an encrypted request into a failed one. So [`AnyClient`] checks
//! only that the client holds the key of the certificate it sent, and [`judge_client`] tells afterwards whether that
//! certificate proves an identity.

use std::{fmt, sync::Arc};

use rustls::{
    CertificateError, DigitallySignedStruct, DistinguishedName, OtherError, SignatureScheme,
    client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier},
    crypto::{WebPkiSupportedAlgorithms, verify_tls12_signature, verify_tls13_signature},
    server::danger::{ClientCertVerified, ClientCertVerifier},
};
use rustls_pki_types::{CertificateDer, ServerName, UnixTime as RustlsTime};
use webpki::{EndEntityCert, KeyUsage};

use crate::{Identity, TrustBundle, UnixTime};

/// What a certificate that leads to a trusted root says.
#[derive(Debug)]
pub(crate) struct Verified {
    /// The DNS names of the end-entity certificate.
    pub(crate) names: Vec<String>,
    /// When the youngest certificate of the path began.
    pub(crate) not_before: UnixTime,
    /// When the first certificate of the path ends.
    pub(crate) not_after: UnixTime,
}

impl Verified {
    /// The one identity it proves. A certificate of ours has exactly one name; several would let its holder choose.
    pub(crate) fn identity(&self) -> Option<Identity> {
        match self.names.as_slice() {
            [name] => Identity::parse(name).ok(),
            _ => None,
        }
    }
}

/// What an end-entity certificate is used as.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Role {
    Server,
    Client,
}

/// Roots, and the signatures we understand.
#[derive(Clone)]
pub(crate) struct Judge {
    pub(crate) trust: TrustBundle,
    pub(crate) signatures: WebPkiSupportedAlgorithms,
}

impl fmt::Debug for Judge {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Judge").field("trust", &self.trust).finish_non_exhaustive()
    }
}

impl Judge {
    /// Whether `leaf` leads to a trusted root at `now`; its name is the caller's to look at.
    pub(crate) fn verify(
        &self,
        leaf: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        now: RustlsTime,
        role: Role,
    ) -> Result<Verified, webpki::Error> {
        let end_entity = EndEntityCert::try_from(leaf)?;
        let usage = match role {
            Role::Server => KeyUsage::server_auth(),
            Role::Client => KeyUsage::client_auth(),
        };
        let (algorithms, anchors) = (self.signatures.all, self.trust.anchors());
        let path = end_entity.verify_for_usage(algorithms, anchors, intermediates, now, usage, None, None)?;
        let (mut not_before, mut not_after) = validity(leaf)?;
        for issuer in path.intermediate_certificates() {
            let (begins, ends) = validity(&issuer.der())?;
            not_before = not_before.max(begins);
            not_after = not_after.min(ends);
        }
        let names = end_entity.valid_dns_names().map(str::to_owned).collect();
        Ok(Verified { names, not_before, not_after })
    }
}

/// The first and the last moment of a certificate.
pub(crate) fn validity(der: &[u8]) -> Result<(UnixTime, UnixTime), webpki::Error> {
    let (_, certificate) = x509_parser::parse_x509_certificate(der).map_err(|_| webpki::Error::BadDer)?;
    let seconds = |time: x509_parser::time::ASN1Time| {
        // A date before 1970 is as good as the epoch.
        UnixTime::from_secs(u64::try_from(time.timestamp()).unwrap_or_default())
    };
    Ok((seconds(certificate.validity().not_before), seconds(certificate.validity().not_after)))
}

/// Who a client turned out to be.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ClientPeer {
    /// Its certificate verified when the handshake ended.
    Verified {
        /// The one name it proves.
        identity: Identity,
        /// When it stops proving it.
        not_after: UnixTime,
    },
    /// It sent no certificate, or one that does not verify. The connection is encrypted all the same.
    Unauthenticated,
}

/// The verdict on what a client presented.
pub(crate) fn judge_client(judge: &Judge, chain: Option<&[CertificateDer<'_>]>, now: UnixTime) -> ClientPeer {
    let verified = chain
        .and_then(|chain| chain.split_first())
        .and_then(|(leaf, rest)| judge.verify(leaf, rest, now.for_rustls(), Role::Client).ok());
    match verified.and_then(|verified| Some((verified.identity()?, verified.not_after))) {
        Some((identity, not_after)) => ClientPeer::Verified { identity, not_after },
        None => ClientPeer::Unauthenticated,
    }
}

/// Demands that a server's certificate leads to a trusted root and has the asked-for name, and no other.
#[derive(Debug)]
pub(crate) struct ExactServer(pub(crate) Judge);

impl ServerCertVerifier for ExactServer {
    fn verify_server_cert(
        &self,
        end_entity: &CertificateDer<'_>,
        intermediates: &[CertificateDer<'_>],
        server_name: &ServerName<'_>,
        _ocsp_response: &[u8],
        now: RustlsTime,
    ) -> Result<ServerCertVerified, rustls::Error> {
        let verified = self.0.verify(end_entity, intermediates, now, Role::Server).map_err(for_rustls)?;
        match verified.identity() {
            // Identities are compared whole: a wildcard is not one.
            Some(identity) if identity.as_str() == server_name.to_str() => {
                Ok(ServerCertVerified::assertion())
            }
            _ => Err(CertificateError::NotValidForNameContext {
                expected: server_name.to_owned(),
                presented: verified.names,
            }
            .into()),
        }
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0.signatures)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0.signatures)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.signatures.supported_schemes()
    }
}

/// Asks clients for a certificate and lets every one pass whose key the client holds.
#[derive(Debug)]
pub(crate) struct AnyClient(pub(crate) WebPkiSupportedAlgorithms);

impl ClientCertVerifier for AnyClient {
    fn client_auth_mandatory(&self) -> bool {
        false
    }

    fn root_hint_subjects(&self) -> &[DistinguishedName] {
        // Hints would make clients of another root hold their certificate back; and during a rotation, some of ours.
        &[]
    }

    fn verify_client_cert(
        &self,
        _end_entity: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _now: RustlsTime,
    ) -> Result<ClientCertVerified, rustls::Error> {
        Ok(ClientCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls12_signature(message, certificate, signature, &self.0)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, rustls::Error> {
        verify_tls13_signature(message, certificate, signature, &self.0)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.supported_schemes()
    }
}

/// As rustls would map them, so that a server's alert and our reason for failing tell the cause.
fn for_rustls(error: webpki::Error) -> rustls::Error {
    use webpki::Error as E;
    let cause = match error {
        E::BadDer | E::BadDerTime | E::TrailingData(_) => CertificateError::BadEncoding,
        E::CertExpired { time, not_after } => CertificateError::ExpiredContext { time, not_after },
        E::CertNotValidYet { time, not_before } => CertificateError::NotValidYetContext { time, not_before },
        E::UnknownIssuer => CertificateError::UnknownIssuer,
        E::InvalidSignatureForPublicKey => CertificateError::BadSignature,
        E::RequiredEkuNotFoundContext(_) => CertificateError::InvalidPurpose,
        other => CertificateError::Other(OtherError(Arc::new(other))),
    };
    cause.into()
}
