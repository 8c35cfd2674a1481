//! What can be asked of `stat`: pure values, and their rules.

use std::time::Duration;

use crate::{kind::Kind, selector::Selector};

/// The longest window: what the embedded source keeps.
pub const MAX_WINDOW: Duration = Duration::from_secs(600);
/// The shortest window: with a scrape every 1 to 2 s, less would be mostly rounding.
pub const MIN_WINDOW: Duration = Duration::from_secs(5);
/// The window when none is given.
pub const DEFAULT_WINDOW: Duration = Duration::from_secs(60);

/// Objects of one kind: all, those of a namespace, or a single one.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Selection {
    /// Which kind.
    pub kind: Kind,
    /// Only in this namespace; means nothing for namespaces themselves, and for authorities where the service is.
    pub namespace: Option<String>,
    /// Only this one. An authority may be written as clients do; it is compared as [`crate::authority`] normalises it.
    pub name: Option<String>,
}

/// One question to `stat`.
///
/// Every request has one client and one server. Without `to` and `from` the rows are servers, and their own proxies
/// say what arrived. With `to` alone the rows are clients, with `from` they are servers, and the clients' proxies say
/// what left. With both, the rows are the servers that both the target and `to` select. Services and authorities are
/// always the server's.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Query {
    /// The kinds of rows: one, or [`Kind::IN_ALL`].
    pub kinds: Vec<Kind>,
    /// Only in this namespace.
    pub namespace: Option<String>,
    /// Only the row of this name.
    pub name: Option<String>,
    /// Only rows that have a running pod with such labels.
    pub selector: Option<Selector>,
    /// Only requests that go to these.
    pub to: Option<Selection>,
    /// Only requests that come from these.
    pub from: Option<Selection>,
    /// How far back, within [`MIN_WINDOW`] and [`MAX_WINDOW`].
    pub window: Duration,
}

impl Query {
    /// Checks what the types cannot.
    ///
    /// # Errors
    /// The combination has no answer; the message names the parameter and what to do instead.
    pub fn validate(&self) -> Result<(), Invalid> {
        if self.name.is_some() && self.kinds.len() != 1 {
            return Err(Invalid::new(
                "name",
                "all",
                "a name needs one type; leave the name out or name the type",
            ));
        }
        let named = self.name.is_some() && !matches!(self.kinds[..], [Kind::Namespace | Kind::Authority]);
        if named && self.namespace.is_none() {
            return Err(Invalid::new(
                "all_namespaces",
                "true",
                "a name does not identify one object across namespaces; give the namespace instead",
            ));
        }
        if self.selector.is_some() {
            self.validate_selector()?;
        }
        if let Some(from) = &self.from
            && matches!(from.kind, Kind::Authority | Kind::Service)
        {
            let why = "clients are workloads, pods or namespaces; an authority or a service is where requests go to";
            return Err(Invalid::new("from", from.kind.as_str(), why));
        }
        check_window(self.window)
    }

    fn validate_selector(&self) -> Result<(), Invalid> {
        if self.name.is_some() {
            let why = "labels select among all of a type; leave the name or the selector out";
            return Err(Invalid::new("selector", "", why));
        }
        match self.kinds[..] {
            [kind @ (Kind::Authority | Kind::Namespace)] => {
                let why = "labels are those of pods; select workloads, pods or services by them";
                Err(Invalid::new("selector", kind.as_str(), why))
            }
            _ => Ok(()),
        }
    }
}

/// Whether a window is one that can be looked at.
///
/// # Errors
/// It is too short or too long.
pub fn check_window(window: Duration) -> Result<(), Invalid> {
    if window < MIN_WINDOW || window > MAX_WINDOW {
        let why = format!("the window is from {}s to {}s", MIN_WINDOW.as_secs(), MAX_WINDOW.as_secs());
        return Err(Invalid::new("window", &format!("{window:?}"), &why));
    }
    Ok(())
}

