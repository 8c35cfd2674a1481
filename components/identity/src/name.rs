//! Identity names: what a certificate proves and what a proxy asks for as SNI.
//!
//! `<owner>.<kind>.<namespace>.conduit-managed.<control-plane namespace>.<trust domain>`
//!
//! The owner may contain dots, the other parts to its right before the trust domain may not: names are read from the
//! right. A name that would not be valid, or over 253 octets, takes a hash form instead (see `workload.rs`), so that
//! every workload has an identity:
//!
//! 1. the owner in hash form, when it has no literal one or the whole is too long;
//! 2. `conduit-hash-<digest>.conduit-managed.<control-plane namespace>.<trust domain>`, when that does not fit either;
//! 3. `conduit-hash-<digest>.conduit-managed.invalid`, when the control plane itself has no valid name. It belongs to no
//!    control plane, hence is never trusted.

use std::{fmt, sync::Arc};

use rustls_pki_types::{DnsName, ServerName};

use crate::workload::{ControlPlane, HASH_PREFIX, Workload, WorkloadKind, hash_form};

/// Stands between the workload and the control plane in every identity.
const MARKER: &str = "conduit-managed";

/// The longest DNS name, in octets (RFC 1035 section 2.3.4, less the root's).
const NAME_MAX: usize = 253;

/// An identity: a lower-case DNS name. Cheap to clone.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Identity(Arc<str>);

impl Identity {
    /// The identity of `workload` in `control_plane`. Every workload has one, if need be in hash form.
    pub fn of(workload: &Workload, control_plane: &ControlPlane) -> Self {
        let Workload { namespace, kind, .. } = workload;
        let suffix = control_plane.suffix();
        let with_owner = |owner: String| {
            is_label(namespace)
                .then(|| format!("{owner}.{kind}.{namespace}{suffix}"))
                .filter(|name| is_dns(name))
        };
        let name = with_owner(workload.short_owner())
            .or_else(|| with_owner(workload.hash_form()))
            .or_else(|| Some(format!("{}{suffix}", workload.hash_form())).filter(|name| is_dns(name)))
            .unwrap_or_else(|| format!("{}.{MARKER}.invalid", hash_form(&format!("{workload}{suffix}"))));
        Self(name.into())
    }

    /// Reads any DNS name in lower case, such as one from a certificate or a discovery answer.
    ///
    /// # Errors
    /// It is not one. A peer without a valid name has no identity: treat it as unmeshed.
    pub fn parse(name: &str) -> Result<Self, NameError> {
        if is_dns(name) { Ok(Self(name.into())) } else { Err(NameError { name: printable(name) }) }
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Whether `control_plane` gave this name.
    pub fn belongs_to(&self, control_plane: &ControlPlane) -> bool {
        self.0.strip_suffix(control_plane.suffix().as_str()).is_some_and(|workload| !workload.is_empty())
    }

    /// The workload that `control_plane` gave this name; none for another control plane's, and for hash forms.
    pub fn workload_in(&self, control_plane: &ControlPlane) -> Option<Workload> {
        read_workload(self.0.strip_suffix(control_plane.suffix().as_str())?)
    }

    /// The workload of this name in whichever control plane; none when the name is no workload's, and for hash forms.
    ///
    /// A control plane in a namespace called `conduit-managed` makes this ambiguous: use [`Identity::workload_in`]
    /// where the control plane is known.
    pub fn workload(&self) -> Option<Workload> {
        let labels: Vec<&str> = self.0.split('.').collect();
        // At least owner, kind and namespace before the marker, a namespace and a trust domain after it.
        let markers = (3..labels.len().saturating_sub(2)).rev().filter(|&at| labels[at] == MARKER);
        markers.map(|at| labels[..at].join(".")).find_map(|name| read_workload(&name))
    }

    pub(crate) fn server_name(&self) -> Result<ServerName<'static>, NameError> {
        let refused = |_| NameError { name: self.0.to_string() };
        DnsName::try_from(self.0.to_string()).map(ServerName::DnsName).map_err(refused)
    }
}

impl fmt::Display for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for Identity {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Identity({})", self.0)
    }
}

/// What was given is not a DNS name in lower case.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{name:?} is not an identity: a DNS name in lower case of at most {NAME_MAX} octets is")]
pub struct NameError {
    /// What was given, shortened.
    pub name: String,
}

impl ControlPlane {
    fn suffix(&self) -> String {
        format!(".{MARKER}.{}.{}", self.namespace, self.trust_domain)
    }
}

/// Reads `<owner>.<kind>.<namespace>` from the right.
fn read_workload(name: &str) -> Option<Workload> {
    let mut parts = name.rsplitn(3, '.');
    let namespace = parts.next()?.to_owned();
    let kind = WorkloadKind::parse(parts.next()?)?;
    let owner = parts.next()?.to_owned();
    (!owner.starts_with(HASH_PREFIX)).then_some(Workload { namespace, kind, name: owner })
}

/// Whether `name` is a DNS name in lower case, without a final dot, whose last label is not a number (an address).
fn is_dns(name: &str) -> bool {
    let last = name.rsplit('.').next().unwrap_or_default();
    is_dotted_labels(name) && !last.bytes().all(|octet| octet.is_ascii_digit())
}

/// Whether `name` can be the left part of a DNS name, as every Kubernetes object's name can.
pub(crate) fn is_dotted_labels(name: &str) -> bool {
    name.len() <= NAME_MAX && name.split('.').all(is_label)
}

fn is_label(label: &str) -> bool {
    let inner =
        |octet: u8| octet.is_ascii_lowercase() || octet.is_ascii_digit() || octet == b'-' || octet == b'_';
    (1..=63).contains(&label.len())
        && label.bytes().all(inner)
        && !label.starts_with('-')
        && !label.ends_with('-')
}

/// What a peer sent, fit for a log line.
fn printable(name: &str) -> String {
    name.chars().take(NAME_MAX).collect()
}
