//! Deletions and what they lead to.

use serde_json::{Value, json};

use super::scratch::{Failed, MERGE, Scratch, ensure, idle_pod, names, same, uid, version};

pub(super) async fn a_deletion_says_what_it_deleted(s: Scratch) -> Result<(), Failed> {
    let made = s.map("a", json!({})).await?;
    let told = s.delete(&s.at("configmaps/a"), None).await?.expect(200)?.body;
    same("status", &told["status"], "Success")?;
    same("details", &told["details"], json!({ "name": "a", "kind": "configmaps", "uid": uid(&made) }))?;
    s.get(&s.at("configmaps/a")).await?.refused(404, "NotFound")?;
    s.delete(&s.at("configmaps/a"), None).await?.refused(404, "NotFound")?;
    s.post(&s.at("pods"), idle_pod("a", json!({}))).await?.expect(201)?;
    let pod = s.delete(&s.at("pods/a"), None).await?.expect(200)?.body;
    same("a deleted pod", &pod["kind"], "Pod")?;
    s.get(&s.at("pods/a")).await?.refused(404, "NotFound").map(drop)
}

pub(super) async fn preconditions_protect_another_object_of_the_name(s: Scratch) -> Result<(), Failed> {
    let made = s.map("a", json!({})).await?;
    let path = s.at("configmaps/a");
    let only = |preconditions: Value| Some(json!({ "preconditions": preconditions }));
    s.delete(&path, only(json!({ "uid": "other" }))).await?.refused(409, "Conflict")?;
    s.delete(&path, only(json!({ "resourceVersion": "1" }))).await?.refused(409, "Conflict")?;
    let odd = s.delete(&path, Some(json!({ "propagationPolicy": "Sideways" }))).await?;
    odd.refused(422, "Invalid")?.blames(&["propagationPolicy"])?;
    let exact = json!({ "uid": uid(&made), "resourceVersion": version(&made) });
    s.delete(&path, only(exact)).await?.expect(200).map(drop)
}

pub(super) async fn finalizers_hold_an_object(s: Scratch) -> Result<(), Failed> {
    let body = json!({ "metadata": { "name": "a", "finalizers": ["example.com/x", "example.com/y"] } });
    s.post(&s.at("configmaps"), body).await?.expect(201)?;
    let path = s.at("configmaps/a");
    let held = s.delete(&path, None).await?.expect(200)?.body;
    same("kind", &held["kind"], "ConfigMap")?;
    ensure(held["metadata"]["deletionTimestamp"].is_string(), || format!("not marked: {held}"))?;
    let again = s.delete(&path, None).await?.expect(200)?.body;
    same("a second deletion changes nothing", &again, held)?;
    let finalizers = async |finalizers: Value| {
        s.patch(MERGE, &path, json!({ "metadata": { "finalizers": finalizers } })).await?.expect(200)
    };
    finalizers(json!(["example.com/y"])).await?;
    ensure(s.exists(&path).await?, || "gone before its last finalizer".to_owned())?;
    finalizers(Value::Null).await?;
    s.get(&path).await?.refused(404, "NotFound").map(drop)
}

pub(super) async fn no_finalizer_is_added_to_what_is_being_deleted(s: Scratch) -> Result<(), Failed> {
    let body = json!({ "metadata": { "name": "a", "finalizers": ["example.com/x"] } });
    s.post(&s.at("configmaps"), body).await?.expect(201)?;
    let path = s.at("configmaps/a");
    s.delete(&path, None).await?.expect(200)?;
    let more = json!({ "metadata": { "finalizers": ["example.com/x", "example.com/y"] } });
    s.patch(MERGE, &path, more).await?.refused(422, "Invalid")?.blames(&["metadata.finalizers"])?;
    s.patch(MERGE, &path, json!({ "metadata": { "finalizers": null } })).await?.expect(200).map(drop)
}

/// A Secret owned by these ConfigMaps, of which the first blocks on it.
async fn dependent(s: &Scratch, name: &str, owners: &[&Value], finalizers: Value) -> Result<String, Failed> {
    let references: Vec<_> = owners
        .iter()
        .enumerate()
        .map(|(index, owner)| {
            json!({ "apiVersion": "v1", "kind": "ConfigMap", "name": owner["metadata"]["name"], "uid": uid(owner),
                "blockOwnerDeletion": index == 0 })
        })
        .collect();
    let meta = json!({ "name": name, "ownerReferences": references, "finalizers": finalizers });
    s.post(&s.at("secrets"), json!({ "metadata": meta })).await?.expect(201)?;
    Ok(s.at(&format!("secrets/{name}")))
}

async fn delete_owner(s: &Scratch, propagation: &str) -> Result<Value, Failed> {
    let options = json!({ "propagationPolicy": propagation });
    Ok(s.delete(&s.at("configmaps/owner"), Some(options)).await?.expect(200)?.body)
}

pub(super) async fn dependents_go_with_their_owner(s: Scratch) -> Result<(), Failed> {
    let owner = s.map("owner", json!({})).await?;
    let child = dependent(&s, "child", &[&owner], json!([])).await?;
    delete_owner(&s, "Background").await?;
    s.eventually("the dependent is collected", || async { Ok(!s.exists(&child).await?) }).await
}

pub(super) async fn a_dependent_stays_while_one_owner_lives(s: Scratch) -> Result<(), Failed> {
    let (owner, other) = (s.map("owner", json!({})).await?, s.map("other", json!({})).await?);
    let child = dependent(&s, "child", &[&owner, &other], json!([])).await?;
    delete_owner(&s, "Background").await?;
    s.eventually("the dead owner is forgotten", || async {
        let owners = s.get(&child).await?.expect(200)?.body["metadata"]["ownerReferences"].clone();
        Ok(owners.as_array().is_some_and(|owners| owners.len() == 1 && owners[0]["uid"] == uid(&other)))
    })
    .await
}

