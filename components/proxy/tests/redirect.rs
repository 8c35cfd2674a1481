//! The real redirect: iptables in a network namespace sends a pod's connections to the proxy, which finds out where
//! they were going by asking the kernel. Needs root, `ip`, `iptables` and `python3`; run by name:
//!
//! `cargo test -p conduit-proxy --test redirect`

use std::{
    process::{Child, Command, Stdio},
    time::{Duration, Instant},
};

const PROXY_UID: &str = "2102";
const PATIENCE: Duration = Duration::from_secs(15);

/// An HTTP server that names the peer it sees, so that a test can tell who really connected.
const SERVER: &str = r#"
import http.server, socket, sys
class Answer(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        body = f"{sys.argv[2]} saw {self.client_address[0]}".encode()
        self.send_response(200); self.send_header("content-length", str(len(body))); self.end_headers()
        self.wfile.write(body)
    def log_message(self, *a): pass
class Server(http.server.ThreadingHTTPServer):
    address_family = socket.AF_INET6 if ":" in sys.argv[1] else socket.AF_INET
Server((sys.argv[1], 8080), Answer).serve_forever()
"#;

/// Sends one request and prints the answer's body.
const CLIENT: &str = r#"
import http.client, sys
connection = http.client.HTTPConnection(sys.argv[1], 8080, timeout=5)
connection.request("GET", "/"); print(connection.getresponse().read().decode(), end="")
"#;

/// Makes connections, so many at once and so many times, and prints how many of them were answered by a server of these.
const MANY: &str = r#"
import concurrent.futures, http.client, sys
def was_answered(_):
    connection = http.client.HTTPConnection(sys.argv[1], 8080, timeout=20)
    try: connection.request("GET", "/"); return b" saw " in connection.getresponse().read()
    except (OSError, http.client.HTTPException): return False
    finally: connection.close()
at_once, times = int(sys.argv[2]), int(sys.argv[3])
with concurrent.futures.ThreadPoolExecutor(at_once) as callers:
    print(sum(callers.map(was_answered, range(at_once * times))), end="")
"#;

/// Two namespaces joined by a veth pair: `pod`, whose TCP is redirected, and `peer`, which knows nothing of proxies.
struct World {
    pod: String,
    peer: String,
    children: Vec<Child>,
}

impl World {
    fn new(tag: &str) -> Self {
        let id = std::process::id();
        let (pod, peer) = (format!("pod-{tag}-{id}"), format!("peer-{tag}-{id}"));
        let world = Self { pod: pod.clone(), peer: peer.clone(), children: Vec::new() };
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

    /// The rules of a pod: everything inbound to 4143, everything outbound but the proxy's own to 4140.
    fn redirect(&self) {
        for iptables in ["iptables", "ip6tables"] {
            for rule in [
                "-A PREROUTING -p tcp -m multiport --dports 4190,4191 -j RETURN",
                "-A PREROUTING -p tcp -j REDIRECT --to-ports 4143",
                &format!("-A OUTPUT -m owner --uid-owner {PROXY_UID} -j RETURN"),
                "-A OUTPUT -o lo -j RETURN",
                "-A OUTPUT -p tcp -j REDIRECT --to-ports 4140",
            ] {
                self.run(
                    &self.pod,
                    &[&[iptables, "-w", "-t", "nat"], &rule.split(' ').collect::<Vec<_>>()[..]].concat(),
                );
            }
        }
    }

    fn start_proxy(&mut self) {
        let proxy = Command::new("ip")
            .args(["netns", "exec", &self.pod, "setpriv", "--reuid", PROXY_UID, "--clear-groups"])
            .arg(env!("CARGO_BIN_EXE_conduit-proxy"))
            .env_clear()
            .env("PATH", "/usr/sbin:/usr/bin:/sbin:/bin")
            .env("CONDUIT_PROXY_LOG", "info")
            .env("CONDUIT_PROXY_PUBLIC_CONNECT_TIMEOUT", "2s")
            .env("CONDUIT_PROXY_POD_NAMESPACE", "test")
            // As injected: IPv6 comes with it.
            .env("CONDUIT_PROXY_PUBLIC_LISTENER", "tcp://0.0.0.0:4143")
            .env("CONDUIT_PROXY_PRIVATE_LISTENER", "tcp://127.0.0.1:4140")
            .env("CONDUIT_PROXY_CONTROL_LISTENER", "tcp://0.0.0.0:4190")
            .env("CONDUIT_PROXY_METRICS_LISTENER", "tcp://0.0.0.0:4191")
            .spawn()
            .expect("the proxy starts");
        self.children.push(proxy);
    }

    fn start_server(&mut self, ns: &str, addr: &str, name: &str) {
        let server = Command::new("ip")
            .args(["netns", "exec", ns, "python3", "-c", SERVER, addr, name])
            .spawn()
            .expect("python3 starts");
        self.children.push(server);
    }

    fn run(&self, ns: &str, command: &[&str]) -> String {
        let output = Command::new("ip").args(["netns", "exec", ns]).args(command).output().expect("ip runs");
        assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
        String::from_utf8_lossy(&output.stdout).into_owned()
    }

    /// The answer that a client in `ns` gets from `addr`, asked again until there is one.
    fn fetch(&self, ns: &str, addr: &str) -> String {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let output = Command::new("ip")
                .args(["netns", "exec", ns, "python3", "-c", CLIENT, addr])
                .stderr(Stdio::piped())
                .output()
                .expect("python3 runs");
            if output.status.success() {
                return String::from_utf8_lossy(&output.stdout).into_owned();
            }
            let error = String::from_utf8_lossy(&output.stderr).into_owned();
            assert!(Instant::now() < deadline, "{ns} got no answer from {addr}: {error}");
        }
    }

    /// How many of so many connections that an application in the pod makes are answered.
    fn answered(&self, addr: &str, at_once: u32, times: u32) -> u32 {
        let (at_once, times) = (at_once.to_string(), times.to_string());
        let answered = self.run(&self.pod, &["python3", "-c", MANY, addr, &at_once, &times]);
        answered.parse().expect("it prints a number")
    }

    /// Whether the peer hears who calls it.
    fn peer_hears(&self, addr: &str, hears: bool) {
        let iptables = if addr.contains(':') { "ip6tables" } else { "iptables" };
        let rule = [if hears { "-D" } else { "-A" }, "INPUT", "-p", "tcp", "--dport", "8080", "-j", "DROP"];
        self.run(&self.peer, &[&[iptables, "-w"], &rule[..]].concat());
    }

    fn metrics(&self) -> String {
        let script = "import urllib.request; print(urllib.request.urlopen('http://127.0.0.1:4191/metrics').read().decode())";
        self.run(&self.pod, &["python3", "-c", script])
    }
}

impl Drop for World {
    fn drop(&mut self) {
        for child in &mut self.children {
            drop(child.kill());
            drop(child.wait());
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

fn opened(metrics: &str, direction: &str, peer: &str) -> u64 {
    let wanted = [format!("direction=\"{direction}\""), format!("peer=\"{peer}\"")];
    metrics
        .lines()
        .filter(|line| line.starts_with("tcp_open_total{") && wanted.iter().all(|label| line.contains(label)))
        .filter_map(|line| line.rsplit(' ').next()?.parse::<f64>().ok())
        .sum::<f64>() as u64
}

fn both_directions(tag: &str, pod: &str, peer: &str) {
    let mut world = World::new(tag);
    let (pod_ns, peer_ns) = (world.pod.clone(), world.peer.clone());
    world.start_server(&pod_ns, pod, "pod");
    world.start_server(&peer_ns, peer, "peer");
    // Both serve before anything is redirected, so that no answer below can be the lack of a redirect.
    assert_eq!(world.fetch(&peer_ns, pod), format!("pod saw {peer}"));
    assert_eq!(world.fetch(&pod_ns, peer), format!("peer saw {pod}"));
    world.redirect();
    world.start_proxy();

    // Inbound, the proxy dials the pod's own address, so that is whom the application sees.
    assert_eq!(world.fetch(&peer_ns, pod), format!("pod saw {pod}"));
    assert_eq!(world.fetch(&pod_ns, peer), format!("peer saw {pod}"));
    let metrics = world.metrics();
    for (direction, side) in
        [("inbound", "src"), ("inbound", "dst"), ("outbound", "src"), ("outbound", "dst")]
    {
        assert!(opened(&metrics, direction, side) >= 1, "no {direction} {side} connection in\n{metrics}");
    }
}

#[test]
fn redirected_ipv4_connections_reach_where_they_were_going() {
    both_directions("v4", "10.77.0.1", "10.77.0.2");
}

#[test]
fn redirected_ipv6_connections_reach_where_they_were_going() {
    both_directions("v6", "fd77::1", "fd77::2");
}

/// The kernel remembers a connection that nobody answered for two minutes, and takes for the same connection whatever comes
/// from the same port for the same destination. There are 128 ports that the application is given first, each once a minute.
fn no_connection_goes_past_the_proxy_after_dials_in_vain(tag: &str, pod: &str, peer: &str) {
    let mut world = World::new(tag);
    let (pod_ns, peer_ns) = (world.pod.clone(), world.peer.clone());
    world.run(&pod_ns, &["sysctl", "-qw", "net.ipv4.ip_local_port_range=40000 40255"]);
    world.start_server(&peer_ns, peer, "peer");
    world.redirect();
    world.start_proxy();
    assert_eq!(world.fetch(&pod_ns, peer), format!("peer saw {pod}"));

    world.peer_hears(peer, false);
    assert_eq!(world.answered(peer, 16, 1), 0);
    world.peer_hears(peer, true);
    let before = opened(&world.metrics(), "outbound", "src");
    assert_eq!(world.answered(peer, 1, 100), 100);
    assert_eq!(opened(&world.metrics(), "outbound", "src") - before, 100, "each of them is the proxy's");
}

#[test]
fn no_ipv4_connection_goes_past_the_proxy_after_dials_in_vain() {
    no_connection_goes_past_the_proxy_after_dials_in_vain("vain4", "10.77.0.1", "10.77.0.2");
}

#[test]
fn no_ipv6_connection_goes_past_the_proxy_after_dials_in_vain() {
    no_connection_goes_past_the_proxy_after_dials_in_vain("vain6", "fd77::1", "fd77::2");
}
