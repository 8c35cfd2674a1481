//! The cluster that is meant, its pod that answers commands, and what to say when there is none: one line that names the
//! thing, the value and the remedy.

use std::time::Duration;

use anyhow::{anyhow, bail};
use conduit_identity::{Clock, SystemClock};
use conduit_k8s::{
    cause,
    client::ConnectError,
    kubeconfig::{self, Choice, Problem},
    owned::{COMPONENT_OBSERVE, LABEL_COMPONENT},
};
use conduit_net::Net;
use k8s_openapi::{api::core::v1::Pod, jiff::Timestamp};
use kube::{Api, Client, api::ListParams, client::AuthError};
use tokio::time::timeout;

use crate::args::Global;

/// How long a list may take.
pub(crate) const DEADLINE: Duration = Duration::from_secs(15);

/// What else a command could ask.
const OTHERWISE: &str = "name another cluster by --kubeconfig or --context, or start `conduit demo`";

/// The pod that answers.
pub(crate) struct Found {
    pub(crate) pods: Api<Pod>,
    pub(crate) name: String,
    /// The context's namespace.
    pub(crate) namespace: String,
}

/// A client of the cluster that `global` means, and where that is said.
///
/// # Errors
/// There is no such cluster, or its configuration is not usable.
pub(crate) async fn connect(net: &Net, global: &Global) -> anyhow::Result<(Client, kubeconfig::Found)> {
    let choice = Choice { path: global.kubeconfig.clone(), context: global.context.clone() };
    let cluster = kubeconfig::find(&choice).await.map_err(|problem| anyhow!(nowhere(&problem)))?;
    let connected = conduit_k8s::client::connect(net.clone(), cluster.config.clone());
    let client = connected.map_err(|error| anyhow!(unusable(&error, &cluster)))?;
    Ok((client, cluster))
}

/// Finds a ready pod of the observe component in the cluster that `global` means.
///
/// # Errors
/// There is no such cluster, it cannot be asked, or nothing of Conduit answers there.
pub(crate) async fn observe_pod(net: &Net, global: &Global) -> anyhow::Result<Found> {
    let (client, cluster) = connect(net, global).await?;
    let namespace = cluster.config.default_namespace.clone();
    let pods: Api<Pod> = Api::namespaced(client, &global.conduit_namespace);
    let list = ListParams::default().labels(&format!("{LABEL_COMPONENT}={COMPONENT_OBSERVE}"));
    let found = match timeout(DEADLINE, pods.list(&list)).await {
        Ok(Ok(found)) => found.items,
        Ok(Err(error)) => {
            let what = format!("the pods of the namespace {:?}", global.conduit_namespace);
            bail!(declined(&error, &cluster, &what, ", and for create on pods/portforward"))
        }
        Err(_) => bail!(late(&cluster)),
    };
    match ready_pod(&found) {
        Some(name) => Ok(Found { pods, name, namespace }),
        None => bail!(absent(&found, &global.conduit_namespace, &cluster)),
    }
}

fn nowhere(problem: &Problem) -> String {
    match problem {
        Problem::Missing(_) | Problem::Nowhere => {
            format!("{problem}, use --kubeconfig or --api-addr, or start `conduit demo`")
        }
        other => other.to_string(),
    }
}

fn unusable(error: &ConnectError, cluster: &kubeconfig::Found) -> String {
    let origin = &cluster.origin;
    match error {
        ConnectError::Configuration(kube::Error::Auth(AuthError::AuthExecStart(why))) => {
            let plugin = cluster.exec_plugin().unwrap_or_default();
            format!(
                "{origin} gets its credentials from {plugin:?}, which cannot be started: {why}; install it"
            )
        }
        ConnectError::Configuration(error) => {
            format!("{origin} cannot be used: {}", cause::Cause::new(error))
        }
        error => format!("{origin} cannot be used: {error}"),
    }
}

/// Why `what` cannot be listed; `more` is what else the user needs the right to, if anything.
pub(crate) fn declined(error: &kube::Error, cluster: &kubeconfig::Found, what: &str, more: &str) -> String {
    let kube::Error::Api(status) = error else {
        return silent(cluster, &cause::root(error).to_string());
    };
    let (url, origin, message) =
        (&cluster.config.cluster_url, &cluster.origin, cause::Cause::declined(status));
    match status.code {
        401 => match expired(cluster) {
            Some(expired) => format!("{origin} cannot be used: {expired}"),
            None => format!("the API server {url} does not know the user of {origin}; renew its credentials"),
        },
        403 => format!("the user of {origin} may not list {what}; ask for that right{more}"),
        _ => format!("cannot list {what} at {url}: {message}"),
    }
}

/// That an answer took too long.
pub(crate) fn late(cluster: &kubeconfig::Found) -> String {
    silent(cluster, &format!("no answer within {DEADLINE:?}"))
}

fn silent(cluster: &kubeconfig::Found, why: &str) -> String {
    // Some API servers refuse an expired certificate in the handshake already.
    if let Some(expired) = expired(cluster) {
        return format!("{} cannot be used: {expired}", cluster.origin);
    }
    let (url, origin) = (&cluster.config.cluster_url, &cluster.origin);
    format!("no API server answers at {url}, which {origin} names: {why}; {OTHERWISE}")
}

/// That the client certificate has expired, if it has.
fn expired(cluster: &kubeconfig::Found) -> Option<String> {
    let ends = cluster.client_certificate_ends().filter(|ends| *ends < SystemClock.now())?;
    let at = Timestamp::from_second(i64::try_from(ends.as_secs()).ok()?).ok()?;
    Some(format!("its client certificate expired at {at}; renew it"))
}

fn absent(pods: &[Pod], namespace: &str, cluster: &kubeconfig::Found) -> String {
    let url = &cluster.config.cluster_url;
    match pods.iter().find_map(|pod| pod.metadata.name.as_deref()) {
        Some(pod) => format!(
            "Conduit's observe component is not ready in the namespace {namespace:?} of {url}; find out why with \
             `kubectl -n {namespace} describe pod {pod}`"
        ),
        None => format!(
            "Conduit's observe component does not run in the namespace {namespace:?} of {url}; install it with \
             `conduit install | kubectl apply -f -`, or name its namespace by -c"
        ),
    }
}

/// The first pod by name that is ready.
fn ready_pod(pods: &[Pod]) -> Option<String> {
    let is_ready = |pod: &&Pod| {
        let conditions = pod.status.iter().flat_map(|status| status.conditions.iter().flatten());
        pod.metadata.deletion_timestamp.is_none()
            && conditions
                .into_iter()
                .any(|condition| condition.type_ == "Ready" && condition.status == "True")
    };
    pods.iter().filter(is_ready).filter_map(|pod| pod.metadata.name.clone()).min()
}
