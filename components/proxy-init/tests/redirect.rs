//! The rules in a real kernel: network namespaces stand for a pod and for somebody else, servers that tell their names
//! stand for the proxy and for applications. Needs root, `ip`, `setpriv`, both kinds of `iptables` and `python3`; run by
//! name:
//!
//! `cargo test -p conduit-proxy-init --test redirect`

#![allow(clippy::expect_used, reason = "helpers of tests fail as tests do")]

use std::{
    io::{BufRead, BufReader},
    process::{Child, Command, Output, Stdio},
};

const PROXY_UID: &str = "2102";

/// Tells each client the name that goes with the port it reached. Arguments are PORT=NAME.
const SERVER: &str = r#"
import selectors, socket, sys
listening = selectors.DefaultSelector()
for port, name in (argument.split("=") for argument in sys.argv[1:]):
    listener = socket.create_server(("::", int(port)), family=socket.AF_INET6, dualstack_ipv6=True)
    listening.register(listener, selectors.EVENT_READ, name.encode())
print("ready", flush=True)
while True:
    for key, _ in listening.select():
        client, _ = key.fileobj.accept()
        client.sendall(key.data); client.close()
"#;

/// Prints the name of whom it reached as a user whose number is the last argument. It becomes that user late: not
/// everybody may read everybody's Python.
const CLIENT: &str = r#"
import os, socket, sys
os.setuid(int(sys.argv[3]))
connection = socket.socket(socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET)
connection.settimeout(10); connection.connect((sys.argv[1], int(sys.argv[2])))
while name := connection.recv(100): os.write(1, name)
"#;

const FAMILIES: [Family; 2] = [
    Family { iptables: "iptables", pod: "10.77.0.1", peer: "10.77.0.2", loopback: "127.0.0.1" },
    Family { iptables: "ip6tables", pod: "fd77::1", peer: "fd77::2", loopback: "::1" },
];

struct Family {
    iptables: &'static str,
    pod: &'static str,
    peer: &'static str,
    loopback: &'static str,
}

/// Two namespaces joined by a veth pair: `pod`, whose connections are redirected, and `peer`, which knows nothing of it.
struct World {
    pod: String,
    peer: String,
    servers: Vec<Child>,
}

impl World {
    fn new(tag: &str) -> Self {
        let id = std::process::id();
        let (pod, peer) = (format!("init-{tag}-{id}"), format!("init-peer-{tag}-{id}"));
        let world = Self { pod: pod.clone(), peer: peer.clone(), servers: Vec::new() };
        ip(&format!("netns add {pod}"));
        ip(&format!("netns add {peer}"));
        ip(&format!("link add eth0 netns {pod} type veth peer name eth0 netns {peer}"));
        for (ns, host) in [(&pod, 1), (&peer, 2)] {
            ip(&format!("-n {ns} link set lo up"));
            ip(&format!("-n {ns} link set eth0 up"));
            ip(&format!("-n {ns} addr add 10.77.0.{host}/24 dev eth0"));
            ip(&format!("-n {ns} addr add fd77::{host}/64 dev eth0 nodad"));
        }
        world
    }

    fn with_servers(tag: &str) -> Self {
        let mut world = Self::new(tag);
        let (pod, peer) = (world.pod.clone(), world.peer.clone());
        world.serve(
            &pod,
            &["4143=inbound", "4140=outbound", "8080=application", "4191=admin", "9005=ignored"],
        );
        world.serve(&peer, &["8080=peer", "3306=database"]);
        world
    }

    fn serve(&mut self, ns: &str, ports: &[&str]) {
        let mut server = Command::new("ip")
            .args(["netns", "exec", ns, "python3", "-c", SERVER])
            .args(ports)
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let mut ready = String::new();
        let stdout = server.stdout.take().expect("it is piped");
        self.servers.push(server);
        BufReader::new(stdout).read_line(&mut ready).expect("it says when it serves");
        assert_eq!(ready, "ready\n");
    }

    /// Runs proxy-init in the pod with what inject gives, and with `more`.
    fn init(&self, more: &[&str]) -> Output {
        self.init_as(&[], more)
    }

