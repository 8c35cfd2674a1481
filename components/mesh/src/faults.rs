//! What can be wrong with certificates, brought about by what is in the API and by clocks: nothing that runs knows that
//! it takes part in a fault.

use std::{sync::Arc, time::Duration};

use conduit_ca::{
    Lifetimes,
    authority::{self, Authority},
    rotation::Step,
    state::State,
};
use conduit_identity::{Clock, Crypto, Identity, UnixTime, Workload};
use conduit_k8s::owned;
use conduit_runtime::Seed;
use k8s_openapi::api::core::v1::Secret;
use kube::{Api, api::PostParams};
use serde_json::json;

use crate::{Error, Mesh};

/// A clock that is behind another one.
#[derive(Debug)]
pub struct Behind {
    clock: Arc<dyn Clock>,
    by: Duration,
}

impl Behind {
    /// `by` behind `clock`.
    pub fn new(clock: Arc<dyn Clock>, by: Duration) -> Self {
        Self { clock, by }
    }
}

impl Clock for Behind {
    fn now(&self) -> UnixTime {
        self.clock.now() - self.by
    }
}

impl Mesh {
    /// Puts a certificate of `workload`'s name where its Secret belongs, valid in all but its root, which nobody trusts.
    /// It carries no mark of the CA, which therefore leaves it alone.
    ///
    /// # Errors
    /// The certificate cannot be made, or the API refuses it.
    pub async fn foreign_certificate(&self, workload: &Workload) -> Result<(), Error> {
        let identity = Identity::of(workload, self.control_plane());
        let uri = workload.spiffe(self.control_plane());
        let shared = &self.shared;
        let leaf = foreign(&shared.crypto, &shared.seed, identity.as_str(), &uri, shared.clock.now())?;
        let secret: Secret = serde_json::from_value(json!({
            "metadata": {"name": workload.secret_name(), "namespace": workload.namespace},
            "type": owned::SECRET_TYPE,
            "stringData": {
                owned::SECRET_CERT_KEY: leaf.chain,
                owned::SECRET_PRIVATE_KEY: leaf.key.reveal(),
            },
        }))?;
        let api: Api<Secret> = Api::namespaced(self.client(), &workload.namespace);
        let what = format!("Secret {}/{}", workload.namespace, workload.secret_name());
        api.create(&PostParams::default(), &secret)
            .await
            .map_err(|source| Error::Refused { what, source })?;
        Ok(())
    }
}

/// A leaf from a root of its own.
fn foreign(
    crypto: &Crypto,
    seed: &Seed,
    dns: &str,
    uri: &str,
    now: UnixTime,
) -> Result<authority::Leaf, authority::Error> {
    let mut authority = Authority::new("elsewhere", crypto, Lifetimes::default(), &seed.fork("foreign"));
    let state: State = authority.step(&Step::Create { adopted: Vec::new() }, None, now)?;
    let root = state.roots.first().ok_or(authority::Error::NoRoot)?.certificate.fingerprint;
    let state = authority.step(&Step::Publish, Some(&state), now)?;
    let state = authority.step(&Step::Issue { root }, Some(&state), now)?;
    let signer = authority.signer(&state)?.ok_or(authority::Error::NoRoot)?;
    authority.leaf(&signer, dns, uri, now)
}
