//! Who owns which field: `metadata.managedFields`, and server-side apply, which decides by it.
//!
//! Every write is recorded, so that an apply later on knows whose values it would overwrite. A field belongs to all who
//! last set it to its value: appliers of the same value share it, a change takes it away from everybody else.

use serde_json::{Value, json};

use crate::{
    failure::Failure,
    fields::{self, FieldSet},
    object::{items, meta_mut, take, text},
};

/// How many managers of plain updates are told apart; the oldest beyond are counted as one, as the real server does.
const UPDATERS_LIMIT: usize = 10;
const ANCIENT: &str = "ancient-changes";

/// One row of `managedFields`.
#[derive(Debug, Clone, PartialEq)]
struct Manager {
    name: String,
    applies: bool,
    subresource: String,
    api_version: String,
    time: String,
    fields: FieldSet,
}

/// Who writes.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Author<'a> {
    pub(crate) manager: &'a str,
    /// `status`, or empty.
    pub(crate) subresource: &'a str,
    /// The time of the write.
    pub(crate) now: &'a str,
}

/// Records in `after` that the author made it out of `before` by a plain write.
pub(crate) fn updated(before: Option<&Value>, after: &mut Value, author: Author<'_>) {
    let mut managers = before.map(parse).unwrap_or_default();
    let difference = match before {
        Some(before) => fields::compare(before, after),
        None => fields::Difference { changed: FieldSet::of(after), removed: FieldSet::default() },
    };
    if difference.changed.is_empty() && difference.removed.is_empty() {
        return store(after, &managers);
    }
    for manager in &mut managers {
        let keeps = !manager.applies && manager.is(author);
        manager.fields.subtract(&difference.removed);
        if !keeps {
            manager.fields.subtract(&difference.changed);
        }
    }
    if !difference.changed.is_empty() {
        let mine = entry(&mut managers, author, false, text(after, "/apiVersion"));
        mine.fields.union(&difference.changed);
        author.now.clone_into(&mut mine.time);
    }
    limit_updaters(&mut managers);
    store(after, &managers);
}

/// What `live` becomes when the author applies `applied`, with ownership recorded. `live` is null when there is no such
/// object yet.
pub(crate) fn applied(
    live: &Value,
    mut applied: Value,
    author: Author<'_>,
    force: bool,
) -> Result<Value, Failure> {
    if !items(&applied, "/metadata/managedFields").is_empty() {
        return Err(Failure::bad_request("metadata.managedFields must be nil"));
    }
    take(meta_mut(&mut applied), "managedFields");
    let api_version = text(&applied, "/apiVersion").to_owned();
    let mut managers = parse(live);
    let wanted = scope(FieldSet::of(&applied), author.subresource);
    let mut merged = if live.is_null() { json!({}) } else { live.clone() };
    fields::merge(&mut merged, &applied);
    let changed = scope(fields::compare(live, &merged).changed, author.subresource);
    let others = |manager: &&mut Manager| !(manager.applies && manager.is(author));
    let mut conflicts = Vec::new();
    for manager in managers.iter_mut().filter(others) {
        let contested = manager.fields.intersection(&changed);
        if force {
            manager.fields.subtract(&contested);
        } else {
            conflicts.extend(contested.paths().into_iter().map(|field| manager.conflict(field)));
        }
    }
    if !conflicts.is_empty() {
        return Err(Failure::apply_conflict(conflicts));
    }
    let mut abandoned = FieldSet::default();
    if let Some(mine) = managers.iter().find(|manager| manager.applies && manager.is(author)) {
        abandoned = mine.fields.clone();
    }
    abandoned.subtract(&wanted);
    for manager in managers.iter_mut().filter(others) {
        abandoned.subtract(&manager.fields);
    }
    fields::remove(&mut merged, &abandoned);
    let mine = entry(&mut managers, author, true, &api_version);
    if mine.fields != wanted {
        author.now.clone_into(&mut mine.time);
    }
    mine.fields = wanted;
    store(&mut merged, &managers);
    Ok(merged)
}

