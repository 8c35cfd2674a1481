//! Creating, replacing and refusing objects.

use http::Method;
use serde_json::{Value, json};

use super::scratch::{Failed, MERGE, STRATEGIC, Scratch, ensure, idle_pod, same, uid, version};

pub(super) async fn a_created_object_has_an_identity(s: Scratch) -> Result<(), Failed> {
    let body = json!({ "metadata": { "name": "a", "uid": "mine", "creationTimestamp": "2001-01-01T00:00:00Z" },
        "data": { "k": "v" }, "unknown": 1 });
    let made = s.post(&s.at("configmaps"), body).await?.expect(201)?.body;
    same("kind", &made["kind"], "ConfigMap")?;
    same("version", &made["apiVersion"], "v1")?;
    same("namespace", &made["metadata"]["namespace"], s.namespace.as_str())?;
    same("data", &made["data"], json!({ "k": "v" }))?;
    same("a field nobody knows", &made["unknown"], Value::Null)?;
    ensure(uid(&made).len() == 36, || format!("no uid in {made}"))?;
    ensure(version(&made).parse::<u64>().is_ok(), || format!("no version in {made}"))?;
    let created = made["metadata"]["creationTimestamp"].as_str().unwrap_or_default();
    ensure(created.ends_with('Z') && !created.starts_with("2001"), || format!("no creation time in {made}"))?;
    let read = s.get(&s.at("configmaps/a")).await?.expect(200)?.body;
    same("what is read back", &read, made)
}

pub(super) async fn a_name_is_taken_once(s: Scratch) -> Result<(), Failed> {
    s.map("a", json!({})).await?;
    let again = s.post(&s.at("configmaps"), json!({ "metadata": { "name": "a" } })).await?;
    let refused = again.refused(409, "AlreadyExists")?;
    same("message", &refused.body["message"], "configmaps \"a\" already exists")?;
    same("details", &refused.body["details"], json!({ "name": "a", "kind": "configmaps" }))?;
    s.get(&s.at("configmaps/b")).await?.refused(404, "NotFound").map(drop)
}

pub(super) async fn a_generated_name_keeps_its_prefix(s: Scratch) -> Result<(), Failed> {
    let mut seen = Vec::new();
    for _ in 0..3 {
        let body = json!({ "metadata": { "generateName": "web-" } });
        let made = s.post(&s.at("configmaps"), body).await?.expect(201)?.body;
        let name = made["metadata"]["name"].as_str().unwrap_or_default().to_owned();
        ensure(name.len() == 9 && name.starts_with("web-") && !seen.contains(&name), || name.clone())?;
        seen.push(name);
    }
    Ok(())
}

pub(super) async fn nothing_is_created_in_a_namespace_that_is_not_there(s: Scratch) -> Result<(), Failed> {
    let path = format!("/api/v1/namespaces/{}-none/secrets", s.namespace);
    let refused = s.post(&path, json!({ "metadata": { "name": "a" } })).await?.refused(404, "NotFound")?;
    same("what is missing", &refused.body["details"]["kind"], "namespaces")
}

