//! How a running `conduit demo` is found by other commands: a small file in the user's runtime directory.
//!
//! The directory is private to the user (0700): a file that somebody else could write would send our questions to an
//! address of their choice.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
};

use conduit_runtime::env::{self, Env};
use serde::{Deserialize, Serialize};

/// What the file says.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Demo {
    /// Where the demo serves the HTTP API, `ip:port`.
    pub api_addr: String,
    /// The demo's process.
    pub pid: u32,
    /// When it started, in seconds since 1970.
    pub started: u64,
    /// Where its application runs: the namespace of commands that name none.
    #[serde(default)]
    pub namespace: Option<String>,
}

/// Far more than such a file ever is.
const MAX_BYTES: u64 = 64 * 1024;

/// Where the file is: `$XDG_RUNTIME_DIR/conduit/demo.json`, or without that variable
/// `<temporary directory>/conduit-<uid>/demo.json`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Place {
    path: PathBuf,
    /// Whose the directory must be; none where there are no uids.
    uid: Option<u32>,
}

impl Place {
    /// The place of the user who runs this process.
    pub fn of_user() -> Self {
        let mut env = Env::from_process();
        let mut dir = |name| env.parse(name, env::text).map(PathBuf::from).filter(|path| path.is_absolute());
        let (runtime, home) = (dir("XDG_RUNTIME_DIR"), dir("HOME"));
        Self::new(runtime.as_deref(), &std::env::temp_dir(), own_uid(home.as_deref()))
    }

    /// The place of the user `uid`.
    pub fn new(xdg_runtime_dir: Option<&Path>, temp_dir: &Path, uid: Option<u32>) -> Self {
        let directory = match (xdg_runtime_dir, uid) {
            (Some(directory), _) => directory.join("conduit"),
            (None, Some(uid)) => temp_dir.join(format!("conduit-{uid}")),
            (None, None) => temp_dir.join("conduit-user"),
        };
        Self { path: directory.join("demo.json"), uid }
    }

    /// The file.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Writes the file, replacing what an earlier demo left, so that a reader sees the old one or the new one.
    ///
    /// # Errors
    /// The directory cannot be made or written, or belongs to somebody else.
    pub fn write(&self, demo: &Demo) -> io::Result<()> {
        make_private(self.directory())?;
        self.only_ours()?;
        let next = self.path.with_extension(format!("{}.tmp", demo.pid));
        fs::write(&next, serde_json::to_vec(demo)?)?;
        fs::rename(&next, &self.path)
    }

    /// Reads the file; none when there is none.
    ///
    /// # Errors
    /// It cannot be read, is no such file, or stands where others may write.
    pub fn read(&self) -> io::Result<Option<Demo>> {
        let file = match fs::File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        self.only_ours()?;
        let mut text = Vec::new();
        file.take(MAX_BYTES).read_to_end(&mut text)?;
        Ok(Some(serde_json::from_slice(&text)?))
    }

    /// Removes the file if it is still the one that `pid` wrote.
    ///
    /// # Errors
    /// It cannot be removed.
    pub fn remove(&self, pid: u32) -> io::Result<()> {
        match self.read() {
            Ok(Some(demo)) if demo.pid == pid => fs::remove_file(&self.path),
            _ => Ok(()),
        }
    }

    fn directory(&self) -> &Path {
        self.path.parent().unwrap_or(&self.path)
    }

    #[cfg(unix)]
    fn only_ours(&self) -> io::Result<()> {
        use std::os::unix::fs::MetadataExt as _;
        let meta = fs::symlink_metadata(self.directory())?;
        let is_ours = self.uid.is_none_or(|uid| uid == meta.uid());
        if meta.is_dir() && is_ours && meta.mode() & 0o022 == 0 {
            return Ok(());
        }
        let what = format!("{} is not a directory that you alone may write", self.directory().display());
        Err(io::Error::new(io::ErrorKind::PermissionDenied, what))
    }

    #[cfg(not(unix))]
    fn only_ours(&self) -> io::Result<()> {
        Ok(())
    }
}

/// Who runs this process: the owner of its entry in /proc, or where there is none, of the home directory.
#[cfg(unix)]
fn own_uid(home: Option<&Path>) -> Option<u32> {
    use std::os::unix::fs::MetadataExt as _;
    let process = fs::metadata("/proc/self").ok();
    process.or_else(|| fs::metadata(home?).ok()).map(|meta| meta.uid())
}

#[cfg(not(unix))]
fn own_uid(_: Option<&Path>) -> Option<u32> {
    None
}

#[cfg(unix)]
fn make_private(directory: &Path) -> io::Result<()> {
    use std::os::unix::fs::DirBuilderExt as _;
    fs::DirBuilder::new().recursive(true).mode(0o700).create(directory)
}

#[cfg(not(unix))]
fn make_private(directory: &Path) -> io::Result<()> {
    fs::create_dir_all(directory)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn demo(pid: u32) -> Demo {
        Demo { api_addr: "127.0.0.1:4321".into(), pid, started: 1, namespace: None }
    }

    #[test]
    fn the_path_follows_the_runtime_directory() {
        let temp = Path::new("/tmp");
        let path = |xdg: Option<&str>, uid| Place::new(xdg.map(Path::new), temp, uid).path().to_owned();
        assert_eq!(path(Some("/run/user/7"), Some(7)), Path::new("/run/user/7/conduit/demo.json"));
        assert_eq!(path(None, Some(7)), Path::new("/tmp/conduit-7/demo.json"));
        assert_eq!(path(None, None), Path::new("/tmp/conduit-user/demo.json"));
    }

    #[test]
    fn what_is_written_is_read_and_removed_by_its_own_process_only() {
        let temp = tempfile::tempdir().unwrap();
        let place = Place::new(None, temp.path(), own_uid(None));
        assert_eq!(place.read().unwrap(), None);
        place.write(&demo(1)).unwrap();
        place.write(&demo(2)).unwrap();
        assert_eq!(place.read().unwrap(), Some(demo(2)));
        place.remove(1).unwrap();
        assert_eq!(place.read().unwrap(), Some(demo(2)));
        place.remove(2).unwrap();
        assert_eq!(place.read().unwrap(), None);
    }

    #[cfg(unix)]
    #[test]
    fn a_directory_that_others_may_write_or_own_is_not_trusted() {
        use std::os::unix::fs::PermissionsExt as _;
        let temp = tempfile::tempdir().unwrap();
        let place = Place::new(None, temp.path(), None);
        place.write(&demo(1)).unwrap();
        let somebody_else = Place { uid: own_uid(None).map(|uid| uid.wrapping_add(1)), ..place.clone() };
        assert!(somebody_else.uid.is_none() || somebody_else.read().is_err());
        fs::set_permissions(place.directory(), fs::Permissions::from_mode(0o777)).unwrap();
        assert!(place.read().is_err());
        assert!(place.write(&demo(1)).is_err());
    }
}
