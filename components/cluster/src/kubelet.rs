//! The part of a kubelet that proxies see: a pod's projected volume, as files in a directory.
//!
//! The layout and the order of steps are those of Kubernetes' atomic writer: the files live in a timestamped directory,
//! `..data` is a symbolic link to it that is swapped by a rename, and each name a reader opens is a link through
//! `..data`. A reader therefore sees all files of one version or all of the next.
//!
//! A real kubelet syncs a pod about once a minute and caches Secrets on top; [`Kubelet::period`] is that delay.

use std::{
    collections::BTreeMap,
    io,
    path::{Component, Path, PathBuf},
    time::Duration,
};

use conduit_runtime::drain;
use k8s_openapi::api::core::v1::{ConfigMap, KeyToPath, Pod, ProjectedVolumeSource, Secret};
use kube::{Api, Client};

/// Projects volumes of pods into directories.
#[derive(Clone)]
pub struct Kubelet {
    /// Where Secrets and ConfigMaps are read.
    pub client: Client,
    /// How long after a sync the next one is.
    pub period: Duration,
    /// How long one read of the API may take; a sync that fails is tried again after the period.
    pub deadline: Duration,
}

impl std::fmt::Debug for Kubelet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Kubelet").field("period", &self.period).finish_non_exhaustive()
    }
}

/// Why a volume could not be brought up to date. What was projected before stays.
#[derive(Debug, thiserror::Error)]
pub enum SyncError {
    /// The pod has no projected volume of this name.
    #[error("the pod has no projected volume {0:?}")]
    NoSuchVolume(String),
    /// Something that is not optional does not exist, which keeps a real pod from starting.
    #[error("{0} does not exist and is not optional")]
    Missing(String),
    /// An item's path leads out of the volume.
    #[error("the path {0:?} leads out of the volume")]
    UnsafePath(String),
    /// The API did not answer in time.
    #[error("the API did not answer within {0:?}")]
    Deadline(Duration),
    /// The API refused.
    #[error("the API could not be read: {0}")]
    Api(#[from] kube::Error),
    /// The directory could not be written.
    #[error("cannot write {path}: {source}")]
    Io {
        /// What was being written.
        path: PathBuf,
        /// Why it failed.
        source: io::Error,
    },
}

/// The content of a volume: relative file names and their bytes.
pub type Files = BTreeMap<String, Vec<u8>>;

impl Kubelet {
    /// Keeps `directory` in step with the pod's projected volume until the drain begins. Failures are logged and tried
    /// again at the next period; the pod itself is not looked at again.
    pub async fn run(&self, pod: &Pod, volume: &str, directory: &Path, drain: drain::Watch) {
        loop {
            if let Err(error) = self.sync(pod, volume, directory).await {
                let pod = pod.metadata.name.as_deref().unwrap_or_default();
                tracing::debug!(%error, pod, volume, "a projected volume was not brought up to date");
            }
            tokio::select! {
                biased;
                () = drain.signaled() => return,
                () = tokio::time::sleep(self.period) => {}
            }
        }
    }

    /// Brings `directory` up to date once. True when something changed in it.
    ///
    /// # Errors
    /// The directory then keeps what it had; try again after the period.
    pub async fn sync(&self, pod: &Pod, volume: &str, directory: &Path) -> Result<bool, SyncError> {
        let volumes = pod.spec.iter().flat_map(|spec| spec.volumes.iter().flatten());
        let source = volumes
            .filter(|candidate| candidate.name == volume)
            .find_map(|volume| volume.projected.as_ref())
            .ok_or_else(|| SyncError::NoSuchVolume(volume.to_owned()))?;
        let namespace = pod.metadata.namespace.as_deref().unwrap_or("default");
        let read = self.files(namespace, source);
        let files = tokio::time::timeout(self.deadline, read)
            .await
            .map_err(|_| SyncError::Deadline(self.deadline))??;
        write(directory, &files, mode(source.default_mode))
    }