/// A parameter that cannot be used.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{parameter}={value}: {remedy}")]
pub struct Invalid {
    /// Its name in the HTTP API.
    pub parameter: &'static str,
    /// What was given, shortened.
    pub value: String,
    /// What to do instead.
    pub remedy: String,
}

impl Invalid {
    /// An error about `parameter`, whose `value` is shortened to what fits a message.
    pub fn new(parameter: &'static str, value: &str, remedy: &str) -> Self {
        Self { parameter, value: value.chars().take(128).collect(), remedy: remedy.to_owned() }
    }
}

/// Reads `TYPE` or `TYPE/NAME`; none for the type when it is `all`.
///
/// # Errors
/// The type is unknown, a part is empty or there are more than two.
pub fn parse_resource(
    parameter: &'static str,
    text: &str,
) -> Result<(Option<Kind>, Option<String>), Invalid> {
    let (kind, name) = match text.split_once('/') {
        Some((kind, name)) => (kind, Some(name)),
        None => (text, None),
    };
    if name.is_some_and(|name| name.is_empty() || name.contains('/')) {
        return Err(Invalid::new(parameter, text, "write TYPE or TYPE/NAME, for example deploy/web"));
    }
    let kind = match kind.eq_ignore_ascii_case("all") {
        true => None,
        false => {
            Some(kind.parse::<Kind>().map_err(|error| Invalid::new(parameter, text, &error.to_string()))?)
        }
    };
    if kind.is_none() && name.is_some() {
        return Err(Invalid::new(parameter, text, "all takes no name; name the type"));
    }
    Ok((kind, name.map(str::to_owned)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query() -> Query {
        Query {
            kinds: vec![Kind::Deployment],
            namespace: Some("shop".into()),
            name: None,
            selector: None,
            to: None,
            from: None,
            window: DEFAULT_WINDOW,
        }
    }

    fn selection(kind: Kind) -> Option<Selection> {
        Some(Selection { kind, namespace: None, name: None })
    }

    fn selector(text: &str) -> Option<Selector> {
        Some(text.parse().unwrap())
    }

    #[test]
    fn resources_are_read_with_and_without_a_name() {
        let read = |text| parse_resource("type", text).unwrap();
        assert_eq!(read("deploy"), (Some(Kind::Deployment), None));
        assert_eq!(read("po/web-1"), (Some(Kind::Pod), Some("web-1".into())));
        assert_eq!(read("All"), (None, None));
    }

    #[test]
    fn senseless_resources_are_refused_by_parameter_and_value() {
        for text in ["", "widgets", "deploy/", "a/b/c", "deploy/a/b", "all/x", "/web"] {
            let error = parse_resource("to", text).unwrap_err();
            assert_eq!((error.parameter, error.value.as_str()), ("to", text));
        }
    }

    #[test]
    fn questions_without_an_answer_are_refused() {
        assert_eq!(query().validate(), Ok(()));
        let refused = [
            ("all_namespaces", Query { name: Some("web".into()), namespace: None, ..query() }),
            ("name", Query { name: Some("web".into()), kinds: Kind::IN_ALL.to_vec(), ..query() }),
            ("from", Query { from: selection(Kind::Authority), ..query() }),
            ("from", Query { from: selection(Kind::Service), ..query() }),
            ("selector", Query { selector: selector("app=web"), name: Some("web".into()), ..query() }),
            ("selector", Query { selector: selector("app=web"), kinds: vec![Kind::Authority], ..query() }),
            ("window", Query { window: Duration::from_secs(1), ..query() }),
            ("window", Query { window: Duration::from_secs(601), ..query() }),
        ];
        for (parameter, query) in refused {
            assert_eq!(query.validate().unwrap_err().parameter, parameter, "{query:?}");
        }
    }

    #[test]
    fn namespaces_and_authorities_are_named_without_a_namespace() {
        for kind in [Kind::Namespace, Kind::Authority] {
            let query = Query { kinds: vec![kind], name: Some("x".into()), namespace: None, ..query() };
            assert_eq!(query.validate(), Ok(()), "{kind}");
        }
    }
}