pub(super) async fn objects_that_break_the_rules_are_refused(s: Scratch) -> Result<(), Failed> {
    let long = "x".repeat(64);
    let owner = |name: &str, controller: bool| json!({ "apiVersion": "v1", "kind": "Pod", "name": name, "uid": "u", "controller": controller });
    let meta = |meta: Value| json!({ "metadata": meta });
    let cases: Vec<(&str, Value, &[&str])> = vec![
        ("configmaps", meta(json!({})), &["metadata.name"]),
        ("configmaps", meta(json!({ "name": "Upper" })), &["metadata.name"]),
        ("configmaps", meta(json!({ "name": "a", "labels": { "k": long } })), &["metadata.labels"]),
        ("configmaps", meta(json!({ "name": "a", "labels": { "k": "-" } })), &["metadata.labels"]),
        ("configmaps", meta(json!({ "name": "a", "labels": { "a b": "" } })), &["metadata.labels"]),
        ("configmaps", meta(json!({ "name": "a", "annotations": { "a b": "" } })), &["metadata.annotations"]),
        ("configmaps", meta(json!({ "name": "a", "finalizers": ["bare"] })), &["metadata.finalizers[0]"]),
        (
            "configmaps",
            meta(json!({ "name": "a", "ownerReferences": [owner("", false)] })),
            &["metadata.ownerReferences.name"],
        ),
        (
            "configmaps",
            meta(json!({ "name": "a", "ownerReferences": [owner("p", true), owner("q", true)] })),
            &["metadata.ownerReferences"],
        ),
        ("configmaps", json!({ "metadata": { "name": "a" }, "data": { "a b": "" } }), &["data[a b]"]),
        (
            "secrets",
            json!({ "metadata": { "name": "a" }, "type": "kubernetes.io/tls" }),
            &["data[tls.crt]", "data[tls.key]"],
        ),
        (
            "services",
            json!({ "metadata": { "name": "1a" }, "spec": { "ports": [{ "port": 1 }] } }),
            &["metadata.name"],
        ),
        ("services", json!({ "metadata": { "name": "a" }, "spec": {} }), &["spec.ports"]),
        (
            "services",
            json!({ "metadata": { "name": "a" }, "spec": { "ports": [{ "port": 1 }, { "port": 2 }] } }),
            &["spec.ports[0].name", "spec.ports[1].name"],
        ),
        ("pods", json!({ "metadata": { "name": "a" }, "spec": {} }), &["spec.containers"]),
        (
            "pods",
            json!({ "metadata": { "name": "a" }, "spec": { "containers": [{ "name": "a" }, { "name": "a", "image": "x" }] } }),
            &["spec.containers[0].image", "spec.containers[1].name"],
        ),
    ];
    for (kind, body, fields) in cases {
        s.post(&s.at(kind), body).await?.refused(422, "Invalid")?.blames(fields)?;
    }
    let deployments = s.at_group("apps/v1", "deployments");
    let stranger = deployment("a", json!({ "app": "other" }));
    let refused = s.post(&deployments, stranger).await?.refused(422, "Invalid")?;
    refused.blames(&["spec.template.metadata.labels"]).map(drop)
}

pub(super) async fn requests_that_do_not_fit_are_refused(s: Scratch) -> Result<(), Failed> {
    let maps = s.at("configmaps");
    s.map("a", json!({})).await?;
    let post = async |body: Value| s.post(&maps, body).await;
    post(json!({ "kind": "Secret", "apiVersion": "v1", "metadata": { "name": "b" } }))
        .await?
        .refused(400, "BadRequest")?;
    post(json!({ "metadata": { "name": "b", "namespace": "elsewhere" } }))
        .await?
        .refused(400, "BadRequest")?;
    post(json!({ "metadata": { "name": "b" }, "data": { "k": 1 } })).await?.refused(400, "BadRequest")?;
    post(json!([])).await?.refused(400, "BadRequest")?;
    post(json!({ "metadata": { "name": "b", "resourceVersion": "1" } })).await?.expect(500)?;
    let broken = json!({ "metadata": { "name": "b" }, "data": { "k": "!" } });
    s.post(&s.at("secrets"), broken).await?.refused(400, "BadRequest")?;
    let renamed = json!({ "metadata": { "name": "b" } });
    s.put(&s.at("configmaps/a"), renamed).await?.refused(400, "BadRequest")?;
    s.put(&maps, json!({})).await?.refused(405, "MethodNotAllowed")?;
    s.post(&s.at("configmaps/a"), json!({})).await?.refused(405, "MethodNotAllowed")?;
    s.post("/api/v1/configmaps", json!({ "metadata": { "name": "b" } }))
        .await?
        .refused(405, "MethodNotAllowed")?;
    s.get(&s.at("colours/red")).await?.refused(404, "NotFound")?;
    s.exchange(Method::POST, &maps, "application/json", "{".to_owned())
        .await?
        .refused(400, "BadRequest")
        .map(drop)
}

pub(super) async fn a_replacement_names_the_version_it_replaces(s: Scratch) -> Result<(), Failed> {
    let first = s.map("a", json!({})).await?;
    let path = s.at("configmaps/a");
    let body = |version: &str, text: &str| json!({ "metadata": { "name": "a", "resourceVersion": version }, "data": { "k": text } });
    let second = s.put(&path, body(&version(&first), "1")).await?.expect(200)?;
    ensure(second.version() != version(&first), || "a change made no new version".to_owned())?;
    let stale = s.put(&path, body(&version(&first), "2")).await?.refused(409, "Conflict")?;
    let message = stale.body["message"].as_str().unwrap_or_default();
    ensure(message.contains("the object has been modified"), || message.to_owned())?;
    let other = json!({ "metadata": { "name": "a", "uid": "other" } });
    s.put(&path, other).await?.refused(409, "Conflict")?;
    s.put(&path, body("", "3")).await?.expect(200)?;
    s.put(&s.at("configmaps/b"), json!({ "metadata": { "name": "b" } }))
        .await?
        .refused(404, "NotFound")
        .map(drop)
}

