//! Asks the Kubernetes API: is it there, what does it run, and what may this user do?

use std::{future::Future, time::Duration};

use conduit_k8s::{
    cause,
    owned::{COMPONENT_OBSERVE, LABEL_COMPONENT},
};
use k8s_openapi::api::{
    authorization::v1::{ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec},
    core::v1::{Namespace, Pod},
};
use kube::{
    Api, Client,
    api::{ListParams, PostParams},
};
use tokio::time::timeout;

use super::{
    catalogue::{
        Check, K8S_QUERY, K8S_VERSION, PERMISSION_FORWARD, PERMISSION_PODS, PRE_CREATE, PRE_NAMESPACE,
    },
    report::{Grade, Outcome},
};
use crate::install::KubeVersion;

/// How long one answer may take.
const DEADLINE: Duration = Duration::from_secs(5);
/// What `conduit install` prints: group and plural of each kind.
const INSTALLED: [(&str, &str); 9] = [
    ("", "namespaces"),
    ("", "serviceaccounts"),
    ("", "services"),
    ("apps", "deployments"),
    ("policy", "poddisruptionbudgets"),
    ("rbac.authorization.k8s.io", "clusterroles"),
    ("rbac.authorization.k8s.io", "clusterrolebindings"),
    ("rbac.authorization.k8s.io", "roles"),
    ("rbac.authorization.k8s.io", "rolebindings"),
];

/// Whether the API answers, and is new enough. What follows needs the first of them.
pub(super) async fn kubernetes(client: &Client) -> Vec<Outcome> {
    let version = match answer(client.apiserver_version()).await {
        Ok(version) => version,
        Err(why) => {
            let hint = "kubectl version shows the same; look at --kubeconfig and --context";
            return vec![Outcome::not(K8S_QUERY, Grade::Error, why, hint)];
        }
    };
    vec![Outcome::ok(K8S_QUERY), new_enough(&version.major, &version.minor)]
}

/// Providers write minors such as `27+`.
fn new_enough(major: &str, minor: &str) -> Outcome {
    match KubeVersion::parse(&format!("{major}.{minor}")) {
        Ok(_) => Outcome::ok(K8S_VERSION),
        Err(why) => {
            let told = format!("the API server says that it is Kubernetes {major}.{minor}");
            Outcome::not(K8S_VERSION, Grade::Error, told, why)
        }
    }
}

/// What an installation into `namespace` needs.
pub(super) async fn pre_install(client: &Client, namespace: &str) -> Vec<Outcome> {
    let namespaces: Api<Namespace> = Api::all(client.clone());
    let free = match answer(namespaces.get_opt(namespace)).await {
        Ok(None) => Outcome::ok(PRE_NAMESPACE),
        Ok(Some(_)) => {
            let hint = "conduit check without --pre says whether Conduit runs there; -c names another";
            Outcome::not(PRE_NAMESPACE, Grade::Warning, format!("the namespace {namespace} exists"), hint)
        }
        Err(why) => Outcome::not(PRE_NAMESPACE, Grade::Warning, why, "ask for the right to get namespaces"),
    };
    let reviews = INSTALLED.map(|(group, resource)| may(client, None, "create", group, resource, ""));
    let refused: Vec<String> = futures::future::join_all(reviews).await.into_iter().flatten().collect();
    vec![free, granted(PRE_CREATE, &refused)]
}

/// What the other commands need in `namespace`.
pub(super) async fn permissions(client: &Client, namespace: &str) -> Vec<Outcome> {
    let own = Some(namespace);
    let pods = may(client, own, "list", "", "pods", "").await;
    let forward = may(client, own, "create", "", "pods", "portforward").await;
    let check = |check, refused: Option<String>| granted(check, refused.as_slice());
    vec![check(PERMISSION_PODS, pods), check(PERMISSION_FORWARD, forward)]
}

/// The pods of observe, ready or not, when it cannot be asked itself.
pub(super) async fn observe_pods(client: &Client, namespace: &str) -> Option<String> {
    let pods: Api<Pod> = Api::namespaced(client.clone(), namespace);
    let list = ListParams::default().labels(&format!("{LABEL_COMPONENT}={COMPONENT_OBSERVE}"));
    let found = answer(pods.list(&list)).await.ok()?;
    (!found.items.is_empty())
        .then(|| format!("kubectl -n {namespace} describe pods -l {LABEL_COMPONENT}={COMPONENT_OBSERVE}"))
}

fn granted(check: Check, refused: &[String]) -> Outcome {
    match refused.is_empty() {
        true => Outcome::ok(check),
        false => {
            let hint = "ask whoever administers the cluster for these rights";
            Outcome::not(check, Grade::Error, refused.join("\n"), hint)
        }
    }
}

/// Why this user may not do something; none when it may.
async fn may(
    client: &Client,
    namespace: Option<&str>,
    verb: &str,
    group: &str,
    resource: &str,
    subresource: &str,
) -> Option<String> {
    let attributes = ResourceAttributes {
        namespace: namespace.map(str::to_owned),
        verb: Some(verb.to_owned()),
        group: Some(group.to_owned()),
        resource: Some(resource.to_owned()),
        subresource: Some(subresource.to_owned()).filter(|subresource| !subresource.is_empty()),
        ..ResourceAttributes::default()
    };
    let review = SelfSubjectAccessReview {
        spec: SelfSubjectAccessReviewSpec { resource_attributes: Some(attributes), ..Default::default() },
        ..Default::default()
    };
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    let what =
        [resource, subresource].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join("/");
    match answer(reviews.create(&PostParams::default(), &review)).await {
        Ok(answer) if answer.status.as_ref().is_some_and(|status| status.allowed) => None,
        Ok(_) => Some(format!("you may not {verb} {what}")),
        Err(why) => Some(format!("whether you may {verb} {what} is not known: {why}")),
    }
}

async fn answer<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> Result<T, String> {
    match timeout(DEADLINE, asked).await {
        Ok(Ok(answer)) => Ok(answer),
        Ok(Err(error)) => Err(cause::root(&error).to_string()),
        Err(_) => Err(format!("no answer within {DEADLINE:?}")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_read_as_providers_write_them() {
        for good in ["20", "21", "27+", "33"] {
            assert_eq!(new_enough("1", good), Outcome::ok(K8S_VERSION), "{good}");
        }
        for (minor, hint) in [("19", "1.20 or later"), ("x", "such as 1.30")] {
            let outcome = new_enough("1", minor);
            assert!(outcome.grade == Grade::Error && outcome.hint.unwrap().contains(hint), "{minor}");
        }
    }
}