    fn init_as(&self, wrapper: &[&str], more: &[&str]) -> Output {
        let ports = ["--incoming-proxy-port", "4143", "--outgoing-proxy-port", "4140"];
        let lists =
            ["--inbound-ports-to-ignore", "9000-9010,4190,4191", "--outbound-ports-to-ignore", "3306"];
        Command::new("ip")
            .args(["netns", "exec", &self.pod])
            .args(wrapper)
            .arg(env!("CARGO_BIN_EXE_conduit-proxy-init"))
            .args(ports)
            .args(["--proxy-uid", PROXY_UID])
            .args(lists)
            .args(more)
            .output()
            .expect("ip runs")
    }

    fn redirect(&self, more: &[&str]) -> String {
        let output = self.init(more);
        let log = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(output.status.success(), "{log}");
        log
    }

    /// Whom a client in `ns` reaches.
    fn reach(&self, ns: &str, addr: &str, port: u16) -> String {
        self.reach_as("0", ns, addr, port)
    }

    fn reach_as(&self, uid: &str, ns: &str, addr: &str, port: u16) -> String {
        let port = port.to_string();
        run(ns, &["python3", "-c", CLIENT, addr, &port, uid])
    }

    /// The pod's nat table, without what changes by itself.
    fn rules(&self, save: &str) -> Vec<String> {
        let saved = run(&self.pod, &[save, "-t", "nat"]);
        saved.lines().filter(|line| !line.starts_with('#')).map(str::to_owned).collect()
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for server in &mut self.servers {
            drop(server.kill());
            drop(server.wait());
        }
        for ns in [&self.pod, &self.peer] {
            drop(Command::new("ip").args(["netns", "del", ns]).status());
        }
    }
}

fn ip(arguments: &str) {
    let output = Command::new("ip").args(arguments.split(' ')).output().expect("ip runs (Debian: iproute2)");
    assert!(output.status.success(), "ip {arguments}: {} (root?)", String::from_utf8_lossy(&output.stderr));
}

fn run(ns: &str, command: &[&str]) -> String {
    let output = Command::new("ip").args(["netns", "exec", ns]).args(command).output().expect("ip runs");
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8_lossy(&output.stdout).into_owned()
}

fn connections_go_where_they_should(backend: &str) {
    let world = World::with_servers(backend);
    for Family { pod, peer, .. } in FAMILIES {
        // All reach whom they call before anything is redirected, so that no name below can be the lack of a redirect.
        assert_eq!(world.reach(&world.peer, pod, 8080), "application");
        assert_eq!(world.reach(&world.pod, peer, 8080), "peer");
    }
    world.redirect(&["--backend", backend]);
    for Family { pod, peer, loopback, .. } in FAMILIES {
        assert_eq!(world.reach(&world.peer, pod, 8080), "inbound", "what others send to {pod}");
        assert_eq!(world.reach(&world.peer, pod, 80), "inbound", "where nobody listens");
        assert_eq!(world.reach(&world.peer, pod, 4191), "admin", "an ignored port");
        assert_eq!(world.reach(&world.peer, pod, 9005), "ignored", "a port in an ignored range");
        assert_eq!(world.reach(&world.pod, peer, 8080), "outbound", "what the pod sends to {peer}");
        assert_eq!(world.reach(&world.pod, peer, 3306), "database", "an ignored port of others");
        assert_eq!(world.reach_as(PROXY_UID, &world.pod, peer, 8080), "peer", "what the proxy sends");
        assert_eq!(world.reach(&world.pod, pod, 8080), "application", "the pod's call to itself");
        assert_eq!(world.reach_as(PROXY_UID, &world.pod, pod, 8080), "application", "the proxy to the pod");
        assert_eq!(world.reach(&world.pod, loopback, 8080), "application", "a call by {loopback}");
    }
}

#[test]
fn connections_go_where_they_should_by_nf_tables() {
    connections_go_where_they_should("nft");
}

#[test]
fn connections_go_where_they_should_by_ip_tables() {
    connections_go_where_they_should("legacy");
}

#[test]
fn only_listed_ports_are_redirected_when_there_is_a_list() {
    let mut world = World::new("list");
    let (pod, peer) = (world.pod.clone(), world.peer.clone());
    world.serve(&pod, &["4143=inbound", "8080=application", "8081=other"]);
    world.redirect(&["--ports-to-redirect", "8000-8080"]);
    for Family { pod, .. } in FAMILIES {
        assert_eq!(world.reach(&peer, pod, 8080), "inbound");
        assert_eq!(world.reach(&peer, pod, 8081), "other");
    }
}

