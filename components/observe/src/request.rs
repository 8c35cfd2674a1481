//! The parameters of `/api/v1/stat`, as a [`Query`], and of `/api/v1/edges`. Pure.

use std::{collections::BTreeMap, time::Duration};

use crate::{
    edges::Grain,
    kind::Kind,
    query::{DEFAULT_WINDOW, Invalid, Query, Selection, check_window, parse_resource},
    selector::{NotASelector, Selector},
};

/// The parameters there are, in alphabetical order.
pub const PARAMETERS: [&str; 10] = [
    "all_namespaces",
    "from",
    "from_namespace",
    "name",
    "namespace",
    "selector",
    "to",
    "to_namespace",
    "type",
    "window",
];

/// The longest value of a parameter: no name of Kubernetes is longer than 253 octets.
const MAX_VALUE: usize = 512;

/// Reads the parameters of a stat query. An empty value is an absent one.
///
/// # Errors
/// The first parameter that is unknown, too long or cannot be used.
pub fn stat(pairs: &[(String, String)]) -> Result<Query, Invalid> {
    let values = values(pairs, &PARAMETERS)?;
    let get = |name: &str| values.get(name).copied();
    let Some(kind) = get("type") else {
        return Err(Invalid::new("type", "", "say what to show: TYPE, TYPE/NAME or all"));
    };
    let (kind, name) = parse_resource("type", kind)?;
    let all_namespaces = get("all_namespaces").map(|value| truth("all_namespaces", value)).transpose()?;
    let namespace = get("namespace").filter(|_| all_namespaces != Some(true)).map(str::to_owned);
    if name.is_some() && get("name").is_some() {
        return Err(Invalid::new("name", get("name").unwrap_or_default(), "the type names one already"));
    }
    let query = Query {
        kinds: kind.map_or_else(|| Kind::IN_ALL.to_vec(), |kind| vec![kind]),
        to: selection("to", get("to"), get("to_namespace"), namespace.as_deref())?,
        from: selection("from", get("from"), get("from_namespace"), namespace.as_deref())?,
        selector: get("selector").map(selector).transpose()?,
        name: name.or(get("name").map(str::to_owned)),
        window: get("window").map_or(Ok(DEFAULT_WINDOW), window)?,
        namespace,
    };
    query.validate()?;
    Ok(query)
}

/// The parameters of a question about edges, in alphabetical order.
pub const EDGES_PARAMETERS: [&str; 4] = ["all_namespaces", "namespace", "type", "window"];

/// One question about edges.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct EdgesQuery {
    /// Only edges of which one end is in this namespace.
    pub namespace: Option<String>,
    /// What ends are.
    pub grain: Grain,
    /// How far back.
    pub window: Duration,
}

/// Reads the parameters of a question about edges. An empty value is an absent one.
///
/// # Errors
/// The first parameter that is unknown, too long or cannot be used.
pub fn edges(pairs: &[(String, String)]) -> Result<EdgesQuery, Invalid> {
    let values = values(pairs, &EDGES_PARAMETERS)?;
    let get = |name: &str| values.get(name).copied();
    let all_namespaces = get("all_namespaces").map(|value| truth("all_namespaces", value)).transpose()?;
    let grain = match get("type").map(|kind| (kind, kind.parse())) {
        None | Some(("workload" | "workloads", _)) => Grain::Workloads,
        Some((_, Ok(Kind::Pod))) => Grain::Pods,
        Some((other, _)) => return Err(Invalid::new("type", other, "edges are between workloads or pods")),
    };
    let window = get("window").map_or(Ok(DEFAULT_WINDOW), window)?;
    check_window(window)?;
    let namespace = get("namespace").filter(|_| all_namespaces != Some(true)).map(str::to_owned);
    Ok(EdgesQuery { namespace, grain, window })
}

/// What was given, by name; an empty value is an absent one. Of the parameters, `known` are all there are.
pub(crate) fn values<'a>(
    pairs: &'a [(String, String)],
    known: &[&'static str],
) -> Result<BTreeMap<&'static str, &'a str>, Invalid> {
    let mut values = BTreeMap::new();
    for (name, value) in pairs {
        let Some(known) = known.iter().copied().find(|known| known == name) else {
            let remedy = match known {
                [] => "no such parameter; there are none here".to_owned(),
                known => format!("no such parameter; there are {}", known.join(", ")),
            };
            return Err(Invalid::new("parameter", name, &remedy));
        };
        if value.len() > MAX_VALUE {
            return Err(Invalid::new(known, value, &format!("at most {MAX_VALUE} octets")));
        }
        if !value.is_empty() && values.insert(known, value.as_str()).is_some() {
            return Err(Invalid::new(known, value, "given twice"));
        }
    }
    Ok(values)
}

fn selection(
    parameter: &'static str,
    resource: Option<&str>,
    namespace: Option<&str>,
    target_namespace: Option<&str>,
) -> Result<Option<Selection>, Invalid> {
    let Some(resource) = resource else {
        // A namespace alone: whatever is in it.
        let named =
            |name: &str| Selection { kind: Kind::Namespace, namespace: None, name: Some(name.to_owned()) };
        return Ok(namespace.map(named));
    };
    let (Some(kind), name) = parse_resource(parameter, resource)? else {
        return Err(Invalid::new(parameter, resource, "all is no one thing; name a type"));
    };
    let namespace = match kind {
        // A namespace is in none, and an authority names its own.
        Kind::Namespace => None,
        Kind::Authority => namespace,
        _ => namespace.or(target_namespace),
    };
    Ok(Some(Selection { kind, namespace: namespace.map(str::to_owned), name }))
}

