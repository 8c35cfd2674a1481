//! Whatever breaks in the mesh, no request is harmed, and TLS comes back by itself.

#![allow(clippy::unwrap_used, reason = "a failed expectation is a failed test")]

use kind_tests::{
    Cluster,
    load::{Counts, Load},
    mesh,
};

const NAMESPACE: &str = "conduit-tests-failopen";
const SERVER_SECRET: &str = "server-deployment-tls-conduit-io";
const CALLER_SECRET: &str = "caller-deployment-tls-conduit-io";
/// Requests that each fault meets: GET and POST, on kept and fresh connections, a quarter each.
const REQUESTS: u64 = 1_500;
/// Requests after a repair.
const REQUESTS_AFTER: u64 = 200;

/// The mesh while it is broken and mended.
struct World<'c> {
    cluster: &'c Cluster,
    load: Load<'c>,
    rows: Vec<String>,
}

impl World<'_> {
    /// Breaks something, waits for requests, mends it, waits until all is TLS again, and counts.
    fn fault(&mut self, name: &str, damage: impl Fn(&Self), repair: impl Fn(&Self)) {
        let before = self.load.counts();
        damage(self);
        let broken = self.load.after(&before, REQUESTS);
        let labels = self.load.responses().unwrap_or_default();
        self.row(name, &broken, &format!("{labels:?}"));
        let mending = self.load.counts();
        repair(self);
        self.load.until_encrypted();
        let mended = self.load.after(&mending, REQUESTS_AFTER);
        self.row(&format!("{name}, mended"), &mended, "");
    }

    fn row(&mut self, name: &str, counts: &Counts, note: &str) {
        let p99 = counts.p99().map_or("more than measured".to_owned(), |p99| format!("≤ {p99:?}"));
        let row = format!("| {name} | {} | {} | {p99} | {note} |", counts.sent(), counts.failed);
        eprintln!("{row}");
        self.rows.push(row);
        assert!(counts.kinds.values().all(|count| *count > 0), "{counts:?}");
        assert_eq!(counts.failed, 0, "{name}: {counts:?}");
    }

    /// Kills a component, its pods without a word of warning.
    fn kill(&self, component: &str) {
        self.scale(component, "--replicas=0");
        let label = format!("conduit.io/control-plane-component={component}");
        let args = ["delete", "pods", "-n", mesh::CONTROL_PLANE, "-l", &label, "--force", "--grace-period=0"];
        self.cluster.kubectl(&args);
    }

    fn revive(&self, component: &str) {
        self.scale(component, "--replicas=1");
        self.cluster.rolled_out(mesh::CONTROL_PLANE, &[component]);
    }

    fn scale(&self, component: &str, replicas: &str) {
        let name = format!("deployment/{component}");
        self.cluster.kubectl(&["scale", "-n", mesh::CONTROL_PLANE, &name, replicas]);
    }

    fn secret(&self, name: &str, key: &str) -> String {
        self.cluster.get_json(&["secret", name, "-n", NAMESPACE])["data"][key]
            .as_str()
            .unwrap_or_default()
            .to_owned()
    }

    fn patch_secret(&self, data: &serde_json::Value) {
        let patch = serde_json::json!({"data": data}).to_string();
        self.cluster.kubectl(&[
            "patch",
            "secret",
            SERVER_SECRET,
            "-n",
            NAMESPACE,
            "--type=merge",
            "-p",
            &patch,
        ]);
    }

    fn restart(&self, part: &str) {
        self.cluster.kubectl(&["rollout", "restart", "-n", NAMESPACE, &format!("deployment/{part}")]);
        self.cluster.rolled_out(NAMESPACE, &[part]);
    }
}

#[test]
fn no_fault_of_the_mesh_harms_a_request() {
    let cluster = Cluster::get();
    mesh::install(&cluster);
    let load = Load::meshed(&cluster, NAMESPACE);
    let mut world = World { cluster: &cluster, load, rows: Vec::new() };
    let nothing = |_: &World<'_>| ();

    world.fault("nothing", nothing, nothing);
    world.fault("the CA is killed", |world| world.kill("ca"), |world| world.revive("ca"));
    world.fault(
        "the server's Secret is deleted",
        |world| drop(world.cluster.kubectl(&["delete", "secret", SERVER_SECRET, "-n", NAMESPACE])),
        nothing,
    );
    world.fault(
        "no CA, and the server's Secret is garbage",
        |world| {
            world.kill("ca");
            world.patch_secret(&serde_json::json!({"tls.crt": "Z2FyYmFnZQ=="}));
        },
        |world| world.revive("ca"),
    );
    world.fault(
        "no CA, and the server has the caller's Secret",
        |world| {
            world.kill("ca");
            let of = |key| world.secret(CALLER_SECRET, key);
            world.patch_secret(&serde_json::json!({"tls.crt": of("tls.crt"), "tls.key": of("tls.key")}));
        },
        |world| world.revive("ca"),
    );
    world.fault(
        "no CA, and a server that never had a Secret",
        |world| {
            world.kill("ca");
            world.cluster.kubectl(&["delete", "secret", SERVER_SECRET, "-n", NAMESPACE]);
            world.restart("server");
        },
        |world| world.revive("ca"),
    );
    world.fault(
        "the destination service is killed",
        |world| world.kill("destination"),
        |world| world.revive("destination"),
    );
    world.fault(
        "no destination service, and a new server",
        |world| {
            world.kill("destination");
            world.restart("server");
        },
        |world| world.revive("destination"),
    );
    world.fault(
        "the server leaves the mesh",
        |world| {
            world.cluster.apply_to(NAMESPACE, &world.load.manifest_of("server", false));
            world.cluster.rolled_out(NAMESPACE, &["server"]);
        },
        |world| {
            world.cluster.apply_to(NAMESPACE, &world.load.manifest_of("server", true));
            world.cluster.rolled_out(NAMESPACE, &["server"]);
        },
    );
    println!(
        "| fault | requests | failed | p99 | responses to the caller so far, by `tls` |\n|---|---|---|---|---|"
    );
    println!("{}", world.rows.join("\n"));
    cluster.leave_namespace(NAMESPACE);
}