pub(super) async fn a_replacement_that_changes_nothing_is_no_new_version(s: Scratch) -> Result<(), Failed> {
    let made = s.map("a", json!({ "l": "1" })).await?;
    let path = s.at("configmaps/a");
    let same_again = s.put(&path, made.clone()).await?.expect(200)?.body;
    same("version", &same_again["metadata"]["resourceVersion"], version(&made))?;
    let nothing =
        s.patch(MERGE, &path, json!({ "metadata": { "labels": { "l": "1" } } })).await?.expect(200)?.body;
    same("version", &nothing["metadata"]["resourceVersion"], version(&made))
}

pub(super) async fn what_the_server_wrote_cannot_be_changed(s: Scratch) -> Result<(), Failed> {
    let made = s.map("a", json!({})).await?;
    let path = s.at("configmaps/a");
    let mut forged = made.clone();
    forged["metadata"]["creationTimestamp"] = "2001-01-01T00:00:00Z".into();
    forged["metadata"]["generation"] = 7.into();
    forged["data"] = json!({ "k": "v" });
    let kept = s.put(&path, forged).await?.expect(200)?.body;
    same(
        "creation time",
        &kept["metadata"]["creationTimestamp"],
        made["metadata"]["creationTimestamp"].clone(),
    )?;
    same("uid", &kept["metadata"]["uid"], uid(&made))?;
    let patch = async |meta: Value| s.patch(MERGE, &path, json!({ "metadata": meta })).await;
    patch(json!({ "uid": "x" })).await?.refused(422, "Invalid")?.blames(&["metadata.uid"])?;
    patch(json!({ "name": "x" })).await?.refused(400, "BadRequest")?;
    patch(json!({ "namespace": "x" })).await?.refused(400, "BadRequest").map(drop)
}

pub(super) async fn status_and_spec_are_written_apart(s: Scratch) -> Result<(), Failed> {
    let mut pod = idle_pod("a", json!({}));
    pod["status"] = json!({ "phase": "Running", "podIP": "10.1.2.3" });
    let made = s.post(&s.at("pods"), pod).await?.expect(201)?.body;
    same("phase of a new pod", &made["status"]["phase"], "Pending")?;
    same("address of a new pod", &made["status"]["podIP"], Value::Null)?;
    let both = json!({
        "metadata": { "annotations": { "via": "status" } },
        "spec": { "hostNetwork": true },
        "status": { "phase": "Running", "podIP": "10.1.2.3" },
    });
    let reported = s.patch(STRATEGIC, &s.at("pods/a/status"), both).await?.expect(200)?.body;
    same("phase", &reported["status"]["phase"], "Running")?;
    same("spec", &reported["spec"], made["spec"].clone())?;
    same("annotation", &reported["metadata"]["annotations"]["via"], "status")?;
    let patch = json!({ "metadata": { "labels": { "l": "1" } }, "status": { "phase": "Failed" } });
    let labelled = s.patch(MERGE, &s.at("pods/a"), patch).await?.expect(200)?.body;
    same("status after a patch of the pod", &labelled["status"], reported["status"].clone())?;
    let read = s.get(&s.at("pods/a/status")).await?.expect(200)?.body;
    same("the subresource shows the whole object", &read, labelled)
}

pub(super) async fn a_generation_counts_changes_of_the_spec(s: Scratch) -> Result<(), Failed> {
    let path = s.at_group("apps/v1", "deployments/a");
    let made = s.post(&s.at_group("apps/v1", "deployments"), deployment("a", json!({ "app": "a" }))).await?;
    same("first generation", &made.expect(201)?.body["metadata"]["generation"], 1)?;
    let labelled =
        s.patch(MERGE, &path, json!({ "metadata": { "labels": { "l": "1" } } })).await?.expect(200)?;
    same("after a label", &labelled.body["metadata"]["generation"], 1)?;
    let changed = s.patch(MERGE, &path, json!({ "spec": { "minReadySeconds": 3 } })).await?.expect(200)?;
    same("after a change of the spec", &changed.body["metadata"]["generation"], 2)
}

