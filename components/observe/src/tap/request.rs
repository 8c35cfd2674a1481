//! The parameters of `/api/v1/tap`, and the condition that the proxies are given. Pure.

use std::sync::Arc;

use conduit_proto::tap::{Match, r#match as kinds};

use crate::{
    inventory::{Inventory, Pod},
    kind::Kind,
    query::{Invalid, Selection, parse_resource},
    selector::Selector,
};

/// Requests a second when none are given: v0.5.0's default.
const DEFAULT_MAX_RPS: f64 = 1.0;
/// The most requests a second: what a person can see is far less, and each proxy pays for what it tells.
const MAX_RPS: f64 = 1000.0;
/// Pods of `to` that are told apart by address; their labels tell the others apart.
const MAX_ADDRESSES: usize = 100;
/// Octets of a value to match.
const MAX_VALUE: usize = 4096;

/// The parameters there are, in alphabetical order.
pub(crate) const PARAMETERS: [&str; 13] = [
    "all_namespaces",
    "authority",
    "max_rps",
    "method",
    "name",
    "namespace",
    "path",
    "scheme",
    "selector",
    "tls",
    "to",
    "to_namespace",
    "type",
];

/// What to tap.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct TapQuery {
    /// Whose proxies.
    pub(crate) target: Selection,
    /// Only the proxies of pods with such labels.
    pub(crate) selector: Option<Selector>,
    /// Only requests to these.
    pub(crate) to: Option<Selection>,
    /// Only requests that are such.
    pub(crate) http: Vec<Http>,
    /// Only requests that crossed between pods so.
    pub(crate) tls: Option<Tls>,
    /// Requests a second over all proxies.
    pub(crate) max_rps: f64,
}

/// How a request crosses between pods.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Tls {
    Encrypted,
    /// In the clear, or not at all.
    Clear,
    /// As this `tls` label says.
    Because(String),
}

/// A condition on a request.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Http {
    Scheme(String),
    Method(String),
    Authority(String),
    /// What the path begins with.
    Path(String),
}

impl TapQuery {
    /// Reads the parameters. An empty value is an absent one.
    pub(crate) fn read(pairs: &[(String, String)]) -> Result<Self, Invalid> {
        let mut values = std::collections::BTreeMap::new();
        for (name, value) in pairs {
            let Some(known) = PARAMETERS.into_iter().find(|known| known == name) else {
                let remedy = format!("no such parameter; there are {}", PARAMETERS.join(", "));
                return Err(Invalid::new("parameter", name, &remedy));
            };
            if value.len() > MAX_VALUE {
                return Err(Invalid::new(known, value, &format!("at most {MAX_VALUE} octets")));
            }
            if !value.is_empty() && values.insert(known, value.as_str()).is_some() {
                return Err(Invalid::new(known, value, "given twice"));
            }
        }
        let get = |name: &str| values.get(name).copied();
        let all =
            get("all_namespaces").map(|value| crate::request::truth("all_namespaces", value)).transpose()?;
        let namespace = get("namespace").filter(|_| all != Some(true));
        let target = resource("type", get("type").unwrap_or_default(), get("name"), namespace)?;
        if matches!(target.kind, Kind::Authority) {
            let why = "an authority has no proxy; tap its clients and filter by authority, or tap the pods behind it";
            return Err(Invalid::new("type", get("type").unwrap_or_default(), why));
        }
        let to = match (get("to"), get("to_namespace")) {
            (Some(to), to_namespace) => Some(resource("to", to, None, to_namespace.or(namespace))?),
            (None, Some(name)) => {
                Some(Selection { kind: Kind::Namespace, namespace: None, name: Some(name.to_owned()) })
            }
            (None, None) => None,
        };
        let text = |name, http: fn(String) -> Http| get(name).map(|value: &str| http(value.to_owned()));
        let http = [
            text("scheme", Http::Scheme),
            // Every registered method is in capitals, and people write them as they like.
            get("method").map(|method| Http::Method(method.to_ascii_uppercase())),
            text("authority", Http::Authority),
            text("path", Http::Path),
        ];
        Ok(Self {
            target,
            selector: get("selector").map(crate::request::selector).transpose()?,
            to,
            http: http.into_iter().flatten().collect(),
            tls: get("tls").map(tls).transpose()?,
            max_rps: get("max_rps").map_or(Ok(DEFAULT_MAX_RPS), max_rps)?,
        })
    }

    /// The pods whose proxies are asked.
    pub(crate) fn pods(&self, inventory: &Inventory) -> Vec<Arc<Pod>> {
        let Selection { kind, namespace, name } = &self.target;
        let mut pods = inventory.pods_of(*kind, namespace.as_deref(), name.as_deref());
        let chosen = |pod: &Arc<Pod>| self.selector.as_ref().is_none_or(|one| one.matches(&pod.labels));
        pods.retain(chosen);
        pods
    }

