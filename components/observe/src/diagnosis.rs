//! What is known of every proxy and of the control plane, for `conduit check`, `identity` and `diagnostics`: as JSON has
//! it, written by the API and read by the CLI. Times are in RFC 3339.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

/// Of these schemas; grows only when a reader has to change.
pub const VERSION: u32 = 1;

/// What the proxies say of themselves.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Proxies {
    /// Of this schema.
    pub version: u32,
    /// By namespace and name of the pod.
    pub proxies: Vec<ProxyItem>,
}

/// One proxy.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct ProxyItem {
    /// The namespace of its pod.
    pub namespace: String,
    /// Its pod.
    pub pod: String,
    /// The workload that the pod belongs to, as `deploy/web`.
    pub workload: String,
    /// Whether the pod says that it is ready.
    pub ready: bool,
    /// Whether it was injected with TLS.
    pub tls_injected: bool,
    /// The version that was injected.
    pub proxy_version: Option<String>,
    /// `true` when it can do TLS at this moment, else the reason why not.
    pub tls: Option<String>,
    /// Since when that is so, as far as it was watched.
    pub since: Option<String>,
    /// The SHA-256 of the certificate it holds.
    pub fingerprint: Option<String>,
    /// Whom that proves it to be.
    pub identity: Option<String>,
    /// When that begins to be valid.
    pub not_before: Option<String>,
    /// When it stops being valid.
    pub not_after: Option<String>,
    /// What is wrong with the files that it has now.
    pub failing: Option<String>,
    /// Whether it reached the destination service at the last attempt.
    pub destination_up: Option<bool>,
    /// How far its clock is ahead of observe's, in milliseconds; negative when it is behind.
    pub clock_ahead_ms: Option<i64>,
    /// Why it could not be read the last time.
    pub failure: Option<String>,
}

/// The control plane, as observe sees it.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct ControlPlaneState {
    /// Of this schema.
    pub version: u32,
    /// Where it runs.
    pub namespace: String,
    /// What its identities end with.
    pub trust_domain: String,
    /// What time it is for observe, in milliseconds since 1970.
    pub now_ms: u64,
    /// Its pods, by component and name.
    pub pods: Vec<ComponentPod>,
}

/// A pod of the control plane.
#[derive(Debug, Clone, PartialEq, Default, Serialize, Deserialize)]
pub struct ComponentPod {
    /// `ca`, `destination` or `observe`.
    pub component: String,
    /// Its name.
    pub pod: String,
    /// Its phase, or `Terminating`.
    pub status: String,
    /// Whether it says that it is ready.
    pub ready: bool,
    /// How far its clock is ahead of observe's, in milliseconds.
    pub clock_ahead_ms: Option<i64>,
    /// Those of its metrics that have no labels, by name.
    pub metrics: BTreeMap<String, f64>,
    /// Why it cannot be asked.
    pub failure: Option<String>,
}

/// The certificates that proxies serve.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Identities {
    /// Of this schema.
    pub version: u32,
    /// One for each pod that was asked.
    pub pods: Vec<PodIdentity>,
}

/// What one proxy served in a handshake a moment ago.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct PodIdentity {
    /// The namespace of the pod.
    pub namespace: String,
    /// The pod.
    pub pod: String,
    /// The identity that others ask it for.
    pub expected: Option<String>,
    /// What it served: its certificate, then those of the issuers.
    pub chain: Vec<CertificateItem>,
    /// Whether the chain leads to a trusted root and is valid now; null without roots to judge by.
    pub trusted: Option<bool>,
    /// Whether the certificate is for the expected identity and no other.
    pub name_matches: bool,
    /// What is wrong: with the chain, or why there is none.
    pub problem: Option<String>,
}

/// A certificate.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct CertificateItem {
    /// Whose it is.
    pub subject: String,
    /// Who signed it.
    pub issuer: String,
    /// Its DNS names.
    pub dns_names: Vec<String>,
    /// Its URIs.
    pub uris: Vec<String>,
    /// In hexadecimal digits.
    pub serial: String,
    /// When it begins to be valid.
    pub not_before: String,
    /// When it stops being valid.
    pub not_after: String,
    /// The kind of its key.
    pub key: String,
    /// Its SHA-256.
    pub fingerprint: String,
}

/// What the destination service says of an authority.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Endpoints {
    /// Of this schema.
    pub version: u32,
    /// What was asked for.
    pub authority: String,
    /// From a pod of which namespace.
    pub namespace: String,
    /// The pod of the destination service that answered.
    pub answered_by: String,
    /// Whether it knows the authority; proxies go to the original destination otherwise.
    pub known: bool,
    /// The service, as `name.namespace.svc.<zone>:port`.
    pub service: Option<String>,
    /// Where it leads.
    pub endpoints: Vec<EndpointItem>,
}

/// One endpoint.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct EndpointItem {
    /// `ip:port`.
    pub address: String,
    /// The identity that proxies demand of it; null when it has none and is called in plaintext.
    pub identity: Option<String>,
    /// What metrics call it.
    pub labels: BTreeMap<String, String>,
}
