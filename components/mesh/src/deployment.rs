//! What is to run: a Deployment of an application, with or without a sidecar.

use std::{error::Error, sync::Arc};

use conduit_identity::{Clock, Workload, WorkloadKind};
use conduit_net::Net;
use conduit_runtime::drain;
use futures::{FutureExt, future::BoxFuture};

/// An application: runs on the network it is given until the drain, once for each pod.
pub type App = Arc<dyn Fn(Net, drain::Watch) -> BoxFuture<'static, Result<(), AppError>> + Send + Sync>;

/// Why an application ended.
pub type AppError = Box<dyn Error + Send + Sync>;

/// Whether and how pods were injected.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Sidecar {
    /// Not at all.
    Absent,
    /// With TLS disabled.
    Plaintext,
    /// With TLS where both ends can.
    Tls,
}

/// A port of an application.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Port {
    /// Its name in the pod.
    pub name: String,
    /// Where the application listens.
    pub number: u16,
}

/// A Deployment.
#[derive(Clone)]
pub struct Deployment {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) label: String,
    pub(crate) ports: Vec<Port>,
    pub(crate) replicas: usize,
    pub(crate) sidecar: Sidecar,
    pub(crate) mounts_certificate: bool,
    pub(crate) clock: Option<Arc<dyn Clock>>,
    pub(crate) app: App,
}

impl Deployment {
    /// One pod of `app`, not injected; its label `app` is `name`.
    pub fn new<F, Fut>(namespace: &str, name: &str, app: F) -> Self
    where
        F: Fn(Net, drain::Watch) -> Fut + Send + Sync + 'static,
        Fut: Future<Output = Result<(), AppError>> + Send + 'static,
    {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            label: name.to_owned(),
            ports: Vec::new(),
            replicas: 1,
            sidecar: Sidecar::Absent,
            mounts_certificate: true,
            clock: None,
            app: Arc::new(move |net, drain| app(net, drain).boxed()),
        }
    }

    /// Another value of the label `app`, by which Services select.
    #[must_use]
    pub fn label(mut self, app: &str) -> Self {
        app.clone_into(&mut self.label);
        self
    }

    /// A port on which the application listens; a pod is ready once it listens on all of them.
    #[must_use]
    pub fn port(mut self, name: &str, number: u16) -> Self {
        self.ports.push(Port { name: name.to_owned(), number });
        self
    }

    /// How many pods.
    #[must_use]
    pub fn replicas(mut self, replicas: usize) -> Self {
        self.replicas = replicas;
        self
    }

    /// Whether and how the pods were injected.
    #[must_use]
    pub fn sidecar(mut self, sidecar: Sidecar) -> Self {
        self.sidecar = sidecar;
        self
    }

    /// The sidecar's volume without the source for its certificate: a pod whose Secret never gets there.
    #[must_use]
    pub fn without_certificate(mut self) -> Self {
        self.mounts_certificate = false;
        self
    }

    /// Another wall clock for the machines that the pods run on.
    #[must_use]
    pub fn clock(mut self, clock: Arc<dyn Clock>) -> Self {
        self.clock = Some(clock);
        self
    }

    /// The workload that the pods belong to.
    pub fn workload(&self) -> Workload {
        Workload {
            namespace: self.namespace.clone(),
            kind: WorkloadKind::Deployment,
            name: self.name.clone(),
        }
    }
}

impl std::fmt::Debug for Deployment {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Deployment")
            .field("namespace", &self.namespace)
            .field("name", &self.name)
            .field("replicas", &self.replicas)
            .field("sidecar", &self.sidecar)
            .finish_non_exhaustive()
    }
}

/// A Service over pods with a label `app`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Service {
    pub(crate) namespace: String,
    pub(crate) name: String,
    pub(crate) selects: String,
    pub(crate) ports: Vec<ServicePort>,
    pub(crate) headless: bool,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct ServicePort {
    pub(crate) name: String,
    pub(crate) port: u16,
    pub(crate) target: u16,
}

impl Service {
    /// A Service without ports over the pods whose label `app` is its name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            selects: name.to_owned(),
            ports: Vec::new(),
            headless: false,
        }
    }

    /// Over the pods with another label `app`.
    #[must_use]
    pub fn selects(mut self, app: &str) -> Self {
        app.clone_into(&mut self.selects);
        self
    }

    /// A port, and the pods' port behind it.
    #[must_use]
    pub fn port(mut self, name: &str, port: u16, target: u16) -> Self {
        self.ports.push(ServicePort { name: name.to_owned(), port, target });
        self
    }

    /// Without an address of its own: its name leads to the pods.
    #[must_use]
    pub fn headless(mut self) -> Self {
        self.headless = true;
        self
    }
}
