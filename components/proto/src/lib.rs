//! The gRPC contracts between Conduit's parts.
//!
//! - `proto/conduit/*.proto`: the contracts themselves, with the meaning of every field
//! - `src/gen`: what tonic generates from them, committed so that a build needs neither protoc nor a build script;
//!   `tests/generated.rs` regenerates it and fails when the two differ
//!
//! Generated items carry the comments of their `.proto`.

/// Where an authority or an address leads, and who answers there.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod destination {
    include!("gen/conduit.destination.rs");
}

/// When a pod's application has ended, so that its proxy can end too.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod lifecycle {
    include!("gen/conduit.lifecycle.rs");
}

/// Live requests, as the proxies see them.
#[allow(missing_docs, unreachable_pub, clippy::all, reason = "generated")]
pub mod tap {
    include!("gen/conduit.tap.rs");
}
