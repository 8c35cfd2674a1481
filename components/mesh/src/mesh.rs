//! A mesh that runs: a cluster, a control plane, pods.

use std::{future::Future, io, net::SocketAddr, sync::Arc, time::Duration};

use conduit_cluster::Cluster;
use conduit_identity::{Clock, ControlPlane};
use conduit_runtime::drain;
use kube::{Api, Client, api::PostParams};
use tokio::time::Instant;

use crate::{
    Builder, Deployment, Error, Service,
    builder::Shared,
    control_plane::Component,
    launch::{self, RunningPod},
    objects::{self, Template},
    running::Part,
    services::Services,
};

/// Where the Kubernetes API listens.
const API_PORT: u16 = 6443;
/// Addresses between two meshes on one machine, and how many such places are tried.
const STRIDE: u32 = 256;
const PLACES: u32 = 64;
/// How long the cluster's own parts may take to know what they have been told.
const SETTLE_DEADLINE: Duration = Duration::from_secs(10);

/// A mesh in this process. Dropping it ends everything at once; [`Mesh::stop`] does so in order.
pub struct Mesh {
    pub(crate) shared: Arc<Shared>,
    pods: Vec<RunningPod>,
    pub(crate) components: Vec<Component>,
    cluster_parts: Vec<Part>,
    volumes: tempfile::TempDir,
}

impl Mesh {
    /// Begins to describe a mesh.
    pub fn builder(addresses: crate::Addresses, seed: conduit_runtime::Seed) -> Builder {
        Builder::new(addresses, seed)
    }

    pub(crate) async fn start(builder: Builder) -> Result<Self, Error> {
        let volumes = private_directory().map_err(Error::Directory)?;
        let wall = builder.api_clock.clone().unwrap_or_else(|| builder.clock.clone());
        let clock = Arc::new(move || wall.now().0);
        let cluster = Cluster::new(conduit_cluster::Config::new(clock, builder.seed.fork("cluster")));
        // What the mesh does as the cluster's own nodes and controllers is not what faults are for.
        let client = cluster.steady_client();
        let (api, serving) = serve_api(&builder, &cluster).await?;
        let (services, following) =
            Services::follow(&client, builder.clock.clone(), &builder.seed.fork("services"));
        let controlled = cluster.clone();
        let cluster_parts = vec![
            serving,
            Part::start("cluster DNS and kube-proxy", |_| following),
            Part::start("controllers", |drain| async move { controlled.run_controllers(drain).await }),
        ];
        let shared = Shared {
            addresses: builder.addresses,
            clock: builder.clock,
            seed: builder.seed,
            crypto: builder.crypto,
            control_plane: builder.control_plane,
            lifetimes: builder.lifetimes,
            ca_lease: builder.ca_lease,
            pull: builder.pull,
            grace: builder.grace,
            scrape_interval: builder.scrape_interval,
            observer: builder.observer,
            cluster,
            client,
            api,
            services,
            volumes: volumes.path().to_owned(),
        };
        let mesh = Self {
            shared: Arc::new(shared),
            pods: Vec::new(),
            components: Vec::new(),
            cluster_parts,
            volumes,
        };
        mesh.namespace(&mesh.shared.control_plane.namespace).await?;
        within("cluster DNS", "the cluster", mesh.shared.services.synced()).await?;
        Ok(mesh)
    }

    /// A client for the cluster's API, as an operator has one.
    pub fn client(&self) -> Client {
        self.shared.client.clone()
    }

    /// The cluster, to break it.
    pub fn cluster(&self) -> &Cluster {
        &self.shared.cluster
    }

    /// Where the cluster's API is for programs outside the mesh: plain HTTP, open to everybody on this machine.
    pub fn api_addr(&self) -> SocketAddr {
        self.real(self.shared.api)
    }

    /// Where pods' volumes are on this machine, each time in another place.
    pub fn volumes(&self) -> &std::path::Path {
        &self.shared.volumes
    }

    /// Whose mesh it is.
    pub fn control_plane(&self) -> &ControlPlane {
        &self.shared.control_plane
    }

    /// How long its certificates live.
    pub fn lifetimes(&self) -> &conduit_ca::Lifetimes {
        &self.shared.lifetimes
    }

