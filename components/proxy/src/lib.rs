//! The sidecar: everything that enters or leaves an application's pod passes through it, encrypted and authenticated
//! where both ends can, and unharmed where they cannot.
mod balance;
mod discover;
mod metrics;
mod session;
mod tap;
