//! What unit tests share: certificates, and a gRPC channel over a pipe.

use std::{io, sync::Arc};

use conduit_identity::{
    Clock, ControlPlane, Credentials, Crypto, Identity, Loaded, ManualClock, Pem, Store, UnixTime,
};
use conduit_identity::{Workload, WorkloadKind};
use conduit_runtime::grpc;
use futures::FutureExt;
use parking_lot::Mutex;
use rcgen::{
    BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair, SanType, date_time_ymd,
};

/// The moment at which tests with certificates take place, in 2027.
pub(crate) const NOW: UnixTime = UnixTime::from_secs(1_800_000_000);
/// When their certificates end.
pub(crate) const END: UnixTime = UnixTime::from_secs(1_893_456_000);

/// The identity of deployment `name` in namespace `test`.
pub(crate) fn identity(name: &str) -> Identity {
    let workload = Workload { namespace: "test".into(), kind: WorkloadKind::Deployment, name: name.into() };
    Identity::of(&workload, &ControlPlane::default())
}

/// The identity of a component of the control plane.
pub(crate) fn component(name: &str) -> Identity {
    let control_plane = ControlPlane::default();
    Identity::of(&control_plane.component(name), &control_plane)
}

/// A root that signs everything itself.
pub(crate) struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    pub(crate) fn new() -> Self {
        let mut params = dated(CertificateParams::default());
        params.distinguished_name.push(DnType::CommonName, "test root");
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    /// Credentials that prove `identity` and trust this root.
    pub(crate) fn issue(&self, identity: &Identity) -> Pem {
        let key = KeyPair::generate().unwrap();
        let mut params = dated(CertificateParams::default());
        params.subject_alt_names = vec![SanType::DnsName(identity.as_str().try_into().unwrap())];
        let leaf = params.signed_by(&key, &self.0).unwrap();
        let (chain, key) = (leaf.pem().into_bytes(), key.serialize_pem().into_bytes());
        Pem { chain, key, anchors: self.0.pem().into_bytes() }
    }

    /// The same, ready for use, trusting `other` too.
    pub(crate) fn loaded(&self, identity: &Identity, other: &Self) -> Loaded {
        let crypto = Crypto::shipped();
        let mut pem = self.issue(identity);
        pem.anchors.extend(other.0.pem().into_bytes());
        let credentials = Credentials::load(&pem, identity, NOW, &crypto).unwrap();
        Loaded::new(credentials, &crypto, clock()).unwrap()
    }
}

fn dated(mut params: CertificateParams) -> CertificateParams {
    params.not_before = date_time_ymd(2020, 1, 1);
    params.not_after = date_time_ymd(2030, 1, 1);
    params
}

/// A clock that shows [`NOW`].
pub(crate) fn clock() -> Arc<dyn Clock> {
    Arc::new(ManualClock::at(NOW))
}

/// A store of `identity` that holds nothing yet.
pub(crate) fn store(identity: &Identity) -> Store {
    Store::new(identity.clone(), Crypto::shipped(), clock())
}

/// A channel over one connection that is open already.
pub(crate) fn channel(io: impl grpc::Transport) -> grpc::Channel {
    let io = Mutex::new(Some(Box::new(io) as Box<dyn grpc::Transport>));
    let connect = move || {
        let io = io.lock().take().ok_or_else(|| io::Error::from(io::ErrorKind::NotConnected));
        async { io }.boxed()
    };
    grpc::Channel::new("test", Arc::new(connect)).unwrap()
}
