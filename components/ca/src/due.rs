//! Whether a certificate is issued, and why. Pure.

use std::time::Duration;

use conduit_identity::UnixTime;

use crate::{
    config::Lifetimes,
    inspect::{Held, LeafFacts},
};

/// Why a certificate is issued, in the order of urgency.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Reason {
    /// There is no Secret.
    Missing,
    /// The Secret's content is not usable.
    Invalid,
    /// The certificate does not lead to a root of the bundle.
    WrongRoot,
    /// It has another name.
    WrongName,
    /// It is past.
    Expired,
    /// It begins later: it was issued by a clock that was ahead.
    NotYetValid,
    /// The Secret belongs to an earlier life of the workload, and will be deleted with it.
    WrongOwner,
    /// It is time.
    Due,
}

impl Reason {
    /// The value of a metric's label.
    pub const fn label(self) -> &'static str {
        match self {
            Self::Missing => "missing",
            Self::Invalid => "invalid",
            Self::WrongRoot => "wrong_root",
            Self::WrongName => "wrong_name",
            Self::Expired => "expired",
            Self::NotYetValid => "not_yet_valid",
            Self::WrongOwner => "wrong_owner",
            Self::Due => "due",
        }
    }
}

/// Decides whether a leaf is replaced. It is not where its successor would be no better, which would be repeated for ever.
pub(crate) struct Judge<'a> {
    pub(crate) now: UnixTime,
    pub(crate) lifetimes: &'a Lifetimes,
    /// What bounds a leaf that is issued now.
    pub(crate) next_begins: UnixTime,
    pub(crate) next_ends: UnixTime,
}

impl Judge<'_> {
    /// Why to issue a certificate for a workload whose Secret holds `held` and does or does not belong to it.
    pub(crate) fn reason(&self, held: Option<Held>, owned: bool) -> Option<Reason> {
        let leaf = match held {
            None => return Some(Reason::Missing),
            Some(Held::Invalid) => return Some(Reason::Invalid),
            Some(Held::WrongRoot) => return Some(Reason::WrongRoot),
            Some(Held::WrongName) => return Some(Reason::WrongName),
            Some(Held::Leaf(leaf)) => leaf,
        };
        if self.now > leaf.not_after && self.next_ends > self.now {
            Some(Reason::Expired)
        } else if self.now < leaf.not_before && self.next_begins <= self.now {
            Some(Reason::NotYetValid)
        } else if !owned {
            Some(Reason::WrongOwner)
        } else {
            let gained = self.next_ends.since(leaf.not_after);
            let due = leaf.not_after.since(self.now) <= self.renew_at(&leaf);
            (due && gained >= self.lifetimes.leaf / 20).then_some(Reason::Due)
        }
    }

    /// What `leaf` has left when it is renewed. Each leaf has its own, spread so that what was issued together is not
    /// renewed together, and always the same, so that a restart does not draw again.
    fn renew_at(&self, leaf: &LeafFacts) -> Duration {
        let [high, low, ..] = *leaf.fingerprint.as_bytes();
        let spread = f64::from(u16::from_be_bytes([high, low])) / f64::from(u16::MAX);
        let Lifetimes { renew_left, renew_jitter, .. } = self.lifetimes;
        (*renew_left + renew_jitter.mul_f64(2.0 * spread)).saturating_sub(*renew_jitter)
    }
}
