//! A mesh that is broken and mended while it carries requests: how each fault is made, and what it did.

use std::time::Duration;

use conduit_runtime::env::{self, Env};
use serde_json::{Value, json};
use tokio::time::Instant;

use crate::{
    Cluster,
    cluster::PATIENCE,
    counts::Counts,
    load::{Labels, Load, added},
    mesh,
    process::{self, until},
    wire::address,
};

const SERVER_SECRET: &str = "server-deployment-tls-conduit-io";
const CALLER_SECRET: &str = "caller-deployment-tls-conduit-io";
/// Requests that each fault meets, unless `KIND_TESTS_REQUESTS` says otherwise: GET and POST, on kept and fresh connections, a
/// quarter each.
const REQUESTS: u64 = 1_500;
/// Requests after a repair.
const REQUESTS_AFTER: u64 = 200;
/// How long a command on the node may take.
const COMMAND: Duration = Duration::from_secs(60);
/// What the table of faults begins with.
const HEAD: &str = "| fault | requests | failed | p50 | p99 | responses by `tls` meanwhile | TLS again after | requests after | failed |\n\
                    |---|---|---|---|---|---|---|---|---|";

/// The mesh while it is broken and mended.
pub struct World<'c> {
    cluster: &'c Cluster,
    load: Load<'c>,
    requests: u64,
    table: Vec<String>,
}

impl<'c> World<'c> {
    /// A server and its caller in the mesh, nothing broken yet.
    ///
    /// # Panics
    /// `KIND_TESTS_REQUESTS` is no number.
    pub fn new(cluster: &'c Cluster, namespace: &str) -> Self {
        let mut env = Env::from_process();
        let requests = env.parse("KIND_TESTS_REQUESTS", env::number).unwrap_or(REQUESTS);
        env.finish().unwrap();
        mesh::install(cluster);
        Self { cluster, load: Load::meshed(cluster, namespace), requests, table: vec![HEAD.to_owned()] }
    }

    /// What was seen so far, a line a fault.
    pub fn table(&self) -> String {
        self.table.join("\n")
    }

    /// Breaks something, waits for requests, mends it, waits until all is TLS again, and counts.
    ///
    /// # Panics
    /// A request failed, or TLS does not come back.
    pub fn fault(&mut self, name: &str, damage: impl Fn(&Self), repair: impl Fn(&Self)) {
        let (before, labels) = (self.load.counts(), self.labels());
        damage(self);
        // As many as that once all is broken; those before it count too.
        self.load.after(&self.load.counts(), self.requests);
        let broken = self.load.counts().since(&before);
        let labels = added(&labels, &self.labels());
        let (mending, told) = (Instant::now(), self.load.counts());
        repair(self);
        let again = self.load.until_encrypted().saturating_duration_since(mending);
        let mended = self.load.after(&told, REQUESTS_AFTER);
        self.tell(name, &broken, &labels, again, &mended);
        for counts in [&broken, &mended] {
            assert!(counts.kinds.values().all(|count| *count > 0), "{name}: {counts:?}");
            assert_eq!(counts.failed, 0, "{name}: {counts:?}");
        }
    }

    fn labels(&self) -> Labels {
        until("the caller's proxy tells its counts", PATIENCE, || self.load.responses())
    }

    fn tell(&mut self, name: &str, broken: &Counts, labels: &Labels, again: Duration, mended: &Counts) {
        let by_label: Vec<String> = labels.iter().map(|(label, count)| format!("{label} {count}")).collect();
        let was_lost = labels.keys().any(|label| label != "true");
        let again = if was_lost { format!("{:.1} s", again.as_secs_f64()) } else { "was there".to_owned() };
        let row = format!(
            "| {name} | {} | {} | {} | {} | {} | {again} | {} | {} |",
            broken.sent(),
            broken.failed,
            broken.percentile(50),
            broken.percentile(99),
            by_label.join(", "),
            mended.sent(),
            mended.failed
        );
        eprintln!("{row}");
        self.table.push(row);
    }

    /// Kills a component, its pods without a word of warning.
    pub fn kill(&self, component: &str) {
        self.scale(component, "--replicas=0");
        let label = format!("conduit.io/control-plane-component={component}");
        let args = ["delete", "pods", "-n", mesh::CONTROL_PLANE, "-l", &label, "--force", "--grace-period=0"];
        self.cluster.kubectl(&args);
    }

    /// Starts a component again.
    pub fn revive(&self, component: &str) {
        self.scale(component, "--replicas=1");
        self.cluster.rolled_out(mesh::CONTROL_PLANE, &[component]);
    }

    fn scale(&self, component: &str, replicas: &str) {
        let name = format!("deployment/{component}");
        self.cluster.kubectl(&["scale", "-n", mesh::CONTROL_PLANE, &name, replicas]);
    }

    /// Deletes the server's Secret.
    pub fn delete_secret(&self) {
        self.cluster.kubectl(&["delete", "secret", SERVER_SECRET, "-n", self.load.namespace()]);
    }

