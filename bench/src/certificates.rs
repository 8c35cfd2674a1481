//! Credentials for the proxies that are measured, made by the real authority, as files in the real layout.

use std::path::Path;

use anyhow::Context;
use conduit_ca::{Lifetimes, authority::Authority, bundle, rotation::Step};
use conduit_identity::{Clock, ControlPlane, Crypto, Identity, SystemClock, Workload};
use conduit_runtime::Seed;

/// Writes `tls.crt`, `tls.key` and `trust-anchors.pem` for each workload into a folder of its name under `folder`.
pub(crate) fn write(folder: &Path, workloads: &[Workload], control: &ControlPlane) -> anyhow::Result<()> {
    let now = SystemClock.now();
    let mut authority = Authority::new("bench", &Crypto::shipped(), Lifetimes::default(), &Seed::from_os()?);
    let state = authority.step(&Step::Create { adopted: Vec::new() }, None, now)?;
    let root = state.newest(now).context("the authority made no root")?.certificate.fingerprint;
    let state = authority.step(&Step::Issue { root }, Some(&state), now)?;
    let signer = authority.signer(&state)?.context("the authority made no issuer")?;
    for workload in workloads {
        let identity = Identity::of(workload, control);
        let leaf = authority.leaf(&signer, identity.as_str(), &workload.spiffe(control), now)?;
        let own = folder.join(&workload.name);
        std::fs::create_dir(&own)?;
        std::fs::write(own.join("tls.crt"), &leaf.chain)?;
        std::fs::write(own.join("tls.key"), leaf.key.reveal())?;
        std::fs::write(own.join("trust-anchors.pem"), bundle::of(&state))?;
    }
    Ok(())
}
