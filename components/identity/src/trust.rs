//! Whom this process trusts: the roots of its control plane, out of the mounted ConfigMap.

use std::{fmt, sync::Arc};

use rustls_pki_types::{CertificateDer, TrustAnchor, pem::PemObject};

/// The roots a certificate may lead to. Cheap to clone.
#[derive(Clone)]
pub struct TrustBundle {
    anchors: Arc<[TrustAnchor<'static>]>,
    skipped: usize,
}

impl TrustBundle {
    /// Reads every certificate of a PEM file. Those that cannot be trust anchors are skipped and counted: one that a
    /// newer control plane writes in a way we do not understand must not take the others away.
    ///
    /// # Errors
    /// Not one certificate is usable.
    pub fn from_pem(pem: &[u8]) -> Result<Self, NoAnchors> {
        let mut anchors = Vec::new();
        let mut skipped = 0;
        for der in CertificateDer::pem_slice_iter(pem) {
            match der
                .ok()
                .as_ref()
                .and_then(|der| Some(webpki::anchor_from_trusted_cert(der).ok()?.to_owned()))
            {
                Some(anchor) => anchors.push(anchor),
                None => skipped += 1,
            }
        }
        if anchors.is_empty() {
            Err(NoAnchors { skipped })
        } else {
            Ok(Self { anchors: anchors.into(), skipped })
        }
    }

    /// How many roots it holds; at least one.
    #[allow(clippy::len_without_is_empty, reason = "it never is")]
    pub fn len(&self) -> usize {
        self.anchors.len()
    }

    /// How many certificates of the file were not understood.
    pub fn skipped(&self) -> usize {
        self.skipped
    }

    pub(crate) fn anchors(&self) -> &[TrustAnchor<'static>] {
        &self.anchors
    }
}

impl fmt::Debug for TrustBundle {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("TrustBundle").field("len", &self.len()).field("skipped", &self.skipped).finish()
    }
}

/// A trust bundle holds no usable certificate.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("the trust bundle holds no usable certificate ({skipped} were not understood)")]
pub struct NoAnchors {
    /// How many there were that are no certificate, or none that can be trusted.
    pub skipped: usize,
}