    /// The condition that each proxy holds its requests against.
    pub(crate) fn condition(&self, inventory: &Inventory) -> Match {
        let mut all: Vec<Match> = self.http.iter().map(http).collect();
        all.extend(self.to.as_ref().map(|to| destination(to, inventory)));
        all.extend(self.tls.as_ref().map(crossing));
        matching(kinds::Match::All(kinds::Seq { matches: all }))
    }

    /// Requests that one proxy is asked for at a time: all of a second's might be its own.
    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "from 1 to MAX_RPS")]
    pub(crate) fn batch(&self) -> u32 {
        self.max_rps.ceil().max(1.0) as u32
    }
}

fn resource(
    parameter: &'static str,
    text: &str,
    given_name: Option<&str>,
    namespace: Option<&str>,
) -> Result<Selection, Invalid> {
    let (Some(kind), name) = parse_resource(parameter, text)? else {
        return Err(Invalid::new(parameter, text, "all is no one thing; name a type"));
    };
    if name.is_some() && given_name.is_some() {
        return Err(Invalid::new("name", given_name.unwrap_or_default(), "the type names one already"));
    }
    let name = name.or(given_name.map(str::to_owned));
    let namespace = namespace.filter(|_| kind != Kind::Namespace).map(str::to_owned);
    // A namespace without a name is the one that the command is about.
    Ok(Selection { kind, namespace, name })
}

fn tls(value: &str) -> Result<Tls, Invalid> {
    match value {
        "true" => Ok(Tls::Encrypted),
        "false" => Ok(Tls::Clear),
        reason if reason.bytes().all(|octet| octet.is_ascii_lowercase() || octet == b'_') => {
            Ok(Tls::Because(reason.to_owned()))
        }
        other => Err(Invalid::new("tls", other, "write true, false, or a reason as `stat -o wide` shows it")),
    }
}

fn crossing(tls: &Tls) -> Match {
    let encrypted = label("tls", "true");
    match tls {
        Tls::Encrypted => encrypted,
        Tls::Clear => matching(kinds::Match::Not(Box::new(encrypted))),
        Tls::Because(reason) => label("tls", reason),
    }
}

fn max_rps(value: &str) -> Result<f64, Invalid> {
    let wrong = || Invalid::new("max_rps", value, &format!("write a number above 0, at most {MAX_RPS}"));
    let number: f64 = value.parse().map_err(|_| wrong())?;
    if number > 0.0 && number <= MAX_RPS { Ok(number) } else { Err(wrong()) }
}