/// What a subresource lets its callers own.
fn scope(set: FieldSet, subresource: &str) -> FieldSet {
    if subresource == "status" { set.only("f:status") } else { set.without("f:status") }
}

impl Manager {
    fn is(&self, author: Author<'_>) -> bool {
        self.name == author.manager && self.subresource == author.subresource
    }

    fn conflict(&self, field: String) -> Value {
        let mut who = format!("conflict with {:?}", self.name);
        if !self.subresource.is_empty() {
            who.push_str(&format!(" with subresource {:?}", self.subresource));
        }
        if !self.applies {
            who.push_str(&format!(" using {}", self.api_version));
        }
        json!({ "reason": "FieldManagerConflict", "message": who, "field": field })
    }
}

/// The author's row, made if there is none.
fn entry<'a>(
    managers: &'a mut Vec<Manager>,
    author: Author<'_>,
    applies: bool,
    api_version: &str,
) -> &'a mut Manager {
    let found = managers.iter().position(|manager| manager.applies == applies && manager.is(author));
    let index = found.unwrap_or_else(|| {
        managers.push(Manager {
            name: author.manager.to_owned(),
            applies,
            subresource: author.subresource.to_owned(),
            api_version: api_version.to_owned(),
            time: author.now.to_owned(),
            fields: FieldSet::default(),
        });
        managers.len() - 1
    });
    &mut managers[index]
}

/// Merges the oldest plain writers while there are too many: a client that makes up a new name for each write must not
/// make the object grow.
fn limit_updaters(managers: &mut Vec<Manager>) {
    loop {
        let mut updaters: Vec<usize> =
            (0..managers.len()).filter(|index| !managers[*index].applies).collect();
        if updaters.len() <= UPDATERS_LIMIT {
            return;
        }
        updaters.sort_by(|a, b| managers[*a].time.cmp(&managers[*b].time).then(a.cmp(b)));
        let (oldest, next) = (updaters[0].min(updaters[1]), updaters[0].max(updaters[1]));
        let merged = managers.remove(next);
        let kept = &mut managers[oldest];
        kept.fields.union(&merged.fields);
        ANCIENT.clone_into(&mut kept.name);
        kept.subresource.clear();
    }
}

fn parse(object: &Value) -> Vec<Manager> {
    let rows = items(object, "/metadata/managedFields").iter();
    rows.map(|row| Manager {
        name: text(row, "/manager").to_owned(),
        applies: text(row, "/operation") == "Apply",
        subresource: text(row, "/subresource").to_owned(),
        api_version: text(row, "/apiVersion").to_owned(),
        time: text(row, "/time").to_owned(),
        fields: FieldSet::parse(&row["fieldsV1"]),
    })
    .collect()
}