    /// What the volume is to hold now.
    async fn files(&self, namespace: &str, source: &ProjectedVolumeSource) -> Result<Files, SyncError> {
        let mut files = Files::new();
        for part in source.sources.iter().flatten() {
            if let Some(wanted) = &part.secret {
                let found =
                    Api::<Secret>::namespaced(self.client.clone(), namespace).get_opt(&wanted.name).await?;
                let data = found.map(|secret| {
                    let data = secret.data.unwrap_or_default().into_iter();
                    data.map(|(key, value)| (key, value.0)).collect::<Files>()
                });
                project(&mut files, data, wanted.items.as_deref(), wanted.optional, || {
                    format!("Secret {namespace}/{}", wanted.name)
                })?;
            }
            if let Some(wanted) = &part.config_map {
                let found = Api::<ConfigMap>::namespaced(self.client.clone(), namespace)
                    .get_opt(&wanted.name)
                    .await?;
                let data = found.map(|map| {
                    let plain = map.data.unwrap_or_default().into_iter();
                    let binary = map.binary_data.unwrap_or_default().into_iter();
                    let plain = plain.map(|(key, value)| (key, value.into_bytes()));
                    plain.chain(binary.map(|(key, value)| (key, value.0))).collect::<Files>()
                });
                project(&mut files, data, wanted.items.as_deref(), wanted.optional, || {
                    format!("ConfigMap {namespace}/{}", wanted.name)
                })?;
            }
        }
        Ok(files)
    }
}

/// Adds what one source holds to the volume.
fn project(
    files: &mut Files,
    data: Option<Files>,
    items: Option<&[KeyToPath]>,
    optional: Option<bool>,
    what: impl Fn() -> String,
) -> Result<(), SyncError> {
    let optional = optional.unwrap_or(false);
    let Some(mut data) = data else {
        return if optional { Ok(()) } else { Err(SyncError::Missing(what())) };
    };
    let Some(items) = items.filter(|items| !items.is_empty()) else {
        files.extend(data);
        return Ok(());
    };
    for item in items {
        // The API refuses such paths; whoever builds pods without it must not write elsewhere either.
        let inside = Path::new(&item.path).components().all(|part| matches!(part, Component::Normal(_)));
        if !inside {
            return Err(SyncError::UnsafePath(item.path.clone()));
        }
        match data.remove(&item.key) {
            Some(bytes) => drop(files.insert(item.path.clone(), bytes)),
            None if optional => {}
            None => return Err(SyncError::Missing(format!("key {:?} of {}", item.key, what()))),
        }
    }
    Ok(())
}

fn mode(default: Option<i32>) -> u32 {
    // Kubernetes' own default.
    default.and_then(|mode| u32::try_from(mode).ok()).unwrap_or(0o644)
}

const DATA_LINK: &str = "..data";
const NEW_DATA_LINK: &str = "..data_tmp";

/// Makes `directory` hold exactly `files`, in one atomic step for whoever reads through it. True when it changed.
///
/// # Errors
/// The file system's; the old content then stays in place.
pub fn write(directory: &Path, files: &Files, mode: u32) -> Result<bool, SyncError> {
    let at = |path: &Path| {
        let path = path.to_owned();
        move |source| SyncError::Io { path, source }
    };
    std::fs::create_dir_all(directory).map_err(at(directory))?;
    let data = directory.join(DATA_LINK);
    let current = std::fs::read_link(&data).ok();
    if let Some(current) = &current
        && holds_exactly(&directory.join(current), files)
    {
        return Ok(false);
    }
    let version = next_version(current.as_deref());
    let fresh = directory.join(&version);
    // A crash may have left one of that name behind.
    drop(std::fs::remove_dir_all(&fresh));
    std::fs::create_dir(&fresh).map_err(at(&fresh))?;
    for (name, bytes) in files {
        let path = fresh.join(name);
        if let Some(parent) = path.parent() {
            std::fs::create_dir_all(parent).map_err(at(parent))?;
        }
        write_file(&path, bytes, mode).map_err(at(&path))?;
    }
    let swap = directory.join(NEW_DATA_LINK);
    drop(std::fs::remove_file(&swap));
    link(Path::new(&version), &swap).map_err(at(&swap))?;
    std::fs::rename(&swap, &data).map_err(at(&data))?;
    let top = |name: &str| name.split('/').next().unwrap_or_default().to_owned();
    for name in files.keys().map(|name| top(name)) {
        let path = directory.join(&name);
        if path.symlink_metadata().is_err() {
            link(&Path::new(DATA_LINK).join(&name), &path).map_err(at(&path))?;
        }
    }
    // From here on only leftovers are removed; the new content is complete.
    let entries = std::fs::read_dir(directory).map_err(at(directory))?;
    for entry in entries.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("..") && !files.keys().any(|file| top(file) == name) {
            drop(std::fs::remove_file(entry.path()));
        }
    }
    if let Some(current) = current {
        drop(std::fs::remove_dir_all(directory.join(current)));
    }
    Ok(true)
}