/// Reads conditions on labels.
///
/// # Errors
/// They are none.
pub fn selector(value: &str) -> Result<Selector, Invalid> {
    value.parse().map_err(|error: NotASelector| Invalid::new("selector", value, &error.to_string()))
}

/// Reads `true` or `false`.
///
/// # Errors
/// It is neither.
pub fn truth(parameter: &'static str, value: &str) -> Result<bool, Invalid> {
    value.parse().map_err(|_| Invalid::new(parameter, value, "write true or false"))
}

/// Reads a window: whole numbers with `ms`, `s`, `m` or `h`, several in a row add up, as in `1m30s`.
///
/// # Errors
/// It is not of that form.
pub fn window(value: &str) -> Result<Duration, Invalid> {
    let wrong = || Invalid::new("window", value, "write a duration such as 30s, 1m or 1m30s");
    let mut total = Duration::ZERO;
    let mut rest = value;
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).ok_or_else(wrong)?;
        let after = &rest[digits..];
        let unit = after.find(|c: char| c.is_ascii_digit()).unwrap_or(after.len());
        let part = conduit_runtime::env::duration(&rest[..digits + unit]).map_err(|_| wrong())?;
        total = total.checked_add(part).ok_or_else(wrong)?;
        rest = &after[unit..];
    }
    if total.is_zero() { Err(wrong()) } else { Ok(total) }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read(pairs: &[(&str, &str)]) -> Result<Query, Invalid> {
        let owned: Vec<_> =
            pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
        stat(&owned)
    }

    #[test]
    fn a_query_is_read_with_its_defaults() {
        let query =
            read(&[("type", "deploy"), ("namespace", "shop"), ("to", "sts/db"), ("window", "")]).unwrap();
        assert_eq!(query.kinds, [Kind::Deployment]);
        assert_eq!(query.window, DEFAULT_WINDOW);
        let to =
            Selection { kind: Kind::StatefulSet, namespace: Some("shop".into()), name: Some("db".into()) };
        assert_eq!(query.to, Some(to));
    }

    #[test]
    fn edges_are_of_workloads_or_pods() {
        let read = |pairs: &[(&str, &str)]| {
            let owned: Vec<_> =
                pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect();
            edges(&owned)
        };
        let default = EdgesQuery { namespace: None, grain: Grain::Workloads, window: DEFAULT_WINDOW };
        assert_eq!(read(&[]), Ok(default.clone()));
        let pods = EdgesQuery {
            namespace: Some("shop".into()),
            grain: Grain::Pods,
            window: Duration::from_secs(30),
        };
        assert_eq!(read(&[("type", "po"), ("namespace", "shop"), ("window", "30s")]), Ok(pods));
        assert_eq!(read(&[("namespace", "shop"), ("all_namespaces", "true")]), Ok(default));
        for (parameter, value) in [("type", "svc"), ("type", "x"), ("window", "1s"), ("to", "x")] {
            assert!(read(&[(parameter, value)]).is_err(), "{parameter}={value}");
        }
    }

    #[test]
    fn all_namespaces_overrides_the_namespace() {
        let query = read(&[("type", "all"), ("namespace", "shop"), ("all_namespaces", "true")]).unwrap();
        assert_eq!((query.namespace, query.kinds.len()), (None, Kind::IN_ALL.len()));
    }

    #[test]
    fn a_namespace_alone_selects_whatever_is_in_it() {
        let query = read(&[("type", "po"), ("namespace", "shop"), ("from_namespace", "web")]).unwrap();
        let from = Selection { kind: Kind::Namespace, namespace: None, name: Some("web".into()) };
        assert_eq!(query.from, Some(from));
    }

    #[test]
    fn what_cannot_be_used_is_named() {
        let cases: [(&str, &[(&str, &str)]); 10] = [
            ("selector", &[("type", "po"), ("selector", "a b")]),
            ("type", &[]),
            ("type", &[("type", "widgets")]),
            ("parameter", &[("type", "po"), ("typo", "1")]),
            ("window", &[("type", "po"), ("window", "1")]),
            ("window", &[("type", "po"), ("window", "2h")]),
            ("all_namespaces", &[("type", "po"), ("all_namespaces", "yes")]),
            ("to", &[("type", "po"), ("to", "all")]),
            ("name", &[("type", "po/a"), ("name", "b")]),
            ("namespace", &[("type", "po"), ("namespace", "a"), ("namespace", "b")]),
        ];
        for (parameter, pairs) in cases {
            assert_eq!(read(pairs).unwrap_err().parameter, parameter, "{pairs:?}");
        }
    }

    #[test]
    fn windows_add_up() {
        for (text, seconds) in [("30s", 30), ("1m", 60), ("1m30s", 90), ("10m", 600), ("500ms9s500ms", 10)] {
            assert_eq!(window(text), Ok(Duration::from_secs(seconds)), "{text}");
        }
        for text in ["", "0", "1", "s", "1x", "m1", "-1s", "1 m", "18446744073709551615h"] {
            assert!(window(text).is_err(), "{text}");
        }
    }

    proptest! {
        #[test]
        fn no_parameters_make_it_panic(pairs in prop::collection::vec(("[a-z_]{0,14}|type|window|to", "\\PC{0,20}"), 0..6)) {
            drop(stat(&pairs));
        }
    }
}
