//! Credentials out of files, read again and again: a pod is given its Secret after it has started, and a new one every
//! half day, by a kubelet that swaps a symbolic link.
//!
//! Files are compared by content on a timer. Watching them by events as well would save a few seconds once per rotation,
//! and a watch that dies silently (it has to follow two symbolic links) would cost the whole certificate; the three
//! files are a few kilobytes in memory. They are read without leaving the thread, for the same reason, and so that a
//! simulation sees the same order each time.

use std::{
    fs, io,
    io::Read as _,
    path::{Path, PathBuf},
    time::Duration,
};

use tokio::time::{Instant, MissedTickBehavior, interval_at};

use crate::{LoadError, Pem, Store, Unusable};

/// Far above any chain or bundle: what is larger is not what we are looking for.
const FILE_MAX: u64 = 1 << 20;

/// A swap between two reads makes them differ; so many reads in a row that all differ are a writer who never stops.
const READS: usize = 8;

/// Where the credentials are.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Files {
    /// The certificate chain.
    pub cert: PathBuf,
    /// The private key.
    pub key: PathBuf,
    /// The trust bundle.
    pub anchors: PathBuf,
}

impl Files {
    /// The three files under the names they have in a pod's projected volume mounted at `directory`.
    pub fn in_directory(directory: &Path) -> Self {
        Self {
            cert: directory.join("tls.crt"),
            key: directory.join("tls.key"),
            anchors: directory.join("trust-anchors.pem"),
        }
    }

    /// Reads all three as they were at one moment.
    ///
    /// # Errors
    /// The first file that cannot be read.
    pub fn read(&self) -> Result<Pem, ReadError> {
        let mut last = self.read_once()?;
        for _ in 0..READS {
            let again = self.read_once()?;
            if again == last {
                return Ok(again);
            }
            last = again;
        }
        Ok(last)
    }

    fn read_once(&self) -> Result<Pem, ReadError> {
        Ok(Pem { chain: read(&self.cert)?, key: read(&self.key)?, anchors: read(&self.anchors)? })
    }
}

/// A file that cannot be read.
#[derive(Debug, thiserror::Error)]
#[error("{} cannot be read: {source}", path.display())]
pub struct ReadError {
    /// Which.
    pub path: PathBuf,
    /// Why.
    pub source: io::Error,
}

/// What came of looking at the files.
#[derive(Debug)]
pub enum ReloadResult {
    /// New credentials are in use.
    Reloaded,
    /// A file is missing or unreadable.
    Unreadable(ReadError),
    /// The files were read and are not usable.
    Rejected(LoadError),
}

impl ReloadResult {
    /// The class under which reloads are counted.
    pub fn status(&self) -> &'static str {
        match self {
            Self::Reloaded => "reloaded",
            Self::Unreadable(_) => "io_error",
            Self::Rejected(error) => error.status(),
        }
    }
}

/// Keeps `store` in step with `files`, looking at once and then every `every`. Never returns; drop it to stop.
///
/// `on_result` hears of each change: new credentials, or a failure that differs from the one before. Files that go on
/// failing in the same way are tried again each time (a clock may have been set right) without being told of.
pub async fn watch(
    files: Files,
    store: Store,
    mut on_result: impl FnMut(ReloadResult) + Send,
    every: Duration,
) {
    let mut look = Looker { files, store, loaded: None, told: None };
    let every = every.max(Duration::from_millis(1));
    let mut ticks = interval_at(Instant::now(), every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        if let Some(result) = look.look() {
            on_result(result);
        }
    }
}

struct Looker {
    files: Files,
    store: Store,
    /// What the store was last given and took.
    loaded: Option<Pem>,
    /// The failure that was last told of, as text.
    told: Option<String>,
}

impl Looker {
    fn look(&mut self) -> Option<ReloadResult> {
        let result = match self.files.read() {
            Ok(pem) if self.loaded.as_ref() == Some(&pem) => {
                self.told = None;
                return None;
            }
            Ok(pem) => match self.store.load(&pem) {
                Ok(()) => {
                    self.loaded = Some(pem);
                    ReloadResult::Reloaded
                }
                Err(error) => ReloadResult::Rejected(error),
            },
            Err(error) => {
                let missing = error.source.kind() == io::ErrorKind::NotFound;
                self.store.remember(if missing { Unusable::NoConfig } else { Unusable::BadCredentials });
                ReloadResult::Unreadable(error)
            }
        };
        let failure = match &result {
            ReloadResult::Reloaded => None,
            ReloadResult::Unreadable(error) => Some(error.to_string()),
            ReloadResult::Rejected(error) => Some(error.to_string()),
        };
        let news = failure.is_none() || failure != self.told;
        self.told = failure;
        news.then_some(result)
    }
}

fn read(path: &Path) -> Result<Vec<u8>, ReadError> {
    read_bounded(path).map_err(|source| ReadError { path: path.to_owned(), source })
}

fn read_bounded(path: &Path) -> io::Result<Vec<u8>> {
    // Opening a pipe would wait for a writer.
    let metadata = fs::metadata(path)?;
    if !metadata.is_file() {
        return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a regular file"));
    }
    // Room for all of it at once: growing would leave copies of a key behind.
    let length = usize::try_from(metadata.len().min(FILE_MAX)).unwrap_or_default();
    let mut content = Vec::with_capacity(length + 1);
    let read = fs::File::open(path)?.take(FILE_MAX + 1).read_to_end(&mut content)?;
    if u64::try_from(read).is_ok_and(|read| read <= FILE_MAX) {
        Ok(content)
    } else {
        Err(io::Error::new(io::ErrorKind::FileTooLarge, "over 1 MiB"))
    }
}
