//! Watches.

use std::collections::BTreeSet;

use futures::TryStreamExt;
use k8s_openapi::api::core::v1::ConfigMap;
use kube::{
    Api,
    runtime::{WatchStreamExt, watcher},
};
use serde_json::{Value, json};

use super::scratch::{ANCIENT_VERSION, Failed, MERGE, Scratch, ensure, same, version};

pub(super) async fn a_watch_reports_changes_in_order(s: Scratch) -> Result<(), Failed> {
    let from = version(&s.map("before", json!({})).await?);
    let mut watch = s.watch(&s.at(&format!("configmaps?watch=true&resourceVersion={from}"))).await?;
    let made = s.map("a", json!({})).await?;
    let changed =
        s.patch(MERGE, &s.at("configmaps/a"), json!({ "data": { "k": "v" } })).await?.expect(200)?.body;
    s.delete(&s.at("configmaps/a"), None).await?.expect(200)?;
    let added = skip_others(&mut watch, "ADDED", "a").await?;
    same("the added object", &added, made)?;
    let modified = watch.expect("MODIFIED", "a").await?;
    same("the modified object", &modified, changed.clone())?;
    let deleted = watch.expect("DELETED", "a").await?;
    same("the deleted object's data", &deleted["data"], json!({ "k": "v" }))?;
    let number = |object: &Value| version(object).parse::<u64>().unwrap_or(0);
    ensure(number(&deleted) > number(&changed), || "a deletion has no version of its own".to_owned())?;
    let mut resumed =
        s.watch(&s.at(&format!("configmaps?watch=true&resourceVersion={}", version(&added)))).await?;
    resumed.expect("MODIFIED", "a").await?;
    resumed.expect("DELETED", "a").await.map(drop)
}

pub(super) async fn a_watch_without_a_version_begins_with_what_is_there(s: Scratch) -> Result<(), Failed> {
    s.map("a", json!({ "l": "1" })).await?;
    s.map("b", json!({ "l": "1" })).await?;
    for from in ["", "&resourceVersion=0"] {
        let mut watch = s.watch(&s.at(&format!("configmaps?watch=true&labelSelector=l{from}"))).await?;
        let mut seen = BTreeSet::new();
        for _ in 0..2 {
            let event = watch.next().await?.unwrap_or_default();
            same("type", &event["type"], "ADDED")?;
            seen.insert(event["object"]["metadata"]["name"].as_str().unwrap_or_default().to_owned());
        }
        ensure(seen.iter().eq(["a", "b"]), || format!("{seen:?}"))?;
    }
    Ok(())
}

pub(super) async fn entering_and_leaving_a_selection_is_being_added_and_deleted(
    s: Scratch,
) -> Result<(), Failed> {
    let from = version(&s.map("a", json!({})).await?);
    let path = s.at(&format!("configmaps?watch=true&labelSelector=in%3Dyes&resourceVersion={from}"));
    let mut watch = s.watch(&path).await?;
    let label = async |value: Value| {
        let patch = json!({ "metadata": { "labels": { "in": value } } });
        s.patch(MERGE, &s.at("configmaps/a"), patch).await?.expect(200)
    };
    label(json!("yes")).await?;
    let left = label(json!("no")).await?;
    label(json!("yes")).await?;
    watch.expect("ADDED", "a").await?;
    let deleted = watch.expect("DELETED", "a").await?;
    same("the label it was selected by", &deleted["metadata"]["labels"]["in"], "yes")?;
    same("the version it left with", &deleted["metadata"]["resourceVersion"], left.version())?;
    watch.expect("ADDED", "a").await.map(drop)
}

pub(super) async fn a_watch_of_one_name_sees_no_other(s: Scratch) -> Result<(), Failed> {
    let from = version(&s.map("a", json!({})).await?);
    let path = s.at(&format!("configmaps?watch=true&fieldSelector=metadata.name%3Dc&resourceVersion={from}"));
    let mut watch = s.watch(&path).await?;
    s.map("b", json!({})).await?;
    s.map("c", json!({})).await?;
    watch.expect("ADDED", "c").await.map(drop)
}

