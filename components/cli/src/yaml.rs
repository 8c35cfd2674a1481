//! YAML and JSON text, read and edited without disturbing what is not meant.
//!
//! - `split.rs`: a stream into documents, each with its own bytes
//! - `value.rs`: what a document means, as Kubernetes' readers take it
//! - `tree.rs`: where in the text each part of it stands
//! - `place.rs`: lines and columns
//! - `edit.rs`: replacing ranges of a text
//! - `emit.rs`: new text in the style of its surroundings

pub mod edit;
pub mod emit;
pub mod place;
pub mod split;
pub mod tree;
pub mod value;
