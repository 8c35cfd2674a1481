//! What a request asks for: path, method and query as one value.

use std::collections::BTreeMap;

use axum::extract::Query;
use http::{Method, Uri};

use crate::{
    failure::Failure,
    resources::{Res, Served},
};

/// What is done to objects, in the words of Kubernetes' authorization.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Verb {
    /// One object.
    Get,
    /// All of a kind, in a namespace or everywhere.
    List,
    /// Changes as they happen.
    Watch,
    /// A new object.
    Create,
    /// A whole new version.
    Update,
    /// A change to what is there, and server-side apply.
    Patch,
    /// One object less.
    Delete,
    /// All of a kind in a namespace less.
    DeleteCollection,
}

/// A request about objects.
#[derive(Debug, Clone)]
pub(crate) struct Call {
    pub(crate) verb: Verb,
    pub(crate) resource: Res,
    /// Empty for cluster-scoped kinds and for lists over all namespaces.
    pub(crate) namespace: String,
    /// Empty for collections.
    pub(crate) name: String,
    /// `status`, or empty.
    pub(crate) subresource: String,
    pub(crate) params: Params,
}

/// Where a request goes.
#[derive(Debug)]
pub(crate) enum Route {
    /// To the objects.
    Objects(Call),
    /// To something that is not an object: discovery, health, reviews. The segments of the path.
    Other(Vec<String>),
}

/// The query of a request. A repeated parameter counts once, the last one.
#[derive(Debug, Clone, Default)]
pub(crate) struct Params(BTreeMap<String, String>);

impl Params {
    fn of(uri: &Uri) -> Result<Self, Failure> {
        let pairs = Query::<Vec<(String, String)>>::try_from_uri(uri);
        let pairs = pairs.map_err(|error| Failure::bad_request(format!("invalid query: {error}")))?.0;
        Ok(Self(pairs.into_iter().collect()))
    }

    /// The parameter, empty when absent.
    pub(crate) fn text(&self, name: &str) -> &str {
        self.0.get(name).map_or("", String::as_str)
    }

    pub(crate) fn is_set(&self, name: &str) -> bool {
        matches!(self.text(name), "true" | "1" | "True" | "TRUE" | "t" | "T")
    }

    /// A whole number, none when absent.
    pub(crate) fn number(&self, name: &str) -> Result<Option<u64>, Failure> {
        match self.text(name) {
            "" => Ok(None),
            text => text.parse().map(Some).map_err(|_| {
                Failure::bad_request(format!("{name}: Invalid value: {text:?}: not a whole number"))
            }),
        }
    }
}

/// Finds out what a request is about.
pub(crate) fn route(served: &Served, method: &Method, uri: &Uri) -> Result<Route, Failure> {
    let segments: Vec<String> =
        uri.path().split('/').filter(|segment| !segment.is_empty()).map(decode).collect();
    let words: Vec<&str> = segments.iter().map(String::as_str).collect();
    let (group, version, rest) = match words.as_slice() {
        ["api", version, rest @ ..] if !rest.is_empty() => ("", *version, rest),
        ["apis", group, version, rest @ ..] if !rest.is_empty() => (*group, *version, rest),
        _ => return Ok(Route::Other(segments)),
    };
    let Some(place) = place(served, group, version, rest) else { return Ok(Route::Other(segments)) };
    let params = Params::of(uri)?;
    let verb = verb(method, &place, &params)?;
    let Place { resource, namespace, name, subresource } = place;
    Ok(Route::Objects(Call {
        verb,
        resource,
        namespace: namespace.to_owned(),
        name: name.to_owned(),
        subresource: subresource.to_owned(),
        params,
    }))
}

struct Place<'a> {
    resource: Res,
    namespace: &'a str,
    name: &'a str,
    subresource: &'a str,
}

fn place<'a>(served: &Served, group: &str, version: &str, rest: &[&'a str]) -> Option<Place<'a>> {
    let (namespace, plural, name, subresource) = match rest {
        // A namespace's own subresources, which look like the collections in it.
        ["namespaces", name, sub @ ("status" | "finalize")] => ("", "namespaces", *name, *sub),
        ["namespaces", namespace, plural] => (*namespace, *plural, "", ""),
        ["namespaces", namespace, plural, name] => (*namespace, *plural, *name, ""),
        ["namespaces", namespace, plural, name, sub] => (*namespace, *plural, *name, *sub),
        [plural] => ("", *plural, "", ""),
        [plural, name] => ("", *plural, *name, ""),
        [plural, name, sub] => ("", *plural, *name, *sub),
        _ => return None,
    };
    let resource = served.find(group, version, plural)?;
    let scoped = resource.namespaced || namespace.is_empty();
    // An object of a namespaced kind has no place outside a namespace.
    let placed = name.is_empty() || !resource.namespaced || !namespace.is_empty();
    (scoped && placed).then_some(Place { resource, namespace, name, subresource })
}

