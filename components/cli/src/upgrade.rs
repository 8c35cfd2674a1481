//! `conduit upgrade`: the manifests of this release for a control plane that is installed already, with what the user chose
//! then.
//!
//! The root of trust is no part of them: it is in a Secret that the certificate authority made and keeps, and that nobody
//! else reads or writes. So every identity stays what it is.

use std::{collections::BTreeMap, process::ExitCode};

use anyhow::{anyhow, bail};
use conduit_k8s::{
    kubeconfig,
    owned::{INSTALL_CONFIGMAP, LABEL_CONTROL_PLANE_NS},
};
use conduit_net::TokioNetwork;
use k8s_openapi::{
    NamespaceResourceScope,
    api::{apps::v1::Deployment, core::v1::ConfigMap},
};
use kube::{Api, Client, Resource, api::ListParams};
use serde::de::DeserializeOwned;
use tokio::time::timeout;

use crate::{
    args::Global,
    cluster,
    install::{
        Options, manifest,
        record::{FLAGS_KEY, Given, VERSION_KEY},
    },
    output,
    version::VERSION,
};

/// Print the manifests that bring an installed control plane to this version
///
/// What was chosen at install is kept, and can be changed by giving its flag again; so is the root of trust, which is not in
/// the manifests. Proxies keep working with either version; they get the new one when their workloads are injected again.
#[derive(Debug, clap::Args)]
#[command(after_help = "Examples:
  conduit upgrade | kubectl diff -f -        look at what would change
  conduit upgrade | kubectl apply -f -
  conduit upgrade --ha | kubectl apply -f -")]
pub struct Args {
    #[command(flatten)]
    given: Given,
}

/// Prints the manifests.
///
/// # Errors
/// There is no control plane, it is newer, what was chosen cannot be read, or stdout cannot be written.
pub async fn run(args: Args, global: &Global) -> anyhow::Result<ExitCode> {
    let (client, cluster) = cluster::connect(&TokioNetwork::shared(), global).await?;
    let asked = Asked { client, cluster, namespace: &global.conduit_namespace };
    let record = asked.record().await?;
    let text = |key: &str| {
        record.get(key).map(String::as_str).ok_or_else(|| asked.unreadable(&format!("it has no {key:?}")))
    };
    let (version, flags) = (text(VERSION_KEY)?, text(FLAGS_KEY)?);
    asked.check_age(version)?;
    let kept = args.given.over(flags).map_err(|why| asked.unreadable(&why))?;
    let control_plane = kept.mesh.control_plane(asked.namespace);
    output::stdout(&manifest::render(&Options { flags: kept, control_plane }))?;
    let flags = flags.split_whitespace().collect::<Vec<_>>().join(" ");
    let flags = if flags.is_empty() { "the defaults" } else { flags.as_str() };
    output::note(&format!("from {version} to {VERSION}; it was installed with {flags}"));
    Ok(ExitCode::SUCCESS)
}

/// The cluster that is asked.
struct Asked<'a> {
    client: Client,
    cluster: kubeconfig::Found,
    namespace: &'a str,
}

impl Asked<'_> {
    /// What install left of itself.
    async fn record(&self) -> anyhow::Result<BTreeMap<String, String>> {
        let maps: Vec<ConfigMap> = self.list("config maps").await?;
        let is_it = |map: &ConfigMap| map.metadata.name.as_deref() == Some(INSTALL_CONFIGMAP);
        if let Some(record) = maps.into_iter().find(is_it) {
            return Ok(record.data.unwrap_or_default());
        }
        let (namespace, url) = (self.namespace, &self.cluster.config.cluster_url);
        match self.list::<Deployment>("deployments").await?.is_empty() {
            true => bail!(
                "there is no control plane in the namespace {namespace:?} of {url}; install it with \
                 `conduit install | kubectl apply -f -`, or name its namespace by -c"
            ),
            false => bail!(
                "the control plane in the namespace {namespace:?} of {url} was installed by a release that kept no record \
                 of its options; give those that it was installed with to `conduit install | kubectl apply -f -`, once"
            ),
        }
    }

    async fn list<K>(&self, what: &str) -> anyhow::Result<Vec<K>>
    where
        K: Resource<DynamicType = (), Scope = NamespaceResourceScope>
            + Clone
            + DeserializeOwned
            + std::fmt::Debug,
    {
        let api: Api<K> = Api::namespaced(self.client.clone(), self.namespace);
        let ours = ListParams::default().labels(&format!("{LABEL_CONTROL_PLANE_NS}={}", self.namespace));
        match timeout(cluster::DEADLINE, api.list(&ours)).await {
            Ok(Ok(found)) => Ok(found.items),
            Ok(Err(error)) => {
                let what = format!("the {what} of the namespace {:?}", self.namespace);
                bail!(cluster::declined(&error, &self.cluster, &what, ""))
            }
            Err(_) => bail!(cluster::late(&self.cluster)),
        }
    }

    /// A control plane is never taken back to what it was: an older release does not know what a newer one has written.
    fn check_age(&self, installed: &str) -> anyhow::Result<()> {
        let parsed =
            numbers(installed).ok_or_else(|| self.unreadable(&format!("{installed:?} is no version")))?;
        if numbers(VERSION).is_some_and(|own| own < parsed) {
            bail!(
                "the control plane in the namespace {:?} is {installed}, newer than this program, which is {VERSION}; \
                 upgrade with a conduit of that version or a later one",
                self.namespace
            );
        }
        Ok(())
    }

    fn unreadable(&self, why: &str) -> anyhow::Error {
        anyhow!(
            "the options in the config map {INSTALL_CONFIGMAP:?} of the namespace {:?} cannot be read: {why}; give those \
             that the control plane was installed with to `conduit install | kubectl apply -f -`",
            self.namespace
        )
    }
}

/// `1.2.3`, with or without something behind it.
fn numbers(version: &str) -> Option<[u64; 3]> {
    let release = version.split(['-', '+']).next()?;
    let parts: Vec<u64> = release.split('.').map(str::parse).collect::<Result<_, _>>().ok()?;
    parts.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_are_compared_by_their_numbers() {
        assert!(numbers("0.10.0") > numbers("0.9.9") && numbers("1.0.0-rc.1+x") == numbers("1.0.0"));
        for bad in ["", "1", "1.2", "1.2.3.4", "v1.2.3", "1.2.x"] {
            assert_eq!(numbers(bad), None, "{bad}");
        }
    }
}
