//! Bringing pods up and down, as the cluster's controllers and kubelet do.

use std::{collections::BTreeSet, fmt::Debug, net::IpAddr, path::PathBuf, time::Duration};

use conduit_cluster::kubelet::Kubelet;
use conduit_identity::Workload;
use conduit_k8s::owned;
use conduit_runtime::env::Env;
use k8s_openapi::api::{
    apps::v1::{Deployment as KubeDeployment, ReplicaSet},
    core::v1::{Pod, Service as KubeService},
};
use kube::{
    Api,
    api::{DeleteParams, Patch, PatchParams, PostParams},
};
use serde::{Serialize, de::DeserializeOwned};
use tokio::{sync::oneshot, time::Instant};

use crate::{
    Deployment, Error, PodNet, Redirect, Service, Sidecar,
    builder::Shared,
    mesh::within,
    objects::{self, Template},
    running::Part,
    sidecar,
};

/// How often kubelet looks at a volume's sources. A real one takes a minute, which is long for a demonstration.
const VOLUME_SYNC: Duration = Duration::from_millis(500);
/// How long it waits for the API.
const VOLUME_DEADLINE: Duration = Duration::from_secs(5);

/// A pod that exists in the API and has no containers yet.
pub(crate) struct CreatedPod {
    pub(crate) object: Pod,
    pub(crate) name: String,
}

/// Creates a Deployment, unless it is there already, and what its controllers would make of it.
pub(crate) async fn create(
    shared: &Shared,
    workload: &Workload,
    template: &Template,
    replicas: usize,
) -> Result<Vec<CreatedPod>, Error> {
    let deployment: KubeDeployment =
        have(shared, &objects::deployment(workload, template, replicas)?).await?;
    let uid = deployment.metadata.uid.unwrap_or_default();
    let replica_set: ReplicaSet =
        have(shared, &objects::replica_set(workload, template, replicas, &uid)?).await?;
    let uid = replica_set.metadata.uid.unwrap_or_default();
    let mut pods = Vec::with_capacity(replicas);
    for _ in 0..replicas {
        let object: Pod = post(shared, &objects::pod(workload, template, &uid)?).await?;
        let name = object.metadata.name.clone().unwrap_or_default();
        pods.push(CreatedPod { object, name });
    }
    Ok(pods)
}

/// Removes a pod from the API.
pub(crate) async fn delete_pod(shared: &Shared, namespace: &str, name: &str) -> Result<(), Error> {
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), namespace);
    let deleted = api.delete(name, &DeleteParams::default()).await;
    deleted
        .map(drop)
        .map_err(|source| Error::Refused { what: format!("deleting pod {namespace}/{name}"), source })
}

/// Creates a Service, unless it is there already, whose pods are told by their label `selector`.
pub(crate) async fn create_service(shared: &Shared, service: &Service, selector: &str) -> Result<(), Error> {
    let _: KubeService = have(shared, &objects::service(service, selector)?).await?;
    within("cluster DNS", &service.name, shared.services.know(&service.namespace, &service.name)).await
}

/// Creates an object, or finds the one of its name.
async fn have<K>(shared: &Shared, object: &K) -> Result<K, Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    match post(shared, object).await {
        Err(Error::Refused { what, source: kube::Error::Api(status) }) if status.code == 409 => {
            let namespace = object.meta().namespace.clone().unwrap_or_default();
            let api: Api<K> = Api::namespaced(shared.client.clone(), &namespace);
            let name = object.meta().name.as_deref().unwrap_or_default();
            api.get(name).await.map_err(|source| Error::Refused { what, source })
        }
        created => created,
    }
}

async fn post<K>(shared: &Shared, object: &K) -> Result<K, Error>
where
    K: kube::Resource<DynamicType = (), Scope = k8s_openapi::NamespaceResourceScope>
        + Clone
        + Debug
        + Serialize
        + DeserializeOwned,
{
    let namespace = object.meta().namespace.clone().unwrap_or_default();
    let api: Api<K> = Api::namespaced(shared.client.clone(), &namespace);
    api.create(&PostParams::default(), object).await.map_err(|source| {
        let name =
            object.meta().name.as_deref().or(object.meta().generate_name.as_deref()).unwrap_or_default();
        Error::Refused { what: format!("{} {namespace}/{name}", K::kind(&())), source }
    })
}

/// Tells the API how a pod does.
pub(crate) async fn report(
    shared: &Shared,
    pod: &Pod,
    name: &str,
    ip: IpAddr,
    is_ready: bool,
) -> Result<(), Error> {
    let containers = pod.spec.iter().flat_map(|spec| &spec.containers);
    let names: Vec<String> = containers.map(|container| container.name.clone()).collect();
    let namespace = pod.metadata.namespace.clone().unwrap_or_default();
    let api: Api<Pod> = Api::namespaced(shared.client.clone(), &namespace);
    let status = Patch::Merge(objects::pod_status(ip, &names, is_ready));
    let patched = api.patch_status(name, &PatchParams::default(), &status).await;
    patched.map_err(|source| Error::Refused { what: format!("status of pod {namespace}/{name}"), source })?;
    Ok(())
}

