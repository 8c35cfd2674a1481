//! The destination service on real loopback sockets, in front of an API server that speaks HTTP.

mod answers;
mod outages;
mod slow;
mod tls;
mod world;
