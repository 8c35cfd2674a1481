//! Parameters that are given once at most, by name.

use std::collections::BTreeMap;

use crate::{kind::Kind, query::Invalid, request::values};

/// What was given, by name; empty values count as not given.
pub(super) struct Given<'a>(BTreeMap<&'static str, &'a str>);

impl<'a> Given<'a> {
    /// Reads `pairs`, of which `known` are all there are.
    pub(super) fn read(pairs: &'a [(String, String)], known: &[&'static str]) -> Result<Self, Invalid> {
        Ok(Self(values(pairs, known)?))
    }

    pub(super) fn get(&self, name: &str) -> Option<&'a str> {
        self.0.get(name).copied()
    }

    /// The value of a parameter that there must be; `remedy` says what it is.
    pub(super) fn must(&self, name: &'static str, remedy: &str) -> Result<&'a str, Invalid> {
        self.get(name).ok_or_else(|| Invalid::new(name, "", remedy))
    }
}

/// Reads `deploy/web`, and `web-1` alone as a pod.
pub(super) fn workload(parameter: &'static str, text: &str) -> Result<(Kind, String), Invalid> {
    let written = if text.contains('/') { text.to_owned() } else { format!("pod/{text}") };
    match crate::query::parse_resource(parameter, &written)? {
        (Some(kind), Some(name)) if kind.is_workload() || kind == Kind::Service => Ok((kind, name)),
        _ => Err(Invalid::new(parameter, text, "name a pod, or TYPE/NAME of a workload or a service")),
    }
}