/// Mounts the pod's identity volume, with what there is of it, and keeps it current. Without such a volume the directory
/// stays empty.
pub(crate) async fn mount(shared: &Shared, pod: &CreatedPod) -> (PathBuf, Option<Part>) {
    let namespace = pod.object.metadata.namespace.as_deref().unwrap_or_default();
    let directory = shared.volumes.join(namespace).join(&pod.name);
    let volumes = pod.object.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
    let is_mounted = volumes.map(|volume| &volume.name).any(|name| name == owned::IDENTITY_VOLUME);
    if !is_mounted {
        return (directory, None);
    }
    let kubelet = Kubelet { client: shared.client.clone(), period: VOLUME_SYNC, deadline: VOLUME_DEADLINE };
    if let Err(error) = kubelet.sync(&pod.object, owned::IDENTITY_VOLUME, &directory).await {
        tracing::debug!(%error, pod = pod.name, "the identity volume is not there yet");
    }
    let (object, mounted) = (pod.object.clone(), directory.clone());
    let part = Part::start(format!("kubelet of {}", pod.name), |drain| async move {
        kubelet.run(&object, owned::IDENTITY_VOLUME, &mounted, drain).await;
    });
    (directory, Some(part))
}

/// What happens to pods, for those who write down what a mesh did.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum PodEvent {
    /// A pod has an address and its volumes; none of its containers runs.
    Began {
        /// Its namespace.
        namespace: String,
        /// Its name.
        name: String,
        /// The Deployment it belongs to.
        deployment: String,
        /// Whether and how it was injected.
        sidecar: Sidecar,
        /// Its address.
        ip: IpAddr,
        /// Where its credentials are.
        identity_dir: PathBuf,
    },
    /// Its sidecar listens.
    ProxyUp {
        /// The pod's name.
        name: String,
    },
    /// Its sidecar has been told to stop, or was killed.
    ProxyDown {
        /// The pod's name.
        name: String,
    },
    /// Nothing of its sidecar runs any more, or will in a moment.
    ProxyGone {
        /// The pod's name.
        name: String,
        /// The pod's address.
        ip: IpAddr,
    },
    /// Nothing of it runs any more, or will in a moment.
    Ended {
        /// Its name.
        name: String,
        /// Its address, which another pod may get.
        ip: IpAddr,
    },
}

/// A pod of an application: its volume, its sidecar, its containers.
pub struct RunningPod {
    spec: Deployment,
    object: Pod,
    name: String,
    net: PodNet,
    identity: PathBuf,
    app: Option<Part>,
    proxy: Option<Part>,
    kubelet: Option<Part>,
}

impl RunningPod {
    pub(crate) async fn start(
        shared: &Shared,
        deployment: &Deployment,
        pod: CreatedPod,
    ) -> Result<Self, Error> {
        let host = shared.addresses.host().map_err(Error::Address)?;
        let services = shared.services.clone();
        let net = match deployment.sidecar {
            Sidecar::Absent => PodNet::unmeshed(host, &deployment.namespace, services),
            _ => PodNet::meshed(host, &deployment.namespace, services, Redirect::default()),
        };
        let (identity, kubelet) = mount(shared, &pod).await;
        shared.tell(|| PodEvent::Began {
            namespace: deployment.namespace.clone(),
            name: pod.name.clone(),
            deployment: deployment.name.clone(),
            sidecar: deployment.sidecar,
            ip: net.ip(),
            identity_dir: identity.clone(),
        });
        let CreatedPod { object, name } = pod;
        let mut pod =
            Self { spec: deployment.clone(), object, name, net, identity, app: None, proxy: None, kubelet };
        pod.report(shared, false).await?;
        pod.run(shared).await?;
        Ok(pod)
    }

    /// Starts those of its containers that do not run; it is ready then.
    pub(crate) async fn run(&mut self, shared: &Shared) -> Result<(), Error> {
        if self.proxy.is_none() && self.spec.sidecar != Sidecar::Absent {
            let proxy = start_proxy(shared, &self.spec, &self.name, &self.net, &self.identity).await?;
            self.proxy = Some(proxy);
            shared.tell(|| PodEvent::ProxyUp { name: self.name.clone() });
        }
        if self.app.is_none() {
            self.app = Some(start_app(&self.spec, &self.name, &self.net).await?);
        }
        self.report(shared, true).await
    }

    async fn report(&self, shared: &Shared, is_ready: bool) -> Result<(), Error> {
        report(shared, &self.object, &self.name, self.ip(), is_ready).await
    }