/// The real writer uses the time; a counter is as good and the same in every run.
fn next_version(current: Option<&Path>) -> String {
    let number = current.and_then(Path::to_str).and_then(|name| name.strip_prefix("..v"));
    let number = number.and_then(|number| number.parse::<u64>().ok()).unwrap_or(0);
    format!("..v{}", number.wrapping_add(1))
}

fn holds_exactly(directory: &Path, files: &Files) -> bool {
    let same =
        |(name, bytes): (&String, &Vec<u8>)| std::fs::read(directory.join(name)).is_ok_and(|is| is == *bytes);
    files.iter().all(same) && count_files(directory) == files.len()
}

fn count_files(directory: &Path) -> usize {
    let Ok(entries) = std::fs::read_dir(directory) else { return 0 };
    entries.flatten().map(|entry| if entry.path().is_dir() { count_files(&entry.path()) } else { 1 }).sum()
}

#[cfg(unix)]
fn link(target: &Path, path: &Path) -> io::Result<()> {
    std::os::unix::fs::symlink(target, path)
}

#[cfg(unix)]
fn write_file(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::os::unix::fs::PermissionsExt;

    std::fs::write(path, bytes)?;
    // Not the mode of the creation, which the process's umask would change.
    std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode))
}

#[cfg(not(unix))]
fn link(_: &Path, _: &Path) -> io::Result<()> {
    Err(io::Error::from(io::ErrorKind::Unsupported))
}

#[cfg(not(unix))]
fn write_file(path: &Path, bytes: &[u8], _: u32) -> io::Result<()> {
    std::fs::write(path, bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files(content: &[(&str, &str)]) -> Files {
        content.iter().map(|(name, text)| ((*name).to_owned(), text.as_bytes().to_vec())).collect()
    }

    fn read(directory: &Path, name: &str) -> Option<String> {
        std::fs::read_to_string(directory.join(name)).ok()
    }

    #[test]
    fn an_update_is_one_swap_and_leaves_nothing_behind() {
        let directory = tempfile::tempdir().unwrap();
        let at = directory.path();
        assert!(write(at, &files(&[("a", "1"), ("sub/b", "2")]), 0o444).unwrap());
        assert_eq!((read(at, "a"), read(at, "sub/b")), (Some("1".to_owned()), Some("2".to_owned())));
        assert!(!write(at, &files(&[("a", "1"), ("sub/b", "2")]), 0o444).unwrap());
        let before = std::fs::read_link(at.join(DATA_LINK)).unwrap();
        assert!(write(at, &files(&[("a", "2"), ("c", "3")]), 0o444).unwrap());
        assert_ne!(std::fs::read_link(at.join(DATA_LINK)).unwrap(), before);
        assert_eq!((read(at, "a"), read(at, "c")), (Some("2".to_owned()), Some("3".to_owned())));
        assert_eq!(read(at, "sub/b"), None);
        let mut left: Vec<_> = std::fs::read_dir(at).unwrap().map(|e| e.unwrap().file_name()).collect();
        left.sort();
        assert_eq!(left, ["..data", "..v2", "a", "c"]);
    }

    #[cfg(unix)]
    #[test]
    fn files_have_the_volumes_mode() {
        use std::os::unix::fs::PermissionsExt;

        let directory = tempfile::tempdir().unwrap();
        write(directory.path(), &files(&[("a", "1")]), 0o444).unwrap();
        let mode = std::fs::metadata(directory.path().join("a")).unwrap().permissions().mode();
        assert_eq!(mode & 0o777, 0o444);
    }
}
