//! The control plane's parts, each in a pod of its own, wired as their binaries wire them.

use std::{
    future::Future,
    net::{IpAddr, SocketAddr},
    path::PathBuf,
    sync::Arc,
    time::Duration,
};

use conduit_identity::{Clock, ControlPlane, Files, Workload};
use conduit_k8s::{client::ConnectError, lease, owned};
use conduit_runtime::drain;
use kube::Client;
use tokio::sync::oneshot;

use crate::{
    Error, Mesh, PodEvent, PodNet, Service, Sidecar,
    builder::Shared,
    deployment::AppError,
    launch::{self, CreatedPod},
    mesh::within,
    objects::Template,
    running::Part,
};

/// How often the components look for new credentials here: a demonstration is short.
const TLS_POLL: Duration = Duration::from_secs(1);

/// A part of the control plane, running.
pub(crate) struct Component {
    name: &'static str,
    pod: String,
    address: SocketAddr,
    part: Part,
    kubelet: Option<Part>,
}

impl Component {
    pub(crate) async fn stop(self, shared: &Shared, deadline: Duration) {
        self.part.stop(deadline).await;
        drop(self.kubelet);
        shared.tell(|| PodEvent::Ended { name: self.pod, ip: self.address.ip() });
    }
}

/// What a component finds in its pod.
struct Place {
    pod: CreatedPod,
    net: PodNet,
    ip: IpAddr,
    identity: PathBuf,
    kubelet: Option<Part>,
}

impl Place {
    /// Makes the component's client, where the component runs.
    fn api_client(&self, shared: &Shared) -> impl FnOnce() -> Result<Client, ConnectError> + Send + 'static {
        let (net, api, namespace) = (self.net.app(), shared.api, shared.control_plane.namespace.clone());
        move || conduit_k8s::client::plain(net, api, &namespace)
    }
}