    /// Its namespace.
    pub fn namespace(&self) -> &str {
        &self.spec.namespace
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// The Deployment it belongs to.
    pub fn deployment(&self) -> &str {
        &self.spec.name
    }

    /// Whether and how it was injected.
    pub fn sidecar(&self) -> Sidecar {
        self.spec.sidecar
    }

    /// Its address.
    pub fn ip(&self) -> IpAddr {
        self.net.ip()
    }

    /// Where its sidecar finds its credentials.
    pub fn identity_dir(&self) -> &std::path::Path {
        &self.identity
    }

    /// What it was made from.
    pub(crate) fn spec(&self) -> &Deployment {
        &self.spec
    }

    /// Ends its sidecar, which has `deadline` to let go of what is under way. The API hears nothing of it.
    pub(crate) async fn end_proxy(&mut self, shared: &Shared, deadline: Duration) {
        if let Some(proxy) = self.proxy.take() {
            shared.tell(|| PodEvent::ProxyDown { name: self.name.clone() });
            proxy.stop(deadline).await;
            shared.tell(|| PodEvent::ProxyGone { name: self.name.clone(), ip: self.ip() });
        }
    }

    /// Ends all of its processes at once, as when its node dies. The API hears nothing of it.
    pub(crate) fn kill(&mut self, shared: &Shared) {
        self.app = None;
        self.proxy = None;
        shared.tell(|| PodEvent::ProxyDown { name: self.name.clone() });
    }

    /// Ends it as a cluster does: deleted in the API, told to stop after `linger`, which is what a hook before the stop
    /// waits for, and cut off after `deadline`.
    pub(crate) async fn stop(
        self,
        shared: &Shared,
        linger: Duration,
        deadline: Duration,
    ) -> Result<(), Error> {
        let deleted = delete_pod(shared, self.namespace(), &self.name).await;
        tokio::time::sleep(linger).await;
        self.halt(shared, deadline).await;
        deleted
    }

    /// Ends it: first the application, then its sidecar, as with native sidecars, so that the application's last requests
    /// find one.
    pub(crate) async fn halt(mut self, shared: &Shared, deadline: Duration) {
        let end = Instant::now() + deadline;
        if let Some(app) = self.app.take() {
            app.stop(deadline).await;
        }
        self.end_proxy(shared, end.saturating_duration_since(Instant::now())).await;
        drop(self.kubelet.take());
        shared.tell(|| PodEvent::Ended { name: self.name.clone(), ip: self.ip() });
    }
}

/// Runs the pod's proxy, once it listens.
async fn start_proxy(
    shared: &Shared,
    deployment: &Deployment,
    pod: &str,
    net: &PodNet,
    identity: &std::path::Path,
) -> Result<Part, Error> {
    let variables = sidecar::environment(deployment, &shared.control_plane, shared.grace, identity);
    let mut env = Env::from_pairs(variables);
    let mut config = conduit_proxy::Config::from_env(&mut env);
    // The process is everybody's: its memory and time would be told of each pod.
    config.process_metrics = false;
    let not_started = |reason| Error::NotStarted { pod: pod.to_owned(), part: "the proxy", reason };
    env.finish().map_err(|invalid| not_started(invalid.into()))?;
    let (started, listening) = oneshot::channel();
    let deps = conduit_proxy::Deps {
        net: net.proxy(),
        clock: deployment.clock.clone().unwrap_or_else(|| shared.clock.clone()),
        seed: shared.seed.fork(pod),
        crypto: shared.crypto.clone(),
        started: Some(started),
    };
    let (failed, failure) = oneshot::channel();
    let part = Part::start_on(net.processes(), format!("proxy of {pod}"), |drain| async move {
        if let Err(error) = conduit_proxy::run(config, deps, drain).await {
            drop(failed.send(error.into()));
        }
    });
    let up = async {
        match listening.await {
            Ok(_) => Ok(()),
            Err(_) => Err(failure.await.unwrap_or_else(|_| "it ended".into())),
        }
    };
    within("the proxy", pod, up).await?.map_err(not_started)?;
    Ok(part)
}

/// Runs the pod's application, once it listens on every port it should.
async fn start_app(deployment: &Deployment, pod: &str, net: &PodNet) -> Result<Part, Error> {
    let wanted: BTreeSet<u16> = deployment.ports.iter().map(|port| port.number).collect();
    let mut listening = net.listening();
    let (failed, mut failure) = oneshot::channel();
    let (app, app_net) = (deployment.app.clone(), net.app());
    let part = Part::start_on(net.processes(), format!("application of {pod}"), |drain| async move {
        let ended = app(app_net, drain).await;
        drop(failed.send(ended.err().unwrap_or_else(|| "it ended".into())));
    });
    let up = async {
        tokio::select! {
            biased;
            // The sender lives in the pod's network.
            _ = listening.wait_for(|ports| ports.is_superset(&wanted)) => Ok(()),
            ended = &mut failure => Err(ended.unwrap_or_else(|_| "it panicked".into())),
        }
    };
    let not_started = |reason| Error::NotStarted { pod: pod.to_owned(), part: "the application", reason };
    within("the application", pod, up).await?.map_err(not_started)?;
    Ok(part)
}
