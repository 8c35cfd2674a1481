//! The cluster that the tests are for, and the two programs by which everything in it is done.

use std::{path::PathBuf, process::Command, time::Duration};

use conduit_runtime::env::{self, Env};
use serde_json::Value;

use crate::process::{self, Output};

/// How long a command may take that waits for nothing.
const COMMAND: Duration = Duration::from_secs(120);
/// How long what needs pods to start or end may take.
pub const PATIENCE: Duration = Duration::from_secs(300);

/// A cluster, reached by a kubeconfig whose user may do everything.
#[derive(Debug, Clone)]
pub struct Cluster {
    kubeconfig: String,
    conduit: PathBuf,
    node: Option<Vec<String>>,
}

impl Cluster {
    /// The cluster that `kind-tests/run` has made ready.
    ///
    /// # Panics
    /// There is none.
    pub fn get() -> Self {
        let mut env = Env::from_process();
        let kubeconfig = env.parse("KIND_TESTS_KUBECONFIG", env::text);
        let conduit = env.parse("KIND_TESTS_CONDUIT", env::text);
        let node = env.parse("KIND_TESTS_NODE", env::text);
        env.finish().unwrap();
        let (Some(kubeconfig), Some(conduit)) = (kubeconfig, conduit) else {
            panic!("these tests need a real cluster and are started by kind-tests/run, which says how");
        };
        let node = node.map(|command| command.split_whitespace().map(str::to_owned).collect());
        Self { kubeconfig, conduit: conduit.into(), node }
    }

    /// What `kubectl` prints.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn kubectl(&self, args: &[&str]) -> String {
        self.try_kubectl(args, "").unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `kubectl` prints when it is fed `input`.
    ///
    /// # Errors
    /// It fails, with what it says.
    pub fn try_kubectl(&self, args: &[&str], input: &str) -> Result<String, String> {
        let mut command = Command::new("kubectl");
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        succeeded("kubectl", args, process::run(&mut command, input, PATIENCE)?)
    }

    /// `conduit` with these arguments, not yet started.
    pub fn conduit_command(&self, args: &[&str]) -> Command {
        let mut command = Command::new(&self.conduit);
        command.env("KUBECONFIG", &self.kubeconfig).args(args);
        command
    }

    /// Runs `conduit`.
    ///
    /// # Panics
    /// It cannot be started, or does not end.
    #[track_caller]
    pub fn conduit_fed(&self, args: &[&str], input: &str) -> Output {
        process::run(&mut self.conduit_command(args), input, COMMAND)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `conduit` prints.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn conduit(&self, args: &[&str]) -> String {
        succeeded("conduit", args, self.conduit_fed(args, "")).unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `conduit` prints.
    ///
    /// # Errors
    /// It fails, with what it says.
    pub fn try_conduit(&self, args: &[&str]) -> Result<String, String> {
        succeeded("conduit", args, self.conduit_fed(args, ""))
    }

    /// `manifests` as `conduit inject` leaves them.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn inject(&self, manifests: &str, flags: &[&str]) -> String {
        let args = [&["inject", "-"], flags].concat();
        let injected = succeeded("conduit", &args, self.conduit_fed(&args, manifests));
        injected.unwrap_or_else(|error| panic!("{error}"))
    }

    /// Applies manifests; what names no namespace goes to that of the kubeconfig.
    ///
    /// # Panics
    /// The cluster refuses them.
    #[track_caller]
    pub fn apply(&self, manifests: &str) -> String {
        self.try_kubectl(&["apply", "-f", "-"], manifests).unwrap_or_else(|error| panic!("{error}"))
    }

    /// Applies manifests that name no namespace to this one.
    ///
    /// # Panics
    /// The cluster refuses them.
    #[track_caller]
    pub fn apply_to(&self, namespace: &str, manifests: &str) -> String {
        self.try_kubectl(&["apply", "-n", namespace, "-f", "-"], manifests)
            .unwrap_or_else(|error| panic!("{error}"))
    }

    /// What `kubectl get ARGS -o json` prints.
    ///
    /// # Panics
    /// It fails.
    #[track_caller]
    pub fn get_json(&self, args: &[&str]) -> Value {
        let text = self.kubectl(&[&["get"], args, &["-o", "json"]].concat());
        serde_json::from_str(&text).expect("kubectl prints JSON")
    }

    /// Waits until Deployments have the pods they are to have, and no others.
    ///
    /// # Panics
    /// They do not within [`PATIENCE`].
    #[track_caller]
    pub fn rolled_out(&self, namespace: &str, deployments: &[&str]) {
        for deployment in deployments {
            let name = format!("deployment/{deployment}");
            let rolled =
                self.try_kubectl(&["rollout", "status", "-n", namespace, &name, "--timeout=280s"], "");
            if let Err(error) = rolled {
                let pods = self.kubectl(&["describe", "pods", "-n", namespace]);
                panic!("{error}\n{pods}");
            }
        }
    }

    /// The running pods with this label that are not about to end, oldest first.
    pub fn pods(&self, namespace: &str, label: &str) -> Vec<Value> {
        let args = ["pods", "-n", namespace, "-l", label, "--sort-by=.metadata.creationTimestamp"];
        let Value::Array(items) = self.get_json(&args)["items"].take() else { return Vec::new() };
        let is_running = |pod: &Value| {
            pod["status"]["phase"] == "Running" && pod["metadata"]["deletionTimestamp"].is_null()
        };
        items.into_iter().filter(is_running).collect()
    }

    /// What a pod's HTTP server answers to the API server, which asks for us.
    ///
    /// # Errors
    /// It does not answer.
    pub fn get_from_pod(&self, namespace: &str, pod: &str, port: u16, path: &str) -> Result<String, String> {
        let url = format!("/api/v1/namespaces/{namespace}/pods/{pod}:{port}/proxy{path}");
        self.try_kubectl(&["get", "--raw", &url], "")
    }

    /// A program in the network of the node that the pods run on; none when the provider has no way there.
    pub fn on_node(&self, program: &str) -> Option<Command> {
        let prefix = self.node.as_ref()?;
        let mut command = Command::new(&prefix[0]);
        command.args(&prefix[1..]).arg(program);
        Some(command)
    }

    /// Makes the namespace if there is none of that name.
    ///
    /// # Panics
    /// It cannot be made.
    #[track_caller]
    pub fn make_namespace(&self, name: &str) {
        self.apply(&format!("apiVersion: v1\nkind: Namespace\nmetadata:\n  name: {name}\n"));
    }

    /// Deletes the namespace if there is one, and waits until nothing of it is left.
    ///
    /// # Panics
    /// Something is left.
    #[track_caller]
    pub fn remove_namespace(&self, name: &str) {
        self.kubectl(&["delete", "namespace", name, "--ignore-not-found", "--timeout=280s"]);
    }

    /// Has the namespace deleted, some time.
    ///
    /// # Panics
    /// The cluster refuses.
    #[track_caller]
    pub fn leave_namespace(&self, name: &str) {
        self.kubectl(&["delete", "namespace", name, "--wait=false"]);
    }
}

fn succeeded(program: &str, args: &[&str], output: Output) -> Result<String, String> {
    match output.code {
        Some(0) => Ok(output.stdout),
        code => Err(format!("{program} {} ended with {code:?}: {}", args.join(" "), output.stderr)),
    }
}
