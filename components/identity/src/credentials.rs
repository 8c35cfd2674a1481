//! What this process presents: a certificate chain and its key, checked as a whole before it is used.

use std::{fmt, sync::Arc};

use rustls::{InconsistentKeys, sign::CertifiedKey};
use rustls_pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject};
use sha2::{Digest, Sha256};
use zeroize::Zeroize;

use crate::{
    Crypto, Identity, TrustBundle, UnixTime, Unusable,
    trust::NoAnchors,
    verify::{Judge, Role, validity},
};

/// The three files a pod finds mounted, as they are.
#[derive(Clone, PartialEq, Eq)]
pub struct Pem {
    /// The certificate, then its issuers up to but without the root.
    pub chain: Vec<u8>,
    /// The private key: PKCS#8, or what else rustls reads. Overwritten when dropped.
    pub key: Vec<u8>,
    /// The trust bundle.
    pub anchors: Vec<u8>,
}

impl Drop for Pem {
    fn drop(&mut self) {
        self.key.zeroize();
    }
}

impl fmt::Debug for Pem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { chain, key: _, anchors } = self;
        f.debug_struct("Pem")
            .field("chain", &chain.len())
            .field("anchors", &anchors.len())
            .finish_non_exhaustive()
    }
}

/// A chain and a key that belong together, lead to a trusted root and prove our own name. Cheap to clone.
#[derive(Clone)]
pub struct Credentials {
    identity: Identity,
    pub(crate) key: Arc<CertifiedKey>,
    pub(crate) trust: TrustBundle,
    not_before: UnixTime,
    not_after: UnixTime,
    fingerprint: Fingerprint,
}

impl Credentials {
    /// Checks `pem` from end to end: anyone who trusts the same roots would accept these credentials as `identity`, as a
    /// server and as a client, at `now`.
    ///
    /// # Errors
    /// What is wrong; keep what works, go on in plaintext otherwise, and try again when the files change. A time error
    /// is told only of credentials that are otherwise right.
    pub fn load(pem: &Pem, identity: &Identity, now: UnixTime, crypto: &Crypto) -> Result<Self, LoadError> {
        let loaded = Self::load_at_any_time(pem, identity, crypto)?;
        if now > loaded.not_after {
            return Err(LoadError::Expired { not_after: loaded.not_after });
        }
        if now < loaded.not_before {
            return Err(LoadError::NotYetValid { not_before: loaded.not_before });
        }
        Ok(loaded)
    }

    /// As [`Credentials::load`], at whatever moment the whole chain is valid: for whoever judges time by
    /// [`Credentials::not_before`] and [`Credentials::not_after`].
    ///
    /// # Errors
    /// As [`Credentials::load`]; a time error means that there is no such moment.
    pub fn load_at_any_time(pem: &Pem, identity: &Identity, crypto: &Crypto) -> Result<Self, LoadError> {
        let trust = TrustBundle::from_pem(&pem.anchors)?;
        let chain = CertificateDer::pem_slice_iter(&pem.chain)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|source| LoadError::Certificate(source.to_string()))?;
        let (leaf, issuers) =
            chain.split_first().ok_or_else(|| LoadError::Certificate("it holds none".to_owned()))?;
        let key =
            PrivateKeyDer::from_pem_slice(&pem.key).map_err(|source| LoadError::Key(source.to_string()))?;

        let judge = Judge { trust, signatures: crypto.signatures() };
        // Trust is judged at a moment the certificates cover, so that a wrong root is not taken for a wrong clock.
        let covered = latest_beginning(&chain).map_err(LoadError::Untrusted)?.for_rustls();
        let judged = |role| judge.verify(leaf, issuers, covered, role).map_err(LoadError::from_webpki);
        let verified = judged(Role::Server)?;
        judged(Role::Client)?;
        if verified.identity().as_ref() != Some(identity) {
            return Err(LoadError::WrongName { expected: identity.clone(), found: verified.names });
        }
        let fingerprint = Fingerprint::of(leaf);
        let key = CertifiedKey::from_der(chain, key, &crypto.provider).map_err(LoadError::from_key)?;
        Ok(Self {
            identity: identity.clone(),
            key: Arc::new(key),
            trust: judge.trust,
            not_before: verified.not_before,
            not_after: verified.not_after,
            fingerprint,
        })
    }

    /// Whom they prove us to be.
    pub fn identity(&self) -> &Identity {
        &self.identity
    }

    /// The roots they were loaded with.
    pub fn trust(&self) -> &TrustBundle {
        &self.trust
    }

    /// The first moment at which the whole chain is valid.
    pub fn not_before(&self) -> UnixTime {
        self.not_before
    }

    /// The last moment at which the whole chain is valid.
    pub fn not_after(&self) -> UnixTime {
        self.not_after
    }

    /// Which certificate this is.
    pub fn fingerprint(&self) -> Fingerprint {
        self.fingerprint
    }
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Credentials")
            .field("identity", &self.identity)
            .field("not_before", &self.not_before)
            .field("not_after", &self.not_after)
            .field("fingerprint", &self.fingerprint)
            .finish_non_exhaustive()
    }
}

