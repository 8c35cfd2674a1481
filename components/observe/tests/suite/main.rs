//! Observe as a process sees itself: a cluster's API, pods with proxies, and the HTTP API in front.

mod api;
mod support;
mod tap;