fn what_is_left_depends_on_the_last_run_only(backend: &str) {
    let once = World::new(&format!("once-{backend}"));
    once.redirect(&["--backend", backend, "--ports-to-redirect", "80"]);
    let often = World::new(&format!("often-{backend}"));
    for more in [&["--ports-to-redirect", "8080"][..], &[], &["--ports-to-redirect", "80"]] {
        often.redirect(&[&["--backend", backend], more].concat());
    }
    for Family { iptables, .. } in FAMILIES {
        let save = format!("{iptables}-{backend}-save");
        let rules = once.rules(&save);
        assert!(rules.iter().any(|line| line == "-A PREROUTING -j CONDUIT_REDIRECT"), "{rules:?}");
        assert_eq!(often.rules(&save), rules);
        often.redirect(&["--ports-to-redirect", "80"]);
        assert_eq!(
            often.rules(&save),
            rules,
            "left to choose, it stays with the packet filter of the last run"
        );
    }
}

#[test]
fn what_is_left_by_nf_tables_depends_on_the_last_run_only() {
    what_is_left_depends_on_the_last_run_only("nft");
}

#[test]
fn what_is_left_by_ip_tables_depends_on_the_last_run_only() {
    what_is_left_depends_on_the_last_run_only("legacy");
}

#[test]
fn rules_of_others_stay_and_those_of_the_2018_release_go() {
    for backend in ["nft", "legacy"] {
        let world = World::new(&format!("old-{backend}"));
        let iptables = format!("iptables-{backend}");
        for rule in [
            "-N CNI-HOSTPORT-DNAT",
            "-A PREROUTING -p tcp --dport 99 -j CNI-HOSTPORT-DNAT",
            "-N CONDUIT_REDIRECT",
            "-A CONDUIT_REDIRECT -p tcp -m comment --comment conduit/redirect/1530000000 -j REDIRECT --to-port 9999",
            "-A PREROUTING -m comment --comment conduit/install/1530000000 -j CONDUIT_REDIRECT",
        ] {
            let command = [iptables.as_str(), "-t", "nat"];
            run(&world.pod, &[&command[..], &rule.split(' ').collect::<Vec<_>>()].concat());
        }
        world.redirect(&[]);
        let rules = world.rules(&format!("{iptables}-save"));
        let count = |text: &str| rules.iter().filter(|line| line.contains(text)).count();
        assert_eq!(count("-j CNI-HOSTPORT-DNAT"), 1, "{rules:?}");
        assert_eq!(count("-j CONDUIT_REDIRECT"), 1, "{rules:?}");
        assert_eq!(count("conduit/") + count("9999"), 0, "{rules:?}");
    }
}

#[test]
fn without_net_admin_nothing_changes_and_the_error_says_what_to_add() {
    let world = World::new("caps");
    let output = world.init_as(&["setpriv", "--bounding-set", "-net_admin"], &[]);
    let error = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!(output.status.code(), Some(1));
    assert!(error.contains("NET_ADMIN is missing") && error.contains("securityContext"), "{error}");
    assert!(!world.rules("iptables-nft-save").iter().any(|line| line.contains("CONDUIT")));
}

#[test]
fn a_namespace_without_ipv6_is_redirected_as_far_as_there_is_something() {
    let world = World::new("v4");
    run(&world.pod, &["sysctl", "-qw", "net.ipv6.conf.all.disable_ipv6=1"]);
    let log = world.redirect(&[]);
    assert!(log.contains("IPv6 is off in this network namespace"), "{log}");
    assert!(!world.rules("ip6tables-nft-save").iter().any(|line| line.contains("CONDUIT")));
}

#[test]
fn simulate_prints_the_rules_and_changes_nothing() {
    let world = World::new("sim");
    let output = world.init_as(&["setpriv", "--bounding-set", "-net_admin"], &["--simulate"]);
    assert!(output.status.success());
    let printed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(printed.contains("-A CONDUIT_OUTPUT -p tcp -j REDIRECT --to-ports 4140\n"), "{printed}");
    assert!(!world.rules("iptables-nft-save").iter().any(|line| line.contains("CONDUIT")));
}
