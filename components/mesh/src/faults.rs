//! What can be wrong with certificates, brought about by what is in the API and by clocks: nothing that runs knows that
//! it takes part in a fault.

use std::{sync::Arc, time::Duration};

use conduit_ca::{
    Lifetimes,
    authority::{self, Authority, Leaf},
    objects,
    rotation::Step,
    state::State,
};
use conduit_identity::{Clock, Identity, UnixTime, Workload};
use conduit_k8s::owned;
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
        let leaf = self.foreign_leaf(workload)?;
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

    /// A certificate of `workload`'s name from a root that nobody trusts.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn foreign_leaf(&self, workload: &Workload) -> Result<Leaf, Error> {
        let now = self.shared.clock.now();
        let (mut authority, state) = self.foreign_authority(now)?;
        Ok(self.sign(&mut authority, &state, workload, now)?)
    }

    /// A root that nobody has anything from, in PEM.
    ///
    /// # Errors
    /// It cannot be made.
    pub fn foreign_root(&self) -> Result<String, Error> {
        let (_, state) = self.foreign_authority(self.shared.clock.now())?;
        let root = state.roots.first().ok_or(authority::Error::NoRoot)?;
        Ok(root.certificate.pem.clone())
    }

    /// A certificate of `workload`'s name as the CA would have issued it at `at`; none while the CA has no issuer.
    ///
    /// # Errors
    /// The CA's state cannot be read, or the certificate cannot be made.
    pub async fn leaf_issued_at(&self, workload: &Workload, at: UnixTime) -> Result<Option<Leaf>, Error> {
        let key = objects::root_key(self.control_plane());
        let api: Api<Secret> = Api::namespaced(self.client(), &self.control_plane().namespace);
        let what = format!("Secret {key}");
        let stored = api.get_opt(&key.name).await.map_err(|source| Error::Refused { what, source })?;
        let Some(stored) = stored else { return Ok(None) };
        let state = objects::read_root(&stored).map_err(authority::Error::from)?;
        if state.issuer.is_none() {
            return Ok(None);
        }
        let shared = &self.shared;
        let seed = shared.seed.fork(&format!("issued at {at}"));
        let mut authority = Authority::new("elsewhere", &shared.crypto, shared.lifetimes.clone(), &seed);
        Ok(Some(self.sign(&mut authority, &state, workload, at)?))
    }

    /// An authority of its own, ready to issue.
    fn foreign_authority(&self, now: UnixTime) -> Result<(Authority, State), authority::Error> {
        let seed = self.shared.seed.fork("foreign");
        let mut authority = Authority::new("elsewhere", &self.shared.crypto, Lifetimes::default(), &seed);
        let state: State = authority.step(&Step::Create { adopted: Vec::new() }, None, now)?;
        let root = state.roots.first().ok_or(authority::Error::NoRoot)?.certificate.fingerprint;
        let state = authority.step(&Step::Publish, Some(&state), now)?;
        let state = authority.step(&Step::Issue { root }, Some(&state), now)?;
        Ok((authority, state))
    }

    fn sign(
        &self,
        authority: &mut Authority,
        state: &State,
        workload: &Workload,
        at: UnixTime,
    ) -> Result<Leaf, authority::Error> {
        let identity = Identity::of(workload, self.control_plane());
        let uri = workload.spiffe(self.control_plane());
        let signer = authority.signer(state)?.ok_or(authority::Error::NoRoot)?;
        authority.leaf(&signer, identity.as_str(), &uri, at)
    }
}
