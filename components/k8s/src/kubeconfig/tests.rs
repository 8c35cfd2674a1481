use std::fs;

use super::*;

const GOOD: &str = "
apiVersion: v1
kind: Config
clusters:
- {name: here, cluster: {server: 'https://127.0.0.1:6443'}}
contexts:
- {name: home, context: {cluster: here, user: me, namespace: shop}}
- {name: lost, context: {cluster: nowhere}}
- {name: keyless, context: {cluster: here, user: keyless}}
users:
- {name: me, user: {token: secret}}
current-context: home
";

struct Directory(tempfile::TempDir);

impl Directory {
    fn with(files: &[(&str, &str)]) -> Self {
        let directory = Self(tempfile::tempdir().unwrap());
        for (name, text) in files {
            fs::write(directory.path(name), text).unwrap();
        }
        directory
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// What is said of `choice` in this environment, files without their directory.
    async fn said(&self, choice: Choice, env: &[(&str, &str)]) -> String {
        let said = match find_with(&choice, &mut Env::from_pairs(env.iter().copied())).await {
            Ok(found) => format!("{} in {}", found.origin, found.config.default_namespace),
            Err(problem) => problem.to_string(),
        };
        said.replace(&format!("{}/", self.0.path().display()), "")
    }

    async fn file(&self, name: &str, context: Option<&str>) -> String {
        let choice = Choice { path: Some(self.path(name)), context: context.map(str::to_owned) };
        self.said(choice, &[]).await
    }
}

#[tokio::test]
async fn the_current_context_or_the_chosen_one_is_meant() {
    let directory = Directory::with(&[("config", GOOD)]);
    assert_eq!(
        directory.file("config", None).await,
        r#"the context "home" of the kubeconfig config in shop"#
    );
    assert_eq!(
        directory.file("config", Some("keyless")).await,
        r#"the context "keyless" of the kubeconfig config in default"#
    );
}

#[tokio::test]
async fn what_is_wrong_is_said_in_one_line_with_the_file_and_the_remedy() {
    let directory = Directory::with(&[
        ("config", GOOD),
        ("bracket", "a: ["),
        ("text", "hello"),
        ("empty", ""),
        ("none-current", &GOOD.replace("current-context: home", "")),
        ("url", &GOOD.replace("'https://127.0.0.1:6443'", "'https://:::'")),
    ]);
    for (file, context, expected) in [
        ("missing", None, "there is no kubeconfig at missing; set KUBECONFIG to one"),
        ("empty", None, "there is no kubeconfig at empty; set KUBECONFIG to one"),
        (
            "bracket",
            None,
            "the kubeconfig bracket is malformed: line 1 column 4: unclosed bracket '['; \
             mend it until `kubectl config view` shows it",
        ),
        (
            "text",
            None,
            "the kubeconfig text is malformed: line 1 column 1: expected mapping start; \
             mend it until `kubectl config view` shows it",
        ),
        ("config/x", None, "cannot read the kubeconfig config/x: Not a directory (os error 20)"),
        (
            "none-current",
            None,
            r#"the kubeconfig none-current has no current context; it has "home", "lost", "keyless""#,
        ),
        (
            "config",
            Some("away"),
            r#"the kubeconfig config has no context "away"; it has "home", "lost", "keyless""#,
        ),
        (
            "config",
            Some("lost"),
            r#"the context "lost" of the kubeconfig config names the cluster "nowhere", which is not in it"#,
        ),
        (
            "url",
            None,
            r#"the context "home" of the kubeconfig url cannot be used: failed to parse cluster url: invalid authority"#,
        ),
    ] {
        assert_eq!(directory.file(file, context).await, expected);
    }
}

#[tokio::test]
async fn without_a_choice_it_is_as_with_kubectl() {
    let directory = Directory::with(&[("a", "current-context: home"), ("b", GOOD)]);
    let said = async |env: &[(&str, &str)]| directory.said(Choice::default(), env).await;
    let path = |name: &str| directory.path(name).display().to_string();
    let list = format!("{}:{}::{}", path("missing"), path("a"), path("b"));
    assert_eq!(said(&[("KUBECONFIG", &list)]).await, r#"the context "home" of the kubeconfig a, b in shop"#);
    let home = directory.0.path().display().to_string();
    let missing = "there is no kubeconfig at .kube/config; set KUBECONFIG to one";
    assert_eq!(said(&[("HOME", &home)]).await, missing);
    fs::create_dir(directory.path(".kube")).unwrap();
    fs::write(directory.path(".kube/config"), GOOD).unwrap();
    assert_eq!(
        said(&[("HOME", &home)]).await,
        r#"the context "home" of the kubeconfig .kube/config in shop"#
    );
    let nowhere = "there is no kubeconfig: neither KUBECONFIG nor HOME is set; set KUBECONFIG to one";
    assert_eq!(said(&[]).await, nowhere);
}

#[tokio::test]
async fn a_pod_without_a_kubeconfig_uses_its_service_account_and_a_file_that_is_broken_is_not_passed_over() {
    let directory = Directory::with(&[("bracket", "a: [")]);
    let home = directory.0.path().display().to_string();
    let pod = ("KUBERNETES_SERVICE_HOST", "10.96.0.1");
    for env in [&[("HOME", home.as_str()), pod][..], &[pod]] {
        let said = directory.said(Choice::default(), env).await;
        assert!(said.starts_with("the service account of this pod cannot be used: "), "{said}");
    }
    let bracket = directory.path("bracket").display().to_string();
    let said = directory.said(Choice::default(), &[("KUBECONFIG", &bracket), pod]).await;
    assert!(said.starts_with("the kubeconfig bracket is malformed"), "{said}");
    let said = directory
        .said(Choice { context: Some("home".into()), ..Choice::default() }, &[("HOME", &home), pod])
        .await;
    assert!(said.starts_with("there is no kubeconfig"), "a context was asked for: {said}");
}
