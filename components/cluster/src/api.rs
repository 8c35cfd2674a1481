//! A request from its bytes to its answer.

use std::{convert::Infallible, sync::Arc};

use axum::body::Body;
use bytes::Bytes;
use http::{HeaderMap, HeaderValue, Method, Request, Response, StatusCode, header};
use http_body_util::{BodyExt, Limited};
use serde_json::Value;

use crate::{
    Shared,
    call::{self, Call, Route, Verb},
    delete::{DeleteOptions, Deleted, Propagation},
    discovery,
    failure::{Cause, Failure},
    faults::{Fate, Verdict},
    list,
    object::{Key, Object, json_bytes, text},
    patch::PatchKind,
    review, watch,
    write::WriteOptions,
};

/// The connection broke, on the order of a fault.
#[derive(Debug, thiserror::Error)]
#[error("the connection to the cluster was broken by a scripted fault")]
pub(crate) struct Broken;

/// A request whose body was read.
struct Received {
    headers: HeaderMap,
    body: Bytes,
}

/// Answers a request. Every refusal is an answer too; an error means that there is none.
pub(crate) async fn handle<B>(shared: Arc<Shared>, request: Request<B>) -> Result<Response<Body>, Broken>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<axum::BoxError>,
{
    if shared.faults.is_down() {
        return Err(Broken);
    }
    shared.faults.deliverable().await;
    answer(shared, request, true).await
}

/// Answers a request that no scripted fault concerns.
pub(crate) async fn handle_steadily<B>(
    shared: Arc<Shared>,
    request: Request<B>,
) -> Result<Response<Body>, Broken>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<axum::BoxError>,
{
    answer(shared, request, false).await
}

async fn answer<B>(
    shared: Arc<Shared>,
    request: Request<B>,
    has_faults: bool,
) -> Result<Response<Body>, Broken>
where
    B: http_body::Body<Data = Bytes> + Send,
    B::Error: Into<axum::BoxError>,
{
    let (parts, body) = request.into_parts();
    let route = match call::route(&shared.served, &parts.method, &parts.uri) {
        Ok(route) => route,
        Err(failure) => return Ok(refusal(&failure)),
    };
    let body = match Limited::new(body, shared.config.max_body).collect().await {
        Ok(body) => body.to_bytes(),
        Err(error) if error.is::<http_body_util::LengthLimitError>() => {
            return Ok(refusal(&Failure::too_large(shared.config.max_body)));
        }
        // The client went away while it was still talking.
        Err(_) => return Err(Broken),
    };
    let received = Received { headers: parts.headers, body };
    match route {
        Route::Objects(call) => objects(&shared, call, received, has_faults).await,
        Route::Other(path) => {
            let path: Vec<&str> = path.iter().map(String::as_str).collect();
            Ok(other(&shared, &parts.method, &path, &received).unwrap_or_else(|failure| refusal(&failure)))
        }
    }
}

/// What is asked without naming an object.
fn other(
    shared: &Shared,
    method: &Method,
    path: &[&str],
    received: &Received,
) -> Result<Response<Body>, Failure> {
    if let Some((review, namespace)) = discovery::review(path) {
        if method != Method::POST {
            return Err(Failure::method_not_allowed());
        }
        let answer = shared.reviews.answer(review.kind, namespace, received.json()?)?;
        return Ok(json(StatusCode::CREATED, json_bytes(&answer)));
    }
    let answer = discovery::answer(shared, path)?;
    if method != Method::GET && method != Method::HEAD {
        return Err(Failure::method_not_allowed());
    }
    match answer {
        Value::String(text) => Ok(response(StatusCode::OK, "text/plain; charset=utf-8", Body::from(text))),
        document => Ok(json(StatusCode::OK, json_bytes(&document))),
    }
}

