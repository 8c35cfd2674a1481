//! What crosses between pods, captured on the node below every proxy.

use std::{
    fs,
    net::Ipv4Addr,
    os::unix::process::CommandExt,
    process::{Child, Command, Stdio},
    time::Duration,
};

use serde_json::Value;
use tempfile::TempDir;

use crate::{
    Cluster,
    packets::{Capture, Content, End},
    process::{poll, until},
};

/// How long dumpcap may take to start and to end.
const PATIENCE: Duration = Duration::from_secs(60);
/// When it ends by itself, whatever became of us.
const AT_MOST: &str = "duration:600";

/// A capture under way; dropping it ends it.
pub struct Recording {
    dumpcap: Child,
    folder: TempDir,
}

impl Recording {
    /// Begins to capture everything on the node; none, loudly, when the provider has no way there.
    ///
    /// # Panics
    /// dumpcap is missing or may not capture.
    #[track_caller]
    pub fn start(cluster: &Cluster) -> Option<Self> {
        let Some(mut dumpcap) = cluster.on_node("dumpcap") else {
            eprintln!(
                "!!! SKIPPED: what is on the wire: there is no way to the node's network; give kind-tests/run --node"
            );
            return None;
        };
        let folder = tempfile::tempdir().expect("there is room");
        let file = folder.path().join("capture.pcap");
        dumpcap.args(["-q", "-P", "-i", "any", "-B", "64", "-f", "tcp", "-a", AT_MOST, "-w"]).arg(&file);
        // A group of its own, which is ended as a whole: what is between us and dumpcap may not hand signals on.
        let quiet = dumpcap.process_group(0).stdin(Stdio::null()).stdout(Stdio::null());
        let dumpcap = quiet.spawn().expect("dumpcap can be started");
        let recording = Self { dumpcap, folder };
        until("dumpcap captures", PATIENCE, || match fs::metadata(&file) {
            Ok(file) if file.len() > 0 => Ok(()),
            _ => Err("nothing is written".to_owned()),
        });
        Some(recording)
    }

    /// Ends the capture.
    ///
    /// # Panics
    /// What was captured cannot be read.
    #[track_caller]
    pub fn stop(mut self) -> Capture {
        self.signal("-INT");
        let ended = poll(PATIENCE, || self.dumpcap.try_wait().expect("it is our child"));
        assert!(ended.is_some(), "dumpcap does not end");
        let bytes = fs::read(self.folder.path().join("capture.pcap")).expect("dumpcap has written it");
        Capture::read(&bytes).unwrap_or_else(|error| panic!("{error}"))
    }

    fn signal(&self, signal: &str) {
        let group = format!("-{}", self.dumpcap.id());
        drop(Command::new("kill").args([signal, "--", &group]).stderr(Stdio::null()).status());
    }
}

impl Drop for Recording {
    fn drop(&mut self) {
        if matches!(self.dumpcap.try_wait(), Ok(None)) {
            self.signal("-KILL");
            drop(self.dumpcap.wait());
        }
    }
}

/// The address of a pod.
///
/// # Panics
/// It has none.
#[track_caller]
pub fn address(pod: &Value) -> Ipv4Addr {
    let address = pod["status"]["podIP"].as_str().and_then(|address| address.parse().ok());
    address.unwrap_or_else(|| panic!("no address: {}", pod["metadata"]["name"]))
}

/// What the connections carried that `client` opened to this port of `server`, by direction; those that carried nothing are
/// left out.
pub fn contents(capture: &Capture, client: Ipv4Addr, server: End) -> Vec<[Content; 2]> {
    let opened = capture.opened().iter().filter(|(from, to)| from.0 == client && *to == server);
    opened
        .map(|(from, to)| capture.content(*from, *to))
        .filter(|content| *content != [Content::Nothing; 2])
        .collect()
}
