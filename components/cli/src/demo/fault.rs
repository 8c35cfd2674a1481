//! What `--fault` breaks, and how: through clocks, Secrets and volumes, as it would break in a cluster. The proxies and
//! the control plane are the same with and without.

use std::{sync::Arc, time::Duration};

use clap::ValueEnum;
use conduit_identity::{Clock, SystemClock, Workload, WorkloadKind};
use conduit_mesh::{Behind, Deployment, Error, Mesh};

use super::application::NAMESPACE;

/// When a late CA starts, after the first traffic: late enough to see the plaintext.
const LATE: Duration = Duration::from_secs(8);
/// What the certificates take to arrive once the CA has started, on a busy machine.
const SETTLING: Duration = Duration::from_secs(4);
/// How far the clocks of CA and API server are behind when what they issue has expired: further than a certificate
/// lives. A CA whose clock alone is behind notices, and issues nothing.
const TWO_DAYS: Duration = Duration::from_secs(48 * 60 * 60);
/// The Deployment that the faults of one workload befall.
const VICTIM: &str = "voting";

/// Something to break.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(super) enum Fault {
    /// The CA never starts: there are no certificates
    CaDown,
    /// The CA starts when traffic has been flowing for 8 s
    CaLate,
    /// The clocks of the CA and the API server are two days behind: every certificate has expired when it arrives
    Expired,
    /// The Secret of voting holds a certificate from a root that nobody trusts
    WrongRoot,
    /// The Secret of voting never gets into its pod
    NoSecret,
}

impl Fault {
    /// A few words for the title.
    pub(super) fn description(self) -> &'static str {
        match self {
            Self::CaDown => "without a CA",
            Self::CaLate => "the CA starts after 8 s",
            Self::Expired => "every certificate has expired",
            Self::WrongRoot => "voting's certificate is from a root that nobody trusts",
            Self::NoSecret => "voting's certificate never gets into its pod",
        }
    }

    /// What a demo of this `duration` does not show of it, if anything.
    pub(super) fn caution(self, duration: Duration) -> Option<String> {
        let (late_s, enough) = (LATE.as_secs(), LATE * 2);
        let is_short = self == Self::CaLate && duration < LATE + SETTLING;
        is_short.then(|| {
            format!(
                "the CA starts after {late_s} s, too late for this duration to show TLS: use --duration {}s",
                enough.as_secs()
            )
        })
    }

    /// What must be so before the control plane starts.
    pub(super) async fn prepare(self, mesh: &Mesh) -> Result<(), Error> {
        match self {
            Self::WrongRoot => mesh.foreign_certificate(&victim()).await,
            Self::CaDown | Self::CaLate | Self::Expired | Self::NoSecret => Ok(()),
        }
    }
}

/// The clock of the API server, where it is not everybody's.
pub(super) fn api_clock(fault: Option<Fault>) -> Option<Arc<dyn Clock>> {
    (fault == Some(Fault::Expired)).then(|| Arc::new(Behind::new(Arc::new(SystemClock), TWO_DAYS)) as _)
}

/// The clock of a CA that starts with the control plane; none when it does not.
pub(super) fn ca_clock(fault: Option<Fault>) -> Option<Arc<dyn Clock>> {
    match fault {
        Some(Fault::CaDown | Fault::CaLate) => None,
        Some(Fault::Expired | Fault::WrongRoot | Fault::NoSecret) | None => {
            Some(api_clock(fault).unwrap_or_else(|| Arc::new(SystemClock)))
        }
    }
}

/// What is mounted into the pods of `deployment`.
pub(super) fn mount(fault: Option<Fault>, deployment: Deployment) -> Deployment {
    match fault {
        Some(Fault::NoSecret) if deployment.workload() == victim() => deployment.without_certificate(),
        _ => deployment,
    }
}

/// What happens when traffic has been flowing for `elapsed`.
pub(super) async fn advance(fault: Option<Fault>, elapsed: Duration, mesh: &mut Mesh) -> Result<(), Error> {
    if fault == Some(Fault::CaLate) && elapsed >= LATE && !mesh.has_ca() {
        mesh.start_ca(mesh.clock()).await?;
    }
    Ok(())
}

fn victim() -> Workload {
    Workload { namespace: NAMESPACE.to_owned(), kind: WorkloadKind::Deployment, name: VICTIM.to_owned() }
}
