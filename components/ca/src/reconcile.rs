//! What to write. Pure: the cluster as it was seen, the moment and the lifetimes in, an ordered list of writes out.
//!
//! A certificate is issued for a [`Reason`], never because something happened to a pod. Objects that do not carry our
//! marks are reported and left alone, whatever they are called. A change of the authority's own state comes first, to be
//! stored before anything depends on it.

use std::collections::{BTreeMap, BTreeSet};

use conduit_identity::{ControlPlane, UnixTime};
use conduit_k8s::{
    cache::Snapshot,
    owned::{BUNDLE_CONFIGMAP, BUNDLE_KEY},
    owner::Owners,
    watch::ObjectKey,
};
use k8s_openapi::{
    api::core::v1::{ConfigMap, Pod, Secret},
    apimachinery::pkg::apis::meta::v1::ObjectMeta,
};

use tokio::time::Instant;

use crate::{
    bundle,
    config::Lifetimes,
    due::{Judge, Reason},
    inspect::{Held, Inspector},
    objects::{belongs_to, owner_uid},
    rotation::{self, Situation, Step},
    state::{Certificate, State},
    wanted::{Mismatch, Wanted, wanted},
};

/// The cluster, as far as it concerns the authority.
#[derive(Debug)]
pub struct Observed<'a, O> {
    /// Pods with the control plane's label.
    pub pods: &'a Snapshot<Pod>,
    /// Pods of the control plane itself.
    pub components: &'a Snapshot<Pod>,
    /// What lies between pods and their workloads.
    pub owners: &'a O,
    /// Secrets with our marks.
    pub secrets: &'a Snapshot<Secret>,
    /// ConfigMaps of the bundle's name, in every namespace, whoever made them.
    pub bundles: &'a Snapshot<ConfigMap>,
    /// Secrets of names we want that turned out to be somebody else's (and when they are looked at again).
    pub foreign: &'a BTreeMap<ObjectKey, Instant>,
    /// The stored state.
    pub state: Option<&'a State>,
    /// Whether this process remembers a state that is no longer stored.
    pub remembers: bool,
}

/// What to do, in this order, and what to tell.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Plan {
    /// The writes: a step of the authority's own, bundles, then leaves, the most urgent first.
    pub writes: Vec<Write>,
    /// What needs an operator, in alphabetical order.
    pub reports: BTreeSet<Report>,
    /// When the first leaf of a wanted workload ends.
    pub first_leaf_ends: Option<UnixTime>,
    /// How many workloads are to have a certificate.
    pub workloads: usize,
}

/// One write.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Write {
    /// Change the stored state.
    Root(Step),
    /// Write the trust bundle into the ConfigMap of a namespace.
    Bundle {
        /// The ConfigMap.
        key: ObjectKey,
        /// What it shall hold.
        pem: String,
    },
    /// Issue a certificate and write it into a Secret.
    Leaf {
        /// The Secret.
        key: ObjectKey,
        /// Whose.
        wanted: Wanted,
        /// Why.
        reason: Reason,
    },
}

/// What needs an operator.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Report {
    /// A Secret of a name we want is not ours: its workload stays in plaintext.
    ForeignSecret(ObjectKey),
    /// A ConfigMap of the bundle's name is not ours: its namespace stays in plaintext.
    ForeignBundle(ObjectKey),
    /// Our clock is behind the API server's by more than certificates are backdated, or behind all of our own certificates:
    /// nothing is issued.
    ClockBehind,
    /// A pod claims a workload that it does not belong to: no certificate is issued for it.
    Mismatch(Mismatch),
}

/// What to do about `observed` at `now`.
pub fn reconcile(
    observed: &Observed<'_, impl Owners>,
    inspector: &mut Inspector,
    now: UnixTime,
    control_plane: &ControlPlane,
    lifetimes: &Lifetimes,
) -> Plan {
    let pods = observed.pods.values().map(AsRef::as_ref);
    let components = observed.components.values().map(AsRef::as_ref);
    let (wanted, mismatches) = wanted(pods, components, observed.owners, control_plane);
    let mut plan = Plan { workloads: wanted.len(), ..Plan::default() };
    plan.reports.extend(mismatches.into_iter().map(Report::Mismatch));
    if youngest(observed) > now + lifetimes.backdate {
        plan.reports.insert(Report::ClockBehind);
        return plan;
    }

    let bundle = observed.state.map(bundle::of).unwrap_or_default();
    let look = Look { observed, wanted, bundle, now, control_plane, lifetimes };
    let leaves = look.leaves(inspector, &mut plan);
    let bundles = look.bundles(&mut plan);
    let situation = Situation {
        state: observed.state,
        remembers: observed.remembers,
        bundled: look.own_bundle(),
        everywhere: bundles.is_empty() && observed.state.is_some(),
        live_leaves: leaves.live,
    };
    let step = rotation::next(&situation, now, lifetimes).map(Write::Root);
    let issuer = observed.state.and_then(|state| state.issuer.as_ref()).map(|issuer| &issuer.certificate);
    // With certificates that are all of the future it is our clock that is behind.
    if step.is_none() && issuer.is_some_and(|issuer| now < issuer.not_before) {
        plan.reports.insert(Report::ClockBehind);
    }
    // What another one signs is valid nowhere, and would be signed again at every look.
    let can_issue = issuer.is_some_and(|issuer| (issuer.not_before..=issuer.not_after).contains(&now));
    let leaves = if can_issue { leaves.writes } else { Vec::new() };
    plan.writes = step.into_iter().chain(bundles).chain(leaves).collect();
    plan
}

