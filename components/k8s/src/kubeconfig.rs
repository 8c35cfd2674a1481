//! Which cluster is meant: kubeconfig files as kubectl reads them, or else the pod that we run in. What is wrong with
//! them is said in one line that names the file, the value and the remedy.

use std::{
    fmt, io,
    path::{Path, PathBuf},
};

use conduit_identity::UnixTime;
use conduit_runtime::env::{self, Env};
use k8s_openapi::ByteString;
use kube::{
    Config,
    config::{KubeConfigOptions, Kubeconfig, KubeconfigError},
};
use rustls_pki_types::{CertificateDer, pem::PemObject};

use crate::cause::one_line;

/// What the user chose; where nothing is chosen, it is as with kubectl.
#[derive(Debug, Clone, Default)]
pub struct Choice {
    /// The file: `--kubeconfig`.
    pub path: Option<PathBuf>,
    /// The context: `--context`.
    pub context: Option<String>,
}

/// A cluster, and where it is described.
#[derive(Debug, Clone)]
pub struct Found {
    /// How to connect to it.
    pub config: Config,
    /// Where that is written.
    pub origin: Origin,
}

/// Where a cluster is described.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Origin {
    /// In the environment of the pod that we run in.
    Pod,
    /// In a context of these files.
    Context {
        /// The files.
        files: Files,
        /// The context.
        name: String,
    },
}

/// Kubeconfig files, merged.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files(pub Vec<PathBuf>);

/// Why no cluster was found.
#[derive(Debug, thiserror::Error)]
pub enum Problem {
    /// None of the files exists, or nothing is in them.
    #[error("there is no kubeconfig at {0}; set KUBECONFIG to one")]
    Missing(Files),
    /// Nothing says where a kubeconfig could be.
    #[error("there is no kubeconfig: neither KUBECONFIG nor HOME is set; set KUBECONFIG to one")]
    Nowhere,
    /// A file cannot be read.
    #[error("cannot read the kubeconfig {}: {error}", path.display())]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why not.
        error: io::Error,
    },
    /// A file is no kubeconfig.
    #[error("the kubeconfig {} is malformed: {what}; mend it until `kubectl config view` shows it", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        what: String,
    },
    /// No context was chosen, and none is current.
    #[error("the kubeconfig {files} has no current context; {}", offer(known))]
    NoCurrentContext {
        /// The files.
        files: Files,
        /// The contexts there are.
        known: Vec<String>,
    },
    /// The context does not exist.
    #[error("the kubeconfig {files} has no context {context:?}; {}", offer(known))]
    NoContext {
        /// The files.
        files: Files,
        /// The context.
        context: String,
        /// The contexts there are.
        known: Vec<String>,
    },
    /// The context's cluster does not exist.
    #[error(
        "the context {context:?} of the kubeconfig {files} names the cluster {cluster:?}, which is not in it"
    )]
    NoCluster {
        /// The files.
        files: Files,
        /// The context.
        context: String,
        /// The cluster.
        cluster: String,
    },
    /// Something else about the context.
    #[error("the context {context:?} of the kubeconfig {files} cannot be used: {what}")]
    Unusable {
        /// The files.
        files: Files,
        /// The context.
        context: String,
        /// What is wrong.
        what: String,
    },
    /// We run in a pod whose service account cannot be used.
    #[error("the service account of this pod cannot be used: {0}")]
    Pod(String),
}

/// Finds the cluster that `choice` means: in its file, else in those that `KUBECONFIG` lists, else in
/// `~/.kube/config`, else the one that this pod belongs to.
///
/// # Errors
/// There is none, or its description cannot be used.
pub async fn find(choice: &Choice) -> Result<Found, Problem> {
    find_with(choice, &mut Env::from_process()).await
}

async fn find_with(choice: &Choice, env: &mut Env) -> Result<Found, Problem> {
    let found = candidates(choice, env).and_then(|paths| read(&paths));
    let is_chosen = choice.path.is_some() || choice.context.is_some();
    let is_pod = env.parse("KUBERNETES_SERVICE_HOST", env::text).is_some();
    match found {
        Err(Problem::Missing(_) | Problem::Nowhere) if is_pod && !is_chosen => {
            let config = Config::incluster().map_err(|error| Problem::Pod(one_line(&error.to_string())))?;
            Ok(Found { config, origin: Origin::Pod })
        }
        Err(problem) => Err(problem),
        Ok((kubeconfig, files)) => select(kubeconfig, files, choice.context.clone()).await,
    }
}

