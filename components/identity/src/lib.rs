//! Who is who in the mesh, and TLS between them: the same code in every process of Conduit, and in the simulation.
//!
//! - `workload.rs`: [`Workload`], what has a name; [`ControlPlane`], what gives it
//! - `name.rs`: [`Identity`], the name
//! - `credentials.rs`: [`Credentials`], what proves it; `trust.rs`: [`TrustBundle`], whom we believe
//! - `verify.rs`: judging certificates; `tls.rs`: [`connect`] and [`accept`]; `presented.rs`: [`inspect`], what a server shows
//! - `store.rs`: [`Store`], what we hold at this moment; `files.rs`: [`watch`], where it comes from
//! - `clock.rs`: [`Clock`], wall-clock time; `crypto.rs`: [`Crypto`]: both are passed in
//!
//! The flow: `watch` reads three files and gives them to `Store::load`, which takes them only if a peer would. Whoever
//! opens or accepts a connection asks `Store::current` at that moment and gets [`Loaded`], or the reason for plaintext.
//!
//! What holds:
//!
//! - An outbound handshake succeeds only with a server that proves exactly the name it was asked for, at that moment.
//! - An inbound handshake succeeds with any client that speaks TLS 1.3; it is [`ClientPeer::Verified`] only if its
//!   certificate verifies at that moment.
//! - No session is resumed, so every connection has seen certificates.
//! - Certificates are judged by the passed clock, when they are loaded and at each use.
//! - A failed load takes nothing away.
//! - Keys are never shown, and our copies of key files are overwritten.
//!
//! Deliberately absent: deadlines (the caller's), falling back to plaintext (the proxy's), reading names out of a
//! ClientHello that is not ours to answer (the proxy's), revocation (certificates live for a day).

mod clock;
mod credentials;
mod crypto;
mod files;
mod name;
mod presented;
mod store;
mod tls;
mod trust;
mod verify;
mod workload;

pub use clock::{Clock, ManualClock, SystemClock, UnixTime};
pub use credentials::{Credentials, Fingerprint, LoadError, Pem};
pub use crypto::{Crypto, KeyAlgorithm};
pub use files::{Files, ReadError, ReloadResult, watch};
pub use name::{Identity, NameError};
pub use presented::{Certificate, Presented, inspect};
pub use store::{Store, Unusable, Version};
pub use tls::{ALPN, HandshakeError, HandshakeFailure, Loaded, ServerPeer, accept, connect, refuse_alert};
pub use trust::{NoAnchors, TrustBundle};
pub use verify::ClientPeer;
pub use workload::{ControlPlane, Workload, WorkloadKind};
