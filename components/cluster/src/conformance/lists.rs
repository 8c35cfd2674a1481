//! Lists, selectors and pages.

use serde_json::json;

use super::scratch::{Failed, Scratch, ensure, names, same, version};

pub(super) async fn selectors_select(s: Scratch) -> Result<(), Failed> {
    for (name, labels) in [
        ("a", json!({ "n": "1", "odd": "y" })),
        ("b", json!({ "n": "2" })),
        ("c", json!({ "n": "3", "odd": "y" })),
    ] {
        s.map(name, labels).await?;
    }
    // Real clusters put a map of their own into every namespace; it has no labels.
    for (selector, expected) in [
        ("labelSelector=n", &["a", "b", "c"][..]),
        ("labelSelector=n%3D2", &["b"]),
        ("labelSelector=n%3D%3D2", &["b"]),
        ("labelSelector=n%21%3D2,n", &["a", "c"]),
        ("labelSelector=n%20in%20(1,3),odd%3Dy", &["a", "c"]),
        ("labelSelector=n%20notin%20(1,3),n", &["b"]),
        ("labelSelector=n,%21odd", &["b"]),
        ("labelSelector=n%3E2", &["c"]),
        ("labelSelector=n%3D7", &[]),
        ("fieldSelector=metadata.name%3Db", &["b"]),
        ("fieldSelector=metadata.name%21%3Db&labelSelector=n", &["a", "c"]),
    ] {
        let list = s.get(&s.at(&format!("configmaps?{selector}"))).await?.expect(200)?.body;
        ensure(names(&list) == expected, || format!("{selector}: {:?}", names(&list)))?;
        same("kind", &list["kind"], "ConfigMapList")?;
    }
    for selector in [
        "labelSelector=n%20in%20x",
        "labelSelector=%3Dx",
        "labelSelector=n%3D-",
        "fieldSelector=metadata.name",
    ] {
        s.get(&s.at(&format!("configmaps?{selector}"))).await?.refused(400, "BadRequest")?;
    }
    let elsewhere = s.get("/api/v1/configmaps?labelSelector=n%3D2,none").await?.expect(200)?.body;
    ensure(names(&elsewhere).is_empty(), || elsewhere.to_string())
}

pub(super) async fn a_list_is_in_the_order_of_names(s: Scratch) -> Result<(), Failed> {
    for name in ["b", "a.b", "a", "a-b", "a0"] {
        s.map(name, json!({ "l": "1" })).await?;
    }
    let list = s.get(&s.at("configmaps?labelSelector=l")).await?.expect(200)?.body;
    ensure(names(&list) == ["a", "a-b", "a.b", "a0", "b"], || format!("{:?}", names(&list)))?;
    let kinds = list["items"].as_array().into_iter().flatten().all(|item| item.get("kind").is_none());
    ensure(kinds, || "items say their kind, which a list does for them".to_owned())
}

pub(super) async fn pages_show_one_version(s: Scratch) -> Result<(), Failed> {
    for name in ["a", "b", "c", "d"] {
        s.map(name, json!({ "l": "1" })).await?;
    }
    let first = s.get(&s.at("configmaps?labelSelector=l&limit=2")).await?.expect(200)?.body;
    ensure(names(&first) == ["a", "b"], || format!("{:?}", names(&first)))?;
    s.delete(&s.at("configmaps/c"), None).await?.expect(200)?;
    s.map("e", json!({ "l": "1" })).await?;
    let token = first["metadata"]["continue"].as_str().unwrap_or_default();
    let rest = s
        .get(&s.at(&format!("configmaps?labelSelector=l&limit=2&continue={token}")))
        .await?
        .expect(200)?
        .body;
    ensure(names(&rest) == ["c", "d"], || format!("the second page shows {:?}", names(&rest)))?;
    same("version of the second page", &rest["metadata"]["resourceVersion"], version(&first))?;
    let counted = s.get(&s.at("secrets?limit=1")).await?.expect(200)?.body;
    ensure(names(&counted).len() <= 1, || "a page is longer than its limit".to_owned())?;
    s.get(&s.at("configmaps?continue=nonsense")).await?.refused(400, "BadRequest")?;
    s.get(&s.at("configmaps?limit=many")).await?.refused(400, "BadRequest").map(drop)
}

pub(super) async fn a_list_says_where_a_watch_goes_on(s: Scratch) -> Result<(), Failed> {
    let made = s.map("a", json!({ "l": "1" })).await?;
    let list = s.get(&s.at("configmaps?labelSelector=l")).await?.expect(200)?.body;
    let number = |text: String| text.parse::<u64>().unwrap_or(0);
    ensure(number(version(&list)) >= number(version(&made)), || {
        "a list is older than what it shows".to_owned()
    })?;
    s.get(&s.at("configmaps?resourceVersion=999999999999")).await?.refused(504, "Timeout")?;
    s.get(&s.at("configmaps/a?resourceVersion=999999999999")).await?.refused(504, "Timeout")?;
    let any = s.get(&s.at("configmaps?labelSelector=l&resourceVersion=0")).await?.expect(200)?.body;
    ensure(names(&any) == ["a"], || format!("{:?}", names(&any)))?;
    let exact = s.get(&s.at("configmaps?resourceVersion=0&resourceVersionMatch=Exact")).await?;
    exact.refused(422, "Invalid")?.blames(&["resourceVersionMatch"]).map(drop)
}

pub(super) async fn field_selectors_know_their_kind(s: Scratch) -> Result<(), Failed> {
    let pods = s.at("pods");
    for (name, node) in [("a", ""), ("b", "node-x")] {
        let mut pod = super::scratch::idle_pod(name, json!({}));
        if !node.is_empty() {
            pod["spec"]["nodeName"] = node.into();
        }
        s.post(&pods, pod).await?.expect(201)?;
    }
    let pick = async |kind: &str, selector: &str| {
        let path = s.at(&format!("{kind}?fieldSelector={selector}"));
        Ok::<_, Failed>(s.get(&path).await?.expect(200)?.body)
    };
    let on = pick("pods", "spec.nodeName%3Dnode-x,status.phase%3DPending").await?;
    ensure(names(&on) == ["b"], || format!("{:?}", names(&on)))?;
    let off = pick("pods", "spec.nodeName%3D").await?;
    ensure(names(&off) == ["a"], || format!("{:?}", names(&off)))?;
    let tls = json!({ "metadata": { "name": "t" }, "type": "kubernetes.io/tls", "data": { "tls.crt": "", "tls.key": "" } });
    s.post(&s.at("secrets"), tls).await?.expect(201)?;
    let found = pick("secrets", "type%3Dkubernetes.io/tls").await?;
    ensure(names(&found) == ["t"], || format!("{:?}", names(&found)))?;
    let about = json!({ "kind": "Pod", "name": "a", "namespace": s.namespace });
    let event = json!({ "metadata": { "name": "e" }, "involvedObject": about, "reason": "Because", "type": "Normal" });
    s.post(&s.at("events"), event).await?.expect(201)?;
    let found = pick("events", "involvedObject.name%3Da,reason%3DBecause").await?;
    ensure(names(&found) == ["e"], || format!("{:?}", names(&found)))?;
    s.get(&s.at("pods?fieldSelector=spec.colour%3Dred")).await?.refused(400, "BadRequest")?;
    s.delete(&s.at("pods/b"), Some(json!({ "gracePeriodSeconds": 0 }))).await?.expect(200).map(drop)
}
