//! Patches.

use serde_json::{Value, json};

use super::scratch::{Failed, JSON_PATCH, MERGE, STRATEGIC, Scratch, idle_pod, same};

pub(super) async fn a_merge_patch_sets_and_removes(s: Scratch) -> Result<(), Failed> {
    s.map("a", json!({ "l": "1", "m": "2" })).await?;
    let path = s.at("configmaps/a");
    let patch = json!({ "metadata": { "labels": { "l": null, "n": "3" } }, "data": { "k": "v" } });
    let patched = s.patch(MERGE, &path, patch).await?.expect(200)?.body;
    same("labels", &patched["metadata"]["labels"], json!({ "m": "2", "n": "3" }))?;
    same("data", &patched["data"], json!({ "k": "v" }))?;
    let emptied = s.patch(MERGE, &path, json!({ "data": null })).await?.expect(200)?.body;
    same("data", &emptied["data"], Value::Null)?;
    s.patch(MERGE, &s.at("configmaps/b"), json!({})).await?.refused(404, "NotFound").map(drop)
}

pub(super) async fn a_json_patch_tests_before_it_changes(s: Scratch) -> Result<(), Failed> {
    s.map("a", json!({ "l": "1" })).await?;
    let path = s.at("configmaps/a");
    let patch = async |operations: Value| s.patch(JSON_PATCH, &path, operations).await;
    let label = "/metadata/labels/l";
    let good = json!([
        { "op": "test", "path": label, "value": "1" },
        { "op": "replace", "path": label, "value": "2" },
        { "op": "add", "path": "/data", "value": { "k": "v" } },
    ]);
    let patched = patch(good).await?.expect(200)?.body;
    same("label", &patched["metadata"]["labels"]["l"], "2")?;
    for wrong in [
        json!([{ "op": "test", "path": label, "value": "1" }, { "op": "remove", "path": label }]),
        json!([{ "op": "remove", "path": "/data/none" }]),
        json!([{ "op": "paint", "path": label }]),
    ] {
        patch(wrong).await?.refused(422, "Invalid")?;
    }
    same("what is left", &s.get(&path).await?.expect(200)?.body, patched)
}

pub(super) async fn a_strategic_patch_merges_lists_by_key(s: Scratch) -> Result<(), Failed> {
    let path = s.at_group("apps/v1", "deployments");
    let container =
        |name: &str| json!({ "name": name, "image": "x", "env": [{ "name": "A", "value": "1" }] });
    let template = json!({
        "metadata": { "labels": { "app": "a" } },
        "spec": { "containers": [container("one"), container("two")], "volumes": [{ "name": "v", "emptyDir": {} }] },
    });
    let spec = json!({ "replicas": 0, "paused": true, "selector": { "matchLabels": { "app": "a" } }, "template": template });
    s.post(&path, json!({ "metadata": { "name": "a" }, "spec": spec })).await?.expect(201)?;
    let patch = async |spec: Value| {
        let patch = json!({ "spec": { "template": { "spec": spec } } });
        let patched = s.patch(STRATEGIC, &format!("{path}/a"), patch).await?.expect(200)?.body;
        Ok::<_, Failed>(patched["spec"]["template"]["spec"].clone())
    };
    let merged = patch(json!({ "containers": [
        { "name": "two", "env": [{ "name": "B", "value": "2" }] }, { "name": "three", "image": "y" },
    ] }))
    .await?;
    same("order", &names(&merged["containers"]), json!(["one", "two", "three"]))?;
    same("variables", &names(&merged["containers"][1]["env"]), json!(["B", "A"]))?;
    let fewer = patch(json!({ "containers": [{ "name": "one", "$patch": "delete" }] })).await?;
    same("what is left", &names(&fewer["containers"]), json!(["two", "three"]))?;
    let volume = json!({ "name": "v", "emptyDir": null, "secret": { "secretName": "s" } });
    let changed = patch(json!({ "volumes": [volume] })).await?;
    same("volume", &changed["volumes"][0]["secret"]["secretName"], "s")?;
    let replaced =
        patch(json!({ "containers": [{ "name": "only", "image": "z" }, { "$patch": "replace" }] })).await?;
    same("replaced", &names(&replaced["containers"]), json!(["only"]))?;
    s.post(&s.at("pods"), idle_pod("a", json!({}))).await?.expect(201)?;
    let condition = |kind: &str| json!({ "status": { "conditions": [{ "type": kind, "status": "True" }] } });
    let status = s.at("pods/a/status");
    s.patch(STRATEGIC, &status, condition("First")).await?.expect(200)?;
    let both = s.patch(STRATEGIC, &status, condition("Second")).await?.expect(200)?.body;
    let kinds: Value =
        both["status"]["conditions"].as_array().into_iter().flatten().map(|c| c["type"].clone()).collect();
    same("conditions", &kinds, json!(["Second", "First"]))
}

pub(super) async fn a_patch_with_a_version_is_conditional(s: Scratch) -> Result<(), Failed> {
    let made = s.map("a", json!({})).await?;
    let path = s.at("configmaps/a");
    let patch = |version: &Value, text: &str| json!({ "metadata": { "resourceVersion": version }, "data": { "k": text } });
    let seen = &made["metadata"]["resourceVersion"];
    s.patch(MERGE, &path, patch(seen, "1")).await?.expect(200)?;
    s.patch(MERGE, &path, patch(seen, "2")).await?.refused(409, "Conflict").map(drop)
}

pub(super) async fn patches_of_unknown_form_are_refused(s: Scratch) -> Result<(), Failed> {
    s.map("a", json!({})).await?;
    let path = s.at("configmaps/a");
    s.patch("application/json", &path, json!({})).await?.refused(415, "UnsupportedMediaType")?;
    s.patch(MERGE, &path, json!({ "data": { "k": 1 } })).await?;
    s.patch(MERGE, &path, json!({ "metadata": { "labels": { "l": "-" } } }))
        .await?
        .refused(422, "Invalid")
        .map(drop)
}

fn names(items: &Value) -> Value {
    items.as_array().into_iter().flatten().map(|item| item["name"].clone()).collect()
}