impl Mesh {
    /// Starts the CA; its wall clock may be another than everybody's.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_ca(&mut self, clock: Arc<dyn Clock>) -> Result<(), Error> {
        let lease = self.shared.ca_lease.clone();
        self.run_ca(clock, lease).await
    }

    /// Starts a CA that asks nobody whether it leads: what several of them are when their leadership has gone wrong.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_unrivalled_ca(&mut self, clock: Arc<dyn Clock>) -> Result<(), Error> {
        self.run_ca(clock, None).await
    }

    async fn run_ca(&mut self, clock: Arc<dyn Clock>, lease: Option<lease::Timing>) -> Result<(), Error> {
        let ports = [("admin", owned::PORT_CA_ADMIN)];
        let place = self.place(owned::COMPONENT_CA, &ports, false).await?;
        let (started, listening) = oneshot::channel();
        let admin = (place.ip, owned::PORT_CA_ADMIN).into();
        let mut config = conduit_ca::Config::new(self.shared.control_plane.clone(), admin);
        config.holder.clone_from(&place.pod.name);
        config.lease = lease;
        config.lifetimes.clone_from(&self.shared.lifetimes);
        config.on_started = Some(started);
        let (shared, api_client) = (self.shared.clone(), place.api_client(&self.shared));
        let (net, seed) = (place.net.app(), self.shared.seed.fork(&place.pod.name));
        let run = |drain| async move {
            let crypto = shared.crypto.clone();
            let deps = conduit_ca::Deps { client: api_client()?, net, clock, seed, crypto };
            conduit_ca::run(config, deps, drain).await.map_err(AppError::from)
        };
        self.run(owned::COMPONENT_CA, place, admin, listening, run).await
    }

    /// Starts the destination service.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_destination(&mut self) -> Result<(), Error> {
        let control_plane = self.shared.control_plane.clone();
        self.start_destination_of(control_plane).await
    }

    /// Starts a destination service that believes to be `control_plane`'s: one that was configured wrongly, if that is
    /// not the mesh's.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_destination_of(&mut self, control_plane: ControlPlane) -> Result<(), Error> {
        let ports = [("grpc", owned::PORT_DESTINATION), ("admin", owned::PORT_DESTINATION_ADMIN)];
        let place = self.place(owned::COMPONENT_DESTINATION, &ports, true).await?;
        let address = (place.ip, owned::PORT_DESTINATION).into();
        let config = conduit_destination::Config {
            listener: address,
            admin: (place.ip, owned::PORT_DESTINATION_ADMIN).into(),
            control_plane,
            files: Some(Files::in_directory(&place.identity)),
            reload: TLS_POLL,
            ..conduit_destination::Config::default()
        };
        let (started, listening) = oneshot::channel();
        let (shared, api_client) = (self.shared.clone(), place.api_client(&self.shared));
        let (net, seed) = (place.net.app(), self.shared.seed.fork(&place.pod.name));
        let run = |drain| async move {
            let deps = conduit_destination::Deps {
                client: api_client()?,
                net,
                clock: shared.clock.clone(),
                seed,
                crypto: shared.crypto.clone(),
                started: Some(started),
            };
            conduit_destination::run(config, deps, drain).await.map_err(AppError::from)
        };
        self.run(owned::COMPONENT_DESTINATION, place, address, listening, run).await
    }

    /// Starts observe.
    ///
    /// # Errors
    /// It does not start.
    pub async fn start_observe(&mut self) -> Result<(), Error> {
        let ports = [("http", owned::PORT_OBSERVE), ("admin", owned::PORT_OBSERVE_ADMIN)];
        let place = self.place(owned::COMPONENT_OBSERVE, &ports, true).await?;
        let address = (place.ip, owned::PORT_OBSERVE).into();
        let config = conduit_observe::Config {
            listener: address,
            admin: (place.ip, owned::PORT_OBSERVE_ADMIN).into(),
            control_plane: self.shared.control_plane.clone(),
            files: Some(Files::in_directory(&place.identity)),
            reload: TLS_POLL,
            limits: conduit_observe::sources::scrape::Limits {
                interval: self.shared.scrape_interval,
                ..conduit_observe::sources::scrape::Limits::default()
            },
            // Its hosts are no pods: there is no loopback of its own, and nobody to issue tokens to who taps.
            authorize_tap: false,
            ..conduit_observe::Config::default()
        };
        let (started, listening) = oneshot::channel();
        let (shared, api_client) = (self.shared.clone(), place.api_client(&self.shared));
        let (net, seed) = (place.net.app(), self.shared.seed.fork(&place.pod.name));
        let run = |drain| async move {
            let deps = conduit_observe::Deps {
                client: api_client()?,
                net,
                clock: shared.clock.clone(),
                seed,
                crypto: shared.crypto.clone(),
                started: Some(started),
            };
            conduit_observe::run(config, deps, drain).await.map_err(AppError::from)
        };
        self.run(owned::COMPONENT_OBSERVE, place, address, listening, run).await
    }

    /// Whether the CA runs.
    pub fn has_ca(&self) -> bool {
        self.components.iter().any(|component| component.name == owned::COMPONENT_CA)
    }

    /// Where observe's HTTP API is for programs outside the mesh, once it runs.
    pub fn observe_addr(&self) -> Option<SocketAddr> {
        let observe = self.components.iter().find(|component| component.name == owned::COMPONENT_OBSERVE)?;
        Some(self.real(observe.address))
    }

    /// Stops every replica of a component of the control plane, as a cluster does: deleted in the API, told to stop, cut
    /// off after `deadline`. Nothing happens when none runs.
    ///
    /// # Errors
    /// The API refuses to delete a pod; all of them are stopped nevertheless.
    pub async fn stop_component(&mut self, name: &str, deadline: Duration) -> Result<(), Error> {
        let namespace = self.shared.control_plane.namespace.clone();
        let mut result = Ok(());
        for component in self.take_component(name) {
            result = result.and(launch::delete_pod(&self.shared, &namespace, &component.pod).await);
            component.stop(&self.shared, deadline).await;
        }
        result
    }

    /// Ends every replica of a component at once; the API hears nothing of it, and goes on showing their pods as ready.
    /// How many those were.
    pub fn kill_component(&mut self, name: &str) -> usize {
        let killed = self.take_component(name);
        for component in &killed {
            self.shared.tell(|| PodEvent::Ended { name: component.pod.clone(), ip: component.address.ip() });
        }
        killed.len()
    }

    /// Addresses of the pods of a component that run.
    pub fn component_ips(&self, name: &str) -> Vec<IpAddr> {
        let replicas = self.components.iter().filter(|component| component.name == name);
        replicas.map(|component| component.address.ip()).collect()
    }

    fn take_component(&mut self, name: &str) -> Vec<Component> {
        let (taken, staying) =
            std::mem::take(&mut self.components).into_iter().partition(|component| component.name == name);
        self.components = staying;
        taken
    }

    /// Creates a component's objects and its pod, as `conduit install` and the cluster would.
    async fn place(
        &self,
        name: &'static str,
        ports: &[(&str, u16)],
        has_certificate: bool,
    ) -> Result<Place, Error> {
        let shared = &self.shared;
        let workload: Workload = shared.control_plane.component(name);
        if ports.len() > 1 {
            let service =
                ports.iter().fold(Service::new(&workload.namespace, name), |service, (name, port)| {
                    service.port(name, *port, *port)
                });
            launch::create_service(shared, &service, owned::LABEL_COMPONENT).await?;
        }
        let template = Template::component(&workload, ports, has_certificate);
        let mut pods = launch::create(shared, &workload, &template, 1).await?;
        let pod = pods.remove(0);
        let host = shared.addresses.host().map_err(Error::Address)?;
        let ip = host.ip();
        let net = PodNet::unmeshed(host, &workload.namespace, shared.services.clone());
        let (identity, kubelet) = launch::mount(shared, &pod).await;
        shared.tell(|| PodEvent::Began {
            namespace: workload.namespace.clone(),
            name: pod.name.clone(),
            deployment: workload.name.clone(),
            sidecar: Sidecar::Absent,
            ip,
            identity_dir: identity.clone(),
        });
        launch::report(shared, &pod.object, &pod.name, ip, false).await?;
        Ok(Place { pod, net, ip, identity, kubelet })
    }

    /// Runs a component until it says that it has started; its pod is ready then.
    async fn run<Bound, Fut>(
        &mut self,
        name: &'static str,
        place: Place,
        address: SocketAddr,
        listening: oneshot::Receiver<Bound>,
        run: impl FnOnce(drain::Watch) -> Fut,
    ) -> Result<(), Error>
    where
        Bound: Send,
        Fut: Future<Output = Result<(), AppError>> + Send + 'static,
    {
        let Place { pod, net, ip, kubelet, .. } = place;
        let (failed, failure) = oneshot::channel();
        let part = Part::start_on(net.processes(), name, |drain| {
            let running = run(drain);
            async move {
                if let Err(error) = running.await {
                    drop(failed.send(error));
                }
            }
        });
        let up = async {
            match listening.await {
                Ok(_) => Ok(()),
                Err(_) => Err(failure.await.unwrap_or_else(|_| "it ended".into())),
            }
        };
        let not_started = |reason| Error::NotStarted { pod: pod.name.clone(), part: "the process", reason };
        within(name, &pod.name, up).await?.map_err(not_started)?;
        launch::report(&self.shared, &pod.object, &pod.name, ip, true).await?;
        self.components.push(Component { name, pod: pod.name, address, part, kubelet });
        Ok(())
    }
}
