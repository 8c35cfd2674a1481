//! Lists: selection, pages, and the tokens that lead from one page to the next.

use std::sync::Arc;

use bytes::{Bytes, BytesMut};
use serde::{Deserialize, Serialize};
use serde_json::json;

use crate::{
    base64,
    call::Call,
    failure::{Cause, Failure},
    object::{Key, Object, json_bytes},
    select::Selector,
    store::{Store, TooOld},
};

const TOKEN_EXPIRED: &str = "The provided continue parameter is too old to display a consistent list result. You can start a new list without the continue parameter, or use the continue token in this response to retrieve the remainder of the results. Continuing with the provided token results in an inconsistent list - objects that were created, modified, or deleted between the time the first chunk was returned and now may show up in the list.";

/// Where a list goes on: the same content as etcd's, so that it is as opaque to clients.
#[derive(Debug, Serialize, Deserialize)]
struct Token {
    v: String,
    /// The revision of the first page, which all pages show.
    rv: u64,
    /// The first key of the next page.
    start: String,
}

/// Serves a list as it was `stale_events` changes ago.
pub(crate) fn list(store: &Store, call: &Call, stale_events: usize) -> Result<Bytes, Failure> {
    let params = &call.params;
    let selector =
        Selector::parse(&call.resource, params.text("labelSelector"), params.text("fieldSelector"))?;
    let limit = params.number("limit")?.unwrap_or(0);
    // Any version will do, so the watch cache answers, and that knows no pages.
    let cached = params.text("resourceVersion") == "0" && params.text("resourceVersionMatch").is_empty();
    let limit = if cached { 0 } else { usize::try_from(limit).unwrap_or(usize::MAX) };
    let (revision, start) = match params.text("continue") {
        "" => (wanted_revision(store, call, stale_events)?, None),
        token => {
            let token = parse(token)?;
            (token.rv, Some(Key::from_start(&token.start)))
        }
    };
    let objects = if revision == store.revision() {
        store.list(call.resource, &call.namespace)
    } else {
        store
            .list_at(call.resource, &call.namespace, revision)
            .map_err(|too_old| expired(call, revision, too_old))?
    };
    let mut rest = objects
        .iter()
        .skip_while(|object| start.as_ref().is_some_and(|start| object.key() < *start))
        .peekable();
    let mut page = Vec::new();
    while limit == 0 || page.len() < limit {
        let Some(object) = rest.next() else { break };
        if selector.matches(&object.value) {
            page.push(object);
        }
    }
    let mut meta = json!({ "resourceVersion": revision.to_string() });
    if let Some(next) = rest.peek() {
        let token =
            Token { v: "meta.k8s.io/v1".to_owned(), rv: revision, start: next.key().as_str().to_owned() };
        meta["continue"] = base64::encode(&json_bytes(&token)).into();
        // With a selector nobody has counted.
        if selector.is_everything() {
            meta["remainingItemCount"] = rest.count().into();
        }
    }
    Ok(body(call, &meta, &page))
}

/// Everything a collection request selects, now.
pub(crate) fn select(store: &Store, call: &Call) -> Result<Vec<Arc<Object>>, Failure> {
    let params = &call.params;
    let selector =
        Selector::parse(&call.resource, params.text("labelSelector"), params.text("fieldSelector"))?;
    let mut objects = store.list(call.resource, &call.namespace);
    objects.retain(|object| selector.matches(&object.value));
    Ok(objects)
}

/// A list of these objects and no further page.
pub(crate) fn whole(call: &Call, revision: u64, objects: &[Arc<Object>]) -> Bytes {
    body(call, &json!({ "resourceVersion": revision.to_string() }), &objects.iter().collect::<Vec<_>>())
}

/// The list object around a page.
fn body(call: &Call, meta: &serde_json::Value, page: &[&Arc<Object>]) -> Bytes {
    let (kind, api_version) = (call.resource.kind, call.resource.api_version());
    let meta = json_bytes(meta);
    let size: usize = page.iter().map(|object| object.item().len() + 1).sum();
    let mut body = BytesMut::with_capacity(size + meta.len() + 128);
    body.extend_from_slice(
        format!("{{\"kind\":\"{kind}List\",\"apiVersion\":\"{api_version}\",\"metadata\":").as_bytes(),
    );
    body.extend_from_slice(&meta);
    body.extend_from_slice(b",\"items\":[");
    for (index, object) in page.iter().enumerate() {
        if index > 0 {
            body.extend_from_slice(b",");
        }
        body.extend_from_slice(object.item());
    }
    body.extend_from_slice(b"]}");
    body.freeze()
}

/// The revision a first page is to show.
fn wanted_revision(store: &Store, call: &Call, stale_events: usize) -> Result<u64, Failure> {
    let current = store.revision();
    let asked = call.params.number("resourceVersion")?.unwrap_or(0);
    let forbidden = |why: &str| {
        let cause = Cause::forbidden("resourceVersionMatch", why);
        Err(Failure::invalid_options("ListOptions", cause))
    };
    let exact = match (call.params.text("resourceVersionMatch"), call.params.text("resourceVersion")) {
        ("", _) => false,
        (_, "") => return forbidden("resourceVersionMatch is forbidden unless resourceVersion is provided"),
        ("Exact", "0") => {
            return forbidden("resourceVersionMatch \"exact\" is forbidden for resourceVersion \"0\"");
        }
        (wanted, _) => wanted == "Exact",
    };
    if asked > current {
        return Err(Failure::future_version(asked, current));
    }
    if exact {
        return Ok(asked);
    }
    if stale_events > 0 {
        return Ok(store.revision_behind(call.resource, stale_events));
    }
    Ok(current)
}

fn parse(token: &str) -> Result<Token, Failure> {
    let decoded = base64::decode(token).and_then(|bytes| serde_json::from_slice(&bytes).ok());
    decoded.ok_or_else(|| Failure::bad_request("continue key is not valid: it was not made by this server"))
}

fn expired(call: &Call, revision: u64, too_old: TooOld) -> Failure {
    if call.params.text("continue").is_empty() {
        return Failure::expired(format!("too old resource version: {revision} ({})", too_old.oldest));
    }
    Failure::expired(TOKEN_EXPIRED)
}
