//! What a connection carries, from its first bytes. Pure: a function of the bytes seen so far, so that any split of them
//! leads to the same answer, and a prefix never leads to a different one.

mod client_hello;
mod head;

pub use client_hello::{ClientHello, begins_like_hello, client_hello};
pub use head::{MAX_HEAD_BYTES, MAX_HEADERS, Protocol, protocol};
