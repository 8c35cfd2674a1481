//! Certificates.

use std::{fs, path::Path, sync::Arc, time::Duration};

use conduit_identity::{
    ControlPlane, Credentials, Crypto, Files, Identity, Loaded, ManualClock, Pem, UnixTime, Workload,
    WorkloadKind,
};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, ExtendedKeyUsagePurpose, IsCa, Issuer,
    KeyPair, KeyUsagePurpose, PKCS_ECDSA_P256_SHA256, SanType,
};
use time::OffsetDateTime;

pub(crate) const HOUR: Duration = Duration::from_secs(3600);

/// The moment at which the tests take place, until they move the clock.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);

pub(crate) fn identity(owner: &str) -> Identity {
    let workload =
        Workload { namespace: "shop".to_owned(), kind: WorkloadKind::Deployment, name: owner.to_owned() };
    Identity::of(&workload, &ControlPlane::default())
}

/// The identity of a component of the control plane.
pub(crate) fn component(name: &str) -> Identity {
    let control_plane = ControlPlane::default();
    Identity::of(&control_plane.component(name), &control_plane)
}

/// A root.
pub(crate) struct Authority {
    pub(crate) root: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What a pod finds in its volume.
#[derive(Clone)]
pub(crate) struct Issued {
    pub(crate) chain: String,
    pub(crate) key: String,
    pub(crate) anchors: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = key();
        let mut params = CertificateParams::default();
        params.not_before = date(NOW - 1000 * HOUR);
        params.not_after = date(NOW + 1000 * HOUR);
        params.distinguished_name.push(DnType::CommonName, "root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.key_usages = vec![KeyUsagePurpose::KeyCertSign];
        let root = params.self_signed(&key).unwrap().pem();
        Self { root, issuer: Issuer::new(params, key) }
    }

    /// Credentials that are right at [`NOW`].
    pub(crate) fn issue(&self, identity: &Identity) -> Issued {
        self.issue_for(identity, NOW - HOUR, NOW + 26 * HOUR)
    }

    /// Credentials in use by a process that is no pod's.
    pub(crate) fn loaded(&self, identity: &Identity, clock: &ManualClock) -> Loaded {
        let Issued { chain, key, anchors } = self.issue(identity);
        let pem = Pem { chain: chain.into(), key: key.into(), anchors: anchors.into() };
        let crypto = Crypto::shipped();
        let credentials = Credentials::load(&pem, identity, NOW, &crypto).unwrap();
        Loaded::new(credentials, &crypto, Arc::new(clock.clone())).unwrap()
    }

    pub(crate) fn issue_for(&self, identity: &Identity, begins: UnixTime, ends: UnixTime) -> Issued {
        let key = key();
        let mut params = CertificateParams::default();
        params.not_before = date(begins);
        params.not_after = date(ends);
        params.distinguished_name = DistinguishedName::new();
        params.subject_alt_names = vec![SanType::DnsName(identity.as_str().try_into().unwrap())];
        params.extended_key_usages =
            vec![ExtendedKeyUsagePurpose::ServerAuth, ExtendedKeyUsagePurpose::ClientAuth];
        let chain = params.signed_by(&key, &self.issuer).unwrap().pem();
        Issued { chain, key: key.serialize_pem(), anchors: self.root.clone() }
    }
}

impl Issued {
    /// Writes the files as the kubelet does, each whole.
    pub(crate) fn write(&self, directory: &Path) {
        let files = Files::in_directory(directory);
        for (path, content) in
            [(files.cert, &self.chain), (files.key, &self.key), (files.anchors, &self.anchors)]
        {
            let whole = path.with_extension("new");
            fs::write(&whole, content).unwrap();
            fs::rename(whole, path).unwrap();
        }
    }
}

fn key() -> KeyPair {
    KeyPair::generate_for(&PKCS_ECDSA_P256_SHA256).unwrap()
}

fn date(at: UnixTime) -> OffsetDateTime {
    OffsetDateTime::from_unix_timestamp(i64::try_from(at.as_secs()).unwrap()).unwrap()
}