/// When the youngest pod was made, by the API server's clock. Our own pod is among them, so that an authority that is
/// started on a machine whose clock is behind finds out, instead of replacing good certificates by expired ones.
fn youngest(observed: &Observed<'_, impl Owners>) -> UnixTime {
    let pods = observed.pods.values().chain(observed.components.values());
    let created = pods.filter_map(|pod| pod.metadata.creation_timestamp.as_ref());
    let seconds = created.filter_map(|created| u64::try_from(created.0.as_second()).ok());
    seconds.max().map(UnixTime::from_secs).unwrap_or_default()
}

struct Look<'a, O> {
    observed: &'a Observed<'a, O>,
    wanted: BTreeMap<ObjectKey, Wanted>,
    /// What every bundle is to hold; empty as long as there is no root.
    bundle: String,
    now: UnixTime,
    control_plane: &'a ControlPlane,
    lifetimes: &'a Lifetimes,
}

struct Leaves {
    /// The most urgent first.
    writes: Vec<Write>,
    /// Whether any workload holds a leaf that is valid now.
    live: bool,
}

impl<O: Owners> Look<'_, O> {
    fn leaves(&self, inspector: &mut Inspector, plan: &mut Plan) -> Leaves {
        inspector.retain(|key| self.wanted.contains_key(key));
        let judge = self.judge();
        let mut due: Vec<(Reason, UnixTime, Write)> = Vec::new();
        let mut live = false;
        for (key, wanted) in &self.wanted {
            let secret = self.observed.secrets.get(key);
            if self.observed.foreign.contains_key(key)
                || secret.is_some_and(|secret| !self.is_ours(&secret.metadata))
            {
                plan.reports.insert(Report::ForeignSecret(key.clone()));
                continue;
            }
            let held = secret.map(|secret| inspector.inspect(key, secret, &wanted.identity, &self.bundle));
            let leaf = held.and_then(Held::leaf);
            let ends = leaf.map(|leaf| leaf.not_after);
            live |= leaf.is_some_and(|leaf| leaf.covers(self.now));
            plan.first_leaf_ends = plan.first_leaf_ends.into_iter().chain(ends).min();
            let owned = secret.is_some_and(|secret| owner_uid(&secret.metadata) == Some(&wanted.uid));
            if let Some(reason) = judge.reason(held, owned) {
                let write = Write::Leaf { key: key.clone(), wanted: wanted.clone(), reason };
                due.push((reason, ends.unwrap_or_default(), write));
            }
        }
        // The key decides between equals: the wanted ones come in its order, and the sort keeps it.
        due.sort_by_key(|(reason, ends, _)| (*reason, *ends));
        Leaves { writes: due.into_iter().map(|(_, _, write)| write).collect(), live }
    }

    fn judge(&self) -> Judge<'_> {
        let issuer = self.observed.state.and_then(|state| state.issuer.as_ref());
        let (begins, ends) = issuer
            .map(|issuer| (issuer.certificate.not_before, issuer.certificate.not_after))
            .unwrap_or_default();
        Judge {
            now: self.now,
            lifetimes: self.lifetimes,
            next_begins: begins,
            next_ends: ends.min(self.now + self.lifetimes.leaf),
        }
    }

    fn bundles(&self, plan: &mut Plan) -> Vec<Write> {
        if self.bundle.is_empty() {
            return Vec::new();
        }
        let key = |namespace: &str| ObjectKey::new(namespace, BUNDLE_CONFIGMAP);
        let mut keys: BTreeSet<ObjectKey> = self.wanted.keys().map(|secret| key(&secret.namespace)).collect();
        keys.insert(key(&self.control_plane.namespace));
        // What we wrote once is kept current: pods may come back to that namespace, and mount it at once.
        let ours = self.observed.bundles.iter().filter(|(_, map)| self.is_ours(&map.metadata));
        keys.extend(ours.map(|(key, _)| key.clone()));
        let mut writes = Vec::new();
        for key in keys {
            match self.observed.bundles.get(&key) {
                Some(map) if !self.is_ours(&map.metadata) => {
                    plan.reports.insert(Report::ForeignBundle(key));
                }
                Some(map) if content(map) == Some(&self.bundle) => {}
                _ => writes.push(Write::Bundle { key, pem: self.bundle.clone() }),
            }
        }
        writes
    }

    /// The roots in the bundle of our own namespace. The others are within reach of people who must not be able to make
    /// the whole mesh trust a root of theirs.
    fn own_bundle(&self) -> Vec<Certificate> {
        let map = self.observed.bundles.get(&ObjectKey::new(&self.control_plane.namespace, BUNDLE_CONFIGMAP));
        let pem = map.filter(|map| self.is_ours(&map.metadata)).and_then(|map| content(map));
        pem.map(|pem| bundle::certificates(pem, self.now)).unwrap_or_default()
    }

    fn is_ours(&self, meta: &ObjectMeta) -> bool {
        belongs_to(meta, &self.control_plane.namespace)
    }
}

fn content(map: &ConfigMap) -> Option<&String> {
    map.data.as_ref()?.get(BUNDLE_KEY)
}
