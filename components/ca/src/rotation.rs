//! When roots and issuers are made, used and forgotten. Pure: one step at a time, each stored before the next is taken.
//!
//! The order that keeps everybody trusting everybody: a new root is in every bundle for [`Lifetimes::publish`] before
//! anything is issued from it, and an old one stays there until its last leaf has expired. When nobody holds a valid
//! leaf there is nobody to wait for: that is how the first installation, and a repair after everything has expired,
//! start at once.

use conduit_identity::{Fingerprint, UnixTime};

use crate::{
    config::Lifetimes,
    state::{Certificate, Root, State},
};

/// A change of the authority's own state.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Step {
    /// Make the first root. `adopted` are roots found in our own bundle, whose keys are lost: leaves under them may still
    /// be valid.
    Create {
        /// What to keep in the bundles for a leaf's life.
        adopted: Vec<Certificate>,
    },
    /// Store again what we remember: somebody deleted the Secret.
    Restore,
    /// Note that every bundle holds the newest root.
    Publish,
    /// Make a new issuer under this root, and retire the roots before it.
    Issue {
        /// The root.
        root: Fingerprint,
    },
    /// Make a new root; it is used later.
    Rotate,
    /// Forget this root: no leaf under it can be valid any more.
    Forget {
        /// The root.
        root: Fingerprint,
    },
}

/// What the next step depends on.
#[derive(Debug)]
pub struct Situation<'a> {
    /// The stored state, if there is any.
    pub state: Option<&'a State>,
    /// Whether this process remembers a state that is no longer stored.
    pub remembers: bool,
    /// Roots found in the bundle of the control-plane namespace.
    pub bundled: Vec<Certificate>,
    /// Whether every bundle holds the newest root.
    pub everywhere: bool,
    /// Whether any workload holds a leaf that is valid now.
    pub live_leaves: bool,
}

/// What to do next, if anything.
pub fn next(situation: &Situation<'_>, now: UnixTime, lifetimes: &Lifetimes) -> Option<Step> {
    let Some(state) = situation.state else {
        return Some(match situation.remembers {
            true => Step::Restore,
            false => Step::Create { adopted: situation.bundled.clone() },
        });
    };
    let Some(newest) = state.newest(now) else {
        // With keys that are all of the future it is our clock that is behind: new roots would be of the past.
        return state.roots.iter().all(|root| root.key.is_none()).then_some(Step::Rotate);
    };
    if newest.published.is_none() && situation.everywhere {
        return Some(Step::Publish);
    }
    if let Some(root) = to_issue_from(state, newest, situation, now, lifetimes) {
        return Some(Step::Issue { root });
    }
    if is_due(&newest.certificate, now, lifetimes) {
        return Some(Step::Rotate);
    }
    let past = |root: &&Root| root.keep_until.is_some_and(|until| until < now);
    state.roots.iter().find(past).map(|root| Step::Forget { root: root.certificate.fingerprint })
}

/// The root to make a new issuer under, if a new one is wanted and can be had.
fn to_issue_from(
    state: &State,
    newest: &Root,
    situation: &Situation<'_>,
    now: UnixTime,
    lifetimes: &Lifetimes,
) -> Option<Fingerprint> {
    let waited = newest.published.is_some_and(|published| now >= published + lifetimes.publish);
    let usable = now <= newest.certificate.not_after && (waited || !situation.live_leaves);
    let newest_id = newest.certificate.fingerprint;
    let Some(issuer) = &state.issuer else { return usable.then_some(newest_id) };
    if issuer.root != newest_id && usable {
        return Some(newest_id);
    }
    // Under the root in use. That root may be due itself; its successor takes over once it may be used.
    let root = state.root(issuer.root).filter(|root| root.key.is_some())?;
    let gains = root.certificate.not_after > issuer.certificate.not_after;
    // One that begins later was made by a clock that was ahead, and signs nothing until then.
    let begins_later = issuer.certificate.not_before > now && root.certificate.not_before <= now;
    (begins_later || is_due(&issuer.certificate, now, lifetimes) && gains).then_some(issuer.root)
}

/// Whether `certificate` has lived the part of its life after which it is replaced.
fn is_due(certificate: &Certificate, now: UnixTime, lifetimes: &Lifetimes) -> bool {
    let life = certificate.not_after.since(certificate.not_before);
    now >= certificate.not_before + life * lifetimes.renew_percent / 100
}