pub(super) async fn some_kinds_are_created_by_replacing(s: Scratch) -> Result<(), Failed> {
    let lease = s.at_group("coordination.k8s.io/v1", "leases/a");
    let body = json!({ "metadata": { "name": "a" }, "spec": { "holderIdentity": "me" } });
    s.put(&lease, body).await?.expect(201)?;
    s.put(&s.at("endpoints/a"), json!({ "metadata": { "name": "a" } })).await?.expect(201).map(drop)
}

pub(super) async fn secrets_take_plain_text_and_keep_their_type(s: Scratch) -> Result<(), Failed> {
    let body = json!({ "metadata": { "name": "a" }, "data": { "k": "eA==", "l": "eQ==" }, "stringData": { "k": "hi" } });
    let made = s.post(&s.at("secrets"), body).await?.expect(201)?.body;
    same("data", &made["data"], json!({ "k": "aGk=", "l": "eQ==" }))?;
    same("plain text", &made["stringData"], Value::Null)?;
    same("type", &made["type"], "Opaque")?;
    let refused = s.patch(MERGE, &s.at("secrets/a"), json!({ "type": "other" })).await?;
    refused.refused(422, "Invalid")?.blames(&["type"]).map(drop)
}

pub(super) async fn what_is_immutable_stays(s: Scratch) -> Result<(), Failed> {
    let sealed = json!({ "metadata": { "name": "a" }, "immutable": true, "data": { "k": "eA==" } });
    s.post(&s.at("secrets"), sealed).await?.expect(201)?;
    let opened = s.patch(MERGE, &s.at("secrets/a"), json!({ "data": { "k": "eQ==" } })).await?;
    opened.refused(422, "Invalid")?.blames(&["data"])?;
    let path = s.at_group("apps/v1", "deployments");
    s.post(&path, deployment("a", json!({ "app": "a" }))).await?.expect(201)?;
    let labels = json!({ "matchLabels": { "app": "b" } });
    let spec = json!({ "selector": labels, "template": { "metadata": { "labels": { "app": "b" } } } });
    let moved = s.patch(MERGE, &format!("{path}/a"), json!({ "spec": spec })).await?;
    moved.refused(422, "Invalid")?.blames(&["spec.selector"])?;
    s.post(&s.at("pods"), idle_pod("a", json!({}))).await?.expect(201)?;
    let hosted = s.patch(MERGE, &s.at("pods/a"), json!({ "spec": { "hostNetwork": true } })).await?;
    hosted.refused(422, "Invalid")?;
    let image = json!({ "spec": { "containers": [{ "name": "app", "image": "example/app:2" }] } });
    s.patch(STRATEGIC, &s.at("pods/a"), image).await?.expect(200)?;
    let rbac = "rbac.authorization.k8s.io/v1";
    let role = |name: &str| json!({ "apiGroup": "rbac.authorization.k8s.io", "kind": "Role", "name": name });
    let binding = json!({ "metadata": { "name": "a" }, "roleRef": role("a") });
    s.post(&s.at_group(rbac, "rolebindings"), binding).await?.expect(201)?;
    let moved = s.patch(MERGE, &s.at_group(rbac, "rolebindings/a"), json!({ "roleRef": role("b") })).await?;
    moved.refused(422, "Invalid")?.blames(&["roleRef"]).map(drop)
}

pub(super) async fn a_dry_run_stores_nothing(s: Scratch) -> Result<(), Failed> {
    let body = json!({ "metadata": { "name": "a" } });
    s.post(&s.at("configmaps?dryRun=All"), body.clone()).await?.expect(201)?;
    ensure(!s.exists(&s.at("configmaps/a")).await?, || "a dry run created something".to_owned())?;
    let made = s.post(&s.at("configmaps"), body).await?.expect(201)?.body;
    let patch = json!({ "data": { "k": "v" } });
    let dry = s.patch(MERGE, &s.at("configmaps/a?dryRun=All"), patch).await?.expect(200)?.body;
    same("what it would be", &dry["data"]["k"], "v")?;
    s.delete(&s.at("configmaps/a?dryRun=All"), None).await?.expect(200)?;
    same("what it is", &s.get(&s.at("configmaps/a")).await?.expect(200)?.body, made)?;
    let odd = s.post(&s.at("configmaps?dryRun=Some"), json!({ "metadata": { "name": "b" } })).await?;
    odd.refused(422, "Invalid")?.blames(&["dryRun"]).map(drop)
}

