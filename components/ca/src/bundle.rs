//! The trust bundle: what every meshed pod is told to trust.

use conduit_identity::UnixTime;
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::state::{Certificate, State};

/// Every root of `state`, oldest first, in PEM: the same octets for the same roots, so that nothing is written twice.
pub fn of(state: &State) -> String {
    state.roots.iter().map(|root| root.certificate.pem.as_str()).collect()
}

/// Whether the bundle `pem` holds `wanted`.
pub fn holds(pem: &str, wanted: &Certificate) -> bool {
    let fingerprint = wanted.fingerprint;
    let found = CertificateDer::pem_slice_iter(pem.as_bytes()).flatten();
    found.into_iter().any(|der| conduit_identity::Fingerprint::of(&der) == fingerprint)
}

/// The certificates of the bundle `pem` that are not past at `now`, in their order; what is none is left out.
pub fn certificates(pem: &str, now: UnixTime) -> Vec<Certificate> {
    const END: &str = "-----END CERTIFICATE-----\n";
    let one = |text: &str| Certificate::from_pem(text).ok();
    pem.split_inclusive(END).filter_map(one).filter(|certificate| certificate.not_after >= now).collect()
}
