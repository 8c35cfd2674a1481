//! Making keys and certificates: the only file that knows how a certificate is built.

use conduit_identity::{Crypto, Fingerprint, KeyAlgorithm, UnixTime};
use conduit_runtime::Seed;
use rand::{Rng, rngs::StdRng};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, PKCS_ED25519, SanType, SerialNumber,
};
use rustls_pki_types::PrivatePkcs8KeyDer;
use time::OffsetDateTime;

use crate::{
    config::Lifetimes,
    rotation::Step,
    state::{Certificate, Issuer, Key, Root, State, Unreadable},
};

/// Octets of a serial number: RFC 5280 section 4.1.2.2 allows 20; 16 random ones never meet.
const SERIAL_OCTETS: usize = 16;

/// Makes roots, issuers and leaves.
#[derive(Debug)]
pub struct Authority {
    name: String,
    keys: KeyAlgorithm,
    lifetimes: Lifetimes,
    rng: StdRng,
}

/// Why a certificate was not made.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// A stored certificate or key cannot be used.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// The certificate library refused.
    #[error("cannot make a certificate: {0}")]
    Certificate(#[from] rcgen::Error),
    /// There is no root with a key to issue from.
    #[error("the authority holds no root it could issue from")]
    NoRoot,
    /// A moment that no certificate can express.
    #[error("{0} is not a moment a certificate can express")]
    Moment(UnixTime),
}

/// A leaf and its key, as they go into a Secret.
#[derive(Debug, Clone)]
pub struct Leaf {
    /// The leaf, then its issuer.
    pub chain: String,
    /// Its key.
    pub key: Key,
    /// When it ends.
    pub not_after: UnixTime,
}

/// An issuer, ready to sign.
pub struct Signer {
    issuer: rcgen::Issuer<'static, KeyPair>,
    certificate: Certificate,
}

impl Authority {
    /// An authority of the control plane in the namespace `name`, with `crypto`'s keys; serial numbers (and the
    /// simulation's keys) are drawn from `seed`.
    pub fn new(name: &str, crypto: &Crypto, lifetimes: Lifetimes, seed: &Seed) -> Self {
        Self { name: name.to_owned(), keys: crypto.keys, lifetimes, rng: seed.fork("authority").rng() }
    }

    /// The state after `step`.
    ///
    /// # Errors
    /// The step cannot be taken; `state` stands.
    pub fn step(&mut self, step: &Step, state: Option<&State>, now: UnixTime) -> Result<State, Error> {
        let mut state = state.cloned().unwrap_or_default();
        match step {
            Step::Create { adopted } => {
                let keep_until = Some(self.last_leaf_ends(now));
                let root = |certificate: &Certificate| Root {
                    certificate: certificate.clone(),
                    key: None,
                    published: None,
                    keep_until,
                };
                state.roots = adopted.iter().map(root).collect();
                state.roots.push(self.root(now)?);
            }
            Step::Rotate => state.roots.push(self.root(now)?),
            Step::Restore => {}
            Step::Publish => {
                let newest = state.newest(now).ok_or(Error::NoRoot)?.certificate.fingerprint;
                let is_newest = |root: &&mut Root| root.certificate.fingerprint == newest;
                state.roots.iter_mut().filter(is_newest).for_each(|root| root.published = Some(now));
            }
            Step::Issue { root } => self.issue_from(*root, &mut state, now)?,
            Step::Forget { root } => state.roots.retain(|kept| kept.certificate.fingerprint != *root),
        }
        Ok(state)
    }

    /// What signs leaves in `state`.
    ///
    /// # Errors
    /// The stored issuer cannot be used.
    pub fn signer(&self, state: &State) -> Result<Option<Signer>, Error> {
        let Some(issuer) = &state.issuer else { return Ok(None) };
        let signing = rcgen::Issuer::from_ca_cert_pem(&issuer.certificate.pem, self.read_key(&issuer.key)?)?;
        Ok(Some(Signer { issuer: signing, certificate: issuer.certificate.clone() }))
    }

    /// A leaf with a key of its own for the DNS name `dns` and the URI `uri`. It never outlives its issuer.
    ///
    /// # Errors
    /// The library refuses a name, or the moment.
    pub fn leaf(&mut self, signer: &Signer, dns: &str, uri: &str, now: UnixTime) -> Result<Leaf, Error> {
        let key = self.new_key()?;
        let not_after = (now + self.lifetimes.leaf).min(signer.certificate.not_after);
        let mut params = self.params(now, not_after)?;
        // Without a subject: RFC 5280 section 4.1.2.6 then wants the alternative names critical, and they are.
        params.subject_alt_names = vec![SanType::DnsName(dns.try_into()?), SanType::URI(uri.try_into()?)];
        params.key_usages = vec![KeyUsagePurpose::DigitalSignature];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let leaf = params.signed_by(&key, &signer.issuer)?;
        let chain = format!("{}{}", unix_lines(leaf.pem()), signer.certificate.pem);
        Ok(Leaf { chain, key: Key::from_pem(unix_lines(key.serialize_pem())), not_after })
    }