pub(super) async fn a_service_keeps_its_address(s: Scratch) -> Result<(), Failed> {
    let service = |name: &str, spec: Value| json!({ "metadata": { "name": name }, "spec": spec });
    let ports = json!([{ "port": 80 }]);
    let made = s.post(&s.at("services"), service("a", json!({ "ports": ports }))).await?.expect(201)?.body;
    let address = made["spec"]["clusterIP"].as_str().unwrap_or_default().to_owned();
    ensure(address.parse::<std::net::IpAddr>().is_ok(), || format!("no address in {made}"))?;
    same("type", &made["spec"]["type"], "ClusterIP")?;
    same("ports", &made["spec"]["ports"], json!([{ "port": 80, "targetPort": 80, "protocol": "TCP" }]))?;
    let replaced = s.put(&s.at("services/a"), service("a", json!({ "ports": [{ "port": 81 }] }))).await;
    // An old server wants the address repeated, a new one keeps it by itself; neither gives another.
    let replaced = replaced?;
    ensure(matches!(replaced.code, 200 | 422), || format!("{replaced:?}"))?;
    let read = s.get(&s.at("services/a")).await?.expect(200)?.body;
    same("address", &read["spec"]["clusterIP"], address)?;
    let moved =
        s.patch(MERGE, &s.at("services/a"), json!({ "spec": { "clusterIP": "10.96.255.254" } })).await?;
    moved.refused(422, "Invalid")?.blames(&["spec.clusterIPs[0]"])?;
    let headless =
        s.post(&s.at("services"), service("b", json!({ "ports": ports, "clusterIP": "None" }))).await?;
    same("headless", &headless.expect(201)?.body["spec"]["clusterIP"], "None")
}

pub(super) async fn a_pod_is_bound_once(s: Scratch) -> Result<(), Failed> {
    s.post(&s.at("pods"), idle_pod("a", json!({}))).await?.expect(201)?;
    let bind =
        |node: &str| json!({ "metadata": { "name": "a" }, "target": { "kind": "Node", "name": node } });
    s.post(&s.at("pods/a/binding"), bind("node-x")).await?.expect(201)?;
    let bound = s.get(&s.at("pods/a")).await?.expect(200)?.body;
    same("node", &bound["spec"]["nodeName"], "node-x")?;
    s.post(&s.at("pods/a/binding"), bind("node-y")).await?.refused(409, "Conflict")?;
    s.delete(&s.at("pods/a"), Some(json!({ "gracePeriodSeconds": 0 }))).await?.expect(200).map(drop)
}

pub(super) async fn a_lease_changes_hands_by_version(s: Scratch) -> Result<(), Failed> {
    let path = s.at_group("coordination.k8s.io/v1", "leases");
    let lease = |version: &str, holder: &str| {
        json!({ "metadata": { "name": "a", "resourceVersion": version },
            "spec": { "holderIdentity": holder, "leaseDurationSeconds": 15, "renewTime": "2026-01-01T00:00:00.123456Z" } })
    };
    let made = s.post(&path, lease("", "one")).await?.expect(201)?;
    same("time of renewal", &made.body["spec"]["renewTime"], "2026-01-01T00:00:00.123456Z")?;
    let one = format!("{path}/a");
    s.put(&one, lease("", "two")).await?.refused(422, "Invalid")?.blames(&["metadata.resourceVersion"])?;
    s.put(&one, lease(&made.version(), "two")).await?.expect(200)?;
    s.put(&one, lease(&made.version(), "three")).await?.refused(409, "Conflict").map(drop)
}

