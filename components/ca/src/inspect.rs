//! What a Secret of ours holds, judged as the proxy that will mount it judges it; remembered per version of the Secret,
//! because thousands of signatures would otherwise be checked at each event.

use std::collections::BTreeMap;

use conduit_identity::{Credentials, Crypto, Fingerprint, Identity, LoadError, Pem, UnixTime};
use conduit_k8s::{
    owned::{SECRET_CERT_KEY, SECRET_PRIVATE_KEY},
    watch::ObjectKey,
};
use k8s_openapi::api::core::v1::Secret;

/// What a Secret holds.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Held {
    /// Credentials of the right name under a root of the bundle; valid then, whenever that is.
    Leaf(LeafFacts),
    /// Credentials of another name.
    WrongName,
    /// A certificate that does not lead to a root of the bundle.
    WrongRoot,
    /// Nothing usable.
    Invalid,
}

/// What is asked of a good leaf.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct LeafFacts {
    /// Its first moment.
    pub not_before: UnixTime,
    /// Its last moment.
    pub not_after: UnixTime,
    /// Which it is.
    pub fingerprint: Fingerprint,
}

impl Held {
    /// The leaf, when there is a good one.
    pub fn leaf(self) -> Option<LeafFacts> {
        match self {
            Self::Leaf(leaf) => Some(leaf),
            Self::WrongName | Self::WrongRoot | Self::Invalid => None,
        }
    }
}

impl LeafFacts {
    /// Whether it is valid at `now`.
    pub fn covers(&self, now: UnixTime) -> bool {
        (self.not_before..=self.not_after).contains(&now)
    }
}

/// Judges Secrets, and remembers.
#[derive(Debug)]
pub struct Inspector {
    crypto: Crypto,
    seen: BTreeMap<ObjectKey, Seen>,
}

#[derive(Debug)]
struct Seen {
    version: Option<String>,
    identity: Identity,
    bundle: Fingerprint,
    held: Held,
}

impl Inspector {
    /// An inspector that remembers nothing yet.
    pub fn new(crypto: Crypto) -> Self {
        Self { crypto, seen: BTreeMap::new() }
    }

    /// What `secret` holds for `identity`, judged with the roots of `bundle`.
    pub fn inspect(&mut self, key: &ObjectKey, secret: &Secret, identity: &Identity, bundle: &str) -> Held {
        let version = secret.metadata.resource_version.as_ref();
        let bundle_id = Fingerprint::of(bundle.as_bytes());
        if let Some(seen) = self.seen.get(key)
            && version.is_some()
            && seen.version.as_ref() == version
            && seen.identity == *identity
            && seen.bundle == bundle_id
        {
            return seen.held;
        }
        let held = judge(secret, identity, bundle, &self.crypto);
        let seen = Seen { version: version.cloned(), identity: identity.clone(), bundle: bundle_id, held };
        self.seen.insert(key.clone(), seen);
        held
    }

    /// Forgets what is not wanted any more.
    pub fn retain(&mut self, wanted: impl Fn(&ObjectKey) -> bool) {
        self.seen.retain(|key, _| wanted(key));
    }
}

fn judge(secret: &Secret, identity: &Identity, bundle: &str, crypto: &Crypto) -> Held {
    let field =
        |name: &str| secret.data.as_ref().and_then(|data| data.get(name)).map(|value| value.0.clone());
    let (Some(chain), Some(key)) = (field(SECRET_CERT_KEY), field(SECRET_PRIVATE_KEY)) else {
        return Held::Invalid;
    };
    let pem = Pem { chain, key, anchors: bundle.as_bytes().to_vec() };
    // Time is the reconciler's to judge, at each look: a verdict that depends on it could not be remembered.
    match Credentials::load_at_any_time(&pem, identity, crypto) {
        Ok(credentials) => Held::Leaf(LeafFacts {
            not_before: credentials.not_before(),
            not_after: credentials.not_after(),
            fingerprint: credentials.fingerprint(),
        }),
        Err(LoadError::WrongName { .. }) => Held::WrongName,
        Err(LoadError::Untrusted(_)) => Held::WrongRoot,
        Err(_) => Held::Invalid,
    }
}