fn store(object: &mut Value, managers: &[Manager]) {
    let rows: Vec<Value> = managers
        .iter()
        .filter(|manager| !manager.fields.is_empty())
        .map(|manager| {
            let mut row = json!({
                "apiVersion": manager.api_version,
                "fieldsType": "FieldsV1",
                "fieldsV1": manager.fields.to_json(),
                "manager": manager.name,
                "operation": if manager.applies { "Apply" } else { "Update" },
            });
            if !manager.subresource.is_empty() {
                row["subresource"] = manager.subresource.as_str().into();
            }
            row["time"] = manager.time.as_str().into();
            row
        })
        .collect();
    let meta = meta_mut(object);
    if rows.is_empty() {
        take(meta, "managedFields");
    } else {
        meta.insert("managedFields".to_owned(), rows.into());
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn author(manager: &str) -> Author<'_> {
        Author { manager, subresource: "", now: "2026-01-01T00:00:00Z" }
    }

    fn map(data: Value) -> Value {
        json!({ "apiVersion": "v1", "kind": "ConfigMap", "metadata": { "name": "m" }, "data": data })
    }

    fn apply(live: &Value, data: Value, manager: &str, force: bool) -> Result<Value, Failure> {
        applied(live, map(data), author(manager), force)
    }

    #[test]
    fn appliers_of_different_fields_keep_out_of_each_others_way() {
        let live = apply(&Value::Null, json!({ "a": "1" }), "one", false).unwrap();
        let live = apply(&live, json!({ "b": "2" }), "two", false).unwrap();
        assert_eq!(live["data"], json!({ "a": "1", "b": "2" }));
        let live = apply(&live, json!({}), "one", false).unwrap();
        assert_eq!(live["data"], json!({ "b": "2" }));
    }

    #[test]
    fn a_contested_value_is_a_conflict_until_it_is_forced() {
        let live = apply(&Value::Null, json!({ "a": "1" }), "one", false).unwrap();
        let refused = apply(&live, json!({ "a": "2" }), "two", false).unwrap_err();
        assert_eq!((refused.code, refused.reason), (409, "Conflict"));
        assert_eq!(refused.message, "Apply failed with 1 conflict: conflict with \"one\": .data.a");
        let live = apply(&live, json!({ "a": "2" }), "two", true).unwrap();
        assert_eq!(live["data"], json!({ "a": "2" }));
        // The loser's next apply meets the winner.
        assert!(apply(&live, json!({ "a": "1" }), "one", false).is_err());
    }

    #[test]
    fn a_shared_value_outlives_one_of_its_owners() {
        let live = apply(&Value::Null, json!({ "a": "1" }), "one", false).unwrap();
        let live = apply(&live, json!({ "a": "1" }), "two", false).unwrap();
        let live = apply(&live, json!({}), "one", false).unwrap();
        assert_eq!(live["data"], json!({ "a": "1" }));
        let live = apply(&live, json!({}), "two", false).unwrap();
        assert_eq!(live.get("data"), None);
    }

    #[test]
    fn a_plain_write_takes_fields_over() {
        let live = apply(&Value::Null, json!({ "a": "1" }), "one", false).unwrap();
        let mut edited = live.clone();
        edited["data"]["a"] = "2".into();
        updated(Some(&live), &mut edited, author("editor"));
        let refused = apply(&edited, json!({ "a": "1" }), "one", false).unwrap_err();
        assert_eq!(
            refused.message,
            "Apply failed with 1 conflict: conflict with \"editor\" using v1: .data.a"
        );
    }

    #[test]
    fn list_items_are_owned_by_key() {
        let pod = |containers: Value| json!({ "apiVersion": "v1", "spec": { "containers": containers } });
        let one = pod(json!([{ "name": "a", "image": "a:1" }, { "name": "b", "image": "b:1" }]));
        let live = applied(&Value::Null, one, author("one"), false).unwrap();
        let two = pod(json!([{ "name": "a", "tty": true }]));
        let live = applied(&live, two, author("two"), false).unwrap();
        let less = pod(json!([{ "name": "b", "image": "b:1" }]));
        let live = applied(&live, less, author("one"), false).unwrap();
        assert_eq!(
            live["spec"]["containers"],
            json!([{ "name": "a", "tty": true }, { "name": "b", "image": "b:1" }])
        );
        let contested = pod(json!([{ "name": "b", "image": "b:2" }]));
        let refused = applied(&live, contested, author("two"), false).unwrap_err();
        assert!(refused.message.ends_with(".spec.containers[name=\"b\"].image"), "{}", refused.message);
    }

    #[test]
    fn applying_the_same_again_changes_nothing() {
        let live = apply(&Value::Null, json!({ "a": "1" }), "one", false).unwrap();
        let later = Author { now: "2026-01-02T00:00:00Z", ..author("one") };
        assert_eq!(applied(&live, map(json!({ "a": "1" })), later, false).unwrap(), live);
    }

    #[test]
    fn managers_of_updates_are_bounded() {
        let mut live = map(json!({}));
        for index in 0..30 {
            let mut next = live.clone();
            next["data"][format!("k{index}")] = "v".into();
            updated(Some(&live), &mut next, author(&format!("manager-{index}")));
            live = next;
        }
        assert_eq!(items(&live, "/metadata/managedFields").len(), UPDATERS_LIMIT);
    }
}