pub(super) async fn defaults_are_filled_in(s: Scratch) -> Result<(), Failed> {
    let pod = s.post(&s.at("pods"), idle_pod("a", json!({}))).await?.expect(201)?.body;
    same("restart policy", &pod["spec"]["restartPolicy"], "Always")?;
    same("grace", &pod["spec"]["terminationGracePeriodSeconds"], 30)?;
    let container = &pod["spec"]["containers"][0];
    same("protocol", &container["ports"][0]["protocol"], "TCP")?;
    same("pull policy", &container["imagePullPolicy"], "IfNotPresent")?;
    let path = s.at_group("apps/v1", "deployments");
    let body = deployment("a", json!({ "app": "a" }));
    let made = s.post(&path, body).await?.expect(201)?.body;
    same(
        "strategy",
        &made["spec"]["strategy"]["rollingUpdate"],
        json!({ "maxUnavailable": "25%", "maxSurge": "25%" }),
    )?;
    same("history", &made["spec"]["revisionHistoryLimit"], 10)?;
    let job = json!({ "metadata": { "name": "a" }, "spec": { "template": { "spec": {
        "restartPolicy": "Never", "schedulerName": "nobody", "containers": [{ "name": "c", "image": "x" }] } } } });
    let job = s.post(&s.at_group("batch/v1", "jobs"), job).await?.expect(201)?.body;
    let labels = job["spec"]["template"]["metadata"]["labels"].as_object().cloned().unwrap_or_default();
    ensure(labels.values().any(|label| *label == uid(&job)), || {
        format!("a job does not know its pods: {job}")
    })
}

pub(super) async fn reviews_are_answered(s: Scratch) -> Result<(), Failed> {
    let path = "/apis/authentication.k8s.io/v1/tokenreviews";
    let unknown = s.post(path, json!({ "spec": { "token": "nonsense" } })).await?.expect(201)?.body;
    same("an unknown token", &unknown["status"]["authenticated"], Value::Null)?;
    s.post(path, json!({ "spec": {} })).await?.refused(400, "BadRequest")?;
    s.post(&s.at("serviceaccounts"), json!({ "metadata": { "name": "a" } })).await?.expect(201)?;
    let issued = s.post(&s.at("serviceaccounts/a/token"), json!({ "spec": {} })).await?.expect(201)?.body;
    let token = issued["status"]["token"].clone();
    let known = s.post(path, json!({ "spec": { "token": token } })).await?.expect(201)?.body;
    same("an issued token", &known["status"]["authenticated"], true)?;
    let name = format!("system:serviceaccount:{}:a", s.namespace);
    same("whose it is", &known["status"]["user"]["username"], name)?;
    let ask = json!({ "spec": { "resourceAttributes": { "verb": "list", "resource": "pods" } } });
    let path = "/apis/authorization.k8s.io/v1/selfsubjectaccessreviews";
    same("what we may do", &s.post(path, ask).await?.expect(201)?.body["status"]["allowed"], true)
}

pub(super) async fn discovery_lists_the_kinds(s: Scratch) -> Result<(), Failed> {
    same("core versions", &s.get("/api").await?.expect(200)?.body["versions"], json!(["v1"]))?;
    for (path, kinds) in [
        (
            "/api/v1",
            &["pods", "pods/status", "services", "endpoints", "secrets", "configmaps", "namespaces"][..],
        ),
        ("/apis/apps/v1", &["deployments", "replicasets", "statefulsets", "daemonsets"]),
        ("/apis/batch/v1", &["jobs"]),
        ("/apis/coordination.k8s.io/v1", &["leases"]),
        ("/apis/authentication.k8s.io/v1", &["tokenreviews"]),
        (
            "/apis/rbac.authorization.k8s.io/v1",
            &["roles", "rolebindings", "clusterroles", "clusterrolebindings"],
        ),
    ] {
        let document = s.get(path).await?.expect(200)?.body;
        let resources = document["resources"].as_array().cloned().unwrap_or_default();
        for kind in kinds {
            ensure(resources.iter().any(|known| known["name"] == *kind), || format!("{path} has no {kind}"))?;
        }
    }
    let groups = s.get("/apis").await?.expect(200)?.body["groups"].clone();
    let apps = groups.as_array().into_iter().flatten().any(|group| group["name"] == "apps");
    ensure(apps, || "no group apps".to_owned())?;
    s.get("/readyz").await?.expect(200)?;
    s.get("/apis/apps/v7").await?.expect(404).map(drop)
}

/// A Deployment that makes no pods, whose selector wants `app` to be its name.
fn deployment(name: &str, labels: Value) -> Value {
    json!({
        "metadata": { "name": name },
        "spec": {
            "replicas": 0,
            "selector": { "matchLabels": { "app": name } },
            "template": { "metadata": { "labels": labels }, "spec": { "containers": [{ "name": "c", "image": "x" }] } },
        },
    })
}
