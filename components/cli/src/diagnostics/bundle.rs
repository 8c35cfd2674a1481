//! `conduit diagnostics bundle`: what is known, in one archive for a support request.
//!
//! Secrets are not asked for, so that keys cannot get in; what looks like one is taken out nevertheless, see `archive.rs`.
//! What cannot be had is named in `missing.txt`: a half-dead mesh is what such archives are made for.

use std::{fs::OpenOptions, io::Write, path::Path, process::ExitCode, time::Duration};

use anyhow::Context as _;
use conduit_identity::{Clock as _, SystemClock};
use conduit_net::TokioNetwork;
use conduit_observe::diagnosis::Proxies;
use k8s_openapi::api::{
    apps::v1::Deployment,
    core::v1::{ConfigMap, Event, Pod, Service},
};
use kube::{
    Api, Client as Kubernetes,
    api::{ListParams, LogParams},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::time::timeout;

use super::archive::Archive;
use crate::{args::Global, client::Client, cluster, output, version::VERSION};

/// How long one answer of the Kubernetes API may take.
const DEADLINE: Duration = Duration::from_secs(10);
/// Proxies whose metrics are taken in; a thousand of them are some hundred megabytes.
const MAX_PROXIES: usize = 200;
/// Lines of each log.
const LOG_LINES: i64 = 5_000;
/// Objects of one kind.
const MAX_OBJECTS: u32 = 500;

/// What the API answers, and the file that it goes to.
const ANSWERS: [(&str, &str); 7] = [
    ("version.json", "/api/v1/version"),
    ("control-plane.json", "/api/v1/control-plane"),
    ("pods.json", "/api/v1/pods"),
    ("proxies.json", "/api/v1/proxies"),
    ("stat.json", "/api/v1/stat?type=all&all_namespaces=true"),
    ("edges.json", "/api/v1/edges?all_namespaces=true"),
    ("openapi.json", "/api/v1/openapi.json"),
];

/// Writes the archive to `path`.
///
/// # Errors
/// The file exists or cannot be written. What is not known is no error.
pub(super) async fn run(path: &Path, global: &Global) -> anyhow::Result<ExitCode> {
    let shown = path.display();
    let mut options = OpenOptions::new();
    options.write(true).create_new(true);
    // Names of pods and requests are nobody else's business.
    #[cfg(unix)]
    std::os::unix::fs::OpenOptionsExt::mode(&mut options, 0o600);
    let file =
        options.open(path).with_context(|| format!("cannot write {shown}; name another file by -o"))?;
    let mut bundle = Bundle::new(file);
    bundle.add("client.txt", format!("conduit {VERSION}\n").as_bytes())?;
    match Client::find(global).await {
        Ok(client) => bundle.conduit(&client).await?,
        Err(error) => bundle.miss("everything that observe knows", &format!("{error:#}")),
    }
    let net = TokioNetwork::shared();
    if Client::without_kubernetes(&net, global).await.is_none() {
        match cluster::connect(&net, global).await {
            Ok((client, _)) => bundle.kubernetes(&client, &global.conduit_namespace).await?,
            Err(error) => bundle.miss("everything that Kubernetes knows", &format!("{error:#}")),
        }
    }
    let missing = bundle.finish()?;
    output::stdout(&format!("{shown}\n"))?;
    if missing > 0 {
        output::note(&format!("note: {missing} parts are missing; missing.txt in the archive says why"));
    }
    Ok(ExitCode::SUCCESS)
}

struct Bundle<W: Write> {
    archive: Archive<W>,
    missing: Vec<String>,
}

impl<W: Write> Bundle<W> {
    fn new(to: W) -> Self {
        Self { archive: Archive::new(to, SystemClock.now().as_secs()), missing: Vec::new() }
    }

    fn add(&mut self, name: &str, content: &[u8]) -> anyhow::Result<()> {
        Ok(self.archive.add(name, content)?)
    }

    fn miss(&mut self, what: &str, why: &str) {
        self.missing.push(format!("{what}: {why}\n"));
    }

    fn take(&mut self, name: &str, content: anyhow::Result<Vec<u8>>) -> anyhow::Result<()> {
        match content {
            Ok(content) => self.add(name, &content),
            Err(error) => {
                self.miss(name, &format!("{error:#}"));
                Ok(())
            }
        }
    }

    /// What observe knows, and what proxies tell it.
    async fn conduit(&mut self, client: &Client) -> anyhow::Result<()> {
        for (file, path) in ANSWERS {
            let answer = client.bytes(path, &[]).await;
            self.take(file, answer.map(|bytes| bytes.to_vec()))?;
        }
        let known = client.get::<Proxies>("/api/v1/proxies", &[]).await;
        let proxies = known.map(|known| known.proxies).unwrap_or_default();
        for proxy in proxies.iter().take(MAX_PROXIES) {
            let parameters = [("namespace", proxy.namespace.clone()), ("pod", proxy.pod.clone())];
            let metrics = client.bytes("/api/v1/proxy-metrics", &parameters).await;
            let file = format!("metrics/{}/{}.txt", proxy.namespace, proxy.pod);
            self.take(&file, metrics.map(|bytes| bytes.to_vec()))?;
        }
        if let Some(more) = proxies.len().checked_sub(MAX_PROXIES).filter(|more| *more > 0) {
            self.miss("metrics", &format!("of {more} proxies, to keep the archive small"));
        }
        Ok(())
    }

    /// The objects and logs of the control plane.
    async fn kubernetes(&mut self, client: &Kubernetes, namespace: &str) -> anyhow::Result<()> {
        let pods = Api::<Pod>::namespaced(client.clone(), namespace);
        self.take("kubernetes/pods.json", listed(pods.clone()).await)?;
        self.take("kubernetes/deployments.json", objects::<Deployment>(client, namespace).await)?;
        self.take("kubernetes/services.json", objects::<Service>(client, namespace).await)?;
        self.take("kubernetes/configmaps.json", objects::<ConfigMap>(client, namespace).await)?;
        self.take("kubernetes/events.json", objects::<Event>(client, namespace).await)?;
        let found = timeout(DEADLINE, pods.list(&ListParams::default().limit(MAX_OBJECTS))).await;
        let found = found.ok().and_then(Result::ok).map(|list| list.items).unwrap_or_default();
        for name in found.into_iter().filter_map(|pod| pod.metadata.name) {
            let log = LogParams { tail_lines: Some(LOG_LINES), ..LogParams::default() };
            let text = in_time(pods.logs(&name, &log)).await.map(String::into_bytes);
            self.take(&format!("kubernetes/logs/{name}.txt"), text)?;
        }
        Ok(())
    }

    /// How many parts are missing.
    fn finish(mut self) -> anyhow::Result<usize> {
        let missing = std::mem::take(&mut self.missing);
        self.add("missing.txt", missing.concat().as_bytes())?;
        self.archive.finish()?.flush()?;
        Ok(missing.len())
    }
}

async fn objects<K>(client: &Kubernetes, namespace: &str) -> anyhow::Result<Vec<u8>>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + DeserializeOwned
        + Serialize
        + std::fmt::Debug,
{
    listed(Api::<K>::namespaced(client.clone(), namespace)).await
}

async fn listed<K>(api: Api<K>) -> anyhow::Result<Vec<u8>>
where
    K: Clone + DeserializeOwned + Serialize + std::fmt::Debug,
{
    let list = in_time(api.list(&ListParams::default().limit(MAX_OBJECTS))).await?;
    Ok(serde_json::to_vec_pretty(&list.items)?)
}

async fn in_time<T>(asked: impl Future<Output = Result<T, kube::Error>>) -> anyhow::Result<T> {
    Ok(timeout(DEADLINE, asked).await.with_context(|| format!("no answer within {DEADLINE:?}"))??)
}
