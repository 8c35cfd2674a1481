//! A small authority for tests, and the names and moments they share.

use std::{sync::Arc, time::Duration};

use conduit_identity::{
    ControlPlane, Credentials, Crypto, Identity, Loaded, ManualClock, Pem, Store, UnixTime, Workload,
    WorkloadKind,
};
use rcgen::{
    BasicConstraints, CertificateParams, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer, KeyPair,
    KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::OffsetDateTime;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The moment at which the tests take place.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

pub(crate) fn identity(owner: &str) -> Identity {
    Identity::of(&deployment("shop", owner), &ControlPlane::default())
}

pub(crate) fn deployment(namespace: &str, name: &str) -> Workload {
    Workload { namespace: namespace.to_owned(), kind: WorkloadKind::Deployment, name: name.to_owned() }
}

/// A root and an issuer below it.
pub(crate) struct Authority {
    root: String,
    issuer: Issuer<'static, KeyPair>,
    issuer_pem: String,
}

impl Authority {
    pub(crate) fn new(name: &str) -> Self {
        let (root_key, issuer_key) = (key(), key());
        let root_params = authority_params(&format!("{name} root"));
        let root = root_params.self_signed(&root_key).unwrap().pem();
        let root_issuer = Issuer::new(root_params, root_key);
        let params = authority_params(&format!("{name} issuer"));
        let issuer_pem = params.signed_by(&issuer_key, &root_issuer).unwrap().pem();
        Self { root, issuer: Issuer::new(params, issuer_key), issuer_pem }
    }

    pub(crate) fn root(&self) -> Vec<u8> {
        self.root.clone().into_bytes()
    }

    pub(crate) fn leaf(&self) -> Leaf<'_> {
        Leaf {
            authority: self,
            names: Vec::new(),
            begins: NOW - HOUR,
            ends: NOW + 26 * HOUR,
            usages: vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth],
        }
    }

    /// Credentials for `owner` that are right at [`NOW`].
    pub(crate) fn good(&self, owner: &str) -> Pem {
        self.leaf().named(identity(owner).as_str()).issue()
    }
}

pub(crate) struct Leaf<'a> {
    authority: &'a Authority,
    names: Vec<String>,
    begins: UnixTime,
    ends: UnixTime,
    usages: Vec<ExtendedKeyUsagePurpose>,
}

impl Leaf<'_> {
    pub(crate) fn named(mut self, name: &str) -> Self {
        self.names.push(name.to_owned());
        self
    }

    pub(crate) fn valid(mut self, begins: UnixTime, ends: UnixTime) -> Self {
        (self.begins, self.ends) = (begins, ends);
        self
    }

    pub(crate) fn only_for_clients(mut self) -> Self {
        self.usages = vec![ExtendedKeyUsagePurpose::ClientAuth];
        self
    }

    pub(crate) fn issue(self) -> Pem {
        let key = key();
        let mut params = CertificateParams::default();
        params.not_before = date(self.begins);
        params.not_after = date(self.ends);
        params.distinguished_name = rcgen::DistinguishedName::new();
        params.subject_alt_names =
            self.names.into_iter().map(|name| SanType::DnsName(name.try_into().unwrap())).collect();
        params.extended_key_usages = self.usages;
        let leaf = params.signed_by(&key, &self.authority.issuer).unwrap().pem();
        Pem {
            chain: format!("{leaf}{}", self.authority.issuer_pem).into_bytes(),
            key: key.serialize_pem().into_bytes(),
            anchors: self.authority.root(),
        }
    }
}

/// A store of `owner` that holds nothing, and its clock, which shows [`NOW`].
pub(crate) fn store(owner: &str) -> (Store, ManualClock) {
    let clock = ManualClock::at(NOW);
    (Store::new(identity(owner), Crypto::shipped(), Arc::new(clock.clone())), clock)
}

/// `pem` made ready for use, judged at the moment `at` and used by a clock that shows [`NOW`].
pub(crate) fn loaded(pem: &Pem, owner: &str, at: UnixTime) -> Loaded {
    let crypto = Crypto::shipped();
    let credentials = Credentials::load(pem, &identity(owner), at, &crypto).unwrap();
    Loaded::new(credentials, &crypto, Arc::new(ManualClock::at(NOW))).unwrap()
}

pub(crate) fn with_anchors(pem: &Pem, anchors: Vec<u8>) -> Pem {
    Pem { chain: pem.chain.clone(), key: pem.key.clone(), anchors }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn authority_params(name: &str) -> CertificateParams {
    let mut params = CertificateParams::default();
    params.not_before = date(NOW - 1000 * HOUR);
    params.not_after = date(NOW + 1000 * HOUR);
    params.distinguished_name.push(DnType::CommonName, name);
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
    params
}

fn date(at: UnixTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.as_secs()).unwrap()).unwrap()
}