pub(super) async fn a_watch_from_an_ancient_version_is_complete_or_told_that_it_expired(
    s: Scratch,
) -> Result<(), Failed> {
    s.map("a", json!({})).await?;
    s.map("b", json!({})).await?;
    let path = s.at(&format!("configmaps?watch=true&resourceVersion={ANCIENT_VERSION}"));
    let mut watch = s.watch(&path).await?;
    let event = watch.next().await?.unwrap_or_default();
    if event["type"] == "ADDED" {
        // A young cluster remembers everything. Then it must leave nothing out; its own map may come in between.
        let first = event["object"]["metadata"]["name"] == "a";
        let a = if first { Ok(Value::Null) } else { skip_others(&mut watch, "ADDED", "a").await };
        return a.and(skip_others(&mut watch, "ADDED", "b").await).map(drop);
    }
    same("type", &event["type"], "ERROR")?;
    same("code", &event["object"]["code"], 410)?;
    same("reason", &event["object"]["reason"], "Expired")?;
    let end = watch.next().await?;
    ensure(end.is_none(), || format!("the watch goes on with {end:?}"))
}

pub(super) async fn a_watch_ends_in_time_and_says_how_far_it_came(s: Scratch) -> Result<(), Failed> {
    let from = version(&s.map("a", json!({})).await?);
    let path =
        format!("configmaps?watch=true&allowWatchBookmarks=true&timeoutSeconds=5&resourceVersion={from}");
    let mut watch = s.watch(&s.at(&path)).await?;
    let last = version(&s.map("b", json!({})).await?);
    skip_others(&mut watch, "ADDED", "b").await?;
    let mut told = None;
    while let Some(event) = watch.next().await? {
        same("type", &event["type"], "BOOKMARK")?;
        same("kind", &event["object"]["kind"], "ConfigMap")?;
        told = version(&event["object"]).parse::<u64>().ok();
    }
    ensure(told >= last.parse().ok() && told.is_some(), || {
        format!("the last bookmark says {told:?}, not {last}")
    })
}

pub(super) async fn a_streaming_list_ends_with_a_bookmark(s: Scratch) -> Result<(), Failed> {
    // Before 1.32 the parameter was not known to every server.
    if s.minor_version().await? < 32 {
        return Ok(());
    }
    s.map("a", json!({ "l": "1" })).await?;
    let query = "watch=true&labelSelector=l&sendInitialEvents=true&resourceVersionMatch=NotOlderThan&allowWatchBookmarks=true";
    let mut watch = s.watch(&s.at(&format!("configmaps?{query}"))).await?;
    watch.expect("ADDED", "a").await?;
    let end = watch.next().await?.unwrap_or_default();
    same("type", &end["type"], "BOOKMARK")?;
    same("mark", &end["object"]["metadata"]["annotations"]["k8s.io/initial-events-end"], "true")?;
    s.map("b", json!({ "l": "1" })).await?;
    watch.expect("ADDED", "b").await.map(drop)
}

pub(super) async fn a_watcher_of_kube_sees_every_object(s: Scratch) -> Result<(), Failed> {
    for index in 0..5 {
        s.map(&format!("m{index}"), json!({ "l": "1" })).await?;
    }
    let api: Api<ConfigMap> = Api::namespaced(s.client.clone(), &s.namespace);
    // Pages, so that the client goes through continue tokens too.
    let config = watcher::Config::default().labels("l").page_size(2);
    let mut applied = std::pin::pin!(watcher(api, config).applied_objects());
    let mut seen = BTreeSet::new();
    for index in 0..7 {
        if index == 5 {
            s.map("m5", json!({ "l": "1" })).await?;
            s.map("m6", json!({ "l": "1" })).await?;
        }
        let next = tokio::time::timeout(std::time::Duration::from_secs(20), applied.try_next()).await;
        let next = next.map_err(|_| Failed::new("the watcher stayed silent"))?;
        let object = next.map_err(|error| Failed::new(error.to_string()))?;
        seen.extend(object.and_then(|object| object.metadata.name));
    }
    ensure(seen.len() == 7, || format!("{seen:?}"))
}

/// The next event about `name`, past those about the map that real clusters put into every namespace.
async fn skip_others(watch: &mut super::scratch::Watch, kind: &str, name: &str) -> Result<Value, Failed> {
    loop {
        let event = watch
            .next()
            .await?
            .ok_or_else(|| Failed::new(format!("the watch ended before {kind} {name}")))?;
        if event["object"]["metadata"]["name"] == name {
            same("type", &event["type"], kind)?;
            return Ok(event["object"].clone());
        }
    }
}