/// The same where a missing answer cannot be expressed.
pub(crate) async fn handle_always(
    shared: Arc<Shared>,
    request: Request<Body>,
) -> Result<Response<Body>, Infallible> {
    let broken = |_| refusal(&Failure::scripted(503, None));
    Ok(handle(shared, request).await.unwrap_or_else(broken))
}

async fn objects(
    shared: &Arc<Shared>,
    call: Call,
    received: Received,
    has_faults: bool,
) -> Result<Response<Body>, Broken> {
    let judged = if has_faults { shared.faults.judge(&call) } else { Verdict::default() };
    let Verdict { delay, stale_events, fate } = judged;
    if !delay.is_zero() {
        tokio::time::sleep(delay).await;
    }
    match fate {
        Fate::Fail(failure) => return Ok(refusal(&failure)),
        Fate::Reset => return Err(Broken),
        Fate::Hang => std::future::pending().await,
        Fate::Serve | Fate::LoseReply => {}
    }
    let answer =
        serve(shared, &call, received, stale_events, has_faults).unwrap_or_else(|failure| refusal(&failure));
    // A black hole that opened meanwhile swallows the answer.
    if has_faults {
        shared.faults.deliverable().await;
    }
    if matches!(fate, Fate::LoseReply) { Err(Broken) } else { Ok(answer) }
}

fn serve(
    shared: &Arc<Shared>,
    call: &Call,
    received: Received,
    stale_events: usize,
    has_faults: bool,
) -> Result<Response<Body>, Failure> {
    check_subresource(call)?;
    let key = Key::new(&call.namespace, &call.name);
    match call.verb {
        Verb::Get => {
            let state = shared.state.lock();
            let (asked, current) =
                (call.params.number("resourceVersion")?.unwrap_or(0), state.store.revision());
            if asked > current {
                return Err(Failure::future_version(asked, current));
            }
            let found = state.store.get(call.resource, &key);
            let object = found.ok_or_else(|| Failure::not_found(&call.resource, &call.name))?;
            Ok(json(StatusCode::OK, object.json()))
        }
        Verb::List => {
            let body = list::list(&shared.state.lock().store, call, stale_events)?;
            Ok(json(StatusCode::OK, body))
        }
        Verb::Watch => {
            let live =
                shared.faults.open_watch(call, shared.config.max_watches, !has_faults).ok_or_else(|| {
                    Failure::too_many_requests("too many watches are open, please try again later")
                })?;
            let events = watch::start(shared, call, live)?;
            Ok(response(StatusCode::OK, "application/json", Body::from_stream(events)))
        }
        Verb::Create => create(shared, call, &received),
        Verb::Update => update(shared, call, &key, &received),
        Verb::Patch => patch(shared, call, &key, &received),
        Verb::Delete => delete(shared, call, &key, &received),
        Verb::DeleteCollection => delete_collection(shared, call, &received),
    }
}

fn check_subresource(call: &Call) -> Result<(), Failure> {
    let known = match call.subresource.as_str() {
        "" => true,
        "status" => call.resource.status && matches!(call.verb, Verb::Get | Verb::Update | Verb::Patch),
        "finalize" => call.resource.kind == "Namespace" && call.verb == Verb::Update,
        "token" => call.resource.kind == "ServiceAccount" && call.verb == Verb::Create,
        "eviction" | "binding" => call.resource.kind == "Pod" && call.verb == Verb::Create,
        _ => false,
    };
    if known { Ok(()) } else { Err(Failure::no_such_path()) }
}

fn create(shared: &Shared, call: &Call, received: &Received) -> Result<Response<Body>, Failure> {
    let value = received.json()?;
    if !call.subresource.is_empty() {
        return create_on(shared, call, &value, received);
    }
    let options = write_options(call, received)?;
    let mut state = shared.state.lock();
    let object = state.writer(shared).create(call.resource, &call.namespace, value, &options)?;
    drop(state);
    Ok(json(StatusCode::CREATED, object.json()))
}

