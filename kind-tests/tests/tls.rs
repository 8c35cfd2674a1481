//! What is on the wire: TLS between meshed pods, and everything else as it was.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{
    Cluster,
    asked::{until_edge, until_why},
    counts::Counts,
    load::Load,
    mesh,
    packets::{Capture, Content, holds},
    wire::{Recording, address, contents},
};

const NAMESPACE: &str = "conduit-tests-tls";
const PORT: u16 = 8080;
/// Requests that are watched.
const REQUESTS: u64 = 500;

/// What crossed between the caller and the server.
struct Seen {
    /// What each connection that was opened meanwhile carried, by direction.
    opened: Vec<[Content; 2]>,
    packets: usize,
    /// Packets in which HTTP can be read.
    readable: usize,
}

impl Seen {
    fn of(cluster: &Cluster, capture: &Capture) -> Self {
        let of = |label: &str| address(cluster.pods(NAMESPACE, label).last().expect("it runs"));
        let (caller, server) = (of("app=caller"), of("app=server"));
        let is_readable =
            |payload: &&[u8]| holds(payload, b" HTTP/1.1\r\n") || holds(payload, b"HTTP/1.1 200");
        Self {
            opened: contents(capture, caller, (server, PORT)),
            packets: capture.between(caller, server).count(),
            readable: capture.between(caller, server).filter(is_readable).count(),
        }
    }

    fn say(&self, who: &str) {
        let Self { opened, packets, readable } = self;
        let tls = opened.iter().filter(|content| **content == [Content::Tls; 2]).count();
        println!(
            "{who}: {} connections opened, {tls} of them TLS; {packets} packets with data, {readable} of them readable",
            opened.len()
        );
    }
}

#[test]
fn meshed_pods_speak_tls_and_unmeshed_ones_are_understood_in_both_directions() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let load = Load::meshed(&cluster, NAMESPACE);
    let before = load.counts();
    // A new server is what the caller's proxy opens new connections to; those that it has, it keeps.
    let recording = Recording::start(&cluster);
    cluster.kubectl(&["rollout", "restart", "-n", NAMESPACE, "deployment/server"]);
    cluster.rolled_out(NAMESPACE, &["server"]);
    load.after(&load.counts(), REQUESTS);
    if let Some(recording) = recording {
        let seen = Seen::of(&cluster, &recording.stop());
        seen.say("meshed");
        assert!(!seen.opened.is_empty() && seen.packets as u64 > REQUESTS);
        assert!(seen.opened.iter().all(|content| *content == [Content::Tls; 2]), "{:?}", seen.opened);
        assert_eq!(seen.readable, 0);
    }
    let meshed = load.counts().since(&before);
    assert_eq!(meshed.failed, 0, "{meshed:?}");
    // What is told of it is what was seen.
    until_edge(&cluster, NAMESPACE, ("caller", "server"), 1.0, &[]);
    until_why(&cluster, &["deploy/caller", "deploy/server"], NAMESPACE, 0);

    // The same capture of a caller without a proxy shows what it would have shown.
    cluster.apply_to(NAMESPACE, &load.manifest_of("caller", false));
    cluster.rolled_out(NAMESPACE, &["caller"]);
    let recording = Recording::start(&cluster);
    let unmeshed_caller = load.after(&Counts::default(), REQUESTS);
    assert_eq!(unmeshed_caller.failed, 0, "{unmeshed_caller:?}");
    if let Some(recording) = recording {
        let seen = Seen::of(&cluster, &recording.stop());
        seen.say("a caller without a proxy");
        assert!(!seen.opened.is_empty() && seen.readable > 0);
        assert!(seen.opened.iter().all(|content| content[0] == Content::Plain), "{:?}", seen.opened);
    }

    until_edge(&cluster, NAMESPACE, ("?", "server"), 0.0, &["no_proxy_tls"]);
    let why = until_why(&cluster, &["deploy/caller", "deploy/server"], NAMESPACE, 3);
    assert!(why.to_string().contains("conduit inject"), "{why:#}");

    // And a server without one.
    cluster.apply_to(NAMESPACE, &load.manifest_of("server", false));
    cluster.apply_to(NAMESPACE, &load.manifest_of("caller", true));
    cluster.rolled_out(NAMESPACE, &["server", "caller"]);
    load.until_only("no_identity");
    until_edge(&cluster, NAMESPACE, ("caller", "server"), 0.0, &["no_identity"]);
    until_why(&cluster, &["deploy/caller", "deploy/server"], NAMESPACE, 3);
    let unmeshed_server = load.after(&load.counts(), REQUESTS);
    assert_eq!(unmeshed_server.failed, 0, "{unmeshed_server:?}");
    cluster.leave_namespace(NAMESPACE);
}
