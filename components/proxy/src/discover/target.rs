//! What is looked up: an authority that can be a Service's name, or the address a connection was going to.

use std::{fmt, net::SocketAddr, sync::Arc};

use conduit_net::OriginalDst;
use conduit_proto::destination::{GetRequest, get_request};

/// What HTTP means when an authority names no port.
const DEFAULT_PORT: u16 = 80;

/// The longest label of a DNS name (RFC 1035 section 2.3.4).
const LABEL_MAX: usize = 63;
/// The longest DNS name, in octets (same section, less the root's).
const NAME_MAX: usize = 253;

/// Something the destination service can be asked for.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum Target {
    /// A name that can be a Service's, in one spelling: "name.namespace.svc[.zone]:port".
    Authority(Arc<str>),
    /// A ClusterIP or a pod.
    Address(SocketAddr),
}

impl Target {
    /// The address a connection was going to.
    pub(crate) fn of_address(original: OriginalDst) -> Self {
        Self::Address(SocketAddr::new(original.ip(), original.port()))
    }

    /// `authority` ("host[:port]") as seen from `namespace`; none when it cannot name a Service: the destination service
    /// is not asked for the rest of the world.
    pub(crate) fn of_authority(authority: &str, namespace: &str) -> Option<Self> {
        if let Ok(address) = authority.parse() {
            return Some(Self::Address(address));
        }
        let (host, port) = split_port(authority)?;
        if let Ok(ip) = host.trim_start_matches('[').trim_end_matches(']').parse() {
            return Some(Self::Address(SocketAddr::new(ip, port)));
        }
        let host = service_host(&host.to_ascii_lowercase(), namespace)?;
        Some(Self::Authority(format!("{host}:{port}").into()))
    }

    /// The question for the destination service.
    pub(crate) fn request(&self, namespace: &str) -> GetRequest {
        let target = match self {
            Self::Authority(authority) => get_request::Target::Authority(authority.to_string()),
            Self::Address(address) => get_request::Target::Address(address.to_string()),
        };
        GetRequest { target: Some(target), context_namespace: namespace.to_owned() }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Authority(authority) => f.write_str(authority),
            Self::Address(address) => address.fmt(f),
        }
    }
}

fn split_port(authority: &str) -> Option<(&str, u16)> {
    match authority.rsplit_once(':') {
        // A colon inside the brackets of an IPv6 address is not a port's.
        Some((host, port)) if !port.ends_with(']') => Some((host, port.parse().ok()?)),
        _ => Some((authority, DEFAULT_PORT)),
    }
}

/// `host` spelt out as "name.namespace.svc[.zone]", as the resolver's search list in a pod would; none when it cannot
/// be a Service's name. A final dot makes a name absolute: only the full form is a Service's then.
fn service_host(host: &str, namespace: &str) -> Option<String> {
    let (host, absolute) = match host.strip_suffix('.') {
        Some(host) => (host, true),
        None => (host, false),
    };
    if host.len() > NAME_MAX || !host.split('.').all(is_label) {
        return None;
    }
    let labels: Vec<&str> = host.splitn(4, '.').collect();
    match labels.as_slice() {
        ["localhost"] => None,
        [name] if !absolute => Some(format!("{name}.{namespace}.svc")),
        [name, namespace] if !absolute => Some(format!("{name}.{namespace}.svc")),
        [_, _, "svc"] if !absolute => Some(host.to_owned()),
        [_, _, "svc", _zone] => Some(host.to_owned()),
        _ => None,
    }
}

fn is_label(label: &str) -> bool {
    (1..=LABEL_MAX).contains(&label.len())
        && label.bytes().all(|octet| octet.is_ascii_alphanumeric() || octet == b'-' || octet == b'_')
        && !label.starts_with('-')
        && !label.ends_with('-')
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn authority(authority: &str) -> Option<String> {
        Target::of_authority(authority, "test").map(|target| target.to_string())
    }

    #[test]
    fn service_names_are_spelt_out_and_the_rest_of_the_world_is_not_asked_for() {
        let table = [
            ("web", Some("web.test.svc:80")),
            ("WEB:8080", Some("web.test.svc:8080")),
            ("web.emojivoto", Some("web.emojivoto.svc:80")),
            ("web.emojivoto.svc", Some("web.emojivoto.svc:80")),
            ("web.emojivoto.SVC:443", Some("web.emojivoto.svc:443")),
            ("web.emojivoto.svc.cluster.local", Some("web.emojivoto.svc.cluster.local:80")),
            ("web.emojivoto.svc.cluster.local.:81", Some("web.emojivoto.svc.cluster.local:81")),
            ("web.emojivoto.svc.example.org", Some("web.emojivoto.svc.example.org:80")),
            ("10.1.2.3:81", Some("10.1.2.3:81")),
            ("10.1.2.3", Some("10.1.2.3:80")),
            ("[fd00::1]:81", Some("[fd00::1]:81")),
            ("[fd00::1]", Some("[fd00::1]:80")),
            ("www.example.com", None),
            ("web.", None),
            ("web.emojivoto.", None),
            ("web.emojivoto.svc.", None),
            ("localhost", None),
            ("localhost.", None),
            ("pod-0.web.emojivoto.svc.cluster.local", None),
            ("web..svc", None),
            ("", None),
            (":80", None),
            ("web:port", None),
            ("web:99999", None),
            ("-web", None),
            ("we b", None),
        ];
        for (given, expected) in table {
            assert_eq!(authority(given).as_deref(), expected, "{given:?}");
        }
    }

    #[test]
    fn an_ipv4_destination_has_one_spelling() {
        let mapped = OriginalDst("[::ffff:10.0.0.1]:80".parse().unwrap());
        assert_eq!(Target::of_address(mapped).to_string(), "10.0.0.1:80");
    }

    proptest! {
        #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::default() })]

        #[test]
        fn whatever_a_client_writes_is_judged_without_a_panic(text in ".{0,300}") {
            if let Some(Target::Authority(name)) = Target::of_authority(&text, "test") {
                prop_assert_eq!(authority(&name), Some(name.to_string()), "one spelling only");
            }
        }
    }
}