fn candidates(choice: &Choice, env: &mut Env) -> Result<Vec<PathBuf>, Problem> {
    if let Some(path) = &choice.path {
        return Ok(vec![path.clone()]);
    }
    let listed = env.parse("KUBECONFIG", env::text).unwrap_or_default();
    let listed: Vec<PathBuf> =
        std::env::split_paths(&listed).filter(|path| !path.as_os_str().is_empty()).collect();
    if !listed.is_empty() {
        return Ok(listed);
    }
    let home = env.parse("HOME", env::text).or_else(|| env.parse("USERPROFILE", env::text));
    home.map(|home| vec![Path::new(&home).join(".kube/config")]).ok_or(Problem::Nowhere)
}

/// Reads and merges; files that do not exist are skipped, as kubectl skips them.
fn read(paths: &[PathBuf]) -> Result<(Kubeconfig, Files), Problem> {
    let (mut merged, mut files) = (Kubeconfig::default(), Vec::new());
    for path in paths {
        let malformed = |what: &dyn fmt::Display| {
            // The first line says what and where; a picture of the place follows.
            let what = what.to_string();
            let what = one_line(what.lines().next().unwrap_or_default());
            Problem::Malformed { path: path.clone(), what: what.trim_start_matches("error: ").to_owned() }
        };
        match Kubeconfig::read_from(path) {
            Ok(next) => merged = merged.merge(next).map_err(|error| malformed(&error))?,
            Err(KubeconfigError::ReadConfig(error, _)) if error.kind() == io::ErrorKind::NotFound => continue,
            Err(KubeconfigError::ReadConfig(error, _)) => {
                return Err(Problem::Unreadable { path: path.clone(), error });
            }
            Err(KubeconfigError::Parse(error)) => return Err(malformed(&error)),
            Err(error) => return Err(malformed(&error)),
        }
        files.push(path.clone());
    }
    match merged.contexts.is_empty() && merged.clusters.is_empty() {
        true => Err(Problem::Missing(Files(paths.to_vec()))),
        false => Ok((merged, Files(files))),
    }
}

async fn select(kubeconfig: Kubeconfig, files: Files, context: Option<String>) -> Result<Found, Problem> {
    let known = || kubeconfig.contexts.iter().map(|context| context.name.clone()).collect();
    let current = kubeconfig.current_context.clone().filter(|name| !name.is_empty());
    let Some(name) = context.or(current) else {
        return Err(Problem::NoCurrentContext { known: known(), files });
    };
    if !kubeconfig.contexts.iter().any(|context| context.name == name) {
        return Err(Problem::NoContext { known: known(), context: name, files });
    }
    let options = KubeConfigOptions { context: Some(name.clone()), ..KubeConfigOptions::default() };
    match Config::from_custom_kubeconfig(kubeconfig, &options).await {
        Ok(config) => Ok(Found { config, origin: Origin::Context { files, name } }),
        Err(KubeconfigError::LoadClusterOfContext(cluster)) => {
            Err(Problem::NoCluster { files, context: name, cluster })
        }
        Err(error) => Err(Problem::Unusable { files, context: name, what: one_line(&error.to_string()) }),
    }
}

impl Found {
    /// When the client certificate that we would show ends, if there is one that can be read: the API server itself says
    /// no more than that it does not know us.
    pub fn client_certificate_ends(&self) -> Option<UnixTime> {
        let auth = &self.config.auth_info;
        let pem = match (&auth.client_certificate_data, &auth.client_certificate) {
            (Some(data), _) => {
                serde_json::from_value::<ByteString>(serde_json::Value::String(data.clone())).ok()?.0
            }
            (None, Some(path)) => std::fs::read(path).ok()?,
            (None, None) => return None,
        };
        let der = CertificateDer::from_pem_slice(&pem).ok()?;
        let (_, certificate) = x509_parser::parse_x509_certificate(&der).ok()?;
        u64::try_from(certificate.validity().not_after.timestamp()).ok().map(UnixTime::from_secs)
    }

    /// The program that is run for credentials, if there is one.
    pub fn exec_plugin(&self) -> Option<&str> {
        self.config.auth_info.exec.as_ref()?.command.as_deref()
    }
}

impl fmt::Display for Origin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Pod => f.write_str("this pod's cluster"),
            Self::Context { files, name } => write!(f, "the context {name:?} of the kubeconfig {files}"),
        }
    }
}

impl fmt::Display for Files {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, path) in self.0.iter().enumerate() {
            let separator = if index == 0 { "" } else { ", " };
            write!(f, "{separator}{}", path.display())?;
        }
        Ok(())
    }
}

/// What could be chosen instead.
fn offer(known: &[String]) -> String {
    match known {
        [] => "it has none".to_owned(),
        [one] => format!("it has {one:?}"),
        many => {
            let quoted: Vec<String> = many.iter().take(8).map(|name| format!("{name:?}")).collect();
            let more = if many.len() > quoted.len() { ", ..." } else { "" };
            format!("it has {}{more}", quoted.join(", "))
        }
    }
}

#[cfg(test)]
mod tests;