pub(super) async fn orphans_lose_their_owner(s: Scratch) -> Result<(), Failed> {
    let owner = s.map("owner", json!({})).await?;
    let child = dependent(&s, "child", &[&owner], json!([])).await?;
    let pending = delete_owner(&s, "Orphan").await?;
    same("finalizers", &pending["metadata"]["finalizers"], json!(["orphan"]))?;
    s.eventually("the owner is gone", || async { Ok(!s.exists(&s.at("configmaps/owner")).await?) }).await?;
    let left = s.get(&child).await?.expect(200)?.body;
    same("owners", &left["metadata"]["ownerReferences"], Value::Null)
}

pub(super) async fn a_blocked_owner_waits_for_its_dependents(s: Scratch) -> Result<(), Failed> {
    let owner = s.map("owner", json!({})).await?;
    let child = dependent(&s, "child", &[&owner], json!(["example.com/hold"])).await?;
    let pending = delete_owner(&s, "Foreground").await?;
    same("finalizers", &pending["metadata"]["finalizers"], json!(["foregroundDeletion"]))?;
    s.eventually("the dependent is asked to go", || async {
        Ok(s.get(&child).await?.expect(200)?.body["metadata"]["deletionTimestamp"].is_string())
    })
    .await?;
    ensure(s.exists(&s.at("configmaps/owner")).await?, || "the owner did not wait".to_owned())?;
    // The dependent of a real cluster carries the collector's finalizer too; all are taken off alike.
    s.patch(MERGE, &child, json!({ "metadata": { "finalizers": null } })).await?.expect(200)?;
    s.eventually("both are gone", || async {
        Ok(!s.exists(&child).await? && !s.exists(&s.at("configmaps/owner")).await?)
    })
    .await
}

pub(super) async fn a_selection_is_deleted_at_once(s: Scratch) -> Result<(), Failed> {
    for (name, label) in [("a", "x"), ("b", "y"), ("c", "x")] {
        s.map(name, json!({ "l": label })).await?;
    }
    let deleted = s.delete(&s.at("configmaps?labelSelector=l%3Dx"), None).await?.expect(200)?.body;
    ensure(names(&deleted) == ["a", "c"], || format!("{:?}", names(&deleted)))?;
    let left = s.get(&s.at("configmaps?labelSelector=l")).await?.expect(200)?.body;
    ensure(names(&left) == ["b"], || format!("{:?}", names(&left)))
}

pub(super) async fn a_namespace_takes_its_content_along(s: Scratch) -> Result<(), Failed> {
    let name = format!("{}-inner", s.namespace);
    let namespace = format!("/api/v1/namespaces/{name}");
    let made = s.post("/api/v1/namespaces", json!({ "metadata": { "name": name } })).await?.expect(201)?.body;
    same("phase", &made["status"]["phase"], "Active")?;
    same("finalizers", &made["spec"]["finalizers"], json!(["kubernetes"]))?;
    let maps = format!("{namespace}/configmaps");
    let held = json!({ "metadata": { "name": "held", "finalizers": ["example.com/hold"] } });
    s.post(&maps, held).await?.expect(201)?;
    s.post(&maps, json!({ "metadata": { "name": "free" } })).await?.expect(201)?;
    let leaving = s.delete(&namespace, None).await?.expect(200)?.body;
    same("phase", &leaving["status"]["phase"], "Terminating")?;
    let late = s.post(&maps, json!({ "metadata": { "name": "late" } })).await?.refused(403, "Forbidden")?;
    same("why", &late.body["details"]["causes"][0]["reason"], "NamespaceTerminating")?;
    s.eventually("what can go goes", || async {
        let held = s.get(&format!("{maps}/held")).await?.expect(200)?.body;
        Ok(held["metadata"]["deletionTimestamp"].is_string() && !s.exists(&format!("{maps}/free")).await?)
    })
    .await?;
    ensure(s.exists(&namespace).await?, || "the namespace did not wait".to_owned())?;
    s.patch(MERGE, &format!("{maps}/held"), json!({ "metadata": { "finalizers": null } }))
        .await?
        .expect(200)?;
    s.eventually("the namespace is gone", || async { Ok(!s.exists(&namespace).await?) }).await
}

pub(super) async fn a_pod_on_a_node_is_given_time(s: Scratch) -> Result<(), Failed> {
    let mut pod = idle_pod("a", json!({}));
    pod["spec"]["nodeName"] = "node-that-is-not-there".into();
    s.post(&s.at("pods"), pod).await?.expect(201)?;
    let path = s.at("pods/a");
    let leaving = s.delete(&path, None).await?.expect(200)?.body;
    same("grace", &leaving["metadata"]["deletionGracePeriodSeconds"], 30)?;
    ensure(s.exists(&path).await?, || "gone at once".to_owned())?;
    let sooner = s.delete(&path, Some(json!({ "gracePeriodSeconds": 5 }))).await?.expect(200)?.body;
    same("shortened grace", &sooner["metadata"]["deletionGracePeriodSeconds"], 5)?;
    let later = s.delete(&path, Some(json!({ "gracePeriodSeconds": 60 }))).await?.expect(200)?.body;
    same("grace does not grow", &later["metadata"]["deletionGracePeriodSeconds"], 5)?;
    s.delete(&path, Some(json!({ "gracePeriodSeconds": 0 }))).await?.expect(200)?;
    s.get(&path).await?.refused(404, "NotFound").map(drop)
}