/// What is done to an object by creating something on it.
fn create_on(
    shared: &Shared,
    call: &Call,
    value: &Value,
    received: &Received,
) -> Result<Response<Body>, Failure> {
    let key = Key::new(&call.namespace, &call.name);
    let mut options = write_options(call, received)?;
    let mut state = shared.state.lock();
    let Some(object) = state.store.get(call.resource, &key).cloned() else {
        return Err(Failure::not_found(&call.resource, &call.name));
    };
    let mut writer = state.writer(shared);
    match call.subresource.as_str() {
        "token" => {
            drop(state);
            let answer = review::issue_token(shared, &object, value.clone())?;
            return Ok(json(StatusCode::CREATED, json_bytes(&answer)));
        }
        "binding" => {
            options.subresource.clear();
            writer.bind(call.resource, &key, &object, text(value, "/target/name"), &options)?;
        }
        _ => {
            let grace_seconds = value["deleteOptions"]["gracePeriodSeconds"].as_u64();
            writer.delete(call.resource, &key, &DeleteOptions { grace_seconds, ..Default::default() })?;
        }
    }
    Ok(json(StatusCode::CREATED, json_bytes(&success())))
}

fn success() -> Value {
    serde_json::json!({ "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201 })
}

fn update(shared: &Shared, call: &Call, key: &Key, received: &Received) -> Result<Response<Body>, Failure> {
    let value = received.json()?;
    let options = write_options(call, received)?;
    let mut state = shared.state.lock();
    let (object, created) = state.writer(shared).update(call.resource, key, value, &options)?;
    drop(state);
    Ok(json(if created { StatusCode::CREATED } else { StatusCode::OK }, object.json()))
}

fn patch(shared: &Shared, call: &Call, key: &Key, received: &Received) -> Result<Response<Body>, Failure> {
    let kind = PatchKind::of(received.header(header::CONTENT_TYPE))?;
    let patch = received.json()?;
    let options = write_options(call, received)?;
    let mut state = shared.state.lock();
    let mut writer = state.writer(shared);
    let (object, created) = match kind {
        PatchKind::Apply if call.params.text("fieldManager").is_empty() => {
            let cause = Cause::required("fieldManager", "is required for apply patch");
            return Err(Failure::invalid_options("PatchOptions", cause));
        }
        PatchKind::Apply => writer.apply(call.resource, key, patch, call.params.is_set("force"), &options)?,
        _ => (writer.patch(call.resource, key, kind, patch, &options)?, false),
    };
    drop(state);
    Ok(json(if created { StatusCode::CREATED } else { StatusCode::OK }, object.json()))
}

fn delete(shared: &Shared, call: &Call, key: &Key, received: &Received) -> Result<Response<Body>, Failure> {
    let options = delete_options(call, received)?;
    let mut state = shared.state.lock();
    let deleted = state.writer(shared).delete(call.resource, key, &options)?;
    drop(state);
    match deleted {
        Deleted::Pending(object) => Ok(json(StatusCode::OK, object.json())),
        Deleted::Gone(object) if call.resource.returns_deleted() => Ok(json(StatusCode::OK, object.json())),
        Deleted::Gone(object) => Ok(json(StatusCode::OK, json_bytes(&gone(call, &object)))),
    }
}

fn gone(call: &Call, object: &Object) -> Value {
    let mut details = serde_json::json!({ "name": call.name });
    if !call.resource.group.is_empty() {
        details["group"] = call.resource.group.into();
    }
    details["kind"] = call.resource.plural.into();
    details["uid"] = object.uid().into();
    serde_json::json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "details": details,
    })
}

fn delete_collection(shared: &Shared, call: &Call, received: &Received) -> Result<Response<Body>, Failure> {
    let options = delete_options(call, received)?;
    let mut state = shared.state.lock();
    let listed = list::select(&state.store, call)?;
    let mut writer = state.writer(shared);
    for object in &listed {
        // A cascade from one of them may have taken another.
        match writer.delete(call.resource, &object.key(), &options) {
            Ok(_) => {}
            Err(failure) if failure.code == 404 => {}
            Err(failure) => return Err(failure),
        }
    }
    let revision = state.store.revision();
    drop(state);
    Ok(json(StatusCode::OK, list::whole(call, revision, &listed)))
}

