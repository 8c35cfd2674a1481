//! Files that appear, are swapped, torn and lost while they are watched. Time is tokio's, paused: it moves when every
//! task waits.

use std::{fs, os::unix::fs::symlink, path::Path, time::Duration};

use crate::support::{Authority, HOUR, NOW, identity, store};
use conduit_identity::{Files, Pem, ReloadResult, Store, Unusable, watch};
use tokio::{sync::mpsc, task::JoinHandle, time};

const EVERY: Duration = Duration::from_secs(5);

struct Watching {
    results: mpsc::UnboundedReceiver<ReloadResult>,
    task: JoinHandle<()>,
}

impl Watching {
    fn start(directory: &Path, store: &Store) -> Self {
        let (tell, results) = mpsc::unbounded_channel();
        let told = move |result| drop(tell.send(result));
        let task = tokio::spawn(watch(Files::in_directory(directory), store.clone(), told, EVERY));
        Self { results, task }
    }

    /// The class of the next result, at the latest after two looks.
    async fn next(&mut self) -> &'static str {
        let result = time::timeout(2 * EVERY, self.results.recv()).await.expect("a result in time");
        result.expect("the watch never ends").status()
    }

    async fn is_silent(&mut self) -> bool {
        time::timeout(10 * EVERY, self.results.recv()).await.is_err()
    }
}

impl Drop for Watching {
    fn drop(&mut self) {
        self.task.abort();
    }
}

fn write(directory: &Path, pem: &Pem) {
    let files = Files::in_directory(directory);
    fs::write(files.cert, &pem.chain).unwrap();
    fs::write(files.key, &pem.key).unwrap();
    fs::write(files.anchors, &pem.anchors).unwrap();
}

/// As the kubelet projects a volume: a directory per version, `..data` pointing at one, and links through it.
fn project(volume: &Path, version: &str, pem: &Pem) {
    let directory = volume.join(version);
    fs::create_dir(&directory).unwrap();
    write(&directory, pem);
    symlink(version, volume.join("..data_tmp")).unwrap();
    fs::rename(volume.join("..data_tmp"), volume.join("..data")).unwrap();
    for name in ["tls.crt", "tls.key", "trust-anchors.pem"] {
        let link = volume.join(name);
        if !link.is_symlink() {
            symlink(Path::new("..data").join(name), link).unwrap();
        }
    }
}

#[tokio::test(start_paused = true)]
async fn files_that_appear_later_are_taken_up() {
    let volume = tempfile::tempdir().unwrap();
    let (store, _) = store("web");
    let mut watching = Watching::start(volume.path(), &store);
    assert_eq!(watching.next().await, "io_error");
    assert_eq!(store.current().unwrap_err(), Unusable::NoConfig);
    assert!(watching.is_silent().await, "the same failure is told once");
    write(volume.path(), &Authority::new("conduit").good("web"));
    assert_eq!(watching.next().await, "reloaded");
    assert!(store.current().is_ok());
    assert!(watching.is_silent().await, "the same content is loaded once");
}

#[tokio::test(start_paused = true)]
async fn a_swap_of_the_projected_volume_is_noticed() {
    let volume = tempfile::tempdir().unwrap();
    let root = Authority::new("conduit");
    let (store, _) = store("web");
    project(volume.path(), "..1", &root.good("web"));
    let mut watching = Watching::start(volume.path(), &store);
    assert_eq!(watching.next().await, "reloaded");
    let first = store.current().unwrap().credentials.fingerprint();
    project(volume.path(), "..2", &root.good("web"));
    fs::remove_dir_all(volume.path().join("..1")).unwrap();
    assert_eq!(watching.next().await, "reloaded");
    assert_ne!(store.current().unwrap().credentials.fingerprint(), first);
}

#[tokio::test(start_paused = true)]
async fn losing_the_files_loses_nothing() {
    let volume = tempfile::tempdir().unwrap();
    let root = Authority::new("conduit");
    let pem = root.good("web");
    let (store, _) = store("web");
    write(volume.path(), &pem);
    let mut watching = Watching::start(volume.path(), &store);
    assert_eq!(watching.next().await, "reloaded");
    fs::remove_file(volume.path().join("tls.key")).unwrap();
    assert_eq!(watching.next().await, "io_error");
    assert!(store.current().is_ok());
    fs::write(volume.path().join("tls.crt"), &root.good("web").chain).unwrap();
    fs::write(volume.path().join("tls.key"), &pem.key).unwrap();
    assert_eq!(watching.next().await, "invalid_private_key");
    assert!(store.current().is_ok());
    write(volume.path(), &root.good("web"));
    assert_eq!(watching.next().await, "reloaded");
}

#[tokio::test(start_paused = true)]
async fn credentials_from_the_future_are_taken_once_the_clock_is_right() {
    let volume = tempfile::tempdir().unwrap();
    let root = Authority::new("conduit");
    let (store, clock) = store("web");
    write(
        volume.path(),
        &root.leaf().named(identity("web").as_str()).valid(NOW + HOUR, NOW + 9 * HOUR).issue(),
    );
    let mut watching = Watching::start(volume.path(), &store);
    assert_eq!(watching.next().await, "invalid_end_entity_cert");
    assert_eq!(store.current().unwrap_err(), Unusable::ClockSkew);
    clock.advance(2 * HOUR);
    assert_eq!(watching.next().await, "reloaded");
    assert!(store.current().is_ok());
}

#[tokio::test(start_paused = true)]
async fn what_is_no_small_regular_file_is_unreadable() {
    let volume = tempfile::tempdir().unwrap();
    let (store, _) = store("web");
    write(volume.path(), &Authority::new("conduit").good("web"));
    fs::remove_file(volume.path().join("tls.key")).unwrap();
    fs::create_dir(volume.path().join("tls.key")).unwrap();
    let mut watching = Watching::start(volume.path(), &store);
    assert_eq!(watching.next().await, "io_error");
    assert_eq!(store.current().unwrap_err(), Unusable::BadCredentials);
    fs::write(volume.path().join("tls.crt"), vec![b'x'; 2 << 20]).unwrap();
    assert_eq!(watching.next().await, "io_error");
}
