//! What an authority can mean to a pod: the Services and pods that cluster DNS would look for, in its order. Pure.
//!
//! A pod's resolver completes a name with `<namespace>.svc.<zone>`, `svc.<zone>` and `<zone>`, and takes the first that
//! exists. Which of them exist changes with the cluster, so a name becomes a list of candidates, all of which are
//! watched: `web-0.web` is the pod `web-0` of the headless Service `web`, or else the Service `web-0` in the namespace
//! `web`. What has no candidate belongs to the rest of the world.

use std::net::{IpAddr, SocketAddr};

use conduit_k8s::watch::ObjectKey;

/// The port of an authority without one.
const DEFAULT_PORT: u16 = 80;

/// One thing that can be looked up.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub enum Target {
    /// A port of a Service.
    Service(ObjectKey, u16),
    /// A port of the one pod that a Service's DNS name with a label in front names: its hostname, or its address with
    /// dashes.
    Pod(ObjectKey, String, u16),
    /// A ClusterIP's port, or a pod's.
    Address(SocketAddr),
}

/// What a client asks about: the first candidate that exists is the answer.
#[derive(Debug, Clone, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Query {
    /// In the order of DNS.
    pub candidates: Vec<Target>,
}

impl Query {
    /// What `address` ("ip:port", IPv6 in brackets) asks about; none when it is not one.
    pub fn of_address(address: &str) -> Option<Self> {
        address.parse().ok().map(Self::address)
    }

    /// What `authority` ("host[:port]") asks about, seen from a pod of `namespace` in a cluster with the DNS zone `zone`.
    /// No authority is an error: what cannot be one has no candidates.
    pub fn of_authority(authority: &str, namespace: &str, zone: &str) -> Self {
        let Some((host, port)) = split(authority) else { return Self::default() };
        let literal = host.trim_start_matches('[').trim_end_matches(']');
        if let Ok(ip) = literal.parse() {
            return Self::address(SocketAddr::new(ip, port));
        }
        let host = host.to_ascii_lowercase();
        let candidates = match host.strip_suffix('.') {
            // In every pod's /etc/hosts, which comes before DNS.
            None if host == "localhost" => Vec::new(),
            Some(absolute) => vec![absolute.to_owned()],
            None => searched(&host, &namespace.to_ascii_lowercase(), zone),
        };
        let zone: Vec<String> = zone.to_ascii_lowercase().split('.').map(str::to_owned).collect();
        Self { candidates: candidates.iter().filter_map(|name| target(name, &zone, port)).collect() }
    }

    fn address(address: SocketAddr) -> Self {
        let address = SocketAddr::new(address.ip().to_canonical(), address.port());
        Self { candidates: vec![Target::Address(address)] }
    }
}

/// "host" and "port". An IPv6 address has its brackets, or no port.
fn split(authority: &str) -> Option<(&str, u16)> {
    if authority.parse::<IpAddr>().is_ok() || authority.ends_with(']') {
        return Some((authority, DEFAULT_PORT));
    }
    match authority.rsplit_once(':') {
        None => Some((authority, DEFAULT_PORT)),
        Some((host, port)) => {
            let port = port.parse().ok().filter(|port| *port != 0)?;
            Some((host, port))
        }
    }
}

/// The names a resolver tries for `host`, the last one as it was given.
fn searched(host: &str, namespace: &str, zone: &str) -> Vec<String> {
    let mut names = Vec::with_capacity(4);
    if !namespace.is_empty() {
        names.push(format!("{host}.{namespace}.svc.{zone}"));
    }
    names.extend([format!("{host}.svc.{zone}"), format!("{host}.{zone}"), host.to_owned()]);
    names
}

/// What the absolute `name` names, if it is one that cluster DNS gives out: `service.namespace.svc.<zone>` with at most
/// one label in front, or `address.namespace.pod.<zone>`.
fn target(name: &str, zone: &[String], port: u16) -> Option<Target> {
    if name.len() > 253 {
        return None;
    }
    let labels: Vec<&str> = name.split('.').collect();
    let (name, suffix) = labels.split_at_checked(labels.len().checked_sub(zone.len())?)?;
    if suffix != zone || !name.iter().all(|label| is_label(label)) {
        return None;
    }
    match name {
        [service, namespace, "svc"] => Some(Target::Service(ObjectKey::new(*namespace, *service), port)),
        [pod, service, namespace, "svc"] => {
            Some(Target::Pod(ObjectKey::new(*namespace, *service), (*pod).to_owned(), port))
        }
        [address, _, "pod"] => Some(Target::Address(SocketAddr::new(dashed(address)?, port))),
        _ => None,
    }
}

