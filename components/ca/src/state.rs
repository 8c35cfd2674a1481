//! What the authority remembers: its roots and its issuer, kept in one Secret of the control-plane namespace so that a
//! restart changes nothing.
//!
//! A root's life: made, *published* once every bundle was seen to hold it, used (the newest published one issues the
//! issuer), *retired* when a newer one is used (it stays in the bundles until the last leaf under it has expired),
//! forgotten with its key.

use std::fmt;

use conduit_identity::{Fingerprint, UnixTime};
use rustls_pki_types::{CertificateDer, pem::PemObject};
use serde::{Deserialize, Serialize};
use zeroize::Zeroize;

/// The version of the format this code writes; it reads no other.
const VERSION: u32 = 1;

/// Roots, oldest first, and what issues leaves.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct State {
    /// Every root that somebody may still have to trust.
    pub roots: Vec<Root>,
    /// What leaves are issued from; none until a root may be used.
    pub issuer: Option<Issuer>,
}

/// A root certificate.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Root {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key; none for a root found in a bundle whose key was lost.
    pub key: Option<Key>,
    /// When every bundle was first seen to hold it.
    pub published: Option<UnixTime>,
    /// For a retired root: when the last leaf under it has expired.
    pub keep_until: Option<UnixTime>,
}

/// The certificate that signs leaves.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Issuer {
    /// The certificate.
    pub certificate: Certificate,
    /// Its key.
    pub key: Key,
    /// The root it is under.
    pub root: Fingerprint,
}

/// A certificate in PEM, and what is asked of it often.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Certificate {
    /// The certificate.
    pub pem: String,
    /// Its first moment.
    pub not_before: UnixTime,
    /// Its last moment.
    pub not_after: UnixTime,
    /// Which it is.
    pub fingerprint: Fingerprint,
}

/// A private key in PEM (PKCS#8). Never shown, and overwritten when dropped.
#[derive(Clone, PartialEq, Eq)]
pub struct Key(String);

impl State {
    /// The root that is, or will be, used: the newest one with a key that has begun at `now`. One that begins later was
    /// made by a clock that was ahead; its predecessor goes on serving.
    pub fn newest(&self, now: UnixTime) -> Option<&Root> {
        self.roots.iter().rev().find(|root| root.key.is_some() && root.certificate.not_before <= now)
    }

    /// The root of this fingerprint.
    pub fn root(&self, fingerprint: Fingerprint) -> Option<&Root> {
        self.roots.iter().find(|root| root.certificate.fingerprint == fingerprint)
    }

    /// As it is stored.
    pub fn to_json(&self) -> Vec<u8> {
        let stored = Stored {
            version: VERSION,
            roots: self.roots.iter().map(StoredRoot::of).collect(),
            issuer: self.issuer.as_ref().map(StoredIssuer::of),
        };
        // Maps of text and numbers always have a JSON form.
        serde_json::to_vec_pretty(&stored).unwrap_or_default()
    }

    /// Reads what [`State::to_json`] wrote.
    ///
    /// # Errors
    /// It is not that. The authority then issues nothing until an operator restores or deletes the Secret: making new
    /// roots would take trust from every running pod.
    pub fn from_json(json: &[u8]) -> Result<Self, Unreadable> {
        let stored: Stored = serde_json::from_slice(json).map_err(|error| Unreadable(error.to_string()))?;
        if stored.version != VERSION {
            return Err(Unreadable(format!(
                "it has version {}, this authority reads {VERSION}",
                stored.version
            )));
        }
        let roots = stored.roots.into_iter().map(StoredRoot::read).collect::<Result<Vec<_>, _>>()?;
        let issuer = stored.issuer.map(|issuer| issuer.read(&roots)).transpose()?;
        Ok(Self { roots, issuer })
    }
}

impl Certificate {
    /// Reads the first certificate of `pem`.
    ///
    /// # Errors
    /// There is none.
    pub fn from_pem(pem: &str) -> Result<Self, Unreadable> {
        let der =
            CertificateDer::from_pem_slice(pem.as_bytes()).map_err(|error| Unreadable(error.to_string()))?;
        let (_, parsed) =
            x509_parser::parse_x509_certificate(&der).map_err(|error| Unreadable(error.to_string()))?;
        let at = |seconds: i64| UnixTime::from_secs(u64::try_from(seconds).unwrap_or_default());
        Ok(Self {
            pem: pem.to_owned(),
            not_before: at(parsed.validity().not_before.timestamp()),
            not_after: at(parsed.validity().not_after.timestamp()),
            fingerprint: Fingerprint::of(&der),
        })
    }
}

impl Key {
    /// A key in PEM.
    pub fn from_pem(pem: String) -> Self {
        Self(pem)
    }

    /// The PEM. Do not let it out of the Secret it is for.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl Drop for Key {
    fn drop(&mut self) {
        self.0.zeroize();
    }
}

impl fmt::Debug for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Key")
    }
}

/// The stored state cannot be understood.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the authority's Secret cannot be read: {0}")]
pub struct Unreadable(pub String);

#[derive(Serialize, Deserialize)]
struct Stored {
    version: u32,
    roots: Vec<StoredRoot>,
    issuer: Option<StoredIssuer>,
}

#[derive(Serialize, Deserialize)]
struct StoredRoot {
    certificate: String,
    key: Option<String>,
    published: Option<u64>,
    keep_until: Option<u64>,
}

#[derive(Serialize, Deserialize)]
struct StoredIssuer {
    certificate: String,
    key: String,
    root: String,
}

impl StoredRoot {
    fn of(root: &Root) -> Self {
        Self {
            certificate: root.certificate.pem.clone(),
            key: root.key.as_ref().map(|key| key.reveal().to_owned()),
            published: root.published.map(UnixTime::as_secs),
            keep_until: root.keep_until.map(UnixTime::as_secs),
        }
    }

    fn read(self) -> Result<Root, Unreadable> {
        Ok(Root {
            certificate: Certificate::from_pem(&self.certificate)?,
            key: self.key.map(Key),
            published: self.published.map(UnixTime::from_secs),
            keep_until: self.keep_until.map(UnixTime::from_secs),
        })
    }
}

impl StoredIssuer {
    fn of(issuer: &Issuer) -> Self {
        Self {
            certificate: issuer.certificate.pem.clone(),
            key: issuer.key.reveal().to_owned(),
            root: issuer.root.to_string(),
        }
    }

    fn read(self, roots: &[Root]) -> Result<Issuer, Unreadable> {
        let of = |root: &Root| root.certificate.fingerprint;
        let root = roots.iter().map(of).find(|fingerprint| fingerprint.to_string() == self.root);
        Ok(Issuer {
            certificate: Certificate::from_pem(&self.certificate)?,
            key: Key(self.key),
            root: root.ok_or_else(|| Unreadable("its issuer is under a root it does not hold".to_owned()))?,
        })
    }
}