    /// The wall clock.
    pub fn clock(&self) -> Arc<dyn Clock> {
        self.shared.clock.clone()
    }

    /// The running pods of applications, in the order they were started.
    pub fn pods(&self) -> &[RunningPod] {
        &self.pods
    }

    /// What processes outside the mesh dial for an address of a pod.
    pub(crate) fn real(&self, address: SocketAddr) -> SocketAddr {
        self.shared.addresses.real(address).unwrap_or(address)
    }

    /// Creates a namespace, or leaves the one that is there.
    ///
    /// # Errors
    /// The API refuses it.
    pub async fn namespace(&self, name: &str) -> Result<(), Error> {
        let api: Api<k8s_openapi::api::core::v1::Namespace> = Api::all(self.client());
        match api.create(&PostParams::default(), &objects::namespace(name)?).await {
            Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
            Err(source) => Err(Error::Refused { what: format!("namespace {name}"), source }),
            Ok(_) => Ok(()),
        }
    }

    /// Creates a Service.
    ///
    /// # Errors
    /// The API refuses it.
    pub async fn service(&self, service: &Service) -> Result<(), Error> {
        launch::create_service(&self.shared, service, "app").await
    }

    /// Creates Deployments, all at once, and then starts their pods one after the other: each is ready, and in the
    /// endpoints of its Services, before the next one starts.
    ///
    /// # Errors
    /// The API refuses an object, or a part of a pod does not start.
    pub async fn deploy(&mut self, deployments: &[Deployment]) -> Result<(), Error> {
        let mut created = Vec::new();
        for deployment in deployments {
            self.namespace(&deployment.namespace).await?;
            let template = Template::of(deployment, &self.shared.control_plane, self.shared.grace);
            let workload = deployment.workload();
            created.push(launch::create(&self.shared, &workload, &template, deployment.replicas).await?);
        }
        let pulled = Instant::now() + self.shared.pull;
        for (deployment, pods) in deployments.iter().zip(created) {
            for pod in pods {
                tokio::time::sleep_until(pulled).await;
                let pod = RunningPod::start(&self.shared, deployment, pod).await?;
                let ip = pod.ip();
                self.pods.push(pod);
                let known = self.shared.services.include(&deployment.namespace, &deployment.label, ip);
                within("its endpoint", &deployment.name, known).await?;
            }
        }
        Ok(())
    }

    /// Replaces a pod by another of its Deployment, as a rolling update does: the new one is ready before the old one is
    /// deleted, which has `deadline` once it has been told to stop. The new one's name.
    ///
    /// # Errors
    /// There is no such pod, the API refuses an object, or a part of the new pod does not start.
    pub async fn replace_pod(&mut self, name: &str, deadline: Duration) -> Result<String, Error> {
        let spec = self.pod(name)?.spec().clone().replicas(1);
        let before = self.pods.len();
        self.deploy(&[spec]).await?;
        let new = self.pods.get(before).map(|pod| pod.name().to_owned()).unwrap_or_default();
        self.stop_pod(name, deadline).await?;
        Ok(new)
    }

    /// Deletes a pod, and lets it end as the mesh's grace says, within `deadline` after that.
    ///
    /// # Errors
    /// There is no such pod, or the API refuses to delete it.
    pub async fn stop_pod(&mut self, name: &str, deadline: Duration) -> Result<(), Error> {
        self.pod(name)?;
        let at = self.pods.iter().position(|pod| pod.name() == name).unwrap_or_default();
        let pod = self.pods.remove(at);
        pod.stop(&self.shared, self.shared.grace, deadline).await
    }

    /// Restarts a pod's sidecar alone; the old one has `deadline` to let go of what is under way. Until the new one listens
    /// the pod's connections are refused.
    ///
    /// # Errors
    /// There is no such pod, or the new sidecar does not start.
    pub async fn restart_sidecar(&mut self, name: &str, deadline: Duration) -> Result<(), Error> {
        let shared = self.shared.clone();
        let pod = self.pod(name)?;
        pod.end_proxy(&shared, deadline).await;
        pod.run(&shared).await
    }