fn is_label(label: &str) -> bool {
    (1..=63).contains(&label.len())
        && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || matches!(octet, b'-' | b'_'))
}

/// The address that "10-1-0-7" or "fd00--7" stands for.
pub fn dashed(label: &str) -> Option<IpAddr> {
    label.replace('-', ".").parse().or_else(|_| label.replace('-', ":").parse()).ok()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn candidates(authority: &str) -> Vec<String> {
        let query = Query::of_authority(authority, "shop", "cluster.local");
        let told = |target: Target| match target {
            Target::Service(key, port) => format!("{key}:{port}"),
            Target::Pod(key, pod, port) => format!("{pod} of {key}:{port}"),
            Target::Address(address) => address.to_string(),
        };
        query.candidates.into_iter().map(told).collect()
    }

    #[test]
    fn names_mean_what_cluster_dns_would_look_for() {
        let table: [(&str, &[&str]); 24] = [
            ("web", &["shop/web:80"]),
            ("WEB:8080", &["shop/web:8080"]),
            ("web.bank", &["web of shop/bank:80", "bank/web:80"]),
            ("web.bank.svc", &["web of svc/bank:80", "bank/web:80"]),
            ("web.bank.SVC:443", &["web of svc/bank:443", "bank/web:443"]),
            ("web.bank.svc.cluster.local", &["bank/web:80"]),
            ("Web.Bank.Svc.Cluster.Local.:81", &["bank/web:81"]),
            ("db-0.db", &["db-0 of shop/db:80", "db/db-0:80"]),
            ("db-0.db.bank", &["db-0 of bank/db:80"]),
            ("db-0.db.bank.svc", &["db-0 of bank/db:80"]),
            ("db-0.db.bank.svc.cluster.local", &["db-0 of bank/db:80"]),
            ("10-1-0-7.bank.pod", &["10-1-0-7 of pod/bank:80", "10.1.0.7:80"]),
            ("10-1-0-7.bank.pod.cluster.local:81", &["10.1.0.7:81"]),
            ("fd00--7.bank.pod.cluster.local", &["[fd00::7]:80"]),
            ("10.1.0.7:81", &["10.1.0.7:81"]),
            ("10.1.0.7", &["10.1.0.7:80"]),
            ("[fd00::1]:81", &["[fd00::1]:81"]),
            ("[fd00::1]", &["[fd00::1]:80"]),
            ("[::ffff:10.1.0.7]:81", &["10.1.0.7:81"]),
            // A name that ends in a dot is complete.
            ("web.", &[]),
            ("web.bank.svc.", &[]),
            ("web.bank.svc.example.org", &[]),
            ("www.shop.example.com", &[]),
            // As DNS has it: the pod "www" of the Service "example" in the namespace "com", if there is one.
            ("www.example.com", &["www of com/example:80"]),
        ];
        for (authority, expected) in table {
            assert_eq!(candidates(authority), expected, "{authority}");
        }
    }

    #[test]
    fn what_is_no_authority_has_no_candidates() {
        for authority in [
            "",
            ":80",
            "localhost:80",
            "web:0",
            "web:x",
            "web:70000",
            "a b",
            "web..svc",
            "user@web",
            "web:80:90",
            ".",
        ] {
            assert_eq!(candidates(authority), Vec::<String>::new(), "{authority}");
        }
    }

    #[test]
    fn without_a_namespace_short_names_mean_nothing() {
        let query = Query::of_authority("web", "", "cluster.local");
        assert_eq!(query, Query::default());
    }

    proptest! {
        #[test]
        fn no_text_makes_it_panic(authority in "\\PC*", namespace in "\\PC*", zone in "\\PC*") {
            drop(Query::of_authority(&authority, &namespace, &zone));
            drop(Query::of_address(&authority));
        }
    }
}
