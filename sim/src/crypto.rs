//! Cryptography of the shipped shape whose every byte follows from a seed, so that two runs of one seed put the same
//! bytes on the wire.
//!
//! Randomness is drawn from a generator of the calling thread: each world runs on a thread of its own. The key exchange
//! is X25519, padded to the size of X25519MLKEM768, because what a ClientHello of two segments does to whoever reads it is
//! part of what is simulated. Keys are Ed25519, whose signatures repeat. Suites and verification are the shipped ones.

use std::{cell::RefCell, sync::Arc};

use conduit_identity::{Crypto, KeyAlgorithm};
use rand::{Rng, SeedableRng, rngs::StdRng};
use rustls::{
    Error, NamedGroup, PeerMisbehaved, ProtocolVersion, SupportedCipherSuite,
    crypto::{
        ActiveKeyExchange, CompletedKeyExchange, CryptoProvider, GetRandomFailed, KeyProvider, SecureRandom,
        SharedSecret, SupportedKxGroup, aws_lc_rs,
    },
    ffdhe_groups::FfdheGroup,
    sign::SigningKey,
};
use rustls_pki_types::PrivateKeyDer;
use x25519_dalek::{PublicKey, StaticSecret};

/// Octets of an X25519 key (RFC 7748 section 5).
const X25519_LEN: usize = 32;
/// Octets of an ML-KEM-768 encapsulation key, which precedes the client's X25519 key (FIPS 203 table 3).
const ENCAPSULATION_KEY_LEN: usize = 1184;
/// Octets of an ML-KEM-768 ciphertext, which precedes the server's X25519 key (FIPS 203 table 3).
const CIPHERTEXT_LEN: usize = 1088;

thread_local! {
    static RANDOM: RefCell<StdRng> = RefCell::new(StdRng::seed_from_u64(0));
}

/// Starts this thread's randomness anew. A thread that never calls this draws as if it had, with 0.
pub fn seed_thread(seed: u64) {
    RANDOM.with_borrow_mut(|random| *random = StdRng::seed_from_u64(seed));
}

/// Cryptography for a simulated process; its certificates' keys must be Ed25519.
pub fn deterministic() -> Crypto {
    let is_tls13 = |suite: &SupportedCipherSuite| matches!(suite, SupportedCipherSuite::Tls13(_));
    let provider = CryptoProvider {
        cipher_suites: aws_lc_rs::ALL_CIPHER_SUITES.iter().copied().filter(is_tls13).collect(),
        // As shipped, less P-256: nobody ever agrees on it, and its keys could not be drawn from the seed.
        kx_groups: vec![&Padded, &Plain],
        secure_random: &ThreadRandom,
        key_provider: &Ed25519Only,
        ..aws_lc_rs::default_provider()
    };
    Crypto::custom(Arc::new(provider), KeyAlgorithm::Ed25519)
}

fn fill(bytes: &mut [u8]) {
    RANDOM.with_borrow_mut(|random| random.fill_bytes(bytes));
}

#[derive(Debug)]
struct ThreadRandom;

impl SecureRandom for ThreadRandom {
    fn fill(&self, bytes: &mut [u8]) -> Result<(), GetRandomFailed> {
        fill(bytes);
        Ok(())
    }
}

/// Refuses what would sign differently each time: an ECDSA key would make runs differ without anybody noticing why.
#[derive(Debug)]
struct Ed25519Only;

impl KeyProvider for Ed25519Only {
    fn load_private_key(&self, key: PrivateKeyDer<'static>) -> Result<Arc<dyn SigningKey>, Error> {
        match &key {
            PrivateKeyDer::Pkcs8(pkcs8) => aws_lc_rs::sign::any_eddsa_type(pkcs8),
            _ => Err(Error::General("the simulation's keys are Ed25519 in PKCS#8".to_owned())),
        }
    }
}

/// Called X25519MLKEM768, and as large, but zeros stand for the post-quantum part.
#[derive(Debug)]
struct Padded;

/// X25519 itself. rustls offers its share beside the hybrid's own, as it does for what is shipped.
#[derive(Debug)]
struct Plain;

impl SupportedKxGroup for Padded {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        let secret = Secret::draw();
        let share = padded(ENCAPSULATION_KEY_LEN, &secret.public);
        Ok(Box::new(ActivePadded { secret, share }))
    }

    fn start_and_complete(&self, client_share: &[u8]) -> Result<CompletedKeyExchange, Error> {
        let secret = Secret::draw();
        let pub_key = padded(CIPHERTEXT_LEN, &secret.public);
        let secret = secret.agree(unpadded(ENCAPSULATION_KEY_LEN, client_share)?)?;
        Ok(CompletedKeyExchange { group: self.name(), pub_key, secret })
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }

    fn usable_for_version(&self, version: ProtocolVersion) -> bool {
        version == ProtocolVersion::TLSv1_3
    }
}

impl SupportedKxGroup for Plain {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(ActivePlain(Secret::draw())))
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct ActivePadded {
    secret: Secret,
    share: Vec<u8>,
}

impl ActiveKeyExchange for ActivePadded {
    fn complete(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, Error> {
        self.secret.agree(unpadded(CIPHERTEXT_LEN, server_share)?)
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((NamedGroup::X25519, &self.secret.public))
    }

    fn complete_hybrid_component(self: Box<Self>, server_share: &[u8]) -> Result<SharedSecret, Error> {
        self.secret.agree(server_share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.share
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

struct ActivePlain(Secret);

impl ActiveKeyExchange for ActivePlain {
    fn complete(self: Box<Self>, peer_share: &[u8]) -> Result<SharedSecret, Error> {
        self.0.agree(peer_share)
    }

    fn pub_key(&self) -> &[u8] {
        &self.0.public
    }

    fn ffdhe_group(&self) -> Option<FfdheGroup<'static>> {
        None
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519
    }
}

struct Secret {
    private: StaticSecret,
    public: [u8; X25519_LEN],
}

impl Secret {
    fn draw() -> Self {
        let mut bytes = [0; X25519_LEN];
        fill(&mut bytes);
        let private = StaticSecret::from(bytes);
        let public = PublicKey::from(&private).to_bytes();
        Self { private, public }
    }

    fn agree(&self, peer: &[u8]) -> Result<SharedSecret, Error> {
        let peer: [u8; X25519_LEN] = peer.try_into().map_err(|_| INVALID_SHARE)?;
        let shared = self.private.diffie_hellman(&PublicKey::from(peer));
        // RFC 8446 section 7.4.2: an all-zero result must end the handshake.
        if shared.was_contributory() { Ok(shared.as_bytes()[..].into()) } else { Err(INVALID_SHARE) }
    }
}

const INVALID_SHARE: Error = Error::PeerMisbehaved(PeerMisbehaved::InvalidKeyShare);

fn padded(padding: usize, public: &[u8; X25519_LEN]) -> Vec<u8> {
    let mut share = vec![0; padding];
    share.extend_from_slice(public);
    share
}

fn unpadded(padding: usize, share: &[u8]) -> Result<&[u8], Error> {
    share.get(padding..).filter(|key| key.len() == X25519_LEN).ok_or(INVALID_SHARE)
}

#[cfg(test)]
mod tests;