    /// Ends a pod's processes at once, as when its node dies; the API goes on showing it as ready.
    ///
    /// # Errors
    /// There is no such pod.
    pub fn kill_pod(&mut self, name: &str) -> Result<(), Error> {
        let shared = self.shared.clone();
        self.pod(name)?.kill(&shared);
        Ok(())
    }

    /// Starts a killed pod's processes again.
    ///
    /// # Errors
    /// There is no such pod, or a part of it does not start.
    pub async fn revive_pod(&mut self, name: &str) -> Result<(), Error> {
        let shared = self.shared.clone();
        self.pod(name)?.run(&shared).await
    }

    fn pod(&mut self, name: &str) -> Result<&mut RunningPod, Error> {
        let found = self.pods.iter_mut().find(|pod| pod.name() == name);
        found.ok_or_else(|| Error::NoSuchPod { name: name.to_owned() })
    }

    /// Stops the pods of a Deployment, `deadline` for each, and deletes them.
    ///
    /// # Errors
    /// The API refuses to delete them.
    pub async fn stop_pods(
        &mut self,
        namespace: &str,
        deployment: &str,
        deadline: Duration,
    ) -> Result<(), Error> {
        let (stopping, staying) = std::mem::take(&mut self.pods)
            .into_iter()
            .partition(|pod| pod.namespace() == namespace && pod.deployment() == deployment);
        self.pods = staying;
        let stopping: Vec<RunningPod> = stopping;
        for pod in stopping {
            pod.stop(&self.shared, Duration::ZERO, deadline).await?;
        }
        Ok(())
    }

    /// Ends everything, applications first, `deadline` for all of it; what is still under way then is cut off.
    pub async fn stop(mut self, deadline: Duration) {
        let end = Instant::now() + deadline;
        let left = || end.saturating_duration_since(Instant::now());
        let pods = std::mem::take(&mut self.pods);
        futures::future::join_all(pods.into_iter().rev().map(|pod| pod.halt(&self.shared, left()))).await;
        let components = std::mem::take(&mut self.components);
        futures::future::join_all(
            components.into_iter().map(|component| component.stop(&self.shared, left())),
        )
        .await;
        for part in std::mem::take(&mut self.cluster_parts) {
            part.stop(left()).await;
        }
        if let Err(error) = self.volumes.close() {
            tracing::warn!(%error, "the pods' credentials stay in the temporary directory");
        }
    }
}

/// A directory for the pods' private keys, which nobody else on this machine may read.
fn private_directory() -> io::Result<tempfile::TempDir> {
    let mut builder = tempfile::Builder::new();
    builder.prefix("conduit-mesh-");
    #[cfg(unix)]
    builder.permissions(std::os::unix::fs::PermissionsExt::from_mode(0o700));
    builder.tempdir()
}

/// Lets the API listen at the first free place for a mesh.
async fn serve_api(builder: &Builder, cluster: &Cluster) -> Result<(SocketAddr, Part), Error> {
    let mut last = io::Error::from(io::ErrorKind::AddrNotAvailable);
    for _ in 0..PLACES {
        let host = builder.addresses.host().map_err(Error::Address)?;
        let address = (host.ip(), API_PORT).into();
        let (trigger, drain) = drain::channel();
        match cluster.serve(&(Arc::new(host) as conduit_net::Net), address, drain).await {
            Ok(serving) => return Ok((serving.addr, Part::with_trigger("API", trigger, serving.server))),
            Err(error) => last = error,
        }
        builder.addresses.skip(STRIDE - 1);
    }
    Err(Error::Api(last))
}

/// Waits for `done`, which takes a moment.
pub(crate) async fn within<T>(
    part: &'static str,
    pod: &str,
    done: impl Future<Output = T>,
) -> Result<T, Error> {
    let late = || Error::Late { pod: pod.to_owned(), part, deadline: SETTLE_DEADLINE };
    tokio::time::timeout(SETTLE_DEADLINE, done).await.map_err(|_| late())
}

#[cfg(all(test, unix))]
mod tests {
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;

    #[test]
    fn nobody_else_reads_the_keys() {
        let directory = private_directory().unwrap();
        let mode = directory.path().metadata().unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o700);
    }
}
