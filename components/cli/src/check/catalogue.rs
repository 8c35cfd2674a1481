//! Every check there is: its id, which stays the same for ever, and what it says. `docs/CHECKS.md` explains each under its id.

/// What is checked together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Category {
    /// The cluster itself.
    Kubernetes,
    /// What an installation needs.
    PreInstall,
    /// What this user may do.
    Permissions,
    /// The parts of Conduit.
    ControlPlane,
    /// Which versions meet.
    Versions,
    /// Root, issuer, certificates, clocks.
    Certificates,
    /// The proxies.
    DataPlane,
}

impl Category {
    /// The heading.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Kubernetes => "kubernetes-api",
            Self::PreInstall => "pre-install",
            Self::Permissions => "permissions",
            Self::ControlPlane => "control-plane",
            Self::Versions => "versions",
            Self::Certificates => "certificates",
            Self::DataPlane => "data-plane",
        }
    }
}

/// One check.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Check {
    /// Its name for scripts, and its anchor in `docs/CHECKS.md`.
    pub id: &'static str,
    /// Where it is listed.
    pub category: Category,
    /// What holds when it passes.
    pub description: &'static str,
}

/// A macro, so that no check is left out of [`ALL`].
macro_rules! checks {
    ($($name:ident: $category:ident, $id:literal, $description:literal;)*) => {
        $(
            #[doc = $description]
            pub const $name: Check =
                Check { id: $id, category: Category::$category, description: $description };
        )*
        /// All of them, in the order in which they are listed.
        pub const ALL: &[Check] = &[$($name),*];
    };
}

checks! {
    K8S_QUERY: Kubernetes, "k8s-query", "can query the Kubernetes API";
    K8S_VERSION: Kubernetes, "k8s-version", "runs a Kubernetes version that Conduit supports";
    PRE_NAMESPACE: PreInstall, "pre-namespace", "the control plane's namespace is free";
    PRE_CREATE: PreInstall, "pre-create", "may create what an installation consists of";
    PERMISSION_PODS: Permissions, "permission-list-pods", "may list the control plane's pods";
    PERMISSION_FORWARD: Permissions, "permission-port-forward", "may forward a port to the control plane";
    API: ControlPlane, "api", "can query the Conduit API";
    CA_READY: ControlPlane, "ca-ready", "the ca is ready and answers";
    DESTINATION_READY: ControlPlane, "destination-ready", "the destination service is ready and answers";
    OBSERVE_READY: ControlPlane, "observe-ready", "observe is ready and answers";
    CA_LEADER: ControlPlane, "ca-leader", "one ca leads";
    VERSION_CLI: Versions, "version-cli", "this program has the expected version";
    VERSION_CONTROL_PLANE: Versions, "version-control-plane", "the control plane has this program's version";
    ROOT: Certificates, "root", "the newest root certificate is valid for long enough";
    ISSUER: Certificates, "issuer", "the issuer's certificate is valid for long enough";
    LEAVES: Certificates, "leaves", "every running workload has a certificate that is valid";
    CA_CLOCK: Certificates, "ca-clock", "the ca's clock is not behind the API server's";
    CLOCKS: Certificates, "clocks", "the clocks of the control plane and of this machine agree";
    FOREIGN: Certificates, "foreign-objects", "nobody else's objects have the names of Conduit's";
    MISMATCHES: Certificates, "owner-mismatches", "pods belong to the workloads they were injected for";
    PROXY_READY: DataPlane, "proxy-ready", "every pod with a proxy is ready";
    PROXY_READABLE: DataPlane, "proxy-readable", "every proxy tells how it is";
    PROXY_INJECTED_TLS: DataPlane, "proxy-injected-tls", "every proxy was injected with TLS";
    PROXY_TLS: DataPlane, "proxy-tls", "every proxy holds a certificate that it can use";
    PROXY_FILES: DataPlane, "proxy-files", "every proxy can read the files it was given last";
    PROXY_LEAVES: DataPlane, "proxy-leaves", "every proxy's certificate was renewed in time";
    PROXY_DESTINATION: DataPlane, "proxy-destination", "every proxy reaches the destination service";
    PROXY_CLOCKS: DataPlane, "proxy-clocks", "every proxy's clock agrees with the control plane's";
    PROXY_VERSION: DataPlane, "proxy-version", "every proxy has the control plane's version";
}