impl Received {
    fn header(&self, name: header::HeaderName) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body. JSON whatever it is called, as long as it is not called something else that we know of: a client that
    /// speaks protobuf must hear why it is not understood.
    fn json(&self) -> Result<Value, Failure> {
        let content_type = self.header(header::CONTENT_TYPE);
        if content_type.contains("protobuf") || content_type.contains("cbor") {
            return Err(Failure::unsupported_media("application/json"));
        }
        serde_json::from_slice(&self.body).map_err(|error| {
            Failure::bad_request(format!("the body of the request is not valid JSON: {error}"))
        })
    }
}

fn write_options(call: &Call, received: &Received) -> Result<WriteOptions, Failure> {
    let dry_run = match call.params.text("dryRun") {
        "" => false,
        "All" => true,
        other => {
            let cause = Cause::unsupported("dryRun", other, "\"All\"");
            return Err(Failure::invalid_options("PatchOptions", cause));
        }
    };
    let agent = received.header(header::USER_AGENT);
    let manager = match call.params.text("fieldManager") {
        "" => agent.split('/').next().unwrap_or_default(),
        named => named,
    };
    let manager = if manager.is_empty() { "unknown" } else { manager };
    Ok(WriteOptions {
        manager: manager.to_owned(),
        dry_run,
        subresource: call.subresource.clone(),
        applied: false,
    })
}

/// From the body, else from the query.
fn delete_options(call: &Call, received: &Received) -> Result<DeleteOptions, Failure> {
    let body = if received.body.is_empty() { Value::Null } else { received.json()? };
    let text = |name: &str| body[name].as_str().unwrap_or_else(|| call.params.text(name));
    let orphans = body["orphanDependents"].as_bool();
    let propagation = match text("propagationPolicy") {
        "" => orphans.map(|orphans| if orphans { Propagation::Orphan } else { Propagation::Background }),
        "Background" => Some(Propagation::Background),
        "Foreground" => Some(Propagation::Foreground),
        "Orphan" => Some(Propagation::Orphan),
        other => {
            let supported = "\"Foreground\", \"Background\", \"Orphan\", \"nil\"";
            let cause = Cause::unsupported("propagationPolicy", other, supported);
            return Err(Failure::invalid_options("DeleteOptions", cause));
        }
    };
    let grace_seconds = match body["gracePeriodSeconds"].as_u64() {
        Some(seconds) => Some(seconds),
        None => call.params.number("gracePeriodSeconds")?,
    };
    let precondition = |name: &str| body["preconditions"][name].as_str().map(str::to_owned);
    let dry_run = !call.params.text("dryRun").is_empty()
        || body["dryRun"].as_array().is_some_and(|all| !all.is_empty());
    Ok(DeleteOptions {
        propagation,
        grace_seconds,
        uid: precondition("uid"),
        resource_version: precondition("resourceVersion"),
        dry_run,
    })
}

fn refusal(failure: &Failure) -> Response<Body> {
    let status = StatusCode::from_u16(failure.code).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
    let mut response = json(status, json_bytes(&failure.status()));
    if let Some(seconds) = failure.retry_after_seconds() {
        response.headers_mut().insert(header::RETRY_AFTER, HeaderValue::from(seconds));
    }
    response
}

pub(crate) fn json(status: StatusCode, body: Bytes) -> Response<Body> {
    response(status, "application/json", Body::from(body))
}

fn response(status: StatusCode, content_type: &'static str, body: Body) -> Response<Body> {
    let mut response = Response::new(body);
    *response.status_mut() = status;
    response.headers_mut().insert(header::CONTENT_TYPE, HeaderValue::from_static(content_type));
    response
}