fn http(http: &Http) -> Match {
    let text = |text: kinds::string_match::Match| kinds::StringMatch { r#match: Some(text) };
    let exact = |value: &String| text(kinds::string_match::Match::Exact(value.clone()));
    let condition = match http {
        Http::Scheme(scheme) => kinds::http::Match::Scheme(scheme.clone()),
        Http::Method(method) => kinds::http::Match::Method(method.clone()),
        Http::Authority(authority) => kinds::http::Match::Authority(exact(authority)),
        Http::Path(prefix) => {
            kinds::http::Match::Path(text(kinds::string_match::Match::Prefix(prefix.clone())))
        }
    };
    matching(kinds::Match::Http(kinds::Http { r#match: Some(condition) }))
}

/// A request goes to `to` when its destination is labelled so, or is the address of one of the pods that are: the labels
/// come from the destination service, and it may not have answered.
fn destination(to: &Selection, inventory: &Inventory) -> Match {
    if let (Kind::Authority, Some(name)) = (to.kind, &to.name) {
        return http(&Http::Authority(name.clone()));
    }
    let own = to.name.iter().map(|name| label(to.kind.metric_label(), name));
    let namespace = to.namespace.iter().map(|namespace| label("namespace", namespace));
    let labelled: Vec<Match> = own.chain(namespace).collect();
    let pods = inventory.pods_of(to.kind, to.namespace.as_deref(), to.name.as_deref());
    let addressed = pods.iter().filter_map(|pod| pod.ip).take(MAX_ADDRESSES).map(|ip| {
        let bits = if ip.is_ipv4() { 32 } else { 128 };
        let network = kinds::tcp::Match::Network(format!("{ip}/{bits}"));
        matching(kinds::Match::Destination(kinds::Tcp { r#match: Some(network) }))
    });
    let labelled =
        (!labelled.is_empty()).then(|| matching(kinds::Match::All(kinds::Seq { matches: labelled })));
    matching(kinds::Match::Any(kinds::Seq { matches: labelled.into_iter().chain(addressed).collect() }))
}

fn label(key: &str, value: &str) -> Match {
    matching(kinds::Match::DestinationLabel(kinds::Label { key: key.to_owned(), value: value.to_owned() }))
}

fn matching(condition: kinds::Match) -> Match {
    Match { r#match: Some(condition) }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::testing::pod;

    fn read(pairs: &[(&str, &str)]) -> Result<TapQuery, Invalid> {
        let owned: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        TapQuery::read(&owned)
    }

    #[test]
    fn parameters_are_read_with_their_defaults() {
        let query = read(&[("type", "deploy/web"), ("namespace", "shop"), ("method", "get"), ("path", "/a")])
            .unwrap();
        let target =
            Selection { kind: Kind::Deployment, namespace: Some("shop".into()), name: Some("web".into()) };
        let http = vec![Http::Method("GET".into()), Http::Path("/a".into())];
        assert_eq!(query, TapQuery { target, selector: None, to: None, http, tls: None, max_rps: 1.0 });
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cases: [(&str, &[(&str, &str)]); 8] = [
            ("tls", &[("type", "po"), ("tls", "TLS 1.3")]),
            ("type", &[]),
            ("type", &[("type", "all")]),
            ("type", &[("type", "au/web.shop:80")]),
            ("to", &[("type", "po"), ("to", "widgets")]),
            ("max_rps", &[("type", "po"), ("max_rps", "0")]),
            ("max_rps", &[("type", "po"), ("max_rps", "NaN")]),
            ("parameter", &[("type", "po"), ("window", "1m")]),
        ];
        for (parameter, pairs) in cases {
            assert_eq!(read(pairs).unwrap_err().parameter, parameter, "{pairs:?}");
        }
    }

    #[test]
    fn pods_are_chosen_by_their_labels() {
        let mut inventory = Inventory::default();
        for name in ["web", "db"] {
            let pod = pod("shop", name, 1);
            inventory.pods.insert(pod.name.clone(), Arc::new(pod));
        }
        let query = read(&[("type", "ns/shop"), ("selector", "app=db")]).unwrap();
        let names: Vec<_> = query.pods(&inventory).iter().map(|pod| pod.name.name.clone()).collect();
        assert_eq!(names, ["db-1"]);
    }

    #[test]
    fn without_filters_every_request_is_wanted() {
        let condition = read(&[("type", "po")]).unwrap().condition(&Inventory::default());
        assert_eq!(condition, matching(kinds::Match::All(kinds::Seq { matches: Vec::new() })));
    }

    #[test]
    fn requests_are_told_apart_by_how_they_cross() {
        let condition = |tls| {
            let condition = read(&[("type", "po"), ("tls", tls)]).unwrap().condition(&Inventory::default());
            let Some(kinds::Match::All(all)) = condition.r#match else { panic!("not all") };
            all.matches[0].clone()
        };
        let encrypted = label("tls", "true");
        assert_eq!(condition("true"), encrypted);
        assert_eq!(condition("false"), matching(kinds::Match::Not(Box::new(encrypted))));
        assert_eq!(condition("no_identity"), label("tls", "no_identity"));
    }

    #[test]
    fn a_destination_is_known_by_its_labels_or_its_pods_addresses() {
        let mut inventory = Inventory::default();
        for (number, ip) in [(1, Some("10.0.0.7")), (2, Some("fd00::7")), (3, None)] {
            let pod = Pod { ip: ip.map(|ip| ip.parse().unwrap()), ..pod("shop", "db", number) };
            inventory.pods.insert(pod.name.clone(), Arc::new(pod));
        }
        let query = read(&[("type", "deploy/web"), ("namespace", "shop"), ("to", "deploy/db")]).unwrap();
        let Some(kinds::Match::All(all)) = query.condition(&inventory).r#match else { panic!("not all") };
        let Some(kinds::Match::Any(any)) = &all.matches[0].r#match else { panic!("not any") };
        let text = format!("{:?}", any.matches);
        for part in ["\"deployment\"", "\"db\"", "\"namespace\"", "\"shop\"", "10.0.0.7/32", "fd00::7/128"] {
            assert!(text.contains(part), "{part} is not in {text}");
        }
        assert_eq!(any.matches.len(), 3);
    }

    #[test]
    fn a_proxy_is_asked_for_at_least_one_request_and_for_no_more_than_a_second_has() {
        let batch = |max_rps| read(&[("type", "po"), ("max_rps", max_rps)]).unwrap().batch();
        assert_eq!(["0.1", "1", "1.5", "100"].map(batch), [1, 1, 2, 100]);
    }
}
