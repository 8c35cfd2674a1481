//! One name for a service, however its clients write it: `emoji-svc`, `emoji-svc.emojivoto:80` and
//! `emoji-svc.emojivoto.svc.cluster.local` are the same row.

use std::fmt;

/// The port of an authority that names none: plain HTTP's.
const DEFAULT_PORT: u16 = 80;
/// The zone that `svc` names may always end in; others count when the Service exists.
const DEFAULT_ZONE: &str = "cluster.local";

/// An authority in the form that rows show: `name.namespace:port` of a Service, else `host:port` in lower case.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord)]
pub struct Authority {
    /// The Service it names, as (namespace, name).
    pub service: Option<(String, String)>,
    /// The host as shown, IPv6 in brackets.
    pub host: String,
    /// The port, 80 when the client named none.
    pub port: u16,
}

impl Authority {
    /// Reads what a client sent. `context_namespace` is where a short name is looked up, the client's namespace;
    /// `exists` says whether a Service (namespace, name) is known.
    ///
    /// None when it is empty: HTTP/1.0 without `Host`.
    pub fn read(text: &str, context_namespace: &str, exists: impl Fn(&str, &str) -> bool) -> Option<Self> {
        let (host, port) = split_port(text);
        let host = host.trim_end_matches('.').to_ascii_lowercase();
        if host.is_empty() {
            return None;
        }
        let service = service_of(&host, context_namespace, exists);
        let host = match &service {
            Some((namespace, name)) => format!("{name}.{namespace}"),
            // What came without brackets gets them, so that the port can be told apart.
            None if host.contains(':') && !(host.starts_with('[') && host.ends_with(']')) => {
                format!("[{host}]")
            }
            None => host,
        };
        Some(Self { service, host, port })
    }
}

impl fmt::Display for Authority {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.host, self.port)
    }
}

fn split_port(text: &str) -> (&str, u16) {
    match text.rsplit_once(':') {
        // A colon within brackets, or one of several without brackets, belongs to an IPv6 address.
        Some((host, port)) if !port.contains(']') && (!host.contains(':') || host.ends_with(']')) => {
            (host, port.parse().unwrap_or(DEFAULT_PORT))
        }
        _ => (text, DEFAULT_PORT),
    }
}

fn service_of(host: &str, context: &str, exists: impl Fn(&str, &str) -> bool) -> Option<(String, String)> {
    let mut labels = host.splitn(4, '.');
    let (name, namespace, svc, zone) = (labels.next()?, labels.next(), labels.next(), labels.next());
    let found = |namespace: &str| Some((namespace.to_owned(), name.to_owned()));
    match (namespace, svc, zone) {
        (None, _, _) => exists(context, name).then(|| found(context)).flatten(),
        (Some(namespace), None, _) => exists(namespace, name).then(|| found(namespace)).flatten(),
        (Some(namespace), Some("svc"), None | Some(DEFAULT_ZONE)) => found(namespace),
        (Some(namespace), Some("svc"), Some(_)) if exists(namespace, name) => found(namespace),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(text: &str) -> Option<String> {
        let exists = |namespace: &str, name: &str| (namespace, name) == ("shop", "web");
        Authority::read(text, "shop", exists).map(|authority| authority.to_string())
    }

    #[test]
    fn a_service_has_one_name_however_it_is_written() {
        for text in [
            "web",
            "web:80",
            "WEB.shop",
            "web.shop.svc",
            "web.shop.svc.cluster.local",
            "web.shop.svc.cluster.local.:80",
            "web.shop.svc.example.org",
        ] {
            assert_eq!(shown(text).as_deref(), Some("web.shop:80"), "{text}");
        }
        assert_eq!(shown("web.shop:8080").as_deref(), Some("web.shop:8080"));
    }

    #[test]
    fn what_is_no_known_service_stays_as_written() {
        let cases = [
            ("example.com", "example.com:80"),
            ("example.com:8443", "example.com:8443"),
            ("10.1.2.3:80", "10.1.2.3:80"),
            ("[fd00::1]:8080", "[fd00::1]:8080"),
            ("[fd00::1]", "[fd00::1]:80"),
            ("api", "api:80"),
            ("web.elsewhere", "web.elsewhere:80"),
            ("x.y.svc.example.org", "x.y.svc.example.org:80"),
            ("other.shop.svc", "other.shop:80"),
        ];
        for (text, expected) in cases {
            assert_eq!(shown(text).as_deref(), Some(expected), "{text}");
        }
        assert_eq!(shown(""), None);
        assert_eq!(shown(":80"), None);
    }

    proptest! {
        #[test]
        fn reading_what_is_shown_changes_nothing(text in "[a-z0-9.:\\[\\]-]{0,40}") {
            if let Some(once) = shown(&text) {
                prop_assert_eq!(shown(&once), Some(once.clone()));
            }
        }
    }
}