/// The moment from which on every certificate of `chain` is valid, if ever all are.
fn latest_beginning(chain: &[CertificateDer<'_>]) -> Result<UnixTime, webpki::Error> {
    chain.iter().try_fold(UnixTime::default(), |latest, der| Ok(latest.max(validity(der)?.0)))
}

/// The SHA-256 of a certificate; shown as hexadecimal digits.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Fingerprint([u8; 32]);

impl Fingerprint {
    /// The fingerprint of the certificate `der`.
    pub fn of(der: &[u8]) -> Self {
        Self(Sha256::digest(der).into())
    }

    /// The octets of the digest.
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }
}

impl fmt::Display for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|octet| write!(f, "{octet:02x}"))
    }
}

impl fmt::Debug for Fingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{self}")
    }
}

/// Why credentials were not loaded.
#[derive(Debug, Clone, thiserror::Error)]
pub enum LoadError {
    /// This process was told not to use TLS.
    #[error("tls is disabled here")]
    Disabled,
    /// No root can be read.
    #[error(transparent)]
    Anchors(#[from] NoAnchors),
    /// The certificate file cannot be read.
    #[error("the certificate file cannot be used: {0}")]
    Certificate(String),
    /// The key file cannot be read.
    #[error("the private key file cannot be used: {0}")]
    Key(String),
    /// The key is another certificate's.
    #[error("the private key does not belong to the certificate")]
    KeyMismatch,
    /// The certificate is somebody else's, or has several names.
    #[error("the certificate is for {found:?}, this is {expected}")]
    WrongName {
        /// Who we are.
        expected: Identity,
        /// Whom it is for.
        found: Vec<String>,
    },
    /// It does not lead to one of the roots, or is no certificate for TLS servers and clients.
    #[error("the certificate is not acceptable with this trust bundle: {0}")]
    Untrusted(webpki::Error),
    /// It is right, but past.
    #[error("the certificate expired at {not_after} (seconds since 1970)")]
    Expired {
        /// When it ended.
        not_after: UnixTime,
    },
    /// It is right, but begins later: a clock is wrong, ours or the authority's.
    #[error(
        "the certificate is valid from {not_before} on (seconds since 1970): is this machine's clock right?"
    )]
    NotYetValid {
        /// When it begins.
        not_before: UnixTime,
    },
    /// The crypto provider cannot do TLS 1.3.
    #[error("the crypto provider cannot be used: {0}")]
    Crypto(rustls::Error),
}

impl LoadError {
    /// What a process is that holds nothing better.
    pub fn unusable(&self) -> Unusable {
        match self {
            Self::Disabled => Unusable::Disabled,
            Self::Expired { .. } => Unusable::Expired,
            Self::NotYetValid { .. } => Unusable::ClockSkew,
            Self::Anchors(_)
            | Self::Certificate(_)
            | Self::Key(_)
            | Self::KeyMismatch
            | Self::WrongName { .. }
            | Self::Untrusted(_)
            | Self::Crypto(_) => Unusable::BadCredentials,
        }
    }

    /// The class under which reloads are counted.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Disabled => "disabled",
            Self::Anchors(_) => "invalid_trust_anchors",
            Self::Key(_) | Self::KeyMismatch => "invalid_private_key",
            Self::Certificate(_)
            | Self::WrongName { .. }
            | Self::Untrusted(_)
            | Self::Expired { .. }
            | Self::NotYetValid { .. } => "invalid_end_entity_cert",
            Self::Crypto(_) => "invalid_crypto",
        }
    }

    fn from_webpki(error: webpki::Error) -> Self {
        let at = |time: rustls_pki_types::UnixTime| UnixTime::from_secs(time.as_secs());
        match error {
            // There is no moment at which all are valid.
            webpki::Error::CertExpired { not_after, .. } => Self::Expired { not_after: at(not_after) },
            webpki::Error::CertNotValidYet { not_before, .. } => {
                Self::NotYetValid { not_before: at(not_before) }
            }
            other => Self::Untrusted(other),
        }
    }

    fn from_key(error: rustls::Error) -> Self {
        match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => Self::KeyMismatch,
            other => Self::Key(other.to_string()),
        }
    }
}
