//! Which cryptography is used, as a value: the simulation passes a deterministic provider of the same shape.

use std::{fmt, sync::Arc};

use rustls::{
    SupportedCipherSuite,
    crypto::{CryptoProvider, WebPkiSupportedAlgorithms, aws_lc_rs},
};

/// The cryptography of this process.
#[derive(Clone)]
#[non_exhaustive]
pub struct Crypto {
    /// What TLS runs on. Its suites must include one of TLS 1.3.
    pub provider: Arc<CryptoProvider>,
    /// The kind of key that certificates are issued for.
    pub keys: KeyAlgorithm,
}

/// A kind of private key.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum KeyAlgorithm {
    /// What is shipped: understood by every TLS stack. Its signatures are randomised.
    EcdsaP256,
    /// What the simulation uses: keys can be made from a seed, and signing the same message twice gives the same octets.
    Ed25519,
}

impl Crypto {
    /// What production runs on: aws-lc, the suites of TLS 1.3, and key exchange by X25519MLKEM768, then X25519, then
    /// P-256, named here because the library's own list may change under us.
    pub fn shipped() -> Self {
        let is_tls13 = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
        let provider = CryptoProvider {
            cipher_suites: aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().filter(is_tls13).collect(),
            kx_groups: vec![
                aws_lc_rs::kx_group::X25519MLKEM768,
                aws_lc_rs::kx_group::X25519,
                aws_lc_rs::kx_group::SECP256R1,
            ],
            ..aws_lc_rs::default_provider()
        };
        Self::custom(Arc::new(provider), KeyAlgorithm::EcdsaP256)
    }

    /// Other cryptography: for the simulation.
    pub fn custom(provider: Arc<CryptoProvider>, keys: KeyAlgorithm) -> Self {
        Self { provider, keys }
    }

    pub(crate) fn signatures(&self) -> WebPkiSupportedAlgorithms {
        self.provider.signature_verification_algorithms
    }
}

impl fmt::Debug for Crypto {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let groups: Vec<_> = self.provider.kx_groups.iter().map(|group| group.name()).collect();
        f.debug_struct("Crypto").field("kx_groups", &groups).field("keys", &self.keys).finish_non_exhaustive()
    }
}
