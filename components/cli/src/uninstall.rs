//! `conduit uninstall`: everything in a cluster that is Conduit's, for kubectl to delete.

use std::{collections::BTreeSet, fmt::Debug, process::ExitCode};

use anyhow::bail;
use conduit_k8s::{
    kubeconfig,
    owned::{LABEL_CONTROL_PLANE_NS, LABEL_MANAGED_BY, MANAGED_BY},
};
use conduit_net::TokioNetwork;
use k8s_openapi::api::{
    core::v1::{ConfigMap, Namespace, Pod, Secret},
    rbac::v1::{ClusterRole, ClusterRoleBinding},
};
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use serde_json::{Value, json};
use tokio::time::timeout;

use crate::{args::Global, cluster, output, yaml::emit};

/// Objects in one answer of the API server.
const PAGE: u32 = 500;

/// Print everything of Conduit that is in the cluster, for kubectl to delete
///
/// That is the control plane with its namespace, and the certificates that it has put beside applications. Applications go
/// on: their proxies stay and, when the certificates that they hold have expired, speak plaintext. `conduit uninject` takes
/// them out, before or after.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  conduit uninstall                          look at what would go
  conduit uninstall | kubectl delete -f -")]
pub struct Args {}

/// An object by its name.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Named {
    api_version: String,
    kind: String,
    namespace: Option<String>,
    name: String,
}

/// Prints what there is.
///
/// # Errors
/// The cluster cannot be asked, or stdout cannot be written.
pub async fn run(_: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let (client, cluster) = cluster::connect(&TokioNetwork::shared(), global).await?;
    let asked = Asked { client, cluster };
    let namespace = &global.conduit_namespace;
    let objects = asked.objects(namespace).await?;
    output::stdout(&render(&objects))?;
    if objects.is_empty() {
        let url = &asked.cluster.config.cluster_url;
        output::note(&format!(
            "nothing is left of a control plane in the namespace {namespace:?} of {url}; another namespace is named by -c"
        ));
    }
    let meshed: BTreeSet<String> =
        asked.meshed(namespace).await?.into_iter().filter_map(|pod| pod.namespace).collect();
    if !meshed.is_empty() {
        let list = meshed.into_iter().collect::<Vec<_>>().join(", ");
        output::note(&format!("note: pods still have proxies in: {list}; `conduit uninject` takes them out"));
    }
    Ok(ExitCode::SUCCESS)
}

/// The cluster that is asked.
struct Asked {
    client: Client,
    cluster: kubeconfig::Found,
}

impl Asked {
    /// What there is of the control plane in `namespace`, in the order in which it is to go: first the rights, so that the
    /// CA does not make again what is deleted before its pod has ended.
    async fn objects(&self, namespace: &str) -> anyhow::Result<Vec<Named>> {
        let ours = format!("{LABEL_CONTROL_PLANE_NS}={namespace}");
        let made = format!("{ours},{LABEL_MANAGED_BY}={MANAGED_BY}");
        let mut objects = self.list::<ClusterRoleBinding>(&ours, "the cluster role bindings").await?;
        objects.extend(self.list::<ClusterRole>(&ours, "the cluster roles").await?);
        objects.extend(self.list::<Namespace>(&ours, "the namespaces").await?);
        let has_namespace = objects.iter().any(|object| object.kind == "Namespace");
        let beside = [
            self.list::<Secret>(&made, "the secrets of all namespaces").await?,
            self.list::<ConfigMap>(&made, "the config maps of all namespaces").await?,
        ];
        // What is in its namespace goes with it.
        let stays = |object: &Named| !has_namespace || object.namespace.as_deref() != Some(namespace);
        objects.extend(beside.into_iter().flatten().filter(stays));
        Ok(objects)
    }

    /// The pods that belong to its mesh.
    async fn meshed(&self, namespace: &str) -> anyhow::Result<Vec<Named>> {
        let pods = self
            .list::<Pod>(&format!("{LABEL_CONTROL_PLANE_NS}={namespace}"), "the pods of all namespaces")
            .await?;
        Ok(pods.into_iter().filter(|pod| pod.namespace.as_deref() != Some(namespace)).collect())
    }

    /// The objects with these labels in all namespaces, by name; nothing else of them is asked for.
    async fn list<K>(&self, selector: &str, what: &str) -> anyhow::Result<Vec<Named>>
    where
        K: Resource<DynamicType = ()> + Clone + DeserializeOwned + Debug,
    {
        let api: Api<K> = Api::all(self.client.clone());
        let mut found = Vec::new();
        let mut page = ListParams::default().labels(selector).limit(PAGE);
        loop {
            let answer = match timeout(cluster::DEADLINE, api.list_metadata(&page)).await {
                Ok(Ok(answer)) => answer,
                Ok(Err(error)) => bail!(cluster::declined(&error, &self.cluster, what, "")),
                Err(_) => bail!(cluster::late(&self.cluster)),
            };
            found.extend(answer.items.into_iter().map(|object| Named {
                api_version: K::api_version(&()).into_owned(),
                kind: K::kind(&()).into_owned(),
                namespace: object.metadata.namespace,
                name: object.metadata.name.unwrap_or_default(),
            }));
            match answer.metadata.continue_.filter(|token| !token.is_empty()) {
                Some(token) => page.continue_token = Some(token),
                None => return Ok(found),
            }
        }
    }
}

/// As manifests of which kubectl reads no more than the names.
fn render(objects: &[Named]) -> String {
    objects.iter().map(|object| format!("---\n{}", emit::document(&object.manifest()))).collect()
}

impl Named {
    fn manifest(&self) -> Value {
        let mut metadata = json!({"name": self.name});
        if let Some(namespace) = &self.namespace {
            metadata["namespace"] = namespace.as_str().into();
        }
        json!({"apiVersion": self.api_version, "kind": self.kind, "metadata": metadata})
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn objects_are_named_and_nothing_more() {
        let object = |kind: &str, namespace: Option<&str>, name: &str| Named {
            api_version: "v1".to_owned(),
            kind: kind.to_owned(),
            namespace: namespace.map(str::to_owned),
            name: name.to_owned(),
        };
        let objects = [object("Namespace", None, "conduit"), object("Secret", Some("shop"), "web-tls")];
        assert_eq!(
            render(&objects),
            "---\napiVersion: v1\nkind: Namespace\nmetadata:\n  name: conduit\n\
             ---\napiVersion: v1\nkind: Secret\nmetadata:\n  name: web-tls\n  namespace: shop\n"
        );
        assert_eq!(render(&[]), "");
    }
}
