//! Server-side apply and who owns what.

use serde_json::{Value, json};

use super::scratch::{APPLY, Answer, Failed, MERGE, Scratch, ensure, same, uid, version};

/// Applies data to the ConfigMap `a` as `manager`.
async fn apply(s: &Scratch, manager: &str, data: Value) -> Result<Answer, Failed> {
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" }, "data": data });
    s.patch(APPLY, &s.at(&format!("configmaps/a?fieldManager={manager}")), body).await
}

pub(super) async fn applying_creates_and_then_changes(s: Scratch) -> Result<(), Failed> {
    let made = apply(&s, "one", json!({ "k": "1" })).await?.expect(201)?.body;
    let row = made["metadata"]["managedFields"][0].clone();
    same("manager", &row["manager"], "one")?;
    same("operation", &row["operation"], "Apply")?;
    same("fields", &row["fieldsV1"], json!({ "f:data": { "f:k": {} } }))?;
    let again = apply(&s, "one", json!({ "k": "1" })).await?.expect(200)?.body;
    same("version after the same again", &again["metadata"]["resourceVersion"], version(&made))?;
    let changed = apply(&s, "one", json!({ "k": "2" })).await?.expect(200)?.body;
    same("data", &changed["data"], json!({ "k": "2" }))?;
    same("uid", &changed["metadata"]["uid"], uid(&made))
}

pub(super) async fn what_is_no_longer_applied_goes(s: Scratch) -> Result<(), Failed> {
    apply(&s, "one", json!({ "a": "1", "b": "1" })).await?.expect(201)?;
    apply(&s, "two", json!({ "c": "2" })).await?.expect(200)?;
    let fewer = apply(&s, "one", json!({ "a": "1" })).await?.expect(200)?.body;
    same("data", &fewer["data"], json!({ "a": "1", "c": "2" }))
}

pub(super) async fn contested_fields_conflict_until_forced(s: Scratch) -> Result<(), Failed> {
    apply(&s, "one", json!({ "k": "1" })).await?.expect(201)?;
    let refused =
        apply(&s, "two", json!({ "k": "2" })).await?.refused(409, "Conflict")?.blames(&[".data.k"])?;
    let message = "Apply failed with 1 conflict: conflict with \"one\": .data.k";
    same("message", &refused.body["message"], message)?;
    same("reason", &refused.body["details"]["causes"][0]["reason"], "FieldManagerConflict")?;
    let forced = apply(&s, "two&force=true", json!({ "k": "2" })).await?.expect(200)?.body;
    same("data", &forced["data"], json!({ "k": "2" }))?;
    // Who was overruled owns nothing any more, so that letting go removes nothing.
    let gone = apply(&s, "one", json!({})).await?.expect(200)?.body;
    same("data", &gone["data"], json!({ "k": "2" }))
}

pub(super) async fn equal_values_are_shared(s: Scratch) -> Result<(), Failed> {
    apply(&s, "one", json!({ "k": "1" })).await?.expect(201)?;
    apply(&s, "two", json!({ "k": "1" })).await?.expect(200)?;
    let kept = apply(&s, "one", json!({})).await?.expect(200)?.body;
    same("data", &kept["data"], json!({ "k": "1" }))?;
    let gone = apply(&s, "two", json!({})).await?.expect(200)?.body;
    same("data", &gone["data"], Value::Null)
}

pub(super) async fn an_update_takes_fields_over(s: Scratch) -> Result<(), Failed> {
    apply(&s, "one", json!({ "k": "1", "l": "1" })).await?.expect(201)?;
    let path = s.at("configmaps/a?fieldManager=editor");
    s.patch(MERGE, &path, json!({ "data": { "k": "2" } })).await?.expect(200)?;
    let refused = apply(&s, "one", json!({ "k": "1", "l": "1" })).await?.refused(409, "Conflict")?;
    let message = refused.body["message"].as_str().unwrap_or_default();
    ensure(message.contains("conflict with \"editor\" using v1") && message.ends_with(".data.k"), || {
        message.to_owned()
    })?;
    // Of what the other has taken over, letting go leaves the other's value.
    let less = apply(&s, "one", json!({})).await?.expect(200)?.body;
    same("data", &less["data"], json!({ "k": "2" }))
}

pub(super) async fn list_items_are_applied_by_key(s: Scratch) -> Result<(), Failed> {
    let apply = async |manager: &str, spec: Value| {
        let body =
            json!({ "apiVersion": "v1", "kind": "Service", "metadata": { "name": "a" }, "spec": spec });
        s.patch(APPLY, &s.at(&format!("services/a?fieldManager={manager}")), body).await
    };
    let port = |name: &str, port: u16| json!({ "name": name, "port": port, "protocol": "TCP" });
    apply("one", json!({ "ports": [port("x", 80)] })).await?.expect(201)?;
    let both = apply("two", json!({ "ports": [port("y", 81)] })).await?.expect(200)?.body;
    let names = |service: &Value| -> Value {
        service["spec"]["ports"].as_array().into_iter().flatten().map(|port| port["name"].clone()).collect()
    };
    same("ports of both", &names(&both), json!(["x", "y"]))?;
    apply("two", json!({ "ports": [port("z", 80)] })).await?.refused(409, "Conflict")?;
    let left = apply("two", json!({ "selector": { "app": "a" } })).await?.expect(200)?.body;
    same("ports of one", &names(&left), json!(["x"]))
}

pub(super) async fn applying_without_a_manager_is_refused(s: Scratch) -> Result<(), Failed> {
    let body = json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "a" } });
    let path = s.at("configmaps/a");
    s.patch(APPLY, &path, body.clone()).await?.refused(422, "Invalid")?.blames(&["fieldManager"])?;
    s.patch(APPLY, &format!("{path}?fieldManager=one"), json!({ "data": {} }))
        .await?
        .refused(400, "BadRequest")?;
    let mut named = body.clone();
    named["metadata"]["uid"] = "x".into();
    s.patch(APPLY, &format!("{path}?fieldManager=one"), named).await?.refused(409, "Conflict")?;
    let mut owned = body;
    owned["metadata"]["managedFields"] = json!([{ "manager": "x", "operation": "Apply" }]);
    s.patch(APPLY, &format!("{path}?fieldManager=one"), owned).await?.refused(400, "BadRequest").map(drop)
}