    /// Puts a certificate that is none into the server's Secret.
    pub fn spoil_secret(&self) {
        self.patch_secret(&json!({"tls.crt": "Z2FyYmFnZQ=="}));
    }

    /// Puts what is in the caller's Secret into the server's.
    pub fn swap_secret(&self) {
        let secret = self.cluster.get_json(&["secret", CALLER_SECRET, "-n", self.load.namespace()]);
        let of = |key: &str| secret["data"][key].as_str().unwrap_or_default().to_owned();
        self.patch_secret(&json!({"tls.crt": of("tls.crt"), "tls.key": of("tls.key")}));
    }

    /// Has the CA issue the server a certificate that does not live for long, kills the CA, and waits until the certificate
    /// has expired.
    pub fn expire_secret(&self) {
        self.ca_lifetimes("CONDUIT_CA_LEAF_LIFETIME=75s", "CONDUIT_CA_LEAF_RENEW_LEFT=5s");
        let before = self.secret_version();
        self.delete_secret();
        until("a Secret for the server", PATIENCE, || match self.secret_version() {
            version if version.is_some() && version != before => Ok(()),
            version => Err(format!("{version:?}")),
        });
        self.kill("ca");
        self.load.until_other("true");
    }

    /// Starts the CA again, with the lifetimes that are shipped.
    pub fn stop_expiring(&self) {
        self.scale("ca", "--replicas=1");
        self.ca_lifetimes("CONDUIT_CA_LEAF_LIFETIME-", "CONDUIT_CA_LEAF_RENEW_LEFT-");
    }

    fn ca_lifetimes(&self, lifetime: &str, renewal: &str) {
        self.cluster.kubectl(&["set", "env", "-n", mesh::CONTROL_PLANE, "deployment/ca", lifetime, renewal]);
        self.cluster.rolled_out(mesh::CONTROL_PLANE, &["ca"]);
    }

    fn secret_version(&self) -> Option<String> {
        let args =
            ["get", "secret", SERVER_SECRET, "-n", self.load.namespace(), "-o", "jsonpath={.metadata.uid}"];
        self.cluster.try_kubectl(&args, "").ok()
    }

    fn patch_secret(&self, data: &Value) {
        let patch = json!({"data": data}).to_string();
        let args =
            ["patch", "secret", SERVER_SECRET, "-n", self.load.namespace(), "--type=merge", "-p", &patch];
        self.cluster.kubectl(&args);
    }

    /// Replaces the pods of the server or of its caller.
    pub fn restart(&self, part: &str) {
        let name = format!("deployment/{part}");
        self.cluster.kubectl(&["rollout", "restart", "-n", self.load.namespace(), &name]);
        self.cluster.rolled_out(self.load.namespace(), &[part]);
    }

    /// Gives the server a proxy, or takes it away.
    pub fn mesh_server(&self, meshed: bool) {
        self.cluster.apply_to(self.load.namespace(), &self.load.manifest_of("server", meshed));
        self.cluster.rolled_out(self.load.namespace(), &["server"]);
    }

    /// Cuts the API server off from the control plane's pods, or joins them again.
    ///
    /// # Panics
    /// There is no way to the node's network.
    pub fn cut_api_server(&self, is_cut: bool) {
        let endpoints = self.cluster.get_json(&["endpoints", "kubernetes", "-n", "default"]);
        let port = endpoints["subsets"][0]["ports"][0]["port"].to_string();
        let action = if is_cut { "-I" } else { "-D" };
        for pod in self.cluster.pods(mesh::CONTROL_PLANE, "conduit.io/control-plane-component") {
            let pod = address(&pod).to_string();
            // Whether the API server is on the node or beyond it.
            for chain in ["INPUT", "FORWARD"] {
                self.on_node(
                    "iptables",
                    &["-w", action, chain, "-s", &pod, "-p", "tcp", "--dport", &port, "-j", "DROP"],
                );
            }
        }
    }

    /// Has connections to the server's address answered by somebody who has no proxy, whatever the mesh says of it: as if
    /// the address were that of another pod by now.
    ///
    /// # Panics
    /// There is no way to the node's network.
    pub fn take_server_address_over(&self) {
        let pods = self.cluster.pods(self.load.namespace(), "app=server");
        let server = address(pods.last().expect("it runs"));
        let script = format!(
            "for ns in $(ip netns list | cut -d' ' -f1); do \
             if ip -n $ns -4 addr show 2>/dev/null | grep -q ' {server}/'; then \
             ip netns exec $ns iptables -w -t nat -F PREROUTING && echo done; fi; done"
        );
        assert_eq!(self.on_node("sh", &["-c", &script]).trim(), "done", "the pod at {server} has a network");
    }

    fn on_node(&self, program: &str, args: &[&str]) -> String {
        let mut command = self.cluster.on_node(program).expect("there is a way to the node's network");
        let output = process::run(command.args(args), "", COMMAND).unwrap_or_else(|error| panic!("{error}"));
        assert_eq!(output.code, Some(0), "{program} {args:?}: {}", output.stderr);
        output.stdout
    }
}