fn verb(method: &Method, place: &Place<'_>, params: &Params) -> Result<Verb, Failure> {
    let collection = place.name.is_empty();
    let homeless = collection && place.resource.namespaced && place.namespace.is_empty();
    match (method.as_str(), collection) {
        ("GET", true) if params.is_set("watch") => Ok(Verb::Watch),
        ("GET", true) => Ok(Verb::List),
        ("GET", false) => Ok(Verb::Get),
        ("POST", true) if !homeless => Ok(Verb::Create),
        // Creating on a subresource: eviction, binding, token.
        ("POST", false) if !place.subresource.is_empty() => Ok(Verb::Create),
        ("PUT", false) => Ok(Verb::Update),
        ("PATCH", false) => Ok(Verb::Patch),
        ("DELETE", false) => Ok(Verb::Delete),
        ("DELETE", true) if !homeless => Ok(Verb::DeleteCollection),
        _ => Err(Failure::method_not_allowed()),
    }
}

/// Undoes percent encoding; what is not valid stays as it is.
fn decode(segment: &str) -> String {
    let mut bytes = Vec::with_capacity(segment.len());
    let mut rest = segment.as_bytes();
    while let Some((&first, tail)) = rest.split_first() {
        let hex = (first == b'%').then(|| tail.get(..2)).flatten();
        let decoded = hex
            .and_then(|hex| std::str::from_utf8(hex).ok())
            .and_then(|hex| u8::from_str_radix(hex, 16).ok());
        bytes.push(decoded.unwrap_or(first));
        rest = if decoded.is_some() { &tail[2..] } else { tail };
    }
    String::from_utf8(bytes).unwrap_or_else(|_| segment.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::SliceVersion;

    fn route_of(method: &str, uri: &str) -> Option<(Verb, String, String, String, String)> {
        let method = Method::from_bytes(method.as_bytes()).unwrap();
        match route(&Served::new(SliceVersion::V1), &method, &uri.parse().unwrap()).unwrap() {
            Route::Objects(call) => {
                Some((call.verb, call.resource.qualified(), call.namespace, call.name, call.subresource))
            }
            Route::Other(_) => None,
        }
    }

    #[test]
    fn paths_name_verb_kind_namespace_name_and_subresource() {
        let cases = [
            ("GET", "/api/v1/pods", (Verb::List, "pods", "", "", "")),
            ("GET", "/api/v1/namespaces/a/pods?watch=true", (Verb::Watch, "pods", "a", "", "")),
            ("GET", "/api/v1/namespaces/a/pods/p", (Verb::Get, "pods", "a", "p", "")),
            ("PATCH", "/api/v1/namespaces/a/pods/p/status", (Verb::Patch, "pods", "a", "p", "status")),
            ("GET", "/api/v1/namespaces/a", (Verb::Get, "namespaces", "", "a", "")),
            ("PUT", "/api/v1/namespaces/a/finalize", (Verb::Update, "namespaces", "", "a", "finalize")),
            (
                "POST",
                "/apis/apps/v1/namespaces/a/deployments",
                (Verb::Create, "deployments.apps", "a", "", ""),
            ),
            ("DELETE", "/api/v1/namespaces/a/secrets", (Verb::DeleteCollection, "secrets", "a", "", "")),
            (
                "GET",
                "/apis/rbac.authorization.k8s.io/v1/clusterroles/system%3Anode",
                (Verb::Get, "clusterroles.rbac.authorization.k8s.io", "", "system:node", ""),
            ),
        ];
        for (method, uri, (verb, kind, namespace, name, sub)) in cases {
            let expected = (verb, kind.to_owned(), namespace.to_owned(), name.to_owned(), sub.to_owned());
            assert_eq!(route_of(method, uri), Some(expected), "{method} {uri}");
        }
        for other in ["/api/v1", "/apis", "/version", "/api/v1/pods/p", "/api/v1/namespaces/a/colours", "/"] {
            assert_eq!(route_of("GET", other), None, "{other}");
        }
    }
}