    fn issue_from(&mut self, root: Fingerprint, state: &mut State, now: UnixTime) -> Result<(), Error> {
        let found = state.root(root).and_then(|root| Some((root.clone(), root.key.clone()?)));
        let (root, root_key) = found.ok_or(Error::NoRoot)?;
        let signing = rcgen::Issuer::from_ca_cert_pem(&root.certificate.pem, self.read_key(&root_key)?)?;
        let key = self.new_key()?;
        let not_after = (now + self.lifetimes.issuer).min(root.certificate.not_after);
        // Path length 0: what an issuer signs signs nothing.
        let params = self.authority_params("issuer", 0, now, not_after)?;
        let certificate = Certificate::from_pem(&unix_lines(params.signed_by(&key, &signing)?.pem()))?;
        let root = root.certificate.fingerprint;
        let key = Key::from_pem(unix_lines(key.serialize_pem()));
        state.issuer = Some(Issuer { certificate, key, root });
        let keep_until = self.last_leaf_ends(now);
        // Those after it have not been used yet, or by a clock that was ahead: what they issued is replaced now.
        let mut is_older = true;
        for other in &mut state.roots {
            if other.certificate.fingerprint == root {
                (is_older, other.keep_until) = (false, None);
            } else if is_older || other.certificate.not_before > now {
                other.keep_until.get_or_insert(keep_until);
            }
        }
        Ok(())
    }

    /// When a leaf that is issued now, by whichever replica, has certainly expired everywhere.
    fn last_leaf_ends(&self, now: UnixTime) -> UnixTime {
        now + self.lifetimes.leaf + self.lifetimes.backdate
    }

    fn root(&mut self, now: UnixTime) -> Result<Root, Error> {
        let key = self.new_key()?;
        let params = self.authority_params("root", 1, now, now + self.lifetimes.root)?;
        let certificate = Certificate::from_pem(&unix_lines(params.self_signed(&key)?.pem()))?;
        let key = Some(Key::from_pem(unix_lines(key.serialize_pem())));
        Ok(Root { certificate, key, published: None, keep_until: None })
    }

    fn authority_params(
        &mut self,
        role: &str,
        path_len: u8,
        now: UnixTime,
        not_after: UnixTime,
    ) -> Result<CertificateParams, Error> {
        let mut params = self.params(now, not_after)?;
        // Verifiers look issuers up by name: each has one of its own, so that they need not try several.
        let serial = params.serial_number.as_ref().map(SerialNumber::to_bytes).unwrap_or_default();
        let number: String = serial.iter().take(4).map(|octet| format!("{octet:02x}")).collect();
        // A common name holds 64 characters (X.520), a namespace up to 63.
        let name: String = self.name.chars().take(40).collect();
        params.distinguished_name.push(DnType::CommonName, format!("Conduit {name} {role} {number}"));
        params.is_ca = IsCa::Ca(BasicConstraints::Constrained(path_len));
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign, KeyUsagePurpose::CrlSign];
        Ok(params)
    }

    fn params(&mut self, now: UnixTime, not_after: UnixTime) -> Result<CertificateParams, Error> {
        let mut params = CertificateParams::default();
        params.distinguished_name = DistinguishedName::new();
        params.not_before = moment(now - self.lifetimes.backdate)?;
        params.not_after = moment(not_after)?;
        params.serial_number = Some(self.serial());
        params.use_authority_key_identifier_extension = true;
        Ok(params)
    }

    fn serial(&mut self) -> SerialNumber {
        let mut octets = [0; SERIAL_OCTETS];
        self.rng.fill_bytes(&mut octets);
        // Positive, and of full length.
        octets[0] = octets[0] & 0x7f | 0x40;
        SerialNumber::from_slice(&octets)
    }

    fn new_key(&mut self) -> Result<KeyPair, Error> {
        match self.keys {
            KeyAlgorithm::EcdsaP256 => Ok(KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256)?),
            KeyAlgorithm::Ed25519 => {
                // The fixed head of a PKCS#8 Ed25519 key (RFC 8410 section 7), then the seed.
                let mut pkcs8 = b"\x30\x2e\x02\x01\x00\x30\x05\x06\x03\x2b\x65\x70\x04\x22\x04\x20".to_vec();
                let mut seed = [0; 32];
                self.rng.fill_bytes(&mut seed);
                pkcs8.extend_from_slice(&seed);
                Ok(KeyPair::from_pkcs8_der_and_sign_algo(&PrivatePkcs8KeyDer::from(pkcs8), &PKCS_ED25519)?)
            }
        }
    }

    fn read_key(&self, key: &Key) -> Result<KeyPair, Error> {
        Ok(KeyPair::from_pem(key.reveal())?)
    }
}

fn moment(at: UnixTime) -> Result<OffsetDateTime, Error> {
    let seconds = i64::try_from(at.as_secs()).map_err(|_| Error::Moment(at))?;
    OffsetDateTime::from_unix_timestamp(seconds).map_err(|_| Error::Moment(at))
}

/// The library ends PEM lines as Windows does; in YAML such a text is unreadable.
fn unix_lines(pem: String) -> String {
    pem.replace('\r', "")
}
