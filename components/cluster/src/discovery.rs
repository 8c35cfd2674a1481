//! What the API says about itself.

use std::collections::BTreeSet;

use serde_json::{Value, json};

use crate::{
    Shared,
    failure::Failure,
    resources::{Resource, Served},
};

/// Answers a path that names no object.
pub(crate) fn answer(shared: &Shared, path: &[&str]) -> Result<Value, Failure> {
    let served = &shared.served;
    match path {
        ["version"] => Ok(version(shared)),
        ["healthz" | "livez" | "readyz"] => Ok(Value::String("ok".to_owned())),
        ["api"] => Ok(json!({
            "kind": "APIVersions", "versions": ["v1"], "serverAddressByClientCIDRs": [],
        })),
        ["apis"] => {
            let groups: Vec<_> = groups(served).iter().map(|group| group_document(served, group)).collect();
            Ok(json!({ "kind": "APIGroupList", "apiVersion": "v1", "groups": groups }))
        }
        ["api", version] => resources(served, "", version),
        ["apis", group] if groups(served).contains(group) => {
            let mut document = json!({ "kind": "APIGroup", "apiVersion": "v1" });
            if let (Value::Object(document), Value::Object(group)) =
                (&mut document, group_document(served, group))
            {
                document.extend(group);
            }
            Ok(document)
        }
        ["apis", group, version] => resources(served, group, version),
        _ => Err(Failure::no_such_path()),
    }
}

fn version(shared: &Shared) -> Value {
    let (major, minor) = shared.config.version;
    json!({
        "major": major.to_string(), "minor": minor.to_string(), "gitVersion": format!("v{major}.{minor}.0+conduit"),
        "gitCommit": "", "gitTreeState": "clean", "buildDate": "1970-01-01T00:00:00Z",
        "goVersion": "", "compiler": "rustc", "platform": "linux/amd64",
    })
}

/// Groups in order, the reviews' among them.
fn groups(served: &Served) -> BTreeSet<&'static str> {
    let of_kinds = served.iter().map(|resource| resource.group).filter(|group| !group.is_empty());
    of_kinds.chain(REVIEWS.iter().map(|review| review.group)).collect()
}

fn group_document(served: &Served, group: &str) -> Value {
    let mut versions: Vec<_> =
        served.iter().filter(|resource| resource.group == group).map(|resource| resource.version).collect();
    versions.extend(REVIEWS.iter().filter(|review| review.group == group).map(|_| "v1"));
    versions.dedup();
    let versions: Vec<_> = versions
        .into_iter()
        .map(|version| json!({ "groupVersion": format!("{group}/{version}"), "version": version }))
        .collect();
    json!({ "name": group, "preferredVersion": versions.first(), "versions": versions })
}

/// Questions that are asked by creating an object that is never stored.
pub(crate) struct Review {
    pub(crate) group: &'static str,
    pub(crate) kind: &'static str,
    pub(crate) plural: &'static str,
    pub(crate) namespaced: bool,
}

pub(crate) static REVIEWS: &[Review] = &[
    Review { group: "authentication.k8s.io", kind: "TokenReview", plural: "tokenreviews", namespaced: false },
    Review {
        group: "authorization.k8s.io",
        kind: "LocalSubjectAccessReview",
        plural: "localsubjectaccessreviews",
        namespaced: true,
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SelfSubjectAccessReview",
        plural: "selfsubjectaccessreviews",
        namespaced: false,
    },
    Review {
        group: "authorization.k8s.io",
        kind: "SubjectAccessReview",
        plural: "subjectaccessreviews",
        namespaced: false,
    },
];

/// The review a path is for, and its namespace.
pub(crate) fn review<'a>(path: &[&'a str]) -> Option<(&'static Review, &'a str)> {
    let (group, namespace, plural) = match path {
        ["apis", group, "v1", plural] => (*group, "", *plural),
        ["apis", group, "v1", "namespaces", namespace, plural] => (*group, *namespace, *plural),
        _ => return None,
    };
    let found = REVIEWS.iter().find(|review| {
        review.group == group && review.plural == plural && review.namespaced != namespace.is_empty()
    });
    found.map(|review| (review, namespace))
}

fn resources(served: &Served, group: &str, version: &str) -> Result<Value, Failure> {
    let of_kinds = served
        .iter()
        .filter(|resource| resource.group == group && resource.version == version)
        .flat_map(|resource| kind_documents(&resource));
    let of_reviews = REVIEWS.iter().filter(|review| review.group == group && version == "v1").map(|review| {
        json!({
            "name": review.plural, "singularName": "", "namespaced": review.namespaced, "kind": review.kind,
            "verbs": ["create"],
        })
    });
    let all: Vec<_> = of_kinds.chain(of_reviews).collect();
    if all.is_empty() {
        return Err(Failure::no_such_path());
    }
    let group_version = if group.is_empty() { version.to_owned() } else { format!("{group}/{version}") };
    Ok(
        json!({ "kind": "APIResourceList", "apiVersion": "v1", "groupVersion": group_version, "resources": all }),
    )
}

fn kind_documents(resource: &Resource) -> Vec<Value> {
    let mut document = json!({
        "name": resource.plural, "singularName": resource.kind.to_lowercase(), "namespaced": resource.namespaced,
        "kind": resource.kind,
        "verbs": ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"],
    });
    if !resource.short.is_empty() {
        document["shortNames"] = resource.short.into();
    }
    let subresource = |name: &str, verbs: &[&str]| {
        json!({
            "name": format!("{}/{name}", resource.plural), "singularName": "", "namespaced": resource.namespaced,
            "kind": resource.kind, "verbs": verbs,
        })
    };
    let mut documents = vec![document];
    if resource.status {
        documents.push(subresource("status", &["get", "patch", "update"]));
    }
    if resource.kind == "Namespace" {
        documents.push(subresource("finalize", &["update"]));
    }
    documents
}
